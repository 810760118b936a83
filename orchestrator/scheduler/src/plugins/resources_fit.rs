//! What a node has against what its pods ask for: never more than there is.

use crate::pod::PodRow;
use crate::resources::Resources;
use crate::snapshot::{NodeView, nominal};

pub fn filter(pod: &PodRow, view: NodeView) -> Vec<String> {
    let mut reasons = Vec::new();
    let count = i64::try_from(view.usage.pods.len()).unwrap_or(i64::MAX);
    if count >= view.node.max_pods {
        reasons.push("Too many pods".to_owned());
    }
    let lacking = view
        .node
        .allocatable
        .lacking(&view.usage.requested, &pod.requests);
    reasons.extend(
        lacking
            .into_iter()
            .map(|name| format!("Insufficient {name}")),
    );
    reasons
}

/// The emptier after this pod, the better.
pub fn least_allocated(pod: &PodRow, views: &[NodeView]) -> Vec<i64> {
    let rate = |view: &NodeView| {
        let (cpu, memory) = used_percent(view, &pod.requests);
        ((100 - cpu) + (100 - memory)) / 2
    };
    views.iter().map(rate).collect()
}

/// The more evenly CPU and memory are used after this pod, the better.
pub fn balanced(pod: &PodRow, views: &[NodeView]) -> Vec<i64> {
    let rate = |view: &NodeView| {
        let (cpu, memory) = used_percent(view, &pod.requests);
        100 - (cpu - memory).abs() / 2
    };
    views.iter().map(rate).collect()
}

/// Percent of CPU and of memory that are spoken for with this pod.
fn used_percent(view: &NodeView, requests: &Resources) -> (i64, i64) {
    let own = nominal(requests);
    let percent = |used: i64, has: i64| {
        if has <= 0 {
            100
        } else {
            (used.saturating_mul(100) / has).clamp(0, 100)
        }
    };
    let (load, has) = (&view.usage.load, &view.node.allocatable);
    (
        percent(load.cpu + own.cpu, has.cpu),
        percent(load.memory + own.memory, has.memory),
    )
}
