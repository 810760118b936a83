//! authentication.k8s.io/v1 SelfSubjectReview: who the caller is. Answered and not kept.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;

use crate::resource::{Behaviour, Question, Resource, Scope};
use crate::validation::NameRule;

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Review(Question::OwnName),
        scope: Scope::Cluster,
        verbs: &["create"],
        name_rule: NameRule::None,
        ..Resource::of::<SelfSubjectReview>(
            "authentication.k8s.io",
            "authentication",
            "selfsubjectreview",
            "selfsubjectreviews",
        )
    }
}
