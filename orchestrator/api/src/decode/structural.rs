//! A value is brought to its canonical form by the definition of its type, in place and in one pass.
//!
//! By Go's rules (built-in types) a value of another type is refused in the words of Kubernetes'
//! decoder; a null is an absent field or, in a list or map, a zero value; zeros that Go's
//! `omitempty` leaves out are absent, and required fields are always there. By the rules of a
//! structural schema (custom kinds) defaults are filled in, and a value of another type stays for
//! validation to refuse. Both drop unknown fields, and report them by path.
//!
//! The walk goes as deep as the value, which the caller has checked against `limits`, and as the
//! defaults in it, which are bounded by the same limits where the schema was decoded.

use serde_json::{Map, Number, Value};

use super::{MAX_PROBLEMS, limits, scalar};
use crate::schema::{Definition, Rules, Type};

/// Makes the value canonical; the paths of the fields that were dropped because they are unknown,
/// or the first thing that is wrong.
pub fn canonicalize(definition: &Definition, value: &mut Value) -> Result<Vec<String>, String> {
    let mut walk = Walk::default();
    let root = Place {
        owner: definition,
        step: Step::Root,
    };
    match value {
        Value::Object(object) => walk.object(definition, object, &root)?,
        other => {
            return Err(format!(
                "json: cannot unmarshal {} into Go value of type {}",
                describe(other),
                go_struct(definition)
            ));
        }
    }
    Ok(walk.unknown)
}

/// What a value is, as Kubernetes' decoder calls it.
pub fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[derive(Default)]
struct Walk {
    unknown: Vec<String>,
    /// Bytes of defaults so far: a list of many empty objects may grow by each.
    defaulted: usize,
    /// What base64 is decoded to, kept for its memory.
    scratch: Vec<u8>,
}

/// Where in the document the walk is. Places are linked upwards and become text only for a report.
struct Place<'a> {
    /// The object whose field is read.
    owner: &'a Definition,
    step: Step<'a>,
}

enum Step<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    /// The key of a map.
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl Walk {
    fn object(
        &mut self,
        definition: &Definition,
        object: &mut Map<String, Value>,
        at: &Place<'_>,
    ) -> Result<(), String> {
        if definition.rules == Rules::Structural {
            self.fill_defaults(definition, object)?;
        }
        let mut outcome = Ok(());
        object.retain(|key, value| {
            outcome.is_err()
                || self.field(definition, key, value, at).unwrap_or_else(|e| {
                    outcome = Err(e);
                    true
                })
        });
        outcome?;
        self.complete(definition, object, at)
    }

    /// Fills in what is absent, or null where null is not allowed.
    fn fill_defaults(
        &mut self,
        definition: &Definition,
        object: &mut Map<String, Value>,
    ) -> Result<(), String> {
        for (name, field) in &definition.fields {
            let Some(default) = &field.default else {
                continue;
            };
            let absent = match object.get(&**name) {
                None => true,
                Some(value) => value.is_null() && !matches!(field.ty, Type::Nullable(_)),
            };
            if absent {
                self.defaulted += name.len() + limits::text_bytes(default);
                if self.defaulted > limits::MAX_TEXT_BYTES {
                    return Err(format!(
                        "the defaults of the schema add more than {} bytes",
                        limits::MAX_TEXT_BYTES
                    ));
                }
                object.insert(name.to_string(), default.clone());
            }
        }
        Ok(())
    }

    /// Writes the required fields that were left out, which Go does too. A time is asked for: the
    /// null that Go writes is none for the types.
    fn complete(
        &mut self,
        definition: &Definition,
        object: &mut Map<String, Value>,
        up: &Place<'_>,
    ) -> Result<(), String> {
        for name in &definition.always {
            if object.contains_key(&**name) {
                continue;
            }
            let at = Place {
                owner: definition,
                step: Step::Field(up, name),
            };
            let ty = &definition.fields[name].ty;
            let mut value = zero(ty);
            if value.is_null() {
                return Err(format!("{}: Required value", at.path()));
            }
            self.any(ty, &mut value, &at)?;
            object.insert(name.to_string(), value);
        }
        Ok(())
    }

    /// Whether the field stays.
    fn field(
        &mut self,
        definition: &Definition,
        key: &str,
        value: &mut Value,
        up: &Place<'_>,
    ) -> Result<bool, String> {
        let at = Place {
            owner: definition,
            step: Step::Field(up, key),
        };
        let Some(field) = definition.fields.get(key) else {
            if !definition.keeps_unknown && self.unknown.len() < MAX_PROBLEMS {
                self.unknown.push(at.path());
            }
            return Ok(definition.keeps_unknown);
        };
        if value.is_null() {
            return Ok(matches!(field.ty, Type::Nullable(_)));
        }
        self.any(&field.ty, value, &at)?;
        Ok(field.keeps_zero || !is_zero(&field.ty, value))
    }

    fn any(&mut self, ty: &Type, value: &mut Value, at: &Place<'_>) -> Result<(), String> {
        match (ty, &mut *value) {
            (Type::Any, _) => Ok(()),
            (Type::Nullable(ty), inner) => match inner {
                Value::Null => Ok(()),
                inner => self.any(ty, inner, at),
            },
            (_, Value::Null) => {
                if at.owner.rules == Rules::Structural {
                    return Ok(());
                }
                *value = zero(ty);
                if value.is_null() {
                    return Ok(());
                }
                self.any(ty, value, at)
            }
            (Type::SchemaOr(either), Value::Object(_)) => self.any(&either.schema, value, at),
            (Type::SchemaOr(either), _) => self.any(&either.other, value, at),
            (Type::List(item), Value::Array(list)) => self.list(item, list, at),
            (Type::Map(item), Value::Object(map)) => self.map(item, map, at),
            (Type::Ref(reference), inner) => match (reference.definition(), inner) {
                (Some(definition), Value::Object(object)) => self.object(definition, object, at),
                (Some(definition), other) => {
                    Err(at.refusal(describe(other), &go_struct(definition)))
                }
                (None, _) => Ok(()),
            },
            (Type::Inline(definition), Value::Object(object)) => {
                self.object(definition, object, at)
            }
            _ if at.owner.rules == Rules::Structural => Ok(()),
            _ => self.scalar(ty, value, at),
        }
    }

    fn list(&mut self, item: &Type, list: &mut [Value], up: &Place<'_>) -> Result<(), String> {
        for (index, value) in list.iter_mut().enumerate() {
            let at = Place {
                owner: up.owner,
                step: Step::Index(up, index),
            };
            self.any(item, value, &at)?;
        }
        Ok(())
    }

    fn map(
        &mut self,
        item: &Type,
        map: &mut Map<String, Value>,
        up: &Place<'_>,
    ) -> Result<(), String> {
        // What has no zero value, such as a time, is dropped by Go's rules too: no type reads it again.
        let nulls_stay = match up.owner.rules {
            Rules::Structural => matches!(item, Type::Nullable(_) | Type::Any),
            Rules::Go => *item == Type::Any || !zero(item).is_null(),
        };
        if !nulls_stay {
            map.retain(|_, value| !value.is_null());
        }
        for (key, value) in map.iter_mut() {
            let at = Place {
                owner: up.owner,
                step: Step::Key(up, key),
            };
            self.any(item, value, &at)?;
        }
        Ok(())
    }

    fn scalar(&mut self, ty: &Type, value: &mut Value, at: &Place<'_>) -> Result<(), String> {
        let text = match (ty, &*value) {
            (Type::Bool, Value::Bool(_))
            | (Type::String | Type::IntOrString, Value::String(_))
            | (Type::Number, Value::Number(_)) => None,
            (Type::Int32 | Type::IntOrString, Value::Number(n)) if is_int32(n) => None,
            (Type::Int64, Value::Number(n)) if n.is_i64() => None,
            (Type::Int32 | Type::Int64 | Type::IntOrString, Value::Number(n)) => {
                return Err(at.refusal(&format!("number {n}"), &ty.go_name()));
            }
            (Type::IntOrString, other) => {
                return Err(format!(
                    "json: cannot unmarshal {} into Go value of type int32",
                    describe(other)
                ));
            }
            (Type::Quantity, amount) => scalar::quantity(amount)?,
            (Type::Time, Value::String(text)) => scalar::time(text)?,
            (Type::MicroTime, Value::String(text)) => scalar::micro_time(text)?,
            (Type::Bytes, Value::String(text)) => scalar::base64(text, &mut self.scratch)?,
            (_, other) => return Err(at.refusal(describe(other), &ty.go_name())),
        };
        if let Some(text) = text {
            *value = Value::String(text);
        }
        Ok(())
    }
}

