//! What becomes of a volume. Pure.

use serde_json::json;

use super::objects::{Claim, Volume};
use crate::action::{Action, Delete, drop_finalizer};
use crate::object::{Key, Object};
use crate::world::World;
use api::kinds::core::persistent_volume::PROVISIONED_BY;
use api::kinds::core::persistent_volume_claim::BOUND_BY_CONTROLLER;
use api::kinds::storage::local;
use client::Kind;

/// The next writes for a volume.
pub fn plan(world: &World, volume: Volume) -> Vec<Action> {
    if let Some(action) = orphaned(world, volume) {
        return vec![action];
    }
    let Some(key) = volume
        .claim_key()
        .filter(|_| !volume.claim_uid().is_empty())
    else {
        return phase(volume, "Available");
    };
    let found = world.get(Kind::PERSISTENT_VOLUME_CLAIM, &key);
    let found = found.filter(|claim| claim.meta.uid == volume.claim_uid());
    let Some(claim) = found.and_then(|object| Claim::of(object)) else {
        return released(volume, &key);
    };
    match claim.volume_name() {
        name if name == volume.name() => phase(volume, "Bound"),
        // The claim's own plan goes on.
        "" => mismatched(volume, claim),
        _ => misbound(volume),
    }
}

/// The agent that would remove the volume's image is gone with its node, and the image too.
fn orphaned(world: &World, volume: Volume) -> Option<Action> {
    let object = volume.object;
    let source = volume.spec()?.csi.as_ref()?;
    let node = source
        .volume_attributes
        .as_ref()?
        .get(local::NODE_ATTRIBUTE)?;
    let waits = object.meta.deleting.is_some()
        && source.driver == local::DRIVER
        && object
            .meta
            .finalizers
            .iter()
            .any(|it| it == local::FINALIZER);
    let node = Key::new("", node);
    (waits && world.get(Kind::NODE, &node).is_none())
        .then(|| drop_finalizer(object, local::FINALIZER))
}

fn phase(volume: Volume, phase: &str) -> Vec<Action> {
    if volume.phase() == phase {
        return Vec::new();
    }
    let body = json!({"status": {"phase": phase, "message": null, "reason": null}});
    vec![Action::merge(volume.object, "status", body)]
}

/// The claim that had the volume is gone.
fn released(volume: Volume, claim: &Key) -> Vec<Action> {
    let mut actions = match volume.phase() {
        "Failed" => Vec::new(),
        _ => phase(volume, "Released"),
    };
    if volume.object.meta.deleting.is_some() {
        return actions;
    }
    let is_made = volume.annotation(PROVISIONED_BY).is_some();
    match volume.reclaim_policy() {
        "Delete" if volume.driver() == Some(local::DRIVER) => {
            let uid = volume.claim_uid().to_owned();
            let delete = Delete {
                // A claim that is not known here yet is known to the server.
                unless_any: vec![(Kind::PERSISTENT_VOLUME_CLAIM, claim.clone(), uid)],
                ..Delete::of(volume.object)
            };
            actions.push(Action::Delete(delete));
        }
        // Its external provisioner deletes it.
        "Delete" if is_made => {}
        "Delete" => {
            let why = format!(
                "error getting deleter volume plugin for volume {:?}: no deletable volume plugin \
                 matched",
                volume.name()
            );
            actions = failed(volume, "VolumeFailedDelete", &why);
        }
        "Recycle" => {
            let why = "Recycle is not supported: use Retain or Delete, and dynamic provisioning";
            actions = failed(volume, "VolumeFailedRecycle", why);
        }
        _ => {}
    }
    actions
}

fn failed(volume: Volume, reason: &'static str, why: &str) -> Vec<Action> {
    if volume.phase() == "Failed" {
        return Vec::new();
    }
    let body = json!({"status": {"phase": "Failed", "message": why}});
    vec![
        Action::merge(volume.object, "status", body),
        Action::warning(volume.object, reason, why.to_owned()),
    ]
}

/// A volume that is meant for a claim which wants another mode never gets it.
fn mismatched(volume: Volume, claim: Claim) -> Vec<Action> {
    if volume.volume_mode() == claim.volume_mode() {
        return Vec::new();
    }
    let told =
        |object: &Object, message: String| Action::warning(object, "VolumeMismatch", message);
    let (name, claim_name) = (volume.name(), claim.name());
    vec![
        told(
            volume.object,
            format!(
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim {claim_name:?} due to incompatible volumeMode."
            ),
        ),
        told(
            claim.object,
            format!(
                "Cannot bind PersistentVolume {name:?} to requested PersistentVolumeClaim {claim_name:?} due to incompatible volumeMode."
            ),
        ),
    ]
}

/// The claim that the volume names has got another volume.
fn misbound(volume: Volume) -> Vec<Action> {
    let is_made = volume.annotation(PROVISIONED_BY).is_some();
    if is_made && volume.reclaim_policy() == "Delete" {
        return released_unused(volume);
    }
    let body = match volume.annotation(BOUND_BY_CONTROLLER) {
        Some(_) => json!({
            "metadata": {"annotations": {BOUND_BY_CONTROLLER: null}},
            "spec": {"claimRef": null},
        }),
        // An administrator means it for a claim of that name.
        None => json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}}),
    };
    vec![Action::merge_exact(volume.object, "", body)]
}

/// A volume that was made for a claim which did not wait for it, and never used.
fn released_unused(volume: Volume) -> Vec<Action> {
    let mut actions = phase(volume, "Released");
    if volume.driver() == Some(local::DRIVER) && volume.object.meta.deleting.is_none() {
        actions.push(Action::Delete(Delete::of(volume.object)));
    }
    actions
}
