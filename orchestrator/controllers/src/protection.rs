//! Claims that pods use and volumes that are bound to claims stay, whoever deletes them, until they are not
//! used any more: a finalizer keeps them (admission plugin StorageObjectInUseProtection). Pure.

use jiff::Timestamp;
use serde_json::json;

use super::action::{Action, Plan, drop_finalizer};
use super::controller::{Controller, Due, Watches};
use super::object::{Key, Object, PodRow};
use super::world::{Address, Diff, World};
use api::kinds::core::{persistent_volume, persistent_volume_claim};
use client::Kind;

/// Takes the finalizer off what is deleted and not used, and gives it to what was made without it. Its
/// work is about one claim or one volume.
pub struct ProtectionController;

impl Controller for ProtectionController {
    fn name(&self) -> &'static str {
        "storage object protection"
    }

    fn account(&self) -> &'static str {
        "pvc-protection-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[
            Kind::POD,
            Kind::PERSISTENT_VOLUME_CLAIM,
            Kind::PERSISTENT_VOLUME,
        ])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        if object.kind != Kind::POD {
            due.insert((object.kind, object.key.clone()));
            return;
        }
        for pod in diff.versions() {
            for name in pod.as_pod().into_iter().flat_map(PodRow::claim_names) {
                let claim = Key::new(&pod.key.namespace, name);
                let found = world.get(Kind::PERSISTENT_VOLUME_CLAIM, &claim);
                if found.is_some_and(|claim| claim.meta.deleting.is_some()) {
                    due.insert((Kind::PERSISTENT_VOLUME_CLAIM, claim));
                }
            }
        }
    }

    fn due_at_start(&self, world: &World, due: &mut Due) {
        for kind in [Kind::PERSISTENT_VOLUME_CLAIM, Kind::PERSISTENT_VOLUME] {
            due.extend(world.all(kind).map(|object| (kind, object.key.clone())));
        }
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, _: Timestamp) -> Option<Plan> {
        let object = world.get(*kind, key)?;
        Some(Plan {
            actions: plan(object, || is_used(world, object))
                .into_iter()
                .collect(),
            again: None,
        })
    }
}

/// What becomes of a claim's or volume's finalizer. Whether it is used is looked at only if it is to go.
fn plan(object: &Object, is_used: impl Fn() -> bool) -> Option<Action> {
    let finalizer = match object.kind {
        Kind::PERSISTENT_VOLUME => persistent_volume::PROTECTION,
        _ => persistent_volume_claim::PROTECTION,
    };
    let is_kept = object.meta.finalizers.iter().any(|name| name == finalizer);
    let goes = object.meta.deleting.is_some();
    match (goes, is_kept) {
        (true, true) if !is_used() => Some(drop_finalizer(object, finalizer)),
        (false, false) => {
            let mut finalizers = object.meta.finalizers.clone();
            finalizers.push(finalizer.to_owned());
            let body = json!({"metadata": {"finalizers": finalizers}});
            Some(Action::merge_exact(object, "", body))
        }
        _ => None,
    }
}

fn is_used(world: &World, object: &Object) -> bool {
    if object.kind == Kind::PERSISTENT_VOLUME {
        return object.is_bound_volume();
    }
    let mut pods = world.within(Kind::POD, &object.key.namespace);
    pods.any(|pod| uses(pod, object))
}

