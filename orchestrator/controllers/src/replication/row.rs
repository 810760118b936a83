//! What controllers read of a ReplicaSet or a ReplicationController. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};

use crate::object::{Body, Object, selector_or_nothing};
use api::selector::LabelSelector;
use client::Kind;

/// A ReplicaSet or a ReplicationController: they differ only in how they write their selector.
#[derive(Clone, Debug)]
pub struct SetRow {
    pub annotations: BTreeMap<String, String>,
    pub replicas: i32,
    pub selector: LabelSelector,
    pub template: Option<PodTemplateSpec>,
    pub min_ready_seconds: i32,
    pub status: SetStatus,
}

/// The status of a set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SetStatus {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub observed_generation: i64,
    /// The message of the condition ReplicaFailure, if it is true: reason and text.
    pub failure: Option<(String, String)>,
}

impl From<ReplicaSet> for Object {
    fn from(set: ReplicaSet) -> Self {
        let mut metadata = set.metadata;
        let spec = set.spec.unwrap_or_default();
        let status = set.status.unwrap_or_default();
        let mut conditions = status.conditions.into_iter().flatten();
        let failure = conditions.find(|c| c.type_ == FAILURE && c.status == "True");
        let row = SetRow {
            annotations: metadata.annotations.take().unwrap_or_default(),
            replicas: spec.replicas.unwrap_or(1),
            selector: selector_or_nothing(LabelSelector::from_object(Some(&spec.selector)).ok()),
            template: spec.template,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            status: SetStatus {
                replicas: status.replicas,
                fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                observed_generation: status.observed_generation.unwrap_or(0),
                failure: failure
                    .map(|c| (c.reason.unwrap_or_default(), c.message.unwrap_or_default())),
            },
        };
        Self::new(Kind::REPLICA_SET, metadata, Body::Set(Arc::new(row)))
    }
}

impl From<ReplicationController> for Object {
    fn from(set: ReplicationController) -> Self {
        let mut metadata = set.metadata;
        let spec = set.spec.unwrap_or_default();
        let status = set.status.unwrap_or_default();
        let mut conditions = status.conditions.into_iter().flatten();
        let failure = conditions.find(|c| c.type_ == FAILURE && c.status == "True");
        let selector = spec.selector.as_ref().filter(|labels| !labels.is_empty());
        let row = SetRow {
            annotations: metadata.annotations.take().unwrap_or_default(),
            replicas: spec.replicas.unwrap_or(1),
            selector: selector_or_nothing(selector.map(LabelSelector::from_map)),
            template: spec.template,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            status: SetStatus {
                replicas: status.replicas,
                fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                observed_generation: status.observed_generation.unwrap_or(0),
                failure: failure
                    .map(|c| (c.reason.unwrap_or_default(), c.message.unwrap_or_default())),
            },
        };
        Self::new(
            Kind::REPLICATION_CONTROLLER,
            metadata,
            Body::Set(Arc::new(row)),
        )
    }
}

const FAILURE: &str = "ReplicaFailure";
