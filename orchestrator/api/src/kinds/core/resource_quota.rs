//! v1 ResourceQuota: how much a namespace may use, and uses.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, Printer, age, name};
use crate::quota::Usage;
use crate::resource::{Resource, Subresource};
use crate::validation::{At, Errors, resources};

/// The pods that a quota may be of.
const SCOPES: [&str; 6] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
];

/// No pod is of both.
const CONFLICTS: [[&str; 2]; 2] = [
    ["BestEffort", "NotBestEffort"],
    ["NotTerminating", "Terminating"],
];

/// What pods use.
const OF_PODS: [&str; 7] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.memory",
];

const ONLY_EXISTS: &str = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
    ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
    ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";

pub fn resource() -> Resource {
    Resource {
        usage: Usage::CountAs("resourcequotas"),
        short_names: vec!["quota".into()],
        answers_with_object: true,
        subresources: vec![Subresource::Status],
        has_status: true,
        create: |quota| quota["status"] = json!({}),
        validate,
        validate_update,
        validate_status: |quota, errors| {
            let status = quota.field("status");
            for list in ["hard", "used"] {
                amounts(&status.field(list), errors);
            }
        },
        printer: COLUMNS,
        ..Resource::of::<ResourceQuota>("", "core", "resourcequota", "resourcequotas")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Request", "What is used of what there may be"),
        Column::text("Limit", "The same of the limits of containers"),
        AGE,
    ],
    cells,
};

fn validate(quota: &At<'_>, errors: &mut Errors) {
    let spec = quota.field("spec");
    amounts(&spec.field("hard"), errors);
    let scopes = spec.field("scopes");
    let given: BTreeSet<&str> = list_of_text(scopes.value).collect();
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.text()) {
            errors.invalid(&scopes, "unsupported scope");
        }
        applies(&spec, scope.text(), &scopes, errors);
    }
    conflicts(&given, &scopes, scopes.value, errors);
    selector(&spec, errors);
}

fn amounts(list: &At<'_>, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        resources::of_quota(&amount, name, errors);
        resources::amount(&amount, name, errors);
    }
}

/// A scope of pods limits what pods use; pods of the least class of service use nothing but themselves.
fn applies(spec: &At<'_>, scope: &str, at: &At<'_>, errors: &mut Errors) {
    let hard = spec.field("hard");
    for (name, _) in hard.entries() {
        let fits = match scope {
            "BestEffort" => name == "pods",
            _ => OF_PODS.contains(&name) && SCOPES.contains(&scope),
        };
        if resources::is_standard_of_quota(name) && !fits {
            errors.invalid(at, "unsupported scope applied to resource");
        }
    }
}

fn conflicts(given: &BTreeSet<&str>, at: &At<'_>, shown: &Value, errors: &mut Errors) {
    for pair in CONFLICTS {
        if pair.iter().all(|scope| given.contains(scope)) {
            errors.invalid_part(at, shown, "conflicting scopes");
        }
    }
}

fn selector(spec: &At<'_>, errors: &mut Errors) {
    let selector = spec.field("scopeSelector");
    let all = selector.field("matchExpressions");
    let mut given = BTreeSet::new();
    for requirement in all.items() {
        // Kubernetes names the list, not its items.
        let [scope, operator, values] = ["scopeName", "operator", "values"]
            .map(|name| all.field(name).with(&requirement.value[name]));
        if !SCOPES.contains(&scope.text()) {
            errors.invalid(&scope, "unsupported scope");
        }
        applies(spec, scope.text(), &all.with(selector.value), errors);
        let known = SCOPES.contains(&scope.text()) && scope.text() != "PriorityClass";
        if known && operator.text() != "Exists" {
            errors.invalid(&operator, ONLY_EXISTS);
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => errors.required(
                &values,
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                &values,
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        given.extend(requirement.value["scopeName"].as_str());
    }
    conflicts(&given, &all, &spec.value["scopes"], errors);
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let scopes = spec.field("scopes");
    let now: BTreeSet<&str> = list_of_text(scopes.value).collect();
    let then: BTreeSet<&str> = list_of_text(&before.value["scopes"]).collect();
    if now != then {
        errors.invalid(&scopes, "field is immutable");
    }
}

fn list_of_text(list: &Value) -> impl Iterator<Item = &str> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str)
}

