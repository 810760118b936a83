//! apps/v1 DaemonSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::{Value, json};

use super::workload::{self, CONTAINERS, IMAGES, SELECTOR, containers};
use crate::columns::{
    AGE, Column, NAME, Printer, age, format_labels, format_selector, name, number,
};
use crate::defaults::set;
use crate::kinds::core::pod;
use crate::resource::{Generation, Resource, Subresource};
use crate::validation::int_or_percent::{at_most_all, is_zero, number_or_percent};
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors};

/// Counts the changes of the template. Controllers before revisions told pods apart by it.
pub(super) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

const EMPTY: &str = "empty selector is invalid for daemonset";

const STRATEGIES: [&str; 2] = ["RollingUpdate", "OnDelete"];

const COUNTS: [&str; 8] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];

pub fn resource() -> Resource {
    Resource {
        pod_template: Some("/spec/template"),
        warn: |object| crate::kinds::core::pod::warnings::of(object, "/spec/template/spec"),
        short_names: vec!["ds".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status],
        generation: Generation::Spec,
        has_status: true,
        default,
        create,
        update,
        update_status: workload::update_status,
        validate,
        validate_update: workload::selector_is_immutable,
        validate_status: |set, errors| {
            let status = set.field("status");
            for count in COUNTS {
                errors.not_negative(&status.field(count));
            }
        },
        printer: COLUMNS,
        ..Resource::of::<DaemonSet>("apps", "apps", "daemonset", "daemonsets")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Desired", "How many nodes should run the pod"),
        Column::integer("Current", "How many nodes run it"),
        Column::integer("Ready", "How many of the pods are ready"),
        Column::integer("Up-to-date", "How many pods have the present template"),
        Column::integer("Available", "How many pods have been ready long enough"),
        Column::text("Node Selector", "Labels of the nodes that run the pod"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
};

fn default(object: &mut Value) {
    let spec = workload::spec(object);
    workload::default_template(spec);
    set(spec, "updateStrategy", || json!({}));
    let strategy = &mut spec["updateStrategy"];
    set(strategy, "type", || "RollingUpdate".into());
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", || json!({}));
        set(&mut strategy["rollingUpdate"], "maxUnavailable", || {
            1.into()
        });
        set(&mut strategy["rollingUpdate"], "maxSurge", || 0.into());
    }
    set(spec, "revisionHistoryLimit", || 10.into());
}

fn create(object: &mut Value) {
    object["status"] = json!({
        "currentNumberScheduled": 0,
        "desiredNumberScheduled": 0,
        "numberMisscheduled": 0,
        "numberReady": 0,
    });
    count_template(object, 1);
}

fn update(new: &mut Value, old: &Value) {
    let annotations = &old["metadata"]["annotations"];
    let before = annotations[TEMPLATE_GENERATION].as_str();
    let before: i64 = before.and_then(|text| text.parse().ok()).unwrap_or(1);
    let changed = new["spec"]["template"] != old["spec"]["template"];
    count_template(new, before.saturating_add(i64::from(changed)));
}

fn count_template(object: &mut Value, generation: i64) {
    object["metadata"]["annotations"][TEMPLATE_GENERATION] = generation.to_string().into();
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    label_selector(&spec.field("selector"), errors);
    workload::selects_template(&spec, EMPTY, errors);
    let template = spec.field("template");
    pod::validate_template(&template, errors);
    workload::runs_for_ever(&template, "DaemonSet", errors);
    errors.not_negative(&spec.field("minReadySeconds"));
    strategy(&spec.field("updateStrategy"), errors);
    errors.not_negative(&spec.field("revisionHistoryLimit"));
}

fn strategy(strategy: &At<'_>, errors: &mut Errors) {
    match strategy.field("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => rolling(&strategy.field("rollingUpdate"), errors),
        _ => errors.not_supported(strategy, &STRATEGIES),
    }
}

/// Either old pods go first, or new ones come first.
fn rolling(rolling: &At<'_>, errors: &mut Errors) {
    let (most, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    for amount in [&most, &surge] {
        number_or_percent(amount, errors);
    }
    for amount in [&most, &surge] {
        at_most_all(amount, errors);
    }
    match (is_zero(&most), is_zero(&surge)) {
        (false, false) => errors.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
        (true, true) => errors.required(&most, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |field: &str| number(object, &format!("/status/{field}")).into();
    vec![
        name(object),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        format_labels(object.pointer("/spec/template/spec/nodeSelector")).into(),
        age(object, now),
        containers(object, "/name").into(),
        containers(object, "/image").into(),
        format_selector(object.pointer("/spec/selector")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{change, columns, created, row, update, with, wrong};

    /// What the chart of a log shipper applies.
    fn shipper() -> Value {
        json!({
            "metadata": {"name": "fluent-bit", "labels": {"app": "fluent-bit"}},
            "spec": {
                "selector": {"matchLabels": {"app": "fluent-bit"}},
                "template": {
                    "metadata": {"labels": {"app": "fluent-bit"}},
                    "spec": {
                        "nodeSelector": {"kubernetes.io/os": "linux"},
                        "tolerations": [{"operator": "Exists"}],
                        "containers": [{"name": "agent", "image": "fluent-bit:3.1"}],
                        "volumes": [{"name": "logs", "hostPath": {"path": "/var/log"}}],
                    },
                },
            },
        })
    }

    #[test]
    fn a_daemon_set_rolls_one_node_at_a_time() {
        let set = created(&resource(), shipper());
        let spec = &set["spec"];
        assert_eq!(
            spec["updateStrategy"],
            json!({
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
            })
        );
        assert_eq!(spec["revisionHistoryLimit"], 10);
        assert_eq!(spec["template"]["spec"]["dnsPolicy"], "ClusterFirst");
        assert_eq!(spec.get("replicas"), None);
        let metadata = &set["metadata"];
        assert_eq!(metadata["generation"], 1);
        assert_eq!(metadata["labels"], json!({"app": "fluent-bit"}));
        assert_eq!(metadata["annotations"], json!({TEMPLATE_GENERATION: "1"}));
        let waiting = with(
            &shipper(),
            "/spec/updateStrategy",
            json!({"type": "OnDelete"}),
        );
        let waiting = created(&resource(), waiting);
        assert_eq!(
            waiting["spec"]["updateStrategy"],
            json!({"type": "OnDelete"})
        );
    }

    #[test]
    fn daemon_sets_are_refused_in_the_words_of_kubernetes() {
        let rolling = |amounts: Value| json!({"type": "RollingUpdate", "rollingUpdate": amounts});
        let cases = [
            (
                "/spec/selector",
                Value::Null,
                r#"spec.template.metadata.labels: Invalid value: {"app":"fluent-bit"}: `selector` does not match template `labels`"#,
            ),
            (
                "/spec/selector",
                json!({"matchLabels": {"app": "other"}}),
                r#"spec.template.metadata.labels: Invalid value: {"app":"fluent-bit"}: `selector` does not match template `labels`"#,
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("OnFailure"),
                r#"spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always""#,
            ),
            (
                "/spec/template/spec/activeDeadlineSeconds",
                json!(5),
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in \
                 DaemonSet is not Supported",
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "Recreate"}),
                r#"spec.updateStrategy: Unsupported value: {"type":"Recreate"}: supported values: "RollingUpdate", "OnDelete""#,
            ),
            (
                "/spec/updateStrategy",
                rolling(json!({"maxSurge": 1})),
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set \
                 when maxUnavailable is non-zero",
            ),
            (
                "/spec/updateStrategy",
                rolling(json!({"maxUnavailable": 0})),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 \
                 when maxSurge is 0",
            ),
            (
                "/spec/updateStrategy",
                rolling(json!({"maxUnavailable": "110%"})),
                r#"spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "110%": must not be greater than 100%"#,
            ),
            (
                "/spec/minReadySeconds",
                json!(-1),
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/template/spec/containers",
                json!([]),
                "spec.template.spec.containers: Required value",
            ),
        ];
        for (at, value, why) in cases {
            assert_eq!(wrong(&resource(), with(&shipper(), at, value)), why);
        }
    }

    #[test]
    fn an_update_of_the_template_counts_both_generations() {
        let old = created(&resource(), shipper());
        let image = json!([{"name": "agent", "image": "fluent-bit:3.2"}]);
        let template = json!({"spec": {"template": {"spec": {"containers": image}}}});
        let new = update(&resource(), &old, template, None).unwrap();
        assert_eq!(new["metadata"]["generation"], 2);
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
        let limit = json!({"spec": {"revisionHistoryLimit": 3}, "metadata": {"annotations": null}});
        let new = update(&resource(), &new, limit, None).unwrap();
        assert_eq!(new["metadata"]["generation"], 3);
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
        let labels = json!({"matchLabels": {"app": "fluent-bit", "a": "b"}});
        let selector = json!({"spec": {"selector": labels,
            "template": {"metadata": {"labels": {"a": "b"}}}}});
        assert_eq!(
            change(&resource(), &old, selector),
            r#"spec.selector: Invalid value: {"matchLabels":{"a":"b","app":"fluent-bit"}}: field is immutable"#
        );
        let status = json!({"status": {"numberReady": 1}});
        let new = update(&resource(), &old, status.clone(), None).unwrap();
        assert_eq!(new["status"]["numberReady"], 0);
        let new = update(&resource(), &old, status, Some(Subresource::Status)).unwrap();
        assert_eq!(new["status"]["numberReady"], 1);
        assert_eq!(new["metadata"]["generation"], 1);
    }

    #[test]
    fn a_row_counts_nodes() {
        assert_eq!(
            columns(&resource()),
            [
                "Name",
                "Desired",
                "Current",
                "Ready",
                "Up-to-date",
                "Available",
                "Node Selector",
                "Age",
                "[Containers]",
                "[Images]",
                "[Selector]"
            ]
        );
        let status = json!({"desiredNumberScheduled": 3, "currentNumberScheduled": 3,
            "numberReady": 2, "updatedNumberScheduled": 3, "numberAvailable": 1,
            "numberMisscheduled": 0});
        let set = with(&created(&resource(), shipper()), "/status", status);
        assert_eq!(
            row(&resource(), &set),
            json!([
                "fluent-bit",
                3,
                3,
                2,
                3,
                1,
                "kubernetes.io/os=linux",
                "10m",
                "agent",
                "fluent-bit:3.1",
                "app=fluent-bit"
            ])
        );
    }
}
