//! Claims, volumes and classes as the API has them, made into rows. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::{ClaimRow, ClassRow, VolumeRow};
use crate::demand::NodeTerm;
use api::quantity::Quantity;
use api::selector::{LabelSelector, Operator, Requirement};

/// The class of claims and volumes from before there was a field.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const BOUND: &str = "pv.kubernetes.io/bind-completed";
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

impl From<PersistentVolumeClaim> for ClaimRow {
    fn from(claim: PersistentVolumeClaim) -> Self {
        let metadata = claim.metadata;
        let spec = claim.spec.unwrap_or_default();
        let status = claim.status.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        let mut owners = metadata.owner_references.into_iter().flatten();
        let owner = owners.find(|it| it.controller == Some(true) && it.kind == "Pod");
        let volume = spec.volume_name.unwrap_or_default();
        let completed = annotations.contains_key(BOUND) || status.phase.as_deref() == Some("Bound");
        let requests = spec.resources.and_then(|it| it.requests);
        let selector = match &spec.selector {
            None => LabelSelector::everything(),
            some => LabelSelector::from_object(some.as_ref())
                .unwrap_or_else(|_| LabelSelector::nothing()),
        };
        let old_class = annotations.get(CLASS).cloned();
        Self {
            key: (
                metadata.namespace.unwrap_or_default(),
                metadata.name.unwrap_or_default(),
            ),
            uid: metadata.uid.unwrap_or_default(),
            owner: owner.map(|it| it.uid).unwrap_or_default(),
            terminating: metadata.deletion_timestamp.is_some(),
            lost: status.phase.as_deref() == Some("Lost"),
            bound: completed && !volume.is_empty(),
            volume,
            class: old_class.or(spec.storage_class_name).unwrap_or_default(),
            modes: spec.access_modes.unwrap_or_default(),
            volume_mode: spec.volume_mode.unwrap_or_else(|| "Filesystem".to_owned()),
            size: storage(requests.as_ref()),
            selector,
            selected_node: annotations.get(SELECTED_NODE).cloned().unwrap_or_default(),
        }
    }
}

impl From<PersistentVolume> for VolumeRow {
    fn from(volume: PersistentVolume) -> Self {
        let metadata = volume.metadata;
        let spec = volume.spec.unwrap_or_default();
        let phase = volume
            .status
            .and_then(|status| status.phase)
            .unwrap_or_default();
        let required = spec.node_affinity.and_then(|affinity| affinity.required);
        let terms = required.map(|it| it.node_selector_terms);
        let old_class = metadata.annotations.and_then(|mut it| it.remove(CLASS));
        let claim = spec.claim_ref.map(|it| {
            let key = (
                it.namespace.unwrap_or_default(),
                it.name.unwrap_or_default(),
            );
            (key, it.uid.unwrap_or_default())
        });
        Self {
            name: metadata.name.unwrap_or_default(),
            revision: metadata.resource_version.unwrap_or_default(),
            available: matches!(phase.as_str(), "" | "Pending" | "Available")
                && metadata.deletion_timestamp.is_none(),
            class: old_class.or(spec.storage_class_name).unwrap_or_default(),
            modes: spec.access_modes.unwrap_or_default(),
            volume_mode: spec.volume_mode.unwrap_or_else(|| "Filesystem".to_owned()),
            size: storage(spec.capacity.as_ref()),
            labels: metadata.labels.unwrap_or_default(),
            nodes: terms.map(|terms| terms.iter().map(NodeTerm::from_object).collect()),
            csi: spec.csi.map(|csi| (csi.driver, csi.volume_handle)),
            claim,
        }
    }
}

impl From<StorageClass> for ClassRow {
    fn from(class: StorageClass) -> Self {
        let topologies = class.allowed_topologies.filter(|terms| !terms.is_empty());
        Self {
            name: class.metadata.name.unwrap_or_default(),
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisions: class.provisioner != NO_PROVISIONER,
            nodes: topologies.map(|terms| terms.iter().map(topology).collect()),
        }
    }
}

/// The node's name, and how many volumes of each driver it can have.
pub fn limits(node: CSINode) -> (String, BTreeMap<String, i64>) {
    let drivers = node.spec.drivers.into_iter();
    let limits = drivers.filter_map(|driver| {
        let count = driver.allocatable.and_then(|it| it.count)?;
        Some((driver.name, i64::from(count)))
    });
    (node.metadata.name.unwrap_or_default(), limits.collect())
}

fn topology(term: &TopologySelectorTerm) -> NodeTerm {
    let rules = term.match_label_expressions.iter().flatten();
    let rules =
        rules.filter_map(|it| Requirement::new(&it.key, Operator::In, it.values.clone()).ok());
    NodeTerm {
        labels: rules.collect(),
        fields: Vec::new(),
    }
}

fn storage(amounts: Option<&BTreeMap<String, Text>>) -> Quantity {
    let text = amounts.and_then(|amounts| amounts.get("storage"));
    text.and_then(|text| Quantity::parse(&text.0).ok())
        .unwrap_or(Quantity::ZERO)
}
