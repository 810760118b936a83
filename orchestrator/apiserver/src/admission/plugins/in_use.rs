//! StorageObjectInUseProtection: a claim that a pod uses, and a volume that is bound to a claim, stay until
//! nobody needs them. The finalizers are taken off by `controllers::protection`.

use serde_json::{Value, json};

use crate::admission::Attributes;
use api::kinds::core::{persistent_volume, persistent_volume_claim};
use api::{ApiError, Behaviour};

pub fn protect(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
    let finalizer = match attributes.resource.behaviour {
        _ if attributes.subresource.is_some() => return Ok(()),
        Behaviour::Claim => persistent_volume_claim::PROTECTION,
        Behaviour::Volume => persistent_volume::PROTECTION,
        _ => return Ok(()),
    };
    match object["metadata"]["finalizers"].as_array_mut() {
        Some(list) if list.iter().any(|known| known == finalizer) => {}
        Some(list) => list.push(finalizer.into()),
        None => object["metadata"]["finalizers"] = json!([finalizer]),
    }
    Ok(())
}
