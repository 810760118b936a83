//! Hears of claims, volumes, classes and nodes, and decides what is to be looked at.

use std::sync::Arc;

use jiff::Timestamp;

use super::objects::{Claim, Volume};
use super::{claim, volume};
use crate::action::Plan;
use crate::controller::{Controller, Due, Watches};
use crate::object::Object;
use crate::world::{Address, Diff, World};
use api::kinds::storage::local;
use client::Kind;

const CLAIM: Kind = Kind::PERSISTENT_VOLUME_CLAIM;
const VOLUME: Kind = Kind::PERSISTENT_VOLUME;

/// Binds claims to volumes. Its work is about one claim or one volume.
pub struct BinderController;

impl Controller for BinderController {
    fn name(&self) -> &'static str {
        "persistent volume binder"
    }

    fn account(&self) -> &'static str {
        "persistent-volume-binder"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[CLAIM, VOLUME, Kind::STORAGE_CLASS, Kind::NODE])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        match object.kind {
            CLAIM => due_of_claim(world, diff, due),
            VOLUME => due_of_volume(world, diff, due),
            Kind::STORAGE_CLASS => due.extend(pending(world, |_| true)),
            // A volume of a node that is gone is not waited for.
            Kind::NODE if diff.new.is_none() => {
                let volumes = world.all(VOLUME).filter(|it| {
                    let volume = Volume::of(it);
                    it.meta.deleting.is_some()
                        && volume.is_some_and(|it| it.driver() == Some(local::DRIVER))
                });
                due.extend(volumes.map(|volume| address(volume)));
            }
            _ => {}
        }
    }

    fn due_at_start(&self, world: &World, due: &mut Due) {
        for kind in [CLAIM, VOLUME] {
            due.extend(world.all(kind).map(|object| address(object)));
        }
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, now: Timestamp) -> Option<Plan> {
        let object = world.get(*kind, key)?;
        let actions = if *kind == CLAIM {
            claim::plan(world, Claim::of(object)?, now)
        } else {
            volume::plan(world, Volume::of(object)?)
        };
        let again = None;
        Some(Plan { actions, again })
    }
}

fn due_of_claim(world: &World, diff: &Diff, due: &mut Due) {
    due.insert(address(diff.object()));
    let of = |object: &Option<_>| {
        let object: &Arc<Object> = object.as_ref()?;
        Some(Claim::of(object)?.volume_name().to_owned())
    };
    let (old, new) = (of(&diff.old), of(&diff.new));
    if old == new {
        return;
    }
    // Also those that name the claim and that it does not name.
    let key = &diff.object().key;
    let concerned = world.all(VOLUME).filter(|object| {
        let name = Some(&object.key.name);
        let names = Volume::of(object).and_then(|volume| volume.claim_key());
        old.as_ref() == name || new.as_ref() == name || names.as_ref() == Some(key)
    });
    due.extend(concerned.map(|volume| address(volume)));
}

fn due_of_volume(world: &World, diff: &Diff, due: &mut Due) {
    due.insert(address(diff.object()));
    for volume in diff.versions().filter_map(|object| Volume::of(object)) {
        due.extend(volume.claim_key().map(|key| (CLAIM, key)));
    }
    let free = diff.new.as_ref().and_then(free_volume);
    let was_free = diff.old.as_ref().and_then(free_volume).is_some();
    if let Some(volume) = free.filter(|_| !was_free) {
        let class = volume.class();
        due.extend(pending(world, |claim| {
            claim.class().unwrap_or_default() == class
        }));
    }
    // A claim may name a volume before it is there, or have lost it.
    let name = diff.object().key.name.as_str();
    if diff.old.is_none() || diff.new.is_none() {
        let naming = world.all(CLAIM).filter(|object| {
            let claim = Claim::of(object);
            claim.is_some_and(|claim| claim.volume_name() == name)
        });
        due.extend(naming.map(|claim| address(claim)));
    }
}

fn free_volume(object: &Arc<Object>) -> Option<Volume<'_>> {
    let volume = Volume::of(object);
    volume.filter(|it| it.claim().is_none() && it.phase() == "Available")
}

/// Claims that are not bound yet.
fn pending(world: &World, wanted: impl Fn(&Claim) -> bool) -> Vec<Address> {
    let claims = world.all(CLAIM).filter(|object| {
        let claim = Claim::of(object).filter(|claim| !claim.is_bind_completed());
        claim.is_some_and(|claim| wanted(&claim))
    });
    claims.map(|claim| address(claim)).collect()
}

fn address(object: &Object) -> Address {
    (object.kind, object.key.clone())
}