fn is_int32(number: &Number) -> bool {
    number.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
}

/// What Go's `omitempty` leaves out. It writes a struct always, and a quantity and an `IntOrString`
/// are structs.
fn is_zero(ty: &Type, value: &Value) -> bool {
    match (ty, value) {
        (Type::Bool, Value::Bool(value)) => !value,
        (Type::String | Type::Bytes, Value::String(text)) => text.is_empty(),
        (Type::Int32 | Type::Int64 | Type::Number, Value::Number(number)) => {
            number.as_f64() == Some(0.0)
        }
        (Type::List(_), Value::Array(list)) => list.is_empty(),
        (Type::Map(_), Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

/// What Go leaves in place for a null.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::String | Type::Bytes => "".into(),
        Type::Bool => false.into(),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => 0.into(),
        Type::Quantity => "0".into(),
        Type::Ref(_) | Type::Inline(_) | Type::Map(_) => Value::Object(Map::new()),
        Type::List(_) => Value::Array(Vec::new()),
        Type::Time | Type::MicroTime | Type::Any | Type::SchemaOr(_) | Type::Nullable(_) => {
            Value::Null
        }
    }
}

fn go_struct(definition: &Definition) -> String {
    format!("v1.{}", definition.short_name())
}

impl Place<'_> {
    /// `spec.containers[0].image`, cut where it is too long to be shown.
    fn path(&self) -> String {
        let mut path = String::new();
        self.write(&mut path, true);
        limits::path_shown(&path).to_owned()
    }

    /// As Go's decoder has it: only fields, without keys and indexes.
    fn go_path(&self) -> String {
        let mut path = String::new();
        self.write(&mut path, false);
        path
    }

    fn write(&self, path: &mut String, whole: bool) {
        match self.step {
            Step::Root => {}
            Step::Field(up, name) => {
                up.write(path, whole);
                push_key(path, name);
            }
            Step::Key(up, key) => {
                up.write(path, whole);
                if whole {
                    push_key(path, key);
                }
            }
            Step::Index(up, index) => {
                up.write(path, whole);
                if whole {
                    path.push_str(&format!("[{index}]"));
                }
            }
        }
    }

    fn refusal(&self, what: &str, ty: &str) -> String {
        format!(
            "json: cannot unmarshal {what} into Go struct field {}.{} of type {ty}",
            self.owner.short_name(),
            self.go_path()
        )
    }
}

fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

#[cfg(test)]
pub(crate) mod tests;
