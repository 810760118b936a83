//! The priority levels and flow schemas that every cluster has, with the names and numbers of
//! Kubernetes 1.33.

use serde_json::{Value, json};

/// Name, shares, queues, hand size; without queues a full level refuses.
const LEVELS: [(&str, u64, Option<(u64, u64)>); 7] = [
    ("catch-all", 5, None),
    ("global-default", 20, Some((128, 6))),
    ("leader-election", 10, Some((16, 4))),
    ("node-high", 40, Some((64, 6))),
    ("system", 30, Some((64, 6))),
    ("workload-high", 40, Some((128, 6))),
    ("workload-low", 100, Some((128, 6))),
];

/// Requests that wait in a queue, at most.
const QUEUE_LENGTH: u64 = 50;

pub fn levels() -> Vec<Value> {
    let limited = |(name, shares, queues): (&str, u64, Option<(u64, u64)>)| {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand)) => json!({"type": "Queue", "queuing": {"queues": queues,
                "handSize": hand, "queueLengthLimit": QUEUE_LENGTH}}),
        };
        let limited = json!({"nominalConcurrencyShares": shares, "limitResponse": response});
        level(name, json!({"type": "Limited", "limited": limited}))
    };
    let exempt = level("exempt", json!({"type": "Exempt", "exempt": {}}));
    let mut all = vec![exempt];
    all.extend(LEVELS.into_iter().map(limited));
    all
}

fn level(name: &str, spec: Value) -> Value {
    object("PriorityLevelConfiguration", name, spec)
}

/// Name, precedence, priority level, and what tells flows apart.
type Row = (&'static str, u64, &'static str, Option<&'static str>);

const BY_USER: Option<&str> = Some("ByUser");
const BY_NAMESPACE: Option<&str> = Some("ByNamespace");

const SCHEMAS: [Row; 12] = [
    ("exempt", 1, "exempt", None),
    ("probes", 2, "exempt", None),
    ("system-leader-election", 100, "leader-election", BY_USER),
    ("endpoint-controller", 150, "workload-high", BY_USER),
    ("system-node-high", 400, "node-high", BY_USER),
    ("system-nodes", 500, "system", BY_USER),
    (
        "kube-controller-manager",
        800,
        "workload-high",
        BY_NAMESPACE,
    ),
    ("kube-scheduler", 800, "workload-high", BY_NAMESPACE),
    (
        "kube-system-service-accounts",
        900,
        "workload-high",
        BY_NAMESPACE,
    ),
    ("service-accounts", 9000, "workload-low", BY_USER),
    ("global-default", 9900, "global-default", BY_USER),
    ("catch-all", 10000, "catch-all", BY_USER),
];

/// In the order of their precedence.
pub fn schemas() -> Vec<Value> {
    SCHEMAS
        .map(|row| schema(row, &subjects(row.0), &rules(row.0)))
        .into()
}

/// Whose requests a schema is for.
fn subjects(schema: &str) -> Vec<Value> {
    let of_system = |name| account("kube-system", name);
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    match schema {
        "exempt" => vec![group("system:masters")],
        "system-leader-election" => vec![user(manager), user(scheduler), of_system("*")],
        "endpoint-controller" => vec![user(manager), of_system("endpoint-controller")],
        "system-node-high" | "system-nodes" => vec![group("system:nodes")],
        "kube-controller-manager" => vec![user(manager)],
        "kube-scheduler" => vec![user(scheduler)],
        "kube-system-service-accounts" => vec![of_system("*")],
        "service-accounts" => vec![group("system:serviceaccounts")],
        _ => vec![
            group("system:unauthenticated"),
            group("system:authenticated"),
        ],
    }
}

/// Which of their requests.
fn rules(schema: &str) -> Vec<Rule> {
    let write = ["get", "create", "update"];
    let leases = |verbs: &[&str]| resources(verbs, &["coordination.k8s.io"], &["leases"]);
    match schema {
        "probes" => vec![paths(&["get"], &["/healthz", "/readyz", "/livez"])],
        "system-leader-election" => vec![leases(&write)],
        "endpoint-controller" => vec![resources(
            &write,
            &["", "discovery.k8s.io"],
            &["endpoints", "endpointslices"],
        )],
        "system-node-high" => vec![
            leases(&["*"]),
            resources(&["*"], &[""], &["nodes", "nodes/status"]),
        ],
        _ => vec![resources(&["*"], &["*"], &["*"]), paths(&["*"], &["*"])],
    }
}

fn schema((name, precedence, level, by): Row, subjects: &[Value], rules: &[Rule]) -> Value {
    let resources: Vec<_> = rules
        .iter()
        .filter_map(|rule| rule.resources.clone())
        .collect();
    let paths: Vec<_> = rules.iter().filter_map(|rule| rule.paths.clone()).collect();
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [{"subjects": subjects, "resourceRules": resources, "nonResourceRules": paths}],
    });
    if let Some(by) = by {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    object("FlowSchema", name, spec)
}

/// One of the two is given.
#[derive(Default)]
struct Rule {
    resources: Option<Value>,
    paths: Option<Value>,
}

fn resources(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Rule {
    let rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources,
        "namespaces": ["*"], "clusterScope": true});
    Rule {
        resources: Some(rule),
        ..Rule::default()
    }
}

fn paths(verbs: &[&str], urls: &[&str]) -> Rule {
    Rule {
        paths: Some(json!({"verbs": verbs, "nonResourceURLs": urls})),
        ..Rule::default()
    }
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn account(namespace: &str, name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}})
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"},
        },
        "spec": spec,
    })
}
