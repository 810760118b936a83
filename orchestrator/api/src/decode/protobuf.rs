//! Kubernetes' protobuf → value. kubectl from 1.32 on and other typed Go clients write it.
//!
//! A body is the four bytes `k8s\0` and an envelope with the kind and the message. Types are those
//! of the schema; what it lacks, the numbers of the fields, is in `data/protobuf-fields.json`
//! (from Kubernetes' .proto files). There `@Type` is a message whose fields stand in the object itself
//! in JSON. `encode` writes it.
//!
//! Clients write out the zeros of fields that are no pointers, which JSON leaves out: they are left
//! to `structural`, as is everything else that makes a value canonical.

use std::{collections::BTreeMap, sync::OnceLock};

use base64::Engine as _;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use serde_json::{Map, Value};

use super::limits::Limits;
use crate::schema::{self, Definition, SchemaOr, Type};

/// What every body begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// An envelope, opened.
pub struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    message: &'a [u8],
}

/// Opens the envelope of a body.
pub fn open(body: &[u8]) -> Result<Envelope<'_>, String> {
    let rest = body.strip_prefix(MAGIC).ok_or(
        "provided data does not appear to be a protobuf message, expected prefix 6b387300",
    )?;
    let mut envelope = Envelope {
        api_version: "",
        kind: "",
        message: &[],
    };
    for field in Fields(rest) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => envelope.api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => envelope.kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(message)) => envelope.message = message,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err("compressed protobuf is not supported".into());
            }
            _ => {}
        }
    }
    Ok(envelope)
}

/// The message of an envelope as an object of this type, with its kind.
pub fn object(definition: &str, envelope: &Envelope<'_>) -> Result<Value, String> {
    let mut reader = Reader::default();
    let mut object = reader.message(definition, envelope.message)?;
    for (field, word) in [
        ("apiVersion", envelope.api_version),
        ("kind", envelope.kind),
    ] {
        if !word.is_empty() {
            object.insert(field.into(), word.into());
        }
    }
    Ok(Value::Object(object))
}

/// Reads messages, as deep and as many of them as a document may have objects.
#[derive(Default)]
struct Reader {
    limits: Limits,
    depth: usize,
}

impl Reader {
    fn message(&mut self, name: &str, bytes: &[u8]) -> Result<Map<String, Value>, String> {
        let definition = schema::definition(name).ok_or_else(|| format!("no schema of {name}"))?;
        self.limits.part(self.depth)?;
        self.depth += 1;
        let mut object = Map::new();
        self.fields_into(&mut object, definition, name, bytes)?;
        self.depth -= 1;
        Ok(object)
    }

    /// Reads the fields of a message into the object that they stand in.
    fn fields_into(
        &mut self,
        object: &mut Map<String, Value>,
        definition: &'static Definition,
        message: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
        let Some(numbers) = numbers().get(message) else {
            return Err(format!("no protobuf fields of {message}"));
        };
        for field in Fields(bytes) {
            let (number, wire) = field?;
            let Some(name) = numbers.get(&number) else {
                continue;
            };
            if let Some(inner) = name.strip_prefix('@') {
                let Wire::Bytes(bytes) = wire else {
                    return Err(wrong_wire(name));
                };
                self.fields_into(object, definition, inner, bytes)?;
            } else if let Some(field) = definition.fields.get(name) {
                let slot = object.entry(&**name).or_insert(Value::Null);
                self.put(slot, &field.ty, wire)
                    .map_err(|why| format!("{name}: {why}"))?;
            }
        }
        Ok(())
    }

    /// Puts one occurrence of a field in its place: lists and maps grow, others are replaced.
    fn put(&mut self, slot: &mut Value, ty: &Type, wire: Wire<'_>) -> Result<(), String> {
        match (ty, wire) {
            (Type::List(item), wire) => {
                if !slot.is_array() {
                    *slot = Value::Array(Vec::new());
                }
                let Value::Array(list) = slot else {
                    return Ok(());
                };
                match (&**item, wire) {
                    // Packed: several numbers in one field.
                    (Type::Int32 | Type::Int64, Wire::Bytes(mut packed)) => {
                        while !packed.is_empty() {
                            list.push((varint(&mut packed)? as i64).into());
                        }
                    }
                    (item, wire) => list.push(self.single(item, wire)?),
                }
            }
            (Type::Map(item), Wire::Bytes(entry)) => {
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                let (mut key, mut value) = ("", Value::Null);
                for field in Fields(entry) {
                    match field? {
                        (1, Wire::Bytes(text)) => key = utf8(text)?,
                        (2, wire) => value = self.single(item, wire)?,
                        _ => {}
                    }
                }
                slot[key] = value;
            }
            (ty, wire) => *slot = self.single(ty, wire)?,
        }
        Ok(())
    }

