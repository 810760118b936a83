//! A pod's quality-of-service class and what it does to the kernel's choice of victims. Pure.

use k8s_openapi::api::core::v1::{Container as Template, Pod};

use super::{quantity, shape};

const GUARANTEED: &str = "Guaranteed";
const BEST_EFFORT: &str = "BestEffort";

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Pod) -> &'static str {
    let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
    api::pod_resources::qos_class(&spec)
}

/// The kernel's `oom_score_adj` of one container: the less it asked for, the sooner it goes.
pub fn oom_score_adj(pod: &Pod, template: &Template, node_memory_bytes: i64) -> i64 {
    match class(pod) {
        GUARANTEED => -997,
        BEST_EFFORT => 1000,
        _ => {
            let bytes = memory_request(template) + unclaimed_memory(pod);
            (1000 - 1000 * bytes / i128::from(node_memory_bytes.max(1))).clamp(3, 999) as i64
        }
    }
}

fn memory_request(template: &Template) -> i128 {
    let requests = { template.resources.as_ref() }.and_then(|it| it.requests.as_ref());
    let request = requests.and_then(|map| map.get("memory"));
    request.and_then(quantity::milli).unwrap_or(0) / 1000
}

/// What each container has besides its own request of what its pod asks for as a whole (KEP-2837).
fn unclaimed_memory(pod: &Pod) -> i128 {
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let whole = whole.and_then(|whole| whole.requests.as_ref()?.get("memory"));
    let Some(whole) = whole.and_then(quantity::milli) else {
        return 0;
    };
    let mains = shape::main_templates(pod);
    let claimed: i128 = mains.iter().map(memory_request).sum();
    (whole / 1000 - claimed).max(0) / (mains.len().max(1) as i128)
}
