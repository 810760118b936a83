//! Object metadata: names, owners, timestamps. Time, uid and random bits are arguments.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference, Time},
    jiff::Timestamp,
};
use serde_json::Value;

/// On a request of the API server to an agent: the uid of the pod that is meant. Another pod may have had the name
/// before on the same node, and its containers may still run.
pub const POD_UID_HEADER: &str = "x-pod-uid";

/// `metadata.name`, or empty.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.namespace`, or empty.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.uid`, or empty.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.resourceVersion`, or empty.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// `metadata.deletionTimestamp` is set.
pub fn is_terminating(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

pub fn labels(object: &Value) -> BTreeMap<String, String> {
    string_map(&object["metadata"]["labels"])
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array();
    list.into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

pub fn owner_references(object: &Value) -> Vec<OwnerReference> {
    serde_json::from_value(object["metadata"]["ownerReferences"].clone()).unwrap_or_default()
}

/// Fills in what a new object gets from the server: uid, creationTimestamp, generation where the
/// kind has one is `prepare_for_create`'s.
pub fn stamp(object: &mut Value, uid: &str, now: Timestamp) {
    object["metadata"]["uid"] = uid.into();
    object["metadata"]["creationTimestamp"] = timestamp(now).into();
}

/// The name that `generateName` asks for: the prefix, cut to fit, and five characters.
pub fn generated_name(prefix: &str, random: u64) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const MAX_PREFIX: usize = 63 - 5;
    let mut end = prefix.len().min(MAX_PREFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    let mut rest = random;
    for _ in 0..5 {
        name.push(char::from(
            ALPHABET[(rest % ALPHABET.len() as u64) as usize],
        ));
        rest /= ALPHABET.len() as u64;
    }
    name
}

/// RFC 3339 in whole seconds, UTC: `2026-01-02T15:04:05Z`.
pub fn timestamp(at: Timestamp) -> String {
    wire(&Time(at))
}

/// RFC 3339 in microseconds, UTC: `2026-01-02T15:04:05.000000Z`.
pub fn micro_timestamp(at: Timestamp) -> String {
    wire(&MicroTime(at))
}

/// The strings of a JSON object; other values are left out.
pub(super) fn string_map(value: &Value) -> BTreeMap<String, String> {
    let map = value.as_object().into_iter().flatten();
    map.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn wire(time: &impl serde::Serialize) -> String {
    match serde_json::to_value(time) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_keep_within_63_characters() {
        assert_eq!(generated_name("web-", 0), "web-bbbbb");
        assert_eq!(generated_name(&"x".repeat(80), 1).len(), 63);
        assert_ne!(generated_name("web-", 1), generated_name("web-", 2));
    }

    #[test]
    fn timestamps_are_whole_seconds_and_microseconds() {
        let at = Timestamp::new(1_700_000_000, 123_456_789).unwrap();
        assert_eq!(timestamp(at), "2023-11-14T22:13:20Z");
        assert_eq!(micro_timestamp(at), "2023-11-14T22:13:20.123456Z");
    }
}
