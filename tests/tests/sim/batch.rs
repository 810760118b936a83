//! Jobs and disruption budgets under chance.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn job(name: &str, spec: Value) -> Value {
    let container = json!({
        "name": "main", "image": "image:1", "resources": {"requests": {"cpu": "100m"}},
    });
    let mut job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "backoffLimit": 1000,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    });
    for (field, part) in spec.as_object().expect("fields") {
        job["spec"][field] = part.clone();
    }
    job
}

#[test]
fn every_pod_of_a_job_is_counted_once_and_never_do_too_many_run() {
    for seed in seeds(15) {
        let mut cluster = Cluster::new(seed, 3);
        let mut user = Rng::new(seed ^ 0xfeed);
        let plain = json!({"parallelism": 3, "completions": 9});
        let indexed = json!({"parallelism": 4, "completions": 8, "completionMode": "Indexed"});
        let by_index = json!({"parallelism": 2, "completions": 4, "completionMode": "Indexed",
            "backoffLimitPerIndex": 1000});
        for (name, spec) in [
            ("plain", plain),
            ("indexed", indexed),
            ("by-index", by_index),
        ] {
            must(cluster.api.create(Kind::JOB, job(name, spec)));
        }
        for _ in 0..6 {
            cluster.chaos(300, FAULTS);
            let suspend = json!({"spec": {"suspend": user.chance(300)}});
            change(&mut cluster, Kind::JOB, "plain", suspend);
        }
        let go_on = json!({"spec": {"suspend": false}});
        change(&mut cluster, Kind::JOB, "plain", go_on);
        cluster.settle();
        let problems = check::problems(&cluster.api);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
    }
}

/// Pods that a budget counts.
fn healthy(cluster: &Cluster) -> usize {
    let pods = cluster.api.list(Kind::POD).into_iter();
    let pods = pods.filter(|pod| check::ready(pod) && !api::meta::is_terminating(pod));
    pods.count()
}

#[test]
fn evictions_never_leave_fewer_pods_than_their_budget_says() {
    for seed in seeds(20) {
        let mut cluster = Cluster::new(seed, 3);
        let mut user = Rng::new(seed ^ 0xfeed);
        must(cluster.api.create(Kind::DEPLOYMENT, deployment("web", 5)));
        let spec = json!({"maxUnavailable": "40%", "selector": {"matchLabels": {"app": "web"}}});
        let budget = json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": spec,
        });
        must(cluster.api.create(Kind::DISRUPTION_BUDGET, budget));
        cluster.settle();
        let mut evicted = 0;
        for _ in 0..300 {
            let pods = cluster.api.keys(Kind::POD, NAMESPACE);
            if let Some(pod) = user.pick(&pods) {
                evicted += usize::from(cluster.api.evict(pod).is_ok());
            }
            assert!(healthy(&cluster) >= 3, "seed {seed}: {}", healthy(&cluster));
            for _ in 0..user.below(30) {
                cluster.step();
            }
            if user.chance(20) {
                cluster.restart_controllers();
            }
        }
        assert!(evicted > 0, "seed {seed}: nothing was evicted");
        cluster.settle();
        let problems = check::problems(&cluster.api);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
    }
}

/// A CronJob that is due every minute.
fn cron_job(policy: &str) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "every", "namespace": NAMESPACE},
        "spec": {
            "schedule": "* * * * *",
            "concurrencyPolicy": policy,
            "successfulJobsHistoryLimit": 2,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {"spec": job("every", json!({"completions": 1}))["spec"]},
        },
    })
}

/// Every Job of the CronJob that there ever was, by the minute that it is for, with its uids.
fn scheduled(cluster: &Cluster) -> BTreeMap<String, BTreeSet<String>> {
    let mut minutes = BTreeMap::<String, BTreeSet<String>>::new();
    for entry in cluster
        .api
        .log
        .iter()
        .filter(|entry| entry.kind == Kind::JOB)
    {
        let annotations = &entry.object["metadata"]["annotations"];
        if let Some(at) = annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"].as_str() {
            let uid = api::meta::uid(&entry.object).to_owned();
            minutes.entry(at.to_owned()).or_default().insert(uid);
        }
    }
    minutes
}

