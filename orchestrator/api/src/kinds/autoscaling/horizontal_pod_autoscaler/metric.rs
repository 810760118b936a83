//! What a HorizontalPodAutoscaler measures, and what it should be.

use serde_json::Value;

use crate::columns::{list, text};
use crate::quantity::Quantity;
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors, names};

/// How many metrics a row shows.
const SHOWN: usize = 2;

const TYPES: [&str; 5] = [
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];

/// The sources with the fields that hold them, in the order in which they are looked at.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

const NEITHER: &str = "must set either a target raw value or a target utilization";
const BOTH: &str = "may not set both a target raw value and a target utilization";

pub fn validate(metric: &At<'_>, errors: &mut Errors) {
    let kind = metric.field("type");
    if kind.is_empty() {
        errors.required(&kind, "must specify a metric source type");
    }
    if !TYPES.contains(&kind.text()) {
        errors.not_supported(&kind, &TYPES);
    }
    let given: Vec<&str> = SOURCES
        .iter()
        .map(|(_, field)| *field)
        .filter(|field| !metric.field(field).is_null())
        .collect();
    if let Some(first) = given.first() {
        source(first, &metric.field(first), errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text());
    let expected = expected.map(|(_, field)| *field).unwrap_or_default();
    if !expected.is_empty() && !given.contains(&expected) {
        let detail = "must populate information for the given metric source";
        errors.required(&metric.field(expected), detail);
    }
    for other in given.iter().filter(|field| **field != expected) {
        if given.len() > 1 {
            let detail = "must populate the given metric source only";
            errors.forbidden(&metric.field(other), detail);
        }
    }
}

fn source(kind: &str, source: &At<'_>, errors: &mut Errors) {
    let goal = source.field("target");
    if kind == "object" {
        super::reference(&source.field("describedObject"), errors);
    }
    match kind {
        "resource" | "containerResource" => {
            let name = source.field("name");
            if name.is_empty() {
                errors.required(&name, "must specify a resource name");
            }
            let container = source.field("container");
            if kind == "containerResource" && container.is_empty() {
                errors.required(&container, "must specify a container");
            }
        }
        _ => identifier(&source.field("metric"), errors),
    }
    target(&goal, errors);
    let [value, average, utilization] =
        ["value", "averageValue", "averageUtilization"].map(|field| goal.field(field));
    match kind {
        "object" if value.is_null() && average.is_null() => {
            errors.required(&average, "must set either a target value or averageValue");
        }
        "external" if value.is_null() && average.is_null() => errors.required(
            &average,
            "must set either a target value for metric or a per-pod target",
        ),
        "external" if !value.is_null() && !average.is_null() => errors.forbidden(
            &value,
            "may not set both a target value for metric and a per-pod target",
        ),
        "pods" if average.is_null() => {
            errors.required(&average, "must specify a positive target averageValue");
        }
        "resource" | "containerResource" => match (utilization.is_null(), average.is_null()) {
            (true, true) => errors.required(&utilization, NEITHER),
            (false, false) => errors.forbidden(&average, BOTH),
            _ => {}
        },
        _ => {}
    }
}

fn identifier(metric: &At<'_>, errors: &mut Errors) {
    let name = metric.field("name");
    if name.is_empty() {
        errors.required(&name, "must specify a metric name");
    } else {
        errors.check(&name, names::path_segment(name.text()));
    }
    label_selector(&metric.field("selector"), errors);
}

fn target(target: &At<'_>, errors: &mut Errors) {
    let kind = target.field("type");
    if kind.is_empty() {
        errors.required(&kind, "must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.text()) {
        errors.invalid(&kind, "must be either Utilization, Value, or AverageValue");
    }
    for amount in ["value", "averageValue"] {
        let amount = target.field(amount);
        if Quantity::parse(amount.text()).is_ok_and(|amount| amount <= Quantity::ZERO) {
            errors.invalid(&amount, "must be positive");
        }
    }
    let utilization = target.field("averageUtilization");
    if !utilization.is_null() {
        errors.positive(&utilization);
    }
}

/// `cpu: 20%/80%, 15/30 (avg)` of the metrics of an autoscaler.
pub fn shown(object: &Value) -> String {
    let specs = list(object, "/spec/metrics");
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let statuses = list(object, "/status/currentMetrics");
    let all: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(at, spec)| one(spec, statuses.get(at).unwrap_or(&Value::Null)))
        .collect();
    let first = all[..all.len().min(SHOWN)].join(", ");
    match all.len() {
        0..=SHOWN => first,
        count => format!("{first} + {} more...", count - SHOWN),
    }
}

fn one(spec: &Value, status: &Value) -> String {
    let kind = text(spec, "/type");
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return "<unknown type>".to_owned();
    };
    let target = &spec[*field]["target"];
    let now = &status[*field]["current"];
    let pair = |measure: &str| {
        let now = now[measure].as_str().unwrap_or("<unknown>");
        format!("{now}/{}", target[measure].as_str().unwrap_or_default())
    };
    let by_average = target["averageValue"].is_string();
    match kind {
        "Pods" => pair("averageValue"),
        "Object" | "External" if by_average => format!("{} (avg)", pair("averageValue")),
        "Object" | "External" => pair("value"),
        _ => {
            let resource = text(spec, &format!("/{field}/name"));
            if by_average {
                return format!("{resource}: {}", pair("averageValue"));
            }
            let percent = |value: &Value, none: &str| match value.as_i64() {
                Some(percent) => format!("{percent}%"),
                None => none.to_owned(),
            };
            let used = percent(&now["averageUtilization"], "<unknown>");
            let goal = percent(&target["averageUtilization"], "<auto>");
            format!("{resource}: {used}/{goal}")
        }
    }
}
