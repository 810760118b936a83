//! Defaults of the controllers of pods.

use serde_json::{Value, json};

use super::{pod, set};

pub fn deployment(object: &mut Value) {
    let spec = workload(object);
    set(spec, "strategy", || json!({}));
    set(&mut spec["strategy"], "type", || "RollingUpdate".into());
    if spec["strategy"]["type"] == "RollingUpdate" {
        set(&mut spec["strategy"], "rollingUpdate", || json!({}));
        let rolling = &mut spec["strategy"]["rollingUpdate"];
        set(rolling, "maxUnavailable", || "25%".into());
        set(rolling, "maxSurge", || "25%".into());
    }
    set(spec, "revisionHistoryLimit", || 10.into());
    set(spec, "progressDeadlineSeconds", || 600.into());
}

pub fn replica_set(object: &mut Value) {
    workload(object);
    labels_of_template(object);
}

/// Unlike the newer kinds it may leave its selector to its template's labels.
pub fn replication_controller(object: &mut Value) {
    let spec = workload(object);
    let labels = spec["template"]["metadata"]["labels"].clone();
    if !is_empty(&labels) && is_empty(&spec["selector"]) {
        spec["selector"] = labels;
    }
    super::drop_nulls(spec);
    labels_of_template(object);
}

/// One replica, and a template with a pod's defaults.
fn workload(object: &mut Value) -> &mut Value {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let spec = &mut object["spec"];
    set(spec, "replicas", || 1.into());
    if spec["template"].is_object() {
        set(&mut spec["template"], "metadata", || json!({}));
        set(&mut spec["template"], "spec", || json!({}));
        pod::template(&mut spec["template"]["spec"]);
    }
    spec
}

/// An object without labels gets those of its template.
fn labels_of_template(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    super::drop_nulls(&mut object["spec"]["template"]);
    super::drop_nulls(&mut object["spec"]);
    super::drop_nulls(&mut object["spec"]["template"]["metadata"]);
    if !is_empty(&labels) && is_empty(&object["metadata"]["labels"]) {
        object["metadata"]["labels"] = labels;
    }
    super::drop_nulls(&mut object["metadata"]);
}

fn is_empty(labels: &Value) -> bool {
    labels.as_object().is_none_or(serde_json::Map::is_empty)
}
