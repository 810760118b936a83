//! batch/v1 Job: pods that run to their end. Unless its user does it, the server selects its pods, by
//! the uid of the Job.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta_v1;
use serde_json::{Value, json};

use super::job_spec::{self, INDEXED};
use crate::columns::{
    AGE, Column, NAME, Printer, age, between, format_selector, list, name, number, text,
};
use crate::defaults::set;
use crate::kinds::apps::workload::{self, CONTAINERS, IMAGES, MISMATCH, SELECTOR, containers};
use crate::meta;
use crate::resource::{Absent, Field, Generation, Resource, Subresource};
use crate::selector::LabelSelector;
use crate::validation::changes::replace;
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors, names};

/// The label by which a Job finds its pods.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

/// What the pods of a Job that has not yet started may still be told: where to run.
const SCHEDULING: [&str; 3] = ["nodeSelector", "tolerations", "schedulingGates"];

const IMMUTABLE: [&str; 6] = [
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
];

/// The word that a Job's row says of it: the first of these conditions that holds.
const ENDED: [(&str, &str); 2] = [("Complete", "Complete"), ("Failed", "Failed")];
const GOING_ON: [(&str, &str); 2] = [
    ("Suspended", "Suspended"),
    ("FailureTarget", "FailureTarget"),
];

pub fn resource() -> Resource {
    Resource {
        pod_template: Some("/spec/template"),
        warn: |object| crate::kinds::core::pod::warnings::of(object, "/spec/template/spec"),
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status],
        fields: vec![Field::at("status.successful", "/status/succeeded").or(Absent::Is("0"))],
        generation: Generation::Spec,
        has_status: true,
        default,
        create: |job| job["status"] = json!({}),
        validate,
        validate_update,
        validate_status,
        printer: COLUMNS,
        ..Resource::of::<Job>("batch", "batch", "job", "jobs")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the job runs, and how it ended"),
        Column::text("Completions", "How many pods succeeded, of how many"),
        Column::text("Duration", "How long the job took, or takes so far"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
};

fn default(job: &mut Value) {
    let uid = meta::uid(job).to_owned();
    let name = meta::name(job).to_owned();
    let spec = workload::spec(job);
    workload::default_template(spec);
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        set(spec, "completions", || 1.into());
    }
    set(spec, "parallelism", || 1.into());
    let per_index = spec["backoffLimitPerIndex"].is_number();
    set(spec, "backoffLimit", || {
        if per_index { i32::MAX.into() } else { 6.into() }
    });
    set(spec, "completionMode", || "NonIndexed".into());
    set(spec, "suspend", || false.into());
    set(spec, "manualSelector", || false.into());
    let replacement = match spec["podFailurePolicy"].is_object() {
        true => "Failed",
        false => "TerminatingOrFailed",
    };
    set(spec, "podReplacementPolicy", || replacement.into());
    job_spec::default_policy(spec);
    if spec["manualSelector"] == false && !uid.is_empty() {
        select_by_uid(spec, &name, &uid);
    }
    workload::labels_of_template(job);
}

/// The labels that every pod of a Job has. The ones without a prefix are from before there were any.
fn pod_labels<'a>(name: &'a str, uid: &'a str) -> [(&'static str, &'a str); 4] {
    [
        ("controller-uid", uid),
        ("job-name", name),
        (CONTROLLER_UID, uid),
        ("batch.kubernetes.io/job-name", name),
    ]
}

/// Labels the Job's pods and selects them. What the user wrote there stays, for validation to
/// refuse.
fn select_by_uid(spec: &mut Value, name: &str, uid: &str) {
    if spec["template"].is_object() {
        let metadata = &mut spec["template"]["metadata"];
        set(metadata, "labels", || json!({}));
        for (key, value) in pod_labels(name, uid) {
            set(&mut metadata["labels"], key, || value.into());
        }
    }
    set(spec, "selector", || json!({}));
    let selector = &mut spec["selector"];
    set(selector, "matchLabels", || json!({}));
    set(&mut selector["matchLabels"], CONTROLLER_UID, || uid.into());
}

fn validate(job: &At<'_>, errors: &mut Errors) {
    let spec = job.field("spec");
    generated_selector(job, &spec, errors);
    job_spec::validate(&spec, errors);
    let selector = spec.field("selector");
    if selector.is_null() {
        errors.required(&selector, "");
    }
    label_selector(&selector, errors);
    let template = spec.field("template");
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    if !matches(&selector, &meta::string_map(labels.value)) {
        errors.invalid(&labels, MISMATCH);
    }
    host_name(job, &spec, errors);
}

/// The selector is the server's own, and the template's labels fit it.
fn generated_selector(job: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let selector = spec.field("selector");
    if spec.field("manualSelector").is_true() || selector.is_null() {
        return;
    }
    let (uid, name) = (meta::uid(job.value), meta::name(job.value));
    let template = spec.field("template");
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    let expected = pod_labels(name, uid);
    for (key, value) in expected {
        let label = labels.key(key);
        let detail = format!("must be '{value}'");
        if label.is_null() {
            errors.required(&label, &detail);
        } else if label.text() != value {
            errors.invalid_part(&label, labels.value, &detail);
        }
    }
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    if !matches(&selector, &expected.into()) {
        errors.invalid(&selector, "`selector` not auto-generated");
    }
}

