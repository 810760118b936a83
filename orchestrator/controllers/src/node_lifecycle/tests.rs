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
    planned_with(objects, age, None)
}

/// The same of a lease that lasts so long.
fn planned_with(objects: Vec<(Kind, Value)>, age: i64, fenced: Option<SignedDuration>) -> Plan {
    let world = world(objects);
    let node = world.all(Kind::NODE).next().unwrap();
    plan(&View {
        node,
        row: node.as_node().unwrap(),
        pods: world.pods_on("node-1"),
        renewed: now() - SignedDuration::from_secs(age),
        fenced,
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
    assert_eq!(plan.again, None);
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
fn a_pod_with_fast_failover_is_replaced_once_its_fenced_node_is_lost() {
    let (_, mut fast) = pod(json!([]));
    fast["metadata"]["name"] = json!("fast");
    fast["metadata"]["annotations"] = json!({api::annotations::FAILOVER: "fast"});
    let objects = || {
        let node = node("True", json!([]));
        vec![node, (Kind::POD, fast.clone()), pod(json!([]))]
    };
    let lasts = Some(SignedDuration::from_secs(5));
    let early = planned_with(objects(), 6, lasts);
    assert_eq!(
        (early.actions, early.again),
        (vec![], Some(SignedDuration::from_secs(1)))
    );
    let lost = planned_with(objects(), 7, lasts);
    let words = words(&lost.actions);
    let deletes: Vec<_> = words
        .iter()
        .filter(|word| word.starts_with("delete"))
        .collect();
    assert_eq!(deletes, ["delete pods fast"]);
    let tainted = words.iter().position(|word| word.contains("taints"));
    let deleted = words.iter().position(|word| word.starts_with("delete"));
    assert!(tainted < deleted, "{words:?}");
    let unfenced = planned_with(objects(), 60, None);
    let deleted = unfenced
        .actions
        .iter()
        .any(|it| matches!(it, Action::Delete(_)));
    assert!(!deleted, "nobody knows whether it still runs");
}

#[test]
fn a_lease_promises_to_fence_by_its_duration() {
    let mut controller = NodeController::new(now() - SignedDuration::from_secs(1000));
    let mut world = world(vec![node("True", json!([]))]);
    let lease = |seconds: i64| {
        let value = json!({"metadata": {"name": "node-1", "namespace": NODE_LEASES},
            "spec": {"renewTime": format!("2026-01-01T00:09:0{}.000000Z", seconds % 10),
                "leaseDurationSeconds": seconds}});
        crate::fixture::object(Kind::LEASE, value)
    };
    let about = (Kind::NODE, Key::new("", "node-1"));
    for (seconds, again) in [(40, 40), (5, 7)] {
        let mut lease = lease(seconds);
        lease.meta.revision = u64::try_from(100 - seconds).unwrap();
        for diff in world.apply(crate::world::Change::Upsert(lease)) {
            controller.hear(&diff, now());
        }
        let plan = controller.plan(&world, &about, now()).unwrap();
        assert_eq!(
            plan.again,
            Some(SignedDuration::from_secs(again)),
            "{seconds}"
        );
    }
}

#[test]
fn a_node_under_pressure_and_one_that_is_cordoned_are_closed_to_new_pods() {
    let (_, mut value) = node("True", json!([{"key": "gpu", "effect": "NoSchedule"}]));
    value["spec"]["unschedulable"] = json!(true);
    let conditions = value["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(json!({"type": "MemoryPressure", "status": "True"}));
    let plan = planned(vec![(Kind::NODE, value)], 5);
    let expected = [
        "gpu:NoSchedule",
        "memory-pressure:NoSchedule",
        "unschedulable:NoSchedule",
    ];
    assert_eq!(tainted(&plan), Some(expected.map(str::to_owned).to_vec()));
    let closed = json!([
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"},
    ]);
    let open = planned(vec![node("True", closed)], 5);
    assert_eq!(tainted(&open), Some(vec![]), "what closed it is over");
}
