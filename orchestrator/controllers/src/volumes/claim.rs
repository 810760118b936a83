//! What becomes of a claim. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaimCondition as Condition;
use serde_json::{Value, json};

use super::matching::{self, Refused};
use super::objects::{Claim, Volume};
use super::provision;
use crate::action::Action;
use crate::object::Key;
use crate::world::World;
use api::kinds::core::persistent_volume_claim::{BIND_COMPLETED, BOUND_BY_CONTROLLER};
use api::kinds::storage::local;
use api::quantity::Quantity;
use client::Kind;

const RESIZE_PENDING: &str = "FileSystemResizePending";

/// The next writes for a claim.
pub fn plan(world: &World, claim: Claim, now: Timestamp) -> Vec<Action> {
    if claim.is_bind_completed() {
        return bound(world, claim, now);
    }
    // It is not bound any more; the finalizer that may hold it is another controller's.
    if claim.object.meta.deleting.is_some() {
        return Vec::new();
    }
    match claim.volume_name() {
        "" => choose(world, claim),
        name => named(world, claim, name),
    }
}

fn volume<'a>(world: &'a World, name: &str) -> Option<Volume<'a>> {
    let object = world.get(Kind::PERSISTENT_VOLUME, &Key::new("", name))?;
    Volume::of(object)
}

/// A claim that takes any volume that fits.
fn choose(world: &World, claim: Claim) -> Vec<Action> {
    let class_name = claim.class();
    let class = class_name.and_then(|name| provision::class(world, name));
    let node = claim.selected_node();
    let waits = class.is_some_and(provision::waits_for_consumer) && node.is_none();
    if let Some(volume) = matching::best(world, &claim, waits) {
        return bind(claim, volume);
    }
    if class_name.is_none()
        && let Some(default) = provision::default_class(world)
    {
        // It was made before there was a default class (KEP-3333).
        let body = json!({"spec": {"storageClassName": default}});
        return vec![Action::merge_exact(claim.object, "", body)];
    }
    let mut actions = pending(claim);
    match class_name.unwrap_or_default() {
        _ if waits => {
            let message = "waiting for first consumer to be created before binding";
            actions.push(normal(claim, "WaitForFirstConsumer", message));
        }
        "" => {
            let message = "no persistent volumes available for this claim and no storage class \
                is set";
            actions.push(normal(claim, "FailedBinding", message));
        }
        name => actions.extend(provision::plan(world, claim, name)),
    }
    actions
}

/// A claim that names its volume.
fn named(world: &World, claim: Claim, name: &str) -> Vec<Action> {
    let Some(volume) = volume(world, name) else {
        return pending(claim);
    };
    if volume.is_for(&claim) || volume.claim().is_none() {
        let refused = matching::refused(&claim, &volume);
        let Some(why) = refused.filter(|_| volume.claim().is_none()) else {
            return bind(claim, volume);
        };
        let why = match why {
            Refused::Mode => "incompatible volumeMode",
            Refused::Class => "storageClassName does not match",
            Refused::Access => "incompatible accessMode",
            Refused::Size => "requested PV is too small",
        };
        let message = format!("Cannot bind to requested volume {name:?}: {why}");
        let told = Action::warning(claim.object, "VolumeMismatch", message);
        return pending(claim).into_iter().chain([told]).collect();
    }
    let message = format!("volume {name:?} already bound to a different claim.");
    let told = Action::warning(claim.object, "FailedBinding", message);
    pending(claim).into_iter().chain([told]).collect()
}

/// A claim that has had its volume.
fn bound(world: &World, claim: Claim, now: Timestamp) -> Vec<Action> {
    let name = claim.volume_name();
    if name.is_empty() {
        let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is \
            lost!";
        return lost(claim, "ClaimLost", message);
    }
    let Some(volume) = volume(world, name) else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", message);
    };
    if volume.claim().is_none() || volume.is_for(&claim) {
        let mut actions = bind(claim, volume);
        if actions.is_empty() {
            actions = grow(claim, volume, now);
        }
        return actions;
    }
    let message = "Two claims are bound to the same volume, this one is bound incorrectly";
    lost(claim, "ClaimMisbound", message)
}

