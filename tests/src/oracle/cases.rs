//! The cases: every kind of Service × traffic policy × state of its endpoints × family × client, and
//! random worlds from seeds.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::Endpoint;

use super::world::{
    Condition, NODES, World, endpoint, hinted, outside, public, service, share, slice, underlay,
    with_load_balancer, with_node_ports,
};
use super::{Asked, Client};
use crate::sim::rng::Rng;

/// The node ports of the cases' Service: TCP, then UDP.
pub const NODE_PORT: u16 = 30080;

/// The number of the Service's addresses in their ranges.
const NUMBER: u8 = 10;

/// One question about one world.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub setting: Setting,
    pub asker: Asker,
}

/// Which world: cases of one setting share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub kind: Kind,
    pub local: bool,
    pub v4: bool,
    pub state: State,
    /// See [`World::direct`].
    pub direct: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
    /// A load balancer that admits only the client outside.
    SourceRanges,
}

/// Who asks; `here` is the first node, to which most questions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    PodHere,
    PodThere,
    NodeHere,
    NodeThere,
    OutsideHere,
    OutsideThere,
}

/// The Service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Named(usize),
    /// A random mixture.
    Seed(u64),
}

/// Where an endpoint of a named state is.
#[derive(Clone, Copy)]
enum At {
    /// A pod of the first node, of the second.
    Here,
    There,
    /// A pod on a node's own network.
    HostHere,
    HostThere,
    Outside,
    /// The pod that asks where a pod here asks, and its like on the other node.
    Asker,
    AskerThere,
}

use At::{AskerThere, Here, HostHere, HostThere, There};
use Condition::{Gone, Leaving, Ready, Unready};

