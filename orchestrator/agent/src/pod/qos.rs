//! A pod's quality-of-service class and what it does to the kernel's choice of victims. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container as Template, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity;

const GUARANTEED: &str = "Guaranteed";
const BURSTABLE: &str = "Burstable";
const BEST_EFFORT: &str = "BestEffort";

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else {
        return BEST_EFFORT;
    };
    let all = || {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    };
    let amount = |map: Option<&BTreeMap<String, Quantity>>, resource: &str| {
        map.and_then(|map| map.get(resource))
            .and_then(quantity::milli)
            .filter(|it| *it > 0)
    };
    let of = |template: &Template, resource: &str| {
        let resources = template.resources.as_ref();
        let limit = amount(resources.and_then(|it| it.limits.as_ref()), resource);
        let request = amount(resources.and_then(|it| it.requests.as_ref()), resource);
        (request.or(limit), limit)
    };
    let pairs = || all().flat_map(|template| ["cpu", "memory"].map(|name| of(template, name)));
    if pairs().all(|(request, limit)| request.is_none() && limit.is_none()) {
        return BEST_EFFORT;
    }
    let guaranteed = pairs().all(|(request, limit)| limit.is_some() && request == limit);
    if guaranteed { GUARANTEED } else { BURSTABLE }
}

/// The kernel's `oom_score_adj` of one container: the less it asked for, the sooner it goes.
pub fn oom_score_adj(pod: &Pod, template: &Template, node_memory_bytes: i64) -> i64 {
    match class(pod) {
        GUARANTEED => -997,
        BEST_EFFORT => 1000,
        _ => {
            let requests = template
                .resources
                .as_ref()
                .and_then(|it| it.requests.as_ref());
            let request = requests
                .and_then(|map| map.get("memory"))
                .and_then(quantity::milli);
            let bytes = request.unwrap_or(0) / 1000;
            (1000 - 1000 * bytes / i128::from(node_memory_bytes.max(1))).clamp(3, 999) as i64
        }
    }
}
