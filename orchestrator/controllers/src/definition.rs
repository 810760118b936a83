//! Which custom kind a definition serves. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::object::{Body, Object};
use client::Kind;

impl From<CustomResourceDefinition> for Object {
    fn from(definition: CustomResourceDefinition) -> Self {
        let served = served_kind(&definition);
        let metadata = definition.metadata;
        Self::new(Kind::DEFINITION, metadata, Body::Definition(served))
    }
}

/// In the version that is stored, where that is served too: it costs no conversion.
fn served_kind(definition: &CustomResourceDefinition) -> Option<Kind> {
    let (spec, status) = (&definition.spec, definition.status.as_ref()?);
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|it| it.type_ == "Established" && it.status == "True")?;
    let served = || spec.versions.iter().filter(|version| version.served);
    let version = served().find(|version| version.storage);
    let version = version.or(served().next())?;
    let names = &status.accepted_names.as_ref()?;
    let namespaced = spec.scope == "Namespaced";
    Some(Kind::custom(
        &spec.group,
        &version.name,
        &names.kind,
        &names.plural,
        namespaced,
    ))
}
