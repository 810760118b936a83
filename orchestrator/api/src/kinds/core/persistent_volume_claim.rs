//! v1 PersistentVolumeClaim: a wish for a volume, alone or as a template of a StatefulSet.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::persistent_volume::{access_modes, access_modes_text, phase, positive_amount};
use crate::columns::{AGE, Column, NAME, Printer, age, name, text};
use crate::defaults::set;
use crate::quantity::Quantity;
use crate::quota::Usage;
use crate::resource::{Behaviour, Resource, Subresource};
use crate::validation::changes::{differences, replace};
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors, names};

/// Where claims named their class before there was a field for it.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

const IMMUTABLE: &str = "spec is immutable after creation except resources.requests and \
    volumeAttributesClassName for bound claims";

/// The annotation by which the scheduler names the node that a claim's volume shall be for.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// The annotation of a claim whose binding is complete on both sides.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// The annotation of a claim or a volume whose partner the binder has chosen.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// The annotations by which a claim names its external provisioner: as it is now, and as it was once.
pub const PROVISIONER: [&str; 2] = [
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
];

/// The finalizer that keeps a claim while a pod uses it.
pub const PROTECTION: &str = "kubernetes.io/pvc-protection";

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Claim,
        usage: Usage::Claim,
        short_names: vec!["pvc".into()],
        answers_with_object: true,
        subresources: vec![Subresource::Status],
        has_status: true,
        default,
        create,
        validate: |claim, errors| validate_spec(&claim.field("spec"), errors),
        validate_update,
        validate_status,
        printer: COLUMNS,
        ..Resource::of::<PersistentVolumeClaim>(
            "",
            "core",
            "persistentvolumeclaim",
            "persistentvolumeclaims",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the claim has its volume"),
        Column::text("Volume", "The volume that the claim is bound to"),
        Column::text("Capacity", "The size of the volume"),
        Column::text("Access Modes", "How the volume may be mounted"),
        Column::text("StorageClass", "The class that the volume is of"),
        Column::text("VolumeAttributesClass", "The class of its attributes"),
        AGE,
        Column::wide("VolumeMode", "A filesystem or a block device"),
    ],
    cells,
};

/// Also of a claim template, which Kubernetes stores with a phase.
pub fn default(claim: &mut Value) {
    if !claim["spec"].is_object() {
        claim["spec"] = json!({});
    }
    set(&mut claim["spec"], "volumeMode", || "Filesystem".into());
    set(claim, "status", || json!({}));
    set(&mut claim["status"], "phase", || "Pending".into());
}

fn create(claim: &mut Value) {
    claim["status"] = json!({"phase": "Pending"});
    // Two names of one field; the newer one may name another namespace too, which the older cannot.
    let spec = &mut claim["spec"];
    let (old, new) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    match (old.cloned(), new.cloned()) {
        (Some(source), None) => spec["dataSourceRef"] = source,
        (None, Some(source)) if source["namespace"].is_null() => spec["dataSource"] = source,
        _ => {}
    }
}

pub fn validate_spec(spec: &At<'_>, errors: &mut Errors) {
    let modes = spec.field("accessModes");
    if modes.is_empty() {
        errors.required(&modes, "at least 1 access mode is required");
    }
    label_selector(&spec.field("selector"), errors);
    access_modes(&modes, errors);
    let resources = spec.field("resources");
    let requests = resources.field("requests");
    let storage = resources.key("storage").with(&requests.value["storage"]);
    if storage.is_null() {
        errors.required(&storage, "");
    } else {
        positive_amount(&storage, errors);
    }
    for class in ["storageClassName", "volumeAttributesClassName"] {
        let class = spec.field(class);
        if !class.is_empty() {
            errors.check(&class, names::subdomain(class.text()));
        }
    }
    let mode = spec.field("volumeMode");
    if !mode.is_null() && !["Block", "Filesystem"].contains(&mode.text()) {
        errors.not_supported(&mode, &["Block", "Filesystem"]);
    }
    data_sources(spec, errors);
}

/// What the volume begins with.
fn data_sources(spec: &At<'_>, errors: &mut Errors) {
    let (old, new) = (spec.field("dataSource"), spec.field("dataSourceRef"));
    for source in [&old, &new] {
        if !source.is_null() {
            data_source(source, errors);
        }
    }
    if old.is_null() || new.is_null() {
        return;
    }
    if !new.field("namespace").is_empty() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.invalid_value(spec, "spec.dataSource", detail);
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|field| old.value[field] != new.value[field])
    {
        errors.invalid_value(spec, "spec.dataSource", "must match dataSourceRef");
    }
}

