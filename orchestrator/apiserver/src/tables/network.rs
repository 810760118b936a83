//! Tables of Services, Endpoints and EndpointSlices.

use jiff::Timestamp;
use serde_json::Value;

use super::text_or_none;
use super::{
    AGE, Column, NAME, Printer, age, first_three, format_labels, list, name, number, text,
};

/// Services: address and ports; wide shows the selector.
pub const SERVICES: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type", "How the Service is exposed"),
        Column::text("Cluster-IP", "The address inside the cluster"),
        Column::text("External-IP", "The addresses outside the cluster"),
        Column::text(
            "Port(s)",
            "The ports, with the node's port where there is one",
        ),
        AGE,
        Column::wide("Selector", "The labels of the pods behind it"),
    ],
    cells: service,
};

/// Endpoints: the addresses, three at most.
pub const ENDPOINTS: Printer = Printer {
    columns: &[NAME, Column::text("Endpoints", "Addresses and ports"), AGE],
    cells: endpoints,
};

/// EndpointSlices: addresses and ports apart.
pub const ENDPOINT_SLICES: Printer = Printer {
    columns: &[
        NAME,
        Column::text("AddressType", "The kind of address"),
        Column::text("Ports", "The ports of every endpoint"),
        Column::text("Endpoints", "The addresses"),
        AGE,
    ],
    cells: slice,
};

fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(object, "/spec/type").into(),
        text_or_none(object, "/spec/clusterIP").into(),
        external_addresses(object).into(),
        service_ports(object).into(),
        age(object, now),
        format_labels(object.pointer("/spec/selector")).into(),
    ]
}

fn external_addresses(service: &Value) -> String {
    let external: Vec<&str> = list(service, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(service, "/spec/type") {
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = list(service, "/status/loadBalancer/ingress");
            let all: Vec<&str> = ingress
                .iter()
                .map(|entry| match text(entry, "/ip") {
                    "" => text(entry, "/hostname"),
                    ip => ip,
                })
                .chain(external)
                .collect();
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        _ if external.is_empty() => "<none>".to_owned(),
        _ => external.join(","),
    }
}

fn service_ports(service: &Value) -> String {
    let ports: Vec<String> = list(service, "/spec/ports")
        .iter()
        .map(|port| {
            let (number, node) = (number(port, "/port"), number(port, "/nodePort"));
            match (text(port, "/protocol"), node) {
                (protocol, 0) => format!("{number}/{protocol}"),
                (protocol, node) => format!("{number}:{node}/{protocol}"),
            }
        })
        .collect();
    if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(",")
    }
}

fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
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

fn slice(object: &Value, now: Timestamp) -> Vec<Value> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_port_is_shown_beside_its_port() {
        let object = json!({"spec": {"type": "NodePort", "ports": [
            {"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"},
        ]}});
        assert_eq!(service_ports(&object), "80:30080/TCP,53/UDP");
    }

    #[test]
    fn a_load_balancer_without_address_is_pending() {
        assert_eq!(
            external_addresses(&json!({"spec": {"type": "LoadBalancer"}})),
            "<pending>"
        );
        assert_eq!(
            external_addresses(&json!({"spec": {"type": "ClusterIP"}})),
            "<none>"
        );
    }

    #[test]
    fn endpoints_pair_each_address_with_each_port() {
        let now = Timestamp::from_second(0).expect("in range");
        let object = json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
             "ports": [{"port": 80}, {"port": 443}]},
        ]});
        assert_eq!(
            endpoints(&object, now)[1],
            "10.0.0.1:80,10.0.0.2:80,10.0.0.1:443 + 1 more..."
        );
    }
}
