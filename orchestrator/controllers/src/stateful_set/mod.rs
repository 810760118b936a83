//! StatefulSets: pods with names that stay, made and ended in order, each with claims of its own. Pure.
//!
//! ```text
//! pods, claims, revisions ─▶ View ─▶ standing ─▶ the revision is not recorded: record it, nothing else
//!                                       │
//!                                       └▶ Round: each ordinal in turn ─▶ those too many ─▶ the next to be updated
//!                                             with OrderedReady the first that is not available ends the round
//! ```

mod claims;
mod pods;
mod round;
pub mod row;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::json;

use self::row::{StatefulRow, StatefulStatus};
use super::action::{self, Action, Plan};
use super::controller::{Controller, Due, Ending, Watches};
use super::failures::Failures;
use super::object::{Key, Object, PodRow};
use super::revisions::{self, RevisionRef, Snapshot, Standing};
use super::world::{Address, Diff, World};
use client::Kind;

/// Keeps StatefulSets. Its work is about one.
#[derive(Default)]
pub struct StatefulSetController {
    /// By set: why its last create failed, until that is told.
    refused: BTreeMap<Address, String>,
    failures: Failures,
}

impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        "statefulsets"
    }

    fn account(&self) -> &'static str {
        "statefulset-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[
            Kind::STATEFUL_SET,
            Kind::POD,
            Kind::CONTROLLER_REVISION,
            Kind::PERSISTENT_VOLUME_CLAIM,
        ])
    }

    fn hear(&mut self, diff: &Diff, now: Timestamp) {
        let object = diff.object();
        match object.kind {
            Kind::POD => self.failures.hear(diff, &object.key.name, now),
            Kind::STATEFUL_SET if diff.new.is_none() => {
                self.refused.remove(&(object.kind, object.key.clone()));
                self.failures.forget(&object.meta.uid);
            }
            _ => {}
        }
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        if diff.object().kind == Kind::PERSISTENT_VOLUME_CLAIM {
            return due.extend(of_claim(world, diff));
        }
        revisions::due(Kind::STATEFUL_SET, world, diff, due);
    }

    fn plan(&mut self, world: &World, about: &Address, now: Timestamp) -> Option<Plan> {
        let mut view = gather(world, &about.1, now)?;
        view.refused = self.refused.remove(about);
        view.failures = Some(&self.failures);
        Some(plan(world, &view))
    }

    fn ended(&mut self, about: &Address, ending: &Ending) {
        if let Ending::Failed {
            creating: true,
            message,
            ..
        } = ending
        {
            self.refused.insert(about.clone(), message.clone());
        }
    }
}

/// The sets that a claim may be of, by its name, when it goes or gets other owners.
fn of_claim(world: &World, diff: &Diff) -> Due {
    let same = |old: &Object, new: &Object| {
        old.meta.owners == new.meta.owners && old.meta.deleting == new.meta.deleting
    };
    if diff
        .old
        .as_deref()
        .zip(diff.new.as_deref())
        .is_some_and(|(old, new)| same(old, new))
    {
        return Due::new();
    }
    let key = &diff.object().key;
    let Some((rest, _)) = key.name.rsplit_once('-') else {
        return Due::new();
    };
    let names = rest.match_indices('-').map(|(at, _)| &rest[at + 1..]);
    let keys = names.map(|name| Key::new(&key.namespace, name));
    keys.filter(|key| world.get(Kind::STATEFUL_SET, key).is_some())
        .map(|key| (Kind::STATEFUL_SET, key))
        .collect()
}

/// A pod of the set.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    pub pod: &'a Object,
    pub row: &'a PodRow,
}

/// What a plan for one set is made from.
pub struct View<'a> {
    pub object: &'a Object,
    pub row: &'a StatefulRow,
    /// The pods that it controls, by ordinal.
    pub members: BTreeMap<i64, Member<'a>>,
    /// Those of its pods' claims that are there, by name.
    pub claims: BTreeMap<String, &'a Object>,
    pub revisions: Vec<RevisionRef<'a>>,
    /// Pods and revisions to adopt or to release.
    pub claimed: Vec<Action>,
    pub namespace_ending: bool,
    /// Why the last create failed.
    pub refused: Option<String>,
    pub failures: Option<&'a Failures>,
    pub now: Timestamp,
}

impl<'a> View<'a> {
    /// The claims of a pod that are there.
    pub fn claims_of(&self, ordinal: i64) -> impl Iterator<Item = &'a Object> {
        let names = self.row.claims.iter();
        names.filter_map(move |(template, _)| {
            let name = claims::name(template, &self.object.key.name, ordinal);
            self.claims.get(&name).copied()
        })
    }

    fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            owner: self.object,
            annotations: &self.row.annotations,
            template: &self.row.template,
            collisions: self.row.status.collisions,
            hash_label: "controller.kubernetes.io/hash",
        }
    }
}

