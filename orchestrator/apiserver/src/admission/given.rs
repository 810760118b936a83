//! What a write must meet, or is given, because of other objects: its namespace. A Service's addresses and
//! node ports are in `services`.

use serde_json::{Value, json};

use crate::State;
use crate::objects::put;
use crate::reply::internal;
use api::{self, ApiError, Behaviour, Resource, meta};
use store::{Expect, Write};

use super::plugins::TOKEN_VOLUME;

/// Nothing new may be made in a namespace that is absent or going.
pub fn namespace_is_open(
    state: &State,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    if !resource.namespaced() {
        return Ok(());
    }
    let namespaces = api::find("", "v1", "namespaces").ok_or(ApiError::NoSuchResource)?;
    let found = state.objects.get(namespaces, "", namespace)?;
    if found
        .fields()
        .get("status.phase")
        .is_some_and(|phase| phase == "Terminating")
    {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        return Err(ApiError::forbidden(resource, name, why));
    }
    Ok(())
}

/// A pod that is sent back as its manifest keeps what it was given when it was made.
pub fn keep_given(resource: &Resource, new: &mut Value, old: &Value) {
    if resource.behaviour != Behaviour::Pod {
        return;
    }
    for field in ["priority", "preemptionPolicy", "imagePullSecrets"] {
        if new["spec"][field].is_null() && !old["spec"][field].is_null() {
            new["spec"][field] = old["spec"][field].clone();
        }
    }
    keep_token(new, old);
    let given = [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ];
    let tolerations = |pod: &Value| pod["spec"]["tolerations"].as_array().cloned();
    let (mut kept, before) = (tolerations(new).unwrap_or_default(), tolerations(old));
    for toleration in before.unwrap_or_default() {
        let is_given = given.iter().any(|key| toleration["key"] == *key);
        if is_given && !kept.iter().any(|other| other["key"] == toleration["key"]) {
            kept.push(toleration);
        }
    }
    if !kept.is_empty() {
        new["spec"]["tolerations"] = kept.into();
    }
}

/// The volume of its ServiceAccount's token, and where it is mounted.
fn keep_token(new: &mut Value, old: &Value) {
    let of_token = |part: &Value| {
        let name = part["name"].as_str().unwrap_or_default();
        name.starts_with(TOKEN_VOLUME)
    };
    let first = |list: &Value| {
        let list = list.as_array().into_iter().flatten();
        list.into_iter().find(|part| of_token(part)).cloned()
    };
    let Some(volume) = first(&old["spec"]["volumes"]) else {
        return;
    };
    if first(&new["spec"]["volumes"]).is_some() {
        return;
    }
    push(&mut new["spec"]["volumes"], volume);
    for list in ["initContainers", "containers"] {
        let before = old["spec"][list].as_array().into_iter().flatten();
        // Indexing would put a null there.
        let containers = new["spec"].get_mut(list).and_then(Value::as_array_mut);
        let containers = containers.into_iter().flatten();
        for (container, before) in containers.zip(before) {
            if let Some(mount) = first(&before["volumeMounts"]) {
                push(&mut container["volumeMounts"], mount);
            }
        }
    }
}

fn push(to: &mut Value, item: Value) {
    match to.as_array_mut() {
        Some(list) => list.push(item),
        None => *to = json!([item]),
    }
}

/// What is written together with a new object: a namespace comes with its service account.
pub fn companions(
    state: &State,
    resource: &Resource,
    object: &Value,
) -> Result<Vec<Write>, ApiError> {
    if resource.behaviour != Behaviour::Namespace {
        return Ok(Vec::new());
    }
    let accounts = api::find("", "v1", "serviceaccounts").ok_or(ApiError::NoSuchResource)?;
    // Left from an earlier namespace of this name, or put into the store before it.
    let name = meta::name(object);
    if state.objects.cache.get(accounts, name, "default").is_some() {
        return Ok(Vec::new());
    }
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": "default",
            "namespace": name,
            "uid": new_uid(),
            "creationTimestamp": object["metadata"]["creationTimestamp"],
        },
    });
    Ok(vec![put(accounts, &account, Expect::Any)])
}

/// A new object's uid.
pub fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The name of an object that asks for a generated one.
pub fn generate_name(object: &mut Value) -> Result<bool, ApiError> {
    let prefix = object["metadata"]["generateName"]
        .as_str()
        .unwrap_or_default();
    if !meta::name(object).is_empty() || prefix.is_empty() {
        return Ok(false);
    }
    let bits = uuid::Uuid::new_v4().as_u64_pair();
    // The second half of a random UUID carries the variant in its top bits: mix both.
    let name = meta::generated_name(prefix, bits.0 ^ bits.1);
    let metadata = object["metadata"].as_object_mut();
    let metadata = metadata.ok_or_else(|| internal("an object without metadata"))?;
    metadata.insert("name".to_owned(), name.into());
    Ok(true)
}
