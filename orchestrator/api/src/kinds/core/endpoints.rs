//! v1 Endpoints.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::Value;

use crate::columns::{AGE, Column, NAME, Printer, age, first_three, list, name, number, text};
use crate::defaults::{items, set};
use crate::resource::Resource;
use crate::validation::addresses::{ip, usual_address};
use crate::validation::{At, Errors, names};

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["ep".into()],
        default,
        validate,
        printer: COLUMNS,
        ..Resource::of::<Endpoints>("", "core", "endpoints", "endpoints")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[NAME, Column::text("Endpoints", "Addresses and ports"), AGE],
    cells,
};

fn default(object: &mut Value) {
    for subset in items(object, "subsets") {
        for port in items(subset, "ports") {
            set(port, "protocol", || "TCP".into());
        }
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
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

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all: Vec<String> = Vec::new();
    for subset in list(object, "/subsets") {
        let addresses = list(subset, "/addresses")
            .iter()
            .map(|address| text(address, "/ip"));
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(addresses.clone().map(str::to_owned));
        }
        for port in ports {
            all.extend(
                addresses
                    .clone()
                    .map(|ip| join_host_port(ip, number(port, "/port"))),
            );
        }
    }
    vec![
        name(object),
        first_three(&all, "<none>").into(),
        age(object, now),
    ]
}

fn join_host_port(address: &str, port: i64) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_pair_each_address_with_each_port() {
        let now = Timestamp::from_second(0).expect("in range");
        let object = json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
             "ports": [{"port": 80}, {"port": 443}]},
        ]});
        assert_eq!(
            cells(&object, now)[1],
            "10.0.0.1:80,10.0.0.2:80,10.0.0.1:443 + 1 more..."
        );
    }
}
