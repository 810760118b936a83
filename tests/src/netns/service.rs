//! Services as API objects, and what an agent makes of an object that it hears of.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use datapath::{Addrs, Change, NodeView, ObjectKey, ServiceView, SliceView};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde_json::{Map, Value, json};

use super::{Node, service_addr};

const NAMESPACE: &str = "default";

/// An object that agents watch.
#[derive(Clone, Debug)]
pub enum Object {
    Service(Box<core::Service>),
    Slice(Box<discovery::EndpointSlice>),
    Node(Box<core::Node>),
}

impl Object {
    /// The change that the agent of `node` makes of it.
    pub fn change(&self, node: &str) -> Change {
        match self {
            Self::Service(it) => Change::Service(self.name(), ServiceView::from_object(it)),
            Self::Slice(it) => Change::Slice(self.name(), SliceView::from_object(it, node)),
            Self::Node(it) => {
                Change::Node(self.name().name().to_owned(), NodeView::from_object(it))
            }
        }
    }

    /// The change that every agent makes of its deletion.
    pub fn deletion(&self) -> Change {
        match self {
            Self::Service(_) => Change::Service(self.name(), None),
            Self::Slice(_) => Change::Slice(self.name(), None),
            Self::Node(_) => Change::Node(self.name().name().to_owned(), None),
        }
    }

    /// Kind and name.
    pub(super) fn key(&self) -> String {
        let kind = match self {
            Self::Service(_) => "Service",
            Self::Slice(_) => "EndpointSlice",
            Self::Node(_) => "Node",
        };
        format!("{kind} {}", self.name())
    }

    fn name(&self) -> ObjectKey {
        let meta = match self {
            Self::Service(it) => &it.metadata,
            Self::Slice(it) => &it.metadata,
            Self::Node(it) => &it.metadata,
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        ObjectKey::new(text(&meta.namespace), text(&meta.name))
    }
}

/// An endpoint of a Service: a pod, a node, or anything that has addresses.
#[derive(Clone, Debug)]
pub struct Ep {
    addrs: Addrs,
    node: Option<String>,
    zone: Option<String>,
    ready: bool,
    serving: bool,
    terminating: bool,
    hints: Value,
}

impl Ep {
    /// Ready, on no node. For a pod take [`Node::ep`], for a node [`Node::host_ep`].
    pub fn at(addrs: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            addrs: addrs.into_iter().collect(),
            node: None,
            zone: None,
            ready: true,
            serving: true,
            terminating: false,
            hints: Value::Null,
        }
    }

    /// It runs on that node, in its zone.
    pub fn on(mut self, node: &Node) -> Self {
        self.node = Some(node.config.node_name.clone());
        self.zone.clone_from(&node.zone);
        self
    }

    /// Its readiness probe fails.
    pub fn unready(mut self) -> Self {
        (self.ready, self.serving) = (false, false);
        self
    }

    /// Its pod is being deleted and still passes its readiness probe.
    pub fn terminating(mut self) -> Self {
        (self.ready, self.serving, self.terminating) = (false, true, true);
        self
    }

    /// Its pod is being deleted and passes no probe any more.
    pub fn leaving(mut self) -> Self {
        (self.ready, self.serving, self.terminating) = (false, false, true);
        self
    }

    /// Ready whatever its pod is: what the controller makes of `publishNotReadyAddresses`.
    pub fn published(mut self) -> Self {
        self.ready = true;
        self
    }

    /// Topology hints: the zones that may use it.
    pub fn for_zones(mut self, zones: &[&str]) -> Self {
        self.hints["forZones"] = names(zones);
        self
    }

    /// Topology hints: the nodes that may use it.
    pub fn for_nodes(mut self, nodes: &[&str]) -> Self {
        self.hints["forNodes"] = names(nodes);
        self
    }

    fn object(&self, addr: IpAddr) -> Value {
        json!({
            "addresses": [addr],
            "nodeName": self.node,
            "zone": self.zone,
            "conditions": {
                "ready": self.ready,
                "serving": self.serving,
                "terminating": self.terminating,
            },
            "hints": self.hints,
        })
    }
}

