//! v1 LimitRange: how large the containers, pods and claims of a namespace may be, and are unless they
//! say it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::LimitRange;
use serde_json::{Map, Value};

use crate::columns::{CREATED_AT, NAME, Printer, created_at, name};
use crate::defaults::items;
use crate::quantity::Quantity;
use crate::resource::Resource;
use crate::validation::{At, Errors, names, resources};

const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

const LISTS: [&str; 5] = [
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];

/// Two lists with their words, the amounts of the first being at most those of the second, and
/// where an error is said and the list whose amount it shows.
const ORDER: [(&str, &str, &str, &str, [&str; 2]); 6] = [
    ("min", "min value", "max", "max value", ["min", "min"]),
    (
        "min",
        "min value",
        "defaultRequest",
        "default request value",
        ["defaultRequest", "defaultRequest"],
    ),
    (
        "defaultRequest",
        "default request value",
        "max",
        "max value",
        ["defaultRequest", "defaultRequest"],
    ),
    (
        "defaultRequest",
        "default request value",
        "default",
        "default limit value",
        ["defaultRequest", "defaultRequest"],
    ),
    (
        "min",
        "min value",
        "default",
        "default value",
        ["default", "min"],
    ),
    (
        "default",
        "default value",
        "max",
        "max value",
        ["default", "max"],
    ),
];

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["limits".into()],
        default,
        validate,
        printer: Printer {
            columns: &[NAME, CREATED_AT],
            cells: |object: &Value, _: Timestamp| vec![name(object), created_at(object)],
        },
        ..Resource::of::<LimitRange>("", "core", "limitrange", "limitranges")
    }
}

/// A container's limit is by default the largest, its request its limit, or else the smallest.
fn default(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        let of_containers = items(spec, "limits").filter(|limit| limit["type"] == "Container");
        of_containers.for_each(default_of_containers);
    }
}

