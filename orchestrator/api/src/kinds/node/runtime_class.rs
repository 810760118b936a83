//! node/v1 RuntimeClass: a way of running containers that a pod may ask for.

use jiff::Timestamp;
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::Value;

use crate::columns::{AGE, Column, NAME, Printer, age, name, text};
use crate::kinds::core::pod::{container, placement};
use crate::resource::{Resource, Scope};
use crate::validation::{At, Errors, names, object};

pub fn resource() -> Resource {
    Resource {
        scope: Scope::Cluster,
        validate,
        validate_update: |new, old, errors| {
            errors.immutable(&new.field("handler"), &old.field("handler"));
        },
        printer: COLUMNS,
        ..Resource::of::<RuntimeClass>("node.k8s.io", "node", "runtimeclass", "runtimeclasses")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Handler", "What the container runtime calls it"),
        AGE,
    ],
    cells,
};

fn validate(class: &At<'_>, errors: &mut Errors) {
    let handler = class.field("handler");
    errors.check(&handler, names::label(handler.text()));
    let overhead = class.field("overhead");
    // The overhead is checked as the limits of a container are, and named so.
    let limits = overhead.field("limits").with(&overhead.value["podFixed"]);
    container::amounts(&limits, errors);
    let scheduling = class.field("scheduling");
    object::labels(&scheduling.field("nodeSelector"), errors);
    placement::tolerations(&scheduling.field("tolerations"), errors);
}

fn cells(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(class), text(class, "/handler").into(), age(class, now)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{change, columns, created, row, with, wrong};

    fn sandboxed() -> Value {
        json!({
            "metadata": {"name": "gvisor"},
            "handler": "runsc",
            "overhead": {"podFixed": {"memory": "1024Mi", "cpu": "250m"}},
            "scheduling": {"nodeSelector": {"sandbox": "gvisor"}},
        })
    }

    #[test]
    fn a_class_is_stored_as_it_is_with_canonical_amounts() {
        let stored = created(&resource(), sandboxed());
        assert_eq!(
            stored["overhead"]["podFixed"],
            json!({"memory": "1Gi", "cpu": "250m"})
        );
        assert_eq!(stored["handler"], "runsc");
        assert_eq!(stored["metadata"].get("generation"), None);
    }

    #[test]
    fn classes_are_refused_in_the_words_of_kubernetes() {
        let handler = wrong(&resource(), with(&sandboxed(), "/handler", "Run_sc".into()));
        assert!(
            handler.starts_with(r#"handler: Invalid value: "Run_sc": a lowercase RFC 1123 label"#),
            "{handler}"
        );
        let cases = [
            (
                "/overhead/podFixed/cpu",
                json!("-1"),
                r#"overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
            ),
            (
                "/scheduling/tolerations",
                json!([{"key": "a", "operator": "Near"}]),
                r#"scheduling.tolerations[0].operator: Unsupported value: "Near": supported values: "Equal", "Exists""#,
            ),
        ];
        for (at, value, why) in cases {
            assert_eq!(wrong(&resource(), with(&sandboxed(), at, value)), why);
        }
    }

    #[test]
    fn the_handler_stays() {
        let old = created(&resource(), sandboxed());
        assert_eq!(
            change(&resource(), &old, json!({"handler": "kata"})),
            r#"handler: Invalid value: "kata": field is immutable"#
        );
        assert_eq!(change(&resource(), &old, json!({"scheduling": null})), "");
    }

    #[test]
    fn a_row_names_the_handler() {
        assert_eq!(columns(&resource()), ["Name", "Handler", "Age"]);
        let stored = created(&resource(), sandboxed());
        assert_eq!(row(&resource(), &stored), json!(["gvisor", "runsc", "10m"]));
    }
}
