//! What a plan for one Job is made from, and what follows from its pods. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};

use super::indexes::Indexes;
use super::policy::{self, Failure};
use super::row::{JobPod, TRACKING};
use crate::object::{Key, Object, Phase, PodRow};
use crate::world::World;
use client::Kind;

/// A Job and its pods.
pub struct View<'a> {
    pub job: &'a Object,
    pub spec: &'a JobSpec,
    pub old: JobStatus,
    /// The pods that it controls, and those that nothing controls and that it selects.
    pub pods: Vec<Pod<'a>>,
    /// The namespace is going away: nothing can be created in it.
    pub namespace_ending: bool,
    pub now: Timestamp,
}

/// A pod as its Job sees it.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a> {
    pub object: &'a Object,
    pub row: &'a PodRow,
    pub job: &'a JobPod,
    /// It is being adopted, and gets the finalizer with its owner.
    pub adopted: bool,
}

/// What the pods amount to.
pub struct Tally<'a> {
    pub active: Vec<Pod<'a>>,
    pub terminating: Vec<Pod<'a>>,
    pub ready: usize,
    /// All that ever succeeded and failed; of an indexed Job, its succeeded indexes.
    pub succeeded: u64,
    pub failed: u64,
    /// Of an indexed Job.
    pub done: Indexes,
    /// Where failures are counted by index.
    pub lost: Indexes,
    /// Failed pods that keep their finalizer until another one takes their place, by index.
    pub held: BTreeMap<u32, Pod<'a>>,
}

impl<'a> Pod<'a> {
    /// It is not counted yet.
    pub fn is_tracked(&self) -> bool {
        self.object.meta.finalizers.iter().any(|it| it == TRACKING)
    }

    pub fn is_active(&self) -> bool {
        !self.row.finished() && self.object.meta.deleting.is_none()
    }

    /// It is told to end and may still run.
    pub fn is_terminating(&self) -> bool {
        !self.row.finished() && self.object.meta.deleting.is_some() && !self.row.is_shut_down
    }

    /// Its agent is done with it and has not said how it ended.
    fn is_lost(&self) -> bool {
        !self.row.finished() && self.row.is_shut_down
    }

    pub fn uid(&self) -> &'a str {
        &self.object.meta.uid
    }
}

/// Collects the view of the Job at `key`.
pub fn gather<'a>(world: &'a World, key: &Key, now: Timestamp) -> Option<View<'a>> {
    static NONE: std::sync::LazyLock<JobPod> = std::sync::LazyLock::new(JobPod::default);
    let job = world.get(Kind::JOB, key)?;
    let typed = job.as_job()?;
    let namespace = world.get(Kind::NAMESPACE, &Key::new("", &key.namespace));
    let pods = world.claimable(job).into_iter().filter_map(|object| {
        let row = object.as_pod()?;
        let job = row.job.as_deref().unwrap_or(&NONE);
        let adopted = false;
        Some(Pod {
            object,
            row,
            job,
            adopted,
        })
    });
    Some(View {
        job,
        spec: typed.spec.as_ref()?,
        old: typed.status.clone().unwrap_or_default(),
        pods: pods.collect(),
        namespace_ending: namespace.is_some_and(|namespace| namespace.meta.deleting.is_some()),
        now,
    })
}

impl<'a> View<'a> {
    pub fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub fn completions(&self) -> Option<u32> {
        let number = self.spec.completions?;
        Some(u32::try_from(number).unwrap_or(0))
    }

