//! Worlds for tests, written as the API writes objects.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::action::{Action, Patch};
use super::object::Object;
use super::world::{Change, World};
use client::Kind;

pub const NOW: &str = "2026-01-01T00:10:00Z";

pub fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// The object, with what a test does not care about filled in: its uid is `uid-<name>`.
pub fn object(kind: Kind, mut value: Value) -> Object {
    let name = value["metadata"]["name"].as_str().unwrap().to_owned();
    let defaults = [
        ("uid", json!(format!("uid-{name}"))),
        ("resourceVersion", json!("1")),
        ("creationTimestamp", json!("2026-01-01T00:00:00Z")),
    ];
    for (field, default) in defaults {
        if value["metadata"][field].is_null() {
            value["metadata"][field] = default;
        }
    }
    if kind.namespaced && value["metadata"]["namespace"].is_null() {
        value["metadata"]["namespace"] = json!("ns");
    }
    Object::from_json(kind, value).unwrap()
}

pub fn world(objects: impl IntoIterator<Item = (Kind, Value)>) -> World {
    let mut world = World::default();
    for (kind, value) in objects {
        world.apply(Change::Upsert(object(kind, value)));
    }
    world
}

/// An owner reference by the controlling `kind` called `name`.
pub fn controlled_by(kind: Kind, name: &str) -> Value {
    json!([{
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "name": name,
        "uid": format!("uid-{name}"),
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}

/// Actions in a few words each: the verb, the object, and what a patch says.
pub fn words(actions: &[Action]) -> Vec<String> {
    let word = |action: &Action| match action {
        Action::Create(create) => {
            let name = create.object["metadata"]["name"].as_str();
            let prefix = create.object["metadata"]["generateName"].as_str();
            let name = name.or(prefix).unwrap_or_default();
            format!("create {} {name}", create.kind.plural)
        }
        Action::Patch(patch) => patch_words(patch),
        Action::PatchAll(patches) => {
            let patches: Vec<String> = patches.iter().map(patch_words).collect();
            patches.join(" | ")
        }
        Action::Delete(delete) => {
            format!("delete {} {}", delete.kind.unwrap().plural, delete.key.name)
        }
        Action::Empty { kind, namespace } => format!("empty {} of {namespace}", kind.plural),
        Action::Finalize { namespace, .. } => format!("finalize {namespace}"),
        Action::Ask(ask) => format!("read {}", ask.path),
        Action::Tell(tell) => format!("tell {} {}", tell.reason, tell.message),
    };
    actions.iter().map(word).collect()
}

fn patch_words(patch: &Patch) -> String {
    let mut body = patch.body.clone();
    if let Some(meta) = body["metadata"].as_object_mut() {
        meta.remove("uid");
        if meta.is_empty() {
            body.as_object_mut().unwrap().remove("metadata");
        }
    }
    let part = match patch.subresource {
        "" => "",
        _ => "/status",
    };
    format!(
        "patch {}{part} {} {body}",
        patch.kind.plural, patch.key.name
    )
}
