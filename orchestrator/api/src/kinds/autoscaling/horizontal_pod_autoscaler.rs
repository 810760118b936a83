//! autoscaling/v2 HorizontalPodAutoscaler.

mod metric;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, Printer, age, name, number, text};
use crate::defaults::set;
use crate::kinds::apps::workload;
use crate::resource::{Resource, Subresource};
use crate::validation::{At, Errors, names};

/// The share of the requested CPU that pods use, unless a metric is said, in percent.
const CPU_UTILIZATION: i64 = 80;

/// How far back recommendations may count.
const MAX_STABILIZATION_SECONDS: i64 = 3600;
/// The longest time that a policy looks back.
const MAX_PERIOD_SECONDS: i64 = 1800;

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["hpa".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status],
        has_status: true,
        default,
        create: |object| object["status"] = json!({"desiredReplicas": 0}),
        validate,
        validate_status: |object, errors| {
            let status = object.field("status");
            errors.not_negative(&status.field("currentReplicas"));
            errors.not_negative(&status.field("desiredReplicas"));
        },
        printer: COLUMNS,
        ..Resource::of::<HorizontalPodAutoscaler>(
            "autoscaling",
            "autoscaling",
            "horizontalpodautoscaler",
            "horizontalpodautoscalers",
        )
    }
}

pub(super) const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Reference", "What is scaled"),
        Column::text("Targets", "What is measured, and what it should be"),
        Column::text("MinPods", "The least replicas"),
        Column::text("MaxPods", "The most replicas"),
        Column::integer("Replicas", "How many replicas there are"),
        AGE,
    ],
    cells,
};

fn default(object: &mut Value) {
    let spec = workload::spec(object);
    set(spec, "minReplicas", || 1.into());
    if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
        spec["metrics"] = json!([{
            "type": "Resource",
            "resource": {
                "name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": CPU_UTILIZATION},
            },
        }]);
    }
    let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) else {
        return;
    };
    let policy =
        |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
    let (pods, percent) = (policy("Pods", 4), policy("Percent", 100));
    for (direction, policies) in [
        ("scaleUp", json!([pods, percent])),
        ("scaleDown", json!([percent])),
    ] {
        set(behavior, direction, || json!({}));
        set(&mut behavior[direction], "selectPolicy", || "Max".into());
        set(&mut behavior[direction], "policies", || policies);
    }
    // Downwards the controller's own window holds.
    let up = &mut behavior["scaleUp"];
    set(up, "stabilizationWindowSeconds", || 0.into());
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let (least, most) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    if least.number() < 1 {
        errors.invalid(&least, "must be greater than or equal to 1");
    }
    errors.positive(&most);
    if most.number() < least.number() {
        errors.invalid(&most, "must be greater than or equal to `minReplicas`");
    }
    reference(&spec.field("scaleTargetRef"), errors);
    let metrics = spec.field("metrics");
    for metric in metrics.items() {
        metric::validate(&metric, errors);
    }
    let behavior = spec.field("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        let rules = behavior.field(direction);
        if !rules.is_null() {
            scaling(&rules, errors);
        }
    }
}

/// An object that is named by its kind.
fn reference(reference: &At<'_>, errors: &mut Errors) {
    for field in ["kind", "name"] {
        let at = reference.field(field);
        if at.is_empty() {
            errors.required(&at, "");
        } else {
            errors.check(&at, names::path_segment(at.text()));
        }
    }
}

/// How fast the number of pods may change.
fn scaling(rules: &At<'_>, errors: &mut Errors) {
    let window = rules.field("stabilizationWindowSeconds");
    if window.number() < 0 {
        errors.invalid(&window, "must be greater than or equal to zero");
    }
    at_most(&window, MAX_STABILIZATION_SECONDS, errors);
    let select = rules.field("selectPolicy");
    errors.one_of_if_any(&select, &["Disabled", "Max", "Min"]);
    let policies = rules.field("policies");
    if policies.is_empty() {
        errors.required(&policies, "must specify at least one Policy");
    }
    for policy in policies.items() {
        let kind = policy.field("type");
        if !["Percent", "Pods"].contains(&kind.text()) {
            errors.not_supported(&kind, &["Percent", "Pods"]);
        }
        let period = policy.field("periodSeconds");
        for amount in [&policy.field("value"), &period] {
            if amount.number() <= 0 {
                errors.invalid(amount, "must be greater than zero");
            }
        }
        at_most(&period, MAX_PERIOD_SECONDS, errors);
    }
}

fn at_most(at: &At<'_>, most: i64, errors: &mut Errors) {
    if at.number() > most {
        errors.invalid(at, format!("must be less than or equal to {most}"));
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = &object["spec"]["scaleTargetRef"];
    let least = object["spec"]["minReplicas"].as_i64();
    vec![
        name(object),
        format!("{}/{}", text(target, "/kind"), text(target, "/name")).into(),
        metric::shown(object).into(),
        least
            .map_or("<unset>".into(), |least| least.to_string())
            .into(),
        number(object, "/spec/maxReplicas").into(),
        number(object, "/status/currentReplicas").into(),
        age(object, now),
    ]
}

#[cfg(test)]
mod tests;
