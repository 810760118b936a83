//! JSON and YAML text → value, with the paths of keys that an object names twice.
//!
//! A document may be no deeper, have no more parts and be no larger than `limits` says, all aliases
//! of YAML written out.

use std::fmt::{self, Write as _};

use k8s_openapi::serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};

use super::limits::{Limits, path_shown};
use super::{Format, MAX_PROBLEMS, yaml};

/// A parsed document.
pub struct Document {
    pub value: Value,
    /// `spec.replicas`; the last value counts.
    pub duplicates: Vec<String>,
}

/// Parses the one document of a body.
pub fn parse(body: &[u8], format: Format) -> Result<Document, String> {
    let mut duplicates = Vec::new();
    let value = walk(body, format, |path, again| {
        if again && duplicates.len() < MAX_PROBLEMS {
            duplicates.push(path.to_owned());
        }
    })?;
    Ok(Document { value, duplicates })
}

/// Parses and tells of every key: its path, and whether its object had it already.
pub fn walk(
    body: &[u8],
    format: Format,
    mut seen: impl FnMut(&str, bool),
) -> Result<Value, String> {
    let node = Node {
        path: &mut String::new(),
        limits: &mut Limits::default(),
        depth: 0,
        seen: &mut seen,
    };
    // Most clients that say YAML send JSON, which is read many times faster.
    let format = match format {
        Format::Yaml if is_json(body) => Format::Json,
        other => other,
    };
    match format {
        Format::Json => {
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            let value = node
                .deserialize(&mut deserializer)
                .map_err(|e| e.to_string())?;
            deserializer.end().map_err(|e| e.to_string())?;
            Ok(value)
        }
        // What follows the first document is not read.
        Format::Yaml => {
            let text = yaml::text(body)?;
            let first = yaml::Stream::new(&text).next_document()?;
            first.unwrap_or_default().give(node)
        }
        Format::Protobuf => Err("protobuf is read by its schema only".into()),
    }
}

/// The values of all documents of YAML or JSON.
pub fn all(body: &[u8]) -> Result<Vec<Value>, String> {
    let text = yaml::text(body)?;
    let mut stream = yaml::Stream::new(&text);
    let mut values = Vec::new();
    while let Some(document) = stream.next_document()? {
        values.push(document.give(Node {
            path: &mut String::new(),
            limits: &mut Limits::default(),
            depth: 0,
            seen: &mut |_: &str, _| {},
        })?);
    }
    Ok(values)
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// The place in the document that is parsed next.
struct Node<'a, F> {
    path: &'a mut String,
    limits: &'a mut Limits,
    depth: usize,
    seen: &'a mut F,
}

impl<'de, F: FnMut(&str, bool)> DeserializeSeed<'de> for Node<'_, F> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&str, bool)> Visitor<'de> for Node<'_, F> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(v);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        self.limits.text(v.len()).map_err(E::custom)?;
        Ok(v.into())
    }

    fn visit_string<E: Error>(self, v: String) -> Result<Value, E> {
        self.limits.text(v.len()).map_err(E::custom)?;
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.limits.part(self.depth).map_err(A::Error::custom)?;
        let mut list = Vec::new();
        let before = self.path.len();
        loop {
            let _ = write!(self.path, "[{}]", list.len());
            let next = Node {
                path: self.path,
                limits: self.limits,
                depth: self.depth + 1,
                seen: self.seen,
            };
            let item = seq.next_element_seed(next)?;
            self.path.truncate(before);
            let Some(item) = item else {
                return Ok(Value::Array(list));
            };
            // The comma, at least: a list of aliases of nothing grows too.
            self.limits.text(1).map_err(A::Error::custom)?;
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.limits.part(self.depth).map_err(A::Error::custom)?;
        let mut object = Map::new();
        let before = self.path.len();
        while let Some(Key(key)) = map.next_key()? {
            self.limits.text(key.len() + 1).map_err(A::Error::custom)?;
            if before > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            (self.seen)(path_shown(self.path), object.contains_key(&key));
            let value = map.next_value_seed(Node {
                path: self.path,
                limits: self.limits,
                depth: self.depth + 1,
                seen: self.seen,
            })?;
            self.path.truncate(before);
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// The key of an object; YAML may write numbers and booleans.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, v: &str) -> Result<Key, E> {
                Ok(Key(v.into()))
            }

            fn visit_bool<E>(self, v: bool) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }

            fn visit_i64<E>(self, v: i64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }

            fn visit_u64<E>(self, v: u64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }

            fn visit_f64<E>(self, v: f64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
        }

        deserializer.deserialize_any(KeyVisitor)
    }
}

#[cfg(test)]
mod tests;
