use super::*;
use crate::kinds::testing::{UID, change, columns, create, created, row, update, with, wrong};

/// What the chart of an application runs before an upgrade.
fn migration() -> Value {
    json!({
        "metadata": {"name": "migrate"},
        "spec": {
            "backoffLimit": 4,
            "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "migrate", "image": "app:1.2"}],
            }},
        },
    })
}

fn indexed() -> Value {
    let spec = json!({
        "completions": 5,
        "parallelism": 5,
        "completionMode": "Indexed",
        "template": migration()["spec"]["template"],
    });
    with(&migration(), "/spec", spec)
}

#[test]
fn a_job_runs_one_pod_and_finds_it_by_its_uid() {
    let job = created(&resource(), migration());
    let labels = json!({
        "batch.kubernetes.io/controller-uid": UID,
        "batch.kubernetes.io/job-name": "migrate",
        "controller-uid": UID,
        "job-name": "migrate",
    });
    let mut spec = job["spec"].clone();
    let template = spec.as_object_mut().unwrap().remove("template").unwrap();
    assert_eq!(
        spec,
        json!({
            "backoffLimit": 4,
            "completionMode": "NonIndexed",
            "completions": 1,
            "manualSelector": false,
            "parallelism": 1,
            "podReplacementPolicy": "TerminatingOrFailed",
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": UID}},
            "suspend": false,
        })
    );
    assert_eq!(template["metadata"]["labels"], labels);
    assert_eq!(template["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!(job["metadata"]["labels"], labels);
    assert_eq!(job["metadata"]["generation"], 1);
    assert_eq!(job["status"], json!({}));
}

#[test]
fn defaults_follow_from_what_is_said() {
    let queue = with(&migration(), "/spec/parallelism", 3.into());
    let queue = created(&resource(), with(&queue, "/spec/backoffLimit", Value::Null));
    assert_eq!(queue["spec"].get("completions"), None);
    assert_eq!(queue["spec"]["backoffLimit"], 6);
    let by_index = with(&indexed(), "/spec/backoffLimitPerIndex", 1.into());
    let by_index = created(&resource(), by_index);
    assert_eq!(by_index["spec"]["backoffLimit"], i32::MAX);
    let rules = json!({"rules": [{"action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget"}]}]});
    let policy = created(
        &resource(),
        with(&migration(), "/spec/podFailurePolicy", rules),
    );
    assert_eq!(policy["spec"]["podReplacementPolicy"], "Failed");
    let condition = &policy["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0];
    assert_eq!(condition["status"], "True");
}

#[test]
fn a_job_that_was_read_and_cleaned_of_its_selector_can_be_created_again() {
    let mut again = created(&resource(), migration());
    again["metadata"]["uid"] = "of-the-one-before".into();
    again["spec"]["selector"] = Value::Null;
    again["spec"]["template"]["metadata"]["labels"] = Value::Null;
    let again = created(&resource(), again);
    assert_eq!(
        again["spec"]["selector"]["matchLabels"],
        json!({"batch.kubernetes.io/controller-uid": UID})
    );
}

#[test]
fn the_selector_of_another_job_is_refused() {
    let mut copy = created(&resource(), migration());
    copy["metadata"]["name"] = "copy".into();
    let why = wrong(&resource(), copy);
    assert!(
        why.starts_with("[spec.template.metadata.labels[job-name]: Invalid value: {"),
        "{why}"
    );
    assert!(why.contains("}: must be 'copy', "), "{why}");
    let own = json!({"matchLabels": {"app": "x"}});
    let why = wrong(
        &resource(),
        with(&migration(), "/spec/selector", own.clone()),
    );
    assert!(why.contains("`selector` not auto-generated"), "{why}");
    assert!(
        why.contains("`selector` does not match template `labels`"),
        "{why}"
    );
    let manual = with(&migration(), "/spec/manualSelector", true.into());
    assert!(wrong(&resource(), manual.clone()).starts_with("[spec.selector: Required value"),);
    let manual = with(&manual, "/spec/selector", own);
    let manual = with(
        &manual,
        "/spec/template/metadata",
        json!({"labels": {"app": "x"}}),
    );
    let manual = created(&resource(), manual);
    assert_eq!(
        manual["spec"]["template"]["metadata"]["labels"],
        json!({"app": "x"})
    );
}

#[test]
fn jobs_are_refused_in_the_words_of_kubernetes() {
    let cases = [
        (
            "/spec/template/spec/restartPolicy",
            Value::Null,
            r#"spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#,
        ),
        (
            "/spec/completions",
            json!(-1),
            "spec.completions: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/spec/completionMode",
            json!("Sparse"),
            r#"spec.completionMode: Unsupported value: "Sparse": supported values: "NonIndexed", "Indexed""#,
        ),
        (
            "/spec/backoffLimitPerIndex",
            json!(1),
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        (
            "/spec/podReplacementPolicy",
            json!("Never"),
            r#"spec.podReplacementPolicy: Unsupported value: "Never": supported values: "Failed", "TerminatingOrFailed""#,
        ),
        (
            "/spec/managedBy",
            json!("somebody"),
            r#"spec.managedBy: Invalid value: "somebody": must be a domain-prefixed path (such as "acme.io/foo")"#,
        ),
        (
            "/spec/successPolicy",
            json!({"rules": [{"succeededCount": 1}]}),
            r#"spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: requires indexed completion mode"#,
        ),
    ];
    for (at, value, why) in cases {
        assert_eq!(wrong(&resource(), with(&migration(), at, value)), why);
    }
    let endless = with(&indexed(), "/spec/completions", Value::Null);
    assert_eq!(
        wrong(&resource(), endless),
        "spec.completions: Required value: when completion mode is Indexed"
    );
    let long = with(&indexed(), "/metadata/name", json!("x".repeat(62)));
    assert!(wrong(&resource(), long).contains("will not able to create pod with invalid DNS"));
    let many = with(&indexed(), "/spec/completions", 200_000.into());
    let many = with(&many, "/spec/backoffLimitPerIndex", 1.into());
    assert_eq!(
        wrong(&resource(), many),
        "spec.maxFailedIndexes: Required value: must be specified when completions is above \
         100000"
    );
}

#[test]
fn failure_policies_are_refused_in_the_words_of_kubernetes() {
    let at = "spec.podFailurePolicy.rules[0]";
    let cases = [
        (
            json!({"action": "FailJob"}),
            format!(
                "{at}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
            ),
        ),
        (
            json!({"action": "", "onExitCodes": {"operator": "In", "values": [1]}}),
            format!(
                r#"{at}.action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#
            ),
        ),
        (
            json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}),
            format!(
                r#"{at}.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set"#
            ),
        ),
        (
            json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [0, 3]}}),
            format!(
                "{at}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"
            ),
        ),
        (
            json!({"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [3, 1]}}),
            format!("{at}.onExitCodes.values: Invalid value: [3,1]: must be ordered"),
        ),
        (
            json!({"action": "Count",
                "onExitCodes": {"containerName": "x", "operator": "In", "values": [3]}}),
            format!(
                r#"{at}.onExitCodes.containerName: Invalid value: "x": must be one of the container or initContainer names in the pod template"#
            ),
        ),
        (
            json!({"action": "Ignore", "onPodConditions": [{"type": "A", "status": "Maybe"}]}),
            format!(
                r#"{at}.onPodConditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown""#
            ),
        ),
    ];
    for (rule, why) in cases {
        let policy = json!({"rules": [rule]});
        let job = with(&migration(), "/spec/podFailurePolicy", policy);
        assert_eq!(wrong(&resource(), job), why);
    }
    let restarted = with(&migration(), "/spec/podFailurePolicy", json!({"rules": []}));
    let restarted = with(
        &restarted,
        "/spec/template/spec/restartPolicy",
        "OnFailure".into(),
    );
    assert_eq!(
        wrong(&resource(), restarted),
        r#"spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified"#
    );
}

