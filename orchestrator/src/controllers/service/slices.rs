//! EndpointSlices: at most 100 endpoints each, changed as little as possible. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use serde_json::{Value, json};

use super::selection::{Groups, Member, Port, View, families, headless, members};
use crate::client::Kind;
use crate::controllers::action::{self, Action, Create, Plan};
use crate::controllers::object::Object;

/// Endpoints a slice, at most.
pub const CAPACITY: usize = 100;
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// The writes that make the Service's slices say what its pods say. Endpoints come before others go,
/// so that a Service whose pods are replaced one by one is empty at no revision between.
pub fn plan(view: &View) -> Plan {
    if view.object.meta.deleting.is_some() {
        return Plan::default();
    }
    let mut writes = Writes::default();
    let families = families(view.service);
    for v6 in &families {
        family(view, *v6, members(view, *v6), &mut writes);
    }
    for (object, slice) in own_slices(view) {
        if !families
            .iter()
            .any(|v6| address_type(*v6) == slice.address_type)
        {
            writes.closing.push(Action::delete(object));
        }
    }
    let mut actions = writes.opening;
    actions.append(&mut writes.closing);
    Plan {
        actions,
        again: None,
    }
}

/// The writes of one plan by what they do to clients.
#[derive(Default)]
struct Writes {
    /// No endpoint that takes connections goes.
    opening: Vec<Action>,
    closing: Vec<Action>,
}

/// Slices of this Service that this controller writes.
fn own_slices<'a>(view: &View<'a>) -> Vec<(&'a Object, &'a EndpointSlice)> {
    let own = view.slices.iter().filter(|object| {
        object
            .meta
            .labels
            .get(MANAGED_BY)
            .is_some_and(|by| by == MANAGER)
            && object.meta.deleting.is_none()
    });
    own.filter_map(|object| Some((*object, object.as_slice()?.as_ref())))
        .collect()
}

/// One existing slice, and what it is to hold.
struct Page<'a> {
    object: &'a Object,
    slice: &'a EndpointSlice,
    endpoints: Vec<Endpoint>,
}

fn family(view: &View, v6: bool, groups: Groups, writes: &mut Writes) {
    let mut existing: BTreeMap<Vec<Port>, Vec<(&Object, &EndpointSlice)>> = BTreeMap::new();
    for (object, slice) in own_slices(view) {
        if slice.address_type == address_type(v6) {
            existing
                .entry(ports_of(slice))
                .or_default()
                .push((object, slice));
        }
    }
    let empty = groups.is_empty();
    for (ports, members) in groups {
        let slices = existing.remove(&ports).unwrap_or_default();
        group(view, v6, &ports, members, slices, writes);
    }
    let mut leftover = existing.into_values().flatten().collect::<Vec<_>>();
    if empty {
        // One empty slice tells that the Service is known and has no endpoint.
        match leftover.pop() {
            None => writes.opening.push(create(view, v6, &[], Vec::new())),
            Some((object, slice)) => {
                let page = Page {
                    object,
                    slice,
                    endpoints: Vec::new(),
                };
                writes.closing.extend(update(view, &page));
            }
        }
    }
    let leftover = leftover.into_iter();
    let deletions = leftover.map(|(object, _)| Action::delete(object));
    writes.closing.extend(deletions);
}

/// Keeps every endpoint in the slice where it is, then fills up, then adds slices.
fn group(
    view: &View,
    v6: bool,
    ports: &[Port],
    members: Vec<Member>,
    slices: Vec<(&Object, &EndpointSlice)>,
    writes: &mut Writes,
) {
    let mut waiting: BTreeMap<String, Endpoint> = members
        .iter()
        .map(|member| (member.pod.meta.uid.clone(), endpoint(member)))
        .collect();
    let mut pages: Vec<Page> = Vec::new();
    for (object, slice) in slices {
        let kept = slice
            .endpoints
            .iter()
            .filter_map(|old| waiting.remove(uid(old)));
        pages.push(Page {
            object,
            slice,
            endpoints: kept.take(CAPACITY).collect(),
        });
    }
    pages.sort_by_key(|page| std::cmp::Reverse(page.endpoints.len()));
    let mut waiting = waiting.into_values();
    for page in &mut pages {
        let room = CAPACITY - page.endpoints.len();
        page.endpoints.extend(waiting.by_ref().take(room));
    }
    loop {
        let chunk: Vec<Endpoint> = waiting.by_ref().take(CAPACITY).collect();
        if chunk.is_empty() {
            break;
        }
        writes.opening.push(create(view, v6, ports, chunk));
    }
    for page in &pages {
        if page.endpoints.is_empty() {
            writes.closing.push(Action::delete(page.object));
        } else if page.closes() {
            writes.closing.extend(update(view, page));
        } else {
            writes.opening.extend(update(view, page));
        }
    }
}

impl Page<'_> {
    /// An endpoint that takes connections now takes none afterwards.
    fn closes(&self) -> bool {
        let mut open = self
            .slice
            .endpoints
            .iter()
            .filter(|old| takes_connections(old));
        open.any(|old| {
            let new = self.endpoints.iter().find(|new| uid(new) == uid(old));
            !new.is_some_and(takes_connections)
        })
    }
}

fn takes_connections(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.is_none_or(|conditions| conditions.ready != Some(false))
}

fn update(view: &View, page: &Page) -> Option<Action> {
    let labels = labels(view);
    let current = &page.slice.endpoints;
    if *current == page.endpoints && page.object.meta.labels == labels {
        return None;
    }
    let mut wanted: BTreeMap<&str, Value> =
        labels.iter().map(|(k, v)| (k.as_str(), json!(v))).collect();
    for gone in page
        .object
        .meta
        .labels
        .keys()
        .filter(|key| !labels.contains_key(*key))
    {
        wanted.insert(gone, Value::Null);
    }
    let body = json!({"metadata": {"labels": wanted}, "endpoints": page.endpoints});
    Some(Action::merge(page.object, "", body))
}

fn create(view: &View, v6: bool, ports: &[Port], endpoints: Vec<Endpoint>) -> Action {
    let ports: Vec<EndpointPort> = ports
        .iter()
        .map(|port| EndpointPort {
            name: Some(port.name.clone()),
            protocol: Some(port.protocol.clone()),
            port: Some(port.port),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    let key = &view.object.key;
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", key.name),
            "namespace": key.namespace,
            "labels": labels(view),
            "ownerReferences": action::owners_json(&[action::controller_reference(view.object)]),
        },
        "addressType": address_type(v6),
        "endpoints": endpoints,
        "ports": ports,
    });
    Action::Create(Create {
        kind: Kind::ENDPOINT_SLICE,
        namespace: key.namespace.clone(),
        object,
        if_absent: false,
        about: None,
    })
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

fn endpoint(member: &Member) -> Endpoint {
    Endpoint {
        addresses: vec![member.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(member.ready),
            serving: Some(member.serving),
            terminating: Some(member.terminating),
        }),
        hostname: member.hostname.clone(),
        node_name: Some(member.row.node.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(member.pod.key.namespace.clone()),
            name: Some(member.pod.key.name.clone()),
            uid: Some(member.pod.meta.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn uid(endpoint: &Endpoint) -> &str {
    endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref())
        .unwrap_or_default()
}

fn ports_of(slice: &EndpointSlice) -> Vec<Port> {
    let ports = slice.ports.iter().flatten();
    ports
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: port.port.unwrap_or(0),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

fn address_type(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}
