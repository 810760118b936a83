//! v1 Service. Addresses and node ports that were allocated stay through an update that does not
//! name them, and go with the type that needed them.

mod columns;
mod defaults;
mod validation;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::prepare::{keep, remove};
use crate::quota::Usage;
use crate::resource::{Behaviour, Field, Resource, Subresource};
use crate::validation::NameRule;

pub fn resource() -> Resource {
    Resource {
        usage: Usage::Service,
        short_names: vec!["svc".into()],
        answers_with_object: true,
        categories: vec!["all".into()],
        subresources: vec![Subresource::Proxy, Subresource::Status],
        fields: vec![Field::of("spec.clusterIP"), Field::of("spec.type")],
        behaviour: Behaviour::Service,
        name_rule: NameRule::Label1035,
        has_status: true,
        default: defaults::service,
        create,
        update,
        update_status,
        validate: validation::service,
        validate_update: validation::service_update,
        validate_status: validation::service_status,
        printer: columns::SERVICES,
        ..Resource::of::<Service>("", "core", "service", "services")
    }
}

fn create(object: &mut Value) {
    object["status"] = json!({"loadBalancer": {}});
    drop_what_the_type_has_not(object);
}

fn update(new: &mut Value, old: &Value) {
    drop_what_the_new_type_does_not_need(new, old);
    if has_cluster_ip(new) && has_cluster_ip(old) {
        keep_addresses(new, old);
    }
    if has_node_ports(new) && has_node_ports(old) {
        keep_node_ports(new, old);
    }
    if has_health_check(new) && has_health_check(old) && is_unset(new, "healthCheckNodePort") {
        keep(new, old, "/spec", "healthCheckNodePort");
    }
    drop_what_the_type_has_not(new);
    if kind(new) != "LoadBalancer" && kind(old) == "LoadBalancer" {
        new["status"]["loadBalancer"] = json!({});
    }
}

/// A controller that is late gives no address to a Service that is of that type no more.
fn update_status(new: &mut Value, _old: &Value) {
    if kind(new) != "LoadBalancer" && new["status"]["loadBalancer"]["ingress"].is_array() {
        new["status"]["loadBalancer"] = json!({});
    }
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

fn has_health_check(object: &Value) -> bool {
    kind(object) == "LoadBalancer" && object["spec"]["externalTrafficPolicy"] == "Local"
}

fn is_reachable(object: &Value) -> bool {
    let external = object["spec"]["externalIPs"].as_array();
    has_node_ports(object)
        || (kind(object) == "ClusterIP" && external.is_some_and(|list| !list.is_empty()))
}

fn is_unset(object: &Value, field: &str) -> bool {
    match &object["spec"][field] {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        value => value.is_null(),
    }
}

fn keep_addresses(new: &mut Value, old: &Value) {
    follow_the_address(new, old);
    if is_unset(new, "ipFamilyPolicy") {
        keep(new, old, "/spec", "ipFamilyPolicy");
    }
    if is_unset(new, "clusterIP") {
        keep(new, old, "/spec", "clusterIP");
    }
    let before = &old["spec"];
    if is_unset(new, "clusterIPs") || only_primary(new, old) {
        keep(new, old, "/spec", "clusterIPs");
    }
    if is_unset(new, "ipFamilies") {
        keep(new, old, "/spec", "ipFamilies");
    }
    // To ask for one family is to let the second one go; what was not touched follows.
    if new["spec"]["ipFamilyPolicy"] == "SingleStack" && before["ipFamilyPolicy"] != "SingleStack" {
        for field in ["clusterIPs", "ipFamilies"] {
            if new["spec"][field] == before[field]
                && let Some(list) = new["spec"][field].as_array_mut()
            {
                list.truncate(1);
            }
        }
    }
}

/// The list of a client that knows only `clusterIP`, made from it.
fn only_primary(new: &Value, old: &Value) -> bool {
    let addresses = |object: &Value| object["spec"]["clusterIPs"].as_array().cloned();
    let (now, before) = (addresses(new), addresses(old));
    let (now, before) = (now.unwrap_or_default(), before.unwrap_or_default());
    now.len() == 1 && before.len() == 2 && now[0] == before[0]
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

/// A port without a node port has that of its name, unless another one has taken it.
fn keep_node_ports(new: &mut Value, old: &Value) {
    let before = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let Some(ports) = new["spec"]["ports"].as_array_mut() else {
        return;
    };
    let has = |port: &Value| port["nodePort"].as_i64().filter(|number| *number != 0);
    let claimed: Vec<(i64, Value)> = ports
        .iter()
        .filter_map(|port| Some((has(port)?, port["protocol"].clone())))
        .collect();
    for port in ports.iter_mut().filter(|port| has(port).is_none()) {
        let same = |other: &&Value| other["name"] == port["name"];
        let number = before.iter().find(same).and_then(has);
        let number = number.filter(|n| !claimed.contains(&(*n, port["protocol"].clone())));
        if let Some(number) = number {
            port["nodePort"] = number.into();
        }
    }
}

/// What the client merely carried over from an object of a type that needed it.
fn drop_what_the_new_type_does_not_need(new: &mut Value, old: &Value) {
    if has_cluster_ip(old) && !has_cluster_ip(new) {
        drop_same(
            new,
            old,
            &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
        );
    }
    if has_node_ports(old) && !has_node_ports(new) {
        drop_node_ports(new, old);
    }
    if has_health_check(old) && !has_health_check(new) {
        drop_same(new, old, &["healthCheckNodePort"]);
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        drop_same(
            new,
            old,
            &["allocateLoadBalancerNodePorts", "loadBalancerClass"],
        );
    }
    if is_reachable(old) && !is_reachable(new) {
        drop_same(new, old, &["externalTrafficPolicy"]);
    }
}

fn drop_same(new: &mut Value, old: &Value, fields: &[&str]) {
    for field in fields {
        if new["spec"][*field] == old["spec"][*field] {
            remove(new, "/spec", field);
        }
    }
}

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
}

fn drop_what_the_type_has_not(object: &mut Value) {
    if has_cluster_ip(object) {
        return;
    }
    remove(object, "/spec", "internalTrafficPolicy");
    if is_unset(object, "clusterIP") {
        remove(object, "/spec", "clusterIP");
    }
}