#[test]
fn success_policies_name_indexes_that_there_are() {
    let at = "spec.successPolicy.rules[0]";
    let cases = [
        (
            json!({"succeededIndexes": "0,2-4", "succeededCount": 4}),
            String::new(),
        ),
        (
            json!({}),
            format!(
                "{at}: Required value: at least one of succeededCount or succeededIndexes must be \
                 specified"
            ),
        ),
        (
            json!({"succeededIndexes": "invalid-format"}),
            format!(
                r#"{at}.succeededIndexes: Invalid value: "invalid-format": error parsing succeededIndexes: cannot convert string to integer for index: "invalid""#
            ),
        ),
        (
            json!({"succeededIndexes": "3-5"}),
            format!(
                r#"{at}.succeededIndexes: Invalid value: "3-5": error parsing succeededIndexes: too large index: "5""#
            ),
        ),
        (
            json!({"succeededCount": 6}),
            format!(
                "{at}.succeededCount: Invalid value: 6: must be less than or equal to 5 (the \
                 number of specified completions)"
            ),
        ),
        (
            json!({"succeededIndexes": "0-2", "succeededCount": 4}),
            format!(
                "{at}.succeededCount: Invalid value: 4: must be less than or equal to 3 (the \
                 number of indexes in the specified succeededIndexes field)"
            ),
        ),
    ];
    for (rule, why) in cases {
        let policy = json!({"rules": [rule]});
        assert_eq!(
            wrong(&resource(), with(&indexed(), "/spec/successPolicy", policy)),
            why
        );
    }
}

