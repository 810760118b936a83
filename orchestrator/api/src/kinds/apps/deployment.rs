//! apps/v1 Deployment.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::workload::{self, CONTAINERS, IMAGES, SELECTOR, containers};
use crate::columns::{AGE, Column, NAME, Printer, age, format_selector, name, number};
use crate::defaults::set;
use crate::resource::{Generation, Resource, Subresource};
use crate::validation::int_or_percent::{at_most_all, is_zero, number_or_percent};
use crate::validation::{At, Errors};

pub fn resource() -> Resource {
    Resource {
        pod_template: Some("/spec/template"),
        warn: |object| crate::kinds::core::pod::warnings::of(object, "/spec/template/spec"),
        short_names: vec!["deploy".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Scale, Subresource::Status],
        generation: Generation::SpecAndAnnotations,
        has_status: true,
        default,
        create: workload::create,
        update_status: workload::update_status,
        validate,
        validate_update: workload::selector_is_immutable,
        printer: COLUMNS,
        ..Resource::of::<Deployment>("apps", "apps", "deployment", "deployments")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Ready", "How many of the wanted pods are ready"),
        Column::integer("Up-to-date", "How many pods have the present template"),
        Column::integer("Available", "How many pods have been ready long enough"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
};

fn default(object: &mut Value) {
    let spec = workload::default(object);
    set(spec, "strategy", || json!({}));
    set(&mut spec["strategy"], "type", || "RollingUpdate".into());
    if spec["strategy"]["type"] == "RollingUpdate" {
        set(&mut spec["strategy"], "rollingUpdate", || json!({}));
        let rolling = &mut spec["strategy"]["rollingUpdate"];
        set(rolling, "maxUnavailable", || "25%".into());
        set(rolling, "maxSurge", || "25%".into());
    }
    set(spec, "revisionHistoryLimit", || 10.into());
    set(spec, "progressDeadlineSeconds", || 600.into());
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.not_negative(&spec.field("replicas"));
    errors.not_negative(&spec.field("minReadySeconds"));
    errors.not_negative(&spec.field("revisionHistoryLimit"));
    workload::selected_template(&spec, errors);
    strategy(&spec.field("strategy"), errors);
    let deadline = spec.field("progressDeadlineSeconds");
    if deadline.is_null() {
        return;
    }
    errors.not_negative(&deadline);
    if deadline.number() <= spec.field("minReadySeconds").number() {
        errors.invalid(&deadline, "must be greater than minReadySeconds");
    }
}

fn strategy(strategy: &At<'_>, errors: &mut Errors) {
    let kind = strategy.field("type");
    let rolling = strategy.field("rollingUpdate");
    match kind.text() {
        "Recreate" if !rolling.is_null() => errors.forbidden(
            &rolling,
            "may not be specified when strategy `type` is 'Recreate'",
        ),
        "Recreate" => {}
        "RollingUpdate" => {
            let (most, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
            number_or_percent(&most, errors);
            number_or_percent(&surge, errors);
            if is_zero(&most) && is_zero(&surge) {
                errors.invalid(&most, "may not be 0 when `maxSurge` is 0");
            }
            at_most_all(&most, errors);
        }
        _ => errors.not_supported(&kind, &["Recreate", "RollingUpdate"]),
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (ready, wanted) = (
        number(object, "/status/readyReplicas"),
        number(object, "/spec/replicas"),
    );
    vec![
        name(object),
        format!("{ready}/{wanted}").into(),
        number(object, "/status/updatedReplicas").into(),
        number(object, "/status/availableReplicas").into(),
        age(object, now),
        containers(object, "/name").into(),
        containers(object, "/image").into(),
        format_selector(object.pointer("/spec/selector")).into(),
    ]
}
