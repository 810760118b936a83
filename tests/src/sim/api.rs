//! An API server in a map: the product's own defaults, patches and update rules, one revision for
//! all, and a log that watches follow. No HTTP, no store, no clock of its own.

use std::collections::{BTreeMap, BTreeSet};

use api::{self, FieldValidation, Resource, Subresource, disruption, meta, patch};
use client::{ClientError, Kind, PatchKind};
use controllers::object::Key;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::metrics::Metrics;

/// What happened, in order.
pub struct Entry {
    pub kind: Kind,
    pub deleted: bool,
    pub object: Value,
}

/// All objects as they are.
pub struct Api {
    pub now: Timestamp,
    pub log: Vec<Entry>,
    /// Entries of the log that only tell of life.
    pub heartbeats: usize,
    objects: BTreeMap<(Kind, Key), Value>,
    revision: u64,
    uids: u64,
    /// What nodes have said that they applied, and the newest revision that one waits for.
    applied: BTreeMap<String, u64>,
    awaited: u64,
    pub metrics: Metrics,
}

pub type Answer = Result<Value, ClientError>;

impl Api {
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            log: Vec::new(),
            heartbeats: 0,
            objects: BTreeMap::new(),
            revision: 0,
            uids: 0,
            applied: BTreeMap::new(),
            awaited: 0,
            metrics: Metrics::default(),
        }
    }

    /// A node has applied slices up to this revision. False: nobody waits for that.
    pub fn report(&mut self, node: &str, applied: u64) -> bool {
        let said = self.applied.get(node).copied().unwrap_or(0);
        let news = said < self.awaited && said < applied;
        if news {
            self.applied.insert(node.to_owned(), applied);
        }
        news
    }

    /// Whether all these nodes have said that they applied the revision; it is waited for from now on.
    pub fn all_applied(&mut self, revision: u64, nodes: &BTreeSet<String>) -> bool {
        self.awaited = self.awaited.max(revision);
        let said = |node: &String| self.applied.get(node).copied().unwrap_or(0);
        nodes.iter().all(|node| said(node) >= revision)
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, Key::new(namespace, name)))
    }

    pub fn list(&self, kind: Kind) -> Vec<&Value> {
        let all = self.objects.range((kind, Key::default())..);
        let all = all.take_while(|((other, _), _)| *other == kind);
        all.map(|(_, value)| value).collect()
    }

    pub fn create(&mut self, kind: Kind, mut object: Value) -> Answer {
        let resource = resource(kind);
        self.uids += 1;
        if meta::name(&object).is_empty() {
            let prefix = object["metadata"]["generateName"]
                .as_str()
                .unwrap_or_default();
            object["metadata"]["name"] = meta::generated_name(prefix, self.uids).into();
        }
        let namespace = meta::namespace(&object).to_owned();
        let ending = self
            .get(Kind::NAMESPACE, "", &namespace)
            .is_some_and(meta::is_terminating);
        if ending {
            return Err(ClientError::Refused(format!(
                "{namespace} is being terminated"
            )));
        }
        let key = (kind, key_of(&object));
        if self.objects.contains_key(&key) {
            return Err(ClientError::AlreadyExists(key.1.name));
        }
        resource.prepare_for_create(&mut object);
        meta::stamp(&mut object, &format!("uid-{}", self.uids), self.now);
        resource.default(&mut object);
        Ok(self.store(kind, object))
    }

    pub fn patch(
        &mut self,
        kind: Kind,
        key: &Key,
        subresource: &str,
        how: PatchKind,
        body: &Value,
    ) -> Answer {
        let resource = resource(kind);
        let old = self.objects.get(&(kind, key.clone()));
        let old = old
            .ok_or_else(|| ClientError::NotFound(key.name.clone()))?
            .clone();
        for field in ["uid", "resourceVersion"] {
            let wanted = &body["metadata"][field];
            if !wanted.is_null() && *wanted != old["metadata"][field] {
                return Err(ClientError::Conflict(format!("{field} of {}", key.name)));
            }
        }
        let refused = |error: api::ApiError| ClientError::Refused(format!("{error:?}"));
        let patched = match how {
            PatchKind::Merge => patch::merge::apply(resource, &old, body),
            PatchKind::Strategic => patch::strategic::apply(resource, &old, body),
        };
        let decoded = resource.canonical(patched.map_err(refused)?, FieldValidation::Strict);
        let mut new = decoded.map_err(refused)?.object;
        let sub = (subresource == "status").then_some(Subresource::Status);
        resource.prepare_for_update(&mut new, &old, sub);
        resource.default(&mut new);
        Ok(self.update(kind, &old, new))
    }

    /// Takes a namespace's finalizers off.
    pub fn finalize(&mut self, name: &str) -> Answer {
        let old = self.get(Kind::NAMESPACE, "", name);
        let old = old
            .ok_or_else(|| ClientError::NotFound(name.to_owned()))?
            .clone();
        let mut new = old.clone();
        new["spec"]["finalizers"] = json!([]);
        Ok(self.update(Kind::NAMESPACE, &old, new))
    }

    pub fn bind(&mut self, key: &Key, uid: &str, node: &str) -> Result<(), ClientError> {
        let old = self.objects.get(&(Kind::POD, key.clone()));
        let old = old
            .ok_or_else(|| ClientError::NotFound(key.name.clone()))?
            .clone();
        let bound = old["spec"]["nodeName"]
            .as_str()
            .is_some_and(|name| !name.is_empty());
        if meta::uid(&old) != uid || bound || meta::is_terminating(&old) {
            return Err(ClientError::Conflict(key.name.clone()));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = node.into();
        self.update(Kind::POD, &old, new);
        Ok(())
    }

    /// Deletes; the object is given back if it is only marked.
    pub fn delete(
        &mut self,
        kind: Kind,
        key: &Key,
        options: &Value,
    ) -> Result<Option<Value>, ClientError> {
        let old = self.objects.get(&(kind, key.clone()));
        let old = old
            .ok_or_else(|| ClientError::NotFound(key.name.clone()))?
            .clone();
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != old["metadata"]["uid"] {
            return Err(ClientError::Conflict(key.name.clone()));
        }
        let mut new = old.clone();
        let mut finalizers = meta::finalizers(&new);
        finalizers.retain(|name| name != "foregroundDeletion" && name != "orphan");
        match options["propagationPolicy"].as_str() {
            Some("Foreground") => finalizers.push("foregroundDeletion".into()),
            Some("Orphan") => finalizers.push("orphan".into()),
            _ => {}
        }
        let held = kind == Kind::NAMESPACE && !new["spec"]["finalizers"].is_null();
        let finished = matches!(
            new["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        let runs = kind == Kind::POD && !new["spec"]["nodeName"].is_null() && !finished;
        let grace = options["gracePeriodSeconds"].as_i64().unwrap_or(30);
        let waits = !finalizers.is_empty() || held || (runs && grace > 0);
        new["metadata"]["finalizers"] = json!(finalizers);
        if !waits {
            self.remove(kind, &old);
            return Ok(None);
        }
        if pod_is_shut_down(kind, grace) {
            new["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        }
        if !meta::is_terminating(&new) {
            let at = self.now + SignedDuration::from_secs(if runs { grace } else { 0 });
            new["metadata"]["deletionTimestamp"] = meta::timestamp(at).into();
            new["metadata"]["deletionGracePeriodSeconds"] = if runs { grace } else { 0 }.into();
        }
        if kind == Kind::NAMESPACE {
            new["status"]["phase"] = "Terminating".into();
        }
        Ok(Some(self.update(kind, &old, new)))
    }

    /// Evicts a pod, as the server does.
    pub fn evict(&mut self, key: &Key) -> Result<(), api::ApiError> {
        let found = self.objects.get(&(Kind::POD, key.clone()));
        let Some(pod) = found.cloned() else {
            return Ok(());
        };
        let budgets = self.list(Kind::DISRUPTION_BUDGET).into_iter();
        let budget = budgets.cloned().find(|it| disruption::protects(it, &pod));
        if let Some(budget) = budget.filter(|_| !disruption::is_unprotected(&pod))
            && !disruption::spares_unready(&budget, &pod)
        {
            let spent = disruption::spend(&budget, &key.name, self.now)?;
            self.update(Kind::DISRUPTION_BUDGET, &budget, spent);
        }
        self.delete(Kind::POD, key, &json!({}))
            .expect("the pod is there");
        Ok(())
    }

    pub fn keys(&self, kind: Kind, namespace: &str) -> Vec<Key> {
        let all = self.objects.range((kind, Key::new(namespace, ""))..);
        let all = all.map(|(key, _)| key);
        let all = all.take_while(|(other, key)| *other == kind && key.namespace == namespace);
        all.map(|(_, key)| key.clone()).collect()
    }

    /// Stores `new`, or removes it if it was only waiting for its finalizers. Unchanged is no
    /// event.
    fn update(&mut self, kind: Kind, old: &Value, mut new: Value) -> Value {
        if *old == new {
            return new;
        }
        let pod = kind == Kind::POD;
        let spec_held = kind == Kind::NAMESPACE
            && new["spec"]["finalizers"]
                .as_array()
                .is_some_and(|names| !names.is_empty());
        let free = meta::finalizers(&new).is_empty() && !spec_held;
        let runs = pod && new["metadata"]["deletionGracePeriodSeconds"] != 0;
        if meta::is_terminating(&new) && free && !runs {
            self.remove(kind, &new);
            return new;
        }
        if new["metadata"]["finalizers"] == json!([]) {
            new["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("finalizers");
        }
        self.store(kind, new)
    }

    fn store(&mut self, kind: Kind, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.objects.insert((kind, key_of(&object)), object.clone());
        self.heartbeats += usize::from(kind == Kind::LEASE);
        self.log.push(Entry {
            kind,
            deleted: false,
            object: object.clone(),
        });
        object
    }

    fn remove(&mut self, kind: Kind, object: &Value) {
        self.revision += 1;
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.objects.remove(&(kind, key_of(&object)));
        self.log.push(Entry {
            kind,
            deleted: true,
            object,
        });
    }
}

/// An agent is done with a pod that a finalizer still keeps.
fn pod_is_shut_down(kind: Kind, grace: i64) -> bool {
    kind == Kind::POD && grace == 0
}

pub fn key_of(object: &Value) -> Key {
    Key::new(meta::namespace(object), meta::name(object))
}

fn resource(kind: Kind) -> &'static Resource {
    api::find_kind(kind.group, kind.version, kind.kind).expect("every kind here is served")
}
