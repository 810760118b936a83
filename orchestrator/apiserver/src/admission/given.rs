//! What a write must meet, or is given, because of other objects: its namespace, a pod's service
//! account. A Service's addresses and node ports are in `services`.

use serde_json::{Value, json};

use crate::State;
use crate::objects::put;
use crate::reply::{self, internal};
use api::{self, ApiError, Behaviour, Resource, meta};
use store::{Expect, Write};

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

/// What a new object refers to must be there; a pod gets the pull secrets of its service account if it names
/// none.
pub fn complete(state: &State, resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    if resource.behaviour != Behaviour::Pod {
        return Ok(());
    }
    let (name, namespace) = (meta::name(object).to_owned(), meta::namespace(object));
    let accounts = api::find("", "v1", "serviceaccounts").ok_or(ApiError::NoSuchResource)?;
    let account = object["spec"]["serviceAccountName"].as_str();
    let account = account.unwrap_or_default();
    let Some(found) = state.objects.cache.get(accounts, namespace, account) else {
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" \
             not found"
        );
        return Err(ApiError::forbidden(resource, &name, why));
    };
    give_pull_secrets(object, &reply::parse(&found.bytes())?);
    Ok(())
}

/// The pod then refers to them itself, which gives its node the right to read them.
fn give_pull_secrets(pod: &mut Value, account: &Value) {
    let is_given = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let given = &account["imagePullSecrets"];
    if !is_given(&pod["spec"]["imagePullSecrets"]) && is_given(given) {
        pod["spec"]["imagePullSecrets"] = given.clone();
    }
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
