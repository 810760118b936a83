//! Volumes that are made for a claim: local ones here, others by their external provisioner. Pure.

use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::objects::Claim;
use crate::action::{Action, Create};
use crate::object::{Key, Object};
use crate::world::World;
use api::kinds::core::persistent_volume::{self, PROVISIONED_BY};
use api::kinds::core::persistent_volume_claim::{PROVISIONER, SELECTED_NODE};
use api::kinds::storage::{local, storage_class};
use api::quantity::Quantity;
use client::Kind;

/// By which a class says what is made on its volumes.
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";
const HOSTNAME: &str = "kubernetes.io/hostname";

const MEBIBYTE: i64 = 1 << 20;
/// A file system needs some room for itself.
const LEAST_BYTES: i64 = 8 * MEBIBYTE;

/// The modes of a volume that one node has.
const LOCAL_MODES: [&str; 2] = ["ReadWriteOnce", "ReadWriteOncePod"];

pub fn class<'a>(world: &'a World, name: &str) -> Option<&'a StorageClass> {
    let object = world.get(Kind::STORAGE_CLASS, &Key::new("", name))?;
    object.as_storage_class().map(AsRef::as_ref)
}

pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The class of claims that name none: of several the newest, and of those of one second the first by name.
pub fn default_class(world: &World) -> Option<String> {
    let marked = world.all(Kind::STORAGE_CLASS).filter(|object| {
        let annotations = object.as_storage_class().map(|it| &it.metadata.annotations);
        let annotations = annotations.into_iter().flatten();
        let is_true = |mark: &&str| {
            annotations
                .clone()
                .any(|all| all.get(*mark).is_some_and(|it| it == "true"))
        };
        storage_class::IS_DEFAULT.iter().any(|mark| is_true(mark))
    });
    let newest = marked.max_by(|a, b| {
        let by_name = || b.key.name.cmp(&a.key.name);
        a.meta.created.cmp(&b.meta.created).then_with(by_name)
    });
    newest.map(|object| object.key.name.clone())
}

/// A size in whole mebibytes, as it is written.
pub fn rounded(size: Quantity) -> String {
    let bytes = size.units().max(LEAST_BYTES);
    let mebibytes = bytes / MEBIBYTE + i64::from(bytes % MEBIBYTE != 0);
    match mebibytes % 1024 {
        0 => format!("{}Gi", mebibytes / 1024),
        _ => format!("{mebibytes}Mi"),
    }
}

/// Has a volume made for a claim that no volume fits.
pub fn plan(world: &World, claim: Claim, class_name: &str) -> Vec<Action> {
    let Some(class) = class(world, class_name) else {
        let why = format!("storageclass.storage.k8s.io {class_name:?} not found");
        return vec![failed(claim, why)];
    };
    let provisioner = class.provisioner.as_str();
    if provisioner == local::DRIVER {
        return local(world, claim, class_name, class);
    }
    if provisioner.starts_with("kubernetes.io/") {
        // No volume of this class is ever made: another node may have one.
        return match claim.selected_node() {
            Some(_) => vec![reschedule(claim)],
            None => {
                let why = format!("no volume plugin matched name: {provisioner}");
                vec![failed(claim, why)]
            }
        };
    }
    let mut actions = Vec::new();
    if PROVISIONER
        .iter()
        .any(|name| claim.annotation(name) != Some(provisioner))
    {
        let [now, once] = PROVISIONER;
        let body = json!({"metadata": {"annotations": {now: provisioner, once: provisioner}}});
        actions.push(Action::merge_exact(claim.object, "", body));
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or \
         manually by the system administrator. If volume creation is delayed, please verify that \
         the provisioner is running and correctly registered."
    );
    actions.push(Action::normal(
        claim.object,
        "ExternalProvisioning",
        message,
    ));
    actions
}

