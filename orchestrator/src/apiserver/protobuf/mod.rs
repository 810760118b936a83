//! Request bodies in Kubernetes' protobuf, which kubectl sends from 1.32 on: made into the JSON
//! that the client could have sent instead. Answers are JSON; every client accepts that too. Pure.
//!
//! Types come from the published schemas, so only the field numbers are kept here. Go writes every
//! field that is no pointer, set or not; those are left out as Go's JSON leaves them out.

mod reader;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use crate::api::schema::{self, Definition, Type};
use crate::api::{self, ApiError, Resource, scheme};
use reader::{Broken, Field, Reader};

/// What clients call the encoding.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Every body begins with it.
const MAGIC: &[u8] = b"k8s\0";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Fields that are pointers in Go: a zero that is written is meant.
const POINTERS: &[&str] = &[
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "blockOwnerDeletion",
    "controller",
    "defaultMode",
    "deletionGracePeriodSeconds",
    "enableServiceLinks",
    "expirationSeconds",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "leaseDurationSeconds",
    "leaseTransitions",
    "mode",
    "optional",
    "orphanDependents",
    "priority",
    "privileged",
    "progressDeadlineSeconds",
    "publishNotReadyAddresses",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "started",
    "terminating",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
];

/// The object of a body as JSON, with its apiVersion and kind.
pub fn decode(body: &[u8]) -> Result<Value, ApiError> {
    let envelope = Envelope::of(body).map_err(|broken| bad(&broken))?;
    let name = definition_of(&envelope)?;
    let mut object = message(envelope.raw, name).map_err(|broken| bad(&broken))?;
    object.insert("apiVersion".to_owned(), envelope.api_version.into());
    object.insert("kind".to_owned(), envelope.kind.into());
    Ok(Value::Object(object))
}

fn bad(broken: &Broken) -> ApiError {
    ApiError::BadRequest(format!("the body is not Kubernetes' protobuf: {broken}"))
}

fn definition_of(envelope: &Envelope<'_>) -> Result<&'static str, ApiError> {
    let (version, kind) = (envelope.api_version, envelope.kind);
    if kind == "DeleteOptions" {
        return Ok(DELETE_OPTIONS);
    }
    let (group, number) = version.split_once('/').unwrap_or(("", version));
    let parts: [&Resource; 2] = [&scheme::SCALE, &scheme::BINDING];
    let part = parts
        .into_iter()
        .find(|part| (part.group, part.version, part.kind) == (group, number, kind));
    match api::find_kind(group, number, kind).or(part) {
        Some(resource) => Ok(resource.definition),
        None => Err(ApiError::BadRequest(format!(
            "no kind \"{kind}\" is registered for version \"{version}\""
        ))),
    }
}

/// `runtime.Unknown`: the object's kind around its bytes.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn of(body: &'a [u8]) -> Result<Self, Broken> {
        let body = body
            .strip_prefix(MAGIC)
            .ok_or(Broken("it does not begin with k8s"))?;
        let mut envelope = Self::default();
        for field in Reader::new(body) {
            match field? {
                (1, field) => {
                    for field in Reader::new(field.bytes()?) {
                        match field? {
                            (1, field) => envelope.api_version = field.text()?,
                            (2, field) => envelope.kind = field.text()?,
                            _ => {}
                        }
                    }
                }
                (2, field) => envelope.raw = field.bytes()?,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

/// JSON names by number; the second number is not 0 for the field of an inner message.
type Numbers = BTreeMap<(u32, u32), &'static str>;

fn numbers(definition: &str) -> Option<&'static Numbers> {
    static ALL: OnceLock<BTreeMap<&'static str, Numbers>> = OnceLock::new();
    ALL.get_or_init(parse_table).get(definition)
}

fn parse_table() -> BTreeMap<&'static str, Numbers> {
    let lines = include_str!("fields.txt")
        .lines()
        .filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let fields = words.filter_map(|word| {
                let (name, number) = word.split_once('=')?;
                let (outer, inner) = number.split_once('.').unwrap_or((number, "0"));
                Some(((outer.parse().ok()?, inner.parse().ok()?), name))
            });
            (name, fields.collect())
        })
        .collect()
}

fn message(bytes: &[u8], name: &str) -> Result<Map<String, Value>, Broken> {
    let definition = schema::definition(name).ok_or(Broken("its type is not known"))?;
    let numbers = numbers(name).ok_or(Broken("its fields are not known"))?;
    let mut out = Map::new();
    for field in Reader::new(bytes) {
        let (number, field) = field?;
        if let Some(name) = numbers.get(&(number, 0)) {
            put(&mut out, definition, name, field)?;
        } else if numbers.range((number, 1)..(number + 1, 0)).next().is_some() {
            for field in Reader::new(field.bytes()?) {
                let (inner, field) = field?;
                if let Some(name) = numbers.get(&(number, inner)) {
                    put(&mut out, definition, name, field)?;
                }
            }
        }
        // Fields of a newer Kubernetes are dropped, as Kubernetes itself drops them.
    }
    Ok(out)
}

