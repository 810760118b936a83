//! Which address families a Service gets: from what it asks for, what it had, and what the cluster
//! has (KEP-563). Pure.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::addresses::Family;
use api::{Cause, CauseKind};

const SINGLE: &str = "SingleStack";
const REQUIRE: &str = "RequireDualStack";

/// Writes `ipFamilyPolicy` and `ipFamilies` of a Service that is to have addresses. `cluster` has
/// the families that there are ranges for, the primary one first.
pub fn settle(new: &mut Value, old: Option<&Value>, cluster: &[Family]) -> Result<(), Vec<Cause>> {
    let old = old
        .map(|old| &old["spec"])
        .filter(|old| old["type"] != "ExternalName");
    let spec = &mut new["spec"];
    if old.is_some_and(|old| asks_for_the_same(spec, old)) {
        // A cluster that gains or loses a family changes no Service by itself.
        return Ok(());
    }
    let policy = policy(spec, old);
    spec["ipFamilyPolicy"] = policy.clone().into();
    check_counts(spec, old, &policy)?;
    let mut families = asked(spec, cluster)?;
    let anywhere = is_headless(spec) && has_no_selector(spec);
    if !anywhere {
        check_configured(spec, &families, &policy, cluster)?;
    }
    if families.is_empty() {
        families.extend(cluster.first());
    }
    if let [only] = families[..]
        && policy != SINGLE
        && (anywhere || cluster.contains(&only.other()))
    {
        families.push(only.other());
    }
    let names: Vec<&str> = families.iter().map(|family| family.name()).collect();
    spec["ipFamilies"] = json!(names);
    Ok(())
}

fn asks_for_the_same(spec: &Value, old: &Value) -> bool {
    let fields = ["ipFamilyPolicy", "ipFamilies", "clusterIPs"];
    !old["ipFamilies"].is_null() && fields.iter().all(|field| spec[*field] == old[*field])
}

/// The policy that is asked for or was there. A headless Service whose endpoints are its user's may
/// have both families anywhere.
fn policy(spec: &Value, old: Option<&Value>) -> String {
    let given = spec["ipFamilyPolicy"].as_str();
    let before = old.and_then(|old| old["ipFamilyPolicy"].as_str());
    let default = if is_headless(spec) && has_no_selector(spec) {
        REQUIRE
    } else {
        SINGLE
    };
    given.or(before).unwrap_or(default).to_owned()
}

/// The number of addresses and families fits the policy, and none goes without a word.
fn check_counts(spec: &Value, old: Option<&Value>, policy: &str) -> Result<(), Vec<Cause>> {
    let lists = [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")];
    let count = |spec: &Value, field: &str| spec[field].as_array().map_or(0, Vec::len);
    let was_dual = old.is_some_and(|old| {
        old["ipFamilyPolicy"]
            .as_str()
            .is_some_and(|policy| policy != SINGLE)
    });
    for (field, word) in lists {
        let now = count(spec, field);
        let why = if policy == SINGLE && now > 1 {
            format!(
                "must be RequireDualStack or PreferDualStack when multiple '{field}' are specified"
            )
        } else if policy != SINGLE
            && was_dual
            && now == 1
            && old.is_some_and(|old| count(old, field) == 2)
        {
            format!("must be 'SingleStack' to release the secondary {word}")
        } else {
            continue;
        };
        return Err(invalid("spec.ipFamilyPolicy", &json!(policy), &why));
    }
    Ok(())
}

/// The families that the Service names, and those of the addresses beyond them.
fn asked(spec: &Value, cluster: &[Family]) -> Result<Vec<Family>, Vec<Cause>> {
    let named = spec["ipFamilies"].as_array().into_iter().flatten();
    let mut families: Vec<Family> = named
        .filter_map(|name| Family::parse(name.as_str()?))
        .collect();
    let addresses = spec["clusterIPs"].as_array().into_iter().flatten();
    let addresses = addresses.map(|text| text.as_str()?.parse::<IpAddr>().ok());
    for (index, address) in addresses.enumerate().skip(families.len()) {
        let Some(family) = address.map(Family::of) else {
            break;
        };
        if !cluster.contains(&family) {
            let why = format!("{} is not configured on this cluster", family.name());
            let field = format!("spec.clusterIPs[{index}]");
            return Err(invalid(&field, &spec["clusterIPs"], &why));
        }
        families.push(family);
    }
    Ok(families)
}

fn check_configured(
    spec: &Value,
    families: &[Family],
    policy: &str,
    cluster: &[Family],
) -> Result<(), Vec<Cause>> {
    if policy == REQUIRE && cluster.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        return Err(invalid("spec.ipFamilyPolicy", &json!(policy), why));
    }
    let missing = families.iter().position(|family| !cluster.contains(family));
    if let Some(index) = missing {
        let field = format!("spec.ipFamilies[{index}]");
        let why = "not configured on this cluster";
        return Err(invalid(&field, &spec["ipFamilies"][index], why));
    }
    Ok(())
}

fn is_headless(spec: &Value) -> bool {
    spec["clusterIP"] == "None"
}

