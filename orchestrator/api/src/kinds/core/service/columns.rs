//! The table of Services.

use jiff::Timestamp;
use serde_json::Value;

use crate::columns::{
    AGE, Column, NAME, Printer, age, format_labels, list, name, number, text, text_or_none,
};

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
    cells,
};

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
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
}
