//! OwnerReferencesPermissionEnforcement: who makes an object go with another one must be allowed to delete
//! it, and who makes an owner wait for it must be allowed to write the owner's finalizers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use super::forbidden;
use crate::admission::{Attributes, Operation};
use crate::rest::review;
use api::{ApiError, Behaviour, Subresource, meta};

pub fn validate(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(object) = object else {
        return Ok(());
    };
    // A pod's status carries no owners.
    let is_status = attributes.resource.behaviour == Behaviour::Pod
        && attributes.subresource == Some(Subresource::Status);
    let old = attributes.old.unwrap_or(&Value::Null);
    let (new_owners, old_owners) = (meta::owner_references(object), meta::owner_references(old));
    if is_status || new_owners == old_owners {
        return Ok(());
    }
    if attributes.operation != Operation::Create && !may_delete(attributes) {
        let why = "cannot set an ownerRef on a resource you can't delete: , <nil>";
        return Err(forbidden(attributes, why));
    }
    let blocks = |owner: &OwnerReference| owner.block_owner_deletion == Some(true);
    for owner in new_owners.iter().filter(|owner| blocks(owner)) {
        let mut before = old_owners.iter();
        if before.any(|other| other.uid == owner.uid && blocks(other)) {
            continue;
        }
        may_block(attributes, owner)?;
    }
    Ok(())
}

fn may_delete(attributes: &Attributes<'_>) -> bool {
    let resource = attributes.resource;
    let question = json!({"resourceAttributes": {
        "verb": "delete",
        "group": resource.group,
        "resource": resource.plural,
        "subresource": attributes.subresource.map_or("", |sub| sub.name()),
        "namespace": attributes.namespace,
        "name": attributes.name,
    }});
    review::may(attributes.state, attributes.user, &question)
}

fn may_block(attributes: &Attributes<'_>, owner: &OwnerReference) -> Result<(), ApiError> {
    let (group, version) = owner
        .api_version
        .split_once('/')
        .unwrap_or(("", &owner.api_version));
    let snapshot = attributes.state.registry.snapshot();
    let kinds = snapshot.version(group, version);
    let found = kinds.and_then(|version| {
        let mut served = version.served.iter();
        served.find(|served| served.resource.kind == owner.kind)
    });
    let Some(found) = found else {
        let why = format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for \
             APIVersion {} Kind {}: no matches for kind {:?} in version {:?}",
            owner.api_version, owner.kind, owner.kind, owner.api_version
        );
        return Err(forbidden(attributes, why));
    };
    let resource = &found.resource;
    let namespace = if resource.namespaced() {
        attributes.namespace
    } else {
        ""
    };
    let question = json!({"resourceAttributes": {
        "verb": "update",
        "group": resource.group,
        "resource": resource.plural,
        "subresource": "finalizers",
        "namespace": namespace,
        "name": owner.name,
    }});
    match review::may(attributes.state, attributes.user, &question) {
        true => Ok(()),
        false => {
            let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you \
                       can't set finalizers on: , <nil>";
            Err(forbidden(attributes, why))
        }
    }
}
