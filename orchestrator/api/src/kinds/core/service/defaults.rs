//! Defaults of Services and of what stands behind them.

use serde_json::{Value, json};

use crate::defaults::{drop_nulls, items, set};

const AFFINITY_SECONDS: i64 = 10_800;

pub fn service(object: &mut Value) {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let spec = &mut object["spec"];
    set(spec, "type", || "ClusterIP".into());
    set(spec, "sessionAffinity", || "None".into());
    match spec["sessionAffinity"].as_str() {
        Some("ClientIP") => {
            set(spec, "sessionAffinityConfig", || json!({}));
            let config = &mut spec["sessionAffinityConfig"];
            set(config, "clientIP", || json!({}));
            set(&mut config["clientIP"], "timeoutSeconds", || {
                AFFINITY_SECONDS.into()
            });
        }
        _ => {
            spec.as_object_mut()
                .map(|spec| spec.remove("sessionAffinityConfig"));
        }
    }
    for port in items(spec, "ports") {
        set(port, "protocol", || "TCP".into());
        let number = port["port"].clone();
        // Zero and the empty string mean the port itself.
        if port["targetPort"] == 0 {
            port["targetPort"] = Value::Null;
        }
        set(port, "targetPort", || number);
    }
    by_type(spec);
    ingress(object);
}

/// Families are not among them: they depend on the cluster's ranges.
fn by_type(spec: &mut Value) {
    drop_nulls(spec);
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    let external = spec["externalIPs"].as_array();
    let external = external.is_some_and(|list| !list.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external) {
        set(spec, "externalTrafficPolicy", || "Cluster".into());
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", || true.into());
    }
    if kind == "ExternalName" {
        return;
    }
    set(spec, "internalTrafficPolicy", || "Cluster".into());
    let address = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
    if !address.is_empty() {
        set(spec, "clusterIPs", || json!([address]));
    } else if let Some(first) = spec["clusterIPs"].get(0).cloned() {
        set(spec, "clusterIP", || first);
    }
}

/// An address of a load balancer is one that packets arrive with, unless it says otherwise.
fn ingress(object: &mut Value) {
    let ingress = object.pointer_mut("/status/loadBalancer/ingress");
    for entry in ingress.and_then(Value::as_array_mut).into_iter().flatten() {
        if entry["ip"].as_str().is_some_and(|ip| !ip.is_empty()) {
            set(entry, "ipMode", || "VIP".into());
        }
    }
}
