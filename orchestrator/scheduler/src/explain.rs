//! Why a pod is where it is, or nowhere: the answers of all nodes to it. Pure.

use super::cycle::{Cycle, Decision};
use super::engine::{Change, Engine};
use super::plugins::Refusal;
use super::pod::{PodKey, PodRow};
use super::profile::Config;

/// What would come of the pod now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// The node that it would get, or why it gets none, as the event says it.
    pub outcome: Result<String, String>,
    /// Names of pods that would be stopped for it, with their namespaces.
    pub victims: Vec<PodKey>,
    /// What each node says, by name.
    pub nodes: Vec<(String, Option<Refusal>)>,
}

/// Asks for the pod as if it had no node yet. `changes` are all that there is.
pub fn explain(config: Config, changes: Vec<Change>, key: &PodKey) -> Option<Explained> {
    let mut engine = Engine::new(config);
    for change in changes {
        engine.apply(change, jiff::Timestamp::UNIX_EPOCH);
    }
    let (mut cycle, mut snapshot): (Cycle, _) = engine.into_parts();
    let known = snapshot.pod(key)?.clone();
    snapshot.remove_pod(key);
    snapshot.upsert_pod(PodRow {
        node: String::new(),
        ..known
    });
    let id = snapshot.pod_id(key)?;
    let nodes = cycle.verdicts(&mut snapshot, id);
    let (outcome, victims) = match cycle.decide(&mut snapshot, id) {
        Decision::Bind { node, .. } => (Ok(snapshot.node_name(node).to_owned()), Vec::new()),
        // Only decisions that hear extenders ask for them.
        Decision::Consult { .. } => (Err("extenders are not asked".to_owned()), Vec::new()),
        Decision::Unschedulable {
            message,
            preemption,
            ..
        } => {
            let victims = preemption.map(|it| it.victims).unwrap_or_default();
            let names = victims.iter().filter_map(|id| snapshot.row(*id));
            (Err(message), names.map(|row| row.key.clone()).collect())
        }
    };
    Some(Explained {
        outcome,
        victims,
        nodes,
    })
}
