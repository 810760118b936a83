//! How Jobs end.

use super::*;

fn conditions(plan: &Plan) -> Vec<String> {
    let conditions = status(plan)["conditions"].clone();
    let conditions = conditions.as_array().cloned().unwrap_or_default();
    let word = |it: &Value| {
        let [kind, reason, message] = ["type", "reason", "message"].map(|field| it[field].as_str());
        format!(
            "{} {}: {}",
            kind.unwrap(),
            reason.unwrap(),
            message.unwrap()
        )
    };
    conditions.iter().map(word).collect()
}

const LIMIT: &str = "BackoffLimitExceeded: Job has reached the specified backoff limit";

#[test]
fn a_job_is_complete_when_enough_pods_are_counted() {
    let one = json!({"parallelism": 1, "completions": 1});
    let noted = json!({"uncountedTerminatedPods": {"succeeded": ["uid-a"]}});
    let reached = "CompletionsReached: Reached expected number of succeeded pods";
    let plan = planned(vec![job(one.clone()), pod("a", "Succeeded")]);
    assert_eq!(conditions(&plan), [format!("SuccessCriteriaMet {reached}")]);
    assert_eq!(done(&plan), [untracked("a")]);
    let plan = planned(vec![
        having(job(one), noted),
        counted(pod("a", "Succeeded")),
    ]);
    let both = [
        format!("SuccessCriteriaMet {reached}"),
        format!("Complete {reached}"),
    ];
    assert_eq!(conditions(&plan), both);
    assert_eq!(status(&plan)["completionTime"], crate::fixture::NOW);
    assert_eq!(done(&plan), ["tell Completed Job completed"]);
}

#[test]
fn a_queue_of_work_is_done_when_one_pod_succeeded_and_all_have_ended() {
    let queue = json!({"completions": null});
    let first = counted(pod("a", "Succeeded"));
    let running = planned(vec![
        having(job(queue.clone()), json!({"succeeded": 1})),
        first.clone(),
        pod("b", "Running"),
    ]);
    assert!(done(&running).is_empty() && conditions(&running).is_empty());
    let ended = planned(vec![having(job(queue), json!({"succeeded": 1})), first]);
    assert_eq!(conditions(&ended).len(), 2);
}

#[test]
fn too_many_failures_stop_the_rest_and_the_job_fails_when_all_have_ended() {
    let limit = json!({"backoffLimit": 0});
    let objects = vec![
        job(limit.clone()),
        failed("a", "2026-01-01T00:09:59Z", 1),
        pod("b", "Running"),
    ];
    let plan = planned(objects);
    assert_eq!(conditions(&plan), [format!("FailureTarget {LIMIT}")]);
    let noted = json!({"failed": ["uid-a", "uid-b"]});
    assert_eq!(status(&plan)["uncountedTerminatedPods"], noted);
    assert_eq!(
        done(&plan),
        [
            format!("{} | {}", untracked("a"), untracked("b")),
            "delete pods b".to_owned()
        ]
    );
    let said = json!({
        "conditions": status(&plan)["conditions"],
        "uncountedTerminatedPods": noted,
    });
    let ending = planned(vec![
        having(job(limit.clone()), said.clone()),
        counted(failed("a", "2026-01-01T00:09:59Z", 1)),
        counted(deleting(pod("b", "Running"))),
    ]);
    assert_eq!(status(&ending)["failed"], 2);
    assert_eq!(conditions(&ending).len(), 1, "one of its pods still ends");
    let over = planned(vec![having(job(limit), said)]);
    assert_eq!(conditions(&over)[1], format!("Failed {LIMIT}"));
    assert_eq!(done(&over), [format!("tell {LIMIT}").replace(": ", " ")]);
}

#[test]
fn restarts_inside_of_pods_count_against_the_limit() {
    let restarted = |count: i32| {
        let mut job = job(json!({"backoffLimit": 2}));
        job.1["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure".into();
        let mut pod = pod("a", "Running");
        pod.1["status"]["containerStatuses"] = json!([{
            "name": "main", "image": "", "imageID": "", "ready": true, "restartCount": count,
        }]);
        conditions(&planned(vec![job, pod])).len()
    };
    assert_eq!([restarted(1), restarted(2)], [0, 1]);
}

#[test]
fn a_job_that_ran_for_too_long_fails() {
    let within = planned(vec![job(json!({"activeDeadlineSeconds": 61}))]);
    assert_eq!(within.again.unwrap().as_secs(), 1);
    let late = planned(vec![
        job(json!({"activeDeadlineSeconds": 60})),
        pod("a", "Running"),
    ]);
    let why = "FailureTarget DeadlineExceeded: Job was active longer than specified deadline";
    assert_eq!(conditions(&late), [why]);
    assert!(done(&late).contains(&"delete pods a".to_owned()));
    let suspended = json!({"activeDeadlineSeconds": 60, "suspend": true});
    let suspended = planned(vec![job(suspended)]);
    assert!(suspended.again.is_none() && conditions(&suspended).len() == 1);
}

fn policy(action: &str) -> Value {
    let exit = json!({"containerName": "main", "operator": "In", "values": [42]});
    json!({"podFailurePolicy": {"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": action, "onExitCodes": exit},
    ]}, "backoffLimit": 0})
}

#[test]
fn the_pod_failure_policy_fails_the_job_by_exit_code() {
    let ended = failed("a", "2026-01-01T00:09:59Z", 42);
    let plan = planned(vec![job(policy("FailJob")), ended]);
    let why =
        "Container main for pod ns/a failed with exit code 42 matching FailJob rule at index 1";
    assert_eq!(
        conditions(&plan),
        [format!("FailureTarget PodFailurePolicy: {why}")]
    );
}

#[test]
fn the_pod_failure_policy_ignores_disruptions_and_what_it_says_to_ignore() {
    let mut evicted = failed("a", "2026-01-01T00:09:00Z", 137);
    evicted.1["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
    let plan = planned(vec![job(policy("FailJob")), evicted]);
    assert!(conditions(&plan).is_empty());
    assert_eq!(
        done(&plan)[0],
        untracked("a"),
        "it is not counted, and let go"
    );
    assert_eq!(done(&plan).len(), 3, "and replaced");
    let ignored = failed("a", "2026-01-01T00:09:00Z", 42);
    let plan = planned(vec![job(policy("Ignore")), ignored.clone()]);
    assert!(conditions(&plan).is_empty());
    let counts = planned(vec![job(policy("Count")), ignored]);
    assert_eq!(conditions(&counts), [format!("FailureTarget {LIMIT}")]);
}

#[test]
fn a_finished_job_is_left_as_it_is() {
    let over = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    let over = having(job(json!({})), over);
    assert_eq!(planned(vec![over.clone()]), Plan::default());
    let left = planned(vec![over, pod("a", "Running")]);
    assert_eq!(done(&left), [untracked("a")]);
}
