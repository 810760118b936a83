//! ServiceAccount: a pod runs as one that there is, and is given its token, the cluster's certificate, and
//! its pull secrets.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{forbidden, is_pod};
use crate::admission::Attributes;
use crate::{bootstrap, reply};
use api::{ApiError, meta};

/// What pods run as that name none.
const DEFAULT: &str = "default";
/// Where client libraries look for the token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the volume's name begins with.
pub const VOLUME: &str = "kube-api-access-";
/// The ConfigMap of each namespace with the cluster's certificate.
const ROOT_CA: &str = "kube-root-ca.crt";
/// The life of the token in seconds, by which the server knows it (KEP-1205).
const LIFE: i64 = 3607;
/// The pod is a copy of one that a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

pub fn mutate(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !is_pod(attributes) || is_mirror(pod) {
        return Ok(());
    }
    let name = account_name(pod).to_owned();
    let account = account(attributes, &name)?;
    pod["spec"]["serviceAccountName"] = name.into();
    if is_mounted(&account, pod) {
        mount(pod);
    }
    give_pull_secrets(pod, &account);
    Ok(())
}

pub fn validate(attributes: &Attributes<'_>, pod: Option<&Value>) -> Result<(), ApiError> {
    let Some(pod) = pod.filter(|_| is_pod(attributes)) else {
        return Ok(());
    };
    if is_mirror(pod) {
        return check_mirror(pod).map_err(|why| forbidden(attributes, why));
    }
    let account = account(attributes, account_name(pod))?;
    let enforces = account["metadata"]["annotations"][ENFORCE].as_str();
    if matches!(enforces, Some("1" | "t" | "T" | "true" | "TRUE" | "True")) {
        check_secrets(&account, pod).map_err(|why| forbidden(attributes, why))?;
    }
    Ok(())
}

fn is_mirror(pod: &Value) -> bool {
    !pod["metadata"]["annotations"][MIRROR].is_null()
}

/// What the pod runs as, by either name of the field.
fn account_name(pod: &Value) -> &str {
    let names = ["serviceAccountName", "serviceAccount"];
    let mut given = names.iter().filter_map(|name| pod["spec"][name].as_str());
    given.find(|name| !name.is_empty()).unwrap_or(DEFAULT)
}

fn account(attributes: &Attributes<'_>, name: &str) -> Result<Value, ApiError> {
    let (namespace, accounts) = (
        attributes.namespace,
        bootstrap::find("", "serviceaccounts")?,
    );
    let cache = &attributes.state.objects.cache;
    let found = cache.get(accounts, namespace, name).ok_or_else(|| {
        forbidden(
            attributes,
            format!(
                "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not \
                 found"
            ),
        )
    })?;
    reply::parse(&found.bytes())
}

/// The pod says so, or its ServiceAccount; it is mounted if neither says anything.
fn is_mounted(account: &Value, pod: &Value) -> bool {
    let says = |object: &Value| object["automountServiceAccountToken"].as_bool();
    says(&pod["spec"]).or_else(|| says(account)).unwrap_or(true)
}

/// Mounts the token into every container that has nothing there.
fn mount(pod: &mut Value) {
    let known = known_volume(pod).map(str::to_owned);
    let is_known = known.is_some();
    let name = known.unwrap_or_else(|| meta::generated_name(VOLUME, random()));
    let mut is_used = false;
    for containers in ["initContainers", "containers"] {
        // Indexing would put a null there.
        let containers = pod["spec"].get_mut(containers);
        let containers = containers.and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let is_there = |mount: &Value| mount["mountPath"] == MOUNT_PATH;
            if list(&container["volumeMounts"]).any(is_there) {
                continue;
            }
            is_used = true;
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            add(&mut container["volumeMounts"], mount);
        }
    }
    if is_used && !is_known {
        add(&mut pod["spec"]["volumes"], volume(&name));
    }
}

/// The volume of a pod that has passed here before.
fn known_volume(pod: &Value) -> Option<&str> {
    let volumes = list(&pod["spec"]["volumes"]);
    let mut names = volumes.filter_map(|volume| volume["name"].as_str());
    names.find(|name| name.starts_with(VOLUME))
}

