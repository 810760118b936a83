//! Value → Kubernetes' protobuf, for clients that ask for it: typed Go clients do, for built-in kinds.
//!
//! The types are those of the schema and the numbers those that `decode/protobuf` reads by. Zeros of
//! fields that are no pointers are left out; Go's decoder fills them in.

use base64::Engine as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use crate::decode::protobuf::{MAGIC, numbers};
use crate::resource::Resource;
use crate::schema::{self, Definition, SchemaOr, Type};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// Whether objects of this type have a form in protobuf: those of built-in kinds.
pub fn is_known(resource: &Resource) -> bool {
    resource.custom.is_none()
}

/// An object of this kind, whole.
///
/// # Errors
/// The kind is not built in, or a value is not of its type.
pub fn object(resource: &Resource, object: &Value) -> Result<Vec<u8>, String> {
    let message = message(&resource.definition, object)?;
    Ok(envelope(&resource.api_version(), &resource.kind, &message))
}

/// A list of objects of this kind; `metadata` is the list's.
///
/// # Errors
/// The kind is not built in, or a value is not of its type.
pub fn list(resource: &Resource, metadata: &Value, items: &[Value]) -> Result<Vec<u8>, String> {
    let items = items.iter().map(|item| message(&resource.definition, item));
    let message = list_message(metadata, items)?;
    Ok(envelope(
        &resource.api_version(),
        &resource.list_kind,
        &message,
    ))
}

/// A Status.
///
/// # Errors
/// A value is not of its type.
pub fn status(status: &Value) -> Result<Vec<u8>, String> {
    Ok(envelope("v1", "Status", &message(STATUS, status)?))
}

/// A `PartialObjectMetadata`, of any kind.
///
/// # Errors
/// A value is not of its type.
pub fn partial(version: &str, object: &Value) -> Result<Vec<u8>, String> {
    let message = partial_message(object)?;
    Ok(envelope(
        &meta_version(version),
        "PartialObjectMetadata",
        &message,
    ))
}

/// A list of those.
///
/// # Errors
/// A value is not of its type.
pub fn partial_list(version: &str, metadata: &Value, items: &[Value]) -> Result<Vec<u8>, String> {
    let message = list_message(metadata, items.iter().map(partial_message))?;
    let kind = "PartialObjectMetadataList";
    Ok(envelope(&meta_version(version), kind, &message))
}

/// An event of a watch, with its length in front; the object is encoded already.
pub fn watch_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut raw, 1, object);
    let mut event = Vec::with_capacity(raw.len() + 32);
    // Room for the length.
    event.extend([0; 4]);
    put_bytes(&mut event, 1, kind.as_bytes());
    put_bytes(&mut event, 2, &raw);
    // Objects are far smaller than four gigabytes.
    let length = u32::try_from(event.len() - 4).unwrap_or(u32::MAX);
    event[..4].copy_from_slice(&length.to_be_bytes());
    event
}

fn meta_version(version: &str) -> String {
    format!("meta.k8s.io/{version}")
}

fn partial_message(object: &Value) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &message(OBJECT_META, &object["metadata"])?);
    Ok(out)
}

fn list_message(
    metadata: &Value,
    items: impl Iterator<Item = Result<Vec<u8>, String>>,
) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &message(LIST_META, metadata)?);
    for item in items {
        put_bytes(&mut out, 2, &item?);
    }
    Ok(out)
}

