//! Attach and detach: volumes of CSI drivers that must be at a node before its agent can mount them. Pure.
//!
//! ```text
//! pods on the node ──▶ wanted ─┐                       ┌─▶ VolumeAttachment made, or deleted
//!                              ├─▶ plan, one a node ───┤
//! VolumeAttachments ──▶ there ─┘                       └─▶ status.volumesAttached of the node
//! ```
//!
//! The driver's external attacher does the work and says so in the attachment's status. A volume that the agent
//! uses (`status.volumesInUse`) is not detached. INVARIANT: a volume leaves `volumesAttached` before its attachment
//! is deleted, by a write that names the revision of the node which the plan saw. An agent uses a volume only if
//! the answer to its own write of `volumesInUse` still has it in `volumesAttached`, so one of the two writes comes
//! second and sees the first.

mod plan;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::objects::{Claim, Volume};
use crate::action::Plan;
use crate::controller::{Controller, Due, Watches};
use crate::object::{Key, Object, PodRow};
use crate::world::{Address, Diff, World};
use client::Kind;

pub use rows::AttachmentRow;

/// Brings volumes to nodes and takes them away. Its work is about one node.
#[derive(Default)]
pub struct AttachController {
    /// By node, the names of attachments that nobody wants and the agent still uses, and since when.
    unwanted: BTreeMap<String, BTreeMap<String, Timestamp>>,
    /// By volume that one node may have: the node for which an attachment was asked for and is not heard of yet,
    /// and when. The plan of another node is made meanwhile.
    asked: BTreeMap<String, (String, Timestamp)>,
}

/// An attachment that is not heard of by then was not made.
const ASKED_TIMEOUT: SignedDuration = SignedDuration::from_mins(1);

impl Controller for AttachController {
    fn name(&self) -> &'static str {
        "attach and detach"
    }

    fn account(&self) -> &'static str {
        "attachdetach-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[
            Kind::POD,
            Kind::NODE,
            Kind::PERSISTENT_VOLUME,
            Kind::PERSISTENT_VOLUME_CLAIM,
            Kind::CSI_DRIVER,
            Kind::VOLUME_ATTACHMENT,
        ])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        match object.kind {
            Kind::POD => due_of_pod(diff, due),
            Kind::NODE => due_of_node(diff, due),
            Kind::PERSISTENT_VOLUME_CLAIM => {
                let name = |it: &Option<Arc<Object>>| {
                    let claim = it.as_deref().and_then(Claim::of);
                    claim.map(|claim| claim.volume_name().to_owned())
                };
                if name(&diff.old) != name(&diff.new) {
                    due.extend(nodes_using(world, &object.key));
                }
            }
            Kind::PERSISTENT_VOLUME => due_of_volume(world, object, due),
            Kind::VOLUME_ATTACHMENT => due_of_attachment(world, diff, due),
            _ => self.due_at_start(world, due),
        }
    }

    fn due_at_start(&self, world: &World, due: &mut Due) {
        let attachments = world.all(Kind::VOLUME_ATTACHMENT);
        let attached = attachments.filter_map(|it| it.as_attachment());
        let attached: BTreeSet<&String> = attached.map(|row| &row.node).collect();
        due.extend(
            attached
                .into_iter()
                .chain(world.nodes_of_pods())
                .map(|name| node(name)),
        );
    }

    fn hear(&mut self, diff: &Diff, _now: Timestamp) {
        if let Some(row) = diff.object().as_attachment()
            && let Some(volume) = &row.volume
            && self
                .asked
                .get(volume)
                .is_some_and(|(node, _)| *node == row.node)
        {
            self.asked.remove(volume);
        }
    }

    fn plan(&mut self, world: &World, (_, key): &Address, now: Timestamp) -> Option<Plan> {
        let name = key.name.as_str();
        self.asked
            .retain(|_, (_, since)| since.duration_until(now) < ASKED_TIMEOUT);
        let view = plan::View::gather(world, name, &self.asked);
        for volume in view.to_be_asked() {
            let asked = (name.to_owned(), now);
            self.asked.insert(volume.to_owned(), asked);
        }
        let since = self.unwanted.entry(name.to_owned()).or_default();
        let plan = plan::plan(&view, since, now);
        if since.is_empty() {
            self.unwanted.remove(name);
        }
        Some(plan)
    }
}

fn node(name: &str) -> Address {
    (Kind::NODE, Key::new("", name))
}

/// A pod came to its node, or is done with its volumes.
fn due_of_pod(diff: &Diff, due: &mut Due) {
    let uses = |pod: &Option<Arc<Object>>| {
        let row = pod.as_deref()?.as_pod()?;
        uses_volumes(row).then(|| row.node.clone())
    };
    let (before, now) = (uses(&diff.old), uses(&diff.new));
    if before != now {
        due.extend(before.iter().chain(&now).map(|name| node(name)));
    }
}

/// Whether the pod has claims and its node has to have the volumes behind them.
fn uses_volumes(pod: &PodRow) -> bool {
    !pod.node.is_empty()
        && !pod.finished()
        && !pod.is_shut_down
        && pod.claim_names().next().is_some()
}

fn due_of_node(diff: &Diff, due: &mut Due) {
    let parts = |node: &Option<Arc<Object>>| {
        let row = node.as_deref()?.as_node()?;
        let is_off = crate::pod_gc::is_out_of_service(row);
        Some((row.volumes.clone(), row.ready.clone(), is_off))
    };
    if parts(&diff.old) != parts(&diff.new) {
        due.insert((Kind::NODE, diff.object().key.clone()));
    }
}

fn due_of_volume(world: &World, object: &Object, due: &mut Due) {
    let claim = Volume::of(object).and_then(|volume| volume.claim_key());
    due.extend(claim.iter().flat_map(|claim| nodes_using(world, claim)));
}

/// Its node; when it is gone, another node may have waited for its volume.
fn due_of_attachment(world: &World, diff: &Diff, due: &mut Due) {
    let row = diff.object().as_attachment();
    due.extend(row.map(|row| node(&row.node)));
    if diff.new.is_none()
        && let Some(volume) = row.and_then(|row| row.volume.as_ref())
        && let Some(object) = world.get(Kind::PERSISTENT_VOLUME, &Key::new("", volume))
    {
        due_of_volume(world, object, due);
    }
}

/// The nodes of the pods that have a claim.
fn nodes_using(world: &World, claim: &Key) -> Vec<Address> {
    let pods = world.within(Kind::POD, &claim.namespace);
    let rows = pods.filter_map(|pod| pod.as_pod());
    let using =
        rows.filter(|row| uses_volumes(row) && row.claim_names().any(|name| *name == claim.name));
    using.map(|row| node(&row.node)).collect()
}
