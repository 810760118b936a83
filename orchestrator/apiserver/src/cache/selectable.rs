//! What selectors ask for, read out of an object's bytes without building the object: fields that
//! can be selected are scalars at most two levels deep, labels are the one map that is kept.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::wire;

/// The object with nothing but its labels and its scalars of the first two levels.
pub(super) fn skeleton(object: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(object);
    Level::Object.deserialize(&mut deserializer)
}

/// The labels alone; reads no further than they stand.
pub(super) fn labels(object: &[u8]) -> BTreeMap<String, String> {
    let metadata = wire::field(object, "metadata").unwrap_or_default();
    let labels = wire::field(metadata, "labels").unwrap_or_default();
    serde_json::from_slice(labels).unwrap_or_default()
}

/// Where in the object a value stands.
#[derive(Clone, Copy)]
enum Level {
    Object,
    Metadata,
    /// Below any other field of the object.
    Part,
    Deep,
}

impl Level {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Object, "metadata") => Self::Metadata,
            (Self::Object, _) => Self::Part,
            _ => Self::Deep,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        if let Self::Deep = self {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Value::Null);
        }
        let mut kept = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = match self {
                Self::Metadata if key == "labels" => map.next_value()?,
                _ => map.next_value_seed(self.below(&key))?,
            };
            if !value.is_null() {
                kept.insert(key, value);
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An object that has a value wherever any kind's selectable field may point.
    fn full() -> Value {
        let mut object = json!({
            "kind": "K", "type": "T", "reason": "because \"so\"", "reportingComponent": "r",
            "metadata": {
                "name": "n", "namespace": "ns", "labels": {"a": "b", "c": "\u{e9}"},
                "annotations": {"x": "y"}, "ownerReferences": [{"kind": "D"}],
            },
            "status": {"phase": "Running", "replicas": 3, "podIPs": [{"ip": "1"}], "x": null},
            "list": [1, [2]],
        });
        for kind in api::resources() {
            let fields = kind.selectable_fields(&json!({}));
            for path in fields.keys().filter_map(|field| field.split_once('.')) {
                if object[path.0][path.1].is_null() {
                    object[path.0][path.1] = json!(format!("{} {}", path.0, path.1));
                }
            }
        }
        object
    }

    #[test]
    fn every_kinds_fields_and_labels_read_the_same_from_the_skeleton() {
        let object = full();
        let text = object.to_string();
        assert_eq!(labels(text.as_bytes()), api::meta::labels(&object));
        let skeleton = skeleton(text.as_bytes()).unwrap();
        assert_eq!(api::meta::labels(&skeleton), api::meta::labels(&object));
        for kind in api::resources() {
            assert_eq!(
                kind.selectable_fields(&skeleton),
                kind.selectable_fields(&object)
            );
        }
    }

    #[test]
    fn what_is_deep_is_left_out_and_what_is_no_json_refused() {
        let object = br#"{"a":{"b":{"c":1},"d":[2],"e":3.5},"metadata":{"annotations":{"x":"y"}}}"#;
        assert_eq!(
            skeleton(object).unwrap(),
            json!({"a": {"e": 3.5}, "metadata": {}})
        );
        assert!(skeleton(b"{").is_err());
    }
}
