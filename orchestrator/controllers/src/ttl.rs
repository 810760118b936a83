//! Finished Jobs go when their time to live is over. Pure.

use jiff::{SignedDuration, Timestamp};

use super::action::{Action, Delete, Plan};
use super::controller::{Controller, Due, Watches};
use super::job::status::finished_at;
use super::world::{Address, Diff, World};
use client::Kind;

/// Deletes finished Jobs. Its work is about a Job.
pub struct TtlController;

impl Controller for TtlController {
    fn name(&self) -> &'static str {
        "time to live after finished"
    }

    fn account(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::JOB])
    }

    fn due(&self, _world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        due.insert((object.kind, object.key.clone()));
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, now: Timestamp) -> Option<Plan> {
        let object = world.get(*kind, key)?;
        let job = object.as_job()?;
        let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
        let finished = finished_at(job.status.as_ref()?)??;
        let end = finished + SignedDuration::from_secs(seconds.into());
        if object.meta.deleting.is_some() {
            return None;
        }
        if now < end {
            return Some(Plan {
                actions: Vec::new(),
                again: Some(now.duration_until(end)),
            });
        }
        // With its pods, before it goes itself.
        let delete = Delete {
            propagation: Some("Foreground"),
            ..Delete::of(object)
        };
        Some(Plan {
            actions: vec![Action::Delete(delete)],
            again: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{now, words, world};
    use crate::object::Key;

    fn planned(ttl: Value, condition: &str) -> Option<Plan> {
        let at = "2026-01-01T00:09:00Z";
        let conditions = json!([{"type": condition, "status": "True", "lastTransitionTime": at}]);
        let job = json!({
            "metadata": {"name": "work"},
            "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
            "status": {"conditions": conditions},
        });
        let world = world([(Kind::JOB, job)]);
        TtlController.plan(&world, &(Kind::JOB, Key::new("ns", "work")), now())
    }

    #[test]
    fn a_finished_job_goes_when_its_time_is_over() {
        let waits = planned(json!(61), "Complete").unwrap();
        assert_eq!(
            (waits.actions.len(), waits.again.unwrap().as_secs()),
            (0, 1)
        );
        let over = planned(json!(60), "Failed").unwrap();
        assert_eq!(words(&over.actions), ["delete jobs work"]);
        let Action::Delete(delete) = &over.actions[0] else {
            panic!()
        };
        assert_eq!(delete.propagation, Some("Foreground"));
        assert_eq!(planned(json!(0), "Suspended"), None);
        assert_eq!(planned(Value::Null, "Complete"), None);
    }
}
