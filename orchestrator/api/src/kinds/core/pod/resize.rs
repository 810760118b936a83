//! In-place resize (KEP-1287): CPU and memory of containers and sidecars, changed through `pods/resize`.

use serde_json::Value;

use super::{container, whole};
use crate::pod_resources::qos_class;
use crate::prepare::keep;
use crate::quantity::Quantity;
use crate::validation::changes::differences;
use crate::validation::{At, Errors};

/// What may be resized.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Takes of a write of `pods/resize` what it may change, and the rest of `old`.
pub fn prepare(new: &mut Value, old: &Value) {
    let wanted = std::mem::replace(new, old.clone());
    for list in ["containers", "initContainers"] {
        let named = |name: &Value| {
            let mut all = wanted["spec"][list].as_array().into_iter().flatten();
            all.find(|container| container["name"] == *name)
        };
        let own = new["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in own.into_iter().flatten() {
            let Some(wanted) = named(&container["name"]) else {
                continue;
            };
            for field in ["resources", "resizePolicy"] {
                match wanted.get(field) {
                    Some(value) => container[field] = value.clone(),
                    None => drop(container.as_object_mut().map(|it| it.remove(field))),
                }
            }
        }
    }
    for field in ["resourceVersion", "managedFields"] {
        keep(new, &wanted, "/metadata", field);
    }
}

/// Checks such a write. A limit or a request may change and be added, but not go.
pub fn update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let metadata = new.field("metadata");
    let mirror = metadata.field("annotations");
    if !mirror.field("kubernetes.io/config.mirror").is_null() {
        errors.forbidden(&At::root(&Value::Null), "static pods cannot be resized");
        return;
    }
    let (spec, before) = (new.field("spec"), old.field("spec"));
    if qos_class(spec.value) != qos_class(before.value) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid_value(&spec, qos_class(spec.value), detail);
    }
    whole::validate(&spec, errors);
    let mut rest = spec.value.clone();
    for list in ["containers", "initContainers"] {
        let (now, before) = (spec.field(list), before.field(list));
        for (index, (now, before)) in now.items().zip(before.items()).enumerate() {
            let stays = list == "containers" || now.field("restartPolicy").text() == "Always";
            if !stays {
                continue;
            }
            let own = now.field("resources");
            container::resources(&own, errors);
            resources(&own, &before.field("resources"), errors);
            put_back(&mut rest[list][index], before.value);
        }
    }
    if rest != *before.value {
        let changed = differences(&rest, before.value, "spec");
        let detail = format!(
            "only cpu and memory resources are mutable\n{}",
            changed.join(", ")
        );
        errors.forbidden(&spec, &detail);
    }
}

fn resources(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    for (list, word) in [("limits", "limits"), ("requests", "requests")] {
        let (now, before) = (new.field(list), old.field(list));
        let lost = RESOURCES.iter().any(|name| {
            let (now, before) = (now.field(name), before.field(name));
            now.is_null() && !before.is_null()
        });
        if lost {
            errors.forbidden(&now, &format!("resource {word} cannot be removed"));
        }
    }
}

