//! Services, Endpoints and EndpointSlices.

use std::{collections::BTreeSet, net::IpAddr};

use ipnetwork::IpNetwork;
use serde_json::json;

use super::{At, Errors, container, names};

/// Most that one slice may hold.
const MAX_ENDPOINTS: usize = 1000;
const MAX_SLICE_PORTS: usize = 100;
const MAX_AFFINITY_SECONDS: i64 = 86_400;

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

pub fn service(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let kind = spec.field("type");
    let headless = spec.field("clusterIP").text() == "None";
    let external = kind.text() == "ExternalName";
    errors.one_of(
        &kind,
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    let ports = spec.field("ports");
    if ports.is_empty() && !headless && !external {
        errors.required(&ports, "");
    }
    service_ports(&ports, kind.text(), errors);
    errors.one_of(&spec.field("sessionAffinity"), &["ClientIP", "None"]);
    affinity(&spec, errors);
    super::object::labels(&spec.field("selector"), errors);
    addresses(&spec, errors);
    policies(&spec, errors);
    if external {
        let name = spec.field("externalName");
        let text = name.text().strip_suffix('.').unwrap_or(name.text());
        if text.is_empty() {
            errors.required(&name, "");
        } else {
            errors.check(&name, names::subdomain(text));
        }
    }
}

pub fn service_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    let external = |spec: &At<'_>| spec.field("type").text() == "ExternalName";
    if external(&new) || external(&old) {
        return;
    }
    let (now, before) = (new.field("clusterIPs"), old.field("clusterIPs"));
    for (address, before) in now.items().zip(before.items()) {
        if address.value != before.value && !before.is_empty() {
            errors.invalid_part(&address, now.value, "may not change once set");
        }
    }
}

pub fn endpoints(object: &At<'_>, errors: &mut Errors) {
    let subsets = object.field("subsets");
    for subset in subsets.items() {
        let lists = ["addresses", "notReadyAddresses"].map(|list| subset.field(list));
        if lists.iter().all(At::is_empty) {
            errors.required(&subset, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in &lists {
            for address in list.items() {
                let at = address.field("ip");
                if ip(&at, errors) {
                    usual_address(&at, errors);
                }
            }
        }
        let ports = subset.field("ports");
        let several = ports.value.as_array().is_some_and(|ports| ports.len() > 1);
        for port in ports.items() {
            let name = port.field("name");
            if several && name.is_empty() {
                errors.required(&name, "");
            } else if !name.is_empty() {
                errors.check(&name, names::label(name.text()));
            }
            errors.in_range(&port.field("port"), 1, 65535);
            errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"]);
        }
    }
}

pub fn endpoint_slice(object: &At<'_>, errors: &mut Errors) {
    let kind = object.field("addressType");
    errors.one_of(&kind, &["FQDN", "IPv4", "IPv6"]);
    let endpoints = object.field("endpoints");
    too_many(&endpoints, MAX_ENDPOINTS, errors);
    for endpoint in endpoints.items() {
        let addresses = endpoint.field("addresses");
        if addresses.is_empty() {
            errors.required(&addresses, "must contain at least 1 address");
        }
        too_many(&addresses, 100, errors);
        for address in addresses.items() {
            slice_address(&address, kind.text(), errors);
        }
    }
    let ports = object.field("ports");
    too_many(&ports, MAX_SLICE_PORTS, errors);
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.is_empty() {
            errors.check(&name, names::label(name.text()));
        }
        if !seen.insert(name.text().to_owned()) {
            errors.duplicate(&name);
        }
        let number = port.field("port");
        if !number.is_null() {
            errors.in_range(&number, 1, 65535);
        }
        errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

pub fn endpoint_slice_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    errors.immutable(&new.field("addressType"), &old.field("addressType"));
}

/// Says whether the text is an address.
pub fn ip(at: &At<'_>, errors: &mut Errors) -> bool {
    let fits = at.text().parse::<IpAddr>().is_ok();
    if !fits {
        errors.invalid(at, IP);
    }
    fits
}

pub fn cidr(at: &At<'_>, errors: &mut Errors) {
    // A range is written with its prefix; an address alone is none.
    if !at.text().contains('/') || at.text().parse::<IpNetwork>().is_err() {
        errors.invalid(at, CIDR);
    }
}

fn too_many(list: &At<'_>, max: usize, errors: &mut Errors) {
    let length = list.value.as_array().map_or(0, Vec::len);
    if length > max {
        errors.too_many(list, length, max);
    }
}

fn service_ports(ports: &At<'_>, kind: &str, errors: &mut Errors) {
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

fn addresses(spec: &At<'_>, errors: &mut Errors) {
    let kind = spec.field("type");
    let (address, all) = (spec.field("clusterIP"), spec.field("clusterIPs"));
    if kind.text() == "ExternalName" {
        if !address.is_empty() {
            errors.forbidden(&address, "may not be set for ExternalName services");
        }
        return;
    }
    let first = all.value[0].as_str().unwrap_or_default();
    if !all.is_empty() && first != address.text() {
        errors.invalid(&all, "first value must match `clusterIP`");
    }
    for address in all.items() {
        match address.text() {
            "None" if kind.text() != "ClusterIP" => errors.invalid(
                &address,
                format!("may not be set to 'None' for {} services", kind.text()),
            ),
            "None" => {}
            _ => {
                ip(&address, errors);
            }
        }
    }
    let external = spec.field("externalIPs");
    for address in external.items() {
        if ip(&address, errors) {
            usual_address(&address, errors);
        }
    }
    let families = spec.field("ipFamilies");
    for family in families.items() {
        errors.one_of(&family, &["IPv4", "IPv6"]);
    }
    errors.one_of_if_any(
        &spec.field("ipFamilyPolicy"),
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
    let ranges = spec.field("loadBalancerSourceRanges");
    if !ranges.is_empty() && kind.text() != "LoadBalancer" {
        errors.forbidden(&ranges, "may only be used when `type` is 'LoadBalancer'");
    }
    ranges.items().for_each(|range| cidr(&range, errors));
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
}

fn slice_address(address: &At<'_>, kind: &str, errors: &mut Errors) {
    match (kind, address.text().parse::<IpAddr>()) {
        ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => {
            usual_address(address, errors);
        }
        ("IPv4", _) => errors.invalid(address, "must be a valid IPv4 address"),
        ("IPv6", _) => errors.invalid(address, "must be a valid IPv6 address"),
        ("FQDN", _) => errors.check(address, names::subdomain(address.text())),
        _ => {}
    }
}

/// Endpoints may not lead to a node's own or to link-local services.
fn usual_address(at: &At<'_>, errors: &mut Errors) {
    let Ok(address) = at.text().parse::<IpAddr>() else {
        return;
    };
    if address.is_unspecified() {
        errors.invalid(at, format!("may not be unspecified ({address})"));
    }
    if address.is_loopback() {
        errors.invalid(
            at,
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        );
    }
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    if link_local {
        errors.invalid(
            at,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
    if link_local_multicast {
        errors.invalid(
            at,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        );
    }
}
