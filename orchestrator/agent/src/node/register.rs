//! The node's own object, which joining has made: its labels and its status are kept true.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSystemInfo};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::facts::{self, Capacity};
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
}

/// Whether the node can run pods, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// What is wrong; empty when the node is ready.
    pub problems: Vec<String>,
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
    let amounts = facts.capacity.quantities();
    let internal = facts.addrs.iter();
    let internal = internal.map(|ip| json!({ "type": "InternalIP", "address": ip }));
    let hostname = json!({ "type": "Hostname", "address": facts.name });
    let addresses: Vec<Value> = internal.chain([hostname]).collect();
    let status = json!({ "status": {
        "capacity": amounts,
        "allocatable": amounts,
        "addresses": addresses,
        "daemonEndpoints": { "kubeletEndpoint": { "Port": KUBELET_PORT } },
        "nodeInfo": facts.system,
        "conditions": conditions(health, known, now),
    }});
    api.patch_status(&facts.name, &PatchParams::default(), &Patch::Merge(status))
        .await
}

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
    let fine = |reason: &'static str, message: &str| ("False", reason, message.to_owned());
    let ours = [
        (
            "MemoryPressure",
            fine(
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
        ),
        (
            "DiskPressure",
            fine("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        (
            "PIDPressure",
            fine(
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
        ),
        ("Ready", ready),
    ];
    let mut conditions: Vec<NodeCondition> = ours
        .into_iter()
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
        };
        let conditions = conditions(&health, &[], at(5));
        assert_eq!(ready(&conditions).status, "False");
        let message = "the engine is down; no range";
        assert_eq!(ready(&conditions).message.as_deref(), Some(message));
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
