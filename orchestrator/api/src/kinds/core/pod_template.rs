//! v1 PodTemplate: a template alone, for controllers that keep theirs apart.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::{Value, json};

use super::pod;
use crate::columns::{Column, NAME, Printer, format_labels, name};
use crate::defaults::set;
use crate::kinds::apps::workload::{containers_at, default_template};
use crate::resource::{Generation, Resource};

const CONTAINERS_AT: &str = "/template/spec/containers";

pub fn resource() -> Resource {
    Resource {
        pod_template: Some("/template"),
        warn: |object| crate::kinds::core::pod::warnings::of(object, "/template/spec"),
        generation: Generation::Spec,
        answers_with_object: true,
        default: |object| {
            set(object, "template", || json!({}));
            default_template(object);
        },
        validate: |object, errors| pod::validate_template(&object.field("template"), errors),
        printer: COLUMNS,
        ..Resource::of::<PodTemplate>("", "core", "podtemplate", "podtemplates")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Containers", "Names of the containers"),
        Column::text("Images", "Images of the containers"),
        Column::text("Pod Labels", "Labels of the pods"),
    ],
    cells,
};

fn cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        containers_at(object, CONTAINERS_AT, "/name").into(),
        containers_at(object, CONTAINERS_AT, "/image").into(),
        format_labels(object.pointer("/template/metadata/labels")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{change, columns, created, row, update, with, wrong};

    fn template() -> Value {
        json!({
            "metadata": {"name": "worker"},
            "template": {
                "metadata": {"labels": {"app": "worker"}},
                "spec": {"containers": [{"name": "c", "image": "worker:1"}]},
            },
        })
    }

    #[test]
    fn a_template_gets_the_defaults_of_a_pod() {
        let stored = created(&resource(), template());
        let spec = &stored["template"]["spec"];
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(stored["metadata"]["generation"], 1);
    }

    #[test]
    fn a_template_is_checked_as_a_pod_is() {
        let empty = with(&template(), "/template", Value::Null);
        assert_eq!(
            wrong(&resource(), empty),
            "template.spec.containers: Required value"
        );
        let policy = with(&template(), "/template/spec/restartPolicy", "Maybe".into());
        assert_eq!(
            wrong(&resource(), policy),
            r#"template.spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never""#
        );
    }

    #[test]
    fn a_change_counts_a_generation() {
        let old = created(&resource(), template());
        let label = json!({"template": {"metadata": {"labels": {"a": "b"}}}});
        let new = update(&resource(), &old, label, None).unwrap();
        assert_eq!(new["metadata"]["generation"], 2);
        let own = json!({"metadata": {"labels": {"a": "b"}}});
        assert_eq!(change(&resource(), &old, own), "");
    }

    #[test]
    fn a_row_shows_the_pods_labels() {
        assert_eq!(
            columns(&resource()),
            ["Name", "Containers", "Images", "Pod Labels"]
        );
        let stored = created(&resource(), template());
        assert_eq!(
            row(&resource(), &stored),
            json!(["worker", "c", "worker:1", "app=worker"])
        );
    }
}
