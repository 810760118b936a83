//! The node's own object, which joining has made: its labels and its status are kept true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::facts::{self, Capacity, Reserved};
use super::pressure::Pressure;
use crate::pod::status::seconds;
use api::amounts::{self, Amounts};
use datapath::Addrs;

/// The port of the agent's own server.
pub const KUBELET_PORT: u16 = 10250;

/// Everything that a node's object says and that the agent knows.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    pub name: String,
    pub addrs: Addrs,
    pub capacity: Capacity,
    pub system: NodeSystemInfo,
    pub reserved: Reserved,
    /// The attached volumes that it uses.
    pub volumes_in_use: BTreeSet<String>,
}

/// Extended resources whose allocatable amount is not that of the capacity, and what it is to be; none: it is to
/// go. Others put them in a node's capacity, and its agent copies them, as kubelets do.
pub type Uncopied = BTreeMap<String, Option<Quantity>>;

/// What the API lists of this node that the agent has to put right.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub addrs: Addrs,
    pub uncopied: Uncopied,
}

/// Whether the node can run pods, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// What is wrong; empty when the node is ready.
    pub problems: Vec<String>,
    /// What the node is short of.
    pub pressures: BTreeSet<Pressure>,
}

impl Listed {
    /// `addrs` are the addresses that the object says.
    pub fn of(node: &Node, addrs: Addrs) -> Self {
        let status = node.status.as_ref();
        let capacity = status.and_then(|status| status.capacity.as_ref());
        let allocatable = status.and_then(|status| status.allocatable.as_ref());
        Self {
            addrs,
            uncopied: uncopied(capacity, allocatable),
        }
    }

    /// Whether there is anything to put right, of a node that has these addresses.
    pub fn is_wrong(&self, addrs: Addrs) -> bool {
        self.addrs != addrs || !self.uncopied.is_empty()
    }
}

fn uncopied(
    capacity: Option<&BTreeMap<String, Quantity>>,
    allocatable: Option<&BTreeMap<String, Quantity>>,
) -> Uncopied {
    let extended = |all: Option<&BTreeMap<String, Quantity>>| {
        let all = all.into_iter().flatten();
        let extended = all.filter(|(name, _)| is_extended(name));
        let owned = extended.map(|(name, amount)| (name.clone(), amount.clone()));
        owned.collect::<BTreeMap<_, _>>()
    };
    let (capacity, allocatable) = (extended(capacity), extended(allocatable));
    let gone = allocatable
        .keys()
        .filter(|name| !capacity.contains_key(*name));
    let gone = gone.map(|name| (name.clone(), None));
    let other = capacity
        .iter()
        .filter(|(name, amount)| allocatable.get(*name) != Some(amount));
    let other = other.map(|(name, amount)| (name.clone(), Some(amount.clone())));
    gone.chain(other).collect()
}

/// A resource of a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

impl NodeFacts {
    /// What of its capacity is for pods.
    pub fn allocatable(&self) -> Amounts {
        let capacity = self.capacity.quantities(self.reserved.max_pods);
        let left = self.reserved.left(&capacity);
        amounts::read(&serde_json::to_value(left).unwrap_or_default())
    }

    fn labels(&self) -> Value {
        let architecture = facts::architecture();
        json!({
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture,
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": architecture,
        })
    }
}

/// Brings the labels of the node's object up to date.
pub async fn register(client: &Client, facts: &NodeFacts) -> Result<Node, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "labels": facts.labels() } }));
    api.patch(&facts.name, &PatchParams::default(), &patch)
        .await
}

/// Writes the node's whole status; `known` are the conditions as the server has them, `uncopied` what others have
/// put in the capacity.
pub async fn write_status(
    client: &Client,
    facts: &NodeFacts,
    health: &Health,
    (known, uncopied): (&[NodeCondition], &Uncopied),
    now: Timestamp,
) -> Result<Node, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let mut amounts = facts.capacity.quantities(facts.reserved.max_pods);
    amounts.extend(facts::huge_pages(Path::new(facts::HUGE_PAGES)));
    let left = facts.reserved.left(&amounts).into_iter();
    let left = left.map(|(name, amount)| (name, Some(amount)));
    let allocatable: Uncopied = uncopied.clone().into_iter().chain(left).collect();
    let internal = facts.addrs.iter();
    let internal = internal.map(|ip| json!({ "type": "InternalIP", "address": ip }));
    let hostname = json!({ "type": "Hostname", "address": facts.name });
    let addresses: Vec<Value> = internal.chain([hostname]).collect();
    let status = json!({ "status": {
        "capacity": amounts,
        "allocatable": allocatable,
        "addresses": addresses,
        "daemonEndpoints": { "kubeletEndpoint": { "Port": KUBELET_PORT } },
        "nodeInfo": facts.system,
        "features": { "supplementalGroupsPolicy": true },
        "volumesInUse": facts.volumes_in_use,
        "conditions": conditions(health, known, now),
    }});
    api.patch_status(&facts.name, &PatchParams::default(), &Patch::Merge(status))
        .await
}

