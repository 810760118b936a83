//! What a pod's claims lead to: from a PersistentVolume to what is mounted of it. Pure.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    Container as Template, HostPathVolumeSource, NFSVolumeSource, PersistentVolume,
    PersistentVolumeClaim, Pod, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use super::images::Wanted;
use super::nfs::Export;
use crate::api::sources::{Mounted, Sources};
use crate::pod::{quantity, shape};
use crate::runtime::container_spec::SpecError;
use api::kinds::storage::local;

/// A claim that a pod's volume names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Of the volume in the pod.
    pub volume: String,
    pub claim: String,
    /// The claim was made for the pod (KEP-1698).
    pub is_own: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq)]
pub enum Backing {
    HostPath(HostPathVolumeSource),
    /// A directory of the node that is a volume.
    Directory(PathBuf),
    /// A block device of the node that is a volume.
    Device(PathBuf),
    Image(Wanted),
    Nfs(Export),
    /// A CSI driver has it mounted.
    Driver(Mounted),
}

/// What a volume of a pod is.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub backing: Backing,
    pub read_only: bool,
}

impl Found {
    /// Whether containers get a device and no files.
    pub fn is_block(&self) -> bool {
        match &self.backing {
            Backing::Device(_) => true,
            Backing::Image(wanted) => wanted.is_block,
            Backing::Driver(mounted) => mounted.is_block,
            _ => false,
        }
    }
}

/// The claims that a pod's volumes name.
pub fn named(pod: &Pod) -> Vec<Named> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = super::volumes_of(pod);
    let named = volumes.filter_map(|volume| {
        let own = volume
            .ephemeral
            .as_ref()
            .map(|_| format!("{pod_name}-{}", volume.name));
        let given = volume.persistent_volume_claim.as_ref();
        let is_own = own.is_some();
        Some(Named {
            volume: volume.name.clone(),
            claim: own.or_else(|| Some(given?.claim_name.clone()))?,
            is_own,
        })
    });
    named.collect()
}

/// The volume of a claim that a pod may use; else why it may not, in a kubelet's words.
pub fn volume_of<'a>(
    pod: &Pod,
    named: &Named,
    claim: &'a PersistentVolumeClaim,
) -> Result<&'a str, String> {
    let owners = claim.metadata.owner_references.iter().flatten();
    let is_pod = |owner: &OwnerReference| {
        owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref()
    };
    if named.is_own && !owners.clone().any(is_pod) {
        return Err(format!(
            "PVC {} was not created for the pod (pod is not owner)",
            named.claim
        ));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("can't start pod because PVC is being deleted".to_owned());
    }
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let name = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref());
    match name.filter(|name| phase == Some("Bound") && !name.is_empty()) {
        Some(name) => Ok(name),
        None => Err("PVC is not bound".to_owned()),
    }
}

/// Whether a volume is the claim's by its own word too.
pub fn is_bound(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let bound = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    bound.is_some_and(|bound| bound.uid.is_some() && bound.uid == claim.metadata.uid)
}

/// What a volume of a pod that is not its own leads to; none for the other types.
pub fn find(volume: &Volume, sources: &Sources, node: &str) -> Result<Option<Found>, SpecError> {
    if let Some(path) = &volume.host_path {
        let backing = Backing::HostPath(path.clone());
        let read_only = false;
        return Ok(Some(Found { backing, read_only }));
    }
    if let Some(source) = &volume.nfs {
        let backing = Backing::Nfs(export(source, Vec::new()));
        let read_only = source.read_only == Some(true);
        return Ok(Some(Found { backing, read_only }));
    }
    // Also of claims: what their drivers have mounted.
    if let Some(mounted) = sources.mounted.get(&volume.name) {
        let backing = Backing::Driver(mounted.clone());
        let read_only = mounted.read_only;
        return Ok(Some(Found { backing, read_only }));
    }
    if volume.csi.is_some() {
        return Err(unmountable("its driver was not asked".to_owned()));
    }
    let asked = volume.persistent_volume_claim.as_ref();
    if asked.is_none() && volume.ephemeral.is_none() {
        return Ok(None);
    }
    let persistent = match sources.claimed.get(&volume.name) {
        Some(Ok(persistent)) => persistent,
        Some(Err(why)) => return Err(unmountable(why.clone())),
        None => return Err(unmountable("its claim was not read".to_owned())),
    };
    let asks = asked.is_some_and(|asked| asked.read_only == Some(true));
    let mut found = of_persistent(persistent, node)?;
    found.read_only |= asks;
    Ok(Some(found))
}

