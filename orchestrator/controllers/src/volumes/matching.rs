//! Which volume fits a claim. Pure.

use super::objects::{Claim, Volume};
use crate::object::Key;
use crate::world::World;
use api::quantity::Quantity;
use api::selector::{LabelSelector, node};
use client::Kind;

/// Why a volume does not fit a claim that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Mode,
    Class,
    Access,
    Size,
}

/// The volume for a claim: one that is meant for it, or else the smallest that fits. With `only_meant`, no
/// other.
pub fn best<'a>(world: &'a World, claim: &Claim, only_meant: bool) -> Option<Volume<'a>> {
    let volumes = || {
        world
            .all(Kind::PERSISTENT_VOLUME)
            .filter_map(|it| Volume::of(it))
    };
    let living = || volumes().filter(|volume| volume.object.meta.deleting.is_none());
    let meant = living().find(|volume| {
        volume.is_for(claim)
            && !matches!(refused(claim, volume), Some(Refused::Size | Refused::Mode))
    });
    if meant.is_some() || only_meant {
        return meant;
    }
    let fits = living().filter(|volume| {
        volume.claim().is_none()
            && volume.phase() == "Available"
            && refused(claim, volume).is_none()
            && is_selected(claim, volume)
            && is_reachable(world, claim, volume)
    });
    fits.min_by_key(|volume| volume.capacity().map(|(_, size)| size))
}

/// What a claim and a volume disagree about, in the order in which Kubernetes looks.
pub fn refused(claim: &Claim, volume: &Volume) -> Option<Refused> {
    let wanted = claim.requested().map_or(Quantity::ZERO, |(_, size)| size);
    if volume.capacity().is_none_or(|(_, size)| size < wanted) {
        return Some(Refused::Size);
    }
    if claim.class().unwrap_or_default() != volume.class() {
        return Some(Refused::Class);
    }
    if claim.volume_mode() != volume.volume_mode() {
        return Some(Refused::Mode);
    }
    let offered = volume.modes();
    let all = claim.modes().iter().all(|mode| offered.contains(mode));
    (!all).then_some(Refused::Access)
}

fn is_selected(claim: &Claim, volume: &Volume) -> bool {
    let selector = claim.spec().and_then(|spec| spec.selector.as_ref());
    let Some(selector) = selector else {
        return true;
    };
    let selector = LabelSelector::from_object(Some(selector));
    selector.is_ok_and(|selector| selector.matches(&volume.object.meta.labels))
}

/// Whether the node that was selected for the claim, if one was, has the volume.
fn is_reachable(world: &World, claim: &Claim, volume: &Volume) -> bool {
    let affinity = volume.spec().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    let (Some(required), Some(name)) = (required, claim.selected_node()) else {
        return true;
    };
    let found = world.get(Kind::NODE, &Key::new("", name));
    found.is_some_and(|found| node::matches(required, name, &found.meta.labels))
}
