//! Table output: the columns that kubectl prints, and one row an object.
//!
//! Pure: objects and the time go in, JSON comes out. Which client gets a table is decided in
//! `negotiate`; paging and watching are the callers' business.

mod age;
mod core;
mod network;
mod pods;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use age::since;

/// One column, as `meta.k8s.io/v1` describes it; priority 1 is shown by `-o wide` only.
#[derive(Clone, Copy)]
pub struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    priority: u8,
}

/// How one kind is printed.
pub struct Printer {
    /// Names and types of the cells, in order.
    pub columns: &'static [Column],
    /// One cell a column, from the object and the present time.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

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

/// The printer of a resource; kinds without their own columns show name and age.
pub fn printer(group: &str, plural: &str) -> &'static Printer {
    match (group, plural) {
        ("", "pods") => &pods::PODS,
        ("", "nodes") => &core::NODES,
        ("", "namespaces") => &core::NAMESPACES,
        ("", "configmaps") => &core::CONFIG_MAPS,
        ("", "secrets") => &core::SECRETS,
        ("", "serviceaccounts") => &core::SERVICE_ACCOUNTS,
        ("", "events") => &core::EVENTS,
        ("", "services") => &network::SERVICES,
        ("", "endpoints") => &network::ENDPOINTS,
        ("discovery.k8s.io", "endpointslices") => &network::ENDPOINT_SLICES,
        ("coordination.k8s.io", "leases") => &core::LEASES,
        ("", "replicationcontrollers") => &workloads::REPLICATION_CONTROLLERS,
        ("apps", "replicasets") => &workloads::REPLICA_SETS,
        ("apps", "deployments") => &workloads::DEPLOYMENTS,
        _ => &core::OTHERS,
    }
}

/// A whole table; `metadata` is the list's, `columns` false leaves the definitions out (later
/// events of a watch).
pub fn table(
    version: &str,
    printer: &Printer,
    metadata: Value,
    rows: Vec<Value>,
    columns: bool,
) -> Value {
    let definitions: Vec<Value> = match columns {
        true => printer.columns.iter().map(Column::definition).collect(),
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
    printer: &Printer,
    object: Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let cells = (printer.cells)(&object, now);
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

impl Column {
    const fn text(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "string",
            format: "",
            description,
            priority: 0,
        }
    }

    const fn integer(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "integer",
            format: "",
            description,
            priority: 0,
        }
    }

    const fn wide(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "string",
            format: "",
            description,
            priority: 1,
        }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }
}

/// The first column of nearly every table.
const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "The object's name, unique within its namespace (or the cluster)",
    priority: 0,
};

/// The column that every table has.
const AGE: Column = Column::text("Age", "Time since the object was created");

/// Text at a JSON pointer; empty when absent.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Text at a JSON pointer, with Kubernetes' sign for nothing.
fn text_or_none<'a>(object: &'a Value, pointer: &str) -> &'a str {
    match text(object, pointer) {
        "" => "<none>",
        found => found,
    }
}

/// A number at a JSON pointer; 0 when absent.
fn number(object: &Value, pointer: &str) -> i64 {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// The elements of a list at a JSON pointer; none when absent.
fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// How many entries the map at a JSON pointer has.
fn entries(object: &Value, pointer: &str) -> usize {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .map(serde_json::Map::len)
        .unwrap_or_default()
}

fn name(object: &Value) -> Value {
    text(object, "/metadata/name").into()
}

fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, "/metadata/creationTimestamp"), now).into()
}

/// `a=b,c=d` of a map of labels, `<none>` for an empty one.
fn format_labels(labels: Option<&Value>) -> String {
    let pairs: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    }
}

/// A label selector (`matchLabels`, `matchExpressions`) as kubectl's `-l` takes it.
fn format_selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else {
        return "<none>".to_owned();
    };
    let mut parts: Vec<String> = Vec::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        parts.extend(
            labels
                .iter()
                .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())),
        );
    }
    for requirement in list(selector, "/matchExpressions") {
        let key = text(requirement, "/key");
        let values: Vec<&str> = list(requirement, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        parts.push(match text(requirement, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    if parts.is_empty() {
        "<none>".to_owned()
    } else {
        parts.join(",")
    }
}

/// At most three of `all`, and how many more there are; `none` when there is nothing.
fn first_three(all: &[String], none: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        1..=3 => all.join(","),
        count => format!("{} + {} more...", all[..3].join(","), count - 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_printed_as_kubectl_takes_it() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "NotIn", "values": ["a", "b"]},
                {"key": "x", "operator": "DoesNotExist"},
            ],
        });
        assert_eq!(
            format_selector(Some(&selector)),
            "app=web,tier notin (a,b),!x"
        );
        assert_eq!(format_selector(Some(&json!({}))), "<none>");
    }

    #[test]
    fn every_printer_gives_one_cell_a_column() {
        let now = Timestamp::from_second(1_700_000_000).expect("in range");
        for (group, plural) in [
            ("", "pods"),
            ("", "nodes"),
            ("", "namespaces"),
            ("", "configmaps"),
            ("", "secrets"),
            ("", "serviceaccounts"),
            ("", "events"),
            ("", "services"),
            ("", "endpoints"),
            ("discovery.k8s.io", "endpointslices"),
            ("coordination.k8s.io", "leases"),
            ("", "replicationcontrollers"),
            ("apps", "replicasets"),
            ("apps", "deployments"),
            ("x", "others"),
        ] {
            let printer = printer(group, plural);
            assert_eq!(
                (printer.cells)(&json!({}), now).len(),
                printer.columns.len(),
                "{plural}"
            );
        }
    }

    #[test]
    fn a_long_list_shows_three_and_counts_the_rest() {
        let all: Vec<String> = (1..=5).map(|n| n.to_string()).collect();
        assert_eq!(first_three(&all, "<none>"), "1,2,3 + 2 more...");
        assert_eq!(first_three(&[], "<none>"), "<none>");
    }
}
