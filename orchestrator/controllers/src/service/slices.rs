//! EndpointSlices of the pods that a Service selects. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, ForNode, ForZone,
};

use super::paging::{Author, Groups, Writes, address_type, arrange, managed};
pub use super::paging::{MANAGED_BY, SERVICE_NAME};
use super::selection::{self, Member, View, families, headless, members};
use crate::action::{Action, Plan};
use crate::controller::{Controller, Due, Watches};
use crate::object::{Key, Object};
use crate::world::{Address, Diff, World};
use client::Kind;

pub const MANAGER: &str = "endpointslice-controller.k8s.io";
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// Writes the slices of Services with a selector. Its work is about a Service.
pub struct SliceController;

impl Controller for SliceController {
    fn name(&self) -> &'static str {
        "endpoint slices"
    }

    fn account(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::POD, Kind::NODE, Kind::SERVICE, Kind::ENDPOINT_SLICE])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        match object.kind {
            Kind::SERVICE => drop(due.insert((Kind::SERVICE, object.key.clone()))),
            Kind::ENDPOINT_SLICE => {
                due.extend(service_of(object).map(|key| (Kind::SERVICE, key)));
            }
            _ => selection::due(world, diff, due),
        }
    }

    fn plan(&mut self, world: &World, (_, key): &Address, _now: Timestamp) -> Option<Plan> {
        selection::gather(world, key).map(|view| plan(&view))
    }
}

/// The Service that a slice names.
pub fn service_of(slice: &Object) -> Option<Key> {
    let name = slice.meta.labels.get(SERVICE_NAME)?;
    Some(Key::new(&slice.key.namespace, name))
}

/// The writes that make the Service's slices say what its pods say.
pub fn plan(view: &View) -> Plan {
    let mut writes = Writes::default();
    if view.object.meta.deleting.is_some() {
        return Plan::default();
    }
    let families = families(view.service);
    let author = Author {
        owner: view.object,
        labels: labels(view),
        existing: managed(view.slices.iter().copied(), MANAGER),
    };
    for v6 in &families {
        arrange(&author, *v6, groups(view, *v6), true, &mut writes);
    }
    for (object, slice) in &author.existing {
        if !families
            .iter()
            .any(|v6| address_type(*v6) == slice.address_type)
        {
            writes.closing.push(Action::delete(object));
        }
    }
    Plan {
        actions: writes.in_order(),
        again: None,
    }
}

/// The Service's labels, and ours.
fn labels(view: &View) -> BTreeMap<String, String> {
    let mut labels = view.object.meta.labels.clone();
    labels.insert(SERVICE_NAME.to_owned(), view.object.key.name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if headless(view.service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

fn groups(view: &View, v6: bool) -> Groups {
    let groups = members(view, v6).into_iter();
    let endpoint = |member: &Member| endpoint(view, member);
    groups
        .map(|(ports, members)| (ports, members.iter().map(endpoint).collect()))
        .collect()
}

fn endpoint(view: &View, member: &Member) -> Endpoint {
    let zone = view.zones.get(member.row.node.as_str());
    let zone = zone.map(|zone| (*zone).to_owned());
    let spec = view.service.spec.as_ref();
    let distribution = spec.and_then(|spec| spec.traffic_distribution.as_deref());
    Endpoint {
        addresses: vec![member.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(member.ready),
            serving: Some(member.serving),
            terminating: Some(member.terminating),
        }),
        hints: distribution
            .filter(|_| member.ready)
            .and_then(|word| hints(word, &member.row.node, zone.as_deref())),
        hostname: member.hostname.clone(),
        node_name: Some(member.row.node.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(member.pod.key.namespace.clone()),
            name: Some(member.pod.key.name.clone()),
            uid: Some(member.pod.meta.uid.clone()),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

/// Who is to use an endpoint (KEP-4444, KEP-3015): its own zone, or its own node and, for agents
/// that know no nodes here, its zone.
fn hints(distribution: &str, node: &str, zone: Option<&str>) -> Option<EndpointHints> {
    let for_zones = zone.map(|zone| {
        vec![ForZone {
            name: zone.to_owned(),
        }]
    });
    let for_nodes = (distribution == "PreferSameNode").then(|| {
        vec![ForNode {
            name: node.to_owned(),
        }]
    });
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints {
        for_nodes,
        for_zones,
    })
}
