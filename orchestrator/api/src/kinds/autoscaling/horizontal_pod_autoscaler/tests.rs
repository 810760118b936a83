use super::*;
use crate::kinds::testing::{change, columns, created, row, update, with, wrong};

/// `kubectl autoscale deployment web --max=10`
fn web() -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "maxReplicas": 10,
        },
    })
}

fn cpu(target: Value) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
}

#[test]
fn an_autoscaler_aims_at_four_fifths_of_the_cpu() {
    let stored = created(&resource(), web());
    assert_eq!(
        stored["spec"],
        json!({
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": cpu(json!({"type": "Utilization", "averageUtilization": 80})),
        })
    );
    assert_eq!(stored["status"], json!({"desiredReplicas": 0}));
    assert_eq!(stored["metadata"].get("generation"), None);
}

#[test]
fn a_behavior_is_filled_in_where_there_is_one() {
    let slow = json!({"scaleDown": {"stabilizationWindowSeconds": 60}});
    let stored = created(&resource(), with(&web(), "/spec/behavior", slow));
    assert_eq!(
        stored["spec"]["behavior"],
        json!({
            "scaleUp": {
                "stabilizationWindowSeconds": 0,
                "selectPolicy": "Max",
                "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ],
            },
            "scaleDown": {
                "stabilizationWindowSeconds": 60,
                "selectPolicy": "Max",
                "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
            },
        })
    );
}

#[test]
fn autoscalers_are_refused_in_the_words_of_kubernetes() {
    let cases = [
        (
            "/spec/minReplicas",
            json!(0),
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
        ),
        (
            "/spec/maxReplicas",
            json!(0),
            "[spec.maxReplicas: Invalid value: 0: must be greater than 0, spec.maxReplicas: \
             Invalid value: 0: must be greater than or equal to `minReplicas`]",
        ),
        (
            "/spec/scaleTargetRef",
            json!({"kind": "", "name": "a/b"}),
            r#"[spec.scaleTargetRef.kind: Required value, spec.scaleTargetRef.name: Invalid value: "a/b": may not contain '/']"#,
        ),
        (
            "/spec/metrics",
            cpu(json!({"type": "Utilization"})),
            "spec.metrics[0].resource.target.averageUtilization: Required value: must set either \
             a target raw value or a target utilization",
        ),
        (
            "/spec/metrics",
            cpu(json!({"type": "Utilization", "averageUtilization": 0})),
            "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be \
             greater than 0",
        ),
        (
            "/spec/metrics",
            cpu(json!({"type": "Share", "averageValue": "1"})),
            r#"spec.metrics[0].resource.target.type: Invalid value: "Share": must be either Utilization, Value, or AverageValue"#,
        ),
        (
            "/spec/metrics",
            json!([{"type": "Pods"}]),
            "spec.metrics[0].pods: Required value: must populate information for the given metric \
             source",
        ),
        (
            "/spec/metrics",
            json!([{"type": "Guess"}]),
            r#"spec.metrics[0].type: Unsupported value: "Guess": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#,
        ),
        (
            "/spec/behavior",
            json!({"scaleUp": {"selectPolicy": "All"}}),
            r#"spec.behavior.scaleUp.selectPolicy: Unsupported value: "All": supported values: "Disabled", "Max", "Min""#,
        ),
        (
            "/spec/behavior",
            json!({"scaleUp": {"stabilizationWindowSeconds": 4000}}),
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less \
             than or equal to 3600",
        ),
        (
            "/spec/behavior",
            json!({"scaleDown": {"policies": [
                {"type": "Pods", "value": 0, "periodSeconds": 2000}]}}),
            "[spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than \
             zero, spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 2000: must \
             be less than or equal to 1800]",
        ),
    ];
    for (at, value, why) in cases {
        assert_eq!(wrong(&resource(), with(&web(), at, value)), why);
    }
}

#[test]
fn a_metric_has_one_source() {
    let metric = json!({"name": "queue"});
    let external = json!({"metric": metric, "target": {"type": "Value", "value": "5",
        "averageValue": "1"}});
    let external = json!([{"type": "External", "external": external}]);
    assert_eq!(
        wrong(&resource(), with(&web(), "/spec/metrics", external)),
        "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for \
         metric and a per-pod target"
    );
    let pods = json!({"metric": metric, "target": {"type": "AverageValue",
        "averageValue": "1"}});
    let both = with(
        &web(),
        "/spec/metrics",
        cpu(json!({"type": "Utilization",
        "averageUtilization": 50})),
    );
    assert_eq!(
        wrong(&resource(), with(&both, "/spec/metrics/0/pods", pods)),
        "spec.metrics[0].pods: Forbidden: must populate the given metric source only"
    );
}

#[test]
fn the_spec_may_change_and_the_status_through_its_subresource() {
    let old = created(&resource(), web());
    assert_eq!(
        change(&resource(), &old, json!({"spec": {"maxReplicas": 20}})),
        ""
    );
    let status = json!({"status": {"currentReplicas": -1}});
    assert_eq!(
        update(&resource(), &old, status, Some(Subresource::Status)),
        Err("status.currentReplicas: Invalid value: -1: must be greater than or equal to 0".into())
    );
}

#[test]
fn a_row_shows_what_is_measured() {
    assert_eq!(
        columns(&resource()),
        [
            "Name",
            "Reference",
            "Targets",
            "MinPods",
            "MaxPods",
            "Replicas",
            "Age"
        ]
    );
    let stored = created(&resource(), web());
    assert_eq!(
        row(&resource(), &stored),
        json!([
            "web",
            "Deployment/web",
            "cpu: <unknown>/80%",
            "1",
            10,
            0,
            "10m"
        ])
    );
    let target = |field: &str| json!({"type": "AverageValue", field: "30"});
    let metrics = json!([
        {"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 80}}},
        {"type": "External", "external": {"metric": {"name": "q"},
            "target": target("averageValue")}},
        {"type": "Pods", "pods": {"metric": {"name": "p"}, "target": target("averageValue")}},
    ]);
    let status = json!({"currentReplicas": 3, "desiredReplicas": 3, "currentMetrics": [
        {"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 20, "averageValue": "20m"}}},
        {"type": "External", "external": {"metric": {"name": "q"},
            "current": {"averageValue": "15"}}},
    ]});
    let busy = with(&with(&stored, "/spec/metrics", metrics), "/status", status);
    let cells = row(&resource(), &busy);
    assert_eq!(cells[2], "cpu: 20%/80%, 15/30 (avg) + 1 more...");
    assert_eq!(cells[5], 3);
}
