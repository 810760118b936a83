//! What a pod asks for as a whole (KEP-2837): `spec.resources`, and the huge pages of its containers, which the
//! Engine does not limit. Pure.
//!
//! Such a pod has a cgroup of its own. The Engine makes the cgroups of its containers inside it, and the agent
//! limits it before the first of them runs (`node::cgroup::pod`). All other pods have none.

use std::collections::BTreeMap;

use api::amounts::Amounts;
use api::pod_resources::{self, HUGE_PAGES};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container as Template, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::runtime::Resources;
use crate::runtime::container_spec;

/// The cgroup that holds those of such pods.
const ROOT: &str = "/orchestrator";

/// What a pod may use as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whole {
    pub resources: Resources,
    pub huge_pages: HugePages,
}

/// Bytes of huge pages by their size, in the kernel's words: `2MB`.
pub type HugePages = BTreeMap<String, u64>;

/// The limits of a pod's own cgroup; none for a pod that has no such cgroup.
pub fn of(pod: &Pod) -> Option<Whole> {
    let spec = pod.spec.as_ref()?;
    let own = spec.resources.clone().unwrap_or_default();
    let limits = own.limits.unwrap_or_default();
    let value = serde_json::to_value(spec).unwrap_or_default();
    let huge_pages = huge_pages(&pod_resources::limits(&value));
    let says_none = own.requests.is_none_or(|requests| requests.is_empty());
    if says_none && limits.is_empty() && huge_pages.is_empty() {
        return None;
    }
    // What it weighs among other pods is what it asks for in all.
    let requests = pod_resources::requests(&value).into_iter();
    let requests = requests.map(|(name, amount)| (name, Text(amount.to_string())));
    Some(Whole {
        resources: container_spec::amounts(&requests.collect(), &limits),
        huge_pages,
    })
}

/// The path of the pod's own cgroup, as the Engine is told it.
pub fn cgroup(pod: &Pod) -> Option<String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    of(pod).map(|_| cgroup_of(uid))
}

/// Where the cgroup of a pod is, if it has one.
pub fn cgroup_of(uid: &str) -> String {
    format!("{ROOT}/pod{uid}")
}

/// The huge pages that one container may use.
pub fn of_container(template: &Template) -> HugePages {
    let resources = serde_json::to_value(&template.resources).unwrap_or_default();
    huge_pages(&api::amounts::read(&resources["limits"]))
}

/// The sizes of huge pages of a machine, as its capacity names them, each with nothing of it.
pub fn none_of<'a>(capacity: impl Iterator<Item = &'a String>) -> HugePages {
    let sizes = capacity.filter_map(|name| kernel_size(name.strip_prefix(HUGE_PAGES)?));
    sizes.map(|size| (size, 0)).collect()
}

fn huge_pages(limits: &Amounts) -> HugePages {
    let pages = limits.iter().filter_map(|(name, amount)| {
        let size = name.strip_prefix(HUGE_PAGES)?;
        let bytes = u64::try_from(amount.units()).ok()?;
        Some((kernel_size(size)?, bytes))
    });
    pages.collect()
}

/// `2Mi` as the kernel writes it in names of files: `2MB` (`mm/hugetlb_cgroup.c`).
fn kernel_size(size: &str) -> Option<String> {
    let bytes = Quantity::parse(size).ok()?.units();
    Some(match bytes {
        ..=0 => return None,
        bytes if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        bytes if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        bytes => format!("{}KB", bytes >> 10),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(whole: Value, container: Value) -> Pod {
        let pod = json!({"metadata": {"name": "p", "uid": "u1"}, "spec": {"resources": whole,
            "containers": [{"name": "c", "resources": container}]}});
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn only_a_pod_that_asks_for_something_as_a_whole_has_a_cgroup_of_its_own() {
        let plain = pod(json!({}), json!({"limits": {"cpu": "1", "memory": "1Gi"}}));
        assert_eq!((of(&plain), cgroup(&plain)), (None, None));
        let whole = json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "2", "memory": "1Gi"}});
        let limited = pod(whole, json!({}));
        assert_eq!(cgroup(&limited).as_deref(), Some("/orchestrator/podu1"));
        let resources = of(&limited).expect("it has one").resources;
        let cpu = (resources.cpu_shares, resources.cpu_quota_us);
        assert_eq!((cpu, resources.memory_bytes), ((512, 200_000), 1 << 30));
    }

    #[test]
    fn huge_pages_of_containers_are_limited_in_the_kernels_words() {
        let limits = json!({"requests": {"cpu": "1"},
            "limits": {"cpu": "1", "hugepages-2Mi": "8Mi", "hugepages-1Gi": "2Gi"}});
        let pod = pod(json!({}), limits);
        let pages = HugePages::from([("1GB".into(), 2 << 30), ("2MB".into(), 8 << 20)]);
        let whole = of(&pod).expect("it has one");
        assert_eq!(whole.huge_pages, pages);
        assert_eq!(
            whole.resources.cpu_shares, 1024,
            "what its container asks for"
        );
        let names = ["hugepages-2Mi".to_owned(), "cpu".to_owned()];
        assert_eq!(none_of(names.iter()), HugePages::from([("2MB".into(), 0)]));
        let template = &pod.spec.as_ref().expect("a spec").containers[0];
        assert_eq!(of_container(template), pages);
    }

    #[test]
    fn a_container_without_a_limit_has_its_pods() {
        let whole = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let pod = pod(whole, json!({"limits": {"memory": "1Mi"}}));
        let template = &pod.spec.as_ref().expect("a spec").containers[0];
        let resources = container_spec::limits(&pod, template);
        let (quota, memory) = (resources.cpu_quota_us, resources.memory_bytes);
        assert_eq!((quota, memory), (100_000, 1 << 20));
    }
}
