//! authentication.k8s.io/v1 TokenReview: whose a bearer token is. Answered and not kept.

use k8s_openapi::api::authentication::v1::TokenReview;

use crate::resource::{Behaviour, Question, Resource, Scope};
use crate::validation::NameRule;

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Review(Question::Token),
        scope: Scope::Cluster,
        verbs: &["create"],
        name_rule: NameRule::None,
        ..Resource::of::<TokenReview>(
            "authentication.k8s.io",
            "authentication",
            "tokenreview",
            "tokenreviews",
        )
    }
}
