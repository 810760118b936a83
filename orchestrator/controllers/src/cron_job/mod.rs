//! CronJobs: a Job at each time of a schedule. Pure.

mod plan;
mod times;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;

use crate::action::Plan;
use crate::controller::{Controller, Due, Watches};
use crate::object::{Body, Object};
use crate::world::{Address, Diff, World};
use client::Kind;

/// Makes Jobs when they are due. Its work is about a CronJob.
pub struct CronJobController;

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        "cron jobs"
    }

    fn account(&self) -> &'static str {
        "cronjob-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::CRON_JOB, Kind::JOB])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        for object in diff.versions() {
            if object.kind == Kind::CRON_JOB {
                due.insert((object.kind, object.key.clone()));
                continue;
            }
            let owner = object.controller();
            let owner = owner.and_then(|owner| world.by_uid(&owner.uid));
            let owner = owner.filter(|owner| owner.kind == Kind::CRON_JOB);
            due.extend(owner.map(|owner| (owner.kind, owner.key.clone())));
        }
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, now: Timestamp) -> Option<Plan> {
        let object = world.get(*kind, key)?;
        let own = world.dependents(&object.meta.uid);
        let own = own.filter(|it| {
            let controller = it.controller();
            it.kind == Kind::JOB && controller.is_some_and(|it| it.uid == object.meta.uid)
        });
        let typed = object.as_cron_job()?;
        let view = plan::View {
            object,
            spec: typed.spec.as_ref()?,
            old: typed.status.clone().unwrap_or_default(),
            jobs: own
                .filter_map(|job| Some((job.as_ref(), job.as_job()?.as_ref())))
                .collect(),
            now,
        };
        Some(plan::plan(&view))
    }
}

impl From<CronJob> for Object {
    fn from(mut job: CronJob) -> Self {
        let metadata = crate::object::slim(&mut job.metadata);
        Self::new(Kind::CRON_JOB, metadata, Body::CronJob(Arc::new(job)))
    }
}

impl Object {
    pub fn as_cron_job(&self) -> Option<&Arc<CronJob>> {
        match &self.body {
            Body::CronJob(row) => Some(row),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
