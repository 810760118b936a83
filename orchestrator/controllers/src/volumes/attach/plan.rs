//! What is to be attached to one node and detached from it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::objects::{Claim, Volume};
use super::rows::AttachmentRow;
use super::uses_volumes;
use crate::action::{Action, Create, Plan};
use crate::object::{Key, NodeVolumes, Object, PodRow};
use crate::pod_gc::is_out_of_service;
use crate::world::World;
use api::kinds::storage::attach::{attachment_name, is_attachment_name, volume_key, volume_of_key};
use api::kinds::storage::local;
use client::Kind;

/// How long a volume that nobody wants stays at a node which is not ready and still says that it uses it
/// (`ReconcilerMaxWaitForUnmountDuration` of Kubernetes).
const UNMOUNT_TIMEOUT: SignedDuration = SignedDuration::from_mins(6);
/// When to look again at a volume that another node has.
const RETRY: SignedDuration = SignedDuration::from_secs(15);

/// Everything that the plan of a node follows from.
pub struct View<'a> {
    name: &'a str,
    node: Option<&'a Object>,
    /// What pods of the node need, by the name of its attachment.
    wanted: BTreeMap<String, Wanted<'a>>,
    /// The attachments to the node, by their names.
    there: BTreeMap<&'a str, (&'a Object, &'a AttachmentRow)>,
}

/// A volume that pods need at the node.
struct Wanted<'a> {
    volume: Volume<'a>,
    driver: &'a str,
    key: String,
    /// The first of these pods.
    pod: &'a Object,
    /// Only one node may have it, and another one does.
    is_elsewhere: bool,
}

impl<'a> View<'a> {
    /// `asked` says for which nodes attachments of volumes are being made.
    pub fn gather(
        world: &'a World,
        name: &'a str,
        asked: &BTreeMap<String, (String, Timestamp)>,
    ) -> Self {
        let mut wanted = BTreeMap::new();
        for (pod, row) in world.pods_on(name) {
            for volume in volumes_of(world, pod, row) {
                let Some((driver, handle)) = attachable(world, volume) else {
                    continue;
                };
                let asked = asked.get(volume.name());
                let one = Wanted {
                    volume,
                    driver,
                    key: volume_key(driver, handle),
                    pod,
                    is_elsewhere: is_exclusive(volume)
                        && asked.is_some_and(|(node, _)| node != name),
                };
                let name = attachment_name(driver, handle, name);
                wanted.entry(name).or_insert(one);
            }
        }
        let all = world.all(Kind::VOLUME_ATTACHMENT);
        let all = all.filter_map(|object| Some((object.as_ref(), object.as_attachment()?)));
        let mut there = BTreeMap::new();
        for (object, row) in all.filter(|(object, _)| is_attachment_name(&object.key.name)) {
            if row.node == name {
                there.insert(object.key.name.as_str(), (object, row));
                continue;
            }
            let same = |it: &&mut Wanted| row.volume.as_deref() == Some(it.volume.name());
            for other in wanted.values_mut().filter(same) {
                other.is_elsewhere = is_exclusive(other.volume);
            }
        }
        View {
            name,
            node: world
                .get(Kind::NODE, &Key::new("", name))
                .map(AsRef::as_ref),
            wanted,
            there,
        }
    }
}

impl View<'_> {
    /// The volumes that one node may have and whose attachments the plan asks for.
    pub fn to_be_asked(&self) -> impl Iterator<Item = &str> {
        let free = self.wanted.iter().filter(|(name, it)| {
            let is_there = self.there.contains_key(name.as_str());
            !is_there && !it.is_elsewhere && is_exclusive(it.volume)
        });
        free.filter(|_| self.node.is_some())
            .map(|(_, it)| it.volume.name())
    }
}

/// The volumes behind a pod's claims, as far as they are bound.
fn volumes_of<'a>(world: &'a World, pod: &'a Object, row: &'a PodRow) -> Vec<Volume<'a>> {
    if !uses_volumes(row) {
        return Vec::new();
    }
    let volume = |name: &String| {
        let key = Key::new(&pod.key.namespace, name);
        let claim = Claim::of(world.get(Kind::PERSISTENT_VOLUME_CLAIM, &key)?)?;
        let volume = Key::new("", claim.volume_name());
        let volume = Volume::of(world.get(Kind::PERSISTENT_VOLUME, &volume)?)?;
        (volume.claim_uid() == claim.object.meta.uid).then_some(volume)
    };
    row.claim_names().filter_map(volume).collect()
}

/// The driver and the handle of a volume that has to be attached. Of a driver without an object, all have to.
fn attachable<'a>(world: &World, volume: Volume<'a>) -> Option<(&'a str, &'a str)> {
    let source = volume.spec()?.csi.as_ref()?;
    let driver = world.get(Kind::CSI_DRIVER, &Key::new("", &source.driver));
    let attaches = driver.is_none_or(|driver| driver.driver_attaches());
    (attaches && source.driver != local::DRIVER)
        .then_some((source.driver.as_str(), source.volume_handle.as_str()))
}

/// Whether no two nodes may have the volume.
fn is_exclusive(volume: Volume) -> bool {
    let is_shared = |mode: &String| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany");
    !volume.modes().is_empty() && !volume.modes().iter().any(is_shared)
}

