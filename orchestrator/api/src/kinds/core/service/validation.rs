//! Services: what may stand together, by type, and what an update may change.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::json;

use crate::kinds::core::pod::container;
use crate::validation::addresses::{cidr, ip, usual_address};
use crate::validation::{At, Errors, names, object};

const MAX_AFFINITY_SECONDS: i64 = 86_400;
/// One a family.
const MAX_CLUSTER_IPS: usize = 2;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// KEP-4444 and KEP-3015.
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];

pub fn service(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let kind = spec.field("type");
    let headless = spec.field("clusterIP").text() == "None";
    let external = kind.text() == "ExternalName";
    errors.one_of(&kind, &TYPES);
    let all = spec.field("ports");
    if all.is_empty() && !headless && !external {
        errors.required(&all, "");
    }
    ports(&all, kind.text(), errors);
    errors.one_of(&spec.field("sessionAffinity"), &["ClientIP", "None"]);
    affinity(&spec, errors);
    object::labels(&spec.field("selector"), errors);
    cluster_ips(&spec, errors);
    families(&spec, errors);
    let outside = spec.field("externalIPs");
    for address in outside.items() {
        if ip(&address, errors) {
            usual_address(&address, errors);
        }
    }
    load_balancer(&spec, errors);
    policies(&spec, errors);
    health_check(&spec, errors);
    if external {
        external_name(&spec.field("externalName"), errors);
    }
}

pub fn service_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    class_update(&new, &old, errors);
    if needs_health_check(&new) && needs_health_check(&old) {
        let (now, before) = (
            new.field("healthCheckNodePort"),
            old.field("healthCheckNodePort"),
        );
        if now.number() != before.number() && before.number() != 0 {
            errors.forbidden(&now, "field is immutable");
        }
    }
    let external = |spec: &At<'_>| spec.field("type").text() == "ExternalName";
    if external(&new) || external(&old) {
        return;
    }
    for field in ["clusterIPs", "ipFamilies"] {
        let (now, before) = (new.field(field), old.field(field));
        for (item, before) in now.items().zip(before.items()) {
            if item.value != before.value && !before.is_empty() {
                errors.invalid_part(&item, now.value, "may not change once set");
            }
        }
    }
}

/// Where a load balancer answers, as a controller says it.
pub fn service_status(object: &At<'_>, errors: &mut Errors) {
    let status = object.field("status");
    let balancer = status.field("loadBalancer");
    let all = balancer.field("ingress");
    for ingress in all.items() {
        let (address, mode) = (ingress.field("ip"), ingress.field("ipMode"));
        if !address.is_empty() && ip(&address, errors) {
            usual_address(&address, errors);
        }
        if !mode.is_null() {
            errors.one_of(&mode, &["Proxy", "VIP"]);
            if address.is_empty() {
                errors.forbidden(&mode, "may not be specified when `ip` is not set");
            }
        }
        let name = ingress.field("hostname");
        if !name.is_empty() {
            errors.check(&name, names::subdomain(name.text()));
            if name.text().parse::<IpAddr>().is_ok() {
                errors.invalid(&name, "must be a DNS name, not an IP address");
            }
        }
    }
}

fn class_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let balanced = |spec: &At<'_>| spec.field("type").text() == "LoadBalancer";
    if balanced(new) && balanced(old) {
        let (now, before) = (
            new.field("loadBalancerClass"),
            old.field("loadBalancerClass"),
        );
        if now.value != before.value {
            errors.invalid(&now, "may not change once set");
        }
    }
}

fn ports(ports: &At<'_>, kind: &str, errors: &mut Errors) {
    let several = ports.value.as_array().is_some_and(|ports| ports.len() > 1);
    let mut seen_names = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut seen_node_ports = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if several && name.is_empty() {
            errors.required(&name, "");
        } else if !name.is_empty() {
            errors.check(&name, names::label(name.text()));
            if !seen_names.insert(name.text().to_owned()) {
                errors.duplicate(&name);
            }
        }
        let (number, protocol) = (port.field("port"), port.field("protocol"));
        errors.in_range(&number, 1, 65535);
        errors.one_of(&protocol, &["SCTP", "TCP", "UDP"]);
        container::port(&port.field("targetPort"), errors);
        let application = port.field("appProtocol");
        if !application.is_empty() {
            errors.check(&application, names::label_key(application.text()));
        }
        if !seen.insert((protocol.text().to_owned(), number.number())) {
            let key = json!({"port": number.value, "protocol": protocol.value});
            errors.duplicate_value(&port, &key);
        }
        let node_port = port.field("nodePort");
        if node_port.number() == 0 {
            continue;
        }
        if matches!(kind, "ClusterIP" | "ExternalName") {
            errors.forbidden(
                &node_port,
                &format!("may not be used when `type` is '{kind}'"),
            );
        } else if !seen_node_ports.insert((protocol.text().to_owned(), node_port.number())) {
            errors.duplicate(&node_port);
        }
    }
}

