//! What a node has against what its pods ask for: never more than there is.

use super::{Plugin, Refusal};
use crate::demand::Local;
use crate::profile::{Fit, Strategy};
use crate::snapshot::{NodeView, nominal};

pub fn filter(pod: &Local, view: NodeView) -> Option<Refusal> {
    let mut texts = Vec::new();
    let count = i64::try_from(view.usage.pods.len()).unwrap_or(i64::MAX);
    if count >= view.node.max_pods {
        texts.push("Too many pods".to_owned());
    }
    let allocatable = &view.node.allocatable;
    let lacking = allocatable.lacking(&view.usage.requested, &pod.requests);
    // An empty node would not do either.
    let lasting = lacking
        .iter()
        .any(|name| pod.requests.amount(name) > allocatable.amount(name));
    texts.extend(
        lacking
            .into_iter()
            .map(|name| format!("Insufficient {name}")),
    );
    (!texts.is_empty()).then_some(Refusal {
        plugin: Plugin::NodeResourcesFit,
        texts,
        lasting,
    })
}

/// How well the node is used with this pod, 0 to 100, by the strategy of the profile.
pub fn score(pod: &Local, view: NodeView, fit: &Fit) -> i64 {
    let own = nominal(&pod.requests);
    let (mut sum, mut weights) = (0, 0);
    for (name, weight) in &fit.resources {
        let has = view.node.allocatable.amount(name);
        let (load, own) = (view.usage.load.amount(name), own.amount(name));
        if has <= 0 || (own == 0 && name != "cpu" && name != "memory") {
            continue;
        }
        let used = load.saturating_add(own);
        let percent = (used.saturating_mul(100) / has).clamp(0, 100);
        let over = used > has;
        let rating = match &fit.strategy {
            Strategy::LeastAllocated if over => 0,
            Strategy::LeastAllocated => 100 - percent,
            Strategy::MostAllocated if over => 0,
            Strategy::MostAllocated => percent,
            Strategy::RequestedToCapacityRatio(shape) => along(shape, percent),
        };
        sum += rating * weight;
        weights += weight;
    }
    if weights == 0 { 0 } else { sum / weights }
}

/// The more evenly the resources are used after this pod, the better: 100 less the standard deviation of
/// their shares in percent.
pub fn balanced(pod: &Local, view: NodeView, resources: &[String]) -> i64 {
    let own = nominal(&pod.requests);
    let shares = resources.iter().filter_map(|name| {
        let has = view.node.allocatable.amount(name);
        let used = view
            .usage
            .load
            .amount(name)
            .saturating_add(own.amount(name));
        (has > 0).then(|| (used as f64 / has as f64).min(1.0))
    });
    let shares: Vec<f64> = shares.collect();
    if shares.is_empty() {
        return 0;
    }
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let variance = shares
        .iter()
        .map(|share| (share - mean).powi(2))
        .sum::<f64>();
    let deviation = (variance / shares.len() as f64).sqrt();
    ((1.0 - deviation) * 100.0) as i64
}

/// The value at `x` of the line through `points` (x, y), level before the first and after the last.
fn along(points: &[(i64, i64)], x: i64) -> i64 {
    let mut last: Option<(i64, i64)> = None;
    for &(px, py) in points {
        if x <= px {
            return match last {
                Some((lx, ly)) if px > lx => ly + (py - ly) * (x - lx) / (px - lx),
                _ => py,
            };
        }
        last = Some((px, py));
    }
    last.map_or(0, |(_, y)| y)
}
