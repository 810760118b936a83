//! Claims, volumes and classes as objects of the world. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::object::{Body, Key, Object, slim};
use api::kinds::core::persistent_volume_claim::{BIND_COMPLETED, CLASS_ANNOTATION, SELECTED_NODE};
use api::quantity::Quantity;
use client::Kind;

impl Object {
    /// A volume that is bound to a claim.
    pub fn is_bound_volume(&self) -> bool {
        let status = self.as_volume().and_then(|volume| volume.status.as_ref());
        status.is_some_and(|status| status.phase.as_deref() == Some("Bound"))
    }

    pub fn as_volume(&self) -> Option<&Arc<PersistentVolume>> {
        if let Body::Volume(volume) = &self.body {
            Some(volume)
        } else {
            None
        }
    }

    pub fn as_claim(&self) -> Option<&Arc<PersistentVolumeClaim>> {
        if let Body::Claim(claim) = &self.body {
            Some(claim)
        } else {
            None
        }
    }

    pub fn as_storage_class(&self) -> Option<&Arc<StorageClass>> {
        if let Body::StorageClass(class) = &self.body {
            Some(class)
        } else {
            None
        }
    }
}

/// A claim with what is read of it.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    pub object: &'a Object,
    pub claim: &'a PersistentVolumeClaim,
}

/// A volume with what is read of it.
#[derive(Clone, Copy)]
pub struct Volume<'a> {
    pub object: &'a Object,
    pub volume: &'a PersistentVolume,
}

impl<'a> Claim<'a> {
    pub fn of(object: &'a Object) -> Option<Self> {
        let claim = object.as_claim()?;
        Some(Self { object, claim })
    }

    pub fn spec(&self) -> Option<&'a PersistentVolumeClaimSpec> {
        self.claim.spec.as_ref()
    }

    pub fn annotation(&self, name: &str) -> Option<&'a str> {
        let annotations = self.claim.metadata.annotations.as_ref()?;
        annotations.get(name).map(String::as_str)
    }

    /// Its class; none where it names none, empty where it wants none.
    pub fn class(&self) -> Option<&'a str> {
        let named = self
            .spec()
            .and_then(|spec| spec.storage_class_name.as_deref());
        self.annotation(CLASS_ANNOTATION).or(named)
    }

    /// The name of its volume; empty while it has none.
    pub fn volume_name(&self) -> &'a str {
        let name = self.spec().and_then(|spec| spec.volume_name.as_deref());
        name.unwrap_or_default()
    }

    pub fn phase(&self) -> &'a str {
        let status = self.claim.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        phase.unwrap_or_default()
    }

    pub fn is_bind_completed(&self) -> bool {
        self.annotation(BIND_COMPLETED).is_some()
    }

    pub fn selected_node(&self) -> Option<&'a str> {
        self.annotation(SELECTED_NODE)
            .filter(|node| !node.is_empty())
    }

    pub fn modes(&self) -> &'a [String] {
        let modes = self.spec().and_then(|spec| spec.access_modes.as_deref());
        modes.unwrap_or_default()
    }

    pub fn volume_mode(&self) -> &'a str {
        let mode = self.spec().and_then(|spec| spec.volume_mode.as_deref());
        mode.unwrap_or(FILESYSTEM)
    }

    /// How much it asks for, as it is written and as a number.
    pub fn requested(&self) -> Option<(&'a Text, Quantity)> {
        let resources = self.spec()?.resources.as_ref()?;
        storage(resources.requests.as_ref()?)
    }

    /// How much it has.
    pub fn capacity(&self) -> Option<(&'a Text, Quantity)> {
        storage(self.claim.status.as_ref()?.capacity.as_ref()?)
    }

    /// `namespace/name`, as messages say it.
    pub fn name(&self) -> String {
        let Key { namespace, name } = &self.object.key;
        format!("{namespace}/{name}")
    }
}

impl<'a> Volume<'a> {
    pub fn of(object: &'a Object) -> Option<Self> {
        let volume = object.as_volume()?;
        Some(Self { object, volume })
    }

    pub fn name(&self) -> &'a str {
        &self.object.key.name
    }

    pub fn spec(&self) -> Option<&'a PersistentVolumeSpec> {
        self.volume.spec.as_ref()
    }

    pub fn annotation(&self, name: &str) -> Option<&'a str> {
        let annotations = self.volume.metadata.annotations.as_ref()?;
        annotations.get(name).map(String::as_str)
    }

    pub fn class(&self) -> &'a str {
        let named = self
            .spec()
            .and_then(|spec| spec.storage_class_name.as_deref());
        self.annotation(CLASS_ANNOTATION)
            .or(named)
            .unwrap_or_default()
    }

    /// The claim that it is for.
    pub fn claim(&self) -> Option<&'a ObjectReference> {
        self.spec()?.claim_ref.as_ref()
    }

    pub fn claim_key(&self) -> Option<Key> {
        let claim = self.claim()?;
        let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
        Some(Key::new(text(&claim.namespace), text(&claim.name)))
    }

    /// The uid in its reference; empty while the claim is not known.
    pub fn claim_uid(&self) -> &'a str {
        let uid = self.claim().and_then(|claim| claim.uid.as_deref());
        uid.unwrap_or_default()
    }

    /// Whether its reference names this claim, or one of this name that is not known yet.
    pub fn is_for(&self, claim: &Claim) -> bool {
        self.claim_key().as_ref() == Some(&claim.object.key)
            && ["", claim.object.meta.uid.as_str()].contains(&self.claim_uid())
    }

    pub fn phase(&self) -> &'a str {
        let status = self.volume.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        phase.unwrap_or_default()
    }

    pub fn modes(&self) -> &'a [String] {
        let modes = self.spec().and_then(|spec| spec.access_modes.as_deref());
        modes.unwrap_or_default()
    }

    pub fn volume_mode(&self) -> &'a str {
        let mode = self.spec().and_then(|spec| spec.volume_mode.as_deref());
        mode.unwrap_or(FILESYSTEM)
    }

    pub fn capacity(&self) -> Option<(&'a Text, Quantity)> {
        storage(self.spec()?.capacity.as_ref()?)
    }

    pub fn reclaim_policy(&self) -> &'a str {
        let spec = self.spec();
        let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        policy.unwrap_or("Retain")
    }

    /// The CSI driver whose volume it is.
    pub fn driver(&self) -> Option<&'a str> {
        Some(self.spec()?.csi.as_ref()?.driver.as_str())
    }
}

const FILESYSTEM: &str = "Filesystem";

fn storage(amounts: &BTreeMap<String, Text>) -> Option<(&Text, Quantity)> {
    let text = amounts.get("storage")?;
    Some((text, Quantity::parse(&text.0).ok()?))
}

impl From<PersistentVolume> for Object {
    fn from(mut volume: PersistentVolume) -> Self {
        let metadata = slim(&mut volume.metadata);
        Self::new(
            Kind::PERSISTENT_VOLUME,
            metadata,
            Body::Volume(Arc::new(volume)),
        )
    }
}

impl From<PersistentVolumeClaim> for Object {
    fn from(mut claim: PersistentVolumeClaim) -> Self {
        let metadata = slim(&mut claim.metadata);
        Self::new(
            Kind::PERSISTENT_VOLUME_CLAIM,
            metadata,
            Body::Claim(Arc::new(claim)),
        )
    }
}

impl From<StorageClass> for Object {
    fn from(mut class: StorageClass) -> Self {
        let metadata = slim(&mut class.metadata);
        Self::new(
            Kind::STORAGE_CLASS,
            metadata,
            Body::StorageClass(Arc::new(class)),
        )
    }
}
