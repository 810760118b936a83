//! autoscaling/v1 Scale: the body of the scale subresource; no resource of its own.

use k8s_openapi::api::autoscaling::v1::Scale;

use crate::resource::Resource;
use crate::validation::{At, Errors};

pub fn resource() -> Resource {
    Resource {
        verbs: &["get", "patch", "update"],
        validate,
        ..Resource::of::<Scale>("autoscaling", "autoscaling", "scale", "scales")
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.not_negative(&spec.field("replicas"));
}
