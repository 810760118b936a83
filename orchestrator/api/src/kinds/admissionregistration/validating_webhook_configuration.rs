//! admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;

use super::{GROUP, webhook};
use crate::resource::{Generation, Resource, Scope};

pub fn resource() -> Resource {
    Resource {
        categories: vec!["api-extensions".into()],
        scope: Scope::Cluster,
        generation: Generation::Spec,
        default: webhook::default,
        validate: webhook::validate,
        printer: webhook::COLUMNS,
        ..Resource::of::<ValidatingWebhookConfiguration>(
            GROUP,
            "admissionregistration",
            "validatingwebhookconfiguration",
            "validatingwebhookconfigurations",
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{assert_wrong, created, row, updated, with};

    fn configuration() -> Value {
        json!({
            "metadata": {"name": "checks"},
            "webhooks": [{
                "name": "pods.checks.example",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {"service": {"name": "checks", "namespace": "default", "path": "/pods"}},
                "rules": [{
                    "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                    "resources": ["pods"],
                }],
            }],
        })
    }

    #[test]
    fn a_webhook_says_what_it_left_to_the_server() {
        let mut expected = configuration()["webhooks"][0].clone();
        for (field, value) in [
            ("failurePolicy", json!("Fail")),
            ("matchPolicy", json!("Equivalent")),
            ("namespaceSelector", json!({})),
            ("objectSelector", json!({})),
            ("timeoutSeconds", json!(10)),
        ] {
            expected[field] = value;
        }
        expected["rules"][0]["scope"] = "*".into();
        expected["clientConfig"]["service"]["port"] = 443.into();
        let stored = created(&resource(), configuration());
        assert_eq!(stored["webhooks"], json!([expected]));
        assert_eq!(stored["metadata"]["generation"], 1);
    }

    #[test]
    fn a_webhook_that_could_not_be_asked_is_refused() {
        let first = "/webhooks/0";
        let rule = |field: &str| format!("{first}/rules/0/{field}");
        let at = |field: &str| format!("{first}/{field}");
        let cases = [
            (
                at("name"),
                json!("checks"),
                r#"webhooks[0].name: Invalid value: "checks": should be a domain with at least three segments separated by dots"#,
            ),
            (
                at("sideEffects"),
                Value::Null,
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                at("sideEffects"),
                json!("Some"),
                r#"webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun""#,
            ),
            (
                at("timeoutSeconds"),
                json!(31),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between \
                 1 and 30 seconds",
            ),
            (
                at("admissionReviewVersions"),
                json!(["v2"]),
                r#"webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1"#,
            ),
            (
                at("clientConfig"),
                json!({}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is \
                 required",
            ),
            (
                rule("operations"),
                json!(["*", "CREATE"]),
                r#"webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if '*' is present, must not specify other operations"#,
            ),
            (
                rule("resources"),
                json!(["pods/*", "pods/log"]),
                r#"webhooks[0].rules[0].resources[1]: Invalid value: "pods/log": if 'pods/*' is present, must not specify pods/log"#,
            ),
            (
                rule("resources"),
                json!(["*", "pods"]),
                r#"webhooks[0].rules[0].resources: Invalid value: ["*","pods"]: if '*' is present, must not specify other resources without subresources"#,
            ),
            (
                at("matchConditions"),
                json!([{"name": "a", "expression": " "}]),
                "webhooks[0].matchConditions[0].expression: Required value",
            ),
        ];
        let cases: Vec<_> = cases
            .iter()
            .map(|(at, part, why)| (at.as_str(), part.clone(), *why))
            .collect();
        assert_wrong(&resource(), &configuration(), &cases);
    }

    #[test]
    fn a_change_of_a_webhook_counts_a_generation() {
        let old = created(&resource(), configuration());
        let new = with(&old, "/webhooks/0/failurePolicy", json!("Ignore"));
        assert_eq!(
            updated(&resource(), &old, new, None)["metadata"]["generation"],
            2
        );
        let same = updated(&resource(), &old, configuration(), None);
        assert_eq!(same["metadata"]["generation"], 1);
    }

    #[test]
    fn a_row_counts_the_webhooks() {
        let row = row(&resource(), &configuration());
        assert_eq!(row, json!(["checks", 1, "10m"]));
    }
}
