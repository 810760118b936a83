//! v1 Binding: the body of pods/binding; posted to its own collection it says by its name which pod is meant.

use k8s_openapi::api::core::v1::Binding;

use crate::resource::{Behaviour, Resource};

pub fn resource() -> Resource {
    Resource {
        verbs: &["create"],
        behaviour: Behaviour::Binding,
        ..Resource::of::<Binding>("", "core", "binding", "bindings")
    }
}
