//! Rolls a workload out when a ConfigMap or Secret that its template refers to has changed, where an annotation
//! asks for it: what every chart does by a checksum in its template. Pure.
//!
//! ```text
//! ConfigMap, Secret ─▶ workloads that refer to it and are annotated ─▶ digest, unlike the one noted?
//!                                                                        └▶ template annotation ─▶ a rollout
//! ```
//!
//! What is noted first causes no rollout, nor does a template that refers to other objects than before: that
//! rolls out by itself. An object that is not there (yet) is waited for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::action::{Action, Plan};
use super::controller::{Controller, Due, Watches};
use super::object::{Body, Key, Object};
use super::revisions;
use super::world::{Address, Diff, World};
use client::Kind;

/// On a Deployment, StatefulSet or DaemonSet, ours: `true` asks for it.
pub const ASKS: &str = "orchestrator.io/rollout-on-config-change";
/// On the same, written here: which objects were referred to, and what they said.
const SEEN: &str = "orchestrator.io/config-seen";
/// On the template, written here: what they say now.
const CONFIG: &str = "orchestrator.io/config-hash";

const WORKLOADS: [Kind; 3] = [Kind::DEPLOYMENT, Kind::STATEFUL_SET, Kind::DAEMON_SET];

/// Its work is about a workload.
#[derive(Default)]
pub struct ConfigRolloutController {
    /// By ConfigMap or Secret: the annotated workloads that refer to it.
    referring: BTreeMap<Address, BTreeSet<Address>>,
    /// By workload: what it refers to.
    references: BTreeMap<Address, Vec<Reference>>,
}

/// A ConfigMap or Secret that a template names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Reference {
    target: Address,
    optional: bool,
}

impl Controller for ConfigRolloutController {
    fn name(&self) -> &'static str {
        "config-rollouts"
    }

    fn account(&self) -> &'static str {
        "config-rollout-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[
            Kind::DEPLOYMENT,
            Kind::STATEFUL_SET,
            Kind::DAEMON_SET,
            Kind::CONFIG_MAP,
            Kind::SECRET,
        ])
    }

    fn hear(&mut self, diff: &Diff, _now: Timestamp) {
        let object = diff.object();
        if !WORKLOADS.contains(&object.kind) {
            return;
        }
        let address = (object.kind, object.key.clone());
        for old in self.references.remove(&address).into_iter().flatten() {
            if let Some(referring) = self.referring.get_mut(&old.target) {
                referring.remove(&address);
                if referring.is_empty() {
                    self.referring.remove(&old.target);
                }
            }
        }
        let Some(workload) = diff.new.as_deref().and_then(Workload::of) else {
            return;
        };
        let references = references(&workload.template, &object.key.namespace);
        for reference in &references {
            let referring = self.referring.entry(reference.target.clone()).or_default();
            referring.insert(address.clone());
        }
        self.references.insert(address, references);
    }

    fn due(&self, _world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        let address = (object.kind, object.key.clone());
        if self.references.contains_key(&address) {
            due.insert(address);
        } else if let Some(referring) = self.referring.get(&address) {
            due.extend(referring.iter().cloned());
        }
    }

    fn plan(&mut self, world: &World, about: &Address, _now: Timestamp) -> Option<Plan> {
        let object = world.get(about.0, &about.1)?;
        let workload = Workload::of(object)?;
        let references = self.references.get(about)?;
        let seen = seen(world, references)?;
        let actions = plan(object, &workload, &seen);
        Some(Plan {
            actions,
            again: None,
        })
    }
}

/// An annotated workload.
struct Workload {
    noted: Option<String>,
    template: Value,
}

impl Workload {
    fn of(object: &Object) -> Option<Self> {
        match &object.body {
            Body::Deployment(deployment) => {
                let annotations = deployment.metadata.annotations.as_ref()?;
                let template = &deployment.spec.as_ref()?.template;
                Self::from(annotations, || json!(template))
            }
            Body::StatefulSet(row) => Self::from(&row.annotations, || row.template.clone()),
            Body::DaemonSet(row) => Self::from(&row.annotations, || row.template.clone()),
            _ => None,
        }
    }

