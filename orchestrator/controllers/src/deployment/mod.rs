//! Deployments: a set for each template, rolled from the old ones to the new one. Pure.

pub mod revision;
pub mod rollback;
pub mod rollout;
mod scale;
pub mod status;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use serde_json::{Value, json};

use self::revision::{DESIRED, HASH_LABEL, MAX};
use self::rollout::{Bounds, Size};
use self::status::Step;
use super::action::{self, Action, Create, Plan};
use super::controller::{Controller, Due, Ending, Watches};
use super::object::{Key, Object, Owner};
use super::replication::row::SetRow;
use super::world::{Address, Diff, World};
use api::selector::LabelSelector;
use client::Kind;

/// Rolls Deployments. Its work is about a Deployment.
#[derive(Default)]
pub struct DeploymentController {
    /// By Deployment: why its new set could not be made, until that is told.
    refused: BTreeMap<Address, String>,
}

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployments"
    }

    fn account(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::DEPLOYMENT, Kind::REPLICA_SET, Kind::POD])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        for object in diff.versions() {
            match object.kind {
                Kind::DEPLOYMENT => drop(due.insert((object.kind, object.key.clone()))),
                Kind::REPLICA_SET => due.extend(of_set(world, object)),
                _ => due.extend(of_pod(world, object)),
            }
        }
    }

    fn hear(&mut self, diff: &Diff, _now: Timestamp) {
        if diff.new.is_none() {
            let object = diff.object();
            self.refused.remove(&(object.kind, object.key.clone()));
        }
    }

    fn plan(&mut self, world: &World, about: &Address, now: Timestamp) -> Option<Plan> {
        let mut view = gather(world, &about.1, now)?;
        view.refused = self.refused.remove(about);
        Some(plan(&view))
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

/// The Deployment that controls the set; for an orphan those that select it, and the one that it is named
/// after: its new set may want that name.
fn of_set(world: &World, set: &Object) -> Due {
    let Some(owner) = set.controller() else {
        let mut due = world.selecting(set);
        due.retain(|(kind, _)| *kind == Kind::DEPLOYMENT);
        let name = set.key.name.rsplit_once('-').map(|(name, _)| name);
        due.extend(name.map(|name| (Kind::DEPLOYMENT, Key::new(&set.key.namespace, name))));
        return due;
    };
    let owner = world.by_uid(&owner.uid);
    let owner = owner.filter(|owner| owner.kind == Kind::DEPLOYMENT);
    owner
        .map(|owner| (owner.kind, owner.key.clone()))
        .into_iter()
        .collect()
}

/// A Deployment that recreates waits for the last old pod to be gone.
fn of_pod(world: &World, pod: &Object) -> Due {
    let ended = pod.as_pod().is_some_and(|row| row.finished());
    if !ended && world.get(Kind::POD, &pod.key).is_some() {
        return Due::new();
    }
    let set = pod.controller().and_then(|owner| world.by_uid(&owner.uid));
    let set = set.filter(|set| set.as_set().is_some());
    set.map(|set| of_set(world, set)).unwrap_or_default()
}

/// A ReplicaSet and its row.
pub type SetRef<'a> = (&'a Object, &'a SetRow);

/// What a plan for one Deployment is made from.
pub struct View<'a> {
    pub object: &'a Object,
    pub deployment: &'a Deployment,
    /// The sets that it controls and that its selector matches, oldest first.
    pub sets: Vec<SetRef<'a>>,
    /// Orphans to adopt and own sets that match no more.
    pub claims: Vec<Action>,
    /// Pods of sets other than the new one still run or end.
    pub old_pods_left: bool,
    /// The name of the new set is taken by another one.
    pub collision: bool,
    pub namespace_ending: bool,
    /// Why the new set could not be made.
    pub refused: Option<String>,
    pub now: Timestamp,
}

