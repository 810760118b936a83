//! Table output: the columns that kubectl prints, and one row an object.
//!
//! Pure: objects and the time go in, JSON comes out. Which client gets a table is decided in
//! `negotiate`; paging and watching are the callers' business.

use jiff::Timestamp;
use serde_json::{Value, json};

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

/// `PartialObjectMetadata` of an object.
pub fn partial_metadata(version: &str, mut object: Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"].take(),
    })
}
