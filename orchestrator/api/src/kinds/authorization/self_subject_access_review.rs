//! authorization.k8s.io/v1 SelfSubjectAccessReview: answered and not kept.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;

use crate::resource::{Behaviour, Resource, Scope};

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::AccessReview,
        scope: Scope::Cluster,
        verbs: &["create"],
        ..Resource::of::<SelfSubjectAccessReview>(
            "authorization.k8s.io",
            "authorization",
            "selfsubjectaccessreview",
            "selfsubjectaccessreviews",
        )
    }
}
