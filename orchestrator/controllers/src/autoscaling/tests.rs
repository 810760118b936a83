use serde_json::{Value, json};

use super::*;
use crate::fixture::{now, words, world};

mod speed;

const SCALE: &str = "/apis/apps/v1/namespaces/ns/deployments/web/scale";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods?labelSelector=app%3Dweb";

fn cpu(percent: u32) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn autoscaler(metrics: Value, more: Value) -> (Kind, Value) {
    let mut value = json!({
        "metadata": {"name": "web", "generation": 1},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 10, "metrics": metrics,
        },
        "status": {"desiredReplicas": 0},
    });
    for (field, part) in more.as_object().unwrap() {
        value["spec"][field] = part.clone();
    }
    (Kind::AUTOSCALER, value)
}

/// A pod that requests 100m and has been ready for long.
fn pod(name: &str) -> (Kind, Value) {
    let resources = json!({"requests": {"cpu": "100m", "memory": "100Mi"}});
    let ready =
        json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"});
    let value = json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "resources": resources}]},
        "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [ready]},
    });
    (Kind::POD, value)
}

fn scale(replicas: i64) -> Value {
    json!({
        "metadata": {"resourceVersion": "7"},
        "spec": {"replicas": replicas},
        "status": {"replicas": replicas, "selector": "app=web"},
    })
}

/// What the pods use of CPU, in thousandths.
fn usage(pods: &[(&str, u32)]) -> Value {
    let item = |(name, millis): &(&str, u32)| {
        json!({
            "metadata": {"name": name}, "timestamp": "2026-01-01T00:09:50Z", "window": "15s",
            "containers": [{"name": "main", "usage": {"cpu": format!("{millis}m"), "memory": "50Mi"}}],
        })
    };
    json!({"items": pods.iter().map(item).collect::<Vec<_>>()})
}

/// One controller and one autoscaler.
struct Bench {
    controller: AutoscalingController,
    world: World,
}

impl Bench {
    fn new(objects: Vec<(Kind, Value)>) -> Self {
        Self {
            controller: AutoscalingController::default(),
            world: world(objects),
        }
    }

    /// A round whose writes end so.
    fn ends(&mut self, seconds: i64, answers: &[(&str, Reply)], ending: &Ending) -> Vec<Action> {
        let at = now() + SignedDuration::from_secs(seconds);
        let about = (Kind::AUTOSCALER, Key::new("ns", "web"));
        for _ in 0..4 {
            let plan = self.controller.plan(&self.world, &about, at).unwrap();
            let asks: Vec<Ask> = plan.actions.iter().filter_map(ask).collect();
            if asks.is_empty() {
                self.controller.ended(&about, ending);
                return plan.actions;
            }
            for ask in asks {
                let answer = answers.iter().find(|(path, _)| *path == ask.path);
                let reply = answer.unwrap_or_else(|| panic!("{} was asked for", ask.path));
                self.controller.told(&about, &ask, &reply.1, at);
            }
        }
        panic!("it asks on and on")
    }

    /// A round after `seconds`, in which everything that is asked for is answered as `answers` say.
    fn round(&mut self, seconds: i64, answers: &[(&str, Reply)]) -> Vec<Action> {
        self.ends(seconds, answers, &Ending::Done)
    }
}

fn ask(action: &Action) -> Option<Ask> {
    match action {
        Action::Ask(ask) => Some(ask.clone()),
        _ => None,
    }
}

/// The number that it scales to.
fn target(actions: &[Action]) -> Option<i64> {
    let scaled = |action: &Action| match action {
        Action::Patch(patch) if patch.subresource == "scale" => {
            patch.body["spec"]["replicas"].as_i64()
        }
        _ => None,
    };
    actions.iter().find_map(scaled)
}

