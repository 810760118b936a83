//! What the controller reads of a StatefulSet. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::object::{Body, Object, selector_or_nothing};
use api::selector::LabelSelector;
use client::Kind;

/// A StatefulSet.
#[derive(Clone, Debug)]
pub struct StatefulRow {
    pub annotations: BTreeMap<String, String>,
    pub replicas: i64,
    /// The first ordinal.
    pub start: i64,
    pub selector: LabelSelector,
    /// The labels that the selector demands, which claims get too.
    pub match_labels: BTreeMap<String, String>,
    /// As JSON, as revisions keep it.
    pub template: Value,
    /// A claim of each of these is made for every pod: by name, in the order of the spec.
    pub claims: Vec<(String, Value)>,
    pub service: String,
    pub parallel: bool,
    /// None: pods are replaced when somebody deletes them.
    pub rolling: Option<Rolling>,
    pub min_ready_seconds: i32,
    pub retention: Retention,
    pub history_limit: usize,
    pub status: StatefulStatus,
}

/// How a rolling update goes.
#[derive(Clone, Debug, Default)]
pub struct Rolling {
    /// So many pods, from the first, keep the current revision.
    pub partition: i64,
    /// None: one after the other, each when the one before is available.
    pub max_unavailable: Option<IntOrString>,
}

/// Whether claims go with the set and with pods that are scaled down.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    pub delete_with_set: bool,
    pub delete_when_scaled: bool,
}

/// The status that the controller writes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StatefulStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub ready: i32,
    pub available: i32,
    pub current: i32,
    pub updated: i32,
    pub current_revision: String,
    pub update_revision: String,
    pub collisions: i32,
}

impl StatefulRow {
    pub fn ordinals(&self) -> std::ops::Range<i64> {
        self.start..self.start.saturating_add(self.replicas)
    }
}

impl StatefulStatus {
    pub fn to_json(&self) -> Value {
        let some = |n: i32| if n == 0 { Value::Null } else { json!(n) };
        json!({
            "observedGeneration": self.observed_generation,
            "replicas": self.replicas,
            "readyReplicas": some(self.ready),
            "availableReplicas": self.available,
            "currentReplicas": some(self.current),
            "updatedReplicas": some(self.updated),
            "currentRevision": self.current_revision,
            "updateRevision": self.update_revision,
            "collisionCount": self.collisions,
        })
    }
}

impl From<StatefulSet> for Object {
    fn from(set: StatefulSet) -> Self {
        let mut metadata = set.metadata;
        let spec = set.spec.unwrap_or_default();
        let status = set.status.unwrap_or_default();
        let selector = LabelSelector::from_object(Some(&spec.selector)).ok();
        let row = StatefulRow {
            annotations: metadata.annotations.take().unwrap_or_default(),
            replicas: spec.replicas.unwrap_or(1).max(0).into(),
            start: spec
                .ordinals
                .as_ref()
                .and_then(|it| it.start)
                .unwrap_or(0)
                .max(0)
                .into(),
            selector: selector_or_nothing(selector),
            match_labels: spec.selector.match_labels.clone().unwrap_or_default(),
            claims: claims(&spec),
            service: spec.service_name.clone().unwrap_or_default(),
            parallel: spec.pod_management_policy.as_deref() == Some("Parallel"),
            rolling: rolling(&spec),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            retention: retention(&spec),
            history_limit: usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0),
            template: serde_json::to_value(spec.template).unwrap_or_default(),
            status: StatefulStatus {
                observed_generation: status.observed_generation.unwrap_or(0),
                replicas: status.replicas,
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                current: status.current_replicas.unwrap_or(0),
                updated: status.updated_replicas.unwrap_or(0),
                current_revision: status.current_revision.unwrap_or_default(),
                update_revision: status.update_revision.unwrap_or_default(),
                collisions: status.collision_count.unwrap_or(0),
            },
        };
        Self::new(
            Kind::STATEFUL_SET,
            metadata,
            Body::StatefulSet(Arc::new(row)),
        )
    }
}

fn rolling(spec: &StatefulSetSpec) -> Option<Rolling> {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|it| it.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.and_then(|it| it.rolling_update.as_ref());
    Some(rolling.map_or_else(Rolling::default, |it| Rolling {
        partition: it.partition.unwrap_or(0).max(0).into(),
        max_unavailable: it.max_unavailable.clone(),
    }))
}

fn retention(spec: &StatefulSetSpec) -> Retention {
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    Retention {
        delete_with_set: deletes(policy.and_then(|it| it.when_deleted.as_ref())),
        delete_when_scaled: deletes(policy.and_then(|it| it.when_scaled.as_ref())),
    }
}

fn claims(spec: &StatefulSetSpec) -> Vec<(String, Value)> {
    let templates = spec.volume_claim_templates.iter().flatten();
    let claim = |template: &k8s_openapi::api::core::v1::PersistentVolumeClaim| {
        let name = template.metadata.name.clone()?;
        Some((name, serde_json::to_value(template).ok()?))
    };
    templates.filter_map(claim).collect()
}
