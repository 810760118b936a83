use serde_json::{Value, json};

use super::*;
use crate::action::Action;
use crate::fixture::{controlled_by, now, words, world};

mod ends;
mod indexed;

fn job(spec: Value) -> (Kind, Value) {
    let mut value = json!({
        "metadata": {"name": "work", "generation": 1},
        "spec": {
            "parallelism": 2, "completions": 3, "backoffLimit": 6, "completionMode": "NonIndexed",
            "podReplacementPolicy": "TerminatingOrFailed",
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "uid-work"}},
            "template": {
                "metadata": {"labels": {"batch.kubernetes.io/controller-uid": "uid-work"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "sh"}]},
            },
        },
        "status": {
            "startTime": "2026-01-01T00:09:00Z", "ready": 0, "terminating": 0,
            "uncountedTerminatedPods": {},
        },
    });
    for (field, part) in spec.as_object().unwrap() {
        value["spec"][field] = part.clone();
    }
    (Kind::JOB, value)
}

/// The Job with other fields in its status.
fn having(mut job: (Kind, Value), status: Value) -> (Kind, Value) {
    for (field, part) in status.as_object().unwrap() {
        job.1["status"][field] = part.clone();
    }
    job
}

fn pod(name: &str, phase: &str) -> (Kind, Value) {
    let value = json!({
        "metadata": {
            "name": name,
            "labels": {"batch.kubernetes.io/controller-uid": "uid-work"},
            "ownerReferences": controlled_by(Kind::JOB, "work"),
            "finalizers": [TRACKING],
        },
        "spec": {"nodeName": "node-1", "containers": []},
        "status": {"phase": phase},
    });
    (Kind::POD, value)
}

/// A pod that failed at this time with this exit code.
fn failed(name: &str, at: &str, code: i32) -> (Kind, Value) {
    let mut pod = pod(name, "Failed");
    pod.1["status"]["containerStatuses"] = json!([{
        "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "finishedAt": at}},
    }]);
    pod
}

fn counted(mut pod: (Kind, Value)) -> (Kind, Value) {
    pod.1["metadata"]["finalizers"] = json!([]);
    pod
}

fn deleting(mut pod: (Kind, Value)) -> (Kind, Value) {
    pod.1["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:10:00Z");
    pod
}

fn planned(objects: Vec<(Kind, Value)>) -> Plan {
    let world = world(objects);
    let mut controller = JobController::default();
    let about = (Kind::JOB, Key::new("ns", "work"));
    controller.plan(&world, &about, now()).unwrap()
}

/// What is written into the status.
fn status(plan: &Plan) -> Value {
    let status = plan.actions.iter().find_map(|action| match action {
        Action::Patch(patch) if patch.subresource == "status" => Some(&patch.body["status"]),
        _ => None,
    });
    status.cloned().unwrap_or_default()
}

/// What is done but for the status; generated names are cut.
fn done(plan: &Plan) -> Vec<String> {
    let words = words(&plan.actions).into_iter();
    let words = words.filter(|word| !word.contains("/status"));
    let cut = |word: String| match word.starts_with("create") {
        true => word[..word.len() - 5].to_owned(),
        false => word,
    };
    words.map(cut).collect()
}

fn untracked(name: &str) -> String {
    format!(
        r#"patch pods {name} {{"metadata":{{"$deleteFromPrimitiveList/finalizers":["{TRACKING}"]}}}}"#
    )
}

#[test]
fn as_many_pods_as_may_run_at_once_are_created() {
    let plan = planned(vec![job(json!({}))]);
    assert_eq!(done(&plan), ["create pods work-", "create pods work-"]);
    let Some(Action::Create(create)) = plan.actions.last() else {
        panic!("no create")
    };
    let metadata = &create.object["metadata"];
    assert_eq!(metadata["finalizers"], json!([TRACKING]));
    assert_eq!(
        metadata["ownerReferences"],
        controlled_by(Kind::JOB, "work")
    );
    assert!(create.if_absent, "its answer may be lost");
}

#[test]
fn only_as_many_as_are_still_to_succeed_are_created() {
    let job = having(job(json!({})), json!({"succeeded": 2}));
    assert_eq!(done(&planned(vec![job])), ["create pods work-"]);
}

#[test]
fn a_pod_that_ended_is_noted_then_loses_its_finalizer_then_counts() {
    let one = json!({"parallelism": 1, "completions": 2});
    let ended = pod("a", "Succeeded");
    let plan = planned(vec![job(one.clone()), ended.clone()]);
    let noted = json!({"succeeded": ["uid-a"]});
    assert_eq!(status(&plan)["uncountedTerminatedPods"], noted);
    assert_eq!(status(&plan)["succeeded"], Value::Null);
    assert_eq!(
        done(&plan),
        [untracked("a"), "create pods work-".to_owned()]
    );

    let noting = having(job(one), json!({"uncountedTerminatedPods": noted}));
    let again = planned(vec![noting.clone(), ended.clone()]);
    assert_eq!(status(&again), Value::Null, "it was noted before");
    assert_eq!(done(&again)[0], untracked("a"));

    let counts = planned(vec![noting.clone(), counted(ended)]);
    assert_eq!(status(&counts)["succeeded"], 1);
    assert_eq!(
        status(&counts)["uncountedTerminatedPods"],
        json!({"succeeded": null})
    );
    let gone = planned(vec![noting]);
    assert_eq!(
        status(&gone)["succeeded"],
        1,
        "a pod that is gone counts too"
    );
}

