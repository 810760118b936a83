//! Changes of type from and to ExternalName.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tests::cluster::wait;

use crate::setting::{Setting, cluster_ip, service};

fn external(name: &str) -> Value {
    service(
        name,
        &json!({"type": "ExternalName", "externalName": "example.com"}),
    )
}

fn web(name: &str, kind: &str) -> Value {
    let ports = json!([{"port": 80, "protocol": "TCP"}]);
    service(
        name,
        &json!({"type": kind, "selector": {"app": "web"}, "ports": ports}),
    )
}

/// The node port at the first node's address.
fn node_port(setting: &Setting, spec: &Value) -> SocketAddr {
    let port = spec["ports"][0]["nodePort"].as_u64().unwrap_or_default();
    assert!((30000..=32767).contains(&port), "{spec}");
    SocketAddr::from((setting.node_address(1), port as u16))
}

/// Only a name: no address, no port of the nodes, no endpoints.
#[track_caller]
fn is_external(setting: &Setting, name: &str) {
    let spec = setting.spec(name);
    assert_eq!(spec["type"], "ExternalName");
    assert_eq!(spec["externalName"], "example.com");
    for field in [
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "ipFamilyPolicy",
        "ports",
    ] {
        assert_eq!(spec.get(field), None, "{field} of {spec}");
    }
    wait("an external name has no endpoints", || {
        let slices = setting.slices(name)?;
        let mut slices = slices.iter();
        let empty = slices.all(|slice| slice["endpoints"].as_array().is_none_or(Vec::is_empty));
        Ok(empty.then_some(()))
    });
}

pub fn external_name_to_cluster_ip(setting: &Setting) {
    setting.apply(&external("named")).unwrap();
    is_external(setting, "named");
    setting.apply(&web("named", "ClusterIP")).unwrap();
    let spec = setting.spec("named");
    assert_eq!(spec.get("externalName"), None, "{spec}");
    for node in ["node-1", "node-2"] {
        setting.serves(node, cluster_ip(&spec));
    }
    setting.delete("service named");
}

pub fn external_name_to_node_port(setting: &Setting) {
    setting.apply(&external("named")).unwrap();
    is_external(setting, "named");
    setting.apply(&web("named", "NodePort")).unwrap();
    let spec = setting.spec("named");
    assert_eq!(spec.get("externalName"), None, "{spec}");
    setting.serves("node-2", cluster_ip(&spec));
    setting.serves("outside", node_port(setting, &spec));
    setting.delete("service named");
}

pub fn cluster_ip_to_external_name(setting: &Setting) {
    setting.apply(&web("numbered", "ClusterIP")).unwrap();
    let to = cluster_ip(&setting.spec("numbered"));
    setting.serves("node-1", to);
    setting.apply(&external("numbered")).unwrap();
    is_external(setting, "numbered");
    // Addresses of no Service stay on the node while they are asked for; others work all the same.
    setting.apply(&web("other", "ClusterIP")).unwrap();
    let node = setting.cluster.namespace("node-1");
    let route = "route add unreachable 10.96.0.0/16 metric 1";
    node.ip(route).unwrap();
    setting.serves("node-1", cluster_ip(&setting.spec("other")));
    wait("its address leads nowhere", || {
        let answer = setting.http("node-1", to, "/");
        Ok(answer.is_err().then_some(()))
    });
    node.ip(&route.replace("add", "del")).unwrap();
    setting.delete("service numbered other");
}

pub fn node_port_to_external_name(setting: &Setting) {
    setting.apply(&web("numbered", "NodePort")).unwrap();
    let to = node_port(setting, &setting.spec("numbered"));
    setting.serves("outside", to);
    setting.apply(&external("numbered")).unwrap();
    is_external(setting, "numbered");
    setting.refuses("outside", to);
    setting.delete("service numbered");
}