impl View<'_> {
    pub fn spec(&self) -> &DeploymentSpec {
        static NONE: std::sync::LazyLock<DeploymentSpec> =
            std::sync::LazyLock::new(DeploymentSpec::default);
        self.deployment.spec.as_ref().unwrap_or(&NONE)
    }

    fn bounds(&self) -> Bounds {
        let spec = self.spec();
        let wanted = spec.replicas.unwrap_or(1);
        let rolling = spec
            .strategy
            .as_ref()
            .and_then(|s| s.rolling_update.as_ref());
        match rolling {
            _ if self.recreates() => Bounds {
                wanted,
                max_surge: 0,
                max_unavailable: 0,
            },
            Some(r) => Bounds::resolve(wanted, r.max_surge.as_ref(), r.max_unavailable.as_ref()),
            None => {
                let quarter =
                    k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("25%".into());
                Bounds::resolve(wanted, Some(&quarter), Some(&quarter))
            }
        }
    }

    fn recreates(&self) -> bool {
        let strategy = self.spec().strategy.as_ref();
        strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
    }

    /// The name that the set of the current template gets.
    fn new_name(&self) -> String {
        format!("{}-{}", self.object.key.name, self.hash())
    }

    fn hash(&self) -> String {
        let collisions = self
            .deployment
            .status
            .as_ref()
            .and_then(|s| s.collision_count);
        revision::template_hash(&self.spec().template, collisions.unwrap_or(0))
    }
}

/// Collects the view of the Deployment at `key`.
pub fn gather<'a>(world: &'a World, key: &Key, now: Timestamp) -> Option<View<'a>> {
    let object = world.get(Kind::DEPLOYMENT, key)?;
    let deployment = object.as_deployment()?.as_ref();
    let spec = deployment.spec.as_ref()?;
    let selector = LabelSelector::from_object(Some(&spec.selector)).ok()?;
    if selector.is_everything() {
        return None;
    }
    let (mut sets, claims) = claim(world, object, &selector);
    sets.sort_by_key(|(set, _)| (set.meta.created, set.key.clone()));
    let new = revision::find_new(&spec.template, &sets);
    let old_pods_left = sets
        .iter()
        .filter(|(set, _)| new.is_none_or(|(new, _)| new.key != set.key))
        .flat_map(|(set, _)| world.dependents(&set.meta.uid))
        .any(|pod| pod.as_pod().is_some_and(|row| !row.finished()));
    let namespace = world.get(Kind::NAMESPACE, &Key::new("", &key.namespace));
    let mut view = View {
        object,
        deployment,
        sets,
        claims,
        old_pods_left,
        collision: false,
        namespace_ending: namespace.is_some_and(|namespace| namespace.meta.deleting.is_some()),
        refused: None,
        now,
    };
    let name = Key::new(&key.namespace, &view.new_name());
    view.collision = new.is_none() && world.get(Kind::REPLICA_SET, &name).is_some();
    Some(view)
}

/// One step of the rollout, and the status.
pub fn plan(view: &View) -> Plan {
    let mut actions = view.claims.clone();
    let new = revision::find_new(&view.spec().template, &view.sets);
    if view.object.meta.deleting.is_some() || view.namespace_ending {
        return finish(view, actions, new, &Step::Nothing);
    }
    if let Some(back) = rollback::due(view, new) {
        actions.extend(back);
        return Plan {
            actions,
            again: None,
        };
    }
    if let Some(step) = pause_step(view) {
        return finish(view, actions, new, &step);
    }
    if view.spec().paused == Some(true) || scale::is_scaling(view) {
        actions.extend(scale::scale(view, new));
        if view.spec().paused == Some(true) {
            clean_up(view, new, &mut actions);
        }
        return finish(view, actions, new, &Step::Nothing);
    }
    if view.recreates() && shrink_all_old(view, new, &mut actions) {
        return finish(view, actions, new, &Step::Nothing);
    }
    let Some(new) = new else {
        if view.collision {
            return finish(view, actions, None, &Step::Nothing);
        }
        let (name, create) = create_new(view);
        let refused = view.refused.clone();
        let refused = refused.filter(|why| !why.contains("already exists"));
        let Some(why) = refused else {
            actions.extend(create);
            return finish(view, actions, None, &Step::Created(name));
        };
        // It is told before it is tried again.
        let text = format!("Failed to create new replica set \"{name}\": {why}");
        actions.push(Action::warning(view.object, status::REFUSED, text));
        let mut plan = finish(view, actions, None, &Step::Refused(name, why));
        plan.actions.extend(create);
        return plan;
    };
    let step = adopt_revision(view, new, &mut actions);
    roll(view, new, &mut actions);
    clean_up(view, Some(new), &mut actions);
    finish(view, actions, Some(new), &step)
}

