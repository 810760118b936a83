//! networking.k8s.io/v1 Ingress.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

use super::ingress_class::typed_reference;
use crate::columns::{AGE, Column, NAME, Printer, age, list, name, text, text_or_none};
use crate::resource::{Behaviour, Generation, Resource, Subresource};
use crate::validation::addresses::ip;
use crate::validation::{At, Errors, names};

/// The older way to name the class.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Ingress,
        short_names: vec!["ing".into()],
        subresources: vec![Subresource::Status],
        generation: Generation::Spec,
        has_status: true,
        create: |object| object["status"] = json!({"loadBalancer": {}}),
        validate,
        validate_create,
        validate_status,
        printer: COLUMNS,
        ..Resource::of::<Ingress>("networking.k8s.io", "networking", "ingress", "ingresses")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Class", "The name of the class, which says whose it is"),
        Column::text("Hosts", "The hosts that the rules are for"),
        Column::text("Address", "Where it is reached"),
        Column::text("Ports", "The ports at which it is reached"),
        AGE,
    ],
    cells,
};

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let (fallback, rules) = (spec.field("defaultBackend"), spec.field("rules"));
    if rules.is_empty() && fallback.is_null() {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.invalid_part(&spec, rules.value, why);
    }
    if !fallback.is_null() {
        backend(&fallback, errors);
    }
    for rule in rules.items() {
        host_of_a_rule(&rule.field("host"), errors);
        let http = rule.field("http");
        if !http.is_null() {
            paths(&http.field("paths"), errors);
        }
    }
    let tls = spec.field("tls");
    for entry in tls.items() {
        let hosts = entry.field("hosts");
        hosts.items().for_each(|at| host(&at, errors));
        let secret = entry.field("secretName");
        if !secret.is_empty() {
            errors.check(&secret, names::subdomain(secret.text()));
        }
    }
    let class = spec.field("ingressClassName");
    if !class.is_null() {
        errors.check(&class, names::subdomain(class.text()));
    }
}

fn validate_create(object: &At<'_>, errors: &mut Errors) {
    let (metadata, spec) = (object.field("metadata"), object.field("spec"));
    let annotations = metadata.field("annotations");
    let (old, new) = (
        annotations.field(CLASS_ANNOTATION),
        spec.field("ingressClassName"),
    );
    if !old.is_null() && !new.is_null() && old.value != new.value {
        // The path is Kubernetes', which leaves `metadata` out.
        let annotations = object.field("annotations");
        let at = annotations.field(CLASS_ANNOTATION);
        let why = "must match `ingressClassName` when both are specified";
        errors.invalid_part(&at, old.value, why);
    }
}

fn validate_status(object: &At<'_>, errors: &mut Errors) {
    let status = object.field("status");
    let balancer = status.field("loadBalancer");
    let all = balancer.field("ingress");
    for ingress in all.items() {
        let (address, name) = (ingress.field("ip"), ingress.field("hostname"));
        if !address.is_empty() {
            ip(&address, errors);
        }
        if !name.is_empty() {
            errors.check(&name, names::subdomain(name.text()));
            not_an_address(&name, errors);
        }
    }
}

fn host_of_a_rule(at: &At<'_>, errors: &mut Errors) {
    if !at.is_empty() {
        not_an_address(at, errors);
        host(at, errors);
    }
}

fn host(at: &At<'_>, errors: &mut Errors) {
    let outcome = match at.text().contains('*') {
        true => names::wildcard_subdomain(at.text()),
        false => names::subdomain(at.text()),
    };
    errors.check(at, outcome);
}

fn not_an_address(name: &At<'_>, errors: &mut Errors) {
    if name.text().parse::<IpAddr>().is_ok() {
        errors.invalid(name, "must be a DNS name, not an IP address");
    }
}

fn paths(paths: &At<'_>, errors: &mut Errors) {
    if paths.is_empty() {
        errors.required(paths, "");
    }
    for item in paths.items() {
        let (path, kind) = (item.field("path"), item.field("pathType"));
        match kind.text() {
            // Kubernetes says no more of such a path.
            "" => {
                errors.required(&kind, "pathType must be specified");
                continue;
            }
            "Exact" | "Prefix" => exact_path(&path, errors),
            "ImplementationSpecific" => {
                if !path.is_empty() && !path.text().starts_with('/') {
                    errors.invalid(&path, "must be an absolute path");
                }
            }
            _ => errors.not_supported(&kind, &PATH_TYPES),
        }
        backend(&item.field("backend"), errors);
    }
}

