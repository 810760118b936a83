//! The older Endpoints object: one a Service, of its name, ready and unready addresses apart. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, ObjectReference};
use serde_json::{Value, json};

use super::selection::{self, Member, Port, View, families, headless, members};
use super::slices::HEADLESS;
use crate::action::{Action, Create, Delete, Plan};
use crate::controller::{Controller, Due, Watches};
use crate::object::Object;
use crate::world::{Address, Diff, World};
use client::Kind;

/// The annotation of an object that holds fewer addresses than there are.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses an object, at most.
const CAPACITY: usize = 1000;

/// Writes the Endpoints of Services with a selector, and removes those of Services that are gone. Its work
/// is about Endpoints.
pub struct EndpointsController;

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn account(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::POD, Kind::NODE, Kind::SERVICE, Kind::ENDPOINTS])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let key = &diff.object().key;
        let services = match diff.object().kind {
            Kind::SERVICE => Due::from([(Kind::SERVICE, key.clone())]),
            // Without a Service they are someone's who is about to create it.
            Kind::ENDPOINTS if world.get(Kind::SERVICE, key).is_none() => Due::new(),
            Kind::ENDPOINTS => Due::from([(Kind::SERVICE, key.clone())]),
            _ => {
                let mut services = Due::new();
                selection::due(world, diff, &mut services);
                services
            }
        };
        let endpoints = services.into_iter().map(|(_, key)| (Kind::ENDPOINTS, key));
        due.extend(endpoints);
    }

    /// What a Service left behind that was deleted while no controller ran.
    fn due_at_start(&self, world: &World, due: &mut Due) {
        let all = world.all(Kind::ENDPOINTS);
        due.extend(all.map(|endpoints| (Kind::ENDPOINTS, endpoints.key.clone())));
    }

    fn plan(&mut self, world: &World, (_, key): &Address, _now: Timestamp) -> Option<Plan> {
        if world.get(Kind::SERVICE, key).is_some() {
            return selection::gather(world, key).map(|view| plan(&view));
        }
        let leftover = world.get(Kind::ENDPOINTS, key)?;
        Some(plan_gone(leftover))
    }
}

/// The write that makes the object say what the Service's pods say.
pub fn plan(view: &View) -> Plan {
    if view.object.meta.deleting.is_some() {
        return Plan::default();
    }
    let (subsets, truncated) = subsets(view);
    let mut labels = view.object.meta.labels.clone();
    labels.remove(HEADLESS);
    if headless(view.service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let over = if truncated {
        json!("truncated")
    } else {
        Value::Null
    };
    let action = match view
        .endpoints
        .and_then(|object| Some((object, object.as_endpoints()?)))
    {
        None => Some(create(view, &subsets, &labels)),
        Some((object, current)) => {
            let same = current.subsets.as_deref().unwrap_or_default() == subsets;
            let labelled = object.meta.labels == labels;
            let body = json!({
                "metadata": {"labels": labels, "annotations": {OVER_CAPACITY: over}},
                "subsets": if subsets.is_empty() { Value::Null } else { json!(subsets) },
            });
            (!same || !labelled).then(|| Action::merge(object, "", body))
        }
    };
    Plan {
        actions: action.into_iter().collect(),
        again: None,
    }
}

/// The Service is gone: so goes the object of its name.
pub fn plan_gone(endpoints: &Object) -> Plan {
    let unless_any = vec![(Kind::SERVICE, endpoints.key.clone(), String::new())];
    let delete = Delete {
        unless_any,
        ..Delete::of(endpoints)
    };
    Plan {
        actions: vec![Action::Delete(delete)],
        again: None,
    }
}

fn create(
    view: &View,
    subsets: &[EndpointSubset],
    labels: &std::collections::BTreeMap<String, String>,
) -> Action {
    let key = &view.object.key;
    let object = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": key.name, "namespace": key.namespace, "labels": labels},
        "subsets": subsets,
    });
    Action::Create(Create {
        kind: Kind::ENDPOINTS,
        namespace: key.namespace.clone(),
        object,
        if_absent: false,
        about: None,
    })
}

fn subsets(view: &View) -> (Vec<EndpointSubset>, bool) {
    let v6 = families(view.service).first().copied().unwrap_or(false);
    let mut room = CAPACITY;
    let mut truncated = false;
    let mut subsets = Vec::new();
    for (ports, mut members) in members(view, v6) {
        members.retain(|member| !member.terminating || member.ready);
        members.sort_by_key(|member| (!member.ready, member.address));
        truncated |= members.len() > room;
        members.truncate(room);
        room -= members.len();
        if members.is_empty() {
            continue;
        }
        let (ready, unready): (Vec<_>, Vec<_>) = members.iter().partition(|member| member.ready);
        subsets.push(EndpointSubset {
            addresses: addresses(&ready),
            not_ready_addresses: addresses(&unready),
            ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
        });
    }
    (subsets, truncated)
}

fn addresses(members: &[&Member]) -> Option<Vec<EndpointAddress>> {
    let address = |member: &&Member| EndpointAddress {
        ip: member.address.to_string(),
        hostname: member.hostname.clone(),
        node_name: Some(member.row.node.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(member.pod.key.namespace.clone()),
            name: Some(member.pod.key.name.clone()),
            uid: Some(member.pod.meta.uid.clone()),
            ..ObjectReference::default()
        }),
    };
    (!members.is_empty()).then(|| members.iter().map(address).collect())
}

fn port(port: Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|name| !name.is_empty()),
        protocol: Some(port.protocol),
        port: port.port,
        app_protocol: port.app_protocol,
    }
}