fn affinity(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.field("sessionAffinityConfig");
    if spec.field("sessionAffinity").text() != "ClientIP" || config.is_null() {
        return;
    }
    let client = config.field("clientIP");
    let seconds = client.field("timeoutSeconds");
    if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds.number()) {
        errors.invalid(
            &seconds,
            format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"),
        );
    }
}

fn cluster_ips(spec: &At<'_>, errors: &mut Errors) {
    let kind = spec.field("type");
    let (address, all) = (spec.field("clusterIP"), spec.field("clusterIPs"));
    if kind.text() == "ExternalName" {
        for at in [&address, &all] {
            if !at.is_empty() {
                errors.forbidden(at, "may not be set for ExternalName services");
            }
        }
        return;
    }
    let first = all.value[0].as_str().unwrap_or_default();
    if !all.is_empty() && first != address.text() {
        errors.invalid(&all, "first value must match `clusterIP`");
    }
    let length = all.value.as_array().map_or(0, Vec::len);
    if length > MAX_CLUSTER_IPS {
        errors.invalid(
            &all,
            "may only hold up to 2 values: one IPv4 and one IPv6 address",
        );
        return;
    }
    let families = spec.field("ipFamilies");
    let mut seen = BTreeSet::new();
    for (index, address) in all.items().enumerate() {
        if address.text() == "None" {
            if kind.text() != "ClusterIP" {
                let why = format!("may not be set to 'None' for {} services", kind.text());
                errors.invalid(&address, why);
            } else if length > 1 {
                errors.invalid(&address, "'None' must be the first and only value");
            }
            continue;
        }
        if !ip(&address, errors) {
            continue;
        }
        let family = family_of(address.text());
        let said = families.value[index].as_str().unwrap_or(family);
        if said != family {
            let why = format!("expected an {said} value as indicated by `ipFamilies[{index}]`");
            errors.invalid(&address, why);
        }
        if !seen.insert(family) {
            errors.invalid(&all, "may specify no more than one IP for each IP family");
        }
    }
}

fn family_of(address: &str) -> &'static str {
    match address.parse() {
        Ok(IpAddr::V6(_)) => "IPv6",
        _ => "IPv4",
    }
}

fn families(spec: &At<'_>, errors: &mut Errors) {
    let (families, policy) = (spec.field("ipFamilies"), spec.field("ipFamilyPolicy"));
    if spec.field("type").text() == "ExternalName" {
        for at in [&families, &policy] {
            if !at.is_empty() {
                errors.forbidden(at, "may not be set for ExternalName services");
            }
        }
        return;
    }
    let mut seen = BTreeSet::new();
    for family in families.items() {
        errors.one_of(&family, &["IPv4", "IPv6"]);
        if !seen.insert(family.text().to_owned()) {
            errors.duplicate(&family);
        }
    }
    errors.one_of_if_any(
        &policy,
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
}

fn load_balancer(spec: &At<'_>, errors: &mut Errors) {
    let balanced = spec.field("type").text() == "LoadBalancer";
    let only = [
        "allocateLoadBalancerNodePorts",
        "loadBalancerClass",
        "loadBalancerSourceRanges",
    ];
    for name in only {
        let at = spec.field(name);
        if !balanced && !at.is_empty() {
            errors.forbidden(&at, "may only be used when `type` is 'LoadBalancer'");
        }
    }
    let class = spec.field("loadBalancerClass");
    if !class.is_null() {
        errors.check(&class, names::label_key(class.text()));
    }
    let ranges = spec.field("loadBalancerSourceRanges");
    for range in ranges.items() {
        cidr(&range, errors);
    }
}

fn policies(spec: &At<'_>, errors: &mut Errors) {
    let external = spec.field("externalTrafficPolicy");
    let reachable = matches!(spec.field("type").text(), "NodePort" | "LoadBalancer")
        || !spec.field("externalIPs").is_empty();
    if !external.is_empty() && !reachable {
        errors.invalid(
            &external,
            "may only be set for externally-accessible services",
        );
    } else {
        errors.one_of_if_any(&external, &["Cluster", "Local"]);
    }
    errors.one_of_if_any(&spec.field("internalTrafficPolicy"), &["Cluster", "Local"]);
    errors.one_of_if_any(&spec.field("trafficDistribution"), &DISTRIBUTIONS);
}

fn needs_health_check(spec: &At<'_>) -> bool {
    spec.field("type").text() == "LoadBalancer"
        && spec.field("externalTrafficPolicy").text() == "Local"
}

fn health_check(spec: &At<'_>, errors: &mut Errors) {
    let port = spec.field("healthCheckNodePort");
    if port.number() != 0 && !needs_health_check(spec) {
        errors.invalid(
            &port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
}

fn external_name(name: &At<'_>, errors: &mut Errors) {
    let text = name.text().strip_suffix('.').unwrap_or(name.text());
    if text.is_empty() {
        errors.required(name, "");
    } else {
        errors.check(name, names::subdomain(text));
    }
}
