//! What a pod asks for in all, by its spec.
//!
//! Containers run together, and so do restartable init containers once they have started; each other
//! init container runs beside the restartable ones before it (KEP-753). What the pod says for itself counts
//! instead of its containers' sum (KEP-2837).

use serde_json::Value;

use crate::amounts::{self, Amounts};
use crate::quantity::Quantity;

/// How names of huge pages begin; a size follows.
pub const HUGE_PAGES: &str = "hugepages-";

/// What the pod asks for, without the overhead of its runtime class.
pub fn requests(spec: &Value) -> Amounts {
    of_pod(spec, "requests")
}

/// What the pod may use at most. A container without a limit adds nothing.
pub fn limits(spec: &Value) -> Amounts {
    of_pod(spec, "limits")
}

fn of_pod(spec: &Value, list: &str) -> Amounts {
    let mut sum = of_containers(spec, list);
    sum.extend(amounts::read(&spec["resources"][list]));
    sum
}

/// What the pod takes besides its containers.
pub fn overhead(spec: &Value) -> Amounts {
    amounts::read(&spec["overhead"])
}

/// All containers, then all init containers.
pub fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["containers", "initContainers"].map(|list| spec[list].as_array());
    lists.into_iter().flatten().flatten()
}

/// What the containers have together in that list of their resources, whatever the pod says for itself.
pub fn of_containers(spec: &Value, list: &str) -> Amounts {
    let of = |container: &Value| amounts::read(&container["resources"][list]);
    let all = |list: &str| spec[list].as_array().into_iter().flatten();
    let mut sum = Amounts::new();
    all("containers").for_each(|container| amounts::add(&mut sum, &of(container)));
    let (mut running, mut peak) = (Amounts::new(), Amounts::new());
    for container in all("initContainers") {
        let own = of(container);
        if container["restartPolicy"] == "Always" {
            amounts::add(&mut sum, &own);
            amounts::add(&mut running, &own);
            amounts::raise(&mut peak, &running);
        } else {
            let mut together = running.clone();
            amounts::add(&mut together, &own);
            amounts::raise(&mut peak, &together);
        }
    }
    amounts::raise(&mut sum, &peak);
    sum
}

/// Guaranteed: every container limits cpu and memory and asks for just that. BestEffort: none asks
/// for or limits any. Burstable: the rest. Where the pod says something for itself, that alone counts.
pub fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    let whole = ["requests", "limits"].iter().any(|list| {
        let own = spec["resources"][list].as_object();
        own.is_some_and(|own| !own.is_empty())
    });
    let own = Some(spec).filter(|_| whole).into_iter();
    for asking in own.chain(containers(spec).filter(|_| !whole)) {
        for resource in ["cpu", "memory"] {
            let amount = |list: &str| {
                let text = asking["resources"][list][resource].as_str()?;
                Quantity::parse(text).ok().filter(|q| !q.is_zero())
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(cpu: &str) -> Value {
        json!({"resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_asks_for_the_most_that_runs_at_a_time() {
        let restartable = |cpu: &str| {
            let mut container = container(cpu);
            container["restartPolicy"] = "Always".into();
            container
        };
        let cases = [
            (
                json!({"containers": [container("1"), container("500m")]}),
                "1500m",
            ),
            (
                json!({"containers": [container("1")], "initContainers": [container("3"), container("2")]}),
                "3",
            ),
            (
                json!({"containers": [container("1")],
                    "initContainers": [restartable("1"), container("3"), restartable("1")]}),
                "4",
            ),
            (
                json!({"containers": [container("4")], "resources": {"requests": {"cpu": "2"}}}),
                "2",
            ),
        ];
        for (spec, cpu) in cases {
            assert_eq!(requests(&spec)["cpu"].to_string(), cpu, "{spec}");
        }
    }

    #[test]
    fn what_a_pod_says_for_itself_decides_about_its_class() {
        let all = json!({"cpu": "1", "memory": "1Gi"});
        let guaranteed = json!({"limits": all, "requests": all});
        let classes = [
            (guaranteed.clone(), json!({}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "1"}}),
                guaranteed.clone(),
                "Burstable",
            ),
            (json!({}), guaranteed, "Guaranteed"),
            (json!({}), json!({}), "BestEffort"),
        ];
        for (whole, of_container, class) in classes {
            let spec = json!({"resources": whole, "containers": [{"resources": of_container}]});
            assert_eq!(qos_class(&spec), class, "{spec}");
        }
    }

    #[test]
    fn a_container_without_a_limit_adds_none() {
        let limited = json!({"resources": {"limits": {"memory": "1Gi"}}});
        let spec = json!({"containers": [limited, {}]});
        assert_eq!(limits(&spec)["memory"].to_string(), "1Gi");
    }
}
