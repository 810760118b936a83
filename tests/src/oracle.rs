//! What must happen when somebody asks an address, from API objects alone.
//!
//! The judge of three executors: the model over the tables (`datapath::lookup`), the real programs
//! under test run, and real sockets. It knows Kubernetes' Services and the addresses that servers are
//! promised to see; it knows no map, no flow and no program.

pub mod cases;
pub mod journey;
pub mod run;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::Endpoint;

use world::{Place, World};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client<'a> {
    /// A pod with an address of its own, by name.
    Pod(&'a str),
    /// A process of a node, or a pod on its network.
    Node(&'a str),
    /// Somebody on the underlay whose packets for Services come to that node.
    Outside { addr: IpAddr, via: &'a str },
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    pub addr: IpAddr,
    pub port: u16,
    pub udp: bool,
}

/// An address and a port.
pub type End = (IpAddr, u16);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One of these answers; each sees the client as one of these addresses.
    From(BTreeMap<End, BTreeSet<IpAddr>>),
    /// The client is told at once that nobody listens.
    Refused,
    /// Nobody answers.
    Dropped,
    /// Nobody answers, and the client may be told so.
    Denied,
}

/// By which of its addresses a Service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    Cluster,
    Node,
    LoadBalancer,
    External,
}

/// What happens when `client` asks.
pub fn reachable(world: &World, client: Client<'_>, asked: Asked) -> Answer {
    let here = world.node_of(client);
    if let Place::Node(other) = world.place(asked.addr)
        && other != here
        && !matches!(client, Client::Outside { .. })
        && front(world, asked).is_some()
    {
        // A node port of another node is asked from outside, as this node.
        let addr = world.node_addr(here, asked.addr.is_ipv4());
        return reachable(world, Client::Outside { addr, via: other }, asked);
    }
    let inside = !matches!(client, Client::Outside { .. });
    match front(world, asked) {
        Some((_, _, Front::Cluster)) if !inside => Answer::Dropped,
        Some((service, port, front)) => {
            if front == Front::LoadBalancer && !admitted(world, service, client, asked.addr) {
                return if inside {
                    Answer::Denied
                } else {
                    Answer::Dropped
                };
            }
            let selected = select(world, (service, port), (front, inside), here, asked);
            let Ok(selected) = selected else {
                return if inside {
                    Answer::Refused
                } else {
                    Answer::Dropped
                };
            };
            answer(world, client, &selected)
        }
        None => direct(world, client, asked),
    }
}

/// The endpoints that may answer; an error if there are some, but none for who asks here.
fn select(
    world: &World,
    (service, port): (&Service, &ServicePort),
    (front, inside): (Front, bool),
    here: &str,
    asked: Asked,
) -> Result<BTreeSet<End>, ()> {
    let spec = service.spec.as_ref().expect("a Service has a spec");
    let policy = match (front, inside) {
        (Front::Cluster, _) => spec.internal_traffic_policy.as_deref(),
        (_, true) => None,
        (_, false) => spec.external_traffic_policy.as_deref(),
    };
    let all = world.endpoints(service, port, asked);
    let serving = choose(&all, |_| true);
    if policy == Some("Local") {
        let local = choose(&all, |endpoint| endpoint.node_name.as_deref() == Some(here));
        if local.is_empty() && !serving.is_empty() {
            return Err(());
        }
        return Ok(local);
    }
    let ready: Vec<_> = all
        .iter()
        .filter(|(endpoint, _)| is_ready(endpoint))
        .cloned()
        .collect();
    let zone = world.zone(here);
    let hinted = |endpoint: &Endpoint| {
        let zones = endpoint
            .hints
            .iter()
            .flat_map(|hints| hints.for_zones.iter().flatten());
        zones.map(|zone| zone.name.clone()).collect::<BTreeSet<_>>()
    };
    let near: Vec<_> = ready
        .iter()
        .filter(|(end, _)| hinted(end).contains(zone))
        .cloned()
        .collect();
    let complete = ready
        .iter()
        .all(|(endpoint, _)| !hinted(endpoint).is_empty());
    if complete && !near.is_empty() {
        return Ok(near.into_iter().map(|(_, end)| end).collect());
    }
    Ok(serving)
}

/// Those that are ready; if there is none, those that still serve while they terminate.
fn choose(all: &[(Endpoint, End)], among: impl Fn(&Endpoint) -> bool) -> BTreeSet<End> {
    let ends = |usable: fn(&Endpoint) -> bool| -> BTreeSet<End> {
        let usable = all.iter().filter(|(end, _)| among(end) && usable(end));
        usable.map(|(_, end)| *end).collect()
    };
    let ready = ends(is_ready);
    if ready.is_empty() {
        ends(is_leaving)
    } else {
        ready
    }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true)
}

