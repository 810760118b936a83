//! Endpoints cut into slices: at most 100 each, changed as little as possible. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use serde_json::{Value, json};

use super::selection::Port;
use crate::action::{self, Action, Create};
use crate::object::Object;
use client::Kind;

/// Endpoints a slice, at most.
pub const CAPACITY: usize = 100;
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Whose slices they are, what each of them says, and which ones there are.
pub struct Author<'a> {
    pub owner: &'a Object,
    pub labels: BTreeMap<String, String>,
    pub existing: Vec<(&'a Object, &'a EndpointSlice)>,
}

/// The writes of one plan by what they do to clients.
#[derive(Default)]
pub struct Writes {
    /// No endpoint that takes connections goes.
    pub opening: Vec<Action>,
    pub closing: Vec<Action>,
}

impl Writes {
    /// Endpoints come before others go, so that a Service whose pods are replaced one by one is
    /// empty at no revision between.
    pub fn in_order(self) -> Vec<Action> {
        self.opening.into_iter().chain(self.closing).collect()
    }
}

/// Endpoints by the ports that they serve.
pub type Groups = BTreeMap<Vec<Port>, Vec<Endpoint>>;

/// Of `slices`, the ones that `manager` writes and that are not going.
pub fn managed<'a>(
    slices: impl Iterator<Item = &'a Object>,
    manager: &str,
) -> Vec<(&'a Object, &'a EndpointSlice)> {
    let own = slices.filter(|slice| {
        let by = slice.meta.labels.get(MANAGED_BY);
        by.is_some_and(|by| by == manager) && slice.meta.deleting.is_none()
    });
    own.filter_map(|object| Some((object, object.as_slice()?.as_ref())))
        .collect()
}

/// The writes that make the slices of one family hold these endpoints. One empty slice is kept if
/// there is none and `keep_one`.
pub fn arrange(author: &Author, v6: bool, groups: Groups, keep_one: bool, writes: &mut Writes) {
    let mut existing: BTreeMap<Vec<Port>, Vec<(&Object, &EndpointSlice)>> = BTreeMap::new();
    for (object, slice) in &author.existing {
        if slice.address_type == address_type(v6) {
            existing
                .entry(ports_of(slice))
                .or_default()
                .push((object, slice));
        }
    }
    let empty = groups.is_empty();
    for (ports, endpoints) in groups {
        let slices = existing.remove(&ports).unwrap_or_default();
        group(author, v6, &ports, endpoints, slices, writes);
    }
    let mut leftover = existing.into_values().flatten().collect::<Vec<_>>();
    if empty && keep_one {
        // One empty slice tells that the Service is known and has no endpoint.
        match leftover.pop() {
            None => writes.opening.push(create(author, v6, &[], Vec::new())),
            Some((object, slice)) => {
                let page = Page {
                    object,
                    slice,
                    endpoints: Vec::new(),
                };
                writes.closing.extend(update(author, &page));
            }
        }
    }
    let leftover = leftover.into_iter();
    let deletions = leftover.map(|(object, _)| Action::delete(object));
    writes.closing.extend(deletions);
}

pub fn address_type(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

/// One existing slice, and what it is to hold.
struct Page<'a> {
    object: &'a Object,
    slice: &'a EndpointSlice,
    endpoints: Vec<Endpoint>,
}

/// Keeps every endpoint in the slice where it is, then fills up, then adds slices.
fn group(
    author: &Author,
    v6: bool,
    ports: &[Port],
    endpoints: Vec<Endpoint>,
    slices: Vec<(&Object, &EndpointSlice)>,
    writes: &mut Writes,
) {
    let endpoints = endpoints.into_iter();
    let mut waiting: BTreeMap<String, Endpoint> = endpoints
        .map(|endpoint| (identity(&endpoint), endpoint))
        .collect();
    let mut pages: Vec<Page> = Vec::new();
    for (object, slice) in slices {
        let kept = slice
            .endpoints
            .iter()
            .filter_map(|old| waiting.remove(&identity(old)));
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
        writes.opening.push(create(author, v6, ports, chunk));
    }
    for page in &pages {
        if page.endpoints.is_empty() {
            writes.closing.push(Action::delete(page.object));
        } else if page.closes() {
            writes.closing.extend(update(author, page));
        } else {
            writes.opening.extend(update(author, page));
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
            let same = |new: &&Endpoint| identity(new) == identity(old);
            let new = self.endpoints.iter().find(same);
            !new.is_some_and(takes_connections)
        })
    }
}

fn takes_connections(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.is_none_or(|conditions| conditions.ready != Some(false))
}

fn update(author: &Author, page: &Page) -> Option<Action> {
    let labels = &author.labels;
    let current = &page.slice.endpoints;
    if *current == page.endpoints && page.object.meta.labels == *labels {
        return None;
    }
    let mut wanted: BTreeMap<&str, Value> =
        labels.iter().map(|(k, v)| (k.as_str(), json!(v))).collect();
    let before = page.object.meta.labels.keys();
    for gone in before.filter(|key| !labels.contains_key(*key)) {
        wanted.insert(gone, Value::Null);
    }
    let body = json!({"metadata": {"labels": wanted}, "endpoints": page.endpoints});
    Some(Action::merge(page.object, "", body))
}

fn create(author: &Author, v6: bool, ports: &[Port], endpoints: Vec<Endpoint>) -> Action {
    let ports: Vec<EndpointPort> = ports
        .iter()
        .map(|port| EndpointPort {
            name: Some(port.name.clone()),
            protocol: Some(port.protocol.clone()),
            port: Some(port.port),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    let key = &author.owner.key;
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", key.name),
            "namespace": key.namespace,
            "labels": author.labels,
            "ownerReferences": action::owners_json(&[action::controller_reference(author.owner)]),
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

/// Pods of the host's network share an address; what a user wrote names no pod.
fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    let uid = target.and_then(|target| target.uid.as_deref());
    let address = endpoint.addresses.first().map(String::as_str);
    format!(
        "{}/{}",
        uid.unwrap_or_default(),
        address.unwrap_or_default()
    )
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
