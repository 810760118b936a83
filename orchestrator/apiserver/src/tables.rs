//! Table output: the columns that kubectl prints, and one row an object.
//!
//! Pure: objects and the time go in, JSON comes out. Which client gets a table is decided in
//! `negotiate`; paging and watching are the callers' business.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::wire;
use api::Resource;

/// What a row carries beside its cells (`?includeObject=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IncludeObject {
    /// Cells only.
    None,
    /// The object's metadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// The query parameter's value; None for a value that Kubernetes does not know.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// A whole table; `metadata` is the list's, `columns` false leaves the definitions out (later
/// events of a watch).
pub fn table(
    version: &str,
    resource: &Resource,
    metadata: Value,
    rows: Vec<Value>,
    columns: bool,
) -> Value {
    let definitions: Vec<Value> = match columns {
        true => resource.column_definitions(),
        false => Vec::new(),
    };
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// One object's row.
pub fn row(
    version: &str,
    resource: &Resource,
    object: Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let cells = resource.cells(&object, now);
    match include {
        IncludeObject::None => json!({"cells": cells, "object": null}),
        IncludeObject::Object => json!({"cells": cells, "object": object}),
        IncludeObject::Metadata => {
            json!({"cells": cells, "object": partial_metadata(version, object)})
        }
    }
}

/// The same out of an object's bytes and as text, with as little reading as possible; None for what is
/// not JSON. Who owns which field is most of an object and in no cell.
pub fn row_text(
    version: &str,
    resource: &Resource,
    object: &[u8],
    include: IncludeObject,
    now: Timestamp,
) -> Option<Bytes> {
    let metadata = wire::field(object, "metadata").unwrap_or(b"{}");
    let owners = wire::field(metadata, "managedFields");
    let read = match owners {
        None => serde_json::from_slice(object),
        Some(owners) => {
            // The value is a part of the object: what stands before and after it is put together.
            let from = owners.as_ptr().addr() - object.as_ptr().addr();
            let (before, after) = (&object[..from], &object[from + owners.len()..]);
            serde_json::from_slice(&[before, b"null", after].concat())
        }
    };
    let value: Value = read.ok()?;
    let cells = serde_json::to_vec(&resource.cells(&value, now)).ok()?;
    let partial = || partial_metadata_text(version, object);
    let shown = match include {
        IncludeObject::None => Bytes::from_static(b"null"),
        IncludeObject::Object => Bytes::copy_from_slice(object),
        IncludeObject::Metadata => partial(),
    };
    Some(
        [br#"{"cells":"#, &cells[..], br#","object":"#, &shown, b"}"]
            .concat()
            .into(),
    )
}

/// `PartialObjectMetadata` out of an object's bytes, as text.
pub fn partial_metadata_text(version: &str, object: &[u8]) -> Bytes {
    let metadata = wire::field(object, "metadata").unwrap_or(b"{}");
    let head = format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/{version}","metadata":"#
    );
    [head.as_bytes(), metadata, b"}"].concat().into()
}

/// `PartialObjectMetadata` of an object.
pub fn partial_metadata(version: &str, mut object: Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"].take(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_out_of_bytes_is_the_row_of_the_object() {
        let pods = api::find("", "v1", "pods").expect("pods are served");
        let now = "2026-11-29T12:00:00Z".parse().expect("a time");
        let mut pod = json!({
            "metadata": {"name": "a", "labels": {"x": "\"managedFields\":["},
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {"f:x": {}}}}],
                "creationTimestamp": "2026-11-28T12:00:00Z", "uid": "u"},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1"},
        });
        for _ in 0..2 {
            let bytes = pod.to_string();
            for include in ["None", "Metadata", "Object"] {
                let include = IncludeObject::parse(include).expect("a word");
                let text = row_text("v1", pods, bytes.as_bytes(), include, now);
                let text: Value = serde_json::from_slice(&text.expect("a row")).expect("JSON");
                assert_eq!(text, row("v1", pods, pod.clone(), include, now));
            }
            let text = partial_metadata_text("v1", bytes.as_bytes());
            let text: Value = serde_json::from_slice(&text).expect("JSON");
            assert_eq!(text, partial_metadata("v1", pod.clone()));
            pod["metadata"]
                .as_object_mut()
                .expect("an object")
                .remove("managedFields");
        }
    }
}
