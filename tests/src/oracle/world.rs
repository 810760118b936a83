//! A cluster as API objects: two nodes in two zones with the same pods, and what is said of Services.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, Node, Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForZone,
};
use serde_json::json;

use super::{Asked, Client, End};

/// The cluster's nodes; the first is `here` in the names of cases.
pub const NODES: [&str; 2] = ["node-1", "node-2"];

/// What every server of the cases listens on, for TCP and UDP.
pub const TARGET: u16 = 8080;

/// Somebody on the underlay.
pub fn outside(v4: bool) -> IpAddr {
    underlay(v4, 250)
}

/// `172.31.0.n`, `fd00:31::n`.
pub fn underlay(v4: bool, number: u8) -> IpAddr {
    match v4 {
        true => Ipv4Addr::new(172, 31, 0, number).into(),
        false => Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The address with that number in a node's share of the pod range: `10.100.node.n`,
/// `fd00:100:0:node::n`.
pub fn share(node: u8, v4: bool, number: u8) -> IpAddr {
    match v4 {
        true => Ipv4Addr::new(10, 100, node, number).into(),
        false => Ipv6Addr::new(0xfd00, 0x100, 0, node.into(), 0, 0, 0, number.into()).into(),
    }
}

/// An address of the Services' range: `10.96.0.n`, `fd00:96::n`.
pub fn cluster_ip(v4: bool, number: u8) -> IpAddr {
    match v4 {
        true => Ipv4Addr::new(10, 96, 0, number).into(),
        false => Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// An address that load balancers and externalIPs are given: `192.0.2.n`, `2001:db8::n` (RFC 5737,
/// RFC 3849).
pub fn public(v4: bool, number: u8) -> IpAddr {
    match v4 {
        true => Ipv4Addr::new(192, 0, 2, number).into(),
        false => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    Pod(&'a str),
    /// The node, under its own address or its address in the overlay.
    Node(&'a str),
    /// In the Services' range.
    Service,
    /// In the pods' range, and nobody's.
    NoPod,
    Outside,
}

#[derive(Clone, Debug)]
pub struct World {
    pub nodes: Vec<Node>,
    pub pods: Vec<Pod>,
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
    /// The nodes have direct server return: a client outside is answered by its backend's node.
    pub direct: bool,
}

impl World {
    /// The nodes with two pods each (`pod-1-5`, `pod-1-6`, `pod-2-5`, `pod-2-6`) and one on each
    /// node's network (`host-1`, `host-2`); no Service yet.
    pub fn new() -> World {
        let mut pods = Vec::new();
        for number in [1, 2] {
            for octet in [5, 6] {
                let ips = [true, false].map(|v4| share(number, v4, octet));
                pods.push(pod(&format!("pod-{number}-{octet}"), number, ips, false));
            }
            let ips = [true, false].map(|v4| underlay(v4, 10 + number));
            pods.push(pod(&format!("host-{number}"), number, ips, true));
        }
        World {
            nodes: [1, 2].map(node).into(),
            pods,
            services: Vec::new(),
            slices: Vec::new(),
            direct: false,
        }
    }

    /// The name of the node where a client's packets enter.
    pub fn node_of<'a>(&'a self, client: Client<'a>) -> &'a str {
        match client {
            Client::Node(name) | Client::Outside { via: name, .. } => name,
            Client::Pod(name) => {
                let pod = self
                    .pods
                    .iter()
                    .find(|pod| pod.metadata.name.as_deref() == Some(name));
                let spec = pod.and_then(|pod| pod.spec.as_ref());
                spec.and_then(|spec| spec.node_name.as_deref())
                    .expect("a pod that runs")
            }
        }
    }

    pub fn client_addr(&self, client: Client<'_>, v4: bool) -> IpAddr {
        match client {
            Client::Outside { addr, .. } => addr,
            Client::Node(name) => self.node_addr(name, v4),
            Client::Pod(name) => {
                let pod = self
                    .pods
                    .iter()
                    .find(|pod| pod.metadata.name.as_deref() == Some(name));
                let pod = pod.expect("a pod of the world");
                pod_ips(pod)
                    .into_iter()
                    .find(|ip| ip.is_ipv4() == v4)
                    .expect("of both families")
            }
        }
    }

    pub fn is_node(&self, addr: IpAddr) -> bool {
        matches!(self.place(addr), Place::Node(_))
    }

    pub fn node_addr(&self, name: &str, v4: bool) -> IpAddr {
        let node = self
            .nodes
            .iter()
            .find(|node| node.metadata.name.as_deref() == Some(name));
        node_ips(node.expect("a node of the world"))
            .into_iter()
            .find(|ip| ip.is_ipv4() == v4)
            .expect("of both families")
    }

    /// An address of the node's share of the pod range.
    pub fn share(&self, node: &str, v4: bool, number: u8) -> IpAddr {
        let at = NODES
            .iter()
            .position(|name| *name == node)
            .expect("a node of the world");
        share(1 + at as u8, v4, number)
    }

    pub fn zone(&self, name: &str) -> &str {
        let node = self
            .nodes
            .iter()
            .find(|node| node.metadata.name.as_deref() == Some(name));
        let labels = node.and_then(|node| node.metadata.labels.as_ref());
        labels
            .and_then(|labels| labels.get("topology.kubernetes.io/zone"))
            .map_or("", String::as_str)
    }

    pub fn place(&self, addr: IpAddr) -> Place<'_> {
        for node in &self.nodes {
            let name = node.metadata.name.as_deref().expect("nodes have names");
            if node_ips(node).contains(&addr) || self.share(name, addr.is_ipv4(), 1) == addr {
                return Place::Node(name);
            }
        }
        let own = |pod: &&Pod| !host_network(pod) && pod_ips(pod).contains(&addr);
        if let Some(pod) = self.pods.iter().find(own) {
            return Place::Pod(pod.metadata.name.as_deref().expect("pods have names"));
        }
        let within = |range: &str| {
            range
                .parse::<ipnetwork::IpNetwork>()
                .expect("a literal")
                .contains(addr)
        };
        if within("10.96.0.0/16") || within("fd00:96::/112") {
            Place::Service
        } else if within("10.100.0.0/16") || within("fd00:100::/48") {
            Place::NoPod
        } else {
            Place::Outside
        }
    }

    /// Whether a container says that it listens there.
    pub fn listens(&self, (addr, port): End, udp: bool) -> bool {
        let proto = if udp { "UDP" } else { "TCP" };
        let mut at = self.pods.iter().filter(|pod| pod_ips(pod).contains(&addr));
        at.any(|pod| {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.any(|listed| {
                listed.container_port == i32::from(port)
                    && listed.protocol.as_deref().unwrap_or("TCP") == proto
            })
        })
    }

    /// Every endpoint that slices list for a Service's port in the family that is asked.
    pub fn endpoints(
        &self,
        service: &Service,
        port: &ServicePort,
        asked: Asked,
    ) -> Vec<(Endpoint, End)> {
        let family = if asked.addr.is_ipv4() { "IPv4" } else { "IPv6" };
        let name = service.metadata.name.as_deref();
        let mut found = Vec::new();
        for slice in &self.slices {
            let labels = slice.metadata.labels.as_ref();
            let of = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
            if of.map(String::as_str) != name
                || slice.metadata.namespace != service.metadata.namespace
                || slice.address_type != family
            {
                continue;
            }
            let target = slice.ports.iter().flatten().find(|listed| {
                listed.name.as_deref().unwrap_or_default()
                    == port.name.as_deref().unwrap_or_default()
                    && listed.protocol == port.protocol
            });
            let Some(target) = target.and_then(|target| u16::try_from(target.port?).ok()) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                let addr = endpoint
                    .addresses
                    .first()
                    .and_then(|addr| addr.parse().ok());
                found.extend(addr.map(|addr| (endpoint.clone(), (addr, target))));
            }
        }
        found
    }
}

impl Default for World {
    fn default() -> Self {
        World::new()
    }
}

fn node(number: u8) -> Node {
    let ips = [true, false].map(|v4| underlay(v4, 10 + number).to_string());
    let object = json!({
        "metadata": {
            "name": NODES[usize::from(number) - 1],
            "labels": {"topology.kubernetes.io/zone": format!("zone-{number}")},
        },
        "spec": {
            "podCIDR": format!("10.100.{number}.0/24"),
            "podCIDRs": [format!("10.100.{number}.0/24"), format!("fd00:100:0:{number:x}::/64")],
        },
        "status": {
            "addresses": ips.map(|ip| json!({"type": "InternalIP", "address": ip})),
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    serde_json::from_value(object).expect("a node")
}

fn pod(name: &str, node: u8, ips: [IpAddr; 2], host_network: bool) -> Pod {
    let ports = ["TCP", "UDP"].map(|proto| json!({"containerPort": TARGET, "protocol": proto}));
    let object = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "nodeName": NODES[usize::from(node) - 1],
            "hostNetwork": host_network,
            "containers": [{"name": "main", "ports": ports}],
        },
        "status": {"podIP": ips[0], "podIPs": ips.map(|ip| json!({"ip": ip}))},
    });
    serde_json::from_value(object).expect("a pod")
}

fn node_ips(node: &Node) -> Vec<IpAddr> {
    let addresses = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    let internal = addresses.filter(|address| address.type_ == "InternalIP");
    internal
        .filter_map(|address| address.address.parse().ok())
        .collect()
}

fn pod_ips(pod: &Pod) -> Vec<IpAddr> {
    let ips = pod
        .status
        .iter()
        .flat_map(|status| status.pod_ips.iter().flatten());
    ips.filter_map(|ip| ip.ip.parse().ok()).collect()
}

fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// A Service as the API server would have completed it: ports `tcp` 80 and `udp` 53.
pub fn service(name: &str, v4: bool, number: u8) -> Service {
    let addr = cluster_ip(v4, number);
    let object = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": addr,
            "clusterIPs": [addr],
            "ipFamilies": [if v4 { "IPv4" } else { "IPv6" }],
            "internalTrafficPolicy": "Cluster",
            "ports": [
                {"name": "tcp", "port": 80, "protocol": "TCP", "targetPort": TARGET},
                {"name": "udp", "port": 53, "protocol": "UDP", "targetPort": TARGET},
            ],
        },
    });
    serde_json::from_value(object).expect("a Service")
}

/// Gives a Service its ports on the nodes.
pub fn with_node_ports(mut service: Service, first: i32) -> Service {
    let spec = service.spec.get_or_insert_default();
    spec.type_ = Some("NodePort".into());
    spec.external_traffic_policy = Some("Cluster".into());
    for (index, port) in spec.ports.iter_mut().flatten().enumerate() {
        port.node_port = Some(first + index as i32);
    }
    service
}

pub fn with_load_balancer(service: Service, first: i32, addr: IpAddr) -> Service {
    let mut service = with_node_ports(service, first);
    let spec = service.spec.get_or_insert_default();
    spec.type_ = Some("LoadBalancer".into());
    let ingress = LoadBalancerIngress {
        ip: Some(addr.to_string()),
        ip_mode: Some("VIP".into()),
        ..Default::default()
    };
    service.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus {
        ingress: Some(vec![ingress]),
    });
    service
}

/// How an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Ready,
    /// Not ready and not on its way out.
    Unready,
    /// On its way out, still serving.
    Leaving,
    /// On its way out, and no longer serving.
    Gone,
}