#[test]
fn the_status_is_written_only_over_the_one_that_was_read() {
    let plan = planned(vec![job(json!({})), pod("a", "Succeeded")]);
    let Action::Patch(patch) = &plan.actions[0] else {
        panic!("no patch")
    };
    assert_eq!(patch.body["metadata"]["resourceVersion"], "1");
}

#[test]
fn a_lost_answer_to_a_create_is_asked_for_by_the_same_name() {
    let world = world(vec![job(json!({}))]);
    let mut controller = JobController::default();
    let about = (Kind::JOB, Key::new("ns", "work"));
    let first = controller.plan(&world, &about, now()).unwrap();
    let later = now() + jiff::SignedDuration::from_secs(5);
    let second = controller.plan(&world, &about, later).unwrap();
    assert_eq!(words(&first.actions)[1..], words(&second.actions)[1..]);
}

#[test]
fn failures_are_followed_by_growing_pauses_until_a_success() {
    let wait = |failures: usize, success: Option<&str>| {
        let names = ["a", "b", "c", "d", "e", "f"];
        let lost = names[..failures]
            .iter()
            .map(|name| counted(failed(name, "2026-01-01T00:09:59Z", 1)));
        let success = success.map(|at| {
            let mut pod = counted(failed("z", at, 0));
            pod.1["status"]["phase"] = "Succeeded".into();
            pod
        });
        let job = having(
            job(json!({"completions": null})),
            json!({"failed": failures}),
        );
        let all = [job].into_iter().chain(lost).chain(success).collect();
        let plan = planned(all);
        assert_eq!(plan.again.is_some(), done(&plan).is_empty());
        plan.again.map_or(0, |wait| wait.as_secs())
    };
    assert_eq!(
        [wait(0, None), wait(1, None), wait(2, None), wait(3, None)],
        [0, 9, 19, 39]
    );
    assert_eq!(wait(6, None), 319);
    assert_eq!(wait(3, Some("2026-01-01T00:10:00Z")), 0);
}

#[test]
fn a_suspended_job_gives_its_pods_up_and_starts_anew_later() {
    let suspended = job(json!({"suspend": true}));
    let plan = planned(vec![suspended.clone(), pod("a", "Running")]);
    assert_eq!(status(&plan)["conditions"][0]["reason"], "JobSuspended");
    assert_eq!(
        done(&plan),
        [
            "tell Suspended Job suspended",
            r#"patch pods a {"metadata":{"finalizers":null,"resourceVersion":"1"}}"#,
            "delete pods a"
        ]
    );
    let conditions = status(&plan)["conditions"].clone();
    let resumed = having(job(json!({})), json!({"conditions": conditions}));
    let plan = planned(vec![resumed]);
    assert_eq!(status(&plan)["startTime"], crate::fixture::NOW);
    assert_eq!(status(&plan)["conditions"][0]["status"], "False");
    assert_eq!(done(&plan)[0], "tell Resumed Job resumed");
}

#[test]
fn a_suspended_job_that_never_ran_has_no_start() {
    let mut job = job(json!({"suspend": true}));
    job.1["status"] = json!({});
    let plan = planned(vec![job]);
    assert_eq!(status(&plan)["startTime"], Value::Null);
}

#[test]
fn matching_orphans_are_adopted_and_others_released() {
    let mut orphan = counted(pod("a", "Running"));
    orphan.1["metadata"]["ownerReferences"] = json!([]);
    let mut stranger = pod("b", "Running");
    stranger.1["metadata"]["labels"] = json!({"other": "label"});
    let plan = planned(vec![job(json!({"parallelism": 1})), orphan, stranger]);
    let owner = controlled_by(Kind::JOB, "work");
    assert_eq!(
        done(&plan),
        [
            format!(
                r#"patch pods a {{"metadata":{{"finalizers":["{TRACKING}"],"ownerReferences":{owner},"resourceVersion":"1"}}}}"#
            ),
            r#"patch pods b {"metadata":{"finalizers":null,"ownerReferences":null,"resourceVersion":"1"}}"#
                .to_owned(),
        ]
    );
}

#[test]
fn a_pod_that_waits_for_a_job_that_is_gone_is_let_go() {
    let world = world(vec![pod("a", "Running")]);
    let plan = JobController::default().plan(&world, &(Kind::POD, Key::new("ns", "a")), now());
    assert_eq!(words(&plan.unwrap().actions), [untracked("a")]);
}

#[test]
fn another_manager_s_job_is_left_alone() {
    let plan = planned(vec![
        job(json!({"managedBy": "example.com/queue"})),
        pod("a", "Failed"),
    ]);
    assert_eq!(plan, Plan::default());
}

#[test]
fn pods_in_excess_go_pending_ones_first() {
    let plan = planned(vec![
        job(json!({"parallelism": 1})),
        pod("a", "Running"),
        pod("b", "Pending"),
    ]);
    assert!(done(&plan).contains(&"delete pods b".to_owned()));
    assert_eq!(done(&plan).len(), 2);
}

#[test]
fn pods_that_end_are_replaced_at_once_or_when_they_have_failed() {
    let policy = |policy: &str| {
        let job = job(json!({"parallelism": 1, "podReplacementPolicy": policy}));
        planned(vec![job, deleting(pod("a", "Running"))])
    };
    let at_once = policy("TerminatingOrFailed");
    assert_eq!(
        status(&at_once)["uncountedTerminatedPods"]["failed"],
        json!(["uid-a"])
    );
    assert_eq!(
        done(&at_once),
        [untracked("a"), "create pods work-".to_owned()]
    );
    let later = policy("Failed");
    assert_eq!(status(&later)["terminating"], 1);
    assert!(done(&later).is_empty());
}
