//! Objects as bytes: where the resourceVersion sits in them, and how lists are put together.
//! Pure.

use bytes::Bytes;

/// Where metadata begins in every stored object.
const METADATA: &[u8] = b"\"metadata\":{";
const VERSION: &[u8] = b"\"resourceVersion\":\"";

/// The object with `revision` as its resourceVersion, whether it carries one or not.
pub fn with_revision(object: &[u8], revision: u64) -> Bytes {
    let Some(start) = find(object, METADATA).map(|at| at + METADATA.len()) else {
        return Bytes::copy_from_slice(object);
    };
    let (head, rest) = object.split_at(start);
    let rest = match rest.strip_prefix(VERSION) {
        // The old one is the first field.
        Some(old) => {
            let end = old.iter().position(|&byte| byte == b'"');
            let rest = &old[end.map_or(0, |quote| quote + 1)..];
            rest.strip_prefix(b",").unwrap_or(rest)
        }
        None => rest,
    };
    let revision = revision.to_string();
    let end: &[u8] = if rest.starts_with(b"}") {
        b"\""
    } else {
        b"\","
    };
    // Exactly as long as it is: the cache keeps it, room to spare and all.
    Bytes::from([head, VERSION, revision.as_bytes(), end, rest].concat())
}

/// The value of a field of an object, as it stands in its bytes, which are JSON without blanks.
pub fn field<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut at = 1;
    while object.get(at) == Some(&b'"') {
        let key = &object[at..at + extent(&object[at..])?];
        // Behind the key and its colon.
        at += key.len() + 1;
        let value = object.get(at..)?;
        let value = &value[..extent(value)?];
        if key[1..key.len() - 1] == *name.as_bytes() {
            return Some(value);
        }
        at += value.len() + 1;
    }
    None
}

/// How long the value is that the bytes begin with.
fn extent(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => {
                in_text = !in_text;
                if !in_text && depth == 0 {
                    return Some(at + 1);
                }
            }
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' if depth == 1 => return Some(at + 1),
            // A number or a word ends where its object or list goes on.
            b',' | b'}' | b']' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    (depth == 0 && !in_text).then_some(bytes.len())
}

/// What stands before the items of a list.
pub fn list_head(kind: &str, api_version: &str, page: &ListMeta) -> Bytes {
    let mut metadata = serde_json::Map::new();
    metadata.insert(
        "resourceVersion".to_owned(),
        page.revision.to_string().into(),
    );
    if let Some(token) = &page.next {
        metadata.insert("continue".to_owned(), token.as_str().into());
    }
    if let Some(remaining) = page.remaining {
        metadata.insert("remainingItemCount".to_owned(), remaining.into());
    }
    let metadata = serde_json::Value::Object(metadata);
    Bytes::from(format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\
         \"items\":["
    ))
}

/// What stands after them.
pub const LIST_TAIL: &[u8] = b"]}\n";

/// A list's own metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListMeta {
    /// The revision that the list shows.
    pub revision: u64,
    /// The token for the next page.
    pub next: Option<String>,
    /// How many items follow, where that is known.
    pub remaining: Option<u64>,
}

impl ListMeta {
    /// As JSON, for tables and metadata lists.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.next {
            json["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            json["remainingItemCount"] = remaining.into();
        }
        json
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_added_once_and_replaced_after() {
        let object = br#"{"kind":"Pod","metadata":{"name":"x"},"spec":{"metadata":{}}}"#;
        let first = with_revision(object, 7);
        assert_eq!(
            &first[..],
            br#"{"kind":"Pod","metadata":{"resourceVersion":"7","name":"x"},"spec":{"metadata":{}}}"#
        );
        let second = with_revision(&first, 12);
        assert_eq!(
            &second[..],
            br#"{"kind":"Pod","metadata":{"resourceVersion":"12","name":"x"},"spec":{"metadata":{}}}"#
        );
    }

    #[test]
    fn a_field_is_found_at_the_first_level_only_and_whatever_its_strings_hold() {
        let object = serde_json::json!({
            "a": {"labels": {"x": "}]\\\"{"}}, "n": -1.5e3, "t": true, "z": null, "e": {}, "l": [[1], {}],
            "s": "\\\"labels\\\":{", "labels": {"k": "v"},
        });
        let text = object.to_string();
        for (name, value) in object.as_object().expect("an object") {
            let found = field(text.as_bytes(), name).expect("it is there");
            assert_eq!(found, value.to_string().as_bytes(), "{name}");
        }
        assert_eq!(field(text.as_bytes(), "k"), None);
        for broken in [
            "",
            "{",
            "{}",
            "{\"a",
            "{\"a\":",
            "{\"a\":{",
            "{\"a\":\"",
            "[1]",
        ] {
            assert_eq!(field(broken.as_bytes(), "b"), None, "{broken}");
        }
    }

    #[test]
    fn an_object_without_metadata_fields_gets_one() {
        let object = with_revision(br#"{"metadata":{}}"#, 3);
        assert_eq!(&object[..], br#"{"metadata":{"resourceVersion":"3"}}"#);
    }

    #[test]
    fn a_list_head_carries_the_token_for_the_next_page() {
        let page = ListMeta {
            revision: 9,
            next: Some("abc".to_owned()),
            remaining: Some(4),
        };
        let head = list_head("PodList", "v1", &page);
        let text = format!("{}{}", String::from_utf8_lossy(&head), "]}");
        let json: serde_json::Value = serde_json::from_str(&text).expect("a list");
        assert_eq!(json["metadata"]["continue"], "abc");
        assert_eq!(json["metadata"]["remainingItemCount"], 4);
    }
}