/// The four bytes, and the message with what it is. Go writes the two empty texts, too.
fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut what = Vec::new();
    put_bytes(&mut what, 1, api_version.as_bytes());
    put_bytes(&mut what, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(message.len() + what.len() + 32);
    out.extend(MAGIC);
    put_bytes(&mut out, 1, &what);
    put_bytes(&mut out, 2, message);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

fn message(name: &str, value: &Value) -> Result<Vec<u8>, String> {
    let definition = schema::definition(name).ok_or_else(|| format!("no schema of {name}"))?;
    let mut out = Vec::new();
    match value {
        Value::Object(object) => fields(&mut out, definition, name, object)?,
        Value::Null => {}
        _ => return Err(format!("no {name}")),
    }
    Ok(out)
}

/// Writes the fields of a message that stand in the object.
fn fields(
    out: &mut Vec<u8>,
    definition: &Definition,
    message: &str,
    object: &Map<String, Value>,
) -> Result<(), String> {
    let numbers = numbers().get(message);
    let numbers = numbers.ok_or_else(|| format!("no protobuf fields of {message}"))?;
    for (number, name) in numbers {
        if let Some(inner) = name.strip_prefix('@') {
            let mut nested = Vec::new();
            fields(&mut nested, definition, inner, object)?;
            if !nested.is_empty() {
                put_bytes(out, *number, &nested);
            }
        } else if let (Some(field), Some(value)) =
            (definition.fields.get(name), object.get(&**name))
        {
            put(out, *number, &field.ty, value).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    Ok(())
}

/// Writes a field: an item each for lists and maps.
fn put(out: &mut Vec<u8>, number: u32, ty: &Type, value: &Value) -> Result<(), String> {
    match (ty, value) {
        (_, Value::Null) => Ok(()),
        (Type::List(item), Value::Array(list)) => list
            .iter()
            .try_for_each(|value| put_item(out, number, item, value)),
        (Type::Map(item), Value::Object(map)) => map.iter().try_for_each(|(key, value)| {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, key.as_bytes());
            put_item(&mut entry, 2, item, value)?;
            put_bytes(out, number, &entry);
            Ok(())
        }),
        (Type::List(_) | Type::Map(_), _) => Err(misfit(ty)),
        _ => put_item(out, number, ty, value),
    }
}

/// Writes what has one place. A null in a list is what Go leaves there: nothing.
fn put_item(out: &mut Vec<u8>, number: u32, ty: &Type, value: &Value) -> Result<(), String> {
    match (ty, value) {
        (Type::Bool, Value::Bool(is)) => put_varint(out, number, u64::from(*is)),
        (Type::Int32 | Type::Int64, Value::Number(n)) => {
            let n = n.as_i64().ok_or_else(|| misfit(ty))?;
            put_varint(out, number, n as u64);
        }
        (Type::Number, Value::Number(n)) => {
            let n = n.as_f64().ok_or_else(|| misfit(ty))?;
            varint(out, u64::from(number) << 3 | 1);
            out.extend(n.to_bits().to_le_bytes());
        }
        (Type::String, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
        (Type::Bytes, Value::String(text)) => {
            let engine = base64::engine::general_purpose::STANDARD;
            let bytes = engine.decode(text).map_err(|e| e.to_string())?;
            put_bytes(out, number, &bytes);
        }
        (ty, value) => put_bytes(out, number, &nested(ty, value)?),
    }
    Ok(())
}

/// What stands in a message of its own.
fn nested(ty: &Type, value: &Value) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match (ty, value) {
        (Type::Quantity, Value::String(text)) => put_bytes(&mut out, 1, text.as_bytes()),
        (Type::Quantity, Value::Number(n)) => put_bytes(&mut out, 1, n.to_string().as_bytes()),
        (Type::IntOrString, Value::Number(n)) => {
            put_varint(&mut out, 1, 0);
            put_varint(&mut out, 2, n.as_i64().unwrap_or_default() as u64);
        }
        (Type::IntOrString, Value::String(text)) => {
            put_varint(&mut out, 1, 1);
            put_bytes(&mut out, 3, text.as_bytes());
        }
        (Type::Time | Type::MicroTime, Value::String(text)) => {
            let at: Timestamp = text.parse().map_err(|_| misfit(ty))?;
            put_varint(&mut out, 1, at.as_second() as u64);
            put_varint(&mut out, 2, at.subsec_nanosecond() as u64);
        }
        (Type::Any, value) => put_bytes(&mut out, 1, value.to_string().as_bytes()),
        (Type::Ref(name), value) => return message(name, value),
        (Type::SchemaOr(either), value) => schema_or(&mut out, either, value)?,
        // A list where only a message can stand, as the value of a map.
        (Type::List(_), value) => put(&mut out, 1, ty, value)?,
        (_, Value::Null) => {}
        _ => return Err(misfit(ty)),
    }
    Ok(out)
}

/// A message with a field for the schema and one for what else it may be. A schema also allows.
fn schema_or(out: &mut Vec<u8>, either: &SchemaOr, value: &Value) -> Result<(), String> {
    let numbers = numbers().get(&either.name);
    let numbers = numbers.ok_or_else(|| format!("no protobuf fields of {}", either.name))?;
    for (number, name) in numbers {
        match (&**name == "schema", value.is_object()) {
            (true, true) => put(out, *number, &either.schema, value)?,
            (false, false) => put(out, *number, &either.other, value)?,
            (false, true) if either.other == Type::Bool => put_varint(out, *number, 1),
            _ => {}
        }
    }
    Ok(())
}

fn misfit(ty: &Type) -> String {
    format!("no {}", ty.go_name())
}

fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    varint(out, u64::from(number) << 3);
    varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{FieldValidation, Format, find, resources, tests::Tape, views};

    fn decoded(resource: &Resource, body: &[u8]) -> Value {
        let decoded = resource.decode(body, Format::Protobuf, FieldValidation::Strict);
        decoded.unwrap().object
    }

    #[test]
    fn an_object_is_written_as_go_writes_it() {
        let maps = find("", "v1", "configmaps").unwrap();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
            "data": {"k": "v"}});
        let expected = [
            &b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x0d"[..],
            b"\x0a\x03\x0a\x01a\x12\x06\x0a\x01k\x12\x01v\x1a\x00\x22\x00",
        ];
        assert_eq!(object(maps, &map).unwrap(), expected.concat());
    }

    #[test]
    fn an_event_has_its_length_in_front_and_its_object_inside() {
        assert_eq!(
            watch_event("ADDED", b"x"),
            b"\0\0\0\x0c\x0a\x05ADDED\x12\x03\x0a\x01x"
        );
    }

    #[test]
    fn a_list_has_its_metadata_and_every_item() {
        let maps = find("", "v1", "configmaps").unwrap();
        let item = json!({"metadata": {"name": "a"}});
        let list = list(
            maps,
            &json!({"resourceVersion": "7"}),
            &[item.clone(), item],
        )
        .unwrap();
        let text = String::from_utf8_lossy(&list);
        assert!(text.contains("ConfigMapList"), "{text}");
        assert!(list.ends_with(b"\x12\x05\x0a\x03\x0a\x01a\x12\x05\x0a\x03\x0a\x01a\x1a\0\x22\0"));
    }

    #[test]
    fn a_status_names_its_causes() {
        let error = crate::ApiError::BadRequest("x".into()).status();
        let status = status(&serde_json::to_value(error).unwrap()).unwrap();
        assert!(String::from_utf8_lossy(&status).contains("BadRequest"));
    }

    #[test]
    fn a_kind_without_numbers_is_refused() {
        let mut custom = crate::kinds::core::config_map::resource();
        custom.definition = "example.com.v1.Custom".into();
        assert!(object(&custom, &json!({"metadata": {}})).is_err());
    }

    #[test]
    fn every_built_in_kind_has_numbers() {
        for kind in crate::registry::with_schema() {
            let has_numbers = numbers().contains_key(&*kind.definition);
            assert!(is_known(kind) && has_numbers, "{}", kind.definition);
        }
    }

    /// Protobuf does not tell an empty list or map from an absent one.
    fn without_empty(value: Value) -> Value {
        let is_empty = |value: &Value| match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        match value {
            Value::Object(fields) => {
                let fields = fields
                    .into_iter()
                    .map(|(key, value)| (key, without_empty(value)));
                fields
                    .filter(|(_, value)| !is_empty(value))
                    .collect::<Map<_, _>>()
                    .into()
            }
            Value::Array(list) => list.into_iter().map(without_empty).collect(),
            value => value,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn an_object_of_any_kind_comes_back_through_protobuf(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let faces = views().iter().map(|view| &view.resource);
            for resource in resources().iter().chain(faces) {
                let value = Tape::new(&bytes).object(&resource.definition, 0);
                let Ok(canonical) = resource.canonical(value, FieldValidation::Ignore) else {
                    continue;
                };
                let body = object(resource, &canonical.object);
                let body = body.map_err(|why| format!("{}: {why}", resource.definition)).unwrap();
                let back = without_empty(decoded(resource, &body));
                prop_assert_eq!(back, without_empty(canonical.object));
            }
        }
    }
}
