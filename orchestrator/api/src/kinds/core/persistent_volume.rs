//! v1 PersistentVolume: a piece of storage, and what storage in general may be.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::{Value, json};

use super::persistent_volume_claim::{class, or_unset};
use super::pod::placement::node_selector;
use super::pod::volume::{climbs, host_path};
use crate::columns::{AGE, Column, NAME, Printer, age, list, name, text};
use crate::defaults::set;
use crate::quantity::Quantity;
use crate::resource::{Behaviour, Field, Resource, Scope, Subresource};
use crate::validation::changes::differences;
use crate::validation::{At, Errors, names};

/// The longest name of a CSI driver.
const MAX_DRIVER_BYTES: usize = 63;

/// The access modes with their short names, in the order in which they are shown.
const ACCESS_MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

const ACCESS_MODE_NAMES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

/// Where a volume's data is: each source with the fields that it must have.
const SOURCES: [(&str, &[&str]); 22] = [
    ("hostPath", &[]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("nfs", &["server", "path"]),
    ("rbd", &["monitors", "image"]),
    ("quobyte", &["registry", "volume"]),
    ("cephfs", &["monitors"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("cinder", &["volumeID"]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
    ("storageos", &["volumeName"]),
    ("csi", &["volumeHandle"]),
];

/// What a source says that leaves a field out.
const SOURCE_DEFAULTS: [(&str, &str, &str); 10] = [
    ("iscsi", "iscsiInterface", "default"),
    ("rbd", "pool", "rbd"),
    ("rbd", "user", "admin"),
    ("rbd", "keyring", "/etc/ceph/keyring"),
    ("azureDisk", "cachingMode", "ReadWrite"),
    ("azureDisk", "kind", "Shared"),
    ("azureDisk", "fsType", "ext4"),
    ("scaleIO", "storageMode", "ThinProvisioned"),
    ("scaleIO", "fsType", "xfs"),
    ("hostPath", "type", ""),
];

/// The annotation that names what has made a volume for its claim.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// The finalizer that keeps a volume while it is bound to a claim.
pub const PROTECTION: &str = "kubernetes.io/pv-protection";

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Volume,
        short_names: vec!["pv".into()],
        answers_with_object: true,
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        fields: vec![Field::at("name", "/metadata/name")],
        has_status: true,
        default,
        create: |volume| volume["status"] = json!({"phase": "Pending"}),
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<PersistentVolume>("", "core", "persistentvolume", "persistentvolumes")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Capacity", "The size of the volume"),
        Column::text("Access Modes", "How the volume may be mounted"),
        Column::text("Reclaim Policy", "What happens to it when its claim goes"),
        Column::text("Status", "Whether a claim has the volume"),
        Column::text("Claim", "The claim that has it"),
        Column::text("StorageClass", "The class that the volume is of"),
        Column::text("VolumeAttributesClass", "The class of its attributes"),
        Column::text("Reason", "Why the volume is in this status"),
        AGE,
        Column::wide("VolumeMode", "A filesystem or a block device"),
    ],
    cells,
};

fn default(volume: &mut Value) {
    if !volume["spec"].is_object() {
        volume["spec"] = json!({});
    }
    let spec = &mut volume["spec"];
    set(spec, "persistentVolumeReclaimPolicy", || "Retain".into());
    set(spec, "volumeMode", || "Filesystem".into());
    for (source, field, value) in SOURCE_DEFAULTS {
        if let Some(source) = spec.get_mut(source).filter(|s| s.is_object()) {
            set(source, field, || value.into());
        }
    }
    if let Some(disk) = spec.get_mut("azureDisk").filter(|s| s.is_object()) {
        set(disk, "readOnly", || false.into());
    }
    set(volume, "status", || json!({}));
    set(&mut volume["status"], "phase", || "Pending".into());
}

fn validate(volume: &At<'_>, errors: &mut Errors) {
    let spec = volume.field("spec");
    let modes = spec.field("accessModes");
    if modes.is_empty() {
        errors.required(&modes, "");
    }
    access_modes(&modes, errors);
    capacity(&spec.field("capacity"), errors);
    errors.one_of_if_any(
        &spec.field("persistentVolumeReclaimPolicy"),
        &["Delete", "Recycle", "Retain"],
    );
    let affinity = spec.field("nodeAffinity");
    let required = affinity.field("required");
    if !required.is_null() {
        node_selector(&required, errors);
    } else if !affinity.is_null() {
        errors.required(&required, "must specify required node constraints");
    }
    sources(&spec, errors);
    let class = spec.field("storageClassName");
    if !class.is_empty() {
        errors.check(&class, names::subdomain(class.text()));
    }
    errors.one_of_if_any(&spec.field("volumeMode"), &["Block", "Filesystem"]);
    let attributes = spec.field("volumeAttributesClassName");
    if attributes.is_null() {
        return;
    }
    if attributes.is_empty() {
        errors.required(&attributes, "an empty string is disallowed");
    } else {
        errors.check(&attributes, names::subdomain(attributes.text()));
    }
    let csi = spec.field("csi");
    if csi.is_null() {
        let detail = "has to be specified when using volumeAttributesClassName";
        errors.required(&csi, detail);
    }
}

/// The ways of mounting, of a volume or of a claim.
pub(super) fn access_modes(modes: &At<'_>, errors: &mut Errors) {
    let (mut alone, mut others) = (false, false);
    for mode in modes.items() {
        if !ACCESS_MODE_NAMES.contains(&mode.text()) {
            errors.part_not_supported(modes, mode.value, &ACCESS_MODE_NAMES);
        } else if mode.text() == "ReadWriteOncePod" {
            alone = true;
        } else {
            others = true;
        }
    }
    if alone && others {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.forbidden(modes, detail);
    }
}

fn capacity(capacity: &At<'_>, errors: &mut Errors) {
    if capacity.is_empty() {
        errors.required(capacity, "");
    }
    let only_storage = capacity.entries().map(|(name, _)| name).eq(["storage"]);
    if !only_storage {
        errors.not_supported(capacity, &["storage"]);
    }
    for (_, amount) in capacity.entries() {
        positive_amount(&amount, errors);
    }
}

pub(super) fn positive_amount(at: &At<'_>, errors: &mut Errors) {
    if Quantity::parse(at.text()).is_ok_and(|amount| amount <= Quantity::ZERO) {
        errors.invalid(at, "must be greater than zero");
    }
}

fn sources(spec: &At<'_>, errors: &mut Errors) {
    let mut given = 0;
    for (name, required) in SOURCES {
        let source = spec.field(name);
        if source.is_null() {
            continue;
        }
        given += 1;
        if given > 1 {
            errors.forbidden(&source, "may not specify more than 1 volume type");
            continue;
        }
        for field in required {
            let field = source.field(field);
            if field.is_empty() {
                errors.required(&field, "");
            }
        }
        match name {
            "hostPath" => host_path(&source, errors),
            "nfs" => absolute(&source.field("path"), errors),
            "local" => local(spec, &source, errors),
            "csi" => csi(&source, errors),
            _ => {}
        }
    }
    if given == 0 {
        errors.required(spec, "must specify a volume type");
    }
    let path = spec.value["hostPath"]["path"].as_str().unwrap_or_default();
    let root = path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "."));
    let policy = spec.field("persistentVolumeReclaimPolicy");
    if root && policy.text() == "Recycle" {
        errors.forbidden(&policy, "may not be 'recycle' for a hostPath mount of '/'");
    }
}