/// Status and reason of a condition.
fn condition(actions: &[Action], kind: &str) -> String {
    let status = actions.iter().find_map(|action| match action {
        Action::Patch(patch) if patch.subresource == "status" => Some(&patch.body["status"]),
        _ => None,
    });
    let conditions = status.unwrap()["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|it| it["type"] == kind).unwrap();
    let [status, reason] = ["status", "reason"].map(|field| found[field].as_str().unwrap());
    format!("{status} {reason}")
}

/// What two pods at these thousandths of CPU lead to, of a target of 50 %.
fn two(first: u32, second: u32) -> Option<i64> {
    let objects = vec![autoscaler(json!([cpu(50)]), json!({})), pod("a"), pod("b")];
    let used = usage(&[("a", first), ("b", second)]);
    let actions = Bench::new(objects).round(0, &[(SCALE, Ok(scale(2))), (PODS, Ok(used))]);
    target(&actions)
}

#[test]
fn utilization_above_its_target_scales_up_and_within_a_tenth_nothing() {
    assert_eq!(two(100, 100), Some(4));
    assert_eq!(two(60, 60), Some(3));
    assert_eq!(two(55, 55), None);
    assert_eq!(two(45, 46), None);
}

#[test]
fn a_change_is_written_over_the_scale_that_was_read_and_told_of() {
    let objects = vec![autoscaler(json!([cpu(50)]), json!({})), pod("a"), pod("b")];
    let used = usage(&[("a", 100), ("b", 100)]);
    let actions = Bench::new(objects).round(0, &[(SCALE, Ok(scale(2))), (PODS, Ok(used))]);
    let Action::Patch(patch) = &actions[0] else {
        panic!()
    };
    assert_eq!(patch.body["metadata"]["resourceVersion"], "7");
    assert_eq!(
        words(&actions[1..2]),
        [
            "tell SuccessfulRescale New size: 4; reason: cpu resource utilization (percentage of request) above target"
        ]
    );
    assert_eq!(condition(&actions, "AbleToScale"), "True SucceededRescale");
    assert_eq!(
        condition(&actions, "ScalingActive"),
        "True ValidMetricFound"
    );
    assert_eq!(
        condition(&actions, "ScalingLimited"),
        "False DesiredWithinRange"
    );
    let Some(Action::Patch(status)) = actions.last() else {
        panic!()
    };
    let status = &status.body["status"];
    let current = &status["currentMetrics"][0]["resource"]["current"];
    assert_eq!(
        *current,
        json!({"averageUtilization": 100, "averageValue": "100m"})
    );
    assert_eq!(
        [&status["currentReplicas"], &status["desiredReplicas"]],
        [2, 4]
    );
}

#[test]
fn missing_metrics_never_scale_down_to_nothing() {
    let objects = || {
        let limits = json!({"minReplicas": 1});
        vec![autoscaler(json!([cpu(50)]), limits), pod("a"), pod("b")]
    };
    for reply in [
        Err("the server could not find the requested resource".to_owned()),
        Ok(json!({"items": []})),
        Ok(json!({})),
        Ok(
            json!({"items": [{"metadata": {"name": "stranger"}, "containers": [
            {"name": "main", "usage": {"cpu": "0"}}]}]}),
        ),
        Ok(json!({"items": [{"metadata": {"name": "a"}, "containers": [
            {"name": "main", "usage": {"cpu": "-5"}}]}]})),
    ] {
        let actions = Bench::new(objects()).round(0, &[(SCALE, Ok(scale(2))), (PODS, reply)]);
        assert_eq!(target(&actions), None);
        assert_eq!(
            condition(&actions, "ScalingActive"),
            "False FailedGetResourceMetric"
        );
        let events = words(&actions);
        assert!(
            events[0].starts_with("tell FailedGetResourceMetric"),
            "{events:?}"
        );
        assert!(
            events[1].starts_with("tell FailedComputeMetricsReplicas"),
            "{events:?}"
        );
    }
}

#[test]
fn a_pod_that_is_not_measured_counts_against_the_change() {
    let run = |used: u32| {
        let objects = vec![
            autoscaler(
                json!([cpu(50)]),
                json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}),
            ),
            pod("a"),
            pod("b"),
            pod("c"),
        ];
        let used = usage(&[("a", used), ("b", used)]);
        let actions = Bench::new(objects).round(0, &[(SCALE, Ok(scale(3))), (PODS, Ok(used))]);
        target(&actions)
    };
    assert_eq!(
        run(10),
        None,
        "the third is taken to use all that it requests"
    );
    assert_eq!(run(100), Some(4), "the third is taken to use nothing");
}

