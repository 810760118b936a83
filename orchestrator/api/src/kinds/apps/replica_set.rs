//! apps/v1 ReplicaSet.

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::Value;

use super::workload;
use crate::columns::{Printer, format_selector};
use crate::resource::{Absent, Field, Generation, Resource, Subresource};
use crate::validation::{At, Errors};

pub fn resource() -> Resource {
    Resource {
        pod_template: Some("/spec/template"),
        warn: |object| crate::kinds::core::pod::warnings::of(object, "/spec/template/spec"),
        short_names: vec!["rs".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Scale, Subresource::Status],
        fields: vec![Field::of("status.replicas").or(Absent::Is("0"))],
        generation: Generation::Spec,
        has_status: true,
        default,
        create: workload::create_replicas,
        update_status: workload::update_status,
        validate,
        validate_update: workload::selector_is_immutable,
        printer: COLUMNS,
        ..Resource::of::<ReplicaSet>("apps", "apps", "replicaset", "replicasets")
    }
}

const COLUMNS: Printer = Printer {
    columns: workload::REPLICATED,
    cells: |object, now| {
        let selector = format_selector(object.pointer("/spec/selector"));
        workload::replicated(object, now, selector)
    },
};

fn default(object: &mut Value) {
    workload::default(object);
    workload::labels_of_template(object);
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.not_negative(&spec.field("minReadySeconds"));
    errors.not_negative(&spec.field("replicas"));
    workload::selected_template(&spec, errors);
}
