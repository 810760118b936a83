//! Addresses, Endpoints and EndpointSlices.

use std::{collections::BTreeSet, net::IpAddr};

use ipnetwork::IpNetwork;

use super::{At, Errors, names};
use crate::address;

/// Most that one slice may hold.
const MAX_ENDPOINTS: usize = 1000;
const MAX_SLICE_PORTS: usize = 100;

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NO_IPV4_IN_IPV6: &str = "must not be an IPv4-mapped IPv6 address";
const NO_IPV4_RANGE_IN_IPV6: &str = "must not have an IPv4-mapped IPv6 address";
const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

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

/// A pod's addresses as its node tells them: endpoints are made of these.
pub fn pod_status(pod: &At<'_>, errors: &mut Errors) {
    let status = pod.field("status");
    for (first, all) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let (first, all) = (status.field(first), status.field(all));
        if !first.is_empty() {
            ip(&first, errors);
        }
        for item in all.items() {
            ip(&item.field("ip"), errors);
        }
    }
}

/// Says whether the text is an address. The one place for all fields that hold one.
pub fn ip(at: &At<'_>, errors: &mut Errors) -> bool {
    let fits = address::parse_ip(at.text()).is_some();
    if !fits {
        let parses = at.text().parse::<IpAddr>().is_ok();
        errors.invalid(at, if parses { NO_IPV4_IN_IPV6 } else { IP });
    }
    fits
}

/// The range that the text is. The one place for all fields that hold one.
pub fn cidr(at: &At<'_>, errors: &mut Errors) -> Option<IpNetwork> {
    let range = address::parse_range(at.text());
    if range.is_none() {
        let parses = at.text().contains('/') && at.text().parse::<IpNetwork>().is_ok();
        errors.invalid(at, if parses { NO_IPV4_RANGE_IN_IPV6 } else { CIDR });
    }
    range
}

fn too_many(list: &At<'_>, max: usize, errors: &mut Errors) {
    let length = list.value.as_array().map_or(0, Vec::len);
    if length > max {
        errors.too_many(list, length, max);
    }
}

fn slice_address(address: &At<'_>, kind: &str, errors: &mut Errors) {
    match (kind, address.text().parse::<IpAddr>()) {
        ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => {
            if ip(address, errors) {
                usual_address(address, errors);
            }
        }
        ("IPv4", _) => errors.invalid(address, "must be a valid IPv4 address"),
        ("IPv6", _) => errors.invalid(address, "must be a valid IPv6 address"),
        ("FQDN", _) => errors.check(address, names::subdomain(address.text())),
        _ => {}
    }
}

/// Endpoints may not lead to a node's own or to link-local services.
pub fn usual_address(at: &At<'_>, errors: &mut Errors) {
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
