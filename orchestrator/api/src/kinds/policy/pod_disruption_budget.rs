//! policy/v1 PodDisruptionBudget: how many pods may be evicted at once.

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, Printer, age, name, number};
use crate::resource::{Generation, Resource, Subresource};
use crate::validation::int_or_percent::{at_most_all, number_or_percent};
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors};

const EVICTION_POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

const COUNTS: [&str; 4] = [
    "disruptionsAllowed",
    "currentHealthy",
    "desiredHealthy",
    "expectedPods",
];

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["pdb".into()],
        subresources: vec![Subresource::Status],
        generation: Generation::Spec,
        has_status: true,
        create,
        validate,
        validate_status: |budget, errors| {
            let status = budget.field("status");
            for count in COUNTS {
                errors.not_negative(&status.field(count));
            }
        },
        printer: COLUMNS,
        ..Resource::of::<PodDisruptionBudget>(
            "policy",
            "policy",
            "poddisruptionbudget",
            "poddisruptionbudgets",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Min Available", "How many pods stay"),
        Column::text("Max Unavailable", "How many pods may be missing"),
        Column::integer("Allowed Disruptions", "How many pods may go now"),
        AGE,
    ],
    cells,
};

fn create(budget: &mut Value) {
    budget["status"] = json!({
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "disruptionsAllowed": 0,
        "expectedPods": 0,
    });
}

fn validate(budget: &At<'_>, errors: &mut Errors) {
    let spec = budget.field("spec");
    let (least, most) = (spec.field("minAvailable"), spec.field("maxUnavailable"));
    if !least.is_null() && !most.is_null() {
        errors.invalid(&spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for amount in [&least, &most] {
        if !amount.is_null() {
            number_or_percent(amount, errors);
            at_most_all(amount, errors);
        }
    }
    label_selector(&spec.field("selector"), errors);
    let policy = spec.field("unhealthyPodEvictionPolicy");
    if !policy.is_null() && !EVICTION_POLICIES.contains(&policy.text()) {
        errors.not_supported(&policy, &EVICTION_POLICIES);
    }
}

fn cells(budget: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |field: &str| match &budget["spec"][field] {
        Value::Null => "N/A".into(),
        Value::String(percent) => percent.clone(),
        other => other.to_string(),
    };
    vec![
        name(budget),
        amount("minAvailable").into(),
        amount("maxUnavailable").into(),
        number(budget, "/status/disruptionsAllowed").into(),
        age(budget, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{change, columns, created, row, update, with, wrong};

    fn budget() -> Value {
        json!({
            "metadata": {"name": "db"},
            "spec": {"minAvailable": "51%", "selector": {"matchLabels": {"app": "db"}}},
        })
    }

    #[test]
    fn a_new_budget_allows_nothing() {
        let stored = created(
            &resource(),
            with(
                &budget(),
                "/status",
                json!({
                    "disruptionsAllowed": 5, "currentHealthy": 5, "desiredHealthy": 0, "expectedPods": 5,
                }),
            ),
        );
        assert_eq!(stored["spec"], budget()["spec"]);
        assert_eq!(stored["status"]["disruptionsAllowed"], 0);
        assert_eq!(stored["metadata"]["generation"], 1);
    }

    #[test]
    fn budgets_are_refused_in_the_words_of_kubernetes() {
        let cases = [
            (
                "/spec",
                json!({"minAvailable": 1, "maxUnavailable": 1}),
                r#"spec: Invalid value: {"maxUnavailable":1,"minAvailable":1}: minAvailable and maxUnavailable cannot be both set"#,
            ),
            (
                "/spec/minAvailable",
                json!(-1),
                "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/minAvailable",
                json!("half"),
                r#"spec.minAvailable: Invalid value: "half": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"#,
            ),
            (
                "/spec/minAvailable",
                json!("110%"),
                r#"spec.minAvailable: Invalid value: "110%": must not be greater than 100%"#,
            ),
            (
                "/spec/unhealthyPodEvictionPolicy",
                json!("Never"),
                r#"spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget""#,
            ),
            (
                "/spec/selector/matchExpressions",
                json!([{"key": "a", "operator": "Near"}]),
                r#"spec.selector.matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator"#,
            ),
        ];
        for (at, value, why) in cases {
            assert_eq!(wrong(&resource(), with(&budget(), at, value)), why);
        }
    }

    #[test]
    fn a_budget_may_change_and_its_status_through_its_subresource() {
        let old = created(&resource(), budget());
        let spec = json!({"spec": {"minAvailable": null, "maxUnavailable": 1,
            "selector": {"matchLabels": {"app": "other"}}}});
        let new = update(&resource(), &old, spec, None).unwrap();
        assert_eq!(new["metadata"]["generation"], 2);
        let status = json!({"status": {"disruptionsAllowed": 2}});
        assert_eq!(change(&resource(), &old, status.clone()), "");
        let new = update(&resource(), &old, status, Some(Subresource::Status)).unwrap();
        assert_eq!(new["status"]["disruptionsAllowed"], 2);
        let negative = json!({"status": {"expectedPods": -1}});
        assert_eq!(
            update(&resource(), &old, negative, Some(Subresource::Status)),
            Err(
                "status.expectedPods: Invalid value: -1: must be greater than or equal to 0".into()
            )
        );
    }

    #[test]
    fn a_row_shows_what_may_go() {
        assert_eq!(
            columns(&resource()),
            [
                "Name",
                "Min Available",
                "Max Unavailable",
                "Allowed Disruptions",
                "Age"
            ]
        );
        let stored = created(&resource(), budget());
        assert_eq!(
            row(&resource(), &stored),
            json!(["db", "51%", "N/A", 0, "10m"])
        );
    }
}