/// What is missing of the binding of these two, each write if the one before it was done.
fn bind(claim: Claim, volume: Volume) -> Vec<Action> {
    let mut actions = Vec::new();
    if volume.claim_uid() != claim.object.meta.uid {
        let Key { namespace, name } = &claim.object.key;
        let mut body = json!({"spec": {"claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": namespace, "name": name, "uid": claim.object.meta.uid,
            "resourceVersion": claim.object.meta.revision.to_string(),
        }}});
        if volume.claim().is_none() {
            body["metadata"] = json!({"annotations": {BOUND_BY_CONTROLLER: "yes"}});
        }
        actions.push(Action::merge_exact(volume.object, "", body));
    }
    let mut body = json!({});
    if claim.volume_name().is_empty() {
        body["spec"]["volumeName"] = json!(volume.name());
        body["metadata"]["annotations"][BOUND_BY_CONTROLLER] = json!("yes");
    }
    if !claim.is_bind_completed() {
        body["metadata"]["annotations"][BIND_COMPLETED] = json!("yes");
    }
    if body != json!({}) {
        actions.push(Action::merge_exact(claim.object, "", body));
    }
    if claim.phase() != "Bound" {
        let body = json!({"status": {
            "phase": "Bound", "accessModes": volume.modes(),
            "capacity": volume.spec().and_then(|spec| spec.capacity.as_ref()),
        }});
        actions.push(Action::merge(claim.object, "status", body));
    }
    actions
}

fn pending(claim: Claim) -> Vec<Action> {
    if claim.phase() == "Pending" {
        return Vec::new();
    }
    let body = json!({"status": {"phase": "Pending"}});
    vec![Action::merge(claim.object, "status", body)]
}

fn lost(claim: Claim, reason: &'static str, message: &str) -> Vec<Action> {
    if claim.phase() == "Lost" {
        return Vec::new();
    }
    let body = json!({"status": {"phase": "Lost", "accessModes": null, "capacity": null}});
    vec![
        Action::merge(claim.object, "status", body),
        Action::warning(claim.object, reason, message.to_owned()),
    ]
}

/// A bound claim that asks for more than it has.
fn grow(claim: Claim, volume: Volume, now: Timestamp) -> Vec<Action> {
    let (Some((_, wanted)), Some((_, has)), Some((offered, size))) =
        (claim.requested(), claim.capacity(), volume.capacity())
    else {
        return Vec::new();
    };
    if wanted <= has {
        return Vec::new();
    }
    if volume.driver() != Some(local::DRIVER) {
        let message = "waiting for an external controller to expand this PVC";
        return vec![normal(claim, "ExternalExpanding", message)];
    }
    if size < wanted {
        let bytes = provision::rounded(wanted);
        let body = json!({"spec": {"capacity": {"storage": bytes}}});
        let message = format!("External resizer is resizing volume {}", volume.name());
        return vec![
            Action::merge_exact(volume.object, "", body),
            normal(claim, "Resizing", &message),
        ];
    }
    let given = volume
        .annotation(local::SIZE)
        .and_then(|text| Quantity::parse(text).ok());
    let conditions = claim
        .claim
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
    if given.is_some_and(|given| given >= size) {
        let body = json!({"status": {
            "capacity": {"storage": offered},
            "conditions": without_resize(conditions),
        }});
        let message = format!("volume {} has its new size", volume.name());
        return vec![
            Action::merge(claim.object, "status", body),
            normal(claim, "FileSystemResizeSuccessful", &message),
        ];
    }
    if conditions.iter().any(|it| it.type_ == RESIZE_PENDING) {
        return Vec::new();
    }
    let mut conditions = without_resize(conditions);
    conditions.push(json!({
        "type": RESIZE_PENDING, "status": "True", "lastTransitionTime": now,
        "message": "Waiting for user to (re-)start a pod to finish file system resize of volume \
            on node.",
    }));
    let body = json!({"status": {"conditions": conditions}});
    let message = "Require file system resize of volume on node";
    vec![
        Action::merge(claim.object, "status", body),
        normal(claim, "FileSystemResizeRequired", message),
    ]
}

fn without_resize(conditions: &[Condition]) -> Vec<Value> {
    let others = conditions
        .iter()
        .filter(|it| !["Resizing", RESIZE_PENDING].contains(&&*it.type_));
    others.map(|condition| json!(condition)).collect()
}

fn normal(claim: Claim, reason: &'static str, message: &str) -> Action {
    Action::normal(claim.object, reason, message.to_owned())
}