/// Collects the view of the set at `key`.
pub fn gather<'a>(world: &'a World, key: &Key, now: Timestamp) -> Option<View<'a>> {
    let object = world.get(Kind::STATEFUL_SET, key)?.as_ref();
    let row = object.as_stateful_set()?.as_ref();
    let (revisions, mut claimed) = revisions::claim(world, object, &row.selector);
    let members = members(world, object, row, &mut claimed);
    // What is condemned needs its claims as well, and so does the next pod to be made.
    let mut ordinals: BTreeSet<i64> = members.keys().copied().collect();
    let absent = row
        .ordinals()
        .filter(|ordinal| !members.contains_key(ordinal));
    ordinals.extend(absent.take(round::BURST));
    let names = ordinals.into_iter().flat_map(|ordinal| {
        let names = row.claims.iter();
        names.map(move |(template, _)| claims::name(template, &key.name, ordinal))
    });
    let claims = names.filter_map(|name| {
        let claim = Key::new(&key.namespace, &name);
        let claim = world.get(Kind::PERSISTENT_VOLUME_CLAIM, &claim)?;
        Some((name, claim.as_ref()))
    });
    let namespace = world.get(Kind::NAMESPACE, &Key::new("", &key.namespace));
    Some(View {
        object,
        row,
        claims: claims.collect(),
        members,
        revisions,
        claimed,
        namespace_ending: namespace.is_some_and(|namespace| namespace.meta.deleting.is_some()),
        refused: None,
        failures: None,
        now,
    })
}

/// The set's own pods. One that matches no more is released, an orphan that does is adopted.
fn members<'a>(
    world: &'a World,
    set: &Object,
    row: &StatefulRow,
    claimed: &mut Vec<Action>,
) -> BTreeMap<i64, Member<'a>> {
    let uid = &set.meta.uid;
    let ending = set.meta.deleting.is_some();
    let mut members = BTreeMap::new();
    for pod in world.claimable(set) {
        let Some(pod_row) = pod.as_pod() else {
            continue;
        };
        let ordinal = pods::ordinal(set, &pod.key.name);
        let ordinal = ordinal.filter(|_| row.selector.matches(&pod.meta.labels));
        let owned = pod.controller().map(|owner| owner.uid == *uid);
        match (owned, ordinal) {
            (Some(false), _) | (None, None) => continue,
            (Some(true), None) if ending => {}
            (Some(true), None) => claimed.push(action::release(pod, uid)),
            (None, Some(_)) if ending || pod.meta.deleting.is_some() => {}
            (owned, Some(ordinal)) => {
                if owned.is_none() {
                    let owner = action::controller_reference(set);
                    claimed.push(action::adopt(pod, owner));
                }
                members.insert(ordinal, Member { pod, row: pod_row });
            }
        }
    }
    members
}

/// Records the revision, or goes one round over the pods; then the status.
pub fn plan(world: &World, view: &View) -> Plan {
    let mut actions = view.claimed.clone();
    let ending = view.object.meta.deleting.is_some() || view.namespace_ending;
    let update = match revisions::standing(world, &view.snapshot(), &view.revisions) {
        Standing::Recorded(revision) => revision,
        _ if ending => {
            return Plan {
                actions,
                again: None,
            };
        }
        Standing::Missing(record) => {
            actions.push(*record);
            return Plan {
                actions,
                again: None,
            };
        }
        Standing::Taken => {
            let count = view.row.status.collisions.saturating_add(1);
            let body = json!({"status": {"collisionCount": count}});
            actions.push(Action::merge(view.object, "status", body));
            return Plan {
                actions,
                again: None,
            };
        }
    };
    actions.extend(told_refusal(view));
    let mut known = view.revisions.iter().copied();
    let current = known.find(|(it, _)| it.key.name == view.row.status.current_revision);
    let mut round = round::Round::new(view, update, current.unwrap_or(update));
    if !ending {
        round.go();
    }
    let (acts, again, status) = round.end();
    actions.extend(acts);
    if status != view.row.status {
        let body = json!({"status": status.to_json()});
        actions.push(Action::merge(view.object, "status", body));
    }
    if !ending {
        actions.extend(clean_up(view, &status));
    }
    Plan { actions, again }
}

/// Says once why a pod could not be made. That the name is taken is only known late, and passes.
fn told_refusal(view: &View) -> Option<Action> {
    let message = view.refused.as_ref()?;
    if message.contains("already exists") {
        return None;
    }
    let missing = view
        .row
        .ordinals()
        .find(|ordinal| !view.members.contains_key(ordinal))?;
    let pod = pods::name(view.object, missing);
    let set = &view.object.key.name;
    let text = format!("create Pod {pod} in StatefulSet {set} failed error: {message}");
    Some(Action::warning(view.object, "FailedCreate", text))
}

/// Deletes the revisions beyond the limit that nothing uses.
fn clean_up(view: &View, status: &StatefulStatus) -> Vec<Action> {
    let members = view.members.values();
    let mut live: BTreeSet<&str> = members.map(|member| pods::revision(member.pod)).collect();
    live.extend([
        status.current_revision.as_str(),
        status.update_revision.as_str(),
    ]);
    let dead = view
        .revisions
        .iter()
        .filter(|(revision, _)| !live.contains(revision.key.name.as_str()));
    let excess = dead.count().saturating_sub(view.row.history_limit);
    revisions::truncate(&view.revisions, &live, excess)
}

#[cfg(test)]
mod tests;