fn data_source(source: &At<'_>, errors: &mut Errors) {
    for field in ["name", "kind"] {
        let field = source.field(field);
        if field.is_empty() {
            errors.required(&field, "");
        }
    }
    let (group, kind) = (source.field("apiGroup"), source.field("kind"));
    if !group.is_empty() {
        errors.check(&group, names::subdomain(group.text()));
    } else if kind.text() != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid_value(source, kind.text(), detail);
    }
    let namespace = source.field("namespace");
    if !namespace.is_empty() {
        errors.check(&namespace, names::label(namespace.text()));
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let (class, old_class) = (
        spec.field("storageClassName"),
        before.field("storageClassName"),
    );
    let annotation = |claim: &At<'_>| {
        let annotations = &claim.value["metadata"]["annotations"];
        annotations[CLASS_ANNOTATION].as_str().map(str::to_owned)
    };
    let mut rest = spec.value.clone();
    if before.field("volumeName").is_empty() {
        replace(&mut rest, before.value, "volumeName");
    }
    // The class is filled in once a default one is there.
    let annotated = annotation(old).is_none_or(|name| name == class.text());
    if old_class.is_null() && !class.is_null() && annotated {
        replace(&mut rest, before.value, "storageClassName");
    }
    let status = new.field("status");
    if status.field("phase").text() == "Bound" && rest["resources"]["requests"].is_object() {
        let requests = &mut rest["resources"]["requests"];
        replace(requests, &before.value["resources"]["requests"], "storage");
    }
    replace(&mut rest, before.value, "volumeAttributesClassName");
    if rest != *before.value {
        let changed = differences(&rest, before.value, "spec").join(", ");
        errors.forbidden(&spec, &format!("{IMMUTABLE}\n  changed: {changed}\n"));
    }
    shrunk(new, old, errors);
    let mode = new.field("volumeMode");
    errors.immutable(
        &mode.with(&spec.value["volumeMode"]),
        &mode.with(&before.value["volumeMode"]),
    );
    attributes(&spec, &before, errors);
}

/// A wish that cannot be fulfilled may be taken back as far as the size that the volume has.
fn shrunk(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let resources = spec.field("resources");
    let requests = resources.field("requests");
    let asked = requests.field("storage");
    let amount = |value: &Value| Quantity::parse(value.as_str()?).ok();
    let (now, then) = (
        amount(asked.value),
        amount(&before.value["resources"]["requests"]["storage"]),
    );
    let has = amount(&old.value["status"]["capacity"]["storage"]).unwrap_or(Quantity::ZERO);
    if let (Some(now), Some(then)) = (now, then)
        && now < then
        && now <= has
    {
        errors.forbidden(&asked, "field can not be less than status.capacity");
    }
}

fn attributes(spec: &At<'_>, before: &At<'_>, errors: &mut Errors) {
    let class = spec.field("volumeAttributesClassName");
    let old = before.field("volumeAttributesClassName");
    if old.is_null() || class.value == old.value {
    } else if class.is_null() {
        errors.forbidden(&class, "update from non-nil value to nil is forbidden");
    } else if class.is_empty() {
        let detail = "update from non-nil value to an empty string is forbidden";
        errors.forbidden(&class, detail);
    }
}

fn validate_status(claim: &At<'_>, errors: &mut Errors) {
    let status = claim.field("status");
    for list in ["capacity", "allocatedResources"] {
        let list = status.field(list);
        for (_, amount) in list.entries() {
            if Quantity::parse(amount.text()).is_ok_and(Quantity::is_negative) {
                errors.invalid(&amount, "must be a valid resource quantity");
            }
        }
    }
}

fn cells(claim: &Value, now: Timestamp) -> Vec<Value> {
    let bound = !text(claim, "/spec/volumeName").is_empty();
    let (capacity, modes) = if bound {
        (
            text(claim, "/status/capacity/storage"),
            access_modes_text(claim, "/status/accessModes"),
        )
    } else {
        ("", String::new())
    };
    vec![
        name(claim),
        phase(claim).into(),
        text(claim, "/spec/volumeName").into(),
        capacity.into(),
        modes.into(),
        class(claim).into(),
        or_unset(claim, "/spec/volumeAttributesClassName").into(),
        age(claim, now),
        or_unset(claim, "/spec/volumeMode").into(),
    ]
}

/// The storage class of a claim or volume.
pub(super) fn class(object: &Value) -> &str {
    let annotations = &object["metadata"]["annotations"];
    let annotated = annotations[CLASS_ANNOTATION].as_str();
    annotated.unwrap_or_else(|| text(object, "/spec/storageClassName"))
}

