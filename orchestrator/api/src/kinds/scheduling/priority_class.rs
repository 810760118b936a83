//! scheduling/v1 PriorityClass: a name for a pod's priority.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use crate::columns::{AGE, Column, NAME, Printer, age, name, number, text};
use crate::defaults::set;
use crate::resource::{Behaviour, Resource, Scope};
use crate::validation::{At, Errors};

/// Above it are the priorities of the system's own pods.
const MAX_OF_USERS: i64 = 1_000_000_000;

/// Names that begin so are the system's.
const SYSTEM_PREFIX: &str = "system-";

/// The system's classes. None of them is a default.
pub const SYSTEM: [(&str, i64); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["pc".into()],
        scope: Scope::Cluster,
        behaviour: Behaviour::PriorityClass,
        // It stays at the first one: neither value nor policy may change.
        create: |class| class["metadata"]["generation"] = 1.into(),
        default: |class| set(class, "preemptionPolicy", || "PreemptLowerPriority".into()),
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<PriorityClass>(
            "scheduling.k8s.io",
            "scheduling",
            "priorityclass",
            "priorityclasses",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Value", "The priority"),
        Column::boolean("Global-Default", "Whether pods without a class are of it"),
        AGE,
        Column::text(
            "PreemptionPolicy",
            "Whether its pods take the place of others",
        ),
    ],
    cells,
};

fn validate(class: &At<'_>, errors: &mut Errors) {
    let metadata = class.field("metadata");
    let (name, value) = (metadata.field("name"), class.field("value"));
    if name.text().starts_with(SYSTEM_PREFIX) {
        if let Err(why) = is_system(class) {
            let detail = format!(
                "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use \
                 only. error: {why}"
            );
            errors.forbidden(&name, &detail);
        }
    } else if value.number() > MAX_OF_USERS {
        let detail = format!("maximum allowed value of a user defined priority is {MAX_OF_USERS}");
        errors.forbidden(&value, &detail);
    }
    errors.one_of(
        &class.field("preemptionPolicy"),
        &["PreemptLowerPriority", "Never"],
    );
}

/// Whether the class is one of the system's, as the system has it.
fn is_system(class: &At<'_>) -> Result<(), String> {
    let name = text(class.value, "/metadata/name");
    let Some((_, value)) = SYSTEM.iter().find(|(known, _)| *known == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if class.field("value").number() != *value {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if class.field("globalDefault").is_true() {
        return Err(format!(
            "globalDefault of {name} PriorityClass must be false"
        ));
    }
    Ok(())
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (now, then) = (new.field("value"), old.field("value"));
    if now.value != then.value {
        errors.forbidden(&now, "may not be changed in an update.");
    }
    errors.immutable(
        &new.field("preemptionPolicy"),
        &old.field("preemptionPolicy"),
    );
}

fn cells(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(class),
        number(class, "/value").into(),
        (class["globalDefault"] == true).into(),
        age(class, now),
        text(class, "/preemptionPolicy").into(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{change, columns, created, row, update, with, wrong};

    fn class() -> Value {
        json!({
            "metadata": {"name": "high"},
            "value": 1000,
            "description": "Goes first.",
        })
    }

    #[test]
    fn a_class_takes_the_place_of_lower_ones() {
        let stored = created(&resource(), class());
        assert_eq!(stored["preemptionPolicy"], "PreemptLowerPriority");
        assert_eq!(stored["metadata"]["generation"], 1);
        assert_eq!(stored["metadata"].get("namespace"), None);
    }

    #[test]
    fn the_classes_of_the_system_are_its_own() {
        let cases = [
            (
                "/value",
                json!(1_000_000_001),
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            ),
            (
                "/preemptionPolicy",
                json!("Always"),
                r#"preemptionPolicy: Unsupported value: "Always": supported values: "PreemptLowerPriority", "Never""#,
            ),
            (
                "/metadata/name",
                json!("system-mine"),
                "metadata.name: Forbidden: priority class names with 'system-' prefix are \
                 reserved for system use only. error: system-mine is not a known system priority \
                 class",
            ),
            (
                "/metadata/name",
                json!("system-node-critical"),
                "metadata.name: Forbidden: priority class names with 'system-' prefix are \
                 reserved for system use only. error: value of system-node-critical \
                 PriorityClass must be 2000001000",
            ),
        ];
        for (at, value, why) in cases {
            assert_eq!(wrong(&resource(), with(&class(), at, value)), why);
        }
        for (name, value) in SYSTEM {
            let system = json!({"metadata": {"name": name}, "value": value});
            assert_eq!(wrong(&resource(), system), "");
        }
    }

    #[test]
    fn the_value_and_the_policy_stay() {
        let old = created(&resource(), class());
        assert_eq!(
            change(&resource(), &old, json!({"value": 5})),
            "value: Forbidden: may not be changed in an update."
        );
        assert_eq!(
            change(&resource(), &old, json!({"preemptionPolicy": "Never"})),
            r#"preemptionPolicy: Invalid value: "Never": field is immutable"#
        );
        let other = json!({"globalDefault": true, "description": "Is what all get."});
        let new = update(&resource(), &old, other, None).unwrap();
        assert_eq!(new["metadata"]["generation"], 1);
    }

    #[test]
    fn a_row_shows_the_value() {
        assert_eq!(
            columns(&resource()),
            ["Name", "Value", "Global-Default", "Age", "PreemptionPolicy"]
        );
        let stored = created(&resource(), class());
        assert_eq!(
            row(&resource(), &stored),
            json!(["high", 1000, false, "10m", "PreemptLowerPriority"])
        );
    }
}
