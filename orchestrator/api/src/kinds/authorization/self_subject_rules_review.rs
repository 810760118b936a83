//! authorization.k8s.io/v1 SelfSubjectRulesReview: what the caller may do in a namespace.

use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;

use super::GROUP;
use crate::resource::{Behaviour, Question, Resource, Scope};
use crate::validation::{At, Errors, NameRule};

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Review(Question::OwnRules),
        scope: Scope::Cluster,
        verbs: &["create"],
        name_rule: NameRule::None,
        validate: validate,
        ..Resource::of::<SelfSubjectRulesReview>(
            GROUP,
            "authorization",
            "selfsubjectrulesreview",
            "selfsubjectrulesreviews",
        )
    }
}

fn validate(review: &At<'_>, errors: &mut Errors) {
    let spec = review.field("spec");
    let namespace = spec.field("namespace");
    if namespace.is_empty() {
        errors.required(&namespace, "no namespace on request");
    }
}
