//! What the controllers of pods have in common: defaults, selectors that select their own template, columns.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta_v1;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, age, list, name, number, text};
use crate::defaults::{drop_nulls, set};
use crate::kinds::core::pod;
use crate::meta;
use crate::prepare::keep;
use crate::selector::LabelSelector;
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors};

pub const MISMATCH: &str = "`selector` does not match template `labels`";

const EMPTY: &str = "empty selector is invalid for deployment";

/// The columns of kinds that keep a number of pods.
pub const REPLICATED: &[Column] = &[
    NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR,
];

const DESIRED: Column = Column::integer("Desired", "How many pods there should be");

const CURRENT: Column = Column::integer("Current", "How many pods there are");

const READY: Column = Column::integer("Ready", "How many pods are ready");

pub const CONTAINERS: Column = Column::wide("Containers", "Names of the containers");

pub const IMAGES: Column = Column::wide("Images", "Images of the containers");

pub const SELECTOR: Column = Column::wide("Selector", "Labels of the pods");

/// One replica, and a template with a pod's defaults.
pub fn default(object: &mut Value) -> &mut Value {
    let spec = spec(object);
    set(spec, "replicas", || 1.into());
    default_template(spec);
    spec
}

/// The spec, which is made where there is none.
pub fn spec(object: &mut Value) -> &mut Value {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    &mut object["spec"]
}

/// Gives the field `template` of a value, if there is one, a pod's defaults.
pub fn default_template(owner: &mut Value) {
    if let Some(template) = owner.get_mut("template").filter(|t| t.is_object()) {
        set(template, "metadata", || json!({}));
        set(template, "spec", || json!({}));
        pod::default_template(&mut template["spec"]);
    }
}

/// An object without labels gets those of its template.
pub fn labels_of_template(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    drop_nulls(&mut object["spec"]["template"]);
    drop_nulls(&mut object["spec"]);
    drop_nulls(&mut object["spec"]["template"]["metadata"]);
    if !is_empty(&labels) && is_empty(&object["metadata"]["labels"]) {
        object["metadata"]["labels"] = labels;
    }
    drop_nulls(&mut object["metadata"]);
}

pub fn is_empty(labels: &Value) -> bool {
    labels.as_object().is_none_or(serde_json::Map::is_empty)
}

pub fn create(object: &mut Value) {
    object["status"] = json!({});
}

/// These publish how many replicas there are from the start.
pub fn create_replicas(object: &mut Value) {
    object["status"] = json!({"replicas": 0});
}

pub fn update_status(new: &mut Value, old: &Value) {
    keep(new, old, "/metadata", "labels");
}

pub fn selector_is_immutable(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    errors.immutable(&new.field("selector"), &old.field("selector"));
}

pub fn selected_template(spec: &At<'_>, errors: &mut Errors) {
    selector_of_template(spec, EMPTY, errors);
    let template = spec.field("template");
    if template.is_null() {
        errors.required(&template, "");
        return;
    }
    template_of_a_controller(&template, errors);
}

/// The selector, which is required and selects the pods of the template. `empty` is said of one
/// that has requirements but selects everything.
pub fn selector_of_template(spec: &At<'_>, empty: &str, errors: &mut Errors) {
    let selector = spec.field("selector");
    label_selector(&selector, errors);
    // Decoding fills in an empty selector where there is none, which is what people forget.
    if selector.is_empty() {
        errors.required(&selector, "");
    }
    selects_template(spec, empty, errors);
}

/// A selector that is there selects the pods of the template, but not all pods.
pub fn selects_template(spec: &At<'_>, empty: &str, errors: &mut Errors) {
    let (selector, template) = (spec.field("selector"), spec.field("template"));
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    let typed = serde_json::from_value::<meta_v1::LabelSelector>(selector.value.clone());
    let parsed = typed
        .ok()
        .and_then(|s| LabelSelector::from_object(Some(&s)).ok());
    if selector.is_empty() {
        errors.invalid(&labels, MISMATCH);
    } else if parsed.as_ref().is_some_and(LabelSelector::is_everything) {
        errors.invalid(&selector, empty);
    } else if parsed.is_some_and(|s| !s.matches(&meta::string_map(labels.value))) {
        errors.invalid(&labels, MISMATCH);
    }
}

/// A controller's pods run for ever.
pub fn template_of_a_controller(template: &At<'_>, errors: &mut Errors) {
    pod::validate_template(template, errors);
    runs_for_ever(template, "ReplicaSet", errors);
}

/// The pods of a template are restarted always, and have no deadline; `kind` is what the text of the
/// error calls the controller.
pub fn runs_for_ever(template: &At<'_>, kind: &str, errors: &mut Errors) {
    let spec = template.field("spec");
    let policy = spec.field("restartPolicy");
    if !policy.is_empty() && policy.text() != "Always" {
        errors.not_supported(&policy, &["Always"]);
    }
    let deadline = spec.field("activeDeadlineSeconds");
    if !deadline.is_null() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&deadline, &detail);
    }
}

pub fn replicated(object: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    vec![
        name(object),
        number(object, "/spec/replicas").into(),
        number(object, "/status/replicas").into(),
        number(object, "/status/readyReplicas").into(),
        age(object, now),
        containers(object, "/name").into(),
        containers(object, "/image").into(),
        selector.into(),
    ]
}

/// One field of every container of the template.
pub fn containers(object: &Value, field: &str) -> String {
    containers_at(object, "/spec/template/spec/containers", field)
}

/// The same of the containers at a JSON pointer.
pub fn containers_at(object: &Value, pointer: &str, field: &str) -> String {
    let containers = list(object, pointer);
    containers
        .iter()
        .map(|container| text(container, field))
        .collect::<Vec<_>>()
        .join(",")
}
