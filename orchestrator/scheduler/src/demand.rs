//! What a pod demands of its node, without what tells it from its siblings: pods of one template have
//! equal demands. Pure.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use std::collections::BTreeMap;

use super::resources::Resources;
pub use api::selector::node::Term as NodeTerm;
use api::selector::{LabelSelector, Operator};

/// All of a pod that a decision depends on. Ordered, so that equal ones are found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Demand {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    /// The uid of its controller; empty without one.
    pub owner: String,
    pub scheduler: String,
    pub local: Local,
    pub never_preempts: bool,
    pub near: Vec<Term>,
    pub far: Vec<Term>,
    /// Preferred terms with their weights; those of anti-affinity are negative.
    pub wishes: Vec<(i64, Term)>,
    pub spread: Vec<Spread>,
    pub claims: Vec<ClaimRef>,
    /// It asks for devices by claims, which no node gives.
    pub asks_devices: bool,
}

/// The part of a demand that one node answers for itself, whatever is on the others.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Local {
    pub priority: i32,
    pub requests: Resources,
    pub ports: Vec<HostPort>,
    pub nodes: NodeFilter,
    pub wishes: Vec<(i64, NodeTerm)>,
    pub tolerations: Vec<Toleration>,
    /// Sorted, without repetition.
    pub images: Vec<String>,
    /// How many containers use images.
    pub containers: i64,
}

/// A port of the node that a pod claims.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostPort {
    pub protocol: String,
    pub port: i32,
    /// `0.0.0.0` for every address of the node.
    pub address: String,
}

/// Node selector and required node affinity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct NodeFilter {
    pub labels: Vec<(String, String)>,
    /// One of these must match, if there are any demands.
    pub terms: Option<Vec<NodeTerm>>,
}

/// A toleration; its seconds matter to others.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Toleration {
    pub key: String,
    /// None tolerates every value.
    pub value: Option<String>,
    pub effect: String,
}

/// A term of pod affinity or anti-affinity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Term {
    pub scope: Scope,
    pub selector: LabelSelector,
    pub topology_key: String,
}

/// The namespaces of a term.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Scope {
    pub names: Vec<String>,
    /// Namespaces by their labels, besides those that are named.
    pub selector: Option<LabelSelector>,
}

/// A constraint of topology spread.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Spread {
    pub max_skew: i64,
    pub topology_key: String,
    /// DoNotSchedule; else it only counts in the score.
    pub hard: bool,
    pub min_domains: i64,
    pub selector: LabelSelector,
    /// Only nodes that the pod's selector and affinity admit are counted.
    pub honors_affinity: bool,
    /// Only nodes whose taints the pod tolerates are counted.
    pub honors_taints: bool,
}

/// A volume claim of a pod.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClaimRef {
    pub name: String,
    /// It is made for the pod, by the controller of ephemeral volumes.
    pub ephemeral: bool,
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let same_address =
            self.address == other.address || self.address == ANY || other.address == ANY;
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

const ANY: &str = "0.0.0.0";

impl NodeFilter {
    pub fn admits(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let selected = self
            .labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        let matches = |terms: &Vec<NodeTerm>| terms.iter().any(|term| term.matches(name, labels));
        selected && self.terms.as_ref().is_none_or(matches)
    }
}

impl Toleration {
    /// Kubernetes' rule: an empty key with `Exists` is every taint, an empty effect every effect.
    pub fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        (self.effect.is_empty() || self.effect == effect)
            && (self.key.is_empty() || self.key == key)
            && match &self.value {
                None => true,
                Some(own) => !self.key.is_empty() && own == value,
            }
    }
}

impl Scope {
    pub fn holds(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        if self.names.iter().any(|name| name == namespace) {
            return true;
        }
        let nothing = BTreeMap::new();
        self.selector
            .as_ref()
            .is_some_and(|selector| selector.matches(labels.unwrap_or(&nothing)))
    }
}

impl From<&core::Toleration> for Toleration {
    fn from(toleration: &core::Toleration) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        Self {
            key: text(&toleration.key),
            value: (!exists).then(|| text(&toleration.value)),
            effect: text(&toleration.effect),
        }
    }
}

/// Reads what `spec` demands; `labels` and `namespace` are the pod's.
pub fn read(
    namespace: &str,
    labels: BTreeMap<String, String>,
    owner: String,
    name: &str,
    (spec, status): (&core::PodSpec, &core::PodStatus),
) -> Demand {
    let affinity = spec.affinity.as_ref();
    let near = affinity.and_then(|it| it.pod_affinity.as_ref());
    let far = affinity.and_then(|it| it.pod_anti_affinity.as_ref());
    let term = |term: &core::PodAffinityTerm| read_term(namespace, &labels, term);
    let required = |terms: Option<&Vec<core::PodAffinityTerm>>| {
        terms.into_iter().flatten().map(term).collect::<Vec<_>>()
    };
    let preferred = |terms: Option<&Vec<core::WeightedPodAffinityTerm>>, sign: i64| {
        let terms = terms.into_iter().flatten();
        let weighted = terms.map(|it| (sign * i64::from(it.weight), term(&it.pod_affinity_term)));
        weighted.collect::<Vec<_>>()
    };
    let mut wishes = preferred(
        near.and_then(|it| {
            it.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        }),
        1,
    );
    wishes.extend(preferred(
        far.and_then(|it| {
            it.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        }),
        -1,
    ));
    let spread = spec.topology_spread_constraints.iter().flatten();
    Demand {
        near: required(near.and_then(|it| {
            it.required_during_scheduling_ignored_during_execution
                .as_ref()
        })),
        far: required(far.and_then(|it| {
            it.required_during_scheduling_ignored_during_execution
                .as_ref()
        })),
        wishes,
        spread: spread.map(|it| read_spread(&labels, it)).collect(),
        claims: read_claims(name, spec),
        asks_devices: spec
            .resource_claims
            .as_ref()
            .is_some_and(|claims| !claims.is_empty()),
        local: read_local(spec, status),
        never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
        scheduler: spec.scheduler_name.clone().unwrap_or_default(),
        namespace: namespace.to_owned(),
        owner,
        labels,
    }
}