    fn from(
        annotations: &BTreeMap<String, String>,
        template: impl FnOnce() -> Value,
    ) -> Option<Self> {
        let asks = annotations.get(ASKS).is_some_and(|value| value == "true");
        asks.then(|| Self {
            noted: annotations.get(SEEN).cloned(),
            template: template(),
        })
    }
}

/// `OBJECTS.CONTENTS`, a hash each. None: an object is waited for.
fn seen(world: &World, references: &[Reference]) -> Option<String> {
    let (mut names, mut contents) = (String::new(), String::new());
    for Reference { target, optional } in references {
        let content = match world.get(target.0, &target.1) {
            Some(object) => content(object),
            None if *optional => "absent".to_owned(),
            None => return None,
        };
        let name = format!("{}/{};", target.0.kind, target.1.name);
        contents.push_str(&format!("{name}{content};"));
        names.push_str(&name);
    }
    let hash = |text: String| revisions::hash(&text.into(), 0);
    Some(format!("{}.{}", hash(names), hash(contents)))
}

/// Of a ConfigMap what it says. Of a Secret when it was written: a hash of it would help to guess it.
fn content(object: &Object) -> String {
    match &object.body {
        Body::Config { hash } => hash.clone(),
        _ => object.meta.revision.to_string(),
    }
}

fn plan(object: &Object, workload: &Workload, seen: &str) -> Vec<Action> {
    let noted = workload.noted.as_deref();
    if noted == Some(seen) {
        return Vec::new();
    }
    let mut body = json!({"metadata": {"annotations": {SEEN: seen}}});
    let objects = |text: &str| text.split('.').next().map(str::to_owned);
    if noted.is_none() || noted.and_then(objects) != objects(seen) {
        return vec![Action::merge(object, "", body)];
    }
    let contents = seen.rsplit('.').next().unwrap_or_default();
    body["spec"]["template"]["metadata"]["annotations"][CONFIG] = contents.into();
    let text = "A ConfigMap or Secret of the template has changed".to_owned();
    vec![
        Action::merge(object, "", body),
        Action::normal(object, "ConfigurationChanged", text),
    ]
}

/// What the containers and volumes of a template take from ConfigMaps and Secrets.
fn references(template: &Value, namespace: &str) -> Vec<Reference> {
    let spec = &template["spec"];
    let mut found: BTreeMap<Address, bool> = BTreeMap::new();
    let mut note = |kind: Kind, source: &Value, name: &str| {
        if let Some(name) = source[name].as_str() {
            let optional = source["optional"] == true;
            let target = (kind, Key::new(namespace, name));
            // One that has to be there somewhere has to be there.
            let known = found.entry(target).or_insert(true);
            *known = *known && optional;
        }
    };
    for list in ["containers", "initContainers"] {
        for container in list_of(spec, list) {
            for source in list_of(container, "envFrom") {
                note(Kind::CONFIG_MAP, &source["configMapRef"], "name");
                note(Kind::SECRET, &source["secretRef"], "name");
            }
            for variable in list_of(container, "env") {
                let source = &variable["valueFrom"];
                note(Kind::CONFIG_MAP, &source["configMapKeyRef"], "name");
                note(Kind::SECRET, &source["secretKeyRef"], "name");
            }
        }
    }
    for volume in list_of(spec, "volumes") {
        note(Kind::CONFIG_MAP, &volume["configMap"], "name");
        note(Kind::SECRET, &volume["secret"], "secretName");
        for source in list_of(&volume["projected"], "sources") {
            note(Kind::CONFIG_MAP, &source["configMap"], "name");
            note(Kind::SECRET, &source["secret"], "name");
        }
    }
    let reference = |(target, optional)| Reference { target, optional };
    found.into_iter().map(reference).collect()
}

fn list_of<'a>(value: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    value[list].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests;
