//! Jobs: pods that run to their end, as often as is wanted, each counted once. Pure.

pub mod indexes;
mod plan;
mod pods;
mod policy;
pub mod row;
pub mod status;
mod verdict;
mod view;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::action::Plan;
use crate::controller::{Controller, Due, Watches};
use crate::names::Names;
use crate::object::{Key, Object};
use crate::world::{Address, Diff, World};
use client::Kind;
use row::TRACKING;

/// Runs Jobs. Its work is about a Job, or about a pod that waits to be counted and that no Job counts.
#[derive(Default)]
pub struct JobController {
    names: BTreeMap<Key, Names>,
}

impl Controller for JobController {
    fn name(&self) -> &'static str {
        "jobs"
    }

    fn account(&self) -> &'static str {
        "job-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::POD, Kind::JOB])
    }

    fn hear(&mut self, diff: &Diff, _now: Timestamp) {
        let object = diff.object();
        if object.kind == Kind::JOB && diff.new.is_none() {
            self.names.remove(&object.key);
        }
    }

    /// Of a pod the Job that controls it, or, for an orphan, every Job that would adopt it.
    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        for object in diff.versions() {
            if object.kind == Kind::JOB {
                due.insert((Kind::JOB, object.key.clone()));
                let pods = world.dependents(&object.meta.uid);
                let pods = pods.filter(|it| diff.new.is_none() && is_tracked(it));
                due.extend(pods.map(|pod| (pod.kind, pod.key.clone())));
                continue;
            }
            match object.controller() {
                Some(owner) => {
                    let job = world.by_uid(&owner.uid);
                    let job = job.filter(|job| job.kind == Kind::JOB);
                    due.extend(job.map(|job| (job.kind, job.key.clone())));
                }
                None => {
                    let jobs = world.selecting(object).into_iter();
                    due.extend(jobs.filter(|(kind, _)| *kind == Kind::JOB));
                }
            }
            if is_tracked(object) {
                due.insert((Kind::POD, object.key.clone()));
            }
        }
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, now: Timestamp) -> Option<Plan> {
        if *kind == Kind::POD {
            return Some(plan_orphan(world, world.get(Kind::POD, key)?));
        }
        let view = view::gather(world, key, now)?;
        let names = self.names.entry(key.clone());
        let names = names.or_insert_with(|| Names::new(now));
        names.settle(|name| {
            world
                .get(Kind::POD, &Key::new(&key.namespace, name))
                .is_some()
        });
        Some(plan::plan(&view, names))
    }
}

fn is_tracked(pod: &Object) -> bool {
    pod.meta.finalizers.iter().any(|it| it == TRACKING)
}

/// Lets a pod go that no Job counts.
fn plan_orphan(world: &World, pod: &Object) -> Plan {
    let job = match pod.controller() {
        Some(owner) => world
            .by_uid(&owner.uid)
            .is_some_and(|job| job.kind == Kind::JOB),
        None => {
            let is_active = pod
                .as_pod()
                .is_some_and(|row| !row.finished() && pod.meta.deleting.is_none());
            let mut selecting = world.selecting(pod).into_iter();
            is_active && selecting.any(|(kind, _)| kind == Kind::JOB)
        }
    };
    match is_tracked(pod) && !job {
        true => Plan {
            actions: plan::side_by_side(vec![plan::untrack_object(pod)]),
            again: None,
        },
        false => Plan::default(),
    }
}

#[cfg(test)]
mod tests;