fn absolute(path: &At<'_>, errors: &mut Errors) {
    if !path.is_empty() && !path.text().starts_with('/') {
        errors.invalid(path, "must be an absolute path");
    }
}

/// A directory of a node, which therefore has to be said.
fn local(spec: &At<'_>, source: &At<'_>, errors: &mut Errors) {
    let path = source.field("path");
    if climbs(path.text()) {
        errors.invalid(&path, "must not contain '..'");
    }
    let affinity = spec.field("nodeAffinity");
    let required = affinity.field("required");
    if required.field("nodeSelectorTerms").is_empty() {
        errors.required(&affinity, "Local volume requires node affinity");
    }
}

fn csi(source: &At<'_>, errors: &mut Errors) {
    let driver = source.field("driver");
    if driver.is_empty() {
        errors.required(&driver, "");
    } else if driver.text().len() > MAX_DRIVER_BYTES {
        errors.too_long(&driver, MAX_DRIVER_BYTES);
    } else {
        errors.check(&driver, names::subdomain(&driver.text().to_lowercase()));
    }
    for secret in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = source.field(secret);
        if secret.is_null() {
            continue;
        }
        for field in ["name", "namespace"] {
            let at = secret.field(field);
            if at.is_empty() {
                errors.required(&at, "");
            } else if field == "name" {
                errors.check(&at, names::subdomain(at.text()));
            } else {
                errors.check(&at, names::label(at.text()));
            }
        }
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let mut now = source_of(spec.value);
    let then = source_of(before.value);
    // A secret for growing the volume may come later.
    if then["csi"].is_object() && then["csi"]["controllerExpandSecretRef"].is_null() {
        let csi = now.get_mut("csi").and_then(Value::as_object_mut);
        csi.map(|csi| csi.remove("controllerExpandSecretRef"));
    }
    if now != then {
        let changed = differences(&now, &then, "spec").join(", ");
        let detail = format!(
            "spec.persistentvolumesource is immutable after creation\n  changed: {changed}\n"
        );
        errors.forbidden(&spec.field("persistentvolumesource"), &detail);
    }
    // Kubernetes names these without the spec that they are in.
    let mut fields = vec!["volumeMode"];
    if !before.field("nodeAffinity").is_null() {
        fields.push("nodeAffinity");
    }
    for field in fields {
        let at = new.field(field);
        errors.immutable(&at.with(&spec.value[field]), &at.with(&before.value[field]));
    }
    let attributes = spec.field("volumeAttributesClassName");
    if attributes.is_null() && !before.field("volumeAttributesClassName").is_null() {
        errors.forbidden(&attributes, "update from non-nil value to nil is forbidden");
    }
}