fn is_leaving(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    conditions.serving.unwrap_or(is_ready(endpoint)) && conditions.terminating.unwrap_or(false)
}

/// `loadBalancerSourceRanges` (Service v1): of every client, wherever it is.
fn admitted(world: &World, service: &Service, client: Client<'_>, asked: IpAddr) -> bool {
    let spec = service.spec.as_ref().expect("a Service has a spec");
    let ranges = spec.load_balancer_source_ranges.clone().unwrap_or_default();
    let from = world.client_addr(client, asked.is_ipv4());
    ranges.is_empty()
        || ranges
            .iter()
            .filter_map(|range| range.parse::<ipnetwork::IpNetwork>().ok())
            .any(|range| range.contains(from))
}

fn front(world: &World, asked: Asked) -> Option<(&Service, &ServicePort, Front)> {
    let text = asked.addr.to_string();
    let proto = if asked.udp { "UDP" } else { "TCP" };
    let on_node = matches!(world.place(asked.addr), Place::Node(_));
    for service in &world.services {
        let spec = service.spec.as_ref()?;
        let status = service
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref());
        let ingress = status
            .iter()
            .flat_map(|status| status.ingress.iter().flatten());
        let has = |list: &Option<Vec<String>>| list.iter().flatten().any(|addr| *addr == text);
        let family = if asked.addr.is_ipv4() { "IPv4" } else { "IPv6" };
        let families = spec.ip_families.iter().flatten();
        let front = if has(&spec.cluster_ips) {
            Front::Cluster
        } else if has(&spec.external_ips) {
            Front::External
        } else if ingress
            .filter_map(|at| at.ip.as_deref())
            .any(|ip| ip == text)
        {
            Front::LoadBalancer
        } else if on_node && families.into_iter().any(|listed| listed == family) {
            Front::Node
        } else {
            continue;
        };
        let port = spec.ports.iter().flatten().find(|port| {
            let number = if front == Front::Node {
                port.node_port
            } else {
                Some(port.port)
            };
            number == Some(i32::from(asked.port))
                && port.protocol.as_deref().unwrap_or("TCP") == proto
        });
        if let Some(port) = port {
            return Some((service, port, front));
        }
    }
    None
}

fn answer(world: &World, client: Client<'_>, selected: &BTreeSet<End>) -> Answer {
    if selected.is_empty() {
        return Answer::Refused;
    }
    let seen = |end: &End| (*end, sources(world, client, end.0, true));
    Answer::From(selected.iter().map(seen).collect())
}

/// Asked by its own address.
fn direct(world: &World, client: Client<'_>, asked: Asked) -> Answer {
    let end = (asked.addr, asked.port);
    let inside = !matches!(client, Client::Outside { .. });
    let listens = world.listens(end, asked.udp);
    match world.place(asked.addr) {
        Place::Service if inside => Answer::Refused,
        Place::Service | Place::NoPod => Answer::Dropped,
        Place::Pod(_) if !inside => Answer::Dropped,
        _ if listens => Answer::From(BTreeMap::from([(
            end,
            sources(world, client, end.0, false),
        )])),
        Place::Pod(_) | Place::Node(_) => Answer::Refused,
        Place::Outside => Answer::Dropped,
    }
}

/// What the server at `to` may see as its client's address.
fn sources(world: &World, client: Client<'_>, to: IpAddr, service: bool) -> BTreeSet<IpAddr> {
    let here = world.node_of(client);
    let v4 = to.is_ipv4();
    let node = world.node_addr(here, v4);
    let own = world.client_addr(client, v4);
    let of_node = || BTreeSet::from([node, world.share(here, v4, 0), world.share(here, v4, 1)]);
    let local = match world.place(to) {
        Place::Pod(pod) => world.node_of(Client::Pod(pod)) == here,
        Place::Node(name) => name == here,
        _ => false,
    };
    let in_overlay = matches!(world.place(to), Place::Pod(_));
    match client {
        // It connects to itself, or it must come back to be translated again.
        Client::Pod(_) if own == to && service => BTreeSet::from([own, world.share(here, v4, 0)]),
        Client::Pod(_) if in_overlay || local => BTreeSet::from([own]),
        Client::Pod(_) => BTreeSet::from([node]),
        Client::Node(_) => of_node(),
        Client::Outside { .. } if local || !service => BTreeSet::from([own]),
        // A node's answers come back as they went.
        Client::Outside { .. } if world.direct && in_overlay && !world.is_node(own) => {
            BTreeSet::from([own])
        }
        Client::Outside { .. } => of_node(),
    }
}