#[test]
fn of_a_job_only_how_many_pods_run_may_change() {
    let old = created(&resource(), migration());
    for allowed in [
        json!({"spec": {"parallelism": 2}}),
        json!({"spec": {"suspend": true}}),
        json!({"spec": {"backoffLimit": 1, "activeDeadlineSeconds": 5}}),
        json!({"spec": {"ttlSecondsAfterFinished": 5}}),
    ] {
        let new = update(&resource(), &old, allowed, None).unwrap();
        assert_eq!(new["metadata"]["generation"], 2);
    }
    assert_eq!(
        change(&resource(), &old, json!({"spec": {"completions": 2}})),
        "spec.completions: Invalid value: 2: field is immutable"
    );
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c",
        "image": "i"}]}}}});
    let why = change(&resource(), &old, image);
    assert!(why.starts_with("spec.template: Invalid value: {"), "{why}");
    assert!(why.ends_with("}: field is immutable"), "{why}");
    let old = created(&resource(), indexed());
    let more = json!({"spec": {"completions": 7, "parallelism": 7}});
    assert_eq!(change(&resource(), &old, more), "");
    assert_eq!(
        change(&resource(), &old, json!({"spec": {"completions": 7}})),
        "spec.completions: Invalid value: 7: can only be modified in tandem with spec.parallelism"
    );
}

#[test]
fn a_suspended_job_that_has_not_started_may_be_sent_to_other_nodes() {
    let suspended = with(&migration(), "/spec/suspend", true.into());
    let old = created(&resource(), suspended);
    let node_affinity = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{
            "matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}}});
    let directives = json!({"spec": {"template": {
        "metadata": {"annotations": {"queue": "a"}, "labels": {"a": "b"}},
        "spec": {
            "nodeSelector": {"pool": "spot"},
            "tolerations": [{"operator": "Exists"}],
            "schedulingGates": [{"name": "example.com/gate"}],
            "affinity": node_affinity,
        },
    }}});
    assert_eq!(change(&resource(), &old, directives.clone()), "");
    let placed = update(&resource(), &old, directives.clone(), None).unwrap();
    let back = json!({"spec": {"template": {"spec": {"affinity": null}}}});
    assert_eq!(change(&resource(), &placed, back), "");
    let started = with(&old, "/status/startTime", "2026-01-02T03:05:00Z".into());
    assert!(change(&resource(), &started, directives).contains("field is immutable"));
}

#[test]
fn a_row_tells_how_far_the_job_is() {
    assert_eq!(
        columns(&resource()),
        [
            "Name",
            "Status",
            "Completions",
            "Duration",
            "Age",
            "[Containers]",
            "[Images]",
            "[Selector]"
        ]
    );
    let job = created(&resource(), migration());
    let selector = format!("batch.kubernetes.io/controller-uid={UID}");
    assert_eq!(
        row(&resource(), &job),
        json!([
            "migrate", "Running", "0/1", "", "10m", "migrate", "app:1.2", selector
        ])
    );
    let condition = |kind: &str| json!([{"type": kind, "status": "True"}]);
    let status = json!({
        "startTime": "2026-01-02T03:04:05Z",
        "completionTime": "2026-01-02T03:04:17Z",
        "succeeded": 1,
        "conditions": condition("Complete"),
    });
    let complete = row(&resource(), &with(&job, "/status", status));
    assert_eq!(complete[1], "Complete");
    assert_eq!(complete[2], "1/1");
    assert_eq!(complete[3], "12s");
    for (kind, word) in [
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "Running"),
    ] {
        let status = json!({"conditions": condition(kind)});
        assert_eq!(row(&resource(), &with(&job, "/status", status))[1], word);
    }
    let queue = with(
        &with(&job, "/spec/completions", Value::Null),
        "/spec/parallelism",
        3.into(),
    );
    assert_eq!(row(&resource(), &queue)[2], "0/1 of 3");
}

#[test]
fn the_name_of_a_generated_job_is_in_its_labels() {
    let job = create(
        &resource(),
        with(&migration(), "/metadata/name", "m-x2k4q".into()),
    );
    let template = job.unwrap()["spec"]["template"].clone();
    assert_eq!(template["metadata"]["labels"]["job-name"], "m-x2k4q");
}
