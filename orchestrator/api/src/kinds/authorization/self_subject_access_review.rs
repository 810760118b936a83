//! authorization.k8s.io/v1 SelfSubjectAccessReview: whether the caller may do something.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;

use super::GROUP;
use crate::resource::{Behaviour, Question, Resource, Scope};
use crate::validation::NameRule;

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Review(Question::OwnAccess),
        scope: Scope::Cluster,
        verbs: &["create"],
        name_rule: NameRule::None,
        validate: super::one_thing,
        ..Resource::of::<SelfSubjectAccessReview>(
            GROUP,
            "authorization",
            "selfsubjectaccessreview",
            "selfsubjectaccessreviews",
        )
    }
}
