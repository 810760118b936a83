//! The same of Jobs, CronJobs and disruption budgets.

use serde_json::{Value, json};
use tests::hollow::{Hollow, items, path};

const BATCH: &str = "batch";
const POLICY: &str = "policy";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

fn template() -> Value {
    let containers = json!([{"name": "c", "image": "image:1"}]);
    json!({"metadata": {"labels": {"app": "test"}},
        "spec": {"restartPolicy": "Never", "containers": containers}})
}

/// A Job of the name `test`.
async fn start(spec: Value) -> Hollow {
    let cluster = Hollow::start().await;
    let mut job = json!({"metadata": {"name": "test", "labels": {"app": "test"}},
        "spec": {"parallelism": 2, "completions": 4, "template": template()}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        job["spec"][field] = value.clone();
    }
    cluster.make(&path(BATCH, "jobs"), job).await;
    cluster
}

fn index(pod: &Value) -> u32 {
    let index = pod["metadata"]["annotations"][INDEX].as_str();
    index
        .and_then(|index| index.parse().ok())
        .expect("an index")
}

fn holds(job: &Value, kind: &str) -> bool {
    let conditions = job["status"]["conditions"].as_array();
    let is = |it: &Value| it["type"] == kind && it["status"] == "True";
    conditions.is_some_and(|conditions| conditions.iter().any(is))
}

fn reason(job: &Value, kind: &str) -> Value {
    let conditions = job["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|it| it["type"] == kind));
    found.map_or(Value::Null, |it| it["reason"].clone())
}

/// Ends running pods with the exit codes that `code` says until the Job is over; none: the pod runs on.
async fn run(cluster: &Hollow, code: impl Fn(&Value) -> Option<i32>) -> Value {
    loop {
        let job = cluster.get(&path(BATCH, "jobs/test")).await;
        if holds(&job, "Complete") || holds(&job, "Failed") {
            return job;
        }
        let pods = cluster.get(&path("", "pods")).await;
        let running = items(&pods).iter();
        let running = running.filter(|pod| {
            pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        });
        for pod in running {
            if let Some(code) = code(pod) {
                end(cluster, pod, code).await;
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn end(cluster: &Hollow, pod: &Value, code: i32) {
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let ended = json!({"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"});
    let status = json!({"phase": if code == 0 { "Succeeded" } else { "Failed" },
        "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": ended}}]});
    let at = path("", &format!("pods/{name}/status"));
    // It may be gone by now.
    let _ = cluster.call("PATCH", &at, &json!({"status": status})).await;
}

fn indexed(more: Value) -> Value {
    let mut spec = json!({"completionMode": "Indexed"});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    spec
}

fn odd_fail(pod: &Value) -> Option<i32> {
    Some(i32::from(index(pod) % 2 == 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn job_should_create_pods_for_an_indexed_job_with_completion_indexes_and_specified_hostname()
{
    let cluster = start(indexed(json!({}))).await;
    let job = run(&cluster, |_| Some(0)).await;
    assert_eq!(job["status"]["completedIndexes"], "0-3");
    let pods = cluster.get(&path("", "pods")).await;
    let mut hosts: Vec<String> = items(&pods)
        .iter()
        .map(|pod| {
            let host = pod["spec"]["hostname"].as_str().expect("a host name");
            assert_eq!(host, format!("test-{}", index(pod)));
            host.to_owned()
        })
        .collect();
    hosts.sort();
    assert_eq!(hosts, ["test-0", "test-1", "test-2", "test-3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_should_execute_all_indexes_despite_some_failing_when_using_backoff_limit_per_index() {
    let cluster = start(indexed(json!({"backoffLimitPerIndex": 1}))).await;
    let job = run(&cluster, odd_fail).await;
    let status = &job["status"];
    assert_eq!(
        [&status["completedIndexes"], &status["failedIndexes"]],
        ["0,2", "1,3"]
    );
    assert_eq!([&status["succeeded"], &status["failed"]], [2, 4]);
    assert_eq!(reason(&job, "Failed"), "FailedIndexes");
}

#[tokio::test(flavor = "multi_thread")]
async fn job_should_mark_indexes_as_failed_when_the_fail_index_action_is_matched() {
    let rule = json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}});
    let policy = json!({"backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": [rule]}});
    let cluster = start(indexed(policy)).await;
    let job = run(&cluster, |pod| Some(if index(pod) == 1 { 42 } else { 0 })).await;
    let status = &job["status"];
    assert_eq!(
        [&status["completedIndexes"], &status["failedIndexes"]],
        ["0,2,3", "1"]
    );
    assert_eq!(status["failed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_should_terminate_when_the_number_of_failed_indexes_exceeds_max_failed_indexes() {
    let limits = json!({"completions": 6, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1});
    let cluster = start(indexed(limits)).await;
    let job = run(&cluster, |_| Some(1)).await;
    assert_eq!(reason(&job, "Failed"), "MaxFailedIndexesExceeded");
    assert!(job["status"]["failed"].as_u64() < Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn job_should_allow_to_use_the_pod_failure_policy_on_exit_code_to_fail_the_job_early() {
    let rule = json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}});
    let cluster = start(indexed(json!({"podFailurePolicy": {"rules": [rule]}}))).await;
    let one = |pod: &Value| (index(pod) == 0).then_some(1);
    let job = run(&cluster, one).await;
    assert_eq!(reason(&job, "Failed"), "PodFailurePolicy");
}

#[tokio::test(flavor = "multi_thread")]
async fn job_should_allow_to_use_a_pod_failure_policy_to_ignore_failure_on_disruption_target() {
    let condition = json!([{"type": "DisruptionTarget"}]);
    let rule = json!({"action": "Ignore", "onPodConditions": condition});
    let policy =
        json!({"completions": 2, "backoffLimit": 0, "podFailurePolicy": {"rules": [rule]}});
    let cluster = start(indexed(policy)).await;
    let both = |pods: &Value| {
        let running = items(pods)
            .iter()
            .filter(|it| it["status"]["phase"] == "Running");
        running.count() == 2
    };
    let pods = cluster.wait(&path("", "pods"), both).await;
    for pod in items(&pods) {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": name}});
        let at = path("", &format!("pods/{name}/eviction"));
        cluster.make(&at, eviction).await;
    }
    let evicted: Vec<Value> = items(&pods)
        .iter()
        .map(|it| it["metadata"]["uid"].clone())
        .collect();
    let others = |pod: &Value| (!evicted.contains(&pod["metadata"]["uid"])).then_some(0);
    let job = run(&cluster, others).await;
    assert!(holds(&job, "Complete"), "{job:#}");
    assert!(job["status"]["failed"].is_null(), "{job:#}");
}

/// A Job of which only the first index ends.
async fn first_index_suffices(rule: Value) {
    let policy = json!({"parallelism": 2, "successPolicy": {"rules": [rule]}});
    let cluster = start(indexed(policy)).await;
    let first = |pod: &Value| (index(pod) == 0).then_some(0);
    let job = run(&cluster, first).await;
    assert_eq!(reason(&job, "SuccessCriteriaMet"), "SuccessPolicy");
    assert_eq!(reason(&job, "Complete"), "SuccessPolicy");
    assert_eq!(job["status"]["completedIndexes"], "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn job_with_success_policy_succeeded_count_rule_should_succeed_when_some_indexes_remain_pending()
 {
    first_index_suffices(json!({"succeededCount": 1})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_with_success_policy_succeeded_indexes_rule_should_succeed_when_some_indexes_remain_pending()
 {
    first_index_suffices(json!({"succeededIndexes": "0"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_with_success_policy_should_succeed_when_all_indexes_succeeded() {
    let rules = json!([{"succeededIndexes": "0-3"}]);
    let cluster = start(indexed(json!({"successPolicy": {"rules": rules}}))).await;
    let job = run(&cluster, |_| Some(0)).await;
    assert_eq!(reason(&job, "SuccessCriteriaMet"), "SuccessPolicy");
    assert!(holds(&job, "Complete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn job_should_apply_changes_to_a_job_status() {
    let cluster = start(json!({})).await;
    let at = path(BATCH, "jobs/test");
    cluster.wait(&at, |job| job["status"]["active"] == 2).await;
    let condition = json!({"type": "CustomConditionType", "status": "True", "reason": "Set"});
    let body = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"conditions": [condition]}});
    let status = format!("{at}/status");
    let patched = cluster.must("PATCH", &status, body).await;
    assert!(holds(&patched, "CustomConditionType"));
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let done = run(&cluster, |_| Some(0)).await;
    assert!(
        holds(&done, "CustomConditionType"),
        "its controller leaves it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn job_should_manage_the_lifecycle_of_a_job() {
    let cluster = start(json!({"suspend": true})).await;
    let at = path(BATCH, "jobs/test");
    cluster.wait(&at, |job| holds(job, "Suspended")).await;
    let label = json!({"metadata": {"labels": {"test": "patched"}}, "spec": {"suspend": false}});
    cluster.must("PATCH", &at, label).await;
    let running = cluster.wait(&at, |job| job["status"]["active"] == 2).await;
    assert!(running["status"]["startTime"].is_string());
    let all = cluster
        .get("/apis/batch/v1/jobs?labelSelector=test%3Dpatched")
        .await;
    assert_eq!(items(&all).len(), 1);
    let background = json!({"propagationPolicy": "Background"});
    let by_label = path(BATCH, "jobs?labelSelector=test%3Dpatched");
    cluster.must("DELETE", &by_label, background).await;
    let none = |list: &Value| list.is_object() && items(list).is_empty();
    cluster.wait(&by_label, none).await;
    cluster.wait(&path("", "pods"), none).await;
}

/// A CronJob of every second.
async fn make_cron(cluster: &Hollow, name: &str, policy: &str, suspend: bool) {
    let spec = json!({"schedule": "@every 1s", "concurrencyPolicy": policy, "suspend": suspend,
        "jobTemplate": {"spec": {"template": template()}}});
    let cron = json!({"metadata": {"name": name}, "spec": spec});
    cluster.make(&path(BATCH, "cronjobs"), cron).await;
}

fn active(cron: &Value) -> usize {
    cron["status"]["active"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn cron_job_should_schedule_multiple_jobs_concurrently_and_none_when_suspended() {
    let cluster = Hollow::start().await;
    make_cron(&cluster, "stopped", "Allow", true).await;
    make_cron(&cluster, "runs", "Allow", false).await;
    let at = |name: &str| path(BATCH, &format!("cronjobs/{name}"));
    // Its Jobs are named by the minute, so that a second one comes in the next: here that is not waited for.
    cluster.wait(&at("runs"), |cron| active(cron) >= 1).await;
    let stopped = cluster.get(&at("stopped")).await;
    assert_eq!(
        (active(&stopped), &stopped["status"]["lastScheduleTime"]),
        (0, &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn disruption_controller_should_block_an_eviction_until_the_pdb_is_updated_to_allow_it() {
    let cluster = Hollow::start().await;
    let set = json!({"metadata": {"name": "test"}, "spec": {"replicas": 3,
        "selector": {"matchLabels": {"app": "test"}}, "template": {
            "metadata": {"labels": {"app": "test"}},
            "spec": {"containers": [{"name": "c", "image": "image:1"}]}}}});
    cluster.make(&path("apps", "replicasets"), set).await;
    let budgets = path(POLICY, "poddisruptionbudgets");
    let selector = json!({"matchLabels": {"app": "test"}});
    let budget = json!({"metadata": {"name": "test"},
        "spec": {"minAvailable": 3, "selector": selector}});
    cluster.make(&budgets, budget).await;
    let at = format!("{budgets}/test");
    cluster
        .wait(&at, |it| it["status"]["currentHealthy"] == 3)
        .await;
    let pods = cluster.get(&path("", "pods")).await;
    let name = items(&pods)[0]["metadata"]["name"]
        .as_str()
        .expect("a name");
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let evict = path("", &format!("pods/{name}/eviction"));
    let refused = cluster
        .call("POST", &evict, &eviction)
        .await
        .expect_err("429");
    assert!(
        refused.to_string().contains("disruption budget"),
        "{refused}"
    );
    let looser = json!({"spec": {"minAvailable": 2}});
    cluster.must("PATCH", &at, looser).await;
    cluster
        .wait(&at, |it| it["status"]["disruptionsAllowed"] == 1)
        .await;
    cluster.make(&evict, eviction).await;
    let again = |it: &Value| {
        let status = &it["status"];
        status["currentHealthy"] == 3 && status["disruptedPods"].is_null()
    };
    cluster.wait(&at, again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disruption_controller_should_update_and_patch_status_and_list_and_delete_a_collection() {
    let cluster = Hollow::start().await;
    let budgets = path(POLICY, "poddisruptionbudgets");
    for name in ["one", "two"] {
        let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "none"}}});
        let metadata = json!({"name": name, "labels": {"test": "yes"}});
        let budget = json!({"metadata": metadata, "spec": spec});
        cluster.make(&budgets, budget).await;
    }
    let at = format!("{budgets}/one");
    cluster
        .wait(&at, |it| it["status"]["observedGeneration"] == 1)
        .await;
    let noted = json!({"status": {"disruptedPods": {"pod": "2026-01-01T00:00:00Z"}}});
    let status = format!("{at}/status");
    let patched = cluster.must("PATCH", &status, noted).await;
    assert!(patched["status"]["disruptedPods"]["pod"].is_string());
    let all = "/apis/policy/v1/poddisruptionbudgets?labelSelector=test%3Dyes";
    assert_eq!(items(&cluster.get(all).await).len(), 2);
    cluster.must("DELETE", &budgets, json!({})).await;
    cluster
        .wait(all, |list| list.is_object() && items(list).is_empty())
        .await;
}