/// An endpoint at `addr` on that node (none: outside the cluster).
pub fn endpoint(addr: IpAddr, node: Option<&str>, condition: Condition) -> Endpoint {
    let conditions = EndpointConditions {
        ready: Some(condition == Condition::Ready),
        serving: Some(matches!(condition, Condition::Ready | Condition::Leaving)),
        terminating: Some(matches!(condition, Condition::Leaving | Condition::Gone)),
    };
    Endpoint {
        addresses: vec![addr.to_string()],
        conditions: Some(conditions),
        node_name: node.map(str::to_owned),
        ..Endpoint::default()
    }
}

pub fn hinted(mut endpoint: Endpoint, zone: &str) -> Endpoint {
    let zones = vec![ForZone {
        name: zone.to_owned(),
    }];
    endpoint.hints = Some(EndpointHints {
        for_zones: Some(zones),
        ..Default::default()
    });
    endpoint
}

/// A slice of a Service with its two ports.
pub fn slice(
    service: &Service,
    serial: usize,
    v4: bool,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let port = |name: &str, protocol: &str| EndpointPort {
        name: Some(name.into()),
        port: Some(TARGET.into()),
        protocol: Some(protocol.into()),
        ..EndpointPort::default()
    };
    let mut slice = EndpointSlice {
        address_type: if v4 { "IPv4" } else { "IPv6" }.into(),
        endpoints,
        ports: Some(vec![port("tcp", "TCP"), port("udp", "UDP")]),
        ..EndpointSlice::default()
    };
    slice.metadata.name = Some(format!("{name}-{serial}"));
    slice.metadata.namespace = service.metadata.namespace.clone();
    slice.metadata.labels = Some(BTreeMap::from([(
        "kubernetes.io/service-name".into(),
        name,
    )]));
    slice
}