/// Text at a JSON pointer, with Kubernetes' sign for a field that was left out.
pub(super) fn or_unset<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or("<unset>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{change, columns, created, row, update, with, wrong};

    /// What the chart of a database asks for.
    fn data() -> Value {
        json!({
            "metadata": {"name": "data-db-0", "labels": {"app": "db"}},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "8192Mi"}},
            },
        })
    }

    fn bound() -> Value {
        let claim = with(
            &created(&resource(), data()),
            "/spec/volumeName",
            "pv".into(),
        );
        let claim = with(&claim, "/spec/storageClassName", "fast".into());
        let status = json!({
            "phase": "Bound",
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "8Gi"},
        });
        with(&claim, "/status", status)
    }

    #[test]
    fn a_new_claim_is_pending_and_asks_for_a_filesystem() {
        let claim = created(
            &resource(),
            with(&data(), "/status", json!({"phase": "Bound"})),
        );
        assert_eq!(
            claim["spec"],
            json!({
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "8Gi"}},
                "volumeMode": "Filesystem",
            })
        );
        assert_eq!(claim["status"], json!({"phase": "Pending"}));
        assert_eq!(claim["metadata"].get("generation"), None);
    }

    #[test]
    fn the_two_names_of_a_data_source_agree() {
        let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot",
            "name": "s"});
        for (given, other) in [
            ("dataSource", "dataSourceRef"),
            ("dataSourceRef", "dataSource"),
        ] {
            let claim = with(&data(), &format!("/spec/{given}"), snapshot.clone());
            assert_eq!(created(&resource(), claim)["spec"][other], snapshot);
        }
    }

    #[test]
    fn claims_are_refused_in_the_words_of_kubernetes() {
        let source = |kind: &str| json!({"kind": kind, "name": "s"});
        let cases = [
            (
                "/spec/accessModes",
                json!([]),
                "spec.accessModes: Required value: at least 1 access mode is required",
            ),
            (
                "/spec/accessModes",
                json!(["Once"]),
                r#"spec.accessModes: Unsupported value: "Once": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod""#,
            ),
            (
                "/spec/accessModes",
                json!(["ReadWriteOncePod", "ReadWriteMany"]),
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ),
            (
                "/spec/resources",
                json!({}),
                "spec.resources[storage]: Required value",
            ),
            (
                "/spec/resources/requests/storage",
                json!("0"),
                r#"spec.resources[storage]: Invalid value: "0": must be greater than zero"#,
            ),
            (
                "/spec/volumeMode",
                json!("Tape"),
                r#"spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem""#,
            ),
            (
                "/spec/dataSource",
                source("Thing"),
                r#"[spec.dataSource: Invalid value: "Thing": must be 'PersistentVolumeClaim' when referencing the default apiGroup, spec.dataSourceRef: Invalid value: "Thing": must be 'PersistentVolumeClaim' when referencing the default apiGroup]"#,
            ),
        ];
        for (at, value, why) in cases {
            assert_eq!(wrong(&resource(), with(&data(), at, value)), why);
        }
        let named = with(&data(), "/spec/storageClassName", "Fast!".into());
        let why = wrong(&resource(), named);
        assert!(why.starts_with(r#"spec.storageClassName: Invalid value: "Fast!": a lowercase"#));
    }

    #[test]
    fn only_the_size_of_a_bound_claim_grows() {
        let cases = [
            (
                json!({"spec": {"resources": {"requests": {"storage": "10Gi"}}}}),
                "",
            ),
            (
                json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}}),
                "spec.resources.requests.storage: Forbidden: field can not be less than \
                 status.capacity",
            ),
            (
                json!({"spec": {"storageClassName": "slow"}}),
                "spec: Forbidden: spec is immutable after creation except resources.requests and \
                 volumeAttributesClassName for bound claims\n  changed: spec.storageClassName\n",
            ),
            (json!({"spec": {"volumeAttributesClassName": "gold"}}), ""),
            (json!({"metadata": {"labels": {"a": "b"}}}), ""),
        ];
        for (patch, why) in cases {
            assert_eq!(change(&resource(), &bound(), patch.clone()), why, "{patch}");
        }
        let block = change(
            &resource(),
            &bound(),
            json!({"spec": {"volumeMode": "Block"}}),
        );
        assert!(block.ends_with(r#"volumeMode: Invalid value: "Block": field is immutable]"#));
    }

    #[test]
    fn a_pending_claim_gets_its_class_and_its_volume_once() {
        let pending = created(&resource(), data());
        let given = json!({"spec": {"storageClassName": "fast", "volumeName": "pv"}});
        assert_eq!(change(&resource(), &pending, given), "");
        let larger = json!({"spec": {"resources": {"requests": {"storage": "10Gi"}}}});
        assert!(change(&resource(), &pending, larger).starts_with("spec: Forbidden"));
        let status = update(
            &resource(),
            &pending,
            json!({"status": {"phase": "Bound"}}),
            None,
        );
        assert_eq!(status.unwrap()["status"]["phase"], "Pending");
    }

    #[test]
    fn a_row_shows_what_the_claim_has() {
        assert_eq!(
            columns(&resource()),
            [
                "Name",
                "Status",
                "Volume",
                "Capacity",
                "Access Modes",
                "StorageClass",
                "VolumeAttributesClass",
                "Age",
                "[VolumeMode]"
            ]
        );
        assert_eq!(
            row(&resource(), &bound()),
            json!([
                "data-db-0",
                "Bound",
                "pv",
                "8Gi",
                "RWO",
                "fast",
                "<unset>",
                "10m",
                "Filesystem"
            ])
        );
        let pending = created(&resource(), data());
        assert_eq!(
            row(&resource(), &pending),
            json!([
                "data-db-0",
                "Pending",
                "",
                "",
                "",
                "",
                "<unset>",
                "10m",
                "Filesystem"
            ])
        );
    }
}
