//! DELETE of an object or of a selection: at once, after a grace period, or when the last
//! finalizer is gone.

use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::list::Selection;
use super::{Answer, Call};
use crate::audit::Level;
use crate::cache::Cached;
use crate::objects::{Current, WriteError};
use crate::request::Query;
use crate::wire::ListMeta;
use crate::write::{Part, RETRIES, Writer};
use crate::{State, custom, negotiate, options, reply};
use api::{self, ApiError, Behaviour, Resource, meta};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// How many objects of a collection are deleted side by side.
const DELETED_AT_ONCE: usize = 32;
/// Namespaces that the cluster cannot do without.
const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

/// What the client asks for, from the query or the body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
    /// The node that asks: it deletes pods that are bound to it.
    bound_to: Option<String>,
}

/// What becomes of the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// What a deletion does to an object.
#[derive(Debug, PartialEq)]
enum Plan {
    /// It goes now.
    Remove,
    /// It is told to go.
    Mark(Box<Value>),
    /// It is going already.
    Leave,
}

/// What was done.
pub enum Outcome {
    Gone(Current),
    Going(Bytes),
}

/// DELETE of one object.
pub async fn delete(call: &Call) -> Answer {
    let options = Options::of(call)?;
    let resource = call.resource();
    let outcome = delete_one(call, call.namespace(), call.name(), &options).await?;
    match outcome {
        Outcome::Going(bytes) => call.show(bytes, StatusCode::OK).await,
        Outcome::Gone(old) if resource.answers_with_object => {
            call.show(old.bytes, StatusCode::OK).await
        }
        Outcome::Gone(old) => {
            let details = json!({
                "name": call.name(),
                "group": resource.group,
                "kind": resource.plural,
                "uid": meta::uid(&old.value),
            });
            Ok(reply::success(&call.wanted, StatusCode::OK, details))
        }
    }
}

/// DELETE of all that a selection holds; answers what was in it.
pub async fn delete_collection(call: &Call) -> Answer {
    let options = Options::of(call)?;
    let resource = call.storage();
    let selection = Selection::of(&call.target.served, &call.query)?;
    let (revision, all) = call
        .state
        .objects
        .cache
        .list(resource, call.target.namespace.as_deref());
    let mut deletions = Vec::new();
    for object in selection.among(call, all).await? {
        deletions.push(delete_listed(call, object, &options));
    }
    // Several at once share one sync of the disk.
    let items: Vec<Option<Bytes>> = stream::iter(deletions)
        .buffered(DELETED_AT_ONCE)
        .try_collect()
        .await?;
    let items: Vec<Bytes> = items.into_iter().flatten().collect();
    let page = ListMeta {
        revision,
        ..ListMeta::default()
    };
    call.show_all(&page, items, reply::whole).await
}