fn has_no_selector(spec: &Value) -> bool {
    spec["selector"]
        .as_object()
        .is_none_or(|map| map.is_empty())
}

fn invalid(field: &str, value: &Value, why: &str) -> Vec<Cause> {
    vec![Cause {
        field: field.to_owned(),
        kind: CauseKind::Invalid,
        message: format!("Invalid value: {value}: {why}"),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &[Family] = &[Family::V4];
    const BOTH: &[Family] = &[Family::V4, Family::V6];
    const BOTH_V6_FIRST: &[Family] = &[Family::V6, Family::V4];

    /// Policy and families, or the first complaint.
    fn settled(spec: Value, old: Option<Value>, cluster: &[Family]) -> String {
        let mut new = json!({"spec": spec});
        let old = old.map(|spec| json!({"spec": spec}));
        match settle(&mut new, old.as_ref(), cluster) {
            Ok(()) => format!(
                "{} {}",
                new["spec"]["ipFamilyPolicy"].as_str().unwrap_or_default(),
                new["spec"]["ipFamilies"]
            ),
            Err(causes) => format!("{}: {}", causes[0].field, causes[0].message),
        }
    }

    #[test]
    fn families_follow_from_what_is_asked_for_and_what_there_is() {
        let selector = json!({"a": "b"});
        let (headless, v6) = (json!("None"), json!(["fd00::5"]));
        let prefer = "PreferDualStack";
        let cases = [
            (json!({}), V4, r#"SingleStack ["IPv4"]"#),
            (json!({}), BOTH_V6_FIRST, r#"SingleStack ["IPv6"]"#),
            (
                json!({"ipFamilies": ["IPv6"]}),
                BOTH,
                r#"SingleStack ["IPv6"]"#,
            ),
            (
                json!({"ipFamilyPolicy": prefer}),
                V4,
                r#"PreferDualStack ["IPv4"]"#,
            ),
            (
                json!({"ipFamilyPolicy": prefer}),
                BOTH,
                r#"PreferDualStack ["IPv4","IPv6"]"#,
            ),
            (
                json!({"ipFamilyPolicy": prefer, "ipFamilies": ["IPv6"]}),
                BOTH,
                r#"PreferDualStack ["IPv6","IPv4"]"#,
            ),
            (
                json!({"ipFamilyPolicy": REQUIRE}),
                BOTH,
                r#"RequireDualStack ["IPv4","IPv6"]"#,
            ),
            (json!({"clusterIPs": v6}), BOTH, r#"SingleStack ["IPv6"]"#),
            (
                json!({"clusterIP": headless, "clusterIPs": [headless]}),
                V4,
                r#"RequireDualStack ["IPv4","IPv6"]"#,
            ),
            (
                json!({"clusterIP": headless, "selector": selector}),
                BOTH,
                r#"SingleStack ["IPv4"]"#,
            ),
        ];
        for (spec, cluster, expected) in cases {
            assert_eq!(settled(spec.clone(), None, cluster), expected, "{spec}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_its_field() {
        let cases = [
            (
                json!({"ipFamilyPolicy": REQUIRE}),
                r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#,
            ),
            (
                json!({"clusterIPs": ["fd00::5"]}),
                r#"spec.clusterIPs[0]: Invalid value: ["fd00::5"]: IPv6 is not configured on this cluster"#,
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv6"]}),
                r#"spec.ipFamilyPolicy: Invalid value: "SingleStack": must be RequireDualStack or PreferDualStack when multiple 'ipFamilies' are specified"#,
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(settled(spec, None, V4), expected);
        }
    }

    #[test]
    fn an_update_changes_families_only_when_it_says_so() {
        let single = json!({"ipFamilyPolicy": SINGLE, "ipFamilies": ["IPv4"],
            "clusterIPs": ["10.96.0.5"]});
        let dual = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIPs": ["10.96.0.5", "fd00::5"]});
        let mut upgrade = single.clone();
        upgrade["ipFamilyPolicy"] = REQUIRE.into();
        assert_eq!(
            settled(upgrade, Some(single), BOTH),
            r#"RequireDualStack ["IPv4","IPv6"]"#
        );
        // Preferred on a cluster that has become dual-stack since.
        let waiting = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"],
            "clusterIPs": ["10.96.0.5"]});
        assert_eq!(
            settled(waiting.clone(), Some(waiting), BOTH),
            r#"PreferDualStack ["IPv4"]"#
        );
        let mut shrunk = dual.clone();
        shrunk["clusterIPs"] = json!(["10.96.0.5"]);
        assert!(
            settled(shrunk, Some(dual.clone()), BOTH)
                .ends_with("must be 'SingleStack' to release the secondary cluster IP")
        );
        let mut downgrade = dual.clone();
        downgrade["ipFamilyPolicy"] = SINGLE.into();
        downgrade["ipFamilies"] = json!(["IPv4"]);
        downgrade["clusterIPs"] = json!(["10.96.0.5"]);
        assert_eq!(
            settled(downgrade, Some(dual), BOTH),
            r#"SingleStack ["IPv4"]"#
        );
    }
}