    pub fn parallelism(&self) -> usize {
        usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0)
    }

    /// Pods that end are waited for before others take their place.
    pub fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    /// How often each index may fail, where that is counted.
    pub fn limit_per_index(&self) -> Option<u32> {
        let limit = self.spec.backoff_limit_per_index?;
        Some(u32::try_from(limit).unwrap_or(0))
    }

    /// It has failed, or is lost: a pod that is deleted may never come to say so.
    pub fn has_failed(&self, pod: &Pod) -> bool {
        pod.row.phase == Phase::Failed
            || pod.is_lost()
            || (!self.replaces_failed_only() && pod.is_terminating())
    }

    /// The pod's index, if the Job has it.
    pub fn index(&self, pod: &Pod) -> Option<u32> {
        let below = self.completions().filter(|_| self.is_indexed())?;
        pod.job.index.filter(|index| *index < below)
    }

    /// It is of those that are counted: of an indexed Job those with an index.
    pub fn belongs(&self, pod: &Pod) -> bool {
        !self.is_indexed() || self.index(pod).is_some()
    }

    /// The uids of pods that were noted as ended and may not be counted yet: succeeded, failed.
    pub fn uncounted(&self) -> (BTreeSet<&str>, BTreeSet<&str>) {
        let lists = self.old.uncounted_terminated_pods.as_ref();
        let succeeded = lists.and_then(|lists| lists.succeeded.as_ref());
        let failed = lists.and_then(|lists| lists.failed.as_ref());
        (
            succeeded
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect(),
            failed.into_iter().flatten().map(String::as_str).collect(),
        )
    }

    /// Adds up the pods that are the Job's own.
    pub fn tally(&self, pods: &[Pod<'a>]) -> Tally<'a> {
        let active: Vec<Pod> = pods.iter().filter(|pod| pod.is_active()).copied().collect();
        let terminating = pods.iter().filter(|pod| pod.is_terminating());
        let terminating: Vec<Pod> = terminating.copied().collect();
        let (succeeded, failed) = self.uncounted();
        let tracked = || pods.iter().filter(|pod| pod.is_tracked());
        let has_succeeded = |pod: &&Pod| pod.row.phase == Phase::Succeeded;
        let before = |count: Option<i32>| u64::try_from(count.unwrap_or(0)).unwrap_or(0);
        let below = self.completions().unwrap_or(0);
        let old_done = self.old.completed_indexes.as_deref().unwrap_or_default();
        let mut done = Indexes::default();
        if self.is_indexed() {
            done = Indexes::parse(old_done, below);
            let new = tracked().filter(has_succeeded);
            new.filter_map(|pod| self.index(pod))
                .for_each(|index| done.insert(index));
        }
        let new_failed = tracked().filter(|pod| {
            self.has_failed(pod)
                && !failed.contains(pod.uid())
                && self.belongs(pod)
                && policy::failure(self.spec, pod).counts()
        });
        let newly = tracked().filter(has_succeeded);
        let newly = newly.filter(|pod| !succeeded.contains(pod.uid())).count();
        let (lost, held) = self.by_index(pods, &active, &done);
        Tally {
            ready: active.iter().filter(|pod| pod.row.ready).count(),
            succeeded: match self.is_indexed() {
                true => done.len(),
                false => before(self.old.succeeded) + (succeeded.len() + newly) as u64,
            },
            failed: before(self.old.failed) + (failed.len() + new_failed.count()) as u64,
            active,
            terminating,
            done,
            lost,
            held,
        }
    }

    /// The indexes that have failed for good, and of the others whose last pod failed that pod.
    fn by_index(
        &self,
        pods: &[Pod<'a>],
        active: &[Pod<'a>],
        done: &Indexes,
    ) -> (Indexes, BTreeMap<u32, Pod<'a>>) {
        let Some(limit) = self.limit_per_index() else {
            return Default::default();
        };
        let below = self.completions().unwrap_or(0);
        let old = self.old.failed_indexes.as_deref().unwrap_or_default();
        let mut lost = Indexes::parse(old, below);
        let mut held: BTreeMap<u32, Pod> = BTreeMap::new();
        let failed = pods.iter().filter(|pod| self.has_failed(pod));
        for pod in failed {
            let Some(index) = self.index(pod).filter(|index| !done.contains(*index)) else {
                continue;
            };
            match policy::failure(self.spec, pod) {
                Failure::FailsIndex => lost.insert(index),
                Failure::Ignored => {}
                _ if pod.job.failures >= limit => lost.insert(index),
                _ => {}
            }
            let so_far = |pod: &Pod| {
                (
                    u64::from(pod.job.failures) + u64::from(pod.job.ignored),
                    pod.job.ended,
                )
            };
            let last = held.entry(index).or_insert(*pod);
            if so_far(last) < so_far(pod) {
                *last = *pod;
            }
        }
        for pod in active {
            if let Some(index) = self.index(pod) {
                held.remove(&index);
            }
        }
        held.retain(|index, _| !lost.contains(*index));
        (lost, held)
    }

    /// How many failures of an index the next pod of it is told of: counted and ignored ones.
    pub fn failures_after(&self, pod: &Pod) -> (u32, u32) {
        let (failures, ignored) = (pod.job.failures, pod.job.ignored);
        match policy::failure(self.spec, pod) {
            Failure::Ignored => (failures, ignored.saturating_add(1)),
            _ => (failures.saturating_add(1), ignored),
        }
    }
}

const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(6);
/// 10 s · 2^6 is more than the longest pause.
const LONGEST_SHIFT: u64 = 6;

/// How long a pod waits that takes the place of the last of so many failed ones.
pub fn pause(failures: u64, last: Timestamp, now: Timestamp) -> Option<SignedDuration> {
    let shift = failures.checked_sub(1)?.min(LONGEST_SHIFT);
    let wait = now.duration_until(last + (FIRST_PAUSE * (1 << shift)).min(LONGEST_PAUSE));
    (wait > SignedDuration::ZERO).then_some(wait)
}
