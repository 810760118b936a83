//! apps/v1 StatefulSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

use super::workload::{self, CONTAINERS, IMAGES, containers};
use crate::columns::{AGE, Column, NAME, Printer, age, list, name, number, text};
use crate::defaults::{items, set};
use crate::kinds::core::{persistent_volume_claim, pod};
use crate::resource::{Generation, Resource, Subresource};
use crate::validation::changes::replace;
use crate::validation::int_or_percent::{at_most_all, is_zero, number_or_percent};
use crate::validation::{At, Errors, NameRule, names};

const EMPTY: &str = "empty selector is invalid for statefulset";

const IMMUTABLE: &str = "updates to statefulset spec for fields other than 'replicas', \
    'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', \
    'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// The fields of the spec that an update may change.
const MUTABLE: [&str; 7] = [
    "minReadySeconds",
    "ordinals",
    "persistentVolumeClaimRetentionPolicy",
    "replicas",
    "revisionHistoryLimit",
    "template",
    "updateStrategy",
];

/// Counts of the status that are at most `replicas`.
const PARTS: [&str; 4] = [
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
];

pub fn resource() -> Resource {
    Resource {
        pod_template: Some("/spec/template"),
        warn: |object| crate::kinds::core::pod::warnings::of(object, "/spec/template/spec"),
        short_names: vec!["sts".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Scale, Subresource::Status],
        generation: Generation::Spec,
        has_status: true,
        name_rule: NameRule::Label,
        default,
        create: |object| object["status"] = json!({"replicas": 0, "availableReplicas": 0}),
        update_status: workload::update_status,
        validate,
        validate_update,
        validate_status,
        printer: COLUMNS,
        ..Resource::of::<StatefulSet>("apps", "apps", "statefulset", "statefulsets")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Ready", "How many of the wanted pods are ready"),
        AGE,
        CONTAINERS,
        IMAGES,
    ],
    cells,
};

fn default(object: &mut Value) {
    let spec = workload::default(object);
    set(spec, "podManagementPolicy", || "OrderedReady".into());
    set(spec, "updateStrategy", || json!({}));
    let strategy = &mut spec["updateStrategy"];
    set(strategy, "type", || "RollingUpdate".into());
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", || json!({}));
        set(&mut strategy["rollingUpdate"], "partition", || 0.into());
    }
    set(spec, "persistentVolumeClaimRetentionPolicy", || json!({}));
    for moment in ["whenDeleted", "whenScaled"] {
        let policy = &mut spec["persistentVolumeClaimRetentionPolicy"];
        set(policy, moment, || "Retain".into());
    }
    set(spec, "revisionHistoryLimit", || 10.into());
    for claim in items(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", || "v1".into());
        set(claim, "kind", || "PersistentVolumeClaim".into());
        persistent_volume_claim::default(claim);
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let policy = spec.field("podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy.text()) {
        errors.invalid(&policy, "must be 'OrderedReady' or 'Parallel'");
    }
    strategy(&spec.field("updateStrategy"), errors);
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    for moment in ["whenDeleted", "whenScaled"] {
        errors.one_of(&retention.field(moment), &["Retain", "Delete"]);
    }
    errors.not_negative(&spec.field("replicas"));
    errors.not_negative(&spec.field("minReadySeconds"));
    errors.not_negative(&spec.field("revisionHistoryLimit"));
    let ordinals = spec.field("ordinals");
    errors.not_negative(&ordinals.field("start"));
    let service = spec.field("serviceName");
    if !service.is_empty() {
        errors.check(&service, names::subdomain(service.text()));
    }
    workload::selector_of_template(&spec, EMPTY, errors);
    template(&spec, errors);
    let claims = spec.field("volumeClaimTemplates");
    for claim in claims.items() {
        let metadata = claim.field("metadata");
        let name = metadata.field("name");
        if name.is_empty() {
            errors.required(&name, "");
        } else {
            errors.check(&name, names::label(name.text()));
        }
        persistent_volume_claim::validate_spec(&claim.field("spec"), errors);
    }
}

/// The template, whose pods also get a volume for each claim template.
fn template(spec: &At<'_>, errors: &mut Errors) {
    let template = spec.field("template");
    let mut whole = template.value.clone();
    let claims = list(spec.value, "/volumeClaimTemplates");
    let names = claims.iter().map(|claim| text(claim, "/metadata/name"));
    let volumes = &mut whole["spec"]["volumes"];
    let mut all = volumes.as_array().cloned().unwrap_or_default();
    for name in names.filter(|name| names::label(name).is_ok()) {
        all.retain(|volume| volume["name"] != name);
        all.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    }
    *volumes = all.into();
    pod::validate_template(&template.with(&whole), errors);
    workload::runs_for_ever(&template, "StatefulSet", errors);
}

