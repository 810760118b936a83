//! What this controller reads of Jobs and of their pods. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::object::{Body, Object};
use client::Kind;

/// The finalizer that keeps a pod until it is counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label of a pod of an indexed Job.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How many pods of the same index failed before this one, where failures are counted by index.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same of failures that the policy ignores.
pub const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What counts of a pod that a Job controls, or has not counted yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobPod {
    pub index: Option<u32>,
    pub failures: u32,
    pub ignored: u32,
    /// When the last of its containers ended, as far as is known.
    pub ended: Option<Timestamp>,
    /// Restarts of its init containers.
    pub init_restarts: i32,
    /// Containers that ended otherwise than with 0.
    pub exits: Vec<(String, i32)>,
    /// Type and status.
    pub conditions: Vec<(String, String)>,
}

impl JobPod {
    /// None for a pod that no Job has to do with.
    pub fn of(pod: &Pod) -> Option<Box<Self>> {
        let meta = &pod.metadata;
        let owned = meta.owner_references.iter().flatten();
        let owned = owned
            .into_iter()
            .any(|owner| owner.controller == Some(true) && owner.kind == Kind::JOB.kind);
        let tracked = meta.finalizers.iter().flatten().any(|it| it == TRACKING);
        if !owned && !tracked {
            return None;
        }
        let annotation = |key: &str| meta.annotations.as_ref()?.get(key)?.parse().ok();
        let status = pod.status.as_ref();
        let of = |list: Option<&Vec<ContainerStatus>>| list.cloned().unwrap_or_default();
        let init = of(status.and_then(|status| status.init_container_statuses.as_ref()));
        let init_restarts = init.iter().map(|it| it.restart_count).sum();
        let main = of(status.and_then(|status| status.container_statuses.as_ref()));
        let ended = main.iter().filter_map(|it| {
            let ended = it.state.as_ref()?.terminated.as_ref()?;
            ended.finished_at.as_ref().map(|at| at.0)
        });
        let ended = ended.max();
        let exits = init.into_iter().chain(main).filter_map(|it| {
            let code = it.state?.terminated?.exit_code;
            (code != 0).then_some((it.name, code))
        });
        let exits = exits.collect();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let conditions = conditions.into_iter().flatten();
        let ready = conditions.clone().find(|it| it.type_ == "Ready");
        let ready = ready.and_then(|it| it.last_transition_time.as_ref());
        Some(Box::new(Self {
            index: annotation(INDEX),
            failures: annotation(FAILURES).unwrap_or(0),
            ignored: annotation(IGNORED).unwrap_or(0),
            ended: ended.or(ready.map(|at| at.0)),
            init_restarts,
            exits,
            conditions: conditions
                .map(|it| (it.type_.clone(), it.status.clone()))
                .collect(),
        }))
    }
}

impl From<Job> for Object {
    fn from(mut job: Job) -> Self {
        let metadata = crate::object::slim(&mut job.metadata);
        Self::new(Kind::JOB, metadata, Body::Job(Arc::new(job)))
    }
}

impl Object {
    pub fn as_job(&self) -> Option<&Arc<Job>> {
        match &self.body {
            Body::Job(row) => Some(row),
            _ => None,
        }
    }
}
