//! v1 ReplicationController.

use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::Value;

use crate::columns::{Printer, format_labels};
use crate::defaults::drop_nulls;
use crate::kinds::apps::workload;
use crate::meta;
use crate::quota::Usage;
use crate::resource::{Absent, Field, Generation, Resource, Subresource};
use crate::selector::LabelSelector;
use crate::validation::{At, Errors};

pub fn resource() -> Resource {
    Resource {
        pod_template: Some("/spec/template"),
        usage: Usage::CountAs("replicationcontrollers"),
        warn: |object| crate::kinds::core::pod::warnings::of(object, "/spec/template/spec"),
        short_names: vec!["rc".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Scale, Subresource::Status],
        fields: vec![Field::of("status.replicas").or(Absent::Is("0"))],
        generation: Generation::Spec,
        has_status: true,
        default,
        create: workload::create_replicas,
        update_status: workload::update_status,
        validate,
        printer: COLUMNS,
        ..Resource::of::<ReplicationController>(
            "",
            "core",
            "replicationcontroller",
            "replicationcontrollers",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: workload::REPLICATED,
    cells: |object, now| {
        let selector = format_labels(object.pointer("/spec/selector"));
        workload::replicated(object, now, selector)
    },
};

/// Unlike the newer kinds it may leave its selector to its template's labels.
fn default(object: &mut Value) {
    let spec = workload::default(object);
    let labels = spec["template"]["metadata"]["labels"].clone();
    if !workload::is_empty(&labels) && workload::is_empty(&spec["selector"]) {
        spec["selector"] = labels;
    }
    drop_nulls(spec);
    workload::labels_of_template(object);
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.not_negative(&spec.field("minReadySeconds"));
    errors.not_negative(&spec.field("replicas"));
    let selector = spec.field("selector");
    if selector.is_empty() {
        errors.required(&selector, "");
    }
    let template = spec.field("template");
    if template.is_null() {
        errors.required(&template, "");
        return;
    }
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    let selector = LabelSelector::from_map(&meta::string_map(selector.value));
    if !selector.is_everything() && !selector.matches(&meta::string_map(labels.value)) {
        errors.invalid(&labels, workload::MISMATCH);
    }
    workload::template_of_a_controller(&template, errors);
}
