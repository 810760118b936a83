//! Services: addresses and node ports that were allocated stay through an update that does not
//! name them, and go with the type that needed them.

use serde_json::{Value, json};

use super::{keep, remove};

pub fn create(object: &mut Value) {
    object["status"] = json!({"loadBalancer": {}});
    drop_what_the_type_has_not(object);
}

pub fn update(new: &mut Value, old: &Value) {
    if has_cluster_ip(new) && has_cluster_ip(old) {
        follow_the_address(new, old);
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let unset = match &new["spec"][field] {
                Value::String(text) => text.is_empty(),
                Value::Array(list) => list.is_empty(),
                _ => true,
            };
            if unset {
                keep(new, old, "/spec", field);
            }
        }
    }
    if has_node_ports(new) && has_node_ports(old) {
        keep_node_ports(new, old);
    }
    if has_node_ports(old) && !has_node_ports(new) {
        drop_node_ports(new, old);
    }
    drop_what_the_type_has_not(new);
}

fn kind(object: &Value) -> &str {
    object["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

fn has_cluster_ip(object: &Value) -> bool {
    kind(object) != "ExternalName"
}

fn has_node_ports(object: &Value) -> bool {
    matches!(kind(object), "NodePort" | "LoadBalancer")
}

/// A client that knows only `clusterIP` changes it alone; the list follows.
fn follow_the_address(new: &mut Value, old: &Value) {
    let spec = &mut new["spec"];
    let before = &old["spec"];
    if spec["clusterIP"] == before["clusterIP"] || spec["clusterIPs"] != before["clusterIPs"] {
        return;
    }
    let address = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
    if address.is_empty() {
        remove(new, "/spec", "clusterIPs");
    } else if let Some(first) = spec["clusterIPs"].get_mut(0) {
        *first = address.into();
    }
}

fn keep_node_ports(new: &mut Value, old: &Value) {
    let before = old["spec"]["ports"].as_array();
    for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if port["nodePort"].as_i64().unwrap_or_default() != 0 {
            continue;
        }
        let same = |p: &&Value| p["port"] == port["port"] && p["protocol"] == port["protocol"];
        let allocated = before.into_iter().flatten().find(same);
        if let Some(number) = allocated.and_then(|p| p.get("nodePort")).cloned() {
            port["nodePort"] = number;
        }
    }
}

/// A node port that the client merely carried over from the old object.
fn drop_node_ports(new: &mut Value, old: &Value) {
    let before: Vec<Value> = old["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| port.get("nodePort").cloned())
        .collect();
    for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if port
            .get("nodePort")
            .is_some_and(|number| before.contains(number))
        {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
    for field in ["externalTrafficPolicy", "healthCheckNodePort"] {
        if new["spec"][field] == old["spec"][field] {
            remove(new, "/spec", field);
        }
    }
    if kind(old) == "LoadBalancer" {
        remove(new, "/spec", "allocateLoadBalancerNodePorts");
    }
}

fn drop_what_the_type_has_not(object: &mut Value) {
    if !has_cluster_ip(object) {
        let allocated = [
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ];
        for field in allocated {
            remove(object, "/spec", field);
        }
        let address = object["spec"]["clusterIP"].as_str().unwrap_or_default();
        if !address.is_empty() && address != "None" {
            remove(object, "/spec", "clusterIP");
        }
    }
}
