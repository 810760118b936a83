//! apiregistration.k8s.io/v1 APIService: which server serves a version of a group.

use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, Printer, age, list, name, text};
use crate::defaults::set;
use crate::kinds::core::config_map::decoded_length;
use crate::prepare::keep_metadata;
use crate::resource::{Resource, Scope, Subresource};
use crate::validation::{At, Errors, NameRule, names};

pub fn resource() -> Resource {
    Resource {
        categories: vec!["api-extensions".into()],
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        definition: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService".into(),
        name_rule: NameRule::PathSegment,
        has_status: true,
        default,
        create,
        update_status: keep_metadata,
        validate,
        validate_status,
        printer: COLUMNS,
        ..Resource::of::<APIService>(
            "apiregistration.k8s.io",
            "apiregistration",
            "apiservice",
            "apiservices",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Service", "The Service of the server; Local is this one"),
        Column::text("Available", "Whether the server can be reached"),
        AGE,
    ],
    cells,
};

fn default(object: &mut Value) {
    if let Some(service) = object.pointer_mut("/spec/service") {
        set(service, "port", || 443.into());
    }
}

/// What this server serves itself is there at once.
fn create(object: &mut Value) {
    let local = object.pointer("/spec/service").is_none_or(Value::is_null);
    object["status"] = match local {
        true => json!({"conditions": [{
            "type": "Available",
            "status": "True",
            "reason": "Local",
            "message": "Local APIServices are always available",
        }]}),
        false => json!({}),
    };
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let (metadata, spec) = (object.field("metadata"), object.field("spec"));
    let (group, version) = (spec.field("group"), spec.field("version"));
    let wanted = format!("{}.{}", version.text(), group.text());
    let name = metadata.field("name");
    if !name.is_empty() && name.text() != wanted {
        errors.invalid(
            &name,
            format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"),
        );
    }
    if !group.is_empty() {
        errors.check(&group, names::subdomain(group.text()));
    } else if version.text() != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        errors.required(&group, why);
    }
    if let Err(why) = names::label_1035(version.text()) {
        errors.invalid_value(&version, version.text(), why);
    }
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.field(field);
        if !(1..=max).contains(&priority.number()) {
            errors.invalid(&priority, format!("must be positive and less than {max}"));
        }
    }
    server(&spec, errors);
}

fn server(spec: &At<'_>, errors: &mut Errors) {
    let service = spec.field("service");
    let (bundle, insecure) = (spec.field("caBundle"), spec.field("insecureSkipTLSVerify"));
    if service.is_null() {
        if !bundle.is_empty() {
            let shown = format!("{} bytes", decoded_length(bundle.text()));
            errors.invalid_value(&bundle, &shown, "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            errors.invalid(&insecure, why);
        }
        return;
    }
    for field in ["namespace", "name"] {
        let part = service.field(field);
        if part.is_empty() {
            errors.required(&part, "");
        }
    }
    let port = service.field("port");
    if !(1..=65535).contains(&port.number()) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.invalid(&port, why);
    }
    if insecure.is_true() && !bundle.is_empty() {
        errors.invalid(&insecure, "may not be true if caBundle is present");
    }
}

fn validate_status(object: &At<'_>, errors: &mut Errors) {
    let status = object.field("status");
    let conditions = status.field("conditions");
    for condition in conditions.items() {
        let status = condition.field("status");
        let words = ["True", "False", "Unknown"];
        if !words.contains(&status.text()) {
            errors.not_supported(&status, &words);
        }
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = match object.pointer("/spec/service") {
        Some(service) => format!("{}/{}", text(service, "/namespace"), text(service, "/name")),
        None => "Local".into(),
    };
    let mut conditions = list(object, "/status/conditions").iter();
    let available = conditions.find(|condition| text(condition, "/type") == "Available");
    let available = available.map(|at| (text(at, "/status"), text(at, "/reason")));
    let available = match available {
        None => "Unknown".to_owned(),
        Some(("True", _)) => "True".into(),
        Some((status, "")) => status.into(),
        Some((status, reason)) => format!("{status} ({reason})"),
    };
    vec![
        name(object),
        service.into(),
        available.into(),
        age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_wrong, created, refused, row, updated, with};

    fn service() -> Value {
        json!({
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": true,
                "service": {"name": "metrics-server", "namespace": "kube-system"},
            },
        })
    }

    #[test]
    fn a_server_listens_at_443_and_this_one_is_always_available() {
        let stored = created(&resource(), service());
        assert_eq!(stored["spec"]["service"]["port"], 443);
        assert_eq!(stored["status"], json!({}));
        let mut local = with(&service(), "/spec/service", Value::Null);
        local["spec"]["insecureSkipTLSVerify"] = false.into();
        let stored = created(&resource(), local);
        assert_eq!(stored["status"]["conditions"][0]["status"], "True");
    }

    #[test]
    fn an_api_service_that_names_no_server_or_no_version_is_refused() {
        assert_wrong(
            &resource(),
            &service(),
            &[
                (
                    "/metadata",
                    json!({"name": "metrics"}),
                    r#"metadata.name: Invalid value: "metrics": must be `spec.version+"."+spec.group`: "v1beta1.metrics.k8s.io""#,
                ),
                (
                    "/spec/groupPriorityMinimum",
                    json!(0),
                    "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than \
                     20000",
                ),
                (
                    "/spec/versionPriority",
                    json!(1001),
                    "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
                ),
                (
                    "/spec/service",
                    json!({"name": "a", "port": 0}),
                    "[spec.service.namespace: Required value, spec.service.port: Invalid value: 0: \
                     port is not valid: must be between 1 and 65535, inclusive]",
                ),
                (
                    "/spec/caBundle",
                    json!("YQ=="),
                    "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle \
                     is present",
                ),
                (
                    "/spec/service",
                    Value::Null,
                    "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not \
                     have insecureSkipTLSVerify",
                ),
            ],
        );
    }

    #[test]
    fn a_status_says_true_false_or_unknown_and_changes_nothing_else() {
        let old = created(&resource(), service());
        let status = |word: &str| json!({"conditions": [{"type": "Available", "status": word}]});
        let mut new = with(&old, "/status", status("True"));
        new["metadata"]["labels"] = json!({"a": "b"});
        let stored = updated(&resource(), &old, new, Some(Subresource::Status));
        assert_eq!(stored["metadata"], old["metadata"]);
        let maybe = with(&old, "/status", status("Maybe"));
        assert_eq!(
            refused(&resource(), &old, maybe, Some(Subresource::Status)),
            r#"status.conditions[0].status: Unsupported value: "Maybe": supported values: "True", "False", "Unknown""#
        );
    }

    #[test]
    fn a_row_shows_the_server_and_whether_it_answers() {
        let missing = json!({"conditions": [
            {"type": "Available", "status": "False", "reason": "MissingEndpoints"},
        ]});
        assert_eq!(
            row(&resource(), &with(&service(), "/status", missing)),
            json!([
                "v1beta1.metrics.k8s.io",
                "kube-system/metrics-server",
                "False (MissingEndpoints)",
                "10m"
            ])
        );
    }
}
