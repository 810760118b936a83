//! The kinds of the group authorization.k8s.io: questions that are answered and not kept.

pub mod local_subject_access_review;
pub mod self_subject_access_review;
pub mod self_subject_rules_review;
pub mod subject_access_review;

const GROUP: &str = "authorization.k8s.io";

use crate::validation::{At, Errors};

/// A question about access names one thing: an object, or a path.
fn one_thing(review: &At<'_>, errors: &mut Errors) {
    let spec = review.field("spec");
    let (object, path) = (
        spec.field("resourceAttributes"),
        spec.field("nonResourceAttributes"),
    );
    match (object.is_null(), path.is_null()) {
        (false, false) => errors.invalid(
            &path,
            "cannot be specified in combination with resourceAttributes",
        ),
        (true, true) => errors.invalid(
            &object,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
}

/// A question about somebody names them.
fn somebody(review: &At<'_>, errors: &mut Errors) {
    one_thing(review, errors);
    let spec = review.field("spec");
    let (user, groups) = (spec.field("user"), spec.field("groups"));
    if user.is_empty() && groups.is_empty() {
        let why = "at least one of user or group must be specified";
        errors.invalid_value(&user, "", why);
    }
}
