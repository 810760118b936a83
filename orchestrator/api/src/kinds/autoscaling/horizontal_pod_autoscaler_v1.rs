//! autoscaling/v1 HorizontalPodAutoscaler: what autoscaling/v2 was before it knew other metrics than
//! CPU. What version 1 has no field for goes through annotations, as in Kubernetes
//! (`pkg/apis/autoscaling/v1/conversion.go`).

use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler;
use serde_json::{Map, Value, json};

use super::horizontal_pod_autoscaler as v2;
use crate::columns::Printer;
use crate::defaults::set;
use crate::kinds::apps::workload;
use crate::resource::{Resource, Subresource};
use crate::served::{Conversion, Served};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// The names of a field in version 1 and its place in version 2.
type Names = &'static [(&'static str, &'static str)];

/// Metrics that are aimed at, by the field that holds them.
const SPECS: [(&str, Names); 5] = [
    (
        "object",
        &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("averageValue", "/target/averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("targetAverageValue", "/target/averageValue"),
        ],
    ),
    ("resource", RESOURCE),
    ("containerResource", RESOURCE),
    (
        "external",
        &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("targetAverageValue", "/target/averageValue"),
        ],
    ),
];

const RESOURCE: Names = &[
    ("name", "/name"),
    ("container", "/container"),
    ("targetAverageUtilization", "/target/averageUtilization"),
    ("targetAverageValue", "/target/averageValue"),
];

/// Metrics that were measured.
const STATUSES: [(&str, Names); 5] = [
    (
        "object",
        &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("averageValue", "/current/averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    ),
    ("resource", MEASURED),
    ("containerResource", MEASURED),
    (
        "external",
        &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    ),
];

const MEASURED: Names = &[
    ("name", "/name"),
    ("container", "/container"),
    ("currentAverageUtilization", "/current/averageUtilization"),
    ("currentAverageValue", "/current/averageValue"),
];

pub fn view() -> Served {
    let face = Resource {
        short_names: vec!["hpa".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status],
        default: |object| set(workload::spec(object), "minReplicas", || 1.into()),
        printer: COLUMNS,
        ..Resource::of::<HorizontalPodAutoscaler>(
            "autoscaling",
            "autoscaling",
            "horizontalpodautoscaler",
            "horizontalpodautoscalers",
        )
    };
    let conversion = Conversion::Pure { up, down };
    Served::view(
        face,
        ("autoscaling", "horizontalpodautoscalers"),
        conversion,
    )
}

const COLUMNS: Printer = Printer {
    cells: |object, now| {
        let mut object = object.clone();
        up(&mut object);
        (v2::COLUMNS.cells)(&object, now)
    },
    ..v2::COLUMNS
};

fn up(object: &mut Value) {
    let spec = &mut object["spec"];
    let cpu = take(spec, "targetCPUUtilizationPercentage").map(|percent| {
        json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent},
        }})
    });
    let kept = annotation(object, METRICS).and_then(list);
    let others = kept.into_iter().flatten().map(|m| raised(&SPECS, m));
    let metrics: Vec<Value> = others.chain(cpu).collect();
    if !metrics.is_empty() {
        object["spec"]["metrics"] = metrics.into();
    }
    if let Some(behavior) = annotation(object, BEHAVIOR).filter(Value::is_object) {
        object["spec"]["behavior"] = first_letters(behavior, char::to_lowercase);
    }
    let measured = annotation(object, CURRENT_METRICS).and_then(list);
    let conditions = annotation(object, CONDITIONS).and_then(list);
    if object["status"].is_object() {
        let status = &mut object["status"];
        let used = take(status, "currentCPUUtilizationPercentage").map(|percent| {
            json!({"type": "Resource", "resource": {
                "name": "cpu", "current": {"averageUtilization": percent},
            }})
        });
        let measured = match measured {
            Some(list) => list.into_iter().map(|m| raised(&STATUSES, m)).collect(),
            None => used.into_iter().collect::<Vec<_>>(),
        };
        if !measured.is_empty() {
            status["currentMetrics"] = measured.into();
        }
        if let Some(conditions) = conditions {
            status["conditions"] = conditions.into();
        }
    }
    drop_annotations(object);
}

