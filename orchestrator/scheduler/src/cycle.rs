//! One decision: which node for this pod, or why none. Pure.

use std::collections::BTreeMap;

use super::plugins::{FILTERS, SCORES};
use super::pod::PodRow;
use super::snapshot::{NodeView, Snapshot};

/// The outcome for one pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    Bind {
        node: String,
    },
    /// No node will do; the text says why in Kubernetes' words.
    Unschedulable {
        message: String,
    },
}

/// Filters, scores, and takes the best; among equals one that depends on the pod, so that load
/// spreads.
pub fn decide(snapshot: &Snapshot, pod: &PodRow) -> Decision {
    if !pod.unplaceable.is_empty() {
        let (total, fields) = (snapshot.nodes().count(), pod.unplaceable.join(", "));
        let message =
            format!("0/{total} nodes are available: this scheduler does not support {fields}.");
        return Decision::Unschedulable { message };
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut feasible: Vec<NodeView> = Vec::new();
    let mut total = 0;
    for view in snapshot.nodes() {
        total += 1;
        let refusal = FILTERS.iter().find_map(|filter| {
            let reasons = filter(pod, view);
            (!reasons.is_empty()).then_some(reasons)
        });
        match refusal {
            None => feasible.push(view),
            Some(why) => why
                .into_iter()
                .for_each(|why| *reasons.entry(why).or_insert(0) += 1),
        }
    }
    match best(pod, &feasible) {
        Some(node) => Decision::Bind { node },
        None => Decision::Unschedulable {
            message: explain(total, reasons),
        },
    }
}

/// The highest weighted sum of scores, each brought to 0..=100 over the feasible nodes.
fn best(pod: &PodRow, feasible: &[NodeView]) -> Option<String> {
    if let [only] = feasible {
        return Some(only.node.name.clone());
    }
    let mut sums = vec![0_i64; feasible.len()];
    for (weight, score) in SCORES {
        let scores = score(pod, feasible);
        debug_assert!(
            scores.iter().all(|score| (0..=100).contains(score)),
            "{scores:?}"
        );
        for (sum, score) in sums.iter_mut().zip(scores) {
            *sum += weight * score;
        }
    }
    let ranked = feasible.iter().zip(sums);
    let best = ranked.max_by_key(|(view, sum)| (*sum, draw(&pod.uid, &view.node.name)));
    best.map(|(view, _)| view.node.name.clone())
}

/// A number that pod and node share, evenly spread: breaks ties without favouring a node.
fn draw(uid: &str, node: &str) -> u64 {
    let bytes = uid.bytes().chain([0]).chain(node.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn explain(total: usize, reasons: BTreeMap<String, usize>) -> String {
    if total == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut texts: Vec<String> = reasons
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    texts.sort();
    format!("0/{total} nodes are available: {}.", texts.join(", "))
}

#[cfg(test)]
mod tests;
