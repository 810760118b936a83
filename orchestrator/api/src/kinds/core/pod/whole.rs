//! Resources of a pod as a whole (KEP-2837): `spec.resources`.

use serde_json::{Value, json};

use super::container;
use crate::amounts;
use crate::pod_resources::{self, HUGE_PAGES};
use crate::quantity::Quantity;
use crate::validation::{At, Errors, resources};

/// What a pod may ask for as a whole; a name that ends with `-` stands for all that begin with it.
const OF_PODS: [&str; 3] = ["cpu", HUGE_PAGES, "memory"];

fn is_of_pods(name: &str) -> bool {
    name.starts_with(HUGE_PAGES) || OF_PODS.contains(&name)
}

/// Limits of huge pages that only the containers have, and requests that follow from the containers' own or from
/// the limits. Set after those of the containers, and for pods alone: a template stays as it was written.
pub fn defaults(spec: &mut Value) {
    if !spec["resources"].is_object() {
        return;
    }
    let aggregated = |spec: &Value, list| pod_resources::of_containers(spec, list);
    let says = |spec: &Value, list: &str, name: &str| !spec["resources"][list][name].is_null();
    for (name, amount) in aggregated(spec, "limits") {
        let is_said = ["limits", "requests"]
            .iter()
            .any(|list| says(spec, list, &name));
        if name.starts_with(HUGE_PAGES) && !is_said {
            spec["resources"]["limits"][&name] = amount.to_string().into();
        }
    }
    let limits = spec["resources"]["limits"].as_object().cloned();
    let Some(limits) = limits.filter(|limits| !limits.is_empty()) else {
        return;
    };
    let of_containers = aggregated(spec, "requests").into_iter();
    let of_containers = of_containers.filter(|(name, _)| resources::can_overcommit(name));
    let of_containers = of_containers.map(|(name, amount)| (name, json!(amount.to_string())));
    for (name, amount) in of_containers.chain(limits) {
        if is_of_pods(&name) && !says(spec, "requests", &name) {
            spec["resources"]["requests"][&name] = amount;
        }
    }
}

/// Checks `spec.resources` by itself and against what the containers ask for.
pub fn validate(spec: &At<'_>, errors: &mut Errors) {
    let whole = spec.field("resources");
    if whole.is_null() {
        return;
    }
    let claims = whole.field("claims");
    for _ in claims.items() {
        errors.forbidden(&claims, "claims may not be set for Resources at pod-level");
    }
    for list in ["limits", "requests"] {
        let list = whole.field(list);
        for (name, amount) in list.entries().filter(|(name, _)| !is_of_pods(name)) {
            errors.not_supported_part(&amount, &name.into(), &OF_PODS);
        }
    }
    container::resources(&whole, errors);
    sums(spec, &whole, errors);
    each(spec, &whole, errors);
}

/// What the containers ask for together is not more than what the pod does.
fn sums(spec: &At<'_>, whole: &At<'_>, errors: &mut Errors) {
    for (list, of) in [("requests", ""), ("limits", HUGE_PAGES)] {
        let own = whole.field(list);
        let sums = pod_resources::of_containers(spec.value, list);
        for (name, sum) in sums.iter().filter(|(name, _)| name.starts_with(of)) {
            let at = own.key(name);
            if Quantity::parse(at.text()).is_ok_and(|most| *sum > most) {
                errors.invalid(
                    &at,
                    format!("must be greater than or equal to aggregate container {list} of {sum}"),
                );
            }
        }
    }
}

/// No container may use more than the pod; Kubernetes writes the path below the pod's resources.
fn each(spec: &At<'_>, whole: &At<'_>, errors: &mut Errors) {
    let limits = amounts::read(&whole.value["limits"]);
    let containers = whole.field("containers");
    let containers = containers.holding(spec.field("containers").value);
    for container in containers.items() {
        let own = amounts::read(&container.value["resources"]["limits"]);
        for (name, amount) in own {
            let Some(most) = limits.get(&name).filter(|most| amount > **most) else {
                continue;
            };
            let key = container.key(&name);
            let detail = format!("must be less than or equal to pod limits of {most}");
            errors.invalid_value(&key.field("limits"), &amount.to_string(), detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(spec: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        let pod = json!({ "spec": spec });
        validate(&At::root(&pod).field("spec"), &mut errors);
        errors.messages()
    }

    fn with_containers(resources: Value, containers: &[Value]) -> Value {
        let containers = containers.iter().map(|own| json!({ "resources": own }));
        json!({"resources": resources, "containers": containers.collect::<Vec<_>>()})
    }

    #[test]
    fn requests_follow_from_the_containers_and_else_from_the_limits() {
        let limits = json!({"cpu": "2", "memory": "1Gi"});
        let container = json!({"requests": {"cpu": "300m", "example.com/x": "1"}});
        let mut spec =
            with_containers(json!({ "limits": limits }), &[container.clone(), container]);
        defaults(&mut spec);
        let requests = json!({"cpu": "600m", "memory": "1Gi"});
        assert_eq!(
            spec["resources"],
            json!({"limits": limits, "requests": requests})
        );
        let mut none = with_containers(json!({}), &[json!({"requests": {"cpu": "1"}})]);
        defaults(&mut none);
        assert_eq!(none["resources"], json!({}));
    }

    #[test]
    fn huge_pages_of_the_containers_become_the_pods() {
        let pages = json!({"hugepages-2Mi": "4Mi"});
        let container = json!({"limits": pages, "requests": pages});
        let whole = json!({"requests": {"cpu": "1"}});
        let mut spec = with_containers(whole, &[container.clone(), container]);
        defaults(&mut spec);
        let both = json!({"limits": {"hugepages-2Mi": "8Mi"},
            "requests": {"cpu": "1", "hugepages-2Mi": "8Mi"}});
        assert_eq!(spec["resources"], both);
        assert_eq!(errors(&spec), Vec::<String>::new());
    }

    #[test]
    fn a_pod_asks_for_no_less_than_its_containers_and_they_may_not_use_more() {
        let whole = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "1Gi"}});
        let container = json!({"requests": {"cpu": "600m"}, "limits": {"memory": "2Gi"}});
        let spec = with_containers(whole, &[container.clone(), container]);
        let found = errors(&spec);
        for text in [
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to \
             aggregate container requests of 1200m",
            "spec.resources.containers[1][memory].limits: Invalid value: \"2Gi\": must be less than \
             or equal to pod limits of 1Gi",
        ] {
            assert!(found.iter().any(|it| it == text), "{found:?}");
        }
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_pod_asks_for_nothing_else_and_for_no_claims() {
        let whole = json!({"claims": [{"name": "a"}], "requests": {"ephemeral-storage": "1Gi"},
            "limits": {"cpu": "1"}});
        let found = errors(&with_containers(whole, &[]));
        let text = "spec.resources.requests[ephemeral-storage]: Unsupported value: \
             \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"";
        assert!(found.iter().any(|it| it == text), "{found:?}");
        let text = "claims may not be set for Resources at pod-level";
        assert!(found.iter().any(|it| it.contains(text)), "{found:?}");
    }
}