fn down(object: &mut Value) {
    drop_annotations(object);
    let metrics = take(&mut object["spec"], "metrics").and_then(list);
    let mut others = Vec::new();
    for metric in metrics.unwrap_or_default() {
        let percent = cpu_percent(&metric, "target");
        let spec = &mut object["spec"];
        match percent {
            None => others.push(lowered(&SPECS, &metric)),
            Some(percent) => set(spec, "targetCPUUtilizationPercentage", || percent),
        }
    }
    annotate(object, METRICS, others);
    if let Some(behavior) = take(&mut object["spec"], "behavior") {
        let behavior = first_letters(behavior, char::to_uppercase);
        object["metadata"]["annotations"][BEHAVIOR] = behavior.to_string().into();
    }
    if !object["status"].is_object() {
        return;
    }
    let status = &mut object["status"];
    let measured = take(status, "currentMetrics").and_then(list);
    let measured = measured.unwrap_or_default();
    if let Some(percent) = measured.iter().find_map(|m| cpu_percent(m, "current")) {
        status["currentCPUUtilizationPercentage"] = percent;
    }
    let conditions = take(status, "conditions").and_then(list);
    let measured = measured.iter().map(|m| lowered(&STATUSES, m)).collect();
    annotate(object, CURRENT_METRICS, measured);
    annotate(object, CONDITIONS, conditions.unwrap_or_default());
}

/// The utilization of CPU that a metric is about; other metrics have no field in version 1.
fn cpu_percent(metric: &Value, part: &str) -> Option<Value> {
    let resource = &metric["resource"];
    let percent = &resource[part]["averageUtilization"];
    (metric["type"] == "Resource" && resource["name"] == "cpu" && percent.is_number())
        .then(|| percent.clone())
}

/// A metric of version 1 as version 2 has it.
fn raised(kinds: &[(&str, Names)], mut metric: Value) -> Value {
    for (kind, names) in kinds {
        let Some(old) = take(&mut metric, kind) else {
            continue;
        };
        let mut new = json!({});
        for (name, place) in *names {
            if let Some(value) = old.get(name) {
                put(&mut new, place, value.clone());
            }
        }
        if let Some(target) = new.get_mut("target") {
            let by = if !target["averageUtilization"].is_null() {
                "Utilization"
            } else if !target["averageValue"].is_null() {
                "AverageValue"
            } else {
                "Value"
            };
            target["type"] = by.into();
        }
        metric[*kind] = new;
    }
    metric
}

/// A metric of version 2 as version 1 had it.
fn lowered(kinds: &[(&str, Names)], metric: &Value) -> Value {
    let mut old = json!({"type": metric["type"]});
    for (kind, names) in kinds {
        let Some(new) = metric.get(kind) else {
            continue;
        };
        let known = names.iter().filter_map(|(name, place)| {
            let value = new.pointer(place).filter(|value| !value.is_null())?;
            Some(((*name).to_owned(), value.clone()))
        });
        old[*kind] = Value::Object(known.collect());
    }
    old
}

/// Sets the value at a place of one or two steps.
fn put(object: &mut Value, place: &str, value: Value) {
    let mut at = object;
    for step in place.split('/').skip(1) {
        at = &mut at[step];
    }
    *at = value;
}

