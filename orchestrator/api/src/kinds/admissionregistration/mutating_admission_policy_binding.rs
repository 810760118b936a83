//! admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding: where a policy is in force.

use k8s_openapi::api::admissionregistration::v1alpha1::MutatingAdmissionPolicyBinding;

use super::GROUP;
use super::validating_admission_policy_binding as validating;
use crate::resource::{Generation, Resource, Scope};

pub fn resource() -> Resource {
    Resource {
        version: "v1".into(),
        definition: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding".into(),
        categories: vec!["api-extensions".into()],
        scope: Scope::Cluster,
        generation: Generation::Spec,
        default: validating::default,
        validate: validating::validate_reach,
        printer: validating::COLUMNS,
        ..Resource::of::<MutatingAdmissionPolicyBinding>(
            GROUP,
            "admissionregistration",
            "mutatingadmissionpolicybinding",
            "mutatingadmissionpolicybindings",
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{assert_wrong, created};

    #[test]
    fn a_binding_names_a_policy() {
        let binding = json!({
            "metadata": {"name": "labels"},
            "spec": {"policyName": "labels", "paramRef": {"name": "p"}},
        });
        let stored = created(&resource(), binding.clone());
        assert_eq!(
            stored["spec"]["paramRef"]["parameterNotFoundAction"],
            "Deny"
        );
        let why = "spec.policyName: Required value";
        assert_wrong(
            &resource(),
            &binding,
            &[("/spec/policyName", json!(""), why)],
        );
    }
}