/// The part of a spec that says where the data is.
fn source_of(spec: &Value) -> Value {
    let given = SOURCES
        .iter()
        .filter_map(|(name, _)| Some(((*name).to_owned(), spec.get(name)?.clone())));
    Value::Object(given.collect())
}

fn cells(volume: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match text(volume, "/spec/claimRef/name") {
        "" => String::new(),
        name => format!("{}/{name}", text(volume, "/spec/claimRef/namespace")),
    };
    vec![
        name(volume),
        text(volume, "/spec/capacity/storage").into(),
        access_modes_text(volume, "/spec/accessModes").into(),
        text(volume, "/spec/persistentVolumeReclaimPolicy").into(),
        phase(volume).into(),
        claim.into(),
        class(volume).into(),
        or_unset(volume, "/spec/volumeAttributesClassName").into(),
        text(volume, "/status/reason").into(),
        age(volume, now),
        or_unset(volume, "/spec/volumeMode").into(),
    ]
}

/// `RWO,ROX` of the modes at a JSON pointer.
pub(super) fn access_modes_text(object: &Value, pointer: &str) -> String {
    let modes = list(object, pointer);
    let given = ACCESS_MODES
        .iter()
        .filter(|(name, _)| modes.iter().any(|mode| mode == name));
    given.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The phase of a claim or volume, unless it is going.
pub(super) fn phase(object: &Value) -> &str {
    match text(object, "/metadata/deletionTimestamp") {
        "" => text(object, "/status/phase"),
        _ => "Terminating",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{change, columns, created, row, with, wrong};

    fn export() -> Value {
        json!({
            "metadata": {"name": "media"},
            "spec": {
                "capacity": {"storage": "10240Gi"},
                "accessModes": ["ReadWriteMany", "ReadOnlyMany"],
                "storageClassName": "nfs",
                "nfs": {"server": "nas.example", "path": "/media"},
            },
        })
    }

    fn disk() -> Value {
        json!({
            "metadata": {"name": "disk"},
            "spec": {
                "capacity": {"storage": "100Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Delete",
                "local": {"path": "/mnt/disk"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{
                    "key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"],
                }]}]}},
            },
        })
    }

    #[test]
    fn a_new_volume_is_kept_and_pending() {
        let volume = created(&resource(), export());
        assert_eq!(
            volume["spec"],
            json!({
                "capacity": {"storage": "10Ti"},
                "accessModes": ["ReadWriteMany", "ReadOnlyMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "nfs",
                "volumeMode": "Filesystem",
                "nfs": {"server": "nas.example", "path": "/media"},
            })
        );
        assert_eq!(volume["status"], json!({"phase": "Pending"}));
        let host = with(&export(), "/spec/nfs", Value::Null);
        let host = created(
            &resource(),
            with(&host, "/spec/hostPath", json!({"path": "/data"})),
        );
        assert_eq!(
            host["spec"]["hostPath"],
            json!({"path": "/data", "type": ""})
        );
    }

    #[test]
    fn volumes_are_refused_in_the_words_of_kubernetes() {
        let cases = [
            (
                "/spec/accessModes",
                json!([]),
                "spec.accessModes: Required value",
            ),
            (
                "/spec/capacity",
                json!({"cpu": "1"}),
                r#"spec.capacity: Unsupported value: {"cpu":"1"}: supported values: "storage""#,
            ),
            (
                "/spec/capacity/storage",
                json!("-1"),
                r#"spec.capacity[storage]: Invalid value: "-1": must be greater than zero"#,
            ),
            (
                "/spec/persistentVolumeReclaimPolicy",
                json!("Keep"),
                r#"spec.persistentVolumeReclaimPolicy: Unsupported value: "Keep": supported values: "Delete", "Recycle", "Retain""#,
            ),
            (
                "/spec/nfs",
                Value::Null,
                "spec: Required value: must specify a volume type",
            ),
            (
                "/spec/nfs",
                json!({"server": "", "path": "media"}),
                r#"[spec.nfs.server: Required value, spec.nfs.path: Invalid value: "media": must be an absolute path]"#,
            ),
            (
                "/spec/csi",
                json!({"driver": "d", "volumeHandle": "v"}),
                "spec.csi: Forbidden: may not specify more than 1 volume type",
            ),
            (
                "/spec/volumeAttributesClassName",
                json!("gold"),
                "spec.csi: Required value: has to be specified when using \
                 volumeAttributesClassName",
            ),
            (
                "/spec/nodeAffinity",
                json!({}),
                "spec.nodeAffinity.required: Required value: must specify required node \
                 constraints",
            ),
        ];
        for (at, value, why) in cases {
            assert_eq!(wrong(&resource(), with(&export(), at, value)), why);
        }
        let anywhere = with(&disk(), "/spec/nodeAffinity", Value::Null);
        assert_eq!(
            wrong(&resource(), anywhere),
            "spec.nodeAffinity: Required value: Local volume requires node affinity"
        );
    }

    #[test]
    fn where_the_data_is_does_not_change() {
        let volume = created(&resource(), disk());
        let cases = [
            (json!({"spec": {"capacity": {"storage": "200Gi"}}}), ""),
            (
                json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}),
                "",
            ),
            (
                json!({"spec": {"claimRef": {"name": "c", "namespace": "default"}}}),
                "",
            ),
            (
                json!({"spec": {"local": {"path": "/mnt/other"}}}),
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is \
                 immutable after creation\n  changed: spec.local.path\n",
            ),
            (
                json!({"spec": {"volumeMode": "Block"}}),
                r#"volumeMode: Invalid value: "Block": field is immutable"#,
            ),
        ];
        for (patch, why) in cases {
            assert_eq!(change(&resource(), &volume, patch.clone()), why, "{patch}");
        }
    }

    #[test]
    fn a_row_shows_who_has_the_volume() {
        assert_eq!(
            columns(&resource()),
            [
                "Name",
                "Capacity",
                "Access Modes",
                "Reclaim Policy",
                "Status",
                "Claim",
                "StorageClass",
                "VolumeAttributesClass",
                "Reason",
                "Age",
                "[VolumeMode]"
            ]
        );
        let volume = created(&resource(), export());
        let claimed = json!({"name": "c", "namespace": "default"});
        let volume = with(&volume, "/spec/claimRef", claimed);
        assert_eq!(
            row(&resource(), &volume),
            json!([
                "media",
                "10Ti",
                "ROX,RWX",
                "Retain",
                "Pending",
                "default/c",
                "nfs",
                "<unset>",
                "",
                "10m",
                "Filesystem"
            ])
        );
    }
}
