//! The columns of a kind's table: what kubectl prints of an object, cell by cell.
//!
//! A kind's file names its columns; the API server makes tables of them.

mod age;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use age::{between, human, since};

/// One column, as `meta.k8s.io/v1` describes it; priority 1 is shown by `-o wide` only.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    priority: u8,
}

/// How one kind is printed.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// Names and types of the cells, in order.
    pub columns: &'static [Column],
    /// One cell a column, from the object and the present time.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// Kinds without columns of their own.
pub const OTHERS: Printer = Printer {
    columns: &[NAME, AGE],
    cells: |object, now| vec![name(object), age(object, now)],
};

/// Kinds that Kubernetes gives no columns of their own, such as roles.
pub const CREATED: Printer = Printer {
    columns: &[
        NAME,
        Column {
            name: "Created At",
            kind: "date",
            format: "",
            description: "When the object was created",
            priority: 0,
        },
    ],
    cells: |object, _| {
        vec![
            name(object),
            text(object, "/metadata/creationTimestamp").into(),
        ]
    },
};

impl Column {
    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "string",
            format: "",
            description,
            priority: 0,
        }
    }

    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "integer",
            format: "",
            description,
            priority: 0,
        }
    }

    pub const fn boolean(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "boolean",
            format: "",
            description,
            priority: 0,
        }
    }

    pub const fn wide(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "string",
            format: "",
            description,
            priority: 1,
        }
    }

    pub fn definition(&self) -> Value {
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
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "The object's name, unique within its namespace (or the cluster)",
    priority: 0,
};

/// The column that every table has.
pub const AGE: Column = Column::text("Age", "Time since the object was created");

/// The second column of kinds that Kubernetes has no table of.
pub const CREATED_AT: Column = Column {
    name: "Created At",
    kind: "date",
    format: "",
    description: "The time at which the object was created",
    priority: 0,
};

/// Text at a JSON pointer; empty when absent.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Text at a JSON pointer, with Kubernetes' sign for nothing.
pub fn text_or_none<'a>(object: &'a Value, pointer: &str) -> &'a str {
    match text(object, pointer) {
        "" => "<none>",
        found => found,
    }
}

/// A number at a JSON pointer; 0 when absent.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// Whether there is a true at a JSON pointer.
pub fn is_true(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer) == Some(&Value::Bool(true))
}

/// The elements of a list at a JSON pointer; none when absent.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// How many entries the map at a JSON pointer has.
pub fn entries(object: &Value, pointer: &str) -> usize {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .map(serde_json::Map::len)
        .unwrap_or_default()
}

pub fn name(object: &Value) -> Value {
    text(object, "/metadata/name").into()
}

pub fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, "/metadata/creationTimestamp"), now).into()
}

pub fn created_at(object: &Value) -> Value {
    text(object, "/metadata/creationTimestamp").into()
}

/// `a=b,c=d` of a map of labels, `<none>` for an empty one.
pub fn format_labels(labels: Option<&Value>) -> String {
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
pub fn format_selector(selector: Option<&Value>) -> String {
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
pub fn first_three(all: &[String], none: &str) -> String {
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
        for resource in crate::resources() {
            let printer = resource.printer;
            assert_eq!(
                (printer.cells)(&json!({}), now).len(),
                printer.columns.len(),
                "{}",
                resource.plural
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