/// The next writes. `since` says when each attachment was first seen to be used but not wanted.
pub fn plan(view: &View, since: &mut BTreeMap<String, Timestamp>, now: Timestamp) -> Plan {
    let goes = detached(view, since, now);
    let mut actions = told(view, &goes);
    let gone = goes.iter().filter_map(|name| view.there.get(*name));
    let gone = gone.filter(|(object, _)| object.meta.deleting.is_none());
    actions.extend(gone.map(|(object, _)| Action::delete(object)));
    let mut waits = !since.is_empty();
    for (name, wanted) in &view.wanted {
        match view.there.get(name.as_str()) {
            Some((_, row)) => actions.extend(failure(wanted, row)),
            None if wanted.is_elsewhere => {
                waits = true;
                actions.push(taken(wanted));
            }
            None => actions.extend(view.node.map(|_| made(name, wanted, view.name))),
        }
    }
    Plan {
        actions,
        again: waits.then_some(RETRY),
    }
}

/// The attachments that are to go now.
fn detached<'a>(
    view: &View<'a>,
    since: &mut BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> BTreeSet<&'a str> {
    let row = view.node.and_then(|node| node.as_node());
    let used = view.named(|volumes| &volumes.used);
    let is_off = row.is_none_or(is_out_of_service);
    let is_silent = row.is_some_and(|row| row.ready != "True");
    let mut goes = BTreeSet::new();
    let mut waiting = BTreeMap::new();
    for name in view.there.keys() {
        if view.wanted.contains_key(*name) {
            continue;
        }
        if is_off || !used.contains_key(*name) {
            goes.insert(*name);
            continue;
        }
        let first = since.get(*name).copied().unwrap_or(now);
        if is_silent && first.duration_until(now) >= UNMOUNT_TIMEOUT {
            goes.insert(*name);
        }
        waiting.insert((*name).to_owned(), first);
    }
    *since = waiting;
    goes
}

/// What the node's status is to say of its volumes, and what pods hear of it.
fn told(view: &View, goes: &BTreeSet<&str>) -> Vec<Action> {
    let Some(node) = view.node else {
        return Vec::new();
    };
    let says = view.named(|volumes| &volumes.attached);
    let mut names = says.clone();
    let wanted = view.wanted.iter();
    names.extend(wanted.map(|(name, it)| (name.clone(), it.key.clone())));
    let attached = names.into_iter().filter(|(name, _)| {
        let found = view.there.get(name.as_str());
        found.is_some_and(|(object, row)| row.attached && object.meta.deleting.is_none())
            && !goes.contains(name.as_str())
    });
    let attached: BTreeMap<String, String> = attached.collect();
    if attached == says {
        return Vec::new();
    }
    let list = attached.values();
    let list: Vec<_> = list
        .map(|key| json!({"name": key, "devicePath": ""}))
        .collect();
    let body = json!({"status": {"volumesAttached": list}});
    let news = attached.keys().filter(|name| !says.contains_key(*name));
    let news = news.filter_map(|name| view.wanted.get(name));
    let events = news.map(|wanted| {
        let name = wanted.volume.name();
        let message = format!("AttachVolume.Attach succeeded for volume {name:?} ");
        Action::normal(wanted.pod, "SuccessfulAttachVolume", message)
    });
    let write = Action::merge_exact(node, "status", body);
    [write].into_iter().chain(events).collect()
}

/// Why an attachment that is needed is not done.
fn failure(wanted: &Wanted, row: &AttachmentRow) -> Option<Action> {
    let why = row.error.as_ref()?;
    let name = wanted.volume.name();
    let message = format!("AttachVolume.Attach failed for volume {name:?} : {why}");
    Some(Action::warning(wanted.pod, "FailedAttachVolume", message))
}

fn taken(wanted: &Wanted) -> Action {
    let name = wanted.volume.name();
    let message = format!(
        "Multi-Attach error for volume {name:?} Volume is already exclusively attached to one \
         node and can't be attached to another"
    );
    Action::warning(wanted.pod, "FailedAttachVolume", message)
}

fn made(name: &str, wanted: &Wanted, node: &str) -> Action {
    let attachment = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": name},
        "spec": {
            "attacher": wanted.driver, "nodeName": node,
            "source": {"persistentVolumeName": wanted.volume.name()},
        },
    });
    Action::Create(Create {
        kind: Kind::VOLUME_ATTACHMENT,
        namespace: String::new(),
        object: attachment,
        if_absent: true,
        about: None,
    })
}

impl View<'_> {
    /// Volumes that the node's status names, by the names of their attachments. They are known without their
    /// PersistentVolumes, which may be gone.
    fn named(&self, which: fn(&NodeVolumes) -> &BTreeSet<String>) -> BTreeMap<String, String> {
        let row = self.node.and_then(|node| node.as_node());
        let keys = row.and_then(|row| row.volumes.as_deref()).map(which);
        let named = keys.into_iter().flatten().filter_map(|key| {
            let (driver, handle) = volume_of_key(key)?;
            Some((attachment_name(driver, handle, self.name), key.clone()))
        });
        named.collect()
    }
}
