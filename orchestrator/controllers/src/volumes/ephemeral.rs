//! The claims of pods' `ephemeral` volumes (KEP-1698): made for the pod, and owned by it. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::action::{Action, Create, Plan, controller_reference, owners_json};
use crate::controller::{Controller, Due, Watches};
use crate::object::{Key, Object, OwnClaim, PodRow};
use crate::world::{Address, Diff, World};
use client::Kind;

const CLAIM: Kind = Kind::PERSISTENT_VOLUME_CLAIM;

/// Makes the claims that pods ask for. Its work is about one pod.
pub struct EphemeralController;

impl Controller for EphemeralController {
    fn name(&self) -> &'static str {
        "ephemeral volumes"
    }

    fn account(&self) -> &'static str {
        "ephemeral-volume-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::POD, CLAIM])
    }

    fn due(&self, _: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        let is_news = match object.kind {
            Kind::POD => diff.old.is_none() && asks(object),
            _ => diff.new.is_none(),
        };
        if !is_news {
            return;
        }
        let pod = match object.kind {
            Kind::POD => Some(object.key.clone()),
            // A claim that went is made anew if its pod lives.
            _ => { object.controller() }
                .filter(|owner| owner.kind == "Pod")
                .map(|owner| Key::new(&object.key.namespace, &owner.name)),
        };
        due.extend(pod.map(|key| (Kind::POD, key)));
    }

    fn due_at_start(&self, world: &World, due: &mut Due) {
        let pods = world.all(Kind::POD).filter(|pod| asks(pod));
        due.extend(pods.map(|pod| (Kind::POD, pod.key.clone())));
    }

    fn plan(&mut self, world: &World, (_, key): &Address, _: Timestamp) -> Option<Plan> {
        let pod = world.get(Kind::POD, key)?;
        let row = pod.as_pod().filter(|row| lives(pod, row))?;
        let claims = row.own_claims.iter();
        Some(Plan {
            actions: claims.filter_map(|own| one(world, pod, own)).collect(),
            again: None,
        })
    }
}

fn asks(pod: &Object) -> bool {
    let row = pod.as_pod().filter(|row| lives(pod, row));
    row.is_some_and(|row| !row.own_claims.is_empty())
}

fn lives(pod: &Object, row: &PodRow) -> bool {
    pod.meta.deleting.is_none() && !row.finished()
}

fn one(world: &World, pod: &Object, own: &OwnClaim) -> Option<Action> {
    let key = Key::new(&pod.key.namespace, &own.name);
    let Some(found) = world.get(CLAIM, &key) else {
        return Some(Action::Create(Create {
            kind: CLAIM,
            namespace: key.namespace,
            object: claim(pod, own),
            if_absent: true,
            about: None,
        }));
    };
    let is_its = found
        .controller()
        .is_some_and(|owner| owner.uid == pod.meta.uid);
    let message = || {
        format!(
            "PVC {}/{} was not created for pod {}/{} (pod is not owner)",
            key.namespace, key.name, pod.key.namespace, pod.key.name
        )
    };
    (!is_its).then(|| Action::warning(pod, "FailedBinding", message()))
}

fn claim(pod: &Object, own: &OwnClaim) -> Value {
    let meta = own.template.metadata.as_ref();
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": own.name,
            "labels": meta.and_then(|meta| meta.labels.as_ref()),
            "annotations": meta.and_then(|meta| meta.annotations.as_ref()),
            "ownerReferences": owners_json(&[controller_reference(pod)]),
        },
        "spec": own.template.spec,
    })
}