/// One of a collection: what was in it, or nothing if somebody else was faster.
async fn delete_listed(
    call: &Call,
    object: Arc<Cached>,
    options: &Options,
) -> Result<Option<Bytes>, ApiError> {
    let (namespace, name) = (object.namespace(), object.name());
    match delete_one(call, namespace, name, options).await {
        Ok(Outcome::Gone(_)) => Ok(Some(object.bytes())),
        Ok(Outcome::Going(bytes)) => Ok(Some(bytes)),
        Err(ApiError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The server deletes an object by itself; one that is gone already is none to complain of.
pub async fn by_server(
    state: &State,
    resource: &Arc<Resource>,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    let writer = Writer {
        part: Part::Deletion,
        ..Writer::server(state, resource)
    };
    match delete_by(&writer, namespace, name, &Options::default()).await {
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes one object as the call's user.
pub async fn delete_one(
    call: &Call,
    namespace: &str,
    name: &str,
    options: &Options,
) -> Result<Outcome, ApiError> {
    let as_json = options.as_json();
    let writer = call.writer(Part::Deletion)?;
    let writer = Writer {
        manager: None,
        dry_run: options.dry_run,
        asked: writer.asked.map(|asked| asked.deleting(&as_json)),
        ..writer
    };
    delete_by(&writer, namespace, name, options).await
}

async fn delete_by(
    writer: &Writer<'_>,
    namespace: &str,
    name: &str,
    options: &Options,
) -> Result<Outcome, ApiError> {
    let (state, resource) = (writer.state, writer.resource);
    let mut is_admitted = false;
    let mut turn = None;
    for _ in 0..RETRIES {
        let current = state.objects.current(resource, namespace, name)?;
        options.check(resource, &current)?;
        let plan = plan(resource, &current.value, options, Timestamp::now())?;
        if !is_admitted {
            writer.may_delete(&current).await?;
            is_admitted = true;
        }
        let written = match plan {
            Plan::Leave => return Ok(Outcome::Going(current.bytes)),
            Plan::Remove if options.dry_run => return Ok(Outcome::Gone(current)),
            Plan::Mark(_) if options.dry_run => return Ok(Outcome::Going(current.bytes)),
            Plan::Remove => {
                let removed = writer.remove(&current).await;
                removed.map(|()| Outcome::Gone(current))
            }
            Plan::Mark(new) => {
                let marked = writer.update(&current, *new).await;
                marked.map(Outcome::Going)
            }
        };
        match written {
            Ok(outcome) => return Ok(outcome),
            Err(WriteError::Failed(error)) => return Err(error),
            Err(WriteError::Changed) => {}
        }
        let objects = &state.objects;
        objects
            .wait_for_turn(&mut turn, resource, namespace, name)
            .await;
    }
    Err(ApiError::modified(resource, name))
}

/// What the deletion does, from the object, the options and the time alone.
fn plan(
    resource: &Resource,
    object: &Value,
    options: &Options,
    now: Timestamp,
) -> Result<Plan, ApiError> {
    let is_plain = !matches!(
        resource.behaviour,
        Behaviour::Namespace | Behaviour::Pod | Behaviour::Definition
    );
    // What most objects are: nothing waits for them, and nothing is to.
    let adds_finalizer = !matches!(options.propagation, None | Some(Propagation::Background));
    if is_plain && !adds_finalizer && meta::finalizers(object).is_empty() {
        return Ok(Plan::Remove);
    }
    let mut new = object.clone();
    set_finalizers(&mut new, options.propagation);
    let waits = !meta::finalizers(&new).is_empty();
    match resource.behaviour {
        Behaviour::Namespace => plan_namespace(resource, new, waits, now),
        Behaviour::Pod => Ok(plan_pod(new, waits, options, now)),
        Behaviour::Definition => Ok(plan_definition(object, new, now)),
        _ if !waits => Ok(Plan::Remove),
        _ if meta::is_terminating(&new) && new == *object => Ok(Plan::Leave),
        _ => Ok(Plan::Mark(Box::new(mark(new, 0, now)))),
    }
}

fn plan_namespace(
    resource: &Resource,
    mut new: Value,
    waits: bool,
    now: Timestamp,
) -> Result<Plan, ApiError> {
    let name = meta::name(&new).to_owned();
    if IMMORTAL.contains(&name.as_str()) {
        return Err(ApiError::forbidden(
            resource,
            &name,
            "this namespace may not be deleted",
        ));
    }
    let holds = new["spec"]["finalizers"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    if !waits && !holds {
        return Ok(Plan::Remove);
    }
    if meta::is_terminating(&new) {
        let why = "The system is ensuring all content is removed from this namespace.  Upon \
                   completion, this namespace will automatically be purged by the system.";
        return Err(ApiError::conflict(resource, &name, why));
    }
    new["status"]["phase"] = "Terminating".into();
    Ok(Plan::Mark(Box::new(mark(new, 0, now))))
}

/// A definition goes after the objects of its kind.
fn plan_definition(object: &Value, mut new: Value, now: Timestamp) -> Plan {
    if meta::is_terminating(object) {
        return match new == *object {
            true => Plan::Leave,
            false => Plan::Mark(Box::new(new)),
        };
    }
    let mut finalizers = meta::finalizers(&new);
    if !finalizers
        .iter()
        .any(|finalizer| finalizer == custom::CLEANUP)
    {
        finalizers.push(custom::CLEANUP.to_owned());
    }
    new["metadata"]["finalizers"] = finalizers.into();
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin \
                   soon";
    let reason = "InstanceDeletionPending";
    custom::set_condition(&mut new, "Terminating", "True", reason, message, now);
    Plan::Mark(Box::new(mark(new, 0, now)))
}

/// A pod that a node runs gets time to end; the node's agent confirms with a grace period of 0.
fn plan_pod(mut new: Value, waits: bool, options: &Options, now: Timestamp) -> Plan {
    let ended = matches!(
        new["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    let bound = new["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty());
    let own = new["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(30);
    let asked = match options.grace_seconds {
        Some(seconds) if seconds < 0 => Some(1),
        other => other,
    };
    let mut grace = if bound && !ended {
        asked.unwrap_or(own)
    } else {
        0
    };
    let before = new["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if let Some(before) = before.filter(|_| meta::is_terminating(&new)) {
        // A second deletion may only shorten the first.
        if asked.is_none() && bound && !ended || grace >= before && (before > 0 || waits) {
            return Plan::Leave;
        }
        grace = grace.min(before);
        if grace > 0 {
            let ends = new["metadata"]["deletionTimestamp"]
                .as_str()
                .unwrap_or_default();
            let ends = ends.parse().unwrap_or(now);
            let ends = shifted(ends, grace - before);
            new["metadata"]["deletionTimestamp"] = meta::timestamp(ends).into();
            new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
            return Plan::Mark(Box::new(new));
        }
    }
    if grace == 0 && !waits {
        return Plan::Remove;
    }
    Plan::Mark(Box::new(mark(new, grace, now)))
}

/// Says in the metadata that the object is to go, and when.
fn mark(mut object: Value, grace_seconds: i64, now: Timestamp) -> Value {
    let metadata = &mut object["metadata"];
    // An object that is going already keeps its time, unless the new one is earlier.
    let ends = shifted(now, grace_seconds);
    let before = metadata["deletionTimestamp"]
        .as_str()
        .and_then(|time| time.parse().ok());
    if before.is_none_or(|before: Timestamp| ends < before) {
        metadata["deletionTimestamp"] = meta::timestamp(ends).into();
    }
    metadata["deletionGracePeriodSeconds"] = grace_seconds.into();
    if let Some(generation) = metadata["generation"].as_i64().filter(|number| *number > 0) {
        metadata["generation"] = (generation + 1).into();
    }
    object
}

fn shifted(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds))
        .unwrap_or(at)
}

/// The garbage collector works by finalizers: it removes them when its part is done.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else {
        return;
    };
    let mut finalizers = meta::finalizers(object);
    finalizers.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
    match propagation {
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
        Propagation::Background => {}
    }
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return;
    };
    match finalizers.is_empty() {
        true => metadata.remove("finalizers"),
        false => metadata.insert("finalizers".to_owned(), finalizers.into()),
    };
}

impl Options {
    /// As admission shows them.
    fn as_json(&self) -> Value {
        let mut json = json!({});
        if let Some(seconds) = self.grace_seconds {
            json["gracePeriodSeconds"] = seconds.into();
        }
        let propagation = self.propagation.map(|propagation| match propagation {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        });
        if let Some(word) = propagation {
            json["propagationPolicy"] = word.into();
        }
        for (field, required) in [
            ("uid", &self.uid),
            ("resourceVersion", &self.resource_version),
        ] {
            if let Some(required) = required {
                json["preconditions"][field] = required.as_str().into();
            }
        }
        if self.dry_run {
            json["dryRun"] = json!(["All"]);
        }
        json
    }

    fn of(call: &Call) -> Result<Self, ApiError> {
        let mut options = Self::from_query(&call.query)?;
        options.bound_to = call.user.node().map(str::to_owned);
        if call.body.is_empty() {
            return Ok(options);
        }
        let format = negotiate::body_format(&call.headers)?;
        let body = api::decode::delete_options(&call.body, format)?;
        if call.trail.is_at(Level::Request) {
            call.trail.sent_patch(&json!(body));
        }
        options.take(body)?;
        Ok(options)
    }

    /// What the body says counts more.
    pub fn take(&mut self, body: DeleteOptions) -> Result<(), ApiError> {
        let dry = body.dry_run.unwrap_or_default();
        let (policy, orphan) = (body.propagation_policy.as_deref(), body.orphan_dependents);
        options::check_deletion(dry.iter().map(String::as_str), policy, orphan.is_some())?;
        self.grace_seconds = body.grace_period_seconds.or(self.grace_seconds);
        self.propagation = policy.and_then(Propagation::parse).or(self.propagation);
        if let Some(orphan) = orphan {
            self.propagation = Some(Propagation::of_orphan(orphan));
        }
        let preconditions = body.preconditions.unwrap_or_default();
        self.uid = preconditions.uid;
        self.resource_version = preconditions.resource_version;
        self.dry_run |= dry.iter().any(|value| value == "All");
        Ok(())
    }

    pub fn from_query(query: &Query) -> Result<Self, ApiError> {
        let policy = query
            .get("propagationPolicy")
            .filter(|policy| !policy.is_empty());
        let orphan = query
            .optional_flag("orphanDependents")
            .map(Propagation::of_orphan);
        Ok(Self {
            grace_seconds: query.number("gracePeriodSeconds")?,
            propagation: policy.and_then(Propagation::parse).or(orphan),
            dry_run: query.dry_run(),
            ..Self::default()
        })
    }

    /// The client may say which object it means.
    pub fn check(&self, resource: &Resource, current: &Current) -> Result<(), ApiError> {
        let uid = meta::uid(&current.value);
        let name = meta::name(&current.value);
        // Another pod may have taken the name since the request was let pass.
        let bound = &current.value["spec"]["nodeName"];
        if let Some(node) = self.bound_to.as_deref().filter(|node| bound != *node) {
            let why =
                format!("node \"{node}\" can only delete pods with spec.nodeName set to itself");
            return Err(ApiError::forbidden(resource, name, why));
        }
        if let Some(asked) = self.uid.as_deref().filter(|asked| *asked != uid) {
            let why = format!(
                "the UID in the precondition ({asked}) does not match the UID in record ({uid}). \
                 The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict(resource, name, why));
        }
        let revision = current.revision.to_string();
        if let Some(asked) = self
            .resource_version
            .as_deref()
            .filter(|asked| *asked != revision)
        {
            let why = format!(
                "the ResourceVersion in the precondition ({asked}) does not match the \
                 ResourceVersion in record ({revision}). The object might have been modified"
            );
            return Err(ApiError::conflict(resource, name, why));
        }
        Ok(())
    }
}

impl Propagation {
    /// None for a word that `options` refuses.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "Orphan" => Some(Self::Orphan),
            "Background" => Some(Self::Background),
            "Foreground" => Some(Self::Foreground),
            _ => None,
        }
    }

    fn of_orphan(orphan: bool) -> Self {
        if orphan {
            Self::Orphan
        } else {
            Self::Background
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a timestamp")
    }

    fn pod(spec: Value, metadata: Value) -> Plan {
        planned(spec, metadata, Options::default())
    }

    fn planned(spec: Value, metadata: Value, options: Options) -> Plan {
        let pods = api::find("", "v1", "pods").expect("served");
        let object = json!({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}});
        plan(pods, &object, &options, now()).expect("no refusal")
    }

    #[test]
    fn a_bound_pod_gets_its_grace_period() {
        let spec = json!({"nodeName": "a", "terminationGracePeriodSeconds": 10});
        let Plan::Mark(marked) = pod(spec, json!({"name": "x"})) else {
            panic!("not marked")
        };
        assert_eq!(
            marked["metadata"]["deletionTimestamp"],
            "2026-01-01T00:00:10Z"
        );
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 10);
    }

    #[test]
    fn a_pod_that_no_node_has_goes_at_once() {
        assert_eq!(pod(json!({}), json!({"name": "x"})), Plan::Remove);
    }

    #[test]
    fn the_agent_confirms_with_no_grace() {
        let spec = json!({"nodeName": "a"});
        let going = json!({"deletionTimestamp": "2026-01-01T00:00:30Z",
            "deletionGracePeriodSeconds": 30});
        let zero = Options {
            grace_seconds: Some(0),
            ..Options::default()
        };
        assert_eq!(planned(spec.clone(), going.clone(), zero), Plan::Remove);
        assert_eq!(pod(spec.clone(), going.clone()), Plan::Leave);
        let shorter = Options {
            grace_seconds: Some(5),
            ..Options::default()
        };
        let Plan::Mark(marked) = planned(spec, going, shorter) else {
            panic!("not marked")
        };
        assert_eq!(
            marked["metadata"]["deletionTimestamp"],
            "2026-01-01T00:00:05Z"
        );
    }

    #[test]
    fn a_finalizer_keeps_a_pod_without_grace() {
        let zero = Options {
            grace_seconds: Some(0),
            ..Options::default()
        };
        let metadata = json!({"name": "x", "finalizers": ["a/b"]});
        assert!(matches!(planned(json!({}), metadata, zero), Plan::Mark(_)));
    }

    #[test]
    fn foreground_and_orphan_wait_for_the_collector() {
        let deployments = api::find("apps", "v1", "deployments").expect("served");
        let object = json!({"metadata": {"name": "x", "generation": 2}});
        let with = |propagation| Options {
            propagation: Some(propagation),
            ..Options::default()
        };
        let plan = |options| plan(deployments, &object, &options, now()).expect("no refusal");
        let Plan::Mark(marked) = plan(with(Propagation::Foreground)) else {
            panic!("not marked")
        };
        assert_eq!(
            marked["metadata"]["finalizers"],
            json!(["foregroundDeletion"])
        );
        assert_eq!(marked["metadata"]["generation"], 3);
        assert_eq!(plan(with(Propagation::Background)), Plan::Remove);
    }

    #[test]
    fn a_namespace_is_emptied_first_and_some_never_go() {
        let namespaces = api::find("", "v1", "namespaces").expect("served");
        let named = |name: &str| {
            json!({"metadata": {"name": name},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
        };
        let plan = |name: &str| plan(namespaces, &named(name), &Options::default(), now());
        let Ok(Plan::Mark(marked)) = plan("x") else {
            panic!("not marked")
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert_eq!(plan("default").expect_err("refused").code(), 403);
    }
}