/// Reason and message of each condition, as kubelets say them: without pressure, and under it.
type Said = (&'static str, &'static str);
const PRESSURES: [(Pressure, Said, Said); 3] = [
    (
        Pressure::Memory,
        (
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "KubeletHasInsufficientMemory",
            "kubelet has insufficient memory available",
        ),
    ),
    (
        Pressure::Disk,
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    (
        Pressure::Pid,
        (
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        (
            "KubeletHasInsufficientPID",
            "kubelet has insufficient PID available",
        ),
    ),
];

/// Kubernetes' node conditions; those that others wrote stay as they are.
fn conditions(health: &Health, known: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let ready = match health.problems.as_slice() {
        [] => (
            "True",
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ),
        problems => ("False", "KubeletNotReady", problems.join("; ")),
    };
    let pressed = PRESSURES.map(|(pressure, fine, pressed)| {
        let (status, (reason, message)) = match health.pressures.contains(&pressure) {
            true => ("True", pressed),
            false => ("False", fine),
        };
        (pressure.condition(), (status, reason, message.to_owned()))
    });
    let ours = pressed.into_iter().chain([("Ready", ready)]);
    let mut conditions: Vec<NodeCondition> = ours
        .map(|(kind, (status, reason, message))| {
            let before = known
                .iter()
                .find(|it| it.type_ == kind && it.status == status);
            let since = before.and_then(|before| before.last_transition_time.clone());
            NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_heartbeat_time: Some(seconds(now)),
                last_transition_time: Some(since.unwrap_or_else(|| seconds(now))),
            }
        })
        .collect();
    for other in known {
        if conditions.iter().all(|ours| ours.type_ != other.type_) {
            conditions.push(other.clone());
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn ready(conditions: &[NodeCondition]) -> &NodeCondition {
        conditions
            .iter()
            .find(|it| it.type_ == "Ready")
            .expect("a Ready condition")
    }

    #[test]
    fn a_node_with_a_problem_is_not_ready_and_says_why() {
        let health = Health {
            problems: vec!["the engine is down".into(), "no range".into()],
            ..Health::default()
        };
        let conditions = conditions(&health, &[], at(5));
        assert_eq!(ready(&conditions).status, "False");
        let message = "the engine is down; no range";
        assert_eq!(ready(&conditions).message.as_deref(), Some(message));
    }

    #[test]
    fn a_node_under_pressure_says_so_as_kubelets_do() {
        let health = Health {
            pressures: BTreeSet::from([Pressure::Disk]),
            ..Health::default()
        };
        let conditions = conditions(&health, &[], at(5));
        let said = |kind: &str| {
            let found = conditions.iter().find(|it| it.type_ == kind);
            let found = found.expect("a condition");
            (
                found.status.clone(),
                found.reason.clone().unwrap_or_default(),
            )
        };
        assert_eq!(
            said("DiskPressure"),
            ("True".into(), "KubeletHasDiskPressure".into())
        );
        assert_eq!(
            said("PIDPressure"),
            ("False".into(), "KubeletHasSufficientPID".into())
        );
        assert_eq!(said("Ready").0, "True");
    }

    #[test]
    fn a_transition_keeps_its_time_while_the_condition_does_not_change() {
        let first = conditions(&Health::default(), &[], at(5));
        let second = conditions(&Health::default(), &first, at(9));
        assert_eq!(ready(&second).last_transition_time, Some(seconds(at(5))));
        assert_eq!(ready(&second).last_heartbeat_time, Some(seconds(at(9))));
    }

    #[test]
    fn extended_resources_of_the_capacity_are_to_be_allocatable_and_go_with_it() {
        let node = json!({"metadata": {"name": "n"}, "status": {
            "capacity": {"cpu": "2", "example.com/dongle": "3", "example.com/same": "1"},
            "allocatable": {"cpu": "1", "example.com/old": "5", "example.com/same": "1"},
        }});
        let node: Node = serde_json::from_value(node).expect("a node");
        let listed = Listed::of(&node, Addrs::default());
        let expected = [
            ("example.com/dongle".to_owned(), Some(Quantity("3".into()))),
            ("example.com/old".to_owned(), None),
        ];
        assert_eq!(listed.uncopied, expected.into());
        assert!(!is_extended("attachable.kubernetes.io/x") && !is_extended("hugepages-2Mi"));
    }

    #[test]
    fn conditions_of_others_stay() {
        let other = NodeCondition {
            type_: "NetworkUnavailable".into(),
            status: "False".into(),
            ..Default::default()
        };
        let conditions = conditions(&Health::default(), std::slice::from_ref(&other), at(5));
        assert!(conditions.contains(&other));
    }
}
