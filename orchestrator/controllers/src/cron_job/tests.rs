use serde_json::{Value, json};

use super::*;
use crate::action::Action;
use crate::fixture::{controlled_by, now, words, world};
use crate::object::Key;

/// It is ten minutes past midnight; the CronJob was made at midnight.
fn cron(spec: Value, status: Value) -> (Kind, Value) {
    let mut value = json!({
        "metadata": {"name": "tick"},
        "spec": {
            "schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"template": {"spec": {"containers": []}}},
            },
        },
        "status": status,
    });
    for (field, part) in spec.as_object().unwrap() {
        value["spec"][field] = part.clone();
    }
    (Kind::CRON_JOB, value)
}

fn job(name: &str, condition: Option<&str>) -> (Kind, Value) {
    let conditions = condition.map(|kind| json!([{"type": kind, "status": "True"}]));
    let value = json!({
        "metadata": {"name": name, "ownerReferences": controlled_by(Kind::CRON_JOB, "tick")},
        "spec": {"template": {"spec": {"containers": []}}},
        "status": {"conditions": conditions, "completionTime": "2026-01-01T00:09:00Z"},
    });
    (Kind::JOB, value)
}

fn active(names: &[&str]) -> Value {
    let reference =
        |name: &&str| json!({"kind": "Job", "name": name, "uid": format!("uid-{name}")});
    json!({
        "active": names.iter().map(reference).collect::<Vec<_>>(),
        "lastScheduleTime": "2026-01-01T00:05:00Z",
    })
}

fn planned(objects: Vec<(Kind, Value)>) -> Plan {
    let world = world(objects);
    let about = (Kind::CRON_JOB, Key::new("ns", "tick"));
    CronJobController.plan(&world, &about, now()).unwrap()
}

/// What is done but for the status.
fn done(plan: &Plan) -> Vec<String> {
    let words = words(&plan.actions).into_iter();
    words.filter(|word| !word.contains("/status")).collect()
}

fn status(plan: &Plan) -> Value {
    let Some(Action::Patch(patch)) = plan.actions.last() else {
        return Value::Null;
    };
    patch.body["status"].clone()
}

/// 2026-01-01 00:10 in minutes.
const DUE: &str = "create jobs tick-29453770";

#[test]
fn the_job_of_the_last_time_is_made_and_named_by_its_minute() {
    let plan = planned(vec![cron(json!({}), json!({}))]);
    assert_eq!(done(&plan), [DUE]);
    assert_eq!(status(&plan)["lastScheduleTime"], "2026-01-01T00:10:00Z");
    assert_eq!(plan.again.unwrap().as_millis(), 300_100);
    let Action::Create(create) = &plan.actions[0] else {
        panic!()
    };
    let metadata = &create.object["metadata"];
    assert_eq!(metadata["labels"], json!({"a": "b"}));
    let scheduled = "batch.kubernetes.io/cronjob-scheduled-timestamp";
    assert_eq!(metadata["annotations"][scheduled], "2026-01-01T00:10:00Z");
    assert_eq!(
        metadata["ownerReferences"],
        controlled_by(Kind::CRON_JOB, "tick")
    );
    assert!(create.if_absent);
}

#[test]
fn a_time_that_was_served_is_not_served_again() {
    let served = json!({"lastScheduleTime": "2026-01-01T00:10:00Z"});
    assert!(done(&planned(vec![cron(json!({}), served)])).is_empty());
}

#[test]
fn a_schedule_is_of_its_time_zone() {
    let tokyo = json!({"schedule": "10 9 * * *", "timeZone": "Asia/Tokyo"});
    let plan = planned(vec![cron(tokyo, json!({}))]);
    assert_eq!(done(&plan), [DUE]);
    let Action::Create(create) = &plan.actions[0] else {
        panic!()
    };
    let annotations = &create.object["metadata"]["annotations"];
    let scheduled = "batch.kubernetes.io/cronjob-scheduled-timestamp";
    assert_eq!(annotations[scheduled], "2026-01-01T09:10:00+09:00");
    let nowhere = json!({"timeZone": "Mars/Base"});
    assert!(done(&planned(vec![cron(nowhere, json!({}))]))[0].starts_with("tell UnknownTimeZone"));
}

