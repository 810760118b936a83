//! The node's own object, which joining has made: its labels and its status are kept true.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSystemInfo};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::facts::{self, Capacity, Reserved};
use super::pressure::Pressure;
use crate::pod::status::seconds;
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

/// Whether the node can run pods, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// What is wrong; empty when the node is ready.
    pub problems: Vec<String>,
    /// What the node is short of.
    pub pressures: BTreeSet<Pressure>,
}

impl NodeFacts {
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

/// Writes the node's whole status; `known` are the conditions as the server has them.
pub async fn write_status(
    client: &Client,
    facts: &NodeFacts,
    health: &Health,
    known: &[NodeCondition],
    now: Timestamp,
) -> Result<Node, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let mut amounts = facts.capacity.quantities(facts.reserved.max_pods);
    amounts.extend(facts::huge_pages(Path::new(facts::HUGE_PAGES)));
    let allocatable = facts.reserved.left(&amounts);
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
