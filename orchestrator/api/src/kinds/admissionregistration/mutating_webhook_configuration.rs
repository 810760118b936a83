//! admissionregistration.k8s.io/v1 MutatingWebhookConfiguration.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use serde_json::Value;

use super::{GROUP, webhook};
use crate::defaults::{items, set};
use crate::resource::{Generation, Resource, Scope};

pub fn resource() -> Resource {
    Resource {
        categories: vec!["api-extensions".into()],
        scope: Scope::Cluster,
        generation: Generation::Spec,
        default,
        validate: webhook::validate,
        printer: webhook::COLUMNS,
        ..Resource::of::<MutatingWebhookConfiguration>(
            GROUP,
            "admissionregistration",
            "mutatingwebhookconfiguration",
            "mutatingwebhookconfigurations",
        )
    }
}

fn default(object: &mut Value) {
    webhook::default(object);
    for webhook in items(object, "webhooks") {
        set(webhook, "reinvocationPolicy", || "Never".into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{assert_wrong, created, row};

    fn configuration() -> Value {
        let webhook = |name: &str| {
            json!({
                "name": name,
                "admissionReviewVersions": ["v1", "v1beta1"],
                "sideEffects": "NoneOnDryRun",
                "clientConfig": {"url": "https://hooks.example/inject"},
            })
        };
        json!({
            "metadata": {"name": "sidecars"},
            "webhooks": [webhook("a.sidecars.example"), webhook("b.sidecars.example")],
        })
    }

    #[test]
    fn a_webhook_is_asked_once_unless_it_says_otherwise() {
        let stored = created(&resource(), configuration());
        assert_eq!(stored["webhooks"][0]["reinvocationPolicy"], "Never");
        assert_eq!(stored["webhooks"][1]["failurePolicy"], "Fail");
    }

    #[test]
    fn webhooks_have_different_names() {
        assert_wrong(
            &resource(),
            &configuration(),
            &[
                (
                    "/webhooks/1/name",
                    json!("a.sidecars.example"),
                    r#"webhooks[1].name: Duplicate value: "a.sidecars.example""#,
                ),
                (
                    "/webhooks/0/reinvocationPolicy",
                    json!("Twice"),
                    r#"webhooks[0].reinvocationPolicy: Unsupported value: "Twice": supported values: "IfNeeded", "Never""#,
                ),
            ],
        );
    }

    #[test]
    fn a_row_counts_the_webhooks() {
        let row = row(&resource(), &configuration());
        assert_eq!(row, json!(["sidecars", 2, "10m"]));
    }
}