fn is_over(job: &&Value) -> bool {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    let mut conditions = conditions.filter(|it| it["status"] == "True");
    conditions.any(|it| it["type"] == "Complete" || it["type"] == "Failed")
}

#[test]
fn a_cron_job_makes_one_job_a_minute_and_keeps_to_its_policy_and_its_history() {
    for seed in seeds(10) {
        let policy = ["Allow", "Forbid", "Replace"][seed as usize % 3];
        let mut cluster = Cluster::new(seed, 3);
        must(cluster.api.create(Kind::CRON_JOB, cron_job(policy)));
        // A controller that has not heard of a Job for a minute cannot keep to a policy.
        let after = if policy == "Allow" { FAULTS.after } else { 0 };
        for _ in 0..15 {
            // All is known, a minute comes, and things go wrong.
            cluster.elapse(20);
            cluster.api.now += SignedDuration::from_secs(20);
            cluster.chaos(150, Faults { after, ..FAULTS });
            let jobs = cluster.api.list(Kind::JOB).into_iter();
            let active = jobs.filter(|job| !is_over(job) && !api::meta::is_terminating(job));
            let active = active.count();
            assert!(
                policy == "Allow" || active <= 1,
                "seed {seed}, {policy}: {active} run"
            );
        }
        let suspend = json!({"spec": {"suspend": true}});
        change(&mut cluster, Kind::CRON_JOB, "every", suspend);
        cluster.settle();
        let minutes = scheduled(&cluster);
        assert!(!minutes.is_empty(), "seed {seed}: no Job was made");
        let twice = minutes.iter().find(|(_, uids)| uids.len() > 1);
        assert_eq!(twice, None, "seed {seed}, {policy}");
        let jobs = cluster.api.list(Kind::JOB);
        assert!(
            jobs.iter().all(is_over) && jobs.len() <= 3,
            "seed {seed}: {jobs:#?}"
        );
        let status = &cluster.api.get(Kind::CRON_JOB, NAMESPACE, "every").unwrap()["status"];
        assert!(status["active"].is_null(), "seed {seed}: {status}");
        let problems = check::problems(&cluster.api);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
    }
}

#[test]
fn a_finished_job_goes_with_its_pods_when_its_time_is_over_and_not_before() {
    const TTL: i64 = 100;
    for seed in seeds(10) {
        let mut cluster = Cluster::new(seed, 2);
        let spec = json!({"completions": 2, "ttlSecondsAfterFinished": TTL});
        must(cluster.api.create(Kind::JOB, job("short", spec)));
        must(
            cluster
                .api
                .create(Kind::JOB, job("kept", json!({"completions": 1}))),
        );
        let mut finished = None;
        for _ in 0..60 {
            cluster.elapse(5);
            cluster.chaos(60, FAULTS);
            let found = cluster.api.get(Kind::JOB, NAMESPACE, "short");
            let over = found
                .filter(is_over)
                .map(|it| it["status"]["completionTime"].clone());
            finished = finished.or(over);
            let goes = found.is_none_or(api::meta::is_terminating);
            if goes {
                let at = finished
                    .as_ref()
                    .and_then(Value::as_str)
                    .expect("it was over");
                let at: jiff::Timestamp = at.parse().expect("a time");
                let age = at.duration_until(cluster.api.now).as_secs();
                assert!(age >= TTL, "seed {seed}: it went after {age} s");
                break;
            }
        }
        cluster.settle();
        assert!(
            cluster.api.get(Kind::JOB, NAMESPACE, "short").is_none(),
            "seed {seed}"
        );
        assert!(
            cluster.api.get(Kind::JOB, NAMESPACE, "kept").is_some(),
            "seed {seed}"
        );
        let problems = check::problems(&cluster.api);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
    }
}
