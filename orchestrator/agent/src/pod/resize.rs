//! In-place resize (KEP-1287): which amounts a pod has been given, and whether its node can give it others.
//!
//! A pod runs with what it was given. What its spec says by now is given as soon as it fits beside what the
//! other pods of the node have; until then the pod's status says why not. A restarted agent knows what was
//! given from the status.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use api::amounts::{self, Amounts};
use api::pod_resources;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container as Template, Pod, ResourceRequirements};

use super::shape;
use crate::runtime::Resources;
use crate::runtime::container_spec;

/// The amounts of a pod's containers, by their names.
pub type Given = BTreeMap<String, ResourceRequirements>;

/// Why a pod does not get what its spec says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred`, or `Infeasible` if this node can never give it.
    pub reason: &'static str,
    pub message: String,
}

/// What the pods of a node ask for, by their uids.
#[derive(Debug, Default)]
pub struct Allocations(Mutex<BTreeMap<String, Amounts>>);

impl Allocations {
    /// Notes what a pod asks for; nothing, once it asks for nothing any more.
    pub fn note(&self, uid: &str, amounts: Amounts) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match amounts.is_empty() {
            true => drop(all.remove(uid)),
            false => drop(all.insert(uid.to_owned(), amounts)),
        }
    }

    /// What all other pods ask for.
    pub fn of_others(&self, uid: &str) -> Amounts {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = Amounts::new();
        let others = all.iter().filter(|(other, _)| *other != uid);
        others.for_each(|(_, amounts)| amounts::add(&mut sum, amounts));
        sum
    }
}

/// What the spec says.
pub fn wanted(pod: &Pod) -> Given {
    let own = |template: &Template| {
        let resources = template.resources.clone().unwrap_or_default();
        (template.name.clone(), resources)
    };
    resizable(pod).map(own).collect()
}

/// What the pod was given, as its status has it; what the spec says, where the status says nothing.
pub fn known(pod: &Pod) -> Given {
    let mut given = wanted(pod);
    let status = pod.status.as_ref();
    let mains = status.and_then(|it| it.container_statuses.as_ref());
    let inits = status.and_then(|it| it.init_container_statuses.as_ref());
    for status in mains.into_iter().chain(inits).flatten() {
        if let (Some(own), Some(resources)) = (given.get_mut(&status.name), &status.resources) {
            let claims = own.claims.take();
            *own = ResourceRequirements {
                claims,
                ..resources.clone()
            };
        }
    }
    given
}

/// The pod with these amounts.
pub fn with(pod: &Pod, given: &Given) -> Pod {
    let mut pod = pod.clone();
    let Some(spec) = &mut pod.spec else {
        return pod;
    };
    let inits = spec.init_containers.iter_mut().flatten();
    for template in spec.containers.iter_mut().chain(inits) {
        if let Some(resources) = given.get(&template.name) {
            template.resources = Some(resources.clone());
        }
    }
    pod
}

/// What a pod with these amounts asks for, its overhead included.
pub fn requests(pod: &Pod) -> Amounts {
    let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
    let mut amounts = pod_resources::requests(&spec);
    amounts::add(&mut amounts, &pod_resources::overhead(&spec));
    amounts
}

/// Whether a node that gives so much to pods, of which the others ask for so much, can give the pod what it
/// asks for.
pub fn judge(requests: &Amounts, others: &Amounts, allocatable: &Amounts) -> Result<(), Pending> {
    let kept = |(name, _): &(&String, &Quantity)| matches!(name.as_str(), "cpu" | "memory");
    let capacity: Vec<_> = allocatable.iter().filter(kept).collect();
    for (name, most) in &capacity {
        let asked = requests.get(*name).copied().unwrap_or(Quantity::ZERO);
        if asked > **most {
            let (asked, most) = (numbers(name, asked), numbers(name, **most));
            return Err(Pending {
                reason: "Infeasible",
                message: format!(
                    "Node didn't have enough capacity: {name}, requested: {asked}, capacity: {most}"
                ),
            });
        }
    }
    for (name, most) in &capacity {
        let asked = requests.get(*name).copied().unwrap_or(Quantity::ZERO);
        let used = others.get(*name).copied().unwrap_or(Quantity::ZERO);
        if asked + used > **most {
            let [asked, used, most] = [asked, used, **most].map(|it| numbers(name, it));
            return Err(Pending {
                reason: "Deferred",
                message: format!(
                    "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, \
                     capacity: {most}"
                ),
            });
        }
    }
    Ok(())
}

/// What a running container is to change to; none if it has what its template says.
pub fn change(pod: &Pod, template: &Template, actual: Option<Resources>) -> Option<Resources> {
    let wanted = container_spec::limits(pod, template);
    let actual = Resources {
        oom_score_adj: wanted.oom_score_adj,
        ..actual?
    };
    (actual != wanted).then_some(wanted)
}

/// Whether a container has to start anew for such a change.
pub fn needs_restart(template: &Template, actual: Option<Resources>, wanted: Resources) -> bool {
    let Some(actual) = actual else { return false };
    let cpu = |it: Resources| (it.cpu_shares, it.cpu_quota_us, it.cpu_period_us);
    let changed = [
        ("cpu", cpu(actual) != cpu(wanted)),
        ("memory", actual.memory_bytes != wanted.memory_bytes),
    ];
    let policies = template.resize_policy.iter().flatten();
    let mut strict = policies.filter(|it| it.restart_policy == "RestartContainer");
    strict.any(|policy| changed.contains(&(policy.resource_name.as_str(), true)))
}

