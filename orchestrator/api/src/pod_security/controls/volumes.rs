//! The volumes of a pod.

use serde_json::Value;

use super::super::containers::{self, Values, plural, quoted};
use super::{Pod, Violation};

/// What the level `restricted` allows.
const ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The other ones that Kubernetes has ever had, in the order in which it looks for them.
const RESTRICTED: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub fn host_path(pod: Pod<'_>) -> Option<Violation> {
    let found = volumes(pod.spec).filter(|volume| volume["hostPath"].is_object());
    let names: Vec<&str> = found.map(containers::name).collect();
    (!names.is_empty()).then(|| Violation {
        reason: "hostPath volumes",
        detail: format!("{} {}", plural("volume", names.len()), quoted(names)),
    })
}

pub fn restricted(pod: Pod<'_>) -> Option<Violation> {
    let is = |volume: &Value, kinds: &[&'static str]| -> Option<&'static str> {
        let mut kinds = kinds.iter().copied();
        kinds.find(|kind| volume[*kind].is_object())
    };
    let wrong = volumes(pod.spec).filter(|volume| is(volume, &ALLOWED).is_none());
    let wrong: Vec<&Value> = wrong.collect();
    if wrong.is_empty() {
        return None;
    }
    let kinds = wrong
        .iter()
        .map(|volume| is(volume, &RESTRICTED).unwrap_or("unknown"));
    let kinds: Values<'_> = kinds.collect();
    let names: Vec<&str> = wrong.into_iter().map(containers::name).collect();
    Some(Violation {
        reason: "restricted volume types",
        detail: format!(
            "{} {} {} {} {}",
            plural("volume", names.len()),
            quoted(&names),
            if names.len() == 1 { "uses" } else { "use" },
            plural("restricted volume type", kinds.len()),
            quoted(kinds),
        ),
    })
}

fn volumes(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["volumes"].as_array().into_iter().flatten()
}
