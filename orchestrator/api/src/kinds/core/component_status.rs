//! v1 ComponentStatus: whether the parts of the control plane are well. Made when it is asked for.

use k8s_openapi::api::core::v1::ComponentStatus;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, Printer, age, list, name, text};
use crate::resource::{Behaviour, Resource, Scope};

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::ComponentStatus,
        short_names: vec!["cs".into()],
        scope: Scope::Cluster,
        verbs: &["get", "list"],
        printer: COLUMNS,
        deprecation: Some("v1 ComponentStatus is deprecated in v1.19+".into()),
        ..Resource::of::<ComponentStatus>("", "core", "componentstatus", "componentstatuses")
    }
}

/// The status of a component that is well.
pub fn healthy(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ComponentStatus",
        "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
    })
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Healthy or Unhealthy"),
        Column::text("Message", "What it says of itself"),
        Column::text("Error", "What went wrong when it was asked"),
        AGE,
    ],
    cells: |object, now| {
        let conditions = list(object, "/conditions");
        let health = conditions.iter().find(|c| c["type"] == "Healthy");
        let health = health.unwrap_or(&Value::Null);
        let status = match health["status"].as_str() {
            Some("True") => "Healthy",
            Some("False") => "Unhealthy",
            _ => "Unknown",
        };
        vec![
            name(object),
            status.into(),
            text(health, "/message").into(),
            text(health, "/error").into(),
            age(object, now),
        ]
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::row;

    #[test]
    fn a_component_that_is_well_says_so() {
        assert_eq!(
            row(&resource(), &healthy("scheduler")),
            json!(["scheduler", "Healthy", "ok", "", "10m"])
        );
    }
}