fn finish(view: &View, mut actions: Vec<Action>, new: Option<SetRef>, step: &Step) -> Plan {
    let (next, again) = status::status(view, view.bounds(), new, step);
    actions.extend(status::write(view, &next));
    Plan { actions, again }
}

/// Adopts matching sets without a controller, releases own ones that match no more.
fn claim<'a>(
    world: &'a World,
    deployment: &Object,
    selector: &LabelSelector,
) -> (Vec<SetRef<'a>>, Vec<Action>) {
    let uid = &deployment.meta.uid;
    let ending = deployment.meta.deleting.is_some();
    let mut sets = Vec::new();
    let mut claims = Vec::new();
    let sets_of = world.claimable(deployment).into_iter();
    for (set, row) in sets_of.filter_map(|set| Some((set, set.as_set()?.as_ref()))) {
        let matches = selector.matches(&set.meta.labels);
        match set.controller().map(|owner: &Owner| owner.uid == *uid) {
            Some(true) if matches => sets.push((set, row)),
            Some(true) if !ending => claims.push(action::release(set, uid)),
            None if matches && !ending && set.meta.deleting.is_none() => {
                claims.push(action::adopt(set, action::controller_reference(deployment)));
                sets.push((set, row));
            }
            _ => {}
        }
    }
    (sets, claims)
}

/// Pausing and resuming are told in the condition Progressing, once.
fn pause_step(view: &View) -> Option<Step> {
    let conditions = view
        .deployment
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_ref());
    let current = conditions.and_then(|c| c.iter().find(|c| c.type_ == "Progressing"));
    let reason = current
        .and_then(|c| c.reason.as_deref())
        .unwrap_or_default();
    if reason == "ProgressDeadlineExceeded" || view.spec().progress_deadline_seconds.is_none() {
        return None;
    }
    match (
        view.spec().paused == Some(true),
        reason == "DeploymentPaused",
    ) {
        (true, false) => Some(Step::Paused),
        (false, true) => Some(Step::Resumed),
        _ => None,
    }
}

/// For Recreate: true until no old pod is left.
fn shrink_all_old(view: &View, new: Option<SetRef>, actions: &mut Vec<Action>) -> bool {
    let old = old_sets(view, new);
    let before = actions.len();
    actions.extend(
        old.iter()
            .filter_map(|set| scale::resize(view, *set, 0))
            .flatten(),
    );
    actions.len() > before || view.old_pods_left
}

/// Gives the new set the next revision, and the Deployment the set's.
fn adopt_revision(view: &View, new: SetRef, actions: &mut Vec<Action>) -> Step {
    let (set, row) = new;
    let next = next_revision(view, Some(new));
    let wanted = revision::new_set_annotations(view.deployment, &row.annotations, next);
    let min_ready = view.spec().min_ready_seconds.unwrap_or(0);
    if wanted != row.annotations || min_ready != row.min_ready_seconds {
        let body = json!({
            "metadata": {"annotations": wanted},
            "spec": {"minReadySeconds": min_ready},
        });
        actions.push(Action::merge(set, "", body));
    }
    let revision = revision::revision(&wanted);
    let annotations = view
        .deployment
        .metadata
        .annotations
        .clone()
        .unwrap_or_default();
    if revision::revision(&annotations) != revision {
        // Through the status: what a controller notes down is no new generation of the object.
        let body = json!({"metadata": {"annotations": {revision::REVISION: revision.to_string()}}});
        actions.push(Action::merge(view.object, "status", body));
    }
    let conditions = view
        .deployment
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_ref());
    let told = conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Progressing"));
    if told {
        Step::Nothing
    } else {
        Step::Found(set.key.name.clone())
    }
}