fn local(world: &World, claim: Claim, class_name: &str, class: &StorageClass) -> Vec<Action> {
    if let Some(why) = unsupported(claim, class) {
        let why = format!("failed to provision volume with StorageClass {class_name:?}: {why}");
        return vec![failed(claim, why)];
    }
    let node = claim.selected_node().unwrap_or_default();
    let Some(node) = world.get(Kind::NODE, &Key::new("", node)) else {
        return vec![reschedule(claim)];
    };
    let volume = volume(claim, class_name, class, node);
    let name = volume["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let making = format!(
        "External provisioner is provisioning volume for claim {:?}",
        claim.name()
    );
    let made = format!("Successfully provisioned volume {name}");
    vec![
        Action::normal(claim.object, "Provisioning", making),
        Action::Create(Create {
            kind: Kind::PERSISTENT_VOLUME,
            namespace: String::new(),
            object: volume,
            if_absent: true,
            about: None,
        }),
        Action::normal(claim.object, "ProvisioningSucceeded", made),
    ]
}

fn unsupported(claim: Claim, class: &StorageClass) -> Option<String> {
    let spec = claim.spec()?;
    if !waits_for_consumer(class) {
        let why = "its volumeBindingMode must be WaitForFirstConsumer, as a local volume is made \
            on the node of its first pod";
        return Some(why.to_owned());
    }
    if spec.selector.is_some() {
        return Some("claim.Spec.Selector is not supported".to_owned());
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Some("a local volume begins empty: dataSource is not supported".to_owned());
    }
    let other = claim
        .modes()
        .iter()
        .find(|mode| !LOCAL_MODES.contains(&mode.as_str()))?;
    Some(format!(
        "a local volume is on one node: {other} is not supported, {} are",
        LOCAL_MODES.join(" and ")
    ))
}

fn volume(claim: Claim, class_name: &str, class: &StorageClass, node: &Object) -> Value {
    let size = claim.requested().map_or(Quantity::ZERO, |(_, size)| size);
    let Key { namespace, name } = &claim.object.key;
    let uid = &claim.object.meta.uid;
    let volume = format!("pvc-{uid}");
    let given = |name: &str| class.parameters.as_ref().and_then(|all| all.get(name));
    let mut source = json!({
        "driver": local::DRIVER, "volumeHandle": volume,
        "volumeAttributes": {local::NODE_ATTRIBUTE: node.key.name},
    });
    if let Some(allocation) = given(local::ALLOCATION) {
        source["volumeAttributes"][local::ALLOCATION] = json!(allocation);
    }
    if claim.volume_mode() == "Filesystem" {
        source["fsType"] = json!(given(FS_TYPE).map_or("ext4", String::as_str));
    }
    let term = match node.meta.labels.get(HOSTNAME) {
        Some(label) => json!({"matchExpressions": [
            {"key": HOSTNAME, "operator": "In", "values": [label]}]}),
        None => json!({"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [node.key.name]}]}),
    };
    let mut made = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": volume,
            "labels": {local::NODE_LABEL: node.key.name},
            "annotations": {PROVISIONED_BY: local::DRIVER},
            "finalizers": [persistent_volume::PROTECTION, local::FINALIZER],
        },
        "spec": {
            "capacity": {"storage": rounded(size)},
            "accessModes": claim.modes(),
            "volumeMode": claim.volume_mode(),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class_name,
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": namespace, "name": name, "uid": uid,
                "resourceVersion": claim.object.meta.revision.to_string(),
            },
            "csi": source,
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    });
    if let Some(options) = &class.mount_options {
        made["spec"]["mountOptions"] = json!(options);
    }
    made
}

/// The node that was selected cannot have the volume: the scheduler selects anew.
fn reschedule(claim: Claim) -> Action {
    let body = json!({"metadata": {"annotations": {SELECTED_NODE: null}}});
    Action::merge_exact(claim.object, "", body)
}

fn failed(claim: Claim, why: String) -> Action {
    Action::warning(claim.object, "ProvisioningFailed", why)
}
