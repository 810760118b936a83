//! What the server itself writes into a CertificateSigningRequest: who asks, and when it was decided.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::authn::User;
use api::{Behaviour, Resource, Subresource, meta};

/// Notes who asks. What the body said of that is gone already.
pub fn note_asker(user: &User, resource: &Resource, object: &mut Value) {
    if resource.behaviour != Behaviour::CertificateRequest {
        return;
    }
    let spec = &mut object["spec"];
    spec["username"] = json!(&*user.name);
    spec["groups"] = json!(user.all_groups());
    if !user.uid.is_empty() {
        spec["uid"] = json!(&*user.uid);
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(&*user.extra);
    }
}

/// Dates the conditions that a write has brought.
pub fn date_conditions(
    resource: &Resource,
    subresource: Option<Subresource>,
    (new, old): (&mut Value, &Value),
    now: Timestamp,
) {
    if resource.behaviour != Behaviour::CertificateRequest || subresource.is_none() {
        return;
    }
    let before = old["status"]["conditions"].as_array();
    let conditions = new["status"]["conditions"].as_array_mut();
    for condition in conditions.into_iter().flatten() {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = meta::timestamp(now).into();
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |other: &&Value| {
                other["type"] == condition["type"]
                    && other["status"] == condition["status"]
                    && !other["lastTransitionTime"].is_null()
            };
            let known = before.and_then(|before| before.iter().find(same));
            condition["lastTransitionTime"] = match known {
                Some(known) => known["lastTransitionTime"].clone(),
                None => meta::timestamp(now).into(),
            };
        }
    }
}
