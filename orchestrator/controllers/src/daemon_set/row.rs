//! What the controller reads of a DaemonSet. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{NodeSelector, PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::object::{Body, Object, selector_or_nothing};
use api::selector::LabelSelector;
use client::Kind;

/// A DaemonSet.
#[derive(Clone, Debug)]
pub struct DaemonRow {
    pub annotations: BTreeMap<String, String>,
    pub selector: LabelSelector,
    /// As JSON, as revisions keep it.
    pub template: Value,
    pub placement: Placement,
    /// None: pods are replaced when somebody deletes them.
    pub rolling: Option<Rolling>,
    pub min_ready_seconds: i32,
    pub history_limit: usize,
    pub status: DaemonStatus,
}

/// Which nodes the template's pods may be on.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// The template names its node itself.
    pub node: String,
    pub selector: BTreeMap<String, String>,
    pub required: Option<NodeSelector>,
    /// With those that pods of DaemonSets get.
    pub tolerations: Vec<Toleration>,
}

/// How a rolling update goes. One of both is zero.
#[derive(Clone, Debug)]
pub struct Rolling {
    pub max_unavailable: IntOrString,
    pub max_surge: IntOrString,
}

/// The status that the controller writes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DaemonStatus {
    pub observed_generation: i64,
    pub desired: i32,
    pub current: i32,
    pub misscheduled: i32,
    pub ready: i32,
    pub updated: i32,
    pub available: i32,
    pub unavailable: i32,
    pub collisions: i32,
}

impl DaemonStatus {
    pub fn to_json(&self) -> Value {
        let some = |n: i32| if n == 0 { Value::Null } else { json!(n) };
        json!({
            "observedGeneration": self.observed_generation,
            "desiredNumberScheduled": self.desired,
            "currentNumberScheduled": self.current,
            "numberMisscheduled": self.misscheduled,
            "numberReady": self.ready,
            "updatedNumberScheduled": some(self.updated),
            "numberAvailable": some(self.available),
            "numberUnavailable": some(self.unavailable),
            "collisionCount": some(self.collisions),
        })
    }
}

impl From<DaemonSet> for Object {
    fn from(set: DaemonSet) -> Self {
        let mut metadata = set.metadata;
        let spec = set.spec.unwrap_or_default();
        let status = set.status.unwrap_or_default();
        let selector = LabelSelector::from_object(Some(&spec.selector)).ok();
        let row = DaemonRow {
            annotations: metadata.annotations.take().unwrap_or_default(),
            selector: selector_or_nothing(selector),
            placement: placement(spec.template.spec.as_ref()),
            rolling: rolling(&spec),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            history_limit: usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0),
            template: serde_json::to_value(spec.template).unwrap_or_default(),
            status: DaemonStatus {
                observed_generation: status.observed_generation.unwrap_or(0),
                desired: status.desired_number_scheduled,
                current: status.current_number_scheduled,
                misscheduled: status.number_misscheduled,
                ready: status.number_ready,
                updated: status.updated_number_scheduled.unwrap_or(0),
                available: status.number_available.unwrap_or(0),
                unavailable: status.number_unavailable.unwrap_or(0),
                collisions: status.collision_count.unwrap_or(0),
            },
        };
        Self::new(Kind::DAEMON_SET, metadata, Body::DaemonSet(Arc::new(row)))
    }
}

fn rolling(spec: &DaemonSetSpec) -> Option<Rolling> {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|it| it.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.and_then(|it| it.rolling_update.clone());
    let rolling = rolling.unwrap_or_default();
    Some(Rolling {
        max_unavailable: rolling.max_unavailable.unwrap_or(IntOrString::Int(1)),
        max_surge: rolling.max_surge.unwrap_or(IntOrString::Int(0)),
    })
}

fn placement(spec: Option<&PodSpec>) -> Placement {
    let Some(spec) = spec else {
        return Placement::default();
    };
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|it| it.node_affinity.as_ref());
    let required = affinity.and_then(|it| {
        it.required_during_scheduling_ignored_during_execution
            .clone()
    });
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    for own in automatic(spec.host_network == Some(true)) {
        let same = |it: &Toleration| {
            (&it.key, &it.operator, &it.effect) == (&own.key, &own.operator, &own.effect)
        };
        if !tolerations.iter().any(same) {
            tolerations.push(own);
        }
    }
    Placement {
        node: spec.node_name.clone().unwrap_or_default(),
        selector: spec.node_selector.clone().unwrap_or_default(),
        required,
        tolerations,
    }
}

/// What every pod of a DaemonSet tolerates: the conditions of a node that do not keep a daemon away.
fn automatic(host_network: bool) -> impl Iterator<Item = Toleration> {
    const TAINTS: [(&str, &str); 7] = [
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
        // Pods of the host's network do not wait for another one.
        ("node.kubernetes.io/network-unavailable", "NoSchedule"),
    ];
    let count = TAINTS.len() - usize::from(!host_network);
    TAINTS
        .into_iter()
        .take(count)
        .map(|(key, effect)| Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        })
}