fn default_of_containers(limit: &mut Value) {
    for (from, to) in [
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ] {
        let Some(amounts) = limit[from]
            .as_object()
            .filter(|map| !map.is_empty())
            .cloned()
        else {
            continue;
        };
        let mut filled: Map<String, Value> = limit[to].as_object().cloned().unwrap_or_default();
        for (name, amount) in amounts {
            filled.entry(name).or_insert(amount);
        }
        limit[to] = filled.into();
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let limits = spec.field("limits");
    let mut seen = BTreeSet::new();
    for limit in limits.items() {
        let kind = limit.field("type");
        type_name(&kind, errors);
        if !seen.insert(kind.text().to_owned()) {
            errors.duplicate(&kind);
        }
        lists(&limit, kind.text(), errors);
        amounts(&limit, kind.text(), errors);
    }
}

fn type_name(kind: &At<'_>, errors: &mut Errors) {
    if let Err(why) = names::label_key(kind.text()) {
        errors.invalid(kind, why);
    } else if !kind.text().contains('/') && !TYPES.contains(&kind.text()) {
        errors.invalid(kind, "must be a standard limit type or fully qualified");
    }
}

/// Which lists there may be for the type, and which names in them.
fn lists(limit: &At<'_>, kind: &str, errors: &mut Errors) {
    for list in LISTS {
        let list_at = limit.field(list);
        if kind == "Pod" && list.starts_with("default") {
            if !list_at.is_empty() {
                errors.forbidden(&list_at, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, amount) in list_at.entries() {
            match kind {
                "Container" | "Pod" => resources::of_container(&amount, name, errors),
                _ => resources::any(&amount, name, errors),
            }
        }
    }
    let storage = |list: &str| !limit.value[list]["storage"].is_null();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        errors.required(
            &limit.field("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
}

/// The amounts of one resource do not contradict each other.
fn amounts(limit: &At<'_>, kind: &str, errors: &mut Errors) {
    let lists: BTreeMap<&str, BTreeMap<&str, Quantity>> = LISTS
        .into_iter()
        .filter(|list| kind != "Pod" || !list.starts_with("default"))
        .map(|list| (list, parsed(&limit.value[list])))
        .collect();
    let amount = |list: &str, name: &str| lists.get(list)?.get(name).copied();
    let names: BTreeSet<&str> = lists
        .values()
        .flat_map(|list| list.keys().copied())
        .collect();
    for name in names {
        for (small, small_word, large, large_word, [at, shown]) in ORDER {
            if let (Some(less), Some(more)) = (amount(small, name), amount(large, name))
                && less > more
            {
                let list = limit.field(at);
                let detail = format!("{small_word} {less} is greater than {large_word} {more}");
                errors.invalid_part(&list.key(name), &limit.value[shown][name], &detail);
            }
        }
        if let Some(ratio) = amount("maxLimitRequestRatio", name) {
            let list = limit.field("maxLimitRequestRatio");
            let bounds = amount("min", name).zip(amount("max", name));
            ratio_of(&list.key(name), ratio, bounds, errors);
        }
        if let (Some(most), Some(asked)) = (amount("default", name), amount("defaultRequest", name))
            && most != asked
            && !resources::can_overcommit(name)
        {
            let list = limit.field("defaultRequest");
            let detail = format!(
                "default value {most} must equal to defaultRequest value {asked} in {name}"
            );
            errors.invalid(&list.key(name), detail);
        }
    }
}

fn parsed(list: &Value) -> BTreeMap<&str, Quantity> {
    let entries = list.as_object().into_iter().flatten();
    let amounts = entries.filter_map(|(name, amount)| {
        Some((name.as_str(), Quantity::parse(amount.as_str()?).ok()?))
    });
    amounts.collect()
}

/// How much larger than the request a limit may be.
fn ratio_of(
    at: &At<'_>,
    ratio: Quantity,
    bounds: Option<(Quantity, Quantity)>,
    errors: &mut Errors,
) {
    if ratio < Quantity::from_units(1) {
        errors.invalid(at, format!("ratio {ratio} is less than 1"));
    }
    let Some((min, max)) = bounds else {
        return;
    };
    let most = max.millis() as f64 / min.millis() as f64;
    if ratio.millis() as f64 / 1000.0 > most {
        let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
        errors.invalid(at, detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{change, columns, created, row, with, wrong};

    fn range() -> Value {
        json!({
            "metadata": {"name": "limits"},
            "spec": {"limits": [{
                "type": "Container",
                "max": {"cpu": "2", "memory": "1Gi"},
                "min": {"cpu": "100m"},
                "defaultRequest": {"cpu": "250m"},
            }]},
        })
    }

    #[test]
    fn the_largest_is_the_default_of_containers() {
        let stored = created(&resource(), range());
        let limit = &stored["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({"cpu": "2", "memory": "1Gi"}));
        assert_eq!(
            limit["defaultRequest"],
            json!({"cpu": "250m", "memory": "1Gi"})
        );
        let pods = with(
            &range(),
            "/spec/limits",
            json!([{"type": "Pod", "max": {"cpu": "4"}}]),
        );
        let pods = created(&resource(), pods);
        assert_eq!(
            pods["spec"]["limits"],
            json!([{"type": "Pod", "max": {"cpu": "4"}}])
        );
    }

    #[test]
    fn ranges_are_refused_in_the_words_of_kubernetes() {
        let at = "spec.limits[0]";
        let cases = [
            (
                json!({"type": "Node", "max": {"cpu": "1"}}),
                format!(
                    r#"{at}.type: Invalid value: "Node": must be a standard limit type or fully qualified"#
                ),
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "1"}}),
                format!("{at}.default: Forbidden: may not be specified when `type` is 'Pod'"),
            ),
            (
                json!({"type": "Container", "max": {"storage": "1"}}),
                format!(
                    r#"[{at}.max[storage]: Invalid value: "storage": must be a standard resource for containers, {at}.default[storage]: Invalid value: "storage": must be a standard resource for containers, {at}.defaultRequest[storage]: Invalid value: "storage": must be a standard resource for containers]"#
                ),
            ),
            (
                json!({"type": "PersistentVolumeClaim", "max": {"cpu": "1"}}),
                format!(
                    "{at}.limits: Required value: either minimum or maximum storage value is \
                     required, but neither was provided"
                ),
            ),
        ];
        all_refused(&cases);
        let pod = json!({"type": "Pod", "max": {"cpu": "1"}});
        let twice = with(&range(), "/spec/limits", json!([pod.clone(), pod]));
        assert_eq!(
            wrong(&resource(), twice),
            r#"spec.limits[1].type: Duplicate value: "Pod""#
        );
    }

    fn all_refused(cases: &[(Value, String)]) {
        for (limit, why) in cases {
            let object = with(&range(), "/spec/limits", json!([limit]));
            assert_eq!(wrong(&resource(), object), *why);
        }
    }

    #[test]
    fn amounts_that_contradict_each_other_are_refused() {
        let at = "spec.limits[0]";
        let cases = [
            (
                json!({"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
                format!(
                    r#"{at}.min[cpu]: Invalid value: "2": min value 2 is greater than max value 1"#
                ),
            ),
            (
                json!({"type": "Container", "default": {"cpu": "1"},
                    "defaultRequest": {"cpu": "2"}}),
                format!(
                    r#"{at}.defaultRequest[cpu]: Invalid value: "2": default request value 2 is greater than default limit value 1"#
                ),
            ),
            (
                json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "800m"}}),
                format!(
                    r#"{at}.maxLimitRequestRatio[cpu]: Invalid value: "800m": ratio 800m is less than 1"#
                ),
            ),
            (
                json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "4"}, "min": {"cpu": "1"},
                    "max": {"cpu": "2"}}),
                format!(
                    r#"{at}.maxLimitRequestRatio[cpu]: Invalid value: "4": ratio 4 is greater than max/min = 2.000000"#
                ),
            ),
            (
                json!({"type": "Container", "default": {"example.com/gpu": "2"},
                    "defaultRequest": {"example.com/gpu": "1"}}),
                format!(
                    r#"{at}.defaultRequest[example.com/gpu]: Invalid value: "1": default value 2 must equal to defaultRequest value 1 in example.com/gpu"#
                ),
            ),
        ];
        all_refused(&cases);
    }

    #[test]
    fn a_range_may_change() {
        let old = created(&resource(), range());
        let limits = json!([{"type": "Pod", "max": {"cpu": "1"}}]);
        assert_eq!(
            change(&resource(), &old, json!({"spec": {"limits": limits}})),
            ""
        );
    }

    #[test]
    fn a_row_says_when_the_range_was_made() {
        assert_eq!(columns(&resource()), ["Name", "Created At"]);
        let stored = created(&resource(), range());
        assert_eq!(
            row(&resource(), &stored),
            json!(["limits", "2026-01-02T03:04:05Z"])
        );
    }
}