fn read_local(spec: &core::PodSpec, status: &core::PodStatus) -> Local {
    let node = spec
        .affinity
        .as_ref()
        .and_then(|it| it.node_affinity.as_ref());
    let required = node.and_then(|it| {
        it.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let preferred = node.and_then(|it| {
        it.preferred_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let labels = spec.node_selector.iter().flatten();
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mut images: Vec<String> = containers
        .clone()
        .filter_map(|it| it.image.as_deref().map(image_name))
        .collect();
    images.sort();
    images.dedup();
    let term = |it: &core::PreferredSchedulingTerm| {
        (i64::from(it.weight), NodeTerm::from_object(&it.preference))
    };
    Local {
        priority: spec.priority.unwrap_or(0),
        requests: super::resources::of_pod(spec, status),
        ports: host_ports(spec),
        nodes: NodeFilter {
            labels: labels.map(|(k, v)| (k.clone(), v.clone())).collect(),
            terms: required.map(|it| {
                it.node_selector_terms
                    .iter()
                    .map(NodeTerm::from_object)
                    .collect()
            }),
        },
        wishes: preferred.into_iter().flatten().map(term).collect(),
        tolerations: spec
            .tolerations
            .iter()
            .flatten()
            .map(Toleration::from)
            .collect(),
        containers: i64::try_from(containers.count()).unwrap_or(i64::MAX),
        images,
    }
}

/// With the tag that an image without one has.
pub fn image_name(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

fn read_term(
    namespace: &str,
    labels: &BTreeMap<String, String>,
    term: &core::PodAffinityTerm,
) -> Term {
    let named = term.namespaces.clone().unwrap_or_default();
    let by_labels = term.namespace_selector.as_ref();
    let names = if named.is_empty() && by_labels.is_none() {
        vec![namespace.to_owned()]
    } else {
        named
    };
    let same = term.match_label_keys.as_deref().unwrap_or_default();
    let other = term.mismatch_label_keys.as_deref().unwrap_or_default();
    let keys = [(same, Operator::In), (other, Operator::NotIn)];
    Term {
        scope: Scope {
            names,
            selector: by_labels.map(|it| selector(Some(it), labels, &[])),
        },
        selector: selector(term.label_selector.as_ref(), labels, &keys),
        topology_key: term.topology_key.clone(),
    }
}

pub fn read_spread(
    labels: &BTreeMap<String, String>,
    it: &core::TopologySpreadConstraint,
) -> Spread {
    let keys = it.match_label_keys.as_deref().unwrap_or_default();
    Spread {
        max_skew: i64::from(it.max_skew),
        topology_key: it.topology_key.clone(),
        hard: it.when_unsatisfiable != "ScheduleAnyway",
        min_domains: i64::from(it.min_domains.unwrap_or(1)),
        selector: selector(it.label_selector.as_ref(), labels, &[(keys, Operator::In)]),
        honors_affinity: it.node_affinity_policy.as_deref() != Some("Ignore"),
        honors_taints: it.node_taints_policy.as_deref() == Some("Honor"),
    }
}

/// The selector, narrowed by the pod's own labels under `keys`. One that cannot be read selects nothing.
fn selector(
    given: Option<&meta::LabelSelector>,
    labels: &BTreeMap<String, String>,
    keys: &[(&[String], Operator)],
) -> LabelSelector {
    let mut whole = given.cloned();
    if let Some(whole) = &mut whole {
        for (keys, operator) in keys {
            for key in keys.iter() {
                let Some(value) = labels.get(key) else {
                    continue;
                };
                let operator = if *operator == Operator::In {
                    "In"
                } else {
                    "NotIn"
                };
                whole.match_expressions.get_or_insert_default().push(
                    meta::LabelSelectorRequirement {
                        key: key.clone(),
                        operator: operator.to_owned(),
                        values: Some(vec![value.clone()]),
                    },
                );
            }
        }
    }
    LabelSelector::from_object(whole.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
}

fn read_claims(pod: &str, spec: &core::PodSpec) -> Vec<ClaimRef> {
    let volumes = spec.volumes.iter().flatten();
    let claims = volumes.filter_map(|volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(ClaimRef {
                name: claim.claim_name.clone(),
                ephemeral: false,
            });
        }
        volume.ephemeral.as_ref().map(|_| ClaimRef {
            name: format!("{pod}-{}", volume.name),
            ephemeral: true,
        })
    });
    claims.collect()
}

fn host_ports(spec: &core::PodSpec) -> Vec<HostPort> {
    let host_network = spec.host_network == Some(true);
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let wanted = ports.filter_map(|port| {
        let number = match port.host_port {
            Some(number) if number > 0 => number,
            _ if host_network => port.container_port,
            _ => return None,
        };
        let address = port.host_ip.clone().filter(|ip| !ip.is_empty());
        Some(HostPort {
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: number,
            address: address.unwrap_or_else(|| ANY.to_owned()),
        })
    });
    wanted.collect()
}