    fn single(&mut self, ty: &Type, wire: Wire<'_>) -> Result<Value, String> {
        match (ty, wire) {
            (Type::Bool, Wire::Varint(number)) => Ok((number != 0).into()),
            (Type::Int32 | Type::Int64, Wire::Varint(number)) => Ok((number as i64).into()),
            (Type::Number, Wire::Fixed64(bits)) => Ok(f64::from_bits(bits).into()),
            (Type::String, Wire::Bytes(text)) => Ok(utf8(text)?.into()),
            (Type::Bytes, Wire::Bytes(bytes)) => Ok(base64::engine::general_purpose::STANDARD
                .encode(bytes)
                .into()),
            (Type::Quantity, Wire::Bytes(bytes)) => quantity(bytes),
            (Type::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes),
            (Type::Time | Type::MicroTime, Wire::Bytes(bytes)) => time(bytes),
            (Type::Any, Wire::Bytes(bytes)) => raw(bytes),
            (Type::Ref(name), Wire::Bytes(bytes)) => self.message(name, bytes).map(Value::Object),
            (Type::SchemaOr(either), Wire::Bytes(bytes)) => self.schema_or(either, bytes),
            // A list where only a message can stand, as the value of a map.
            (Type::List(item), Wire::Bytes(bytes)) => self.list_in(item, bytes),
            (ty, _) => Err(wrong_wire(&ty.go_name())),
        }
    }

    fn list_in(&mut self, item: &Type, bytes: &[u8]) -> Result<Value, String> {
        let mut list = Vec::new();
        for field in Fields(bytes) {
            if let (1, wire) = field? {
                list.push(self.single(item, wire)?);
            }
        }
        Ok(Value::Array(list))
    }

    /// A message with a field for the schema, which counts if it is there, and one for what else it may be.
    fn schema_or(&mut self, either: &SchemaOr, bytes: &[u8]) -> Result<Value, String> {
        let Some(numbers) = numbers().get(&either.name) else {
            return Err(format!("no protobuf fields of {}", either.name));
        };
        self.limits.part(self.depth)?;
        let (mut schema, mut other) = (None, Value::Null);
        for field in Fields(bytes) {
            match field? {
                (number, wire) if numbers.get(&number).is_some_and(|name| &**name == "schema") => {
                    schema = Some(self.single(&either.schema, wire)?);
                }
                (number, wire) if numbers.contains_key(&number) => {
                    self.put(&mut other, &either.other, wire)?;
                }
                _ => {}
            }
        }
        Ok(schema.unwrap_or(other))
    }
}

/// A quantity: a message of one text, which is empty for the zero of Go.
fn quantity(bytes: &[u8]) -> Result<Value, String> {
    let mut text = "";
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(bytes)) = field? {
            text = utf8(bytes)?;
        }
    }
    Ok(if text.is_empty() {
        Value::Null
    } else {
        text.into()
    })
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut text) = (false, 0i64, "");
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(kind)) => is_text = kind != 0,
            (2, Wire::Varint(value)) => number = value as i64,
            (3, Wire::Bytes(bytes)) => text = utf8(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// Seconds and nanoseconds; the zero time is an empty message.
fn time(bytes: &[u8]) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(value)) => seconds = value as i64,
            (2, Wire::Varint(value)) => nanos = value as i64,
            _ => {}
        }
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|_| "a time is out of range")?;
    let at = Timestamp::new(seconds, nanos).map_err(|_| "a time is out of range")?;
    let text = match nanos {
        0 => serde_json::to_value(Time(at)),
        _ => serde_json::to_value(MicroTime(at)),
    };
    text.map_err(|e| e.to_string())
}

/// Free-form data: JSON in a message of its own.
fn raw(bytes: &[u8]) -> Result<Value, String> {
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(json)) = field? {
            return serde_json::from_slice(json).map_err(|e| e.to_string());
        }
    }
    Ok(Value::Null)
}

/// The names of the fields of each message, by number.
pub type Numbers = BTreeMap<Box<str>, BTreeMap<u32, Box<str>>>;

pub fn numbers() -> &'static Numbers {
    static NUMBERS: OnceLock<Numbers> = OnceLock::new();
    NUMBERS.get_or_init(|| {
        let mut numbers = serde_json::from_str(include_str!("../data/protobuf-fields.json"))
            .expect("the data file is checked by a test");
        schema::derived::add_numbers(&mut numbers);
        numbers
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8".into())
}

fn wrong_wire(what: &str) -> String {
    format!("proto: wrong wireType for {what}")
}

/// A value on the wire, not yet understood.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; ends after the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Wire<'a>), String> {
        let key = varint(&mut self.0)?;
        let number = u32::try_from(key >> 3).map_err(|_| "proto: illegal tag")?;
        let wire = match key & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => {
                let bytes = take(&mut self.0, 8)?;
                Wire::Fixed64(
                    bytes
                        .iter()
                        .rev()
                        .fold(0, |n, byte| n << 8 | u64::from(*byte)),
                )
            }
            2 => {
                let length = varint(&mut self.0)?;
                Wire::Bytes(take(
                    &mut self.0,
                    usize::try_from(length).unwrap_or(usize::MAX),
                )?)
            }
            5 => {
                take(&mut self.0, 4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok((number, wire))
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or("unexpected EOF")?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("proto: integer overflow".into())
}

#[cfg(test)]
mod tests;