/// The keys with their first letters changed: the annotation holds the names of Go's fields.
fn first_letters<I: Iterator<Item = char>>(value: Value, change: fn(char) -> I) -> Value {
    match value {
        Value::Object(fields) => {
            let changed = fields.into_iter().map(|(key, value)| {
                let mut letters = key.chars();
                let first = letters.next().into_iter().flat_map(change);
                let key = first.chain(letters.clone()).collect();
                (key, first_letters(value, change))
            });
            Value::Object(changed.collect::<Map<_, _>>())
        }
        Value::Array(list) => {
            let changed = list.into_iter().map(|item| first_letters(item, change));
            changed.collect()
        }
        other => other,
    }
}

fn annotation(object: &Value, key: &str) -> Option<Value> {
    let text = object["metadata"]["annotations"].get(key)?.as_str()?;
    serde_json::from_str(text).ok()
}

fn annotate(object: &mut Value, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        let text = Value::Array(list).to_string();
        object["metadata"]["annotations"][key] = text.into();
    }
}

fn drop_annotations(object: &mut Value) {
    for key in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
        let annotations = object["metadata"].get_mut("annotations");
        if let Some(Value::Object(annotations)) = annotations {
            annotations.remove(key);
        }
    }
}

fn take(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.remove(field)
}

fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn autoscaler(spec: Value) -> Value {
        let mut object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web", "namespace": "default", "annotations": {"a": "b"}},
            "spec": {"maxReplicas": 3, "minReplicas": 1,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
            "status": {"currentReplicas": 1, "desiredReplicas": 1},
        });
        for (field, value) in spec.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        object
    }

    fn metric(kind: &str, field: &str, metric: Value) -> Value {
        json!({"type": kind, field: metric})
    }

    #[test]
    fn cpu_is_a_field_and_every_other_metric_an_annotation() {
        let cpu = json!({"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}});
        let queue = json!({"metric": {"name": "queue"},
            "target": {"type": "AverageValue", "averageValue": "30"}});
        let metrics = json!([
            metric("Resource", "resource", cpu),
            metric("External", "external", queue)
        ]);
        let old = view()
            .to_served(autoscaler(json!({"metrics": metrics})))
            .unwrap();
        assert_eq!(old["apiVersion"], "autoscaling/v1");
        assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(old["spec"].get("metrics"), None);
        assert_eq!(
            old["metadata"]["annotations"][METRICS],
            r#"[{"external":{"metricName":"queue","targetAverageValue":"30"},"type":"External"}]"#
        );
    }

    #[test]
    fn what_version_2_says_comes_back_through_version_1() {
        let amount = |kind: &str, field: &str| json!({"type": kind, field: "5"});
        let described = json!({"apiVersion": "v1", "kind": "Service", "name": "x"});
        let metrics = json!([
            metric(
                "Object",
                "object",
                json!({"describedObject": described,
                "metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
                "target": amount("Value", "value")})
            ),
            metric(
                "Pods",
                "pods",
                json!({"metric": {"name": "m"},
                "target": amount("AverageValue", "averageValue")})
            ),
            metric(
                "ContainerResource",
                "containerResource",
                json!({"container": "c",
                "name": "memory", "target": amount("AverageValue", "averageValue")})
            ),
        ]);
        let behavior = json!({"scaleDown": {"selectPolicy": "Max", "policies":
            [{"type": "Pods", "value": 1, "periodSeconds": 15}]}});
        let mut object = autoscaler(json!({"metrics": metrics, "behavior": behavior}));
        object["status"]["conditions"] = json!([{"type": "AbleToScale", "status": "True"}]);
        object["status"]["currentMetrics"] = json!([metric(
            "Resource",
            "resource",
            json!({"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "1m"}})
        )]);
        let view = view();
        let old = view.to_served(object.clone()).unwrap();
        assert_eq!(old["status"]["currentCPUUtilizationPercentage"], 7);
        let shown = old["metadata"]["annotations"][BEHAVIOR].as_str().unwrap();
        assert!(
            shown.starts_with(r#"{"ScaleDown":{"Policies":[{"PeriodSeconds":15"#),
            "{shown}"
        );
        assert_eq!(view.to_stored(old).unwrap(), object);
    }
}
