//! The pods that serve a Service, with its ports resolved for each. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controller::Due;
use crate::object::{Key, Object, PodRow};
use crate::world::{Diff, World};
use client::Kind;

pub use crate::object::selector;

/// What both planners are made from.
pub struct View<'a> {
    pub object: &'a Object,
    pub service: &'a Service,
    /// The pods that the selector matches.
    pub pods: Vec<(&'a Object, &'a PodRow)>,
    pub slices: Vec<&'a Object>,
    pub endpoints: Option<&'a Object>,
    /// The zones of the pods' nodes, by node.
    pub zones: BTreeMap<&'a str, &'a str>,
}

/// The label that says in which zone a node is.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// A port of a Service as one pod serves it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub port: i32,
    pub app_protocol: Option<String>,
}

/// A pod that serves.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    pub pod: &'a Object,
    pub row: &'a PodRow,
    pub address: IpAddr,
    pub serving: bool,
    pub terminating: bool,
    /// To be used: ready and not terminating, or published regardless.
    pub ready: bool,
    pub hostname: Option<String>,
}

/// Members by the ports that they resolve to.
pub type Groups<'a> = BTreeMap<Vec<Port>, Vec<Member<'a>>>;

/// Collects the view of the Service at `key`. None for one whose endpoints are not ours to write.
pub fn gather<'a>(world: &'a World, key: &Key) -> Option<View<'a>> {
    let object = world.get(Kind::SERVICE, key)?;
    let service = object.as_service()?.as_ref();
    let selector = selector(service);
    selector.map(|_| view(world, object, service))
}

/// The view of a Service whether or not its endpoints are ours.
pub fn gather_any<'a>(world: &'a World, key: &Key) -> Option<View<'a>> {
    let object = world.get(Kind::SERVICE, key)?;
    let service = object.as_service()?.as_ref();
    Some(view(world, object, service))
}

fn view<'a>(world: &'a World, object: &'a Object, service: &'a Service) -> View<'a> {
    let key = &object.key;
    let pods = world.selected(Kind::SERVICE, key);
    let pods: Vec<(&Object, &PodRow)> = pods
        .filter_map(|pod| Some((pod.as_ref(), pod.as_pod()?)))
        .collect();
    let uid = &object.meta.uid;
    let slices = world
        .dependents(uid)
        .filter(|slice| slice.kind == Kind::ENDPOINT_SLICE);
    let zones = pods.iter().filter_map(|(_, row)| {
        let node = world.get(Kind::NODE, &Key::new("", &row.node))?;
        let zone = node.meta.labels.get(ZONE)?;
        Some((row.node.as_str(), zone.as_str()))
    });
    View {
        object,
        service,
        zones: zones.collect(),
        pods,
        slices: slices.map(AsRef::as_ref).collect(),
        endpoints: world.get(Kind::ENDPOINTS, key).map(AsRef::as_ref),
    }
}

/// Whether the Service has a port of SCTP.
pub fn has_sctp(service: &Service) -> bool {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter());
    ports.flatten().any(|port| protocol(port) == "SCTP")
}

/// Adds the Services whose endpoints a change of a pod or of its node concerns.
pub fn due(world: &World, diff: &Diff, due: &mut Due) {
    match diff.object().kind {
        Kind::POD => diff
            .versions()
            .for_each(|pod| due.extend(serving(world, pod))),
        Kind::NODE if zone(diff.old.as_deref()) != zone(diff.new.as_deref()) => {
            for (pod, _) in world.pods_on(&diff.object().key.name) {
                due.extend(serving(world, pod));
            }
        }
        _ => {}
    }
}

/// The Services that select the pod.
fn serving(world: &World, pod: &Object) -> Due {
    let mut selecting = world.selecting(pod);
    selecting.retain(|(kind, _)| *kind == Kind::SERVICE);
    selecting
}

fn zone(node: Option<&Object>) -> Option<&String> {
    node?.meta.labels.get(ZONE)
}

/// The members of one address family.
pub fn members<'a>(view: &View<'a>, v6: bool) -> Groups<'a> {
    let mut groups = Groups::new();
    let Some(spec) = view.service.spec.as_ref() else {
        return groups;
    };
    for &(pod, row) in &view.pods {
        if row.finished() || row.node.is_empty() {
            continue;
        }
        let addresses = row.ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
        let Some(address) = addresses.into_iter().find(|ip| ip.is_ipv6() == v6) else {
            continue;
        };
        let Some(ports) = resolve(spec, row) else {
            continue;
        };
        let terminating = pod.meta.deleting.is_some();
        let published = spec.publish_not_ready_addresses == Some(true);
        groups.entry(ports).or_default().push(Member {
            pod,
            row,
            address,
            serving: row.ready,
            terminating,
            ready: published || (row.ready && !terminating),
            hostname: hostname(view.object, row),
        });
    }
    groups
}

/// Whether the Service has no address of its own.
pub fn headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
}

/// The families that the Service is of; IPv4 if it does not say.
pub fn families(service: &Service) -> Vec<bool> {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.clone());
    let families: Vec<bool> = families
        .unwrap_or_default()
        .iter()
        .map(|family| family == "IPv6")
        .collect();
    if families.is_empty() {
        vec![false]
    } else {
        families
    }
}

/// The Service's ports on this pod. None if it has ports and the pod serves none of them.
fn resolve(spec: &ServiceSpec, row: &PodRow) -> Option<Vec<Port>> {
    let wanted = spec.ports.as_deref().unwrap_or_default();
    let ports: Vec<Port> = wanted
        .iter()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port).to_owned(),
                port: target(port, row)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    (wanted.is_empty() || !ports.is_empty()).then_some(ports)
}

/// Where a port leads on this pod.
pub fn target(port: &ServicePort, row: &PodRow) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => row
            .ports
            .iter()
            .find(|named| named.name == *name && named.protocol == protocol(port))
            .map(|named| named.port),
    }
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// A pod that asks for a name below the Service gets it.
fn hostname(service: &Object, row: &PodRow) -> Option<String> {
    let named = !row.hostname.is_empty() && row.subdomain == service.key.name;
    named.then(|| row.hostname.clone())
}
