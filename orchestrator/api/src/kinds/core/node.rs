//! v1 Node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, Printer, age, list, name, text};
use crate::defaults::{drop_nulls, set};
use crate::resource::{Absent, Behaviour, Field, Resource, Scope, Subresource};
use crate::validation::addresses::{cidr, ip, usual_address};
use crate::validation::{At, Errors, names};

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Node,
        short_names: vec!["no".into()],
        scope: Scope::Cluster,
        subresources: vec![Subresource::Proxy, Subresource::Status],
        fields: vec![Field::of("spec.unschedulable").or(Absent::Is("false"))],
        has_status: true,
        default,
        validate,
        validate_update,
        validate_status,
        printer: COLUMNS,
        ..Resource::of::<Node>("", "core", "node", "nodes")
    }
}

const COLUMNS: Printer = Printer {
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
    cells,
};

/// `podCIDR` and the first of `podCIDRs` are the same.
fn default(object: &mut Value) {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let spec = &mut object["spec"];
    if let Some(first) = spec["podCIDRs"].get(0).cloned() {
        set(spec, "podCIDR", || first);
    } else if spec["podCIDR"]
        .as_str()
        .is_some_and(|cidr| !cidr.is_empty())
    {
        spec["podCIDRs"] = json!([spec["podCIDR"]]);
    }
    drop_nulls(spec);
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    pod_ranges(&spec, errors);
    validate_status(object, errors);
    let taints = spec.field("taints");
    let mut seen = BTreeSet::new();
    for taint in taints.items() {
        let (key, effect) = (taint.field("key"), taint.field("effect"));
        if key.is_empty() {
            errors.required(&key, "");
        } else {
            errors.check(&key, names::label_key(key.text()));
        }
        let value = taint.field("value");
        errors.check(&value, names::label_value(value.text()));
        errors.one_of(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if !seen.insert((key.text().to_owned(), effect.text().to_owned())) {
            errors.duplicate(&taint);
        }
    }
}

/// Other nodes send packets to a node's internal addresses.
fn validate_status(object: &At<'_>, errors: &mut Errors) {
    let status = object.field("status");
    let all = status.field("addresses");
    for item in all.items() {
        let (kind, address) = (item.field("type"), item.field("address"));
        match kind.text() {
            "InternalIP" if ip(&address, errors) => {
                usual_address(&address, errors);
            }
            "ExternalIP" => {
                ip(&address, errors);
            }
            _ => {}
        }
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    let (now, before) = (new.field("podCIDRs"), old.field("podCIDRs"));
    // A cluster that becomes dual-stack gives its nodes a second range.
    let kept = now
        .items()
        .zip(before.items())
        .filter(|(now, before)| now.value == before.value);
    if kept.count() < before.items().count() {
        errors.forbidden(
            &now,
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
    let (now, before) = (new.field("providerID"), old.field("providerID"));
    if !before.is_empty() && now.value != before.value {
        errors.forbidden(
            &now,
            "node updates may not change providerID except from \"\" to valid",
        );
    }
}

/// One range a family, written in the one way that it can be compared. Whether it is one of the cluster's
/// and free is `apiserver::services`' to say.
fn pod_ranges(spec: &At<'_>, errors: &mut Errors) {
    let (first, ranges) = (spec.field("podCIDR"), spec.field("podCIDRs"));
    let mut families = BTreeSet::new();
    for (index, at) in ranges.items().enumerate() {
        if index == 0 && first.text() != at.text() {
            errors.invalid(&first, "must match the first of `podCIDRs`");
        }
        let Some(range) = cidr(&at, errors) else {
            continue;
        };
        if range.ip() != range.network() || range.to_string() != at.text() {
            let network = range.network();
            let why = format!(
                "must be in canonical form (\"{network}/{}\")",
                range.prefix()
            );
            errors.invalid(&at, why);
        }
        if !families.insert(range.is_ipv6()) {
            errors.invalid(
                &ranges,
                "may specify no more than one CIDR for each IP family",
            );
        }
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_shows_readiness_roles_and_addresses() {
        let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
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
        let cells = cells(&object, now);
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
}
