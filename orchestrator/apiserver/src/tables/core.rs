//! Tables of nodes, namespaces, configuration, events and leases.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, Column, NAME, Printer, age, entries, list, name, number, since, text};

/// Kinds without columns of their own.
pub const OTHERS: Printer = Printer {
    columns: &[NAME, AGE],
    cells: |object, now| vec![name(object), age(object, now)],
};

/// Namespaces: their phase.
pub const NAMESPACES: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the namespace is in use or going"),
        AGE,
    ],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "/status/phase").into(),
            age(object, now),
        ]
    },
};

/// Nodes: readiness, roles, version; wide shows addresses and software.
pub const NODES: Printer = Printer {
    columns: &[
        NAME,
        Column::text(
            "Status",
            "Whether the node is ready, and whether it takes new pods",
        ),
        Column::text("Roles", "The roles that the node's labels name"),
        AGE,
        Column::text("Version", "The version of the node's agent"),
        Column::wide("Internal-IP", "The node's address inside the cluster"),
        Column::wide("External-IP", "The node's address outside the cluster"),
        Column::wide("OS-Image", "The operating system"),
        Column::wide("Kernel-Version", "The kernel"),
        Column::wide("Container-Runtime", "What runs the containers"),
    ],
    cells: node,
};

/// ConfigMaps: the number of keys.
pub const CONFIG_MAPS: Printer = Printer {
    columns: &[NAME, Column::integer("Data", "The number of keys"), AGE],
    cells: |object, now| {
        let keys = entries(object, "/data") + entries(object, "/binaryData");
        vec![name(object), keys.into(), age(object, now)]
    },
};

/// Secrets: type and number of keys.
pub const SECRETS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type", "What the secret is for"),
        Column::integer("Data", "The number of keys"),
        AGE,
    ],
    cells: |object, now| {
        let kind = text(object, "/type").into();
        vec![
            name(object),
            kind,
            entries(object, "/data").into(),
            age(object, now),
        ]
    },
};

/// ServiceAccounts: the number of secrets they list.
pub const SERVICE_ACCOUNTS: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Secrets", "The number of secrets it may use"),
        AGE,
    ],
    cells: |object, now| {
        vec![
            name(object),
            list(object, "/secrets").len().into(),
            age(object, now),
        ]
    },
};

/// Leases: who holds them.
pub const LEASES: Printer = Printer {
    columns: &[NAME, Column::text("Holder", "Who holds the lease"), AGE],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "/spec/holderIdentity").into(),
            age(object, now),
        ]
    },
};

/// Events: what happened to what, and when last.
pub const EVENTS: Printer = Printer {
    columns: &[
        Column::text("Last Seen", "Time since it was last seen"),
        Column::text("Type", "Normal or Warning"),
        Column::text("Reason", "The short reason"),
        Column::text("Object", "The object that it is about"),
        Column::wide("Subobject", "The part of the object that it is about"),
        Column::wide("Source", "Who reports it"),
        Column::text("Message", "What happened"),
        Column::wide("First Seen", "Time since it was first seen"),
        Column::wide("Count", "How often it was seen"),
        Column::wide("Name", "The event's own name"),
    ],
    cells: event,
};

fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list(object, "/status/conditions")
        .iter()
        .find(|c| c["type"] == "Ready");
    let mut status = match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    vec![
        name(object),
        status.into(),
        roles(object).into(),
        age(object, now),
        text(object, "/status/nodeInfo/kubeletVersion").into(),
        address(object, "InternalIP").into(),
        address(object, "ExternalIP").into(),
        unknown_if_empty(text(object, "/status/nodeInfo/osImage")).into(),
        unknown_if_empty(text(object, "/status/nodeInfo/kernelVersion")).into(),
        unknown_if_empty(text(object, "/status/nodeInfo/containerRuntimeVersion")).into(),
    ]
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
            roles.push(role);
        } else if key == "kubernetes.io/role" {
            roles.push(value.as_str().unwrap_or_default());
        }
    }
    roles.retain(|role| !role.is_empty());
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    }
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    list(node, "/status/addresses")
        .iter()
        .find(|address| address["type"] == kind)
        .map_or("<none>", |address| text(address, "/address"))
}

fn unknown_if_empty(value: &str) -> &str {
    if value.is_empty() { "<unknown>" } else { value }
}

fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let first = match text(object, "/firstTimestamp") {
        "" => since(text(object, "/eventTime"), now),
        stamp => since(stamp, now),
    };
    let mut last = match text(object, "/lastTimestamp") {
        "" => first.clone(),
        stamp => since(stamp, now),
    };
    let mut count = number(object, "/count").max(1);
    if object.get("series").is_some_and(Value::is_object) {
        last = since(text(object, "/series/lastObservedTime"), now);
        count = number(object, "/series/count");
    }
    let kind = text(object, "/involvedObject/kind").to_lowercase();
    let target = match text(object, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        last.into(),
        text(object, "/type").into(),
        text(object, "/reason").into(),
        target.into(),
        text(object, "/involvedObject/fieldPath").into(),
        event_source(object).into(),
        text(object, "/message").trim().into(),
        first.into(),
        json!(count),
        name(object),
    ]
}

fn event_source(event: &Value) -> String {
    let (component, host) = match text(event, "/source/component") {
        "" => (
            text(event, "/reportingComponent"),
            text(event, "/reportingInstance"),
        ),
        component => (component, text(event, "/source/host")),
    };
    match host {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().expect("a timestamp")
    }

    #[test]
    fn a_node_shows_readiness_roles_and_addresses() {
        let object = json!({
            "metadata": {"name": "node-1", "creationTimestamp": "2026-01-01T00:09:00Z",
                "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/os": "linux"}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "172.31.0.11"}],
                "nodeInfo": {"kubeletVersion": "v1.33.0"},
            },
        });
        let cells = node(&object, now());
        assert_eq!(
            cells[..6],
            [
                json!("node-1"),
                json!("Ready,SchedulingDisabled"),
                json!("worker"),
                json!("60s"),
                json!("v1.33.0"),
                json!("172.31.0.11"),
            ]
        );
    }

    #[test]
    fn an_event_names_its_object_and_counts() {
        let object = json!({
            "metadata": {"name": "nginx.1"}, "type": "Normal", "reason": "Started",
            "message": "Started container\n", "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:30Z",
            "involvedObject": {"kind": "Pod", "name": "nginx"},
            "source": {"component": "agent", "host": "node-1"},
        });
        let cells = event(&object, now());
        assert_eq!(cells[0], "30s");
        assert_eq!(cells[3], "pod/nginx");
        assert_eq!(cells[5], "agent, node-1");
        assert_eq!(cells[6], "Started container");
        assert_eq!(cells[8], 3);
    }
}