/// A selector that does not read is refused elsewhere; none at all selects nothing.
fn matches(selector: &At<'_>, labels: &BTreeMap<String, String>) -> bool {
    if selector.is_null() {
        return false;
    }
    let typed = serde_json::from_value::<meta_v1::LabelSelector>(selector.value.clone());
    let parsed = typed
        .ok()
        .and_then(|s| LabelSelector::from_object(Some(&s)).ok());
    parsed.is_none_or(|selector| selector.matches(labels))
}

/// The pods of an indexed Job have their index in their host name.
fn host_name(job: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let completions = spec.field("completions").number();
    if spec.field("completionMode").text() != INDEXED || completions <= 0 {
        return;
    }
    let metadata = job.field("metadata");
    let name = metadata.field("name");
    let longest = format!("{}-{}", name.text(), completions - 1);
    if names::label(&longest).is_err() {
        let detail = format!("will not able to create pod with invalid DNS label: {longest}");
        errors.invalid(&name, detail);
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    completions(&spec, &before, errors);
    let not_started = old.value["status"]["startTime"].is_null();
    let mut template = before.value["template"].clone();
    if before.field("suspend").is_true() && not_started {
        allow_scheduling(&mut template, &spec.value["template"]);
    }
    let now = spec.field("template");
    if *now.value != template {
        errors.invalid(&now, "field is immutable");
    }
    for field in IMMUTABLE {
        errors.immutable(&spec.field(field), &before.field(field));
    }
}

/// Indexed Jobs grow and shrink if as many pods run as there are indexes.
fn completions(spec: &At<'_>, before: &At<'_>, errors: &mut Errors) {
    let (now, then) = (spec.field("completions"), before.field("completions"));
    if spec.field("completionMode").text() != INDEXED {
        errors.immutable(&now, &then);
    } else if now.value != then.value
        && !now.is_null()
        && now.number() != spec.field("parallelism").number()
    {
        errors.invalid(&now, "can only be modified in tandem with spec.parallelism");
    }
}

/// Takes over into the old template what the new one says of where the pods run.
fn allow_scheduling(old: &mut Value, new: &Value) {
    for field in ["annotations", "labels"] {
        replace(&mut old["metadata"], &new["metadata"], field);
    }
    for field in SCHEDULING {
        replace(&mut old["spec"], &new["spec"], field);
    }
    allow_node_affinity(&mut old["spec"], &new["spec"]);
}

fn allow_node_affinity(old: &mut Value, new: &Value) {
    if new["affinity"].is_object() {
        set(old, "affinity", || json!({}));
        replace(&mut old["affinity"], &new["affinity"], "nodeAffinity");
        return;
    }
    if let Some(affinity) = old.get_mut("affinity") {
        replace(affinity, &Value::Null, "nodeAffinity");
        // An affinity that wants nothing may be left out.
        if affinity.as_object().is_some_and(serde_json::Map::is_empty) {
            replace(old, &Value::Null, "affinity");
        }
    }
}

fn validate_status(job: &At<'_>, errors: &mut Errors) {
    let status = job.field("status");
    for count in ["active", "succeeded", "failed", "ready", "terminating"] {
        errors.not_negative(&status.field(count));
    }
    let uncounted = status.field("uncountedTerminatedPods");
    let mut seen = BTreeSet::new();
    for outcome in ["succeeded", "failed"] {
        let pods = uncounted.field(outcome);
        for uid in pods.items() {
            if uid.is_empty() {
                errors.invalid(&uid, "must not be empty");
            } else if !seen.insert(uid.text().to_owned()) {
                errors.duplicate(&uid);
            }
        }
    }
}

fn cells(job: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = number(job, "/status/succeeded");
    let completions = match (
        job.pointer("/spec/completions").and_then(Value::as_i64),
        number(job, "/spec/parallelism"),
    ) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel @ 2..) => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = match text(job, "/status/startTime") {
        "" => String::new(),
        start => between(start, text(job, "/status/completionTime"), now),
    };
    vec![
        name(job),
        status(job).into(),
        completions.into(),
        duration.into(),
        age(job, now),
        containers(job, "/name").into(),
        containers(job, "/image").into(),
        format_selector(job.pointer("/spec/selector")).into(),
    ]
}

fn status(job: &Value) -> &'static str {
    let conditions = list(job, "/status/conditions");
    let holds = |kind: &str| {
        conditions
            .iter()
            .any(|c| c["type"] == kind && c["status"] == "True")
    };
    let first = |words: &[(&str, &'static str)]| {
        let word = words.iter().find(|(condition, _)| holds(condition));
        word.map(|(_, word)| *word)
    };
    let going = meta::is_terminating(job).then_some("Terminating");
    first(&ENDED)
        .or(going)
        .or_else(|| first(&GOING_ON))
        .unwrap_or("Running")
}

#[cfg(test)]
mod tests;