fn put(
    out: &mut Map<String, Value>,
    definition: &Definition,
    name: &str,
    field: Field<'_>,
) -> Result<(), Broken> {
    let Some(known) = definition.fields.get(name) else {
        return Ok(());
    };
    match &known.ty {
        Type::List(item) => {
            let list = out.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let values = many(item, field)?;
            if let Some(list) = list.as_array_mut() {
                list.extend(values);
            }
        }
        Type::Map(item) => {
            let map = out.entry(name).or_insert_with(|| Value::Object(Map::new()));
            let (key, value) = pair(item, field)?;
            if let Some(map) = map.as_object_mut() {
                map.insert(key, value);
            }
        }
        ty => {
            let value = single(ty, field)?;
            if !is_unset(name, &value) {
                out.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// What Go's JSON would have left out.
fn is_unset(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Bool(false) => !POINTERS.contains(&name),
        Value::Number(number) => number.as_f64() == Some(0.0) && !is_meant(name),
        _ => false,
    }
}

/// A zero of a number or of an int-or-string that stands for itself.
fn is_meant(name: &str) -> bool {
    POINTERS.contains(&name) || matches!(name, "maxSurge" | "maxUnavailable")
}

/// The values of a list's field: one, or several numbers packed.
fn many(item: &Type, field: Field<'_>) -> Result<Vec<Value>, Broken> {
    match (item, field) {
        (Type::Int32 | Type::Int64, Field::Bytes(packed)) => Reader::new(packed)
            .varints()
            .map(|number| Ok(integer(item, number?)))
            .collect(),
        (item, field) => Ok(vec![single(item, field)?]),
    }
}

/// One entry of a map.
fn pair(item: &Type, field: Field<'_>) -> Result<(String, Value), Broken> {
    let mut key = String::new();
    // An entry whose value is empty may lack it.
    let mut value = match item {
        Type::Quantity => Value::from("0"),
        Type::Ref(_) => Value::Object(Map::new()),
        _ => Value::from(""),
    };
    for field in Reader::new(field.bytes()?) {
        match field? {
            (1, field) => field.text()?.clone_into(&mut key),
            (2, field) => value = single(item, field)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn single(ty: &Type, field: Field<'_>) -> Result<Value, Broken> {
    Ok(match ty {
        Type::Bool => (field.varint()? != 0).into(),
        Type::Int32 | Type::Int64 => integer(ty, field.varint()?),
        Type::Number => {
            Number::from_f64(f64::from_bits(field.fixed()?)).map_or(Value::Null, Value::Number)
        }
        Type::String => field.text()?.into(),
        Type::Bytes => STANDARD.encode(field.bytes()?).into(),
        Type::IntOrString => int_or_string(field.bytes()?)?,
        Type::Quantity => quantity(field.bytes()?)?,
        Type::Time => time(field.bytes()?)?,
        Type::Any => raw(field.bytes()?)?,
        Type::Ref(name) => Value::Object(message(field.bytes()?, name)?),
        Type::List(_) | Type::Map(_) => return Err(Broken("a list lies in a list")),
    })
}

/// Protobuf's varints are two's complement in 64 bits.
fn integer(ty: &Type, number: u64) -> Value {
    let number = number.cast_signed();
    match ty {
        Type::Int32 => i32::try_from(number).map_or(Value::from(number), Value::from),
        _ => number.into(),
    }
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Broken> {
    let (mut kind, mut number, mut text) = (0, 0, "");
    for field in Reader::new(bytes) {
        match field? {
            (1, field) => kind = field.varint()?,
            (2, field) => number = field.varint()?,
            (3, field) => text = field.text()?,
            _ => {}
        }
    }
    Ok(if kind == 0 {
        integer(&Type::Int32, number)
    } else {
        text.into()
    })
}

fn quantity(bytes: &[u8]) -> Result<Value, Broken> {
    let mut text = "";
    for field in Reader::new(bytes) {
        if let (1, field) = field? {
            text = field.text()?;
        }
    }
    Ok(text.into())
}

/// Go's zero time is no time.
fn time(bytes: &[u8]) -> Result<Value, Broken> {
    let (mut seconds, mut nanoseconds) = (0_i64, 0_i64);
    for field in Reader::new(bytes) {
        match field? {
            (1, field) => seconds = field.varint()?.cast_signed(),
            (2, field) => nanoseconds = field.varint()?.cast_signed(),
            _ => {}
        }
    }
    if (seconds, nanoseconds) == (0, 0) {
        return Ok(Value::Null);
    }
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| Broken("a time is out of range"))?;
    let time = Timestamp::new(seconds, nanoseconds);
    let time = time.map_err(|_| Broken("a time is out of range"))?;
    Ok(time.to_string().into())
}

/// JSON inside protobuf.
fn raw(bytes: &[u8]) -> Result<Value, Broken> {
    for field in Reader::new(bytes) {
        if let (1, field) = field? {
            let text = field.bytes()?;
            return serde_json::from_slice(text).map_err(|_| Broken("it holds broken JSON"));
        }
    }
    Ok(Value::Null)
}

#[cfg(test)]
mod tests;