/// The token, the certificate by which it is to be shown to nobody but the API server, and the namespace.
fn volume(name: &str) -> Value {
    let namespace = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": LIFE, "path": "token"}},
        {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
    ]}})
}

/// The pod then refers to them itself, which gives its node the right to read them.
fn give_pull_secrets(pod: &mut Value, account: &Value) {
    let given = &account["imagePullSecrets"];
    let is_given = list(given).next().is_some();
    if is_given && list(&pod["spec"]["imagePullSecrets"]).next().is_none() {
        pod["spec"]["imagePullSecrets"] = given.clone();
    }
}

/// A node that runs a pod by itself could have anything by it.
fn check_mirror(pod: &Value) -> Result<(), &'static str> {
    let names = ["serviceAccountName", "serviceAccount"];
    let mut names = names.iter().filter_map(|name| pod["spec"][name].as_str());
    if names.any(|name| !name.is_empty()) {
        return Err("a mirror pod may not reference service accounts");
    }
    if secrets(pod).next().is_some() || list(&pod["spec"]["imagePullSecrets"]).next().is_some() {
        return Err("a mirror pod may not reference secrets");
    }
    let mut sources = projections(pod);
    match sources.any(|source| source["serviceAccountToken"].is_object()) {
        true => Err("a mirror pod may not use ServiceAccountToken volume projections"),
        false => Ok(()),
    }
}

/// Only Secrets that the ServiceAccount names.
fn check_secrets(account: &Value, pod: &Value) -> Result<(), String> {
    let names = |field: &str| -> BTreeSet<&str> {
        let names = list(&account[field]).filter_map(|secret| secret["name"].as_str());
        names.collect()
    };
    let (own, mountable) = (meta::name(account), names("secrets"));
    let refused = |secret: &Named<'_>| !mountable.contains(secret.name);
    if let Some(Named { name, place }) = secrets(pod).find(refused) {
        return Err(format!(
            "{place} secret.secretName=\"{name}\" is not allowed because service account {own} does not \
             reference that secret"
        ));
    }
    let pull = names("imagePullSecrets");
    for (number, secret) in list(&pod["spec"]["imagePullSecrets"]).enumerate() {
        let name = secret["name"].as_str().unwrap_or_default();
        if !pull.contains(name) {
            return Err(format!(
                "imagePullSecrets[{number}].name=\"{name}\" is not allowed because service account \
                 {own} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

/// A Secret that a pod refers to, and where.
struct Named<'a> {
    name: &'a str,
    place: String,
}

/// The Secrets that volumes and containers refer to.
fn secrets(pod: &Value) -> impl Iterator<Item = Named<'_>> {
    let of_volumes = list(&pod["spec"]["volumes"]).flat_map(|volume| {
        let own = volume["secret"]["secretName"].as_str();
        let projected = list(&volume["projected"]["sources"]);
        let projected = projected.filter_map(|source| source["secret"]["name"].as_str());
        own.into_iter().chain(projected)
    });
    let of_volumes = of_volumes.map(|name| Named {
        name,
        place: "volume with".to_owned(),
    });
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let containers = lists.into_iter().flat_map(|name| list(&pod["spec"][name]));
    let of_containers = containers.flat_map(|container| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let own = text(&container["name"]);
        let values = list(&container["env"]).filter_map(|env| {
            let secret = env["valueFrom"]["secretKeyRef"]["name"].as_str()?;
            Some((secret, format!(" with envVar {}", text(&env["name"]))))
        });
        let whole = list(&container["envFrom"]);
        let whole =
            whole.filter_map(|from| Some((from["secretRef"]["name"].as_str()?, String::new())));
        let all: Vec<_> = values.chain(whole).collect();
        all.into_iter().map(move |(name, of)| Named {
            name,
            place: format!("container {own}{of} referencing"),
        })
    });
    of_volumes.chain(of_containers)
}

fn projections(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["spec"]["volumes"]).flat_map(|volume| list(&volume["projected"]["sources"]))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn add(to: &mut Value, item: Value) {
    match to.as_array_mut() {
        Some(list) => list.push(item),
        None => *to = json!([item]),
    }
}

fn random() -> u64 {
    let bits = uuid::Uuid::new_v4().as_u64_pair();
    // The second half of a random UUID carries the variant in its top bits: mix both.
    bits.0 ^ bits.1
}
