//! How many pods there should be: what those that control them want. Of most kinds the world has it; of others, such
//! as custom ones, it is asked for as their scale. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::action::{Ask, Reply};
use crate::object::{Body, Object, PodRow};
use crate::world::{Diff, World};

/// What was answered is believed for so long, unless the object changes.
const FRESH: SignedDuration = SignedDuration::from_mins(5);
/// A failure is asked about again after this.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// How many pods a budget's pods should be.
#[derive(Debug, PartialEq, Eq)]
pub enum Count {
    Known {
        pods: u64,
        /// Some pods have nobody that controls them, and were left out.
        unmanaged: bool,
    },
    /// These paths are to be read first.
    Unknown(Vec<String>),
    /// It cannot be known, and why.
    Failed(String),
}

/// Answers by path, which holds the uid behind `#`.
#[derive(Default)]
pub struct Scales(BTreeMap<String, (String, Result<u64, String>, Timestamp)>);

impl Scales {
    pub fn remove(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    pub fn take_in(&mut self, ask: &Ask, reply: &Reply, now: Timestamp) {
        let Some((path, uid)) = ask.path.split_once('#') else {
            return;
        };
        let replicas = reply.as_ref().map_err(Clone::clone).and_then(|scale| {
            let replicas = scale["spec"]["replicas"].as_u64();
            Ok(replicas.unwrap_or(0))
        });
        self.0
            .retain(|_, (_, _, at)| at.duration_until(now) < FRESH);
        self.0
            .insert(uid.to_owned(), (path.to_owned(), replicas, now));
    }

    fn of(&self, uid: &str, now: Timestamp) -> Option<&Result<u64, String>> {
        let (_, replicas, at) = self.0.get(uid)?;
        let longest = if replicas.is_ok() { FRESH } else { RETRY };
        (at.duration_until(now) < longest).then_some(replicas)
    }
}

/// Whether the budget is about parts of what there should be.
pub fn needs_it(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    let least = spec.and_then(|spec| spec.min_available.as_ref());
    let most = spec.and_then(|spec| spec.max_unavailable.as_ref());
    most.is_some() || matches!(least, Some(IntOrString::String(_)))
}

/// Whether an object may want another number of pods now.
pub fn has_changed(diff: &Diff) -> bool {
    let replicas = |object: &Object| match &object.body {
        Body::Set(row) => i64::from(row.replicas),
        Body::StatefulSet(row) => row.replicas,
        Body::Deployment(deployment) => {
            let spec = deployment.spec.as_ref();
            i64::from(spec.and_then(|spec| spec.replicas).unwrap_or(1))
        }
        _ => object.meta.generation,
    };
    match (&diff.old, &diff.new) {
        (Some(old), Some(new)) => replicas(old) != replicas(new),
        _ => true,
    }
}

/// Adds up what those want that control the pods, each once.
pub fn expected(
    world: &World,
    pods: &[(&Object, &PodRow)],
    scales: &Scales,
    now: Timestamp,
) -> Count {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut paths = Vec::new();
    let mut unmanaged = false;
    for (pod, _) in pods {
        let Some(owner) = pod.controller() else {
            unmanaged = true;
            continue;
        };
        let Some(object) = world.by_uid(&owner.uid) else {
            let name = &pod.key.name;
            return Count::Failed(format!("found no controllers for pod {name:?}"));
        };
        let top = match (&object.body, object.controller()) {
            (Body::Set(_), Some(above)) => world.by_uid(&above.uid).unwrap_or(object),
            _ => object,
        };
        if counts.contains_key(top.meta.uid.as_str()) {
            continue;
        }
        let uid = top.meta.uid.as_str();
        let known = match &top.body {
            Body::Set(row) => Some(Ok(u64::try_from(row.replicas).unwrap_or(0))),
            Body::Deployment(deployment) => {
                let spec = deployment.spec.as_ref();
                let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
                Some(Ok(u64::try_from(replicas).unwrap_or(0)))
            }
            Body::StatefulSet(row) => Some(Ok(u64::try_from(row.replicas).unwrap_or(0))),
            _ => scales.of(uid, now).cloned(),
        };
        match known {
            Some(Ok(replicas)) => drop(counts.insert(uid, replicas)),
            Some(Err(why)) => return Count::Failed(why),
            None => {
                let (namespace, name) = (&top.key.namespace, &top.key.name);
                let path = top.kind.path(namespace, name, "scale");
                let path = format!("{path}#{uid}");
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
    }
    if !paths.is_empty() {
        return Count::Unknown(paths);
    }
    Count::Known {
        pods: counts.values().sum(),
        unmanaged,
    }
}
