//! StorageObjectInUseProtection: a claim that a pod uses, and a volume that is bound to a claim, stay until
//! nobody needs them. The finalizers are taken off by `controllers::protection`.

use serde_json::{Value, json};

use super::is_whole;
use crate::admission::Attributes;
use api::ApiError;
use api::kinds::core::{persistent_volume, persistent_volume_claim};

pub fn protect(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
    let finalizer = if is_whole(attributes, "", "persistentvolumeclaims") {
        persistent_volume_claim::PROTECTION
    } else if is_whole(attributes, "", "persistentvolumes") {
        persistent_volume::PROTECTION
    } else {
        return Ok(());
    };
    match object["metadata"]["finalizers"].as_array_mut() {
        Some(list) if list.iter().any(|known| known == finalizer) => {}
        Some(list) => list.push(finalizer.into()),
        None => object["metadata"]["finalizers"] = json!([finalizer]),
    }
    Ok(())
}
