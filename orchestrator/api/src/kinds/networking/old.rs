//! networking.k8s.io/v1beta1 Ingress and IngressClass, extensions/v1beta1 Ingress and NetworkPolicy. A
//! backend named its Service in two fields (Kubernetes 1.20, `pkg/apis/networking/v1beta1`).

use serde_json::{Value, json};

use super::{ingress, ingress_class, ip_address, network_policy, service_cidr};
use crate::defaults::{items, set};
use crate::kinds::old::{Face, Version};
use crate::served::{Conversion, Served};

const NETWORKING: Version = Version {
    group: "networking.k8s.io",
    version: "v1beta1",
    package: "networking",
    life: Some(("1.19", "1.22")),
};

const EXTENSIONS: Version = Version {
    group: "extensions",
    package: "extensions",
    life: Some(("1.14", "1.22")),
    ..NETWORKING
};

pub fn views() -> Vec<Served> {
    let ingress = || Face {
        default,
        conversion: Conversion::Pure { up, down },
        ..Face::of(ingress::resource)
    };
    let policies = Version {
        life: Some(("1.9", "1.16")),
        ..EXTENSIONS
    };
    // Deprecated in Kubernetes 1.34.
    let addresses = Version {
        life: None,
        ..NETWORKING
    };
    vec![
        NETWORKING.serves(ingress()),
        NETWORKING.serves(Face::of(ingress_class::resource)),
        addresses.serves(Face::of(ip_address::resource)),
        addresses.serves(Face::of(service_cidr::resource)),
        EXTENSIONS.serves(ingress()),
        policies.serves(Face::of(network_policy::resource)),
    ]
}

fn default(object: &mut Value) {
    for path in paths(object) {
        set(path, "pathType", || "ImplementationSpecific".into());
    }
}

fn paths(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    let rules = object.get_mut("spec").into_iter();
    let rules = rules.flat_map(|spec| items(spec, "rules"));
    let rules = rules.filter_map(|rule| rule.get_mut("http"));
    rules.flat_map(|http| items(http, "paths"))
}

fn up(object: &mut Value) {
    rename(object, "backend", "defaultBackend");
    for backend in backends(object, "defaultBackend") {
        let name = take(backend, "serviceName").unwrap_or_default();
        let port = take(backend, "servicePort").unwrap_or_default();
        let port = match port {
            Value::String(name) => Some(json!({"name": name})),
            Value::Number(number) if number.as_i64() != Some(0) => Some(json!({"number": number})),
            _ => None,
        };
        let named = name.as_str().is_some_and(|name| !name.is_empty());
        if named || port.is_some() {
            let name = name.as_str().unwrap_or_default();
            backend["service"] = json!({"name": name, "port": port.unwrap_or(json!({}))});
        }
    }
}

fn down(object: &mut Value) {
    rename(object, "defaultBackend", "backend");
    for backend in backends(object, "backend") {
        let Some(mut service) = take(backend, "service") else {
            continue;
        };
        let port = &service["port"];
        let port = match port["name"].as_str().unwrap_or_default() {
            "" => port["number"].as_i64().unwrap_or_default().into(),
            name => name.into(),
        };
        backend["serviceName"] = service["name"].take();
        backend["servicePort"] = port;
    }
}

/// The backend for all that no rule is about, and those of the rules.
fn backends<'a>(object: &'a mut Value, fallback: &str) -> Vec<&'a mut Value> {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (field, value) in spec {
        match field.as_str() {
            "rules" => {
                let rules = value.as_array_mut().into_iter().flatten();
                let rules = rules.filter_map(|rule| rule.get_mut("http"));
                let paths = rules.flat_map(|http| items(http, "paths"));
                found.extend(paths.filter_map(|path| path.get_mut("backend")));
            }
            field if field == fallback => found.push(value),
            _ => {}
        }
    }
    found.retain(|backend| backend.is_object());
    found
}

fn rename(object: &mut Value, old: &str, new: &str) {
    if let Some(Value::Object(spec)) = object.get_mut("spec")
        && let Some(value) = spec.remove(old)
    {
        spec.insert(new.into(), value);
    }
}

fn take(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.remove(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::old::testing::{assert_same, stored, view};

    fn old(group: &str) -> &'static Served {
        view(group, "v1beta1", "ingresses")
    }

    fn rules(backend: Value) -> Value {
        json!([{"host": "shop.example", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": backend},
        ]}}])
    }

    #[test]
    fn a_backend_names_its_service_in_two_fields_or_in_one() {
        let by_name = json!({"serviceName": "web", "servicePort": "http"});
        let by_number = json!({"serviceName": "web", "servicePort": 80});
        let object = |field: &str, fallback: Value, rule: Value| json!({"metadata": {"name": "web"}, "spec": {field: fallback, "rules": rules(rule)}});
        let service = |port: Value| json!({"service": {"name": "web", "port": port}});
        for group in ["networking.k8s.io", "extensions"] {
            assert_same(
                old(group),
                object("backend", by_number.clone(), by_name.clone()),
                object(
                    "defaultBackend",
                    service(json!({"number": 80})),
                    service(json!({"name": "http"})),
                ),
            );
        }
    }

    #[test]
    fn a_backend_may_be_another_object() {
        let bucket =
            json!({"resource": {"apiGroup": "k8s.example", "kind": "Bucket", "name": "b"}});
        let object =
            |field: &str| json!({"metadata": {"name": "web"}, "spec": {field: bucket.clone()}});
        let view = old("networking.k8s.io");
        assert_same(view, object("backend"), object("defaultBackend"));
    }

    #[test]
    fn an_old_path_without_a_type_is_read_as_the_controller_likes() {
        let stored = stored(
            old("extensions"),
            json!({"metadata": {"name": "web"}, "spec": {"rules": [{"http": {"paths": [
                {"backend": {"serviceName": "web", "servicePort": 80}},
            ]}}]}}),
        );
        assert_eq!(
            stored.pointer("/spec/rules/0/http/paths/0/pathType"),
            Some(&json!("ImplementationSpecific"))
        );
        let mut whole = stored;
        whole["metadata"]["namespace"] = "default".into();
        assert_eq!(ingress::resource().validate(&whole, None, None), Ok(()));
    }
}
