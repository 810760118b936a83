//! Defaults of a pod's spec, alone and in a template.

use serde_json::{Value, json};

use super::whole;

use crate::defaults::{drop_nulls, items, set};

/// Modes of files that volumes make: 0644.
const FILE_MODE: i64 = 0o644;

pub fn pod(object: &mut Value) {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let spec = &mut object["spec"];
    template(spec);
    set(spec, "enableServiceLinks", || true.into());
    for list in ["initContainers", "containers"] {
        items(spec, list).for_each(requests_from_limits);
    }
    whole::defaults(spec);
    // A node's own pod has none.
    if object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        accounts(&mut object["spec"]);
    }
}

/// What a template's pods get too; the rest a pod gets when it is made.
pub fn template(spec: &mut Value) {
    // Not left out even when there are none, which validation then says.
    set(spec, "containers", || json!([]));
    set(spec, "restartPolicy", || "Always".into());
    set(spec, "dnsPolicy", || "ClusterFirst".into());
    set(spec, "schedulerName", || "default-scheduler".into());
    set(spec, "terminationGracePeriodSeconds", || 30.into());
    set(spec, "securityContext", || json!({}));
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for each in items(spec, list) {
            container(each, host_network);
        }
    }
    items(spec, "volumes").for_each(volume);
    drop_nulls(spec);
}

/// The old and the new name of the service account are one field.
fn accounts(spec: &mut Value) {
    let old = spec["serviceAccount"].clone();
    let name = if old.is_string() && old != "" {
        old
    } else {
        "default".into()
    };
    set(spec, "serviceAccountName", || name);
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
}

fn container(container: &mut Value, host_network: bool) {
    let policy = pull_policy(container["image"].as_str().unwrap_or_default());
    set(container, "imagePullPolicy", || policy.into());
    set(container, "terminationMessagePath", || {
        "/dev/termination-log".into()
    });
    set(container, "terminationMessagePolicy", || "File".into());
    set(container, "resources", || json!({}));
    for port in items(container, "ports") {
        set(port, "protocol", || "TCP".into());
        if host_network {
            let number = port["containerPort"].clone();
            set(port, "hostPort", || number);
        }
    }
    for variable in items(container, "env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            set(field, "apiVersion", || "v1".into());
        }
        if let Some(field) = variable.pointer_mut("/valueFrom/resourceFieldRef") {
            set(field, "divisor", || "0".into());
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get_mut(kind).filter(|p| p.is_object()) {
            probe(found);
        }
    }
    for hook in ["/lifecycle/postStart/httpGet", "/lifecycle/preStop/httpGet"] {
        container.pointer_mut(hook).into_iter().for_each(http_get);
    }
    drop_nulls(container);
}

fn probe(probe: &mut Value) {
    set(probe, "timeoutSeconds", || 1.into());
    set(probe, "periodSeconds", || 10.into());
    set(probe, "successThreshold", || 1.into());
    set(probe, "failureThreshold", || 3.into());
    // Zero seconds are as good as none said.
    for (field, seconds) in [("timeoutSeconds", 1), ("periodSeconds", 10)] {
        if probe[field] == 0 {
            probe[field] = seconds.into();
        }
    }
    for (field, times) in [("successThreshold", 1), ("failureThreshold", 3)] {
        if probe[field] == 0 {
            probe[field] = times.into();
        }
    }
    probe.pointer_mut("/httpGet").into_iter().for_each(http_get);
    if let Some(grpc) = probe
        .pointer_mut("/grpc")
        .filter(|g| g["service"].is_null())
    {
        grpc["service"] = "".into();
    }
    drop_nulls(probe);
}

fn http_get(action: &mut Value) {
    set(action, "path", || "/".into());
    set(action, "scheme", || "HTTP".into());
}

/// A limit without a request is also the request.
fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container
        .pointer("/resources/limits")
        .and_then(Value::as_object)
        .cloned()
    else {
        return;
    };
    set(&mut container["resources"], "requests", || json!({}));
    let Some(requests) = container["resources"]["requests"].as_object_mut() else {
        return;
    };
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

fn volume(volume: &mut Value) {
    let sources = volume
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "name");
    if sources.count() == 0 {
        volume["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
            set(source, "defaultMode", || FILE_MODE.into());
        }
    }
    if let Some(image) = volume.get_mut("image").filter(|it| it.is_object()) {
        let policy = pull_policy(image["reference"].as_str().unwrap_or_default());
        set(image, "pullPolicy", || policy.into());
    }
    if let Some(path) = volume.get_mut("hostPath").filter(|p| p["type"].is_null()) {
        path["type"] = "".into();
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                set(token, "expirationSeconds", || 3600.into());
            }
        }
    }
}

/// `Always` for `:latest` and for no tag; a digest or another tag need not be pulled again.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    // A colon before the last slash is a registry's port.
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        None | Some((_, "latest" | "")) => "Always",
        Some(_) => "IfNotPresent",
    }
}
