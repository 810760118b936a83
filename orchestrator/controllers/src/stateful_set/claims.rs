//! The claims of a StatefulSet's pods: made before the pod, kept or deleted as the set's policy says
//! (KEP-1847). Pure.

use serde_json::{Value, json};

use super::View;
use super::row::Retention;
use crate::action::{self, Action, Create};
use crate::object::{Object, Owner};
use client::Kind;

/// `data-web-0` for the template `data` of the set `web`.
pub fn name(template: &str, set: &str, ordinal: i64) -> String {
    format!("{template}-{set}-{ordinal}")
}

/// Whether a claim of the pod that is to be made goes first: it ends, or belongs to the pod's predecessor.
pub fn waits_for_old(view: &View, ordinal: i64) -> bool {
    let pod = super::pods::name(view.object, ordinal);
    let is_stale = |owner: &Owner| owner.kind == Kind::POD.kind && owner.name == pod;
    let mut claims = view.claims_of(ordinal);
    claims.any(|claim| claim.meta.deleting.is_some() || claim.meta.owners.iter().any(is_stale))
}

/// The claims that a pod lacks: each create, and what is told of it.
pub fn missing(view: &View, ordinal: i64) -> Vec<(Action, Action)> {
    let set = &view.object.key;
    let lacking = view.row.claims.iter().filter_map(|(template, claim)| {
        let name = name(template, &set.name, ordinal);
        (!view.claims.contains_key(&name)).then_some((name, claim))
    });
    let made = lacking.map(|(name, claim)| {
        let mut object = claim.clone();
        object["metadata"]["name"] = name.as_str().into();
        object["metadata"]["namespace"] = set.namespace.as_str().into();
        if object["metadata"]["labels"].is_null() {
            object["metadata"]["labels"] = json!({});
        }
        for (key, value) in &view.row.match_labels {
            object["metadata"]["labels"][key] = value.as_str().into();
        }
        if view.row.retention.delete_with_set {
            let owner = action::controller_reference(view.object);
            object["metadata"]["ownerReferences"] = action::owners_json(&[owner]);
        }
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        let create = Action::Create(Create {
            kind: Kind::PERSISTENT_VOLUME_CLAIM,
            namespace: set.namespace.clone(),
            object,
            // A claim that was there before the set is used as it is.
            if_absent: true,
            about: None,
        });
        let pod = super::pods::name(view.object, ordinal);
        let text = format!(
            "create Claim {name} Pod {pod} in StatefulSet {} success",
            set.name
        );
        (
            create,
            Action::normal(view.object, "SuccessfulCreate", text),
        )
    });
    made.collect()
}

/// Gives the claims of a pod the owners that the policy says.
pub fn keep_owners(view: &View, pod: &Object, ordinal: i64) -> Vec<Action> {
    let condemned = !view.row.ordinals().contains(&ordinal);
    let wanted = |claim: &&Object| owners(view, pod, condemned, claim);
    let changes = view.claims_of(ordinal);
    let changes = changes.filter_map(|claim| Some((claim, wanted(&claim)?)));
    let patch = |(claim, owners): (&Object, Vec<Owner>)| {
        let owners = match owners.is_empty() {
            true => Value::Null,
            false => action::owners_json(&owners),
        };
        let body = json!({"metadata": {"ownerReferences": owners}});
        Action::merge_exact(claim, "", body)
    };
    changes.map(patch).collect()
}

/// The owners that a claim should have; None if it has them.
fn owners(view: &View, pod: &Object, condemned: bool, claim: &Object) -> Option<Vec<Owner>> {
    let set = view.object;
    let is_ours = |owner: &Owner| owner.uid == set.meta.uid || owner.uid == pod.meta.uid;
    let (ours, mut wanted): (Vec<Owner>, Vec<Owner>) =
        claim.meta.owners.iter().cloned().partition(is_ours);
    let is_foreign = wanted.iter().any(|owner| owner.controller);
    let owner = match view.row.retention {
        _ if is_foreign => None,
        Retention {
            delete_when_scaled: true,
            ..
        } if condemned => Some(action::controller_reference(pod)),
        Retention {
            delete_with_set: true,
            delete_when_scaled,
        } if !(delete_when_scaled && condemned) => Some(action::controller_reference(set)),
        _ => None,
    };
    let has = ours.len() == usize::from(owner.is_some())
        && ours.first().map(|it| &it.uid) == owner.as_ref().map(|it| &it.uid);
    wanted.extend(owner);
    (!has).then_some(wanted)
}