fn names(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "name": name })).collect()
}

/// A Service and its endpoints; [`super::Cluster::apply`] makes every agent hear of both. A change
/// is another value of the same name, applied again.
///
/// Begins as a ClusterIP Service of both families on 10.96.0.`number` and fd00:96::`number`, without
/// a port or an endpoint. What no method sets, [`Svc::spec`] does.
#[derive(Clone, Debug)]
pub struct Svc {
    name: String,
    ips: Addrs,
    spec: Map<String, Value>,
    labels: Map<String, Value>,
    ports: Vec<Port>,
    ingress: Vec<IpAddr>,
    endpoints: Vec<Ep>,
    /// Endpoints in one slice.
    per_slice: usize,
}

#[derive(Clone, Debug)]
struct Port {
    protocol: &'static str,
    port: u16,
    target: u16,
    node_port: Option<u16>,
}

impl Svc {
    pub fn new(name: &str, number: u8) -> Self {
        let (v4, v6) = service_addr(number);
        let mut spec = Map::new();
        spec.insert("type".into(), json!("ClusterIP"));
        Self {
            name: name.to_owned(),
            ips: [v4.into(), v6.into()].into_iter().collect(),
            spec,
            labels: Map::new(),
            ports: Vec::new(),
            ingress: Vec::new(),
            endpoints: Vec::new(),
            per_slice: 100,
        }
    }

    /// Other ClusterIPs; their families are the Service's.
    pub fn ips(mut self, ips: impl IntoIterator<Item = IpAddr>) -> Self {
        self.ips = ips.into_iter().collect();
        self
    }

    /// A TCP port and its target port.
    pub fn port(self, port: u16, target: u16) -> Self {
        self.port_of("TCP", port, target)
    }

    pub fn udp(self, port: u16, target: u16) -> Self {
        self.port_of("UDP", port, target)
    }

    pub fn sctp(self, port: u16, target: u16) -> Self {
        self.port_of("SCTP", port, target)
    }

    fn port_of(mut self, protocol: &'static str, port: u16, target: u16) -> Self {
        self.ports.push(Port {
            protocol,
            port,
            target,
            node_port: None,
        });
        self
    }

    /// The last port's node port; the Service is of type NodePort, unless it is a LoadBalancer.
    pub fn node_port(mut self, port: u16) -> Self {
        if let Some(last) = self.ports.last_mut() {
            last.node_port = Some(port);
        }
        if self.spec["type"] == "ClusterIP" {
            self.spec.insert("type".into(), json!("NodePort"));
        }
        self
    }

    /// An address that the pool gave it; the Service is of type LoadBalancer.
    pub fn load_balancer(mut self, ip: IpAddr) -> Self {
        self.ingress.push(ip);
        self.spec("type", json!("LoadBalancer"))
    }

    pub fn external_ip(mut self, ip: IpAddr) -> Self {
        let list = self.spec.entry("externalIPs").or_insert(json!([]));
        if let Value::Array(list) = list {
            list.push(json!(ip));
        }
        self
    }

    /// `externalTrafficPolicy: Local`.
    pub fn external_local(self) -> Self {
        self.spec("externalTrafficPolicy", json!("Local"))
    }

    /// `internalTrafficPolicy: Local`.
    pub fn internal_local(self) -> Self {
        self.spec("internalTrafficPolicy", json!("Local"))
    }

    /// `sessionAffinity: ClientIP` with that timeout.
    pub fn affinity(self, seconds: u32) -> Self {
        let config = json!({ "clientIP": { "timeoutSeconds": seconds } });
        self.spec("sessionAffinity", json!("ClientIP"))
            .spec("sessionAffinityConfig", config)
    }

    /// `loadBalancerSourceRanges`, one more.
    pub fn source_range(mut self, range: &str) -> Self {
        let list = self.spec.entry("loadBalancerSourceRanges");
        if let Value::Array(list) = list.or_insert(json!([])) {
            list.push(json!(range));
        }
        self
    }