type Listed = (At, Condition, Option<&'static str>);

/// Endpoints, their conditions and hints.
const STATES: [(&str, &[Listed]); 22] = [
    ("no_endpoints", &[]),
    ("ready_here", &[(Here, Ready, None)]),
    ("ready_there", &[(There, Ready, None)]),
    (
        "ready_on_both",
        &[(Here, Ready, None), (There, Ready, None)],
    ),
    ("leaving_here", &[(Here, Leaving, None)]),
    ("leaving_there", &[(There, Leaving, None)]),
    (
        "leaving_here_ready_there",
        &[(Here, Leaving, None), (There, Ready, None)],
    ),
    (
        "leaving_on_both",
        &[(Here, Leaving, None), (There, Leaving, None)],
    ),
    ("unready_here", &[(Here, Unready, None)]),
    (
        "unready_here_ready_there",
        &[(Here, Unready, None), (There, Ready, None)],
    ),
    ("gone_here", &[(Here, Gone, None)]),
    (
        "gone_here_leaving_there",
        &[(Here, Gone, None), (There, Leaving, None)],
    ),
    ("host_network_here", &[(HostHere, Ready, None)]),
    ("host_network_there", &[(HostThere, Ready, None)]),
    (
        "pod_here_host_network_there",
        &[(Here, Ready, None), (HostThere, Ready, None)],
    ),
    ("outside_the_cluster", &[(At::Outside, Ready, None)]),
    ("only_the_asker", &[(At::Asker, Ready, None)]),
    ("only_the_asker_there", &[(AskerThere, Ready, None)]),
    (
        "the_asker_and_another",
        &[(At::Asker, Ready, None), (There, Ready, None)],
    ),
    (
        "hinted",
        &[
            (Here, Ready, Some("zone-1")),
            (There, Ready, Some("zone-2")),
        ],
    ),
    (
        "hinted_in_part",
        &[(Here, Ready, Some("zone-1")), (There, Ready, None)],
    ),
    (
        "hinted_for_one_zone",
        &[
            (Here, Ready, Some("zone-2")),
            (There, Ready, Some("zone-2")),
        ],
    ),
];

const KINDS: [(&str, Kind); 5] = [
    ("cluster_ip", Kind::ClusterIp),
    ("node_port", Kind::NodePort),
    ("load_balancer", Kind::LoadBalancer),
    ("external_ip", Kind::ExternalIp),
    ("source_ranges", Kind::SourceRanges),
];

const ASKERS: [(&str, Asker); 6] = [
    ("pod_here", Asker::PodHere),
    ("pod_there", Asker::PodThere),
    ("node_here", Asker::NodeHere),
    ("node_there", Asker::NodeThere),
    ("outside_here", Asker::OutsideHere),
    ("outside_there", Asker::OutsideThere),
];

/// Every named case, those of one world side by side.
pub fn named() -> Vec<Case> {
    let states = STATES.iter().enumerate();
    let states = states.map(|(at, (name, _))| ((*name).to_owned(), State::Named(at)));
    cross(&states.collect::<Vec<_>>())
}

/// Cases of random endpoints, the same for the same seeds.
pub fn generated(seeds: std::ops::Range<u64>) -> Vec<Case> {
    let states = seeds.map(|seed| (format!("seed_{seed}"), State::Seed(seed)));
    cross(&states.collect::<Vec<_>>())
}

/// Those of `cases` that direct server return may concern, with it.
pub fn direct(cases: &[Case]) -> Vec<Case> {
    let concerned = cases
        .iter()
        .filter(|case| case.setting.kind != Kind::ClusterIp);
    let direct = |case: &Case| Case {
        name: format!("direct::{}", case.name),
        setting: Setting {
            direct: true,
            ..case.setting.clone()
        },
        asker: case.asker,
    };
    concerned.map(direct).collect()
}

fn cross(states: &[(String, State)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind_name, kind) in KINDS {
        for (policy, local) in [("cluster", false), ("local", true)] {
            for (family, v4) in [("v4", true), ("v6", false)] {
                for (state_name, state) in states {
                    let setting = Setting {
                        kind,
                        local,
                        v4,
                        state: state.clone(),
                        direct: false,
                    };
                    cases.extend(ASKERS.map(|(who, asker)| Case {
                        name: format!("{kind_name}::{policy}::{state_name}::{family}::{who}"),
                        setting: setting.clone(),
                        asker,
                    }));
                }
            }
        }
    }
    cases
}

impl Setting {
    /// The objects: the cluster, one Service and its slices.
    pub fn world(&self) -> World {
        let mut world = World::new();
        let service = self.service();
        let endpoints = self.endpoints();
        // Half of them each, so that endpoints come from several slices.
        let (first, second) = endpoints.split_at(endpoints.len().div_ceil(2));
        world.slices = [first, second]
            .into_iter()
            .enumerate()
            .map(|(serial, part)| slice(&service, serial, self.v4, part.to_vec()))
            .collect();
        world.services = vec![service];
        world.direct = self.direct;
        world
    }

    fn service(&self) -> Service {
        let mut made = service("asked", self.v4, NUMBER);
        let port = i32::from(NODE_PORT);
        made = match self.kind {
            Kind::ClusterIp => made,
            Kind::NodePort => with_node_ports(made, port),
            Kind::LoadBalancer | Kind::SourceRanges => {
                with_load_balancer(made, port, public(self.v4, NUMBER))
            }
            Kind::ExternalIp => with_node_ports(made, port),
        };
        let spec = made.spec.get_or_insert_default();
        let policy = Some(if self.local { "Local" } else { "Cluster" }.to_owned());
        match self.kind {
            Kind::ClusterIp => spec.internal_traffic_policy = policy,
            _ => spec.external_traffic_policy = policy,
        }
        if self.kind == Kind::ExternalIp {
            spec.external_ips = Some(vec![public(self.v4, NUMBER).to_string()]);
        }
        if self.kind == Kind::SourceRanges {
            let bits = if self.v4 { 32 } else { 128 };
            let ranges = vec![format!("{}/{bits}", outside(self.v4))];
            spec.load_balancer_source_ranges = Some(ranges);
        }
        made
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        match self.state {
            State::Named(at) => STATES[at]
                .1
                .iter()
                .map(|listed| self.listed(*listed))
                .collect(),
            State::Seed(seed) => self.random(seed),
        }
    }

    fn random(&self, seed: u64) -> Vec<Endpoint> {
        let mut rng = Rng::new(seed);
        let places = [
            Here,
            There,
            HostHere,
            HostThere,
            At::Outside,
            At::Asker,
            AskerThere,
        ];
        let hints = [None, None, None, Some("zone-1"), Some("zone-2")];
        let mut endpoints = Vec::new();
        for at in places {
            if rng.below(2) == 0 {
                continue;
            }
            let condition = [Ready, Ready, Unready, Leaving, Gone][rng.below(5)];
            endpoints.push(self.listed((at, condition, hints[rng.below(5)])));
        }
        endpoints
    }

    fn listed(&self, (at, condition, hint): Listed) -> Endpoint {
        let (addr, node) = match at {
            Here => (share(1, self.v4, 6), Some(NODES[0])),
            There => (share(2, self.v4, 6), Some(NODES[1])),
            HostHere => (underlay(self.v4, 11), Some(NODES[0])),
            HostThere => (underlay(self.v4, 12), Some(NODES[1])),
            At::Outside => (outside(self.v4), None),
            At::Asker => (share(1, self.v4, 5), Some(NODES[0])),
            AskerThere => (share(2, self.v4, 5), Some(NODES[1])),
        };
        let made = endpoint(addr, node, condition);
        hint.map_or(made.clone(), |zone| hinted(made, zone))
    }
}

impl Case {
    pub fn client(&self) -> Client<'static> {
        let addr = outside(self.setting.v4);
        match self.asker {
            Asker::PodHere => Client::Pod("pod-1-5"),
            Asker::PodThere => Client::Pod("pod-2-5"),
            Asker::NodeHere => Client::Node(NODES[0]),
            Asker::NodeThere => Client::Node(NODES[1]),
            Asker::OutsideHere => Client::Outside {
                addr,
                via: NODES[0],
            },
            Asker::OutsideThere => Client::Outside {
                addr,
                via: NODES[1],
            },
        }
    }

    /// The Service by the address that the case is about, for both transports.
    pub fn asked(&self) -> [Asked; 2] {
        let v4 = self.setting.v4;
        let (addr, ports) = match self.setting.kind {
            Kind::ClusterIp => (super::world::cluster_ip(v4, NUMBER), [80, 53]),
            Kind::NodePort => {
                // Outside asks the node that it enters by; pods and nodes all ask the first.
                let there = self.asker == Asker::OutsideThere;
                (
                    underlay(v4, if there { 12 } else { 11 }),
                    [NODE_PORT, NODE_PORT + 1],
                )
            }
            _ => (public(v4, NUMBER), [80, 53]),
        };
        [false, true].map(|udp| Asked {
            addr,
            port: ports[usize::from(udp)],
            udp,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Answer, reachable};
    use super::*;

    #[test]
    fn the_cases_are_many_and_named_once() {
        let cases = named();
        let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.len() >= 200, "{}", cases.len());
    }

    #[test]
    fn every_kind_of_answer_is_among_them() {
        let mut counts = [0; 3];
        for case in named() {
            let world = case.setting.world();
            for asked in case.asked() {
                counts[match reachable(&world, case.client(), asked) {
                    Answer::From(ends) => {
                        assert!(!ends.is_empty(), "{}", case.name);
                        0
                    }
                    Answer::Refused => 1,
                    Answer::Dropped | Answer::Denied => 2,
                }] += 1;
            }
        }
        assert!(counts.iter().all(|count| *count >= 100), "{counts:?}");
    }

    fn answer(name: &str) -> Answer {
        let cases = named();
        let case = cases
            .iter()
            .find(|case| case.name == name)
            .expect("a case of that name");
        reachable(&case.setting.world(), case.client(), case.asked()[0])
    }

    fn ends(name: &str) -> Vec<(String, Vec<String>)> {
        let Answer::From(ends) = answer(name) else {
            panic!("{name}: {:?}", answer(name));
        };
        let text = |addr: &std::net::IpAddr| addr.to_string();
        ends.iter()
            .map(|(end, from)| (text(&end.0), from.iter().map(text).collect()))
            .collect()
    }

    /// The oracle itself, where the words of Kubernetes' documentation are plainest.
    #[test]
    fn the_oracle_says_what_kubernetes_promises() {
        let only = |to: &str, from: &str| vec![(to.to_owned(), vec![from.to_owned()])];
        let (pod, far) = ("10.100.1.5", "10.100.2.6");
        assert_eq!(
            ends("cluster_ip::cluster::ready_there::v4::pod_here"),
            only(far, pod)
        );
        assert_eq!(
            ends("node_port::local::ready_there::v4::outside_there"),
            only(far, "172.31.0.250"),
        );
        assert_eq!(
            ends("load_balancer::local::ready_there::v4::pod_here"),
            only(far, pod)
        );
        assert_eq!(
            answer("node_port::local::ready_there::v4::outside_here"),
            Answer::Dropped
        );
        assert_eq!(
            answer("node_port::cluster::no_endpoints::v4::outside_here"),
            Answer::Refused
        );
        assert_eq!(
            answer("cluster_ip::local::ready_there::v4::pod_here"),
            Answer::Refused
        );
        assert_eq!(
            answer("cluster_ip::cluster::ready_here::v6::outside_here"),
            Answer::Dropped
        );
        assert_eq!(
            answer("source_ranges::cluster::ready_here::v4::pod_here"),
            Answer::Denied
        );
        assert_eq!(ends("cluster_ip::cluster::hinted::v4::pod_there").len(), 1);
        assert_eq!(
            ends("cluster_ip::cluster::hinted_in_part::v4::pod_there").len(),
            2
        );
    }
}