#[test]
fn pods_that_have_just_started_do_not_say_what_they_use_later() {
    let mut young = pod("b");
    young.1["status"]["startTime"] = "2026-01-01T00:09:30Z".into();
    young.1["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:09:45Z".into();
    let objects = vec![autoscaler(json!([cpu(50)]), json!({})), pod("a"), young];
    let used = usage(&[("a", 60), ("b", 1000)]);
    let actions = Bench::new(objects).round(0, &[(SCALE, Ok(scale(2))), (PODS, Ok(used))]);
    assert_eq!(target(&actions), None);
}

#[test]
fn one_metric_that_fails_keeps_the_others_from_scaling_down_only() {
    let external = json!({"type": "External", "external": {"metric": {"name": "queue"},
        "target": {"type": "AverageValue", "averageValue": "10"}}});
    const QUEUE: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/queue?";
    let run = |used: u32| {
        let metrics = json!([cpu(50), external]);
        let objects = vec![autoscaler(metrics, json!({})), pod("a"), pod("b")];
        let used = usage(&[("a", used), ("b", used)]);
        let gone = Err("not found".to_owned());
        let answers = [(SCALE, Ok(scale(2))), (PODS, Ok(used)), (QUEUE, gone)];
        target(&Bench::new(objects).round(0, &answers))
    };
    assert_eq!(run(100), Some(4));
    assert_eq!(run(10), None);
}

#[test]
fn every_source_is_read_where_it_is_served() {
    let value =
        |value: &str| json!({"items": [{"describedObject": {"name": "a"}, "value": value}]});
    let target_of = |kind: &str, amount: &str| {
        let field = if kind == "Value" {
            "value"
        } else {
            "averageValue"
        };
        json!({"type": kind, field: amount})
    };
    let run = |metric: Value, path: &str, reply: Value| {
        let objects = vec![autoscaler(json!([metric]), json!({})), pod("a"), pod("b")];
        target(&Bench::new(objects).round(0, &[(SCALE, Ok(scale(2))), (path, Ok(reply))]))
    };
    let metric = json!({"name": "rate", "selector": {"matchLabels": {"verb": "GET"}}});
    let pods = json!({"type": "Pods", "pods": {"metric": metric, "target": target_of("AverageValue", "10")}});
    let path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/ns/pods/*/rate?labelSelector=app%3Dweb&metricLabelSelector=verb%3DGET";
    let both = json!({"items": [
        {"describedObject": {"name": "a"}, "value": "20"}, {"describedObject": {"name": "b"}, "value": "40"}]});
    assert_eq!(run(pods, path, both), Some(6));
    let service = json!({"apiVersion": "v1", "kind": "Service", "name": "front"});
    let object = json!({"type": "Object", "object": {"metric": {"name": "hits"},
        "describedObject": service, "target": target_of("Value", "100")}});
    let path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/ns/services/front/hits?";
    assert_eq!(run(object, path, value("200")), Some(4));
    let external = json!({"type": "External", "external": {"metric": metric,
        "target": target_of("AverageValue", "10")}});
    let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/rate?labelSelector=verb%3DGET";
    assert_eq!(run(external, path, value("45500m")), Some(5));
    let container = json!({"type": "ContainerResource", "containerResource": {"name": "memory",
        "container": "main", "target": {"type": "Utilization", "averageUtilization": 25}}});
    assert_eq!(run(container, PODS, usage(&[("a", 1), ("b", 1)])), Some(4));
}

#[test]
fn a_scale_that_cannot_be_read_is_told_of() {
    let objects = vec![autoscaler(json!([cpu(50)]), json!({}))];
    let gone = Err("deployments.apps \"web\" not found".to_owned());
    let actions = Bench::new(objects).round(0, &[(SCALE, gone)]);
    assert_eq!(condition(&actions, "AbleToScale"), "False FailedGetScale");
    let mut unknown = autoscaler(json!([cpu(50)]), json!({}));
    unknown.1["spec"]["scaleTargetRef"]["kind"] = "Nothing".into();
    let actions = Bench::new(vec![unknown]).round(0, &[]);
    assert_eq!(condition(&actions, "AbleToScale"), "False FailedGetScale");
}

#[test]
fn what_is_scaled_to_zero_by_hand_stays_there() {
    let objects = vec![autoscaler(json!([cpu(50)]), json!({}))];
    let actions = Bench::new(objects).round(0, &[(SCALE, Ok(scale(0)))]);
    assert_eq!(target(&actions), None);
    assert_eq!(
        condition(&actions, "ScalingActive"),
        "False ScalingDisabled"
    );
}

#[test]
fn bounds_hold_without_any_metric() {
    let run = |replicas: i64| {
        let objects = vec![autoscaler(json!([cpu(50)]), json!({"minReplicas": 3}))];
        target(&Bench::new(objects).round(0, &[(SCALE, Ok(scale(replicas)))]))
    };
    assert_eq!([run(1), run(12)], [Some(3), Some(10)]);
}

#[test]
fn a_path_cannot_be_left_by_a_name() {
    let metric = json!({"name": "../../pods?x=#", "selector": null});
    let external = json!({"type": "External", "external": {"metric": metric,
        "target": {"type": "Value", "value": "1"}}});
    let objects = vec![autoscaler(json!([external]), json!({})), pod("a")];
    let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/..%2F..%2Fpods%3Fx%3D%23?";
    let reply = Ok(json!({"items": [{"value": "1"}]}));
    Bench::new(objects).round(0, &[(SCALE, Ok(scale(1))), (path, reply)]);
}

#[test]
fn a_target_that_changed_meanwhile_is_scaled_by_a_new_round_at_once_and_nothing_is_called_refused()
{
    let mut bench = Bench::new(vec![autoscaler(json!([cpu(50)]), json!({})), pod("a")]);
    let answers = [(SCALE, Ok(scale(1))), (PODS, Ok(usage(&[("a", 100)])))];
    let conflict = Ending::Failed {
        creating: false,
        conflict: true,
        message: "the object has been modified".to_owned(),
    };
    let first = bench.ends(0, &answers, &conflict);
    assert_eq!(target(&first), Some(2));
    let second = bench.round(0, &answers);
    assert_eq!(
        target(&second),
        Some(2),
        "the first write did not take place"
    );
    let told = words(&second);
    assert!(
        !told.iter().any(|it| it.contains("FailedRescale")),
        "{told:?}"
    );
    assert_eq!(condition(&second, "AbleToScale"), "True SucceededRescale");
}
