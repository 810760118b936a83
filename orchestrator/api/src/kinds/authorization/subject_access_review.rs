//! authorization.k8s.io/v1 SubjectAccessReview: whether somebody may do something.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;

use super::GROUP;
use crate::resource::{Behaviour, Question, Resource, Scope};
use crate::validation::NameRule;

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Review(Question::Access),
        scope: Scope::Cluster,
        verbs: &["create"],
        name_rule: NameRule::None,
        validate: super::somebody,
        ..Resource::of::<SubjectAccessReview>(
            GROUP,
            "authorization",
            "subjectaccessreview",
            "subjectaccessreviews",
        )
    }
}