/// One above the old sets' revisions.
fn next_revision(view: &View, new: Option<SetRef>) -> i64 {
    let old = old_sets(view, new);
    old.iter()
        .map(|(_, row)| revision::revision(&row.annotations))
        .max()
        .unwrap_or(0)
        + 1
}

fn old_sets<'a>(view: &View<'a>, new: Option<SetRef>) -> Vec<SetRef<'a>> {
    let is_new = |set: &Object| new.is_some_and(|(new, _)| new.key == set.key);
    view.sets
        .iter()
        .filter(|(set, _)| !is_new(set))
        .copied()
        .collect()
}

fn create_new(view: &View) -> (String, Vec<Action>) {
    let spec = view.spec();
    let (name, hash) = (view.new_name(), view.hash());
    let bounds = view.bounds();
    let total: i32 = view.sets.iter().map(|(_, row)| row.replicas).sum();
    let replicas = bounds.new_size(total, 0);
    let mut annotations = revision::new_set_annotations(
        view.deployment,
        &Default::default(),
        next_revision(view, None),
    );
    annotations.insert(DESIRED.to_owned(), bounds.wanted.to_string());
    annotations.insert(MAX.to_owned(), bounds.max_total().to_string());
    let mut template = spec.template.clone();
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH_LABEL.to_owned(), hash);
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": view.object.key.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": action::owners_json(&[action::controller_reference(view.object)]),
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": spec.min_ready_seconds.unwrap_or(0),
            "selector": selector,
            "template": template,
        },
    });
    let create = Action::Create(Create {
        kind: Kind::REPLICA_SET,
        namespace: view.object.key.namespace.clone(),
        object,
        if_absent: false,
        about: None,
    });
    let text = format!("Scaled up replica set {name} from 0 to {replicas}");
    let mut actions = vec![create];
    if replicas > 0 {
        actions.push(Action::normal(view.object, "ScalingReplicaSet", text));
    }
    (name, actions)
}

/// One step towards the new set: grow it, or else shrink the old ones.
fn roll(view: &View, new: SetRef, actions: &mut Vec<Action>) {
    let bounds = view.bounds();
    let total: i32 = view.sets.iter().map(|(_, row)| row.replicas).sum();
    let grown = bounds.new_size(total, new.1.replicas);
    if grown != new.1.replicas {
        actions.extend(scale::resize(view, new, grown).into_iter().flatten());
        return;
    }
    if view.recreates() {
        return;
    }
    let old = old_sets(view, Some(new));
    let sizes: Vec<Size> = old.iter().map(|(_, row)| size(row)).collect();
    for (set, replicas) in old.into_iter().zip(bounds.old_sizes(size(new.1), &sizes)) {
        actions.extend(scale::resize(view, set, replicas).into_iter().flatten());
    }
}

fn size(row: &SetRow) -> Size {
    Size {
        replicas: row.replicas,
        available: row.status.available,
    }
}

/// Deletes the oldest empty sets beyond the history limit, once the rollout is complete or while it is paused.
fn clean_up(view: &View, new: Option<SetRef>, actions: &mut Vec<Action>) {
    let Some(limit) = view.spec().revision_history_limit.or(Some(10)) else {
        return;
    };
    let (next, _) = status::status(view, view.bounds(), new, &Step::Nothing);
    let complete = status::complete(view.spec().replicas.unwrap_or(1), &next);
    if !complete && view.spec().paused != Some(true) {
        return;
    }
    actions.extend(new.filter(|_| complete).and_then(rollback::forgive));
    let mut old = old_sets(view, new);
    old.retain(|(set, _)| set.meta.deleting.is_none());
    old.sort_by_key(|(set, row)| (revision::revision(&row.annotations), set.meta.created));
    let excess = old
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(0));
    for (set, row) in old.into_iter().take(excess) {
        let settled = set.meta.generation <= row.status.observed_generation;
        if row.replicas == 0 && row.status.replicas == 0 && settled {
            actions.push(Action::delete(set));
        }
    }
}

/// The two annotations that tell a set what the Deployment wanted when it was sized.
fn sized_for(bounds: Bounds) -> Value {
    json!({DESIRED: bounds.wanted.to_string(), MAX: bounds.max_total().to_string()})
}

#[cfg(test)]
mod tests;
