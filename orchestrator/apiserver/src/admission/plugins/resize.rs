//! PersistentVolumeClaimResize: a claim grows only where its class says that volumes can.

use serde_json::Value;

use super::{forbidden, is_whole};
use crate::admission::Attributes;
use crate::reply;
use api::{ApiError, Behaviour, amounts};

pub fn validate(attributes: &Attributes<'_>, claim: Option<&Value>) -> Result<(), ApiError> {
    let (Some(claim), Some(old)) = (claim, attributes.old) else {
        return Ok(());
    };
    if !is_whole(attributes, Behaviour::Claim) {
        return Ok(());
    }
    let size = |claim: &Value| {
        let requests = amounts::read(&claim["spec"]["resources"]["requests"]);
        requests.get("storage").copied()
    };
    if size(claim) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        let why = "Only bound persistent volume claims can be expanded";
        return Err(forbidden(attributes, why));
    }
    let class = class_of(claim);
    if class.is_empty() || class != class_of(old) || !can_grow(attributes, class)? {
        let why = "only dynamically provisioned pvc can be resized and the storageclass that \
                   provisions the pvc must support resize";
        return Err(forbidden(attributes, why));
    }
    Ok(())
}

fn class_of(claim: &Value) -> &str {
    let annotations = &claim["metadata"]["annotations"];
    let annotation = annotations["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = annotation.or_else(|| claim["spec"]["storageClassName"].as_str());
    class.unwrap_or_default()
}

fn can_grow(attributes: &Attributes<'_>, class: &str) -> Result<bool, ApiError> {
    let kind = api::find("storage.k8s.io", "v1", "storageclasses");
    let kind = kind.ok_or(ApiError::NoSuchResource)?;
    match attributes.state.objects.cache.get(kind, "", class) {
        Some(class) => Ok(reply::parse(&class.bytes())?["allowVolumeExpansion"] == true),
        None => Ok(false),
    }
}
