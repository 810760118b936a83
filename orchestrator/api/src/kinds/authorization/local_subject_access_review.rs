//! authorization.k8s.io/v1 LocalSubjectAccessReview: whether somebody may do something in this namespace.

use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;

use super::GROUP;
use crate::resource::{Behaviour, Question, Resource};
use crate::validation::{At, Errors, NameRule};

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Review(Question::LocalAccess),
        verbs: &["create"],
        name_rule: NameRule::None,
        validate: validate,
        ..Resource::of::<LocalSubjectAccessReview>(
            GROUP,
            "authorization",
            "localsubjectaccessreview",
            "localsubjectaccessreviews",
        )
    }
}

/// It asks about an object in its own namespace.
fn validate(review: &At<'_>, errors: &mut Errors) {
    super::somebody(review, errors);
    let (metadata, spec) = (review.field("metadata"), review.field("spec"));
    let object = spec.field("resourceAttributes");
    let (own, asked) = (metadata.field("namespace"), object.field("namespace"));
    if !object.is_null() && own.value != asked.value {
        let why = "must match metadata.namespace";
        errors.invalid_value(&asked, asked.text(), why);
    }
    let path = spec.field("nonResourceAttributes");
    if !path.is_null() {
        errors.invalid(&path, "disallowed on this kind of request");
    }
}
