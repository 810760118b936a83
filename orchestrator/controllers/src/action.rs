//! What a plan may ask for. An action carries everything that its execution needs; the executor
//! chooses nothing. Pure.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::object::{Key, Object, Owner};
use client::{About, Kind, PatchKind};

/// What a controller wants done for one task now, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// Plan again after this even if nothing changes.
    pub again: Option<SignedDuration>,
}

/// One write. The first that fails ends its plan, which is then made anew from what is known then.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Neighbouring creates run side by side, in batches that grow while they succeed.
    Create(Create),
    /// Done as well if the object is gone.
    Patch(Patch),
    /// Side by side: of different objects.
    PatchAll(Vec<Patch>),
    /// Done as well if the object is gone or another one of its name.
    Delete(Delete),
    /// Deletes all of one kind in a namespace.
    Empty {
        kind: Kind,
        namespace: String,
    },
    /// Takes `kubernetes` off a namespace's finalizers, once the server itself finds it empty.
    Finalize {
        namespace: String,
        uid: String,
        /// None of which may be left in it.
        kinds: Vec<Kind>,
    },
    Tell(Tell),
    Ask(Ask),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    pub kind: Kind,
    pub namespace: String,
    pub object: Value,
    /// That it exists already is as good.
    pub if_absent: bool,
    /// Whose events tell of success and failure.
    pub about: Option<About>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    pub kind: Kind,
    pub key: Key,
    pub subresource: &'static str,
    pub how: PatchKind,
    pub body: Value,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Delete {
    pub kind: Option<Kind>,
    pub key: Key,
    pub uid: String,
    pub grace_seconds: Option<i64>,
    pub propagation: Option<&'static str>,
    /// Only if the server itself knows none of these: kind, key and, unless empty, uid.
    pub unless_any: Vec<(Kind, Key, String)>,
    pub about: Option<About>,
}

/// A GET of what no watch brings. The controller is told what comes of it; that it fails does not end the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// With the query. What follows a `#` is the controller's own and not sent.
    pub path: String,
}

/// What came of reading: an object, or why there is none.
pub type Reply = Result<Value, String>;

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Tell {
    pub about: About,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Action {
    /// A merge patch of `object`, refused if another one has taken its name.
    pub fn merge(object: &Object, subresource: &'static str, mut body: Value) -> Self {
        body["metadata"]["uid"] = json!(object.meta.uid);
        Action::Patch(Patch {
            kind: object.kind,
            key: object.key.clone(),
            subresource,
            how: PatchKind::Merge,
            body,
        })
    }

    /// The same, refused too if the object is not the one that the plan saw.
    pub fn merge_exact(object: &Object, subresource: &'static str, mut body: Value) -> Self {
        body["metadata"]["resourceVersion"] = json!(object.meta.revision.to_string());
        Self::merge(object, subresource, body)
    }

    /// A strategic merge patch of `object`.
    pub fn strategic(object: &Object, subresource: &'static str, mut body: Value) -> Self {
        body["metadata"]["uid"] = json!(object.meta.uid);
        Action::Patch(Patch {
            kind: object.kind,
            key: object.key.clone(),
            subresource,
            how: PatchKind::Strategic,
            body,
        })
    }

    pub fn delete(object: &Object) -> Self {
        Action::Delete(Delete::of(object))
    }

    pub fn normal(object: &Object, reason: &'static str, message: String) -> Self {
        Action::Tell(Tell {
            about: about(object),
            warning: false,
            reason,
            message,
        })
    }

    pub fn warning(object: &Object, reason: &'static str, message: String) -> Self {
        Action::Tell(Tell {
            about: about(object),
            warning: true,
            reason,
            message,
        })
    }
}

impl Delete {
    pub fn of(object: &Object) -> Self {
        Delete {
            kind: Some(object.kind),
            key: object.key.clone(),
            uid: object.meta.uid.clone(),
            ..Delete::default()
        }
    }
}

/// The object as events name it.
pub fn about(object: &Object) -> About {
    About {
        kind: object.kind,
        namespace: object.key.namespace.clone(),
        name: object.key.name.clone(),
        uid: object.meta.uid.clone(),
        field_path: String::new(),
    }
}

/// The reference by which `object` controls what it creates.
pub fn controller_reference(object: &Object) -> Owner {
    Owner {
        api_version: object.kind.api_version(),
        kind: object.kind.kind.to_owned(),
        name: object.key.name.clone(),
        uid: object.meta.uid.clone(),
        controller: true,
        blocks: true,
    }
}

/// Owner references as the API writes them.
pub fn owners_json(owners: &[Owner]) -> Value {
    let reference = |owner: &Owner| {
        let mut value = json!({
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "name": owner.name,
            "uid": owner.uid,
        });
        if owner.controller {
            value["controller"] = json!(true);
        }
        if owner.blocks {
            value["blockOwnerDeletion"] = json!(true);
        }
        value
    };
    owners.iter().map(reference).collect()
}

/// Adds `owner` to the object's owners.
pub fn adopt(object: &Object, owner: Owner) -> Action {
    let mut owners = object.meta.owners.clone();
    owners.push(owner);
    Action::merge(
        object,
        "",
        json!({"metadata": {"ownerReferences": owners_json(&owners)}}),
    )
}

/// Takes the owner `uid` off the object's owners.
pub fn release(object: &Object, uid: &str) -> Action {
    let owners: Vec<Owner> = object
        .meta
        .owners
        .iter()
        .filter(|owner| owner.uid != uid)
        .cloned()
        .collect();
    let value = if owners.is_empty() {
        Value::Null
    } else {
        owners_json(&owners)
    };
    Action::merge(object, "", json!({"metadata": {"ownerReferences": value}}))
}

/// Takes a finalizer off an object that is as the plan saw it.
pub fn drop_finalizer(object: &Object, name: &str) -> Action {
    let rest: Vec<&String> = object
        .meta
        .finalizers
        .iter()
        .filter(|other| *other != name)
        .collect();
    let value = if rest.is_empty() {
        Value::Null
    } else {
        json!(rest)
    };
    Action::merge_exact(object, "", json!({"metadata": {"finalizers": value}}))
}
