//! Jobs whose pods have indexes.

use super::*;

fn indexed(spec: Value) -> (Kind, Value) {
    let mut job = job(json!({"completionMode": "Indexed"}));
    for (field, part) in spec.as_object().unwrap() {
        job.1["spec"][field] = part.clone();
    }
    job
}

fn at(index: u32, mut pod: (Kind, Value)) -> (Kind, Value) {
    pod.1["metadata"]["annotations"] = json!({row::INDEX: index.to_string()});
    pod
}

fn after(failures: u32, mut pod: (Kind, Value)) -> (Kind, Value) {
    pod.1["metadata"]["annotations"][row::FAILURES] = failures.to_string().into();
    pod
}

fn reasons(plan: &Plan) -> Vec<Value> {
    let conditions = status(plan)["conditions"].clone();
    let conditions = conditions.as_array().cloned().unwrap_or_default();
    conditions.iter().map(|it| it["reason"].clone()).collect()
}

#[test]
fn a_pod_is_told_its_index_in_every_way() {
    let plan = planned(vec![indexed(json!({})), at(0, pod("a", "Running"))]);
    assert_eq!(done(&plan), ["create pods work-1-"]);
    let Some(Action::Create(create)) = plan.actions.last() else {
        panic!("no create")
    };
    let object = &create.object;
    assert_eq!(object["metadata"]["annotations"][row::INDEX], "1");
    assert_eq!(object["metadata"]["labels"][row::INDEX], "1");
    assert_eq!(object["spec"]["hostname"], "work-1");
    let env = &object["spec"]["containers"][0]["env"][0];
    assert_eq!(env["name"], "JOB_COMPLETION_INDEX");
    let path = "metadata.labels['batch.kubernetes.io/job-completion-index']";
    assert_eq!(env["valueFrom"]["fieldRef"]["fieldPath"], path);
}

#[test]
fn an_index_counts_once_however_many_pods_succeed() {
    let job = indexed(json!({"completions": 5}));
    let objects = vec![
        job,
        at(3, pod("a", "Succeeded")),
        at(3, pod("b", "Succeeded")),
        at(9, pod("c", "Succeeded")),
    ];
    let plan = planned(objects);
    assert_eq!(status(&plan)["completedIndexes"], "3");
    assert_eq!(status(&plan)["succeeded"], 1);
    assert_eq!(status(&plan)["uncountedTerminatedPods"], json!({}));
    let creates = done(&plan);
    assert_eq!(creates[1..], ["create pods work-0-", "create pods work-1-"]);
}

#[test]
fn indexes_beyond_the_end_and_double_ones_go() {
    let objects = vec![
        indexed(json!({"parallelism": 3})),
        at(0, pod("a", "Running")),
        at(0, pod("b", "Pending")),
        at(7, pod("c", "Running")),
    ];
    let plan = planned(objects);
    let gone = |name: &str| done(&plan).contains(&format!("delete pods {name}"));
    assert_eq!([gone("a"), gone("b"), gone("c")], [false, true, true]);
}

#[test]
fn an_index_fails_after_its_own_limit_and_the_others_go_on() {
    let spec = json!({"backoffLimitPerIndex": 1, "backoffLimit": i32::MAX, "completions": 2});
    let once = at(0, failed("a", "2026-01-01T00:09:50Z", 1));
    let plan = planned(vec![
        indexed(spec.clone()),
        once.clone(),
        at(1, pod("b", "Running")),
    ]);
    assert_eq!(
        done(&plan),
        ["create pods work-0-"],
        "the failed pod is kept until then"
    );
    let Some(Action::Create(create)) = plan.actions.last() else {
        panic!("no create")
    };
    assert_eq!(create.object["metadata"]["annotations"][row::FAILURES], "1");
    let twice = after(1, at(0, failed("c", "2026-01-01T00:09:59Z", 1)));
    let plan = planned(vec![
        indexed(spec.clone()),
        once.clone(),
        twice.clone(),
        at(1, pod("b", "Running")),
    ]);
    assert_eq!(status(&plan)["failedIndexes"], "0");
    let noted = json!({"failed": ["uid-a", "uid-c"]});
    assert_eq!(status(&plan)["uncountedTerminatedPods"], noted);
    assert!(reasons(&plan).is_empty());
    let over = planned(vec![
        indexed(spec),
        once,
        twice,
        at(1, pod("b", "Succeeded")),
    ]);
    assert_eq!(reasons(&over), ["FailedIndexes"]);
}

#[test]
fn a_failed_index_waits_and_others_do_not() {
    let spec = json!({"backoffLimitPerIndex": 5, "backoffLimit": i32::MAX});
    let recent = at(0, failed("a", "2026-01-01T00:09:55Z", 1));
    let plan = planned(vec![indexed(spec), recent]);
    assert_eq!(done(&plan), ["create pods work-1-", "create pods work-2-"]);
    assert_eq!(plan.again.unwrap().as_secs(), 5);
}

#[test]
fn more_failed_indexes_than_allowed_fail_the_job() {
    let spec = json!({"backoffLimitPerIndex": 0, "backoffLimit": i32::MAX, "maxFailedIndexes": 0});
    let one = at(0, failed("a", "2026-01-01T00:09:59Z", 1));
    let plan = planned(vec![indexed(spec), one, at(1, pod("b", "Running"))]);
    assert_eq!(reasons(&plan), ["MaxFailedIndexesExceeded"]);
}

#[test]
fn a_rule_fails_an_index_although_it_might_be_tried_again() {
    let spec = json!({
        "backoffLimitPerIndex": 3, "backoffLimit": i32::MAX,
        "podFailurePolicy": {"rules": [
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}},
        ]},
    });
    let one = at(0, failed("a", "2026-01-01T00:09:59Z", 3));
    let plan = planned(vec![indexed(spec), one]);
    assert_eq!(status(&plan)["failedIndexes"], "0");
    assert_eq!(
        done(&plan)[1..],
        ["create pods work-1-", "create pods work-2-"]
    );
}

#[test]
fn a_success_policy_ends_the_job_while_others_run() {
    let ends = |rule: Value| {
        let spec = json!({"parallelism": 3, "successPolicy": {"rules": [rule]}});
        let plan = planned(vec![
            indexed(spec),
            at(1, pod("a", "Succeeded")),
            at(2, pod("b", "Running")),
        ]);
        reasons(&plan) == ["SuccessPolicy"] && done(&plan).contains(&"delete pods b".to_owned())
    };
    assert!(ends(json!({"succeededIndexes": "1"})));
    assert!(ends(json!({"succeededCount": 1})));
    assert!(ends(
        json!({"succeededIndexes": "0-1", "succeededCount": 1})
    ));
    assert!(!ends(json!({"succeededIndexes": "0-1"})));
    assert!(!ends(json!({"succeededCount": 2})));
    assert!(!ends(
        json!({"succeededIndexes": "0,2", "succeededCount": 1})
    ));
}

#[test]
fn a_job_that_met_its_success_policy_does_not_count_what_it_stops() {
    let met = json!({"conditions": [{"type": "SuccessCriteriaMet", "status": "True",
        "reason": "SuccessPolicy", "message": "Matched rules at index 0"}]});
    let running = at(2, pod("b", "Running"));
    let plan = planned(vec![having(indexed(json!({})), met), running]);
    let status = status(&plan);
    assert_eq!(status["uncountedTerminatedPods"], json!({}));
    assert_eq!(done(&plan), [untracked("b"), "delete pods b".to_owned()]);
}
