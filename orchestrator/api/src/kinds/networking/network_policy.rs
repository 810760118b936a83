//! networking.k8s.io/v1 NetworkPolicy.

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, Printer, age, format_selector, name};
use crate::defaults::{items, set};
use crate::resource::{Generation, Resource};
use crate::validation::addresses::cidr;
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors, names};

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["netpol".into()],
        generation: Generation::Spec,
        default,
        validate,
        printer: COLUMNS,
        ..Resource::of::<NetworkPolicy>(
            "networking.k8s.io",
            "networking",
            "networkpolicy",
            "networkpolicies",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Pod-Selector", "Labels of the pods that the policy is for"),
        AGE,
    ],
    cells: |object, now| {
        let pods = format_selector(object.pointer("/spec/podSelector"));
        vec![name(object), pods.into(), age(object, now)]
    },
};

/// Where rules are, and where each has its peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

fn default(object: &mut Value) {
    set(object, "spec", || json!({}));
    let spec = &mut object["spec"];
    set(spec, "podSelector", || json!({}));
    for (direction, _) in DIRECTIONS {
        for rule in items(spec, direction) {
            for port in items(rule, "ports") {
                set(port, "protocol", || "TCP".into());
            }
        }
    }
    let is_empty = |list: Option<&Value>| {
        let list = list.and_then(Value::as_array);
        list.is_none_or(Vec::is_empty)
    };
    if is_empty(spec.get("policyTypes")) {
        spec["policyTypes"] = match is_empty(spec.get("egress")) {
            true => json!(["Ingress"]),
            false => json!(["Ingress", "Egress"]),
        };
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    label_selector(&spec.field("podSelector"), errors);
    for (direction, peers) in DIRECTIONS {
        let rules = spec.field(direction);
        for rule in rules.items() {
            let ports = rule.field("ports");
            ports.items().for_each(|at| port(&at, errors));
            let peers = rule.field(peers);
            peers.items().for_each(|at| peer(&at, errors));
        }
    }
    let types = spec.field("policyTypes");
    if types.items().count() > 2 {
        errors.invalid(&types, "may not specify more than two policyTypes");
        return;
    }
    for kind in types.items() {
        if !["Ingress", "Egress"].contains(&kind.text()) {
            errors.not_supported(&kind, &["Ingress", "Egress"]);
        }
    }
}

fn port(port: &At<'_>, errors: &mut Errors) {
    let protocol = port.field("protocol");
    if !["TCP", "UDP", "SCTP"].contains(&protocol.text()) {
        errors.not_supported(&protocol, &["TCP", "UDP", "SCTP"]);
    }
    let (first, last) = (port.field("port"), port.field("endPort"));
    if first.is_null() {
        if !last.is_null() {
            errors.invalid(&last, "may not be specified when `port` is not specified");
        }
    } else if first.value.is_string() {
        if !last.is_null() {
            errors.invalid(&last, "may not be specified when `port` is non-numeric");
        }
        errors.check(&first, names::port_name(first.text()));
    } else {
        errors.in_range(&first, 1, 65535);
        if !last.is_null() {
            if last.number() < first.number() {
                errors.invalid(&last, "must be greater than or equal to `port`");
            }
            errors.in_range(&last, 1, 65535);
        }
    }
}

fn peer(peer: &At<'_>, errors: &mut Errors) {
    let block = peer.field("ipBlock");
    let selectors = ["podSelector", "namespaceSelector"].map(|field| peer.field(field));
    for selector in &selectors {
        label_selector(selector, errors);
    }
    ip_block(&block, errors);
    let selected = selectors.iter().any(|selector| !selector.is_null());
    if block.is_null() && !selected {
        errors.required(peer, "must specify a peer");
    } else if !block.is_null() && selected {
        errors.forbidden(peer, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(block: &At<'_>, errors: &mut Errors) {
    if block.is_null() {
        return;
    }
    let whole = block.field("cidr");
    if whole.is_empty() {
        errors.required(&whole, "");
        return;
    }
    let Some(range) = cidr(&whole, errors) else {
        return;
    };
    let excepted = block.field("except");
    for except in excepted.items() {
        let part = cidr(&except, errors);
        if part.is_some_and(|part| !is_within(part, range)) {
            errors.invalid(&except, "must be a strict subset of `cidr`");
        }
    }
}

/// Whether a range is a part of another, and not all of it.
fn is_within(part: IpNetwork, whole: IpNetwork) -> bool {
    whole.contains(part.ip()) && whole.prefix() < part.prefix()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_wrong, created, row, updated, with};

    fn policy() -> Value {
        json!({
            "metadata": {"name": "db"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "db"}},
                "ingress": [{
                    "from": [{"podSelector": {}}, {"ipBlock": {
                        "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"],
                    }}],
                    "ports": [{"port": 5432}, {"port": "metrics", "protocol": "UDP"}],
                }],
            },
        })
    }

    #[test]
    fn a_policy_says_protocols_and_directions_that_were_left_out() {
        let stored = created(&resource(), policy());
        let ports = &stored["spec"]["ingress"][0]["ports"];
        assert_eq!(ports[0], json!({"port": 5432, "protocol": "TCP"}));
        assert_eq!(ports[1]["protocol"], "UDP");
        assert_eq!(stored["spec"]["policyTypes"], json!(["Ingress"]));
        assert_eq!(stored["metadata"]["generation"], 1);
        let out = with(&policy(), "/spec/egress", json!([{}]));
        let types = created(&resource(), out)["spec"]["policyTypes"].clone();
        assert_eq!(types, json!(["Ingress", "Egress"]));
        let nothing = created(&resource(), json!({"metadata": {"name": "a"}}));
        assert_eq!(
            nothing["spec"],
            json!({"podSelector": {}, "policyTypes": ["Ingress"]})
        );
    }

    #[test]
    fn a_policy_with_an_impossible_rule_is_refused() {
        let rule = "/spec/ingress/0";
        let at = |field: &str| format!("{rule}/{field}");
        let cases = [
            (
                at("ports/0"),
                json!({"port": 0}),
                "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                at("ports/0"),
                json!({"port": 80, "endPort": 79}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
            ),
            (
                at("ports/0"),
                json!({"port": "http", "endPort": 79}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is non-numeric",
            ),
            (
                at("ports/0"),
                json!({"port": 80, "protocol": "ICMP"}),
                r#"spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP""#,
            ),
            (
                at("from/0"),
                json!({}),
                "spec.ingress[0].from[0]: Required value: must specify a peer",
            ),
            (
                at("from/0"),
                json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}),
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                at("from/1"),
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}),
                r#"spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`"#,
            ),
            (
                at("from/1"),
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}),
                r#"spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`"#,
            ),
            (
                at("from/1"),
                json!({"ipBlock": {"cidr": "10.0.0.0"}}),
                r#"spec.ingress[0].from[1].ipBlock.cidr: Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
            ),
            (
                at("from/1"),
                json!({"ipBlock": {}}),
                "spec.ingress[0].from[1].ipBlock.cidr: Required value",
            ),
            (
                "/spec/policyTypes".into(),
                json!(["Both"]),
                r#"spec.policyTypes[0]: Unsupported value: "Both": supported values: "Ingress", "Egress""#,
            ),
        ];
        let cases: Vec<_> = cases
            .iter()
            .map(|(at, part, why)| (at.as_str(), part.clone(), *why))
            .collect();
        assert_wrong(&resource(), &policy(), &cases);
    }

    #[test]
    fn every_part_of_a_policy_may_change_and_counts_a_generation() {
        let old = created(&resource(), policy());
        let new = with(&old, "/spec/podSelector", json!({}));
        let stored = updated(&resource(), &old, new, None);
        assert_eq!(stored["metadata"]["generation"], 2);
    }

    #[test]
    fn a_row_shows_which_pods_are_selected() {
        assert_eq!(row(&resource(), &policy()), json!(["db", "app=db", "10m"]));
    }
}
