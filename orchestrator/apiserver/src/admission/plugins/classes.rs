//! The classes of claims and Ingresses that name none: those that an administrator has marked as default.

use serde_json::Value;

use super::is_whole;
use crate::admission::Attributes;
use crate::reply;
use api::kinds::core::persistent_volume_claim;
use api::kinds::storage::storage_class;
use api::{ApiError, Behaviour, meta};

/// Which objects get a class, and where it is named.
struct Classed {
    behaviour: Behaviour,
    field: &'static str,
    annotation: &'static str,
    classes: &'static str,
    class_group: &'static str,
    marks: &'static [&'static str],
}

const STORAGE: Classed = Classed {
    behaviour: Behaviour::Claim,
    field: "storageClassName",
    annotation: persistent_volume_claim::CLASS_ANNOTATION,
    classes: "storageclasses",
    class_group: "storage.k8s.io",
    marks: &storage_class::IS_DEFAULT,
};

const INGRESS: Classed = Classed {
    behaviour: Behaviour::Ingress,
    field: "ingressClassName",
    annotation: "kubernetes.io/ingress.class",
    classes: "ingressclasses",
    class_group: "networking.k8s.io",
    marks: &["ingressclass.kubernetes.io/is-default-class"],
};

/// DefaultStorageClass.
pub fn give_storage(attributes: &Attributes<'_>, claim: &mut Value) -> Result<(), ApiError> {
    give(attributes, &STORAGE, claim)
}

/// DefaultIngressClass.
pub fn give_ingress(attributes: &Attributes<'_>, ingress: &mut Value) -> Result<(), ApiError> {
    give(attributes, &INGRESS, ingress)
}

fn give(
    attributes: &Attributes<'_>,
    classed: &Classed,
    object: &mut Value,
) -> Result<(), ApiError> {
    // An empty name is an answer as well: no class.
    let is_said = |object: &Value| {
        object["spec"][classed.field].is_string()
            || object["metadata"]["annotations"][classed.annotation].is_string()
    };
    if is_whole(attributes, classed.behaviour)
        && !is_said(object)
        && let Some(class) = default_class(attributes, classed)?
    {
        object["spec"][classed.field] = class.into();
    }
    Ok(())
}

/// Of several the newest, and of those of one second the first by name.
fn default_class(
    attributes: &Attributes<'_>,
    classed: &Classed,
) -> Result<Option<String>, ApiError> {
    let kind =
        api::find(classed.class_group, "v1", classed.classes).ok_or(ApiError::NoSuchResource)?;
    let mut best: Option<(String, String)> = None;
    for class in attributes.state.objects.cache.list(kind, None).1 {
        let class = reply::parse(&class.bytes())?;
        let annotations = &class["metadata"]["annotations"];
        if !classed
            .marks
            .iter()
            .any(|mark| annotations[*mark] == "true")
        {
            continue;
        }
        let made = class["metadata"]["creationTimestamp"].as_str();
        let (made, name) = (made.unwrap_or_default(), meta::name(&class));
        let is_better = best
            .as_ref()
            .is_none_or(|(newest, first)| (made, first.as_str()) > (newest.as_str(), name));
        if is_better {
            best = Some((made.to_owned(), name.to_owned()));
        }
    }
    Ok(best.map(|(_, name)| name))
}
