//! admissionregistration.k8s.io/v1beta1: webhooks that are ignored when they fail, and may have side
//! effects (Kubernetes 1.20, `pkg/apis/admissionregistration/v1beta1/defaults.go`).

use serde_json::{Value, json};

use super::{
    GROUP, mutating_admission_policy, mutating_admission_policy_binding,
    mutating_webhook_configuration, validating_admission_policy,
    validating_admission_policy_binding, validating_webhook_configuration, webhook,
};
use crate::defaults::{items, set};
use crate::kinds::old::{Face, Version};
use crate::resource::Resource;
use crate::served::Served;

const V1BETA1: Version = Version {
    group: GROUP,
    version: "v1beta1",
    package: "admissionregistration",
    life: Some(("1.16", "1.22")),
};

pub fn views() -> Vec<Served> {
    let webhooks = |kind: fn() -> Resource| Face {
        default,
        rules: Some(|kind| kind.validate = webhook::validate_of_v1beta1),
        ..Face::of(kind)
    };
    let policies = Version {
        life: Some(("1.31", "1.34")),
        ..V1BETA1
    };
    // Deprecated in Kubernetes 1.37.
    let mutating = Version {
        life: None,
        ..V1BETA1
    };
    vec![
        mutating.serves(Face::of(mutating_admission_policy::resource)),
        mutating.serves(Face::of(mutating_admission_policy_binding::resource)),
        V1BETA1.serves(webhooks(mutating_webhook_configuration::resource)),
        policies.serves(Face::of(validating_admission_policy::resource)),
        policies.serves(Face::of(validating_admission_policy_binding::resource)),
        V1BETA1.serves(webhooks(validating_webhook_configuration::resource)),
    ]
}

fn default(object: &mut Value) {
    for webhook in items(object, "webhooks") {
        set(webhook, "failurePolicy", || "Ignore".into());
        set(webhook, "matchPolicy", || "Exact".into());
        set(webhook, "sideEffects", || "Unknown".into());
        set(webhook, "timeoutSeconds", || 30.into());
        let versions = &mut webhook["admissionReviewVersions"];
        if versions.as_array().is_none_or(Vec::is_empty) {
            *versions = json!(["v1beta1"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::old::testing::{stored, view};

    #[test]
    fn an_old_webhook_is_ignored_when_it_fails_and_may_have_side_effects() {
        let old = json!({"metadata": {"name": "checks"}, "webhooks": [{
            "name": "pods.checks.example",
            "clientConfig": {"url": "https://checks.example/"},
        }]});
        for plural in [
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
        ] {
            let view = view(GROUP, "v1beta1", plural);
            let mut new = stored(view, old.clone());
            assert_eq!(
                new["webhooks"][0],
                json!({
                    "admissionReviewVersions": ["v1beta1"],
                    "clientConfig": {"url": "https://checks.example/"},
                    "failurePolicy": "Ignore",
                    "matchPolicy": "Exact",
                    "name": "pods.checks.example",
                    "sideEffects": "Unknown",
                    "timeoutSeconds": 30,
                })
            );
            view.storage.default(&mut new);
            assert_eq!(view.storage.validate(&new, None, None), Ok(()));
            let today = crate::find(GROUP, "v1", plural).unwrap();
            let refused = today.validate(&new, None, None).unwrap_err().to_string();
            assert!(
                refused.contains("sideEffects: Unsupported value"),
                "{refused}"
            );
        }
    }
}
