//! The columns of a custom kind: `additionalPrinterColumns` of a version, or name and age.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::json_path::JsonPath;
use crate::columns::{NAME, since};

/// One column behind the name.
#[derive(Debug)]
pub struct Column {
    definition: Value,
    path: JsonPath,
}

/// Those of a version. One whose path is none is a reason to show name and age alone, as Kubernetes does.
pub fn of_version(version: &Value) -> Vec<Column> {
    let given = version["additionalPrinterColumns"].as_array();
    let given = given.filter(|columns| !columns.is_empty());
    let columns = given.map(|columns| columns.iter().map(Column::of).collect());
    let columns: Option<Result<Vec<Column>, String>> = columns;
    columns.and_then(Result::ok).unwrap_or_else(|| vec![age()])
}

/// The definitions of all columns, as `meta.k8s.io/v1` describes them.
pub fn definitions(columns: &[Column]) -> Vec<Value> {
    let more = columns.iter().map(|column| column.definition.clone());
    std::iter::once(NAME.definition()).chain(more).collect()
}

/// One cell a column.
pub fn cells(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let more = columns.iter().map(|column| column.cell(object, now));
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    std::iter::once(name.into()).chain(more).collect()
}

fn age() -> Column {
    let definition = json!({
        "name": "Age", "type": "date", "format": "", "priority": 0,
        "description": "The time at which the object was created",
        "jsonPath": ".metadata.creationTimestamp",
    });
    Column::of(&definition).expect("the path is one")
}

impl Column {
    fn of(given: &Value) -> Result<Self, String> {
        let text = |field: &str| given[field].as_str().unwrap_or_default();
        Ok(Self {
            definition: json!({
                "name": given["name"],
                "type": given["type"],
                "format": text("format"),
                "description": match text("description") {
                    "" => format!("Custom resource definition column (in JSONPath format): {}",
                        text("jsonPath")),
                    text => text.to_owned(),
                },
                "priority": given["priority"].as_i64().unwrap_or_default(),
            }),
            path: JsonPath::parse(text("jsonPath"))?,
        })
    }

    /// Null where there is nothing, or something of another type.
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.first(object).filter(|value| !value.is_null()) else {
            return Value::Null;
        };
        match (self.definition["type"].as_str().unwrap_or_default(), value) {
            ("integer", Value::Number(number)) => {
                let whole = number.as_i64().or(number.as_f64().map(|n| n as i64));
                whole.into()
            }
            ("number", Value::Number(number)) => number.clone().into(),
            ("boolean", Value::Bool(_)) | ("string", Value::String(_)) => value.clone(),
            ("string", other) => other.to_string().into(),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(_) => since(text, now).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_of_the_type_of_their_column() {
        let column = |kind: &str, path: &str| json!({"name": "N", "type": kind, "jsonPath": path});
        let version = json!({"additionalPrinterColumns": [
            column("integer", ".spec.n"), column("string", ".spec.n"), column("number", ".spec.f"),
            column("boolean", ".spec.b"), column("string", ".spec.list"), column("integer", ".spec.s"),
            column("date", ".spec.at"), column("date", ".spec.s"), column("string", ".spec.x"),
        ]});
        let columns = of_version(&version);
        let object = json!({"metadata": {"name": "web"}, "spec": {
            "n": 3, "f": 1.5, "b": true, "list": [1, {"a": "b"}], "s": "text",
            "at": "2026-01-01T00:00:00Z"}});
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        assert_eq!(
            Value::from(cells(&columns, &object, now)),
            json!([
                "web",
                3,
                "3",
                1.5,
                true,
                r#"[1,{"a":"b"}]"#,
                null,
                "5m",
                "<invalid>",
                null
            ])
        );
        assert_eq!(
            definitions(&columns)[1]["description"],
            "Custom resource definition column (in JSONPath format): .spec.n"
        );
    }

    #[test]
    fn a_version_without_columns_or_with_a_broken_one_shows_name_and_age() {
        let names = |version: &Value| {
            let columns = definitions(&of_version(version));
            Value::from_iter(columns.iter().map(|column| column["name"].clone()))
        };
        assert_eq!(names(&json!({})), json!(["Name", "Age"]));
        let broken = json!({"additionalPrinterColumns":
            [{"name": "N", "type": "string", "jsonPath": ".spec["}]});
        assert_eq!(names(&broken), json!(["Name", "Age"]));
    }
}