fn strategy(strategy: &At<'_>, errors: &mut Errors) {
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "OnDelete" if !rolling.is_null() => {
            errors.invalid(&rolling, "only allowed for updateStrategy 'RollingUpdate'")
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            errors.not_negative(&rolling.field("partition"));
            let most = rolling.field("maxUnavailable");
            if most.is_null() {
                return;
            }
            number_or_percent(&most, errors);
            if is_zero(&most) {
                errors.invalid(&most, "cannot be 0");
            }
            at_most_all(&most, errors);
        }
        _ => errors.invalid(strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let mut rest = spec.value.clone();
    for field in MUTABLE {
        replace(&mut rest, before.value, field);
    }
    if rest != *before.value {
        errors.forbidden(&spec, IMMUTABLE);
    }
}

fn validate_status(object: &At<'_>, errors: &mut Errors) {
    let status = object.field("status");
    for count in ["replicas", "observedGeneration", "collisionCount"] {
        errors.not_negative(&status.field(count));
    }
    let replicas = status.field("replicas").number();
    for part in PARTS {
        let part = status.field(part);
        errors.not_negative(&part);
        if part.number() > replicas {
            errors.invalid(&part, "cannot be greater than status.replicas");
        }
    }
    let available = status.field("availableReplicas");
    if available.number() > status.field("readyReplicas").number() {
        errors.invalid(&available, "cannot be greater than status.readyReplicas");
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
        age(object, now),
        containers(object, "/name").into(),
        containers(object, "/image").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{change, columns, created, row, update, with, wrong};

    /// What the chart of a database applies.
    fn database() -> Value {
        json!({
            "metadata": {"name": "db"},
            "spec": {
                "serviceName": "db",
                "replicas": 3,
                "selector": {"matchLabels": {"app": "db"}},
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{
                        "name": "postgres",
                        "image": "postgres:17",
                        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql"}],
                    }]},
                },
                "volumeClaimTemplates": [{
                    "metadata": {"name": "data"},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "8Gi"}},
                    },
                }],
            },
        })
    }

    #[test]
    fn a_stateful_set_starts_in_order_and_keeps_its_claims() {
        let set = created(&resource(), database());
        let spec = &set["spec"];
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        assert_eq!(
            spec["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(spec["revisionHistoryLimit"], 10);
        assert_eq!(
            spec["volumeClaimTemplates"],
            json!([{
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "8Gi"}},
                    "volumeMode": "Filesystem",
                },
                "status": {"phase": "Pending"},
            }])
        );
        assert_eq!(
            set["status"],
            json!({"replicas": 0, "availableReplicas": 0})
        );
        assert_eq!(set["metadata"]["generation"], 1);
    }

    #[test]
    fn stateful_sets_are_refused_in_the_words_of_kubernetes() {
        let cases = [
            (
                "/spec/podManagementPolicy",
                json!("Eager"),
                r#"spec.podManagementPolicy: Invalid value: "Eager": must be 'OrderedReady' or 'Parallel'"#,
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                r#"spec.updateStrategy.rollingUpdate: Invalid value: {"partition":1}: only allowed for updateStrategy 'RollingUpdate'"#,
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"partition": -1}}),
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater \
                 than or equal to 0",
            ),
            (
                "/spec/persistentVolumeClaimRetentionPolicy",
                json!({"whenScaled": "Archive"}),
                r#"spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "Archive": supported values: "Retain", "Delete""#,
            ),
            (
                "/spec/ordinals",
                json!({"start": -1}),
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/selector",
                Value::Null,
                r#"[spec.selector: Required value, spec.template.metadata.labels: Invalid value: {"app":"db"}: `selector` does not match template `labels`]"#,
            ),
            (
                "/spec/template/spec/activeDeadlineSeconds",
                json!(5),
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in \
                 StatefulSet is not Supported",
            ),
            (
                "/spec/volumeClaimTemplates/0/metadata/name",
                json!("other"),
                r#"spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data""#,
            ),
            (
                "/spec/volumeClaimTemplates/0/spec/accessModes",
                json!([]),
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 \
                 access mode is required",
            ),
        ];
        for (at, value, why) in cases {
            assert_eq!(wrong(&resource(), with(&database(), at, value)), why);
        }
        let dotted = wrong(
            &resource(),
            with(&database(), "/metadata/name", "a.b".into()),
        );
        assert!(dotted.starts_with(r#"metadata.name: Invalid value: "a.b": a lowercase RFC 1123"#));
    }

    #[test]
    fn an_update_changes_the_fields_that_it_may() {
        let old = created(&resource(), database());
        let allowed = json!({"spec": {
            "replicas": 5,
            "ordinals": {"start": 1},
            "minReadySeconds": 5,
            "revisionHistoryLimit": 3,
            "updateStrategy": {"rollingUpdate": {"partition": 2}},
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"},
            "template": {"metadata": {"annotations": {"a": "b"}}},
        }});
        let new = update(&resource(), &old, allowed, None).unwrap();
        assert_eq!(new["metadata"]["generation"], 2);
        for forbidden in [
            json!({"spec": {"serviceName": "other"}}),
            json!({"spec": {"podManagementPolicy": "Parallel"}}),
            json!({"spec": {"volumeClaimTemplates": null,
                "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        ] {
            assert_eq!(
                change(&resource(), &old, forbidden),
                format!("spec: Forbidden: {IMMUTABLE}")
            );
        }
        let status = json!({"status": {"replicas": 1, "readyReplicas": 2}});
        assert_eq!(
            update(&resource(), &old, status, Some(Subresource::Status)),
            Err(
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"
                    .into()
            )
        );
    }

    #[test]
    fn a_row_counts_ready_pods() {
        assert_eq!(
            columns(&resource()),
            ["Name", "Ready", "Age", "[Containers]", "[Images]"]
        );
        let set = created(&resource(), database());
        let set = with(&set, "/status/readyReplicas", 2.into());
        assert_eq!(
            row(&resource(), &set),
            json!(["db", "2/3", "10m", "postgres", "postgres:17"])
        );
    }
}