    /// Any field of the spec, as the API has it.
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.spec.insert(field.to_owned(), value);
        self
    }

    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), json!(value));
        self
    }

    /// These endpoints and no others.
    pub fn to(mut self, endpoints: impl IntoIterator<Item = Ep>) -> Self {
        self.endpoints = endpoints.into_iter().collect();
        self
    }

    /// So many endpoints a slice, 100 if not given.
    pub fn per_slice(mut self, endpoints: usize) -> Self {
        self.per_slice = endpoints;
        self
    }

    /// Its IPv4 ClusterIP. Panics if it has none.
    pub fn v4(&self) -> IpAddr {
        self.ips.v4.expect("the Service has IPv4").into()
    }

    /// Its IPv6 ClusterIP. Panics if it has none.
    pub fn v6(&self) -> IpAddr {
        self.ips.v6.expect("the Service has IPv6").into()
    }

    /// Its ClusterIPs, IPv4 first: for what must hold in each family.
    pub fn each_ip(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ips.iter()
    }

    /// The objects that there are now, the Service first, and those that there are not.
    pub(super) fn objects(&self) -> Result<(Vec<Object>, Vec<Object>)> {
        let mut there = vec![Object::Service(Box::new(self.service()?))];
        let mut gone = Vec::new();
        for v4 in [true, false] {
            let has = self.ips.is_empty() || self.ips.iter().any(|ip| ip.is_ipv4() == v4);
            let list = if has { &mut there } else { &mut gone };
            for index in 0..self.endpoints.len().div_ceil(self.per_slice).max(1) {
                list.push(Object::Slice(Box::new(self.slice(v4, index)?)));
            }
        }
        Ok((there, gone))
    }

    fn service(&self) -> Result<core::Service> {
        let families: Vec<_> = self.ips.iter().map(|ip| family(ip.is_ipv4())).collect();
        let ips: Vec<IpAddr> = self.ips.iter().collect();
        let ports: Vec<_> = self.ports.iter().map(Port::service_port).collect();
        let mut spec = self.spec.clone();
        let mut default = |field: &str, value: Value| {
            spec.entry(field.to_owned()).or_insert(value);
        };
        if let Some(first) = ips.first() {
            default("clusterIP", json!(first));
            default("clusterIPs", json!(ips));
        }
        default("ipFamilies", json!(families));
        default("ports", json!(ports));
        let ingress: Vec<_> = self.ingress.iter().map(|ip| json!({ "ip": ip })).collect();
        let object = json!({
            "metadata": { "namespace": NAMESPACE, "name": self.name, "labels": self.labels },
            "spec": spec,
            "status": { "loadBalancer": { "ingress": ingress } },
        });
        Ok(serde_json::from_value(object)?)
    }

    fn slice(&self, v4: bool, index: usize) -> Result<discovery::EndpointSlice> {
        let suffix = if v4 { "v4" } else { "v6" };
        let labels = BTreeMap::from([("kubernetes.io/service-name", &self.name)]);
        let of_family = |ep: &Ep| ep.addrs.iter().find(|addr| addr.is_ipv4() == v4);
        let endpoints = self.endpoints.iter();
        let endpoints = endpoints.skip(index * self.per_slice).take(self.per_slice);
        let endpoints = endpoints.filter_map(|ep| Some(ep.object(of_family(ep)?)));
        let ports = self.ports.iter().map(Port::slice_port);
        let object = json!({
            "metadata": {
                "namespace": NAMESPACE,
                "name": format!("{}-{suffix}-{index}", self.name),
                "labels": labels,
            },
            "addressType": family(v4),
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": ports.collect::<Vec<_>>(),
        });
        Ok(serde_json::from_value(object)?)
    }
}

fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

impl Port {
    fn name(&self) -> String {
        format!("{}-{}", self.protocol.to_lowercase(), self.port)
    }

    fn service_port(&self) -> Value {
        json!({
            "name": self.name(),
            "protocol": self.protocol,
            "port": self.port,
            "targetPort": self.target,
            "nodePort": self.node_port,
        })
    }

    fn slice_port(&self) -> Value {
        json!({ "name": self.name(), "protocol": self.protocol, "port": self.target })
    }
}
