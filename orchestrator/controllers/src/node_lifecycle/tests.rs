use serde_json::{Value, json};

use super::*;
use crate::fixture::{now, words, world};
use client::Kind;

fn node(ready: &str, taints: Value) -> (Kind, Value) {
    let conditions = match ready {
        "" => json!([]),
        _ => {
            json!([{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}])
        }
    };
    let value = json!({
        "metadata": {"name": "node-1"},
        "spec": {"taints": taints},
        "status": {"conditions": conditions},
    });
    (Kind::NODE, value)
}

fn pod(tolerations: Value) -> (Kind, Value) {
    let value = json!({
        "metadata": {"name": "pod"},
        "spec": {"nodeName": "node-1", "containers": [], "tolerations": tolerations},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    (Kind::POD, value)
}

/// The plan when the lease was renewed `age` seconds ago.
fn planned(objects: Vec<(Kind, Value)>, age: i64) -> Plan {
    let world = world(objects);
    let node = world.all(Kind::NODE).next().unwrap();
    plan(&View {
        node,
        row: node.as_node().unwrap(),
        pods: world.pods_on("node-1"),
        renewed: now() - SignedDuration::from_secs(age),
        now: now(),
    })
}

/// The taints that a plan writes, as `key:effect`; none if it writes none.
fn tainted(plan: &Plan) -> Option<Vec<String>> {
    let patch = plan.actions.iter().find_map(|action| match action {
        Action::Patch(patch) if !patch.body["spec"].is_null() => {
            Some(&patch.body["spec"]["taints"])
        }
        _ => None,
    })?;
    let taint = |taint: &Value| {
        let short = taint["key"]
            .as_str()
            .unwrap()
            .trim_start_matches("node.kubernetes.io/");
        format!("{short}:{}", taint["effect"].as_str().unwrap())
    };
    Some(
        patch
            .as_array()
            .map(|all| all.iter().map(taint).collect())
            .unwrap_or_default(),
    )
}

fn taints(key: &str, since: &str) -> Value {
    json!([
        {"key": key, "effect": "NoSchedule", "timeAdded": since},
        {"key": key, "effect": "NoExecute", "timeAdded": since},
    ])
}

#[test]
fn a_node_that_is_heard_of_is_left_alone_until_its_lease_would_be_lost() {
    let plan = planned(vec![node("True", json!([])), pod(json!([]))], 25);
    assert_eq!(
        plan,
        Plan {
            actions: Vec::new(),
            again: Some(SignedDuration::from_secs(15))
        }
    );
}

#[test]
fn a_lost_lease_makes_every_condition_unknown_and_takes_pods_out_of_service() {
    let plan = planned(vec![node("True", json!([])), pod(json!([]))], 40);
    let words = words(&plan.actions);
    assert!(
        words[0].starts_with("patch nodes/status node-1"),
        "{words:?}"
    );
    assert!(
        words[0].matches("\"status\":\"Unknown\"").count() == 2,
        "{words:?}"
    );
    assert!(words[2].starts_with("patch pods/status pod"), "{words:?}");
    let expected = ["unreachable:NoSchedule", "unreachable:NoExecute"].map(str::to_owned);
    assert_eq!(tainted(&plan), Some(expected.to_vec()));
    assert_eq!(plan.again, Some(SignedDuration::from_secs(300)));
}

#[test]
fn taints_follow_the_condition_and_leave_others_alone() {
    let since = "2026-01-01T00:09:00Z";
    let own = json!([{"key": "gpu", "effect": "NoSchedule"}]);
    let not_ready = [
        "gpu:NoSchedule",
        "not-ready:NoSchedule",
        "not-ready:NoExecute",
    ];
    let cases: [(&str, Value, Option<&[&str]>); 6] = [
        ("True", own.clone(), None),
        ("False", own, Some(&not_ready)),
        ("", json!([]), None),
        ("True", taints(UNREACHABLE, since), Some(&[])),
        ("False", taints(NOT_READY, since), None),
        ("False", taints(UNREACHABLE, since), Some(&not_ready[1..])),
    ];
    for (ready, taints, expected) in cases {
        let plan = planned(vec![node(ready, taints)], 5);
        let expected = expected.map(|all| all.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(tainted(&plan), expected, "{ready}");
    }
}

#[test]
fn pods_are_evicted_when_their_patience_ends() {
    let tolerates = |seconds: Value| {
        json!([{
            "key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds,
        }])
    };
    // (tolerations, seconds since the taint, evicted, seconds until it is)
    let cases = [
        (json!([]), 299, false, Some(1)),
        (json!([]), 300, true, None),
        (tolerates(json!(60)), 59, false, Some(1)),
        (tolerates(json!(60)), 60, true, None),
        (tolerates(Value::Null), 9000, false, None),
        (json!([{"operator": "Exists"}]), 9000, false, None),
    ];
    for (tolerations, age, evicted, again) in cases {
        let since = timestamp(now() - SignedDuration::from_secs(age));
        let node = node("Unknown", taints(UNREACHABLE, &since));
        let plan = planned(vec![node, pod(tolerations.clone())], 9000);
        let deleted = words(&plan.actions).contains(&"delete pods pod".to_owned());
        assert_eq!(deleted, evicted, "{tolerations} after {age} s");
        assert_eq!(
            plan.again,
            again.map(SignedDuration::from_secs),
            "{tolerations} after {age} s"
        );
    }
}

#[test]
fn a_taint_of_somebody_else_evicts_at_once_who_does_not_tolerate_it() {
    let taint = json!([{"key": "repair", "value": "yes", "effect": "NoExecute"}]);
    let equal = json!([{"key": "repair", "operator": "Equal", "value": "yes"}]);
    for (tolerations, evicted) in [(json!([]), true), (equal, false)] {
        let plan = planned(vec![node("True", taint.clone()), pod(tolerations)], 5);
        assert_eq!(
            words(&plan.actions).contains(&"delete pods pod".to_owned()),
            evicted
        );
    }
}
