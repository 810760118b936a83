//! discovery.k8s.io/v1 EndpointSlice.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, Printer, age, first_three, list, name, number, text};
use crate::defaults::{items, set};
use crate::resource::{Generation, Resource};
use crate::validation::addresses::{ip, too_many, usual_address};
use crate::validation::{At, Errors, names};

/// Most that one slice may hold.
const MAX_ENDPOINTS: usize = 1000;

const MAX_SLICE_PORTS: usize = 100;

pub fn resource() -> Resource {
    Resource {
        generation: Generation::Spec,
        default,
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<EndpointSlice>(
            "discovery.k8s.io",
            "discovery",
            "endpointslice",
            "endpointslices",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("AddressType", "The kind of address"),
        Column::text("Ports", "The ports of every endpoint"),
        Column::text("Endpoints", "The addresses"),
        AGE,
    ],
    cells,
};

fn default(object: &mut Value) {
    for port in items(object, "ports") {
        if port["name"].is_null() {
            port["name"] = "".into();
        }
        set(port, "protocol", || "TCP".into());
    }
    // An endpoint always says its conditions, if only that it has none.
    for endpoint in items(object, "endpoints") {
        set(endpoint, "conditions", || json!({}));
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
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

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    errors.immutable(&new.field("addressType"), &old.field("addressType"));
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

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list(object, "/ports")
        .iter()
        .map(|port| match number(port, "/port") {
            0 => text(port, "/name").to_owned(),
            number => number.to_string(),
        })
        .collect();
    let addresses: Vec<String> = list(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    vec![
        name(object),
        text(object, "/addressType").into(),
        first_three(&ports, "<unset>").into(),
        first_three(&addresses, "<unset>").into(),
        age(object, now),
    ]
}
