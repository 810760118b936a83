//! Endpoints that a user wrote for a Service without selector, mirrored to EndpointSlices. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};

use super::paging::{Author, Groups, MANAGED_BY, SERVICE_NAME, Writes, arrange, managed};
use super::selection::{Port, selector};
use super::slices;
use crate::action::{Action, Plan};
use crate::controller::{Controller, Due, Watches};
use crate::object::{Key, Object};
use crate::world::{Address, Diff, World};
use client::Kind;

pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// A label of Endpoints whose writer writes slices too.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// An annotation of Endpoints that are a lock and no addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Mirrors Endpoints to slices. Its work is about Endpoints.
pub struct MirrorController;

impl Controller for MirrorController {
    fn name(&self) -> &'static str {
        "endpoint slice mirroring"
    }

    fn account(&self) -> &'static str {
        "endpointslicemirroring-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::SERVICE, Kind::ENDPOINTS, Kind::ENDPOINT_SLICE])
    }

    fn due(&self, _world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        let key = match object.kind {
            Kind::ENDPOINT_SLICE => slices::service_of(object),
            _ => Some(object.key.clone()),
        };
        due.extend(key.map(|key| (Kind::ENDPOINTS, key)));
    }

    fn plan(&mut self, world: &World, (_, key): &Address, _now: Timestamp) -> Option<Plan> {
        Some(plan(&gather(world, key)))
    }
}

/// What the plan is made from.
pub struct View<'a> {
    /// The Endpoints of the Service's name, unless they go.
    pub endpoints: Option<(&'a Object, &'a Endpoints)>,
    /// The Service is there and has no selector.
    pub mirrors: bool,
    /// Slices that mirror these Endpoints.
    pub mirrored: Vec<(&'a Object, &'a EndpointSlice)>,
    /// Slices from a time when the Service had a selector.
    pub selected: Vec<(&'a Object, &'a EndpointSlice)>,
}

pub fn gather<'a>(world: &'a World, key: &Key) -> View<'a> {
    let endpoints = world.get(Kind::ENDPOINTS, key);
    let endpoints = endpoints.and_then(|object| {
        let going = object.meta.deleting.is_some();
        let row = object.as_endpoints().filter(|_| !going)?;
        Some((object.as_ref(), row.as_ref()))
    });
    let object = world.get(Kind::SERVICE, key);
    let object = object.filter(|object| object.meta.deleting.is_none());
    let service = object.and_then(|object| object.as_service());
    let mirrors = service.is_some_and(|service| {
        let spec = service.spec.as_ref();
        let external = spec.is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"));
        selector(service).is_none() && !external
    });
    let of = |owner: Option<&Object>, manager| {
        let slices = owner.into_iter();
        let slices = slices.flat_map(|owner| world.dependents(&owner.meta.uid));
        let slices = slices.filter(|slice| slice.kind == Kind::ENDPOINT_SLICE);
        managed(slices.map(AsRef::as_ref), manager)
    };
    let unselected = object.filter(|_| service.is_some_and(|service| selector(service).is_none()));
    View {
        endpoints,
        mirrors,
        mirrored: of(endpoints.map(|(object, _)| object), MANAGER),
        selected: of(unselected.map(AsRef::as_ref), slices::MANAGER),
    }
}

/// The writes that make the slices say what the Endpoints say. What the selector left goes last.
pub fn plan(view: &View) -> Plan {
    let mut writes = Writes::default();
    if let Some((object, row)) = view.endpoints {
        let wanted = view.mirrors && is_mirrored(object, row);
        let author = Author {
            owner: object,
            labels: labels(object),
            existing: view.mirrored.clone(),
        };
        for v6 in [false, true] {
            let groups = if wanted {
                groups(row, v6)
            } else {
                Groups::new()
            };
            arrange(&author, v6, groups, false, &mut writes);
        }
    }
    let selected = view.selected.iter();
    let deletions = selected.map(|(slice, _)| Action::delete(slice));
    writes.closing.extend(deletions);
    Plan {
        actions: writes.in_order(),
        again: None,
    }
}

fn is_mirrored(object: &Object, row: &Endpoints) -> bool {
    let skipped = object
        .meta
        .labels
        .get(SKIP)
        .is_some_and(|word| word == "true");
    let annotations = row.metadata.annotations.as_ref();
    !skipped && !annotations.is_some_and(|all| all.contains_key(LEADER))
}

fn labels(object: &Object) -> BTreeMap<String, String> {
    let mut labels = object.meta.labels.clone();
    labels.insert(SERVICE_NAME.to_owned(), object.key.name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// Addresses of one family. One that is listed as ready and as not is ready.
fn groups(row: &Endpoints, v6: bool) -> Groups {
    let mut groups: BTreeMap<Vec<Port>, BTreeMap<&str, Endpoint>> = BTreeMap::new();
    for subset in row.subsets.iter().flatten() {
        let lists = [
            (&subset.not_ready_addresses, false),
            (&subset.addresses, true),
        ];
        for (list, ready) in lists {
            for address in list.iter().flatten().filter(|a| is_of(&a.ip, v6)) {
                let group = groups.entry(ports(subset)).or_default();
                group.insert(&address.ip, endpoint(address, ready));
            }
        }
    }
    let groups = groups.into_iter();
    groups
        .map(|(ports, endpoints)| (ports, endpoints.into_values().collect()))
        .collect()
}

fn is_of(address: &str, v6: bool) -> bool {
    address
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_ipv6() == v6)
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn ports(subset: &EndpointSubset) -> Vec<Port> {
    let ports = subset.ports.iter().flatten();
    ports
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: port.port,
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}