/// A pod without a node does not count: no agent starts one whose claim is about to go.
fn uses(pod: &Object, claim: &Object) -> bool {
    let Some(row) = pod.as_pod().filter(|row| !row.node.is_empty()) else {
        return false;
    };
    let name = &claim.key.name;
    // A claim that was made for the pod goes with it, or each would wait for the other.
    let is_its_own = || {
        let owner = claim.controller();
        owner.is_some_and(|owner| owner.uid == pod.meta.uid)
    };
    row.claims.contains(name)
        || (row.own_claims.iter().any(|own| own.name == *name) && !row.is_shut_down && is_its_own())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{controlled_by, now, words, world};

    fn claim(name: &str, metadata: Value) -> (Kind, Value) {
        let mut claim = json!({"metadata": {"name": name,
            "finalizers": ["kubernetes.io/pvc-protection"]}});
        let fields = metadata.as_object().cloned().unwrap_or_default();
        for (field, value) in fields {
            claim["metadata"][field] = value;
        }
        (Kind::PERSISTENT_VOLUME_CLAIM, claim)
    }

    fn going(name: &str) -> (Kind, Value) {
        claim(name, json!({"deletionTimestamp": "2026-01-01T00:09:00Z"}))
    }

    fn pod(name: &str, node: &str, volume: Value) -> (Kind, Value) {
        let pod = json!({"metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [], "volumes": [volume]}});
        (Kind::POD, pod)
    }

    fn by_claim(name: &str) -> Value {
        json!({"name": "v", "persistentVolumeClaim": {"claimName": name}})
    }

    fn planned(kind: Kind, name: &str, objects: Vec<(Kind, Value)>) -> Vec<String> {
        let world = world(objects);
        let namespace = if kind.namespaced { "ns" } else { "" };
        let address = (kind, Key::new(namespace, name));
        let plan = ProtectionController.plan(&world, &address, now());
        words(&plan.unwrap_or_default().actions)
    }

    fn is_freed(objects: Vec<(Kind, Value)>) -> bool {
        let done = planned(Kind::PERSISTENT_VOLUME_CLAIM, "c", objects);
        assert!(done.len() <= 1, "{done:?}");
        done.iter().any(|word| word.contains("\"finalizers\":null"))
    }

    #[test]
    fn a_deleted_claim_stays_while_a_pod_with_a_node_uses_it() {
        assert!(is_freed(vec![going("c")]));
        assert!(is_freed(vec![
            going("c"),
            pod("p", "one", by_claim("other"))
        ]));
        assert!(is_freed(vec![going("c"), pod("p", "", by_claim("c"))]));
        assert!(!is_freed(vec![going("c"), pod("p", "one", by_claim("c"))]));
        let (kind, mut ended) = pod("p", "one", by_claim("c"));
        ended["status"] = json!({"phase": "Succeeded"});
        assert!(!is_freed(vec![going("c"), (kind, ended)]));
    }

    #[test]
    fn a_claim_of_a_pod_goes_with_the_pod() {
        let mut own = going("p-v");
        own.1["metadata"]["ownerReferences"] = controlled_by(Kind::POD, "p");
        let volume = json!({"name": "v", "ephemeral": {}});
        let mut all = vec![own, pod("p", "one", volume)];
        let kind = Kind::PERSISTENT_VOLUME_CLAIM;
        assert!(planned(kind, "p-v", all.clone()).is_empty());
        all[1].1["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:09:00Z");
        all[1].1["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        assert_eq!(planned(kind, "p-v", all).len(), 1);
    }

    #[test]
    fn a_bound_volume_stays() {
        let volume = |phase: &str| {
            let volume = json!({"metadata": {"name": "v",
                    "deletionTimestamp": "2026-01-01T00:09:00Z",
                    "finalizers": ["kubernetes.io/pv-protection", "a/b"]},
                "status": {"phase": phase}});
            vec![(Kind::PERSISTENT_VOLUME, volume)]
        };
        let kind = Kind::PERSISTENT_VOLUME;
        assert!(planned(kind, "v", volume("Bound")).is_empty());
        let done = planned(kind, "v", volume("Released"));
        assert!(done[0].contains("\"finalizers\":[\"a/b\"]"), "{done:?}");
    }

    #[test]
    fn what_was_made_without_the_finalizer_gets_it() {
        let bare = claim("c", json!({"finalizers": null}));
        let done = planned(Kind::PERSISTENT_VOLUME_CLAIM, "c", vec![bare]);
        assert!(
            done[0].contains("[\"kubernetes.io/pvc-protection\"]"),
            "{done:?}"
        );
        let kept = vec![claim("c", json!({}))];
        assert!(planned(Kind::PERSISTENT_VOLUME_CLAIM, "c", kept).is_empty());
    }

    #[test]
    fn a_pods_end_is_work_about_its_terminating_claims_only() {
        let world = world([going("c"), claim("d", json!({}))]);
        let mut due = Due::new();
        for name in ["c", "d", "absent"] {
            let (kind, value) = pod("p", "one", by_claim(name));
            let diff = Diff {
                old: Some(std::sync::Arc::new(crate::fixture::object(kind, value))),
                new: None,
            };
            ProtectionController.due(&world, &diff, &mut due);
        }
        let claim = (Kind::PERSISTENT_VOLUME_CLAIM, Key::new("ns", "c"));
        assert_eq!(due, Due::from([claim]));
    }
}
