//! v1 Binding: the body of pods/binding; no resource of its own.

use k8s_openapi::api::core::v1::Binding;

use crate::resource::Resource;

pub fn resource() -> Resource {
    Resource {
        verbs: &["create"],
        ..Resource::of::<Binding>("", "core", "binding", "bindings")
    }
}
