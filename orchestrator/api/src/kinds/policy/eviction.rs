//! policy/v1 Eviction: the body of pods/eviction; no resource of its own.

use k8s_openapi::api::policy::v1::Eviction;

use crate::resource::Resource;

pub fn resource() -> Resource {
    Resource {
        verbs: &["create"],
        ..Resource::of::<Eviction>("policy", "policy", "eviction", "evictions")
    }
}

/// policy/v1beta1, which is the same but for its name.
pub fn old() -> Resource {
    Resource {
        version: "v1beta1".into(),
        ..resource()
    }
}
