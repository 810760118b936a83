//! Why a type refused a value, in the words of Kubernetes' decoder; and what that decoder would
//! have let pass.

use base64::Engine as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};

use crate::schema::{self, Definition, Type};

/// The value with what Kubernetes reads as the zero value made so (a null in a map or list), or
/// the first thing wrong with it.
pub fn repair(definition: &str, value: &Value) -> Result<Value, String> {
    let Some(definition) = schema::definition(definition) else {
        return Err(format!("no schema of {definition}"));
    };
    Walk {
        owner: definition,
        path: String::new(),
    }
    .object(definition, value)
}

/// What a value is, as Kubernetes' decoder calls it.
pub fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
    .into()
}

/// Where in the object the walk is: the struct whose field is read, and the fields from the root.
struct Walk {
    owner: &'static Definition,
    path: String,
}

impl Walk {
    fn object(&self, definition: &'static Definition, value: &Value) -> Result<Value, String> {
        let Value::Object(object) = value else {
            return Err(self.mismatch(value, &format!("v1.{}", definition.short_name())));
        };
        let mut out = Map::new();
        for (key, value) in object {
            let value = match definition.fields.get(key.as_str()) {
                Some(_) if value.is_null() => Value::Null,
                Some(field) => {
                    let dot = if self.path.is_empty() { "" } else { "." };
                    let path = format!("{}{dot}{key}", self.path);
                    Walk {
                        owner: definition,
                        path,
                    }
                    .any(&field.ty, value)?
                }
                None => value.clone(),
            };
            out.insert(key.clone(), value);
        }
        Ok(Value::Object(out))
    }

    fn any(&self, ty: &Type, value: &Value) -> Result<Value, String> {
        if value.is_null() {
            return Ok(zero(ty));
        }
        match (ty, value) {
            (Type::Any, _) => Ok(value.clone()),
            (Type::Ref(name), _) => match schema::definition(name) {
                Some(definition) => self.object(definition, value),
                None => Ok(value.clone()),
            },
            (Type::SchemaOr(either), value) => match schema::definition(&either.schema) {
                Some(definition) if value.is_object() => self.object(definition, value),
                _ => self.any(&either.other, value),
            },
            (Type::List(item), Value::Array(list)) => list
                .iter()
                .map(|v| self.any(item, v))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            (Type::Map(item), Value::Object(map)) => map
                .iter()
                .map(|(k, v)| Ok((k.clone(), self.any(item, v)?)))
                .collect::<Result<_, String>>()
                .map(Value::Object),
            (Type::Bool, Value::Bool(_)) | (Type::String, Value::String(_)) => Ok(value.clone()),
            (Type::Number, Value::Number(_)) => Ok(value.clone()),
            (Type::Quantity, Value::String(_) | Value::Number(_)) => Ok(value.clone()),
            (Type::Quantity, _) => Err(crate::quantity::FORMAT.into()),
            (Type::Int32 | Type::Int64, Value::Number(n)) => self.integer(ty, n, value),
            (Type::IntOrString, Value::String(_)) => Ok(value.clone()),
            (Type::IntOrString, Value::Number(n)) => self.integer(&Type::Int32, n, value),
            (Type::IntOrString, _) => Err(format!(
                "json: cannot unmarshal {} into Go value of type int32",
                describe(value)
            )),
            (Type::Time, Value::String(text)) => time(text, value),
            (Type::Bytes, Value::String(text)) => bytes(text, value),
            _ => Err(self.mismatch(value, &ty.go_name())),
        }
    }

    fn integer(
        &self,
        ty: &Type,
        number: &serde_json::Number,
        value: &Value,
    ) -> Result<Value, String> {
        let fits = match ty {
            Type::Int32 => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            _ => number.as_i64().is_some(),
        };
        if fits {
            Ok(value.clone())
        } else {
            Err(self.refusal(&format!("number {number}"), &ty.go_name()))
        }
    }

    fn mismatch(&self, value: &Value, ty: &str) -> String {
        self.refusal(&describe(value), ty)
    }

    fn refusal(&self, what: &str, ty: &str) -> String {
        format!(
            "json: cannot unmarshal {what} into Go struct field {}.{} of type {ty}",
            self.owner.short_name(),
            self.path
        )
    }
}

/// What Go leaves in place for a null.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::String => "".into(),
        Type::Bool => false.into(),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => 0.into(),
        Type::Quantity => "0".into(),
        Type::Ref(_) => Value::Object(Map::new()),
        Type::List(_) => Value::Array(Vec::new()),
        Type::Map(_) => Value::Object(Map::new()),
        Type::Bytes => "".into(),
        Type::Time | Type::Any | Type::SchemaOr(_) => Value::Null,
    }
}

fn time(text: &str, value: &Value) -> Result<Value, String> {
    match serde_json::from_value::<Time>(value.clone()) {
        Ok(_) => Ok(value.clone()),
        Err(_) => Err(format!(
            "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \
             \"2006\""
        )),
    }
}

fn bytes(text: &str, value: &Value) -> Result<Value, String> {
    use base64::DecodeError::{InvalidByte, InvalidLastSymbol, InvalidLength, InvalidPadding};
    let engine = base64::engine::general_purpose::STANDARD;
    let stripped: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match engine.decode(&stripped) {
        Ok(_) if stripped.len() == text.len() => Ok(value.clone()),
        Ok(_) => Ok(stripped.into()),
        Err(InvalidByte(at, _) | InvalidLastSymbol(at, _) | InvalidLength(at)) => {
            Err(format!("illegal base64 data at input byte {at}"))
        }
        Err(InvalidPadding) => Err(format!(
            "illegal base64 data at input byte {}",
            stripped.len() / 4 * 4
        )),
    }
}