/// Why a container's memory is not limited to less than it uses: the kernel would kill it.
pub fn too_little(name: &str, wanted: Resources, used_bytes: u64) -> Option<String> {
    let limit = u64::try_from(wanted.memory_bytes).unwrap_or(0);
    (0 < limit && limit < used_bytes).then(|| {
        format!(
            "attempting to set container {name:?} memory limit ({limit}) below current usage \
             ({used_bytes})"
        )
    })
}

/// Under what a failed change of a container's limits is remembered: no container has such a name.
pub fn key(container: &str) -> String {
    format!("{container}/resize")
}

fn resizable(pod: &Pod) -> impl Iterator<Item = &Template> {
    let inits = shape::init_templates(pod).iter();
    let sidecars = inits.filter(|it| shape::is_sidecar(it));
    shape::main_templates(pod).iter().chain(sidecars)
}

/// Millis of CPU, bytes of memory: as a kubelet writes them.
fn numbers(name: &str, amount: Quantity) -> i64 {
    if name == "cpu" {
        amount.millis()
    } else {
        amount.units()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(cpu: &str, status: serde_json::Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "image": "i",
                "resources": {"requests": {"cpu": cpu}}}]},
            "status": status,
        });
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_pod_has_what_its_status_says_until_it_is_given_more() {
        let status = json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "",
            "ready": true, "restartCount": 0, "resources": {"requests": {"cpu": "1"}}}]});
        let pod = pod("2", status);
        let cpu = |given: &Given| given["c"].requests.clone().expect("some")["cpu"].0.clone();
        assert_eq!(
            (cpu(&wanted(&pod)), cpu(&known(&pod))),
            ("2".to_owned(), "1".to_owned())
        );
        assert_eq!(requests(&with(&pod, &known(&pod)))["cpu"].to_string(), "1");
        let new = self::pod("2", json!({}));
        assert_eq!(known(&new), wanted(&new));
    }

    #[test]
    fn what_does_not_fit_now_is_deferred_and_what_never_fits_is_infeasible() {
        let allocatable = json!({"cpu": "4", "memory": "1Gi", "ephemeral-storage": "0"});
        let capacity = amounts::read(&allocatable);
        let all = Allocations::default();
        all.note("other", requests(&pod("3", json!({}))));
        all.note("own", requests(&pod("1", json!({}))));
        let judged = |cpu: &str| {
            let asked = requests(&pod(cpu, json!({})));
            judge(&asked, &all.of_others("own"), &capacity)
        };
        assert_eq!(judged("1"), Ok(()));
        let deferred = judged("2").expect_err("it does not fit");
        let text =
            "Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000";
        assert_eq!((deferred.reason, &*deferred.message), ("Deferred", text));
        let infeasible = judged("20").expect_err("it does not fit");
        let text = "Node didn't have enough capacity: cpu, requested: 20000, capacity: 4000";
        assert_eq!(
            (infeasible.reason, &*infeasible.message),
            ("Infeasible", text)
        );
        all.note("other", Amounts::new());
        assert_eq!(judged_without_others(&all, &capacity), Ok(()));
    }

    fn judged_without_others(all: &Allocations, capacity: &Amounts) -> Result<(), Pending> {
        judge(
            &requests(&pod("2", json!({}))),
            &all.of_others("own"),
            capacity,
        )
    }

    #[test]
    fn memory_is_not_limited_to_less_than_is_used() {
        let wanted = |memory_bytes: i64| Resources {
            memory_bytes,
            ..Default::default()
        };
        let why = "attempting to set container \"c\" memory limit (10) below current usage (11)";
        assert_eq!(too_little("c", wanted(10), 11).as_deref(), Some(why));
        assert_eq!(too_little("c", wanted(11), 11), None);
        assert_eq!(too_little("c", wanted(0), 11), None, "there is no limit");
    }

    #[test]
    fn a_container_starts_anew_only_for_the_resource_whose_policy_says_so() {
        let template = |cpu: &str, memory: &str| -> Template {
            serde_json::from_value(json!({"name": "c",
                "resources": {"limits": {"cpu": cpu, "memory": memory}},
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"},
                    {"resourceName": "memory", "restartPolicy": "RestartContainer"}]}))
            .expect("a container")
        };
        let whole = Pod::default();
        let now = Some(container_spec::limits(&whole, &template("1", "1Gi")));
        let restart = |template: &Template| {
            change(&whole, template, now).map(|wanted| needs_restart(template, now, wanted))
        };
        assert_eq!(restart(&template("1", "1Gi")), None);
        assert_eq!(
            restart(&template("1000m", "1024Mi")),
            None,
            "the same to the kernel"
        );
        assert_eq!(restart(&template("2", "1Gi")), Some(false));
        assert_eq!(restart(&template("1", "2Gi")), Some(true));
        assert_eq!(
            change(&whole, &template("2", "1Gi"), None),
            None,
            "the engine does not say"
        );
    }
}