/// Why a volume cannot be used as the pod's containers say: as files, or as a device.
pub fn check_use(pod: &Pod, volume: &str, is_block: bool) -> Result<(), SpecError> {
    let ephemeral = shape::ephemeral_templates(pod);
    let ephemeral = ephemeral.iter().map(|(template, _)| template);
    let own = shape::init_templates(pod)
        .iter()
        .chain(shape::main_templates(pod));
    let (mode, list) = match is_block {
        true => ("Block", "volumeMounts"),
        false => ("Filesystem", "volumeDevices"),
    };
    let is_wrong = |template: &Template| match is_block {
        true => template
            .volume_mounts
            .iter()
            .flatten()
            .any(|it| it.name == volume),
        false => template
            .volume_devices
            .iter()
            .flatten()
            .any(|it| it.name == volume),
    };
    match own.chain(ephemeral).any(is_wrong) {
        false => Ok(()),
        true => Err(unmountable(format!(
            "volume {volume} has volumeMode {mode}, but is specified in {list}"
        ))),
    }
}

fn of_persistent(volume: &PersistentVolume, node: &str) -> Result<Found, SpecError> {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let spec = volume.spec.clone().unwrap_or_default();
    let is_block = spec.volume_mode.as_deref() == Some("Block");
    let options = spec.mount_options.clone().unwrap_or_default();
    let mut read_only = false;
    let backing = if let Some(local) = spec.local.as_ref().filter(|_| is_block) {
        Backing::Device(PathBuf::from(&local.path))
    } else if let Some(path) = spec.host_path.filter(|_| !is_block) {
        Backing::HostPath(path)
    } else if let Some(local) = spec.local {
        Backing::Directory(PathBuf::from(local.path))
    } else if let Some(source) = spec.nfs.filter(|_| !is_block) {
        read_only = source.read_only == Some(true);
        Backing::Nfs(export(&source, options))
    } else if let Some(source) = spec.csi {
        read_only = source.read_only == Some(true);
        if source.driver != local::DRIVER {
            let driver = &source.driver;
            let why = format!(
                "kubernetes.io/csi: driver name {driver} not found in the list of registered CSI \
                 drivers"
            );
            return Err(unmountable(why));
        }
        Backing::Image(image(volume, options, node)?)
    } else {
        let kind = if is_block { "block volume" } else { "volume" };
        let why = format!("no {kind} plugin matched the PersistentVolume {name}");
        return Err(unmountable(why));
    };
    Ok(Found { backing, read_only })
}

/// A volume's image has the volume's name: no other name leads to it.
fn image(volume: &PersistentVolume, options: Vec<String>, node: &str) -> Result<Wanted, SpecError> {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let spec = volume.spec.clone().unwrap_or_default();
    let source = spec.csi.unwrap_or_default();
    let attributes = source.volume_attributes.unwrap_or_default();
    let on = attributes
        .get(local::NODE_ATTRIBUTE)
        .map_or("", String::as_str);
    if on != node || source.volume_handle != name {
        let why = format!("the local volume {name} is on node {on:?}, not on this one");
        return Err(unmountable(why));
    }
    let kind = source.fs_type.as_deref().filter(|kind| !kind.is_empty());
    if let Some(kind) = kind.filter(|kind| *kind != "ext4") {
        let why = format!("fsType {kind:?} is not supported for local volumes: ext4 is");
        return Err(unmountable(why));
    }
    let capacity = spec.capacity.unwrap_or_default();
    let milli = capacity.get("storage").and_then(quantity::milli);
    let bytes = milli.and_then(|milli| u64::try_from(milli / 1000).ok());
    let Some(bytes) = bytes.filter(|bytes| *bytes > 0) else {
        return Err(unmountable(format!("the volume {name} has no capacity")));
    };
    let thick = match attributes.get(local::ALLOCATION).map(String::as_str) {
        None | Some("thin") => false,
        Some("thick") => true,
        Some(other) => {
            let why = format!("allocation {other:?} is not known: thin and thick are");
            return Err(unmountable(why));
        }
    };
    Ok(Wanted {
        name,
        bytes,
        thick,
        options,
        is_block: spec.volume_mode.as_deref() == Some("Block"),
    })
}

fn export(source: &NFSVolumeSource, options: Vec<String>) -> Export {
    Export {
        server: source.server.clone(),
        path: source.path.clone(),
        read_only: source.read_only == Some(true),
        options,
    }
}

/// The capacity, node and life of a local volume, of its whole object.
pub fn local_node(volume: &PersistentVolume) -> Option<String> {
    let value: Value = serde_json::to_value(volume).ok()?;
    local::node_of(&value).map(str::to_owned)
}

fn unmountable(message: String) -> SpecError {
    SpecError {
        reason: "FailedMount",
        message,
    }
}

#[cfg(test)]
#[path = "claimed_tests.rs"]
mod tests;