/// Puts the old amounts of CPU and memory in place of the new ones, so that only other changes are left.
fn put_back(container: &mut Value, old: &Value) {
    for list in ["limits", "requests"] {
        for name in RESOURCES {
            let before = &old["resources"][list][name];
            let now = &container["resources"][list][name];
            let readable =
                now.is_null() || now.as_str().is_some_and(|it| Quantity::parse(it).is_ok());
            if *now == *before || !readable {
                continue;
            }
            if !before.is_null() {
                container["resources"][list][name] = before.clone();
            } else if let Some(amounts) = container["resources"][list].as_object_mut() {
                amounts.remove(name);
            }
        }
        let none_before = old["resources"][list].is_null();
        let is_empty = |it: &Value| it.as_object().is_some_and(|it| it.is_empty());
        if none_before && is_empty(&container["resources"][list]) {
            container["resources"]
                .as_object_mut()
                .map(|it| it.remove(list));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "resourceVersion": "1"}, "spec": {
            "nodeName": "n", "containers": [
                {"name": "a", "image": "i", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "b", "image": "i", "resources": {}},
            ],
            "initContainers": [
                {"name": "init", "image": "i", "resources": {"requests": {"cpu": "1"}}},
                {"name": "side", "image": "i", "restartPolicy": "Always",
                    "resources": {"requests": {"cpu": "1"}}},
            ],
        }})
    }

    fn errors(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let (old, mut new) = (pod(), pod());
        change(&mut new);
        prepare(&mut new, &old);
        let mut errors = Errors::default();
        update(&At::root(&new), &At::root(&old), &mut errors);
        errors.messages()
    }

    #[test]
    fn amounts_of_cpu_and_memory_change_and_are_added_but_do_not_go() {
        let set = |path: &'static str, value: Value| {
            errors(move |pod| *pod.pointer_mut(path).expect("it is there") = value)
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(
            set("/spec/containers/0/resources/requests/cpu", "2".into()),
            none
        );
        let added = json!({"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}});
        assert_eq!(set("/spec/containers/0/resources", added), none);
        assert_eq!(
            set("/spec/initContainers/1/resources/requests/cpu", "2".into()),
            none
        );
        let removed = set(
            "/spec/containers/0/resources",
            json!({"requests": {"memory": "1Gi"}}),
        );
        let text =
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed";
        assert_eq!(removed, [text]);
    }

    #[test]
    fn what_a_resize_makes_is_judged_like_a_new_pod() {
        let above = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}});
        let above = errors(|pod| pod["spec"]["containers"][0]["resources"] = above);
        let text = "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or \
                    equal to cpu limit of 1";
        assert_eq!(above, [text]);
        let (mut old, whole) = (pod(), json!({"requests": {"cpu": "2"}}));
        old["spec"]["resources"] = whole;
        let mut new = old.clone();
        new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "3".into();
        let mut errors = Errors::default();
        update(&At::root(&new), &At::root(&old), &mut errors);
        let found = errors.messages();
        let text = "must be greater than or equal to aggregate container requests of 4";
        assert!(found.len() == 1 && found[0].contains(text), "{found:?}");
    }

    #[test]
    fn nothing_else_changes_and_the_class_stays() {
        let (old, mut new) = (pod(), pod());
        new["spec"]["containers"][0]["image"] = "other".into();
        new["spec"]["nodeName"] = "other".into();
        new["metadata"]["labels"] = json!({"a": "b"});
        prepare(&mut new, &old);
        assert_eq!(new, old);
        let mutable = |found: Vec<String>| {
            found
                .iter()
                .any(|it| it.contains("only cpu and memory resources are mutable"))
        };
        let disk = json!({"requests": {"cpu": "100m", "ephemeral-storage": "1Gi"}});
        let disk = errors(|pod| pod["spec"]["containers"][0]["resources"] = disk);
        assert!(mutable(disk));
        let init = json!({"requests": {"cpu": "2"}});
        let init = errors(|pod| pod["spec"]["initContainers"][0]["resources"] = init);
        assert!(mutable(init));
        let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        let policy = errors(|pod| pod["spec"]["containers"][0]["resizePolicy"] = policy);
        assert!(mutable(policy));
        let (mut old, all) = (pod(), json!({"cpu": "1", "memory": "1Gi"}));
        old["spec"]["initContainers"] = json!([]);
        old["spec"]["containers"] = json!([{"name": "a",
            "resources": {"requests": {"cpu": "1"}, "limits": all}}]);
        let mut new = old.clone();
        new["spec"]["containers"][0]["resources"]["requests"] = all;
        let mut errors = Errors::default();
        update(&At::root(&new), &At::root(&old), &mut errors);
        let same = errors.messages();
        assert_eq!(
            same,
            Vec::<String>::new(),
            "an amount without a request asks for its limit"
        );
    }
}