fn exact_path(path: &At<'_>, errors: &mut Errors) {
    let text = path.text();
    if !text.starts_with('/') {
        errors.invalid_value(path, text, "must be an absolute path");
    }
    for part in ["//", "/./", "/../", "%2f", "%2F"] {
        if text.contains(part) {
            errors.invalid(path, format!("must not contain '{part}'"));
        }
    }
    for end in ["/..", "/."] {
        if text.ends_with(end) {
            errors.invalid(path, format!("cannot end with '{end}'"));
        }
    }
}

fn backend(backend: &At<'_>, errors: &mut Errors) {
    let (resource, service) = (backend.field("resource"), backend.field("service"));
    match (resource.is_null(), service.is_null()) {
        (false, false) => {
            errors.invalid_value(backend, "", "cannot set both resource and service backends");
        }
        (false, true) => typed_reference(&resource, errors),
        (true, false) => service_backend(backend, &service, errors),
        (true, true) => {
            errors.invalid_value(backend, "", "resource or service backend is required");
        }
    }
}

fn service_backend(backend: &At<'_>, service: &At<'_>, errors: &mut Errors) {
    let name = service.field("name");
    if name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.check(&name, names::label_1035(name.text()));
    }
    let port = service.field("port");
    let (name, number) = (port.field("name"), port.field("number"));
    match (!name.is_empty(), number.number() != 0) {
        (true, true) => {
            errors.invalid_value(backend, "", "cannot set both port name & port number");
        }
        (true, false) => errors.check(&name, names::port_name(name.text())),
        (false, true) => errors.in_range(&number, 1, 65535),
        (false, false) => errors.required(backend, "port name or number is required"),
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports = match list(object, "/spec/tls").is_empty() {
        true => "80",
        false => "80, 443",
    };
    vec![
        name(object),
        text_or_none(object, "/spec/ingressClassName").into(),
        hosts(list(object, "/spec/rules")).into(),
        addresses(list(object, "/status/loadBalancer/ingress")).into(),
        ports.into(),
        age(object, now),
    ]
}

/// The first three hosts; `*` stands for any.
fn hosts(rules: &[Value]) -> String {
    const SHOWN: usize = 3;
    let named = rules.iter().enumerate();
    let named = named.filter(|(_, rule)| !text(rule, "/host").is_empty());
    let shown: Vec<(usize, &str)> = named
        .map(|(at, rule)| (at, text(rule, "/host")))
        .take(SHOWN)
        .collect();
    let hosts: Vec<&str> = shown.iter().map(|(_, host)| *host).collect();
    match shown.last() {
        None => "*".into(),
        Some((last, _)) if shown.len() == SHOWN && last + 1 < rules.len() => {
            format!("{} + {} more...", hosts.join(","), rules.len() - SHOWN)
        }
        Some(_) => hosts.join(","),
    }
}