fn cells(quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let status = &quota["status"];
    for (resource, hard) in status["hard"].as_object().into_iter().flatten() {
        let used = status["used"][resource].as_str().unwrap_or("0");
        let hard = hard.as_str().unwrap_or("0");
        let list = match resource.starts_with("limits") {
            true => &mut limits,
            false => &mut requests,
        };
        list.push(format!("{resource}: {used}/{hard}"));
    }
    vec![
        name(quota),
        requests.join(", ").into(),
        limits.join(", ").into(),
        age(quota, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{change, columns, created, row, update, with, wrong};

    fn quota() -> Value {
        json!({
            "metadata": {"name": "team"},
            "spec": {"hard": {
                "requests.cpu": "4000m",
                "limits.memory": "8Gi",
                "pods": "20",
                "count/deployments.apps": "5",
                "requests.nvidia.com/gpu": "2",
            }},
        })
    }

    #[test]
    fn a_new_quota_has_counted_nothing() {
        let stored = created(&resource(), with(&quota(), "/status/used/pods", "3".into()));
        assert_eq!(stored["spec"]["hard"]["requests.cpu"], "4");
        assert_eq!(stored["status"], json!({}));
        assert_eq!(stored["metadata"].get("generation"), None);
    }

    #[test]
    fn quotas_are_refused_in_the_words_of_kubernetes() {
        let hard = |name: &str, amount: &str| json!({"hard": {name: amount}});
        let selected = |scope: &str, operator: &str, values: Value| {
            json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
                {"scopeName": scope, "operator": operator, "values": values}]}})
        };
        let cases = [
            (
                hard("chairs", "1"),
                r#"[spec.hard[chairs]: Invalid value: "chairs": must be a standard resource type or fully qualified, spec.hard[chairs]: Invalid value: "chairs": must be a standard resource for quota]"#,
            ),
            (
                hard("storage", "1"),
                r#"spec.hard[storage]: Invalid value: "storage": must be a standard resource for quota"#,
            ),
            (
                hard("pods", "-1"),
                r#"spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0"#,
            ),
            (
                hard("pods", "500m"),
                r#"spec.hard[pods]: Invalid value: "500m": must be an integer"#,
            ),
            (
                json!({"hard": {"pods": "1"}, "scopes": ["Large"]}),
                r#"[spec.scopes: Invalid value: ["Large"]: unsupported scope, spec.scopes: Invalid value: ["Large"]: unsupported scope applied to resource]"#,
            ),
            (
                json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
                r#"spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource"#,
            ),
            (
                json!({"scopes": ["BestEffort", "NotBestEffort"]}),
                r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes"#,
            ),
            (
                selected("PriorityClass", "In", json!([])),
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one \
                 value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            (
                selected("PriorityClass", "Exists", json!(["high"])),
                r#"spec.scopeSelector.matchExpressions.values: Invalid value: ["high"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"#,
            ),
        ];
        for (spec, why) in cases {
            assert_eq!(wrong(&resource(), with(&quota(), "/spec", spec)), why);
        }
        let terminating = selected("Terminating", "In", json!(["a"]));
        assert_eq!(
            wrong(&resource(), with(&quota(), "/spec", terminating)),
            format!(
                r#"spec.scopeSelector.matchExpressions.operator: Invalid value: "In": {ONLY_EXISTS}"#
            )
        );
        let high = selected("PriorityClass", "In", json!(["high"]));
        assert_eq!(wrong(&resource(), with(&quota(), "/spec", high)), "");
        let pages = hard("requests.hugepages-2Mi", "1Gi");
        assert_eq!(wrong(&resource(), with(&quota(), "/spec", pages)), "");
    }

    #[test]
    fn amounts_change_and_scopes_stay() {
        let old = created(&resource(), quota());
        let more = json!({"spec": {"hard": {"pods": "30"}}});
        assert_eq!(change(&resource(), &old, more), "");
        let scopes = json!({"spec": {"hard": null, "scopes": ["Terminating"]}});
        assert_eq!(
            change(&resource(), &old, scopes),
            r#"spec.scopes: Invalid value: ["Terminating"]: field is immutable"#
        );
        let negative = json!({"status": {"used": {"pods": "-1"}}});
        assert_eq!(
            update(&resource(), &old, negative, Some(Subresource::Status)),
            Err(
                r#"status.used[pods]: Invalid value: "-1": must be greater than or equal to 0"#
                    .into()
            )
        );
    }

    #[test]
    fn a_row_shows_what_is_used() {
        assert_eq!(columns(&resource()), ["Name", "Request", "Limit", "Age"]);
        let stored = created(&resource(), quota());
        assert_eq!(row(&resource(), &stored), json!(["team", "", "", "10m"]));
        let status = json!({
            "hard": {"pods": "20", "requests.cpu": "4", "limits.memory": "8Gi"},
            "used": {"pods": "3", "requests.cpu": "1500m", "limits.memory": "1Gi"},
        });
        assert_eq!(
            row(&resource(), &with(&stored, "/status", status)),
            json!([
                "team",
                "pods: 3/20, requests.cpu: 1500m/4",
                "limits.memory: 1Gi/8Gi",
                "10m"
            ])
        );
    }
}
