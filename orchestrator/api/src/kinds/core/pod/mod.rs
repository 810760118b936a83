//! v1 Pod: a new one is pending, and its spec says what every pod gets.

mod columns;
pub mod container;
mod defaults;
mod ephemeral;
mod os;
pub mod placement;
pub(crate) mod resize;
mod security;
mod spec;
mod update;
pub mod volume;
pub mod warnings;
mod whole;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::pod_resources::qos_class;
use crate::prepare::keep;
use crate::quota::Usage;
use crate::resource::{Absent, Behaviour, Field, Generation, Resource, Subresource};
use crate::validation::addresses::ip;
use crate::validation::{At, Errors};

pub use defaults::template as default_template;
pub use spec::template as validate_template;

pub fn resource() -> Resource {
    Resource {
        warn: |object| warnings::of(object, "/spec"),
        behaviour: Behaviour::Pod,
        generation: Generation::Spec,
        usage: Usage::Pod,
        short_names: vec!["po".into()],
        answers_with_object: true,
        categories: vec!["all".into()],
        subresources: vec![
            Subresource::Attach,
            Subresource::Binding,
            Subresource::EphemeralContainers,
            Subresource::Eviction,
            Subresource::Exec,
            Subresource::Log,
            Subresource::PortForward,
            Subresource::Proxy,
            Subresource::Resize,
            Subresource::Status,
        ],
        fields: fields(),
        has_status: true,
        default: defaults::pod,
        create,
        update,
        update_status,
        validate: spec::pod,
        validate_create: spec::new_pod,
        validate_subresource,
        validate_update: update::pod_update,
        validate_status,
        printer: columns::PODS,
        indexes: vec!["spec.nodeName".into()],
        ..Resource::of::<Pod>("", "core", "pod", "pods")
    }
}

/// What field selectors may ask for.
fn fields() -> Vec<Field> {
    vec![
        Field::of("spec.nodeName"),
        Field::at("spec.host", "/spec/nodeName"),
        Field::of("spec.restartPolicy"),
        Field::of("spec.schedulerName"),
        Field::of("spec.serviceAccountName"),
        Field::of("spec.hostNetwork").or(Absent::Is("false")),
        Field::of("status.phase"),
        Field::of("status.podIP"),
        Field::at("status.podIPs", "/status/podIP"),
        Field::of("status.nominatedNodeName"),
    ]
}

fn create(object: &mut Value) {
    object["status"] = json!({"phase": "Pending", "qosClass": qos_class(&object["spec"])});
    if object["spec"]["schedulingGates"][0].is_object() {
        object["status"]["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    let spec = &mut object["spec"];
    if spec["priority"].is_null() {
        spec["priority"] = 0.into();
    }
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = "PreemptLowerPriority".into();
    }
}

fn update(new: &mut Value, old: &Value) {
    // The class follows from resources, which an update does not change.
    keep(new, old, "", "status");
}

fn update_status(new: &mut Value, old: &Value) {
    if new["status"].is_object() {
        keep(new, old, "/status", "qosClass");
        for (first, all) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
            follow(&mut new["status"], &old["status"], first, all);
        }
    }
}

fn validate_subresource(sub: Subresource, new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    match sub {
        Subresource::EphemeralContainers => ephemeral::update(new, old, errors),
        Subresource::Resize => resize::update(new, old, errors),
        _ => {}
    }
}

/// A pod's addresses as its node tells them: endpoints are made of these.
fn validate_status(pod: &At<'_>, errors: &mut Errors) {
    let status = pod.field("status");
    for (first, all) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let (first, all) = (status.field(first), status.field(all));
        if !first.is_empty() {
            ip(&first, errors);
        }
        for item in all.items() {
            ip(&item.field("ip"), errors);
        }
    }
}

/// A client that knows only one of an address and the list that it is the first of changes it
/// alone; the other one follows.
fn follow(new: &mut Value, old: &Value, first: &str, all: &str) {
    match (new[first] == old[first], new[all] == old[all]) {
        (false, true) if new[first].is_string() => new[all] = json!([{"ip": new[first]}]),
        (true, false) if new[all][0]["ip"].is_string() => new[first] = new[all][0]["ip"].clone(),
        _ => {}
    }
}