fn addresses(ingress: &[Value]) -> String {
    let address = |item| match text(item, "/ip") {
        "" => text(item, "/hostname"),
        address => address,
    };
    let all: BTreeSet<&str> = ingress.iter().map(address).collect();
    let all: Vec<&str> = all.into_iter().filter(|text| !text.is_empty()).collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, refused, row, with};

    fn ingress() -> Value {
        json!({
            "metadata": {"name": "web"},
            "spec": {
                "ingressClassName": "nginx",
                "rules": [{"host": "shop.example", "http": {"paths": [{
                    "path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": "web", "port": {"number": 80}}},
                }]}}],
                "tls": [{"hosts": ["shop.example"], "secretName": "shop-tls"}],
            },
        })
    }

    #[test]
    fn an_ingress_begins_without_an_address() {
        let mine = with(
            &ingress(),
            "/status",
            json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}),
        );
        let stored = created(&resource(), mine);
        assert_eq!(stored["status"], json!({"loadBalancer": {}}));
        assert_eq!(stored["spec"], ingress()["spec"]);
        assert_eq!(stored["metadata"]["generation"], 1);
    }

    #[test]
    fn an_ingress_that_no_proxy_could_serve_is_refused() {
        let path = "/spec/rules/0/http/paths/0";
        let backend = format!("{path}/backend");
        let (at, kind) = (format!("{path}/path"), format!("{path}/pathType"));
        let name = format!("{backend}/service/name");
        let port = format!("{backend}/service/port");
        let first = "spec.rules[0].http.paths[0]";
        let cases = [
            (&*kind, Value::Null, format!("{first}.pathType: Required value: pathType must be specified")),
            (&*kind, json!("Regex"), format!(r#"{first}.pathType: Unsupported value: "Regex": supported values: "Exact", "ImplementationSpecific", "Prefix""#)),
            (&*at, json!("shop"), format!(r#"{first}.path: Invalid value: "shop": must be an absolute path"#)),
            (&*at, Value::Null, format!(r#"{first}.path: Invalid value: "": must be an absolute path"#)),
            (&*at, json!("/a//b"), format!(r#"{first}.path: Invalid value: "/a//b": must not contain '//'"#)),
            (&*at, json!("/a/.."), format!(r#"{first}.path: Invalid value: "/a/..": cannot end with '/..'"#)),
            (&*backend, json!({}), format!(r#"{first}.backend: Invalid value: "": resource or service backend is required"#)),
            (&*name, json!(""), format!("{first}.backend.service.name: Required value")),
            (&*port, json!({}), format!("{first}.backend: Required value: port name or number is required")),
            (&*port, json!({"number": 1, "name": "a"}), format!(r#"{first}.backend: Invalid value: "": cannot set both port name & port number"#)),
            (&*port, json!({"number": 70000}), format!("{first}.backend.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive")),
            ("/spec/rules/0/http", json!({"paths": []}), "spec.rules[0].http.paths: Required value".into()),
            ("/spec/rules/0/host", json!("10.0.0.1"), r#"spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address"#.into()),
            ("/spec/rules", Value::Null, "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified".into()),
        ];
        let cases: Vec<_> = cases
            .iter()
            .map(|(at, part, why)| (*at, part.clone(), why.as_str()))
            .collect();
        assert_wrong(&resource(), &ingress(), &cases);
        let host = |host: &str| with(&ingress(), "/spec/rules/0/host", json!(host));
        for (text, right) in [
            ("*.shop.example", true),
            ("*", false),
            ("a.*", false),
            ("A", false),
        ] {
            let said = crate::kinds::testing::wrong(&resource(), host(text));
            assert_eq!(said.is_empty(), right, "{text}: {said}");
        }
    }

    #[test]
    fn the_annotation_and_the_class_agree_on_create_only() {
        let both = with(
            &ingress(),
            "/metadata/annotations",
            json!({CLASS_ANNOTATION: "haproxy"}),
        );
        let why = r#"annotations.kubernetes.io/ingress.class: Invalid value: "haproxy": must match `ingressClassName` when both are specified"#;
        assert_wrong(
            &resource(),
            &ingress(),
            &[("/metadata", both["metadata"].clone(), why)],
        );
        let old = created(&resource(), ingress());
        assert_refused(
            &resource(),
            &old,
            &[(
                "/metadata/annotations",
                json!({CLASS_ANNOTATION: "haproxy"}),
                "",
            )],
        );
    }

    #[test]
    fn an_ingress_is_reached_at_addresses_and_at_names() {
        let old = created(&resource(), ingress());
        let status = |ingress: Value| {
            let new = with(&old, "/status/loadBalancer", json!({"ingress": [ingress]}));
            refused(&resource(), &old, new, Some(Subresource::Status))
        };
        assert_eq!(status(json!({"ip": "1.2.3.4"})), "");
        assert_eq!(
            status(json!({"hostname": "1.2.3.4"})),
            r#"status.loadBalancer.ingress[0].hostname: Invalid value: "1.2.3.4": must be a DNS name, not an IP address"#
        );
    }

    #[test]
    fn a_row_shows_hosts_addresses_and_ports() {
        let object = with(
            &ingress(),
            "/status",
            json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.9"}, {"hostname": "lb.example"}]}}),
        );
        assert_eq!(
            row(&resource(), &object),
            json!([
                "web",
                "nginx",
                "shop.example",
                "10.0.0.9,lb.example",
                "80, 443",
                "10m"
            ])
        );
        let rules: Vec<Value> = (0..5).map(|n| json!({"host": format!("{n}.a")})).collect();
        assert_eq!(hosts(&rules), "0.a,1.a,2.a + 2 more...");
        assert_eq!(hosts(&rules[..3]), "0.a,1.a,2.a");
        assert_eq!(hosts(&[json!({})]), "*");
    }
}