#[test]
fn a_suspended_cron_job_makes_nothing() {
    let plan = planned(vec![cron(json!({"suspend": true}), json!({}))]);
    assert_eq!(plan, Plan::default());
}

#[test]
fn concurrency_is_allowed_forbidden_or_ends_what_runs() {
    let with = |policy: &str| {
        let cron = cron(
            json!({"concurrencyPolicy": policy}),
            active(&["tick-29453765"]),
        );
        planned(vec![cron, job("tick-29453765", None)])
    };
    assert_eq!(done(&with("Allow")), [DUE]);
    let forbidden = done(&with("Forbid"));
    assert_eq!(forbidden.len(), 1);
    assert!(forbidden[0].starts_with("tell JobAlreadyActive"));
    let replaced = with("Replace");
    assert_eq!(done(&replaced), ["delete jobs tick-29453765", DUE]);
    assert_eq!(status(&replaced)["active"], Value::Null);
}

#[test]
fn a_time_is_too_late_after_its_deadline() {
    let late = json!({"schedule": "3 * * * *", "startingDeadlineSeconds": 300});
    assert!(done(&planned(vec![cron(late, json!({}))])).is_empty());
    let in_time = json!({"schedule": "3 * * * *", "startingDeadlineSeconds": 480});
    assert_eq!(
        done(&planned(vec![cron(in_time, json!({}))])),
        ["create jobs tick-29453763"]
    );
}

#[test]
fn many_missed_times_are_told_of_and_the_last_one_is_served() {
    let long_ago = json!({"lastScheduleTime": "2025-12-31T00:00:00Z"});
    let plan = planned(vec![cron(json!({}), long_ago)]);
    assert!(done(&plan)[0].starts_with("tell TooManyMissedTimes"));
    assert_eq!(done(&plan)[1], DUE);
}

#[test]
fn the_status_names_what_runs_and_when_the_last_success_was() {
    let served = json!({"lastScheduleTime": "2026-01-01T00:10:00Z"});
    let running = planned(vec![cron(json!({}), served), job("tick-29453770", None)]);
    assert_eq!(status(&running)["active"][0]["name"], "tick-29453770");
    let cron = cron(json!({"suspend": true}), active(&["tick-29453765", "gone"]));
    let ended = planned(vec![cron, job("tick-29453765", Some("Complete"))]);
    assert_eq!(
        done(&ended),
        [
            "tell SawCompletedJob Saw completed job: tick-29453765, condition: Complete",
            "tell MissingJob Active job went missing: gone"
        ]
    );
    assert_eq!(status(&ended)["active"], Value::Null);
    assert_eq!(status(&ended)["lastSuccessfulTime"], "2026-01-01T00:09:00Z");
}

#[test]
fn a_job_that_a_user_made_from_it_is_not_among_those_that_run() {
    let served = json!({"lastScheduleTime": "2026-01-01T00:10:00Z"});
    let plan = planned(vec![cron(json!({}), served), job("by-hand", None)]);
    assert!(plan.actions.is_empty());
}

#[test]
fn finished_jobs_beyond_the_limits_go() {
    let suspended = json!({"suspend": true, "successfulJobsHistoryLimit": 1});
    let all = vec![
        cron(
            suspended,
            json!({"lastSuccessfulTime": "2026-01-01T00:09:00Z"}),
        ),
        job("a", Some("Complete")),
        job("b", Some("Complete")),
        job("c", Some("Failed")),
    ];
    assert_eq!(done(&planned(all)), ["delete jobs a"]);
}
