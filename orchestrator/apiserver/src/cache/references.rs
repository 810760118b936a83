//! Which Secrets, ConfigMaps, ServiceAccounts and claims the pods of a node refer to: what its agent may
//! read. Kept by the cache, so it is never older than the pod that the agent was told of.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::Cached;

/// The kinds that a pod refers to by name, in its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Referent {
    ConfigMap,
    Secret,
    ServiceAccount,
    Claim,
}

impl Referent {
    /// The kind's resource, in the core group.
    pub fn plural(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            Self::Secret => "secrets",
            Self::ServiceAccount => "serviceaccounts",
            Self::Claim => "persistentvolumeclaims",
        }
    }

    /// The kind of a resource of the core group.
    pub fn of(plural: &str) -> Option<Self> {
        match plural {
            "configmaps" => Some(Self::ConfigMap),
            "secrets" => Some(Self::Secret),
            "serviceaccounts" => Some(Self::ServiceAccount),
            "persistentvolumeclaims" => Some(Self::Claim),
            _ => None,
        }
    }
}

/// The references of bound pods, by node and by the pod's key. Written with the pods themselves.
#[derive(Default)]
pub(super) struct References(BTreeMap<Box<str>, BTreeMap<Arc<str>, Named>>);

/// What one pod refers to.
type Named = Box<[(Referent, Box<str>)]>;

impl References {
    /// Takes in a pod that is new or has changed. A node makes mirrors of its static pods itself: what they name
    /// gives it no right to anything (kubernetes 1.33, `plugin/pkg/auth/authorizer/node`). That it makes none that
    /// name others is seen to by `node_writes`; here it is seen to once more.
    pub fn add(&mut self, pod: &Cached) {
        let Read {
            node,
            named,
            is_mirror,
        } = match read(&pod.bytes()) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(key = &*pod.key, %error, "a stored pod does not read");
                return;
            }
        };
        if !node.is_empty() && !is_mirror {
            let pods = self.0.entry(node.into()).or_default();
            pods.insert(pod.key.clone(), named);
        }
    }

    /// Forgets a pod that is gone, or the state of one that has changed.
    pub fn remove(&mut self, pod: &Cached) {
        // The one index of pods is their node.
        let node = pod.indexed().first().map_or("", |node| &**node);
        if let Some(pods) = self.0.get_mut(node) {
            pods.remove(&pod.key);
            if pods.is_empty() {
                self.0.remove(node);
            }
        }
    }

    /// Whether a pod of that node whose key begins with `prefix` (its namespace's) refers to it.
    pub fn has(&self, node: &str, prefix: &str, kind: Referent, name: &str) -> bool {
        let Some(pods) = self.0.get(node) else {
            return false;
        };
        pods.range::<str, _>((Included(prefix), Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .any(|(_, named)| named.iter().any(|(is, of)| *is == kind && &**of == name))
    }

    /// The namespaces and names of the claims that pods of that node refer to.
    pub fn claims_of(&self, node: &str) -> Vec<(String, String)> {
        let pods = self.0.get(node).into_iter().flatten();
        let claims = pods.flat_map(|(key, named)| {
            // A pod's key ends with its namespace and its name.
            let namespace = key.rsplit('/').nth(1).unwrap_or_default();
            let claims = named.iter().filter(|(is, _)| *is == Referent::Claim);
            claims.map(|(_, name)| (namespace.to_owned(), name.to_string()))
        });
        claims.collect()
    }
}

/// Everything that a pod refers to, wherever it is bound to.
pub fn referred(pod: &Value) -> Result<Vec<(Referent, Box<str>)>, serde_json::Error> {
    let found = read(pod.to_string().as_bytes())?;
    Ok(found.named.into_vec())
}

/// What is read of a pod.
struct Read {
    /// Empty while it is bound to none.
    node: String,
    named: Named,
    /// A node shows one of its static pods by it.
    is_mirror: bool,
}

fn read(pod: &[u8]) -> Result<Read, serde_json::Error> {
    let Pod { metadata, spec } = serde_json::from_slice::<Pod<'_>>(pod)?;
    let mut named = vec![(Referent::ServiceAccount, spec.service_account_name)];
    let pull = spec.image_pull_secrets.into_iter();
    named.extend(pull.map(|secret| (Referent::Secret, secret.name)));
    let containers = spec.containers.into_iter();
    let containers = containers
        .chain(spec.init_containers)
        .chain(spec.ephemeral_containers);
    for container in containers {
        let values = container.env.into_iter().filter_map(|env| env.value_from);
        for source in values.chain(container.env_from) {
            named.extend(source.config_map.map(|it| (Referent::ConfigMap, it.name)));
            named.extend(source.secret.map(|it| (Referent::Secret, it.name)));
        }
    }
    for volume in spec.volumes {
        let claim = volume.persistent_volume_claim;
        named.extend(claim.map(|it| (Referent::Claim, it.name)));
        // Made for the pod (KEP-1698).
        let made = volume
            .ephemeral
            .map(|_| format!("{}-{}", metadata.name, volume.name));
        named.extend(made.map(|it| (Referent::Claim, it.into())));
        let secret = volume.csi.and_then(|csi| csi.node_publish_secret_ref);
        named.extend(secret.map(|it| (Referent::Secret, it.name)));
        let own = Source {
            config_map: volume.config_map,
            secret: volume.secret,
        };
        let projected = volume.projected.into_iter().flat_map(|it| it.sources);
        for source in std::iter::once(own).chain(projected) {
            named.extend(source.config_map.map(|it| (Referent::ConfigMap, it.name)));
            named.extend(source.secret.map(|it| (Referent::Secret, it.name)));
        }
    }
    named.retain(|(_, name)| !name.is_empty());
    named.sort_unstable();
    named.dedup();
    let named = named.into_iter();
    let named = named.map(|(kind, name)| (kind, name.into_owned().into_boxed_str()));
    Ok(Read {
        node: spec.node_name.into_owned(),
        named: named.collect(),
        is_mirror: metadata.annotations.unwrap_or_default().mirror.is_some(),
    })
}

/// The part of a pod that names others.
#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    annotations: Option<Annotations>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    node_name: Cow<'a, str>,
    #[serde(borrow)]
    service_account_name: Cow<'a, str>,
    #[serde(borrow)]
    image_pull_secrets: Vec<Name<'a>>,
    #[serde(borrow)]
    containers: Vec<Container<'a>>,
    #[serde(borrow)]
    init_containers: Vec<Container<'a>>,
    #[serde(borrow)]
    ephemeral_containers: Vec<Container<'a>>,
    #[serde(borrow)]
    volumes: Vec<Volume<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Container<'a> {
    #[serde(borrow)]
    env: Vec<Env<'a>>,
    #[serde(borrow)]
    env_from: Vec<Source<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Env<'a> {
    #[serde(borrow)]
    value_from: Option<Source<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Volume<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    persistent_volume_claim: Option<Name<'a>>,
    ephemeral: Option<IgnoredAny>,
    #[serde(borrow)]
    config_map: Option<Name<'a>>,
    #[serde(borrow)]
    secret: Option<Name<'a>>,
    #[serde(borrow)]
    projected: Option<Projected<'a>>,
    #[serde(borrow)]
    csi: Option<Csi<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Csi<'a> {
    #[serde(borrow)]
    node_publish_secret_ref: Option<Name<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Projected<'a> {
    #[serde(borrow)]
    sources: Vec<Source<'a>>,
}

/// A place that values come from: of a variable, of all of them, of a volume.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Source<'a> {
    #[serde(
        borrow,
        rename = "configMap",
        alias = "configMapRef",
        alias = "configMapKeyRef"
    )]
    config_map: Option<Name<'a>>,
    #[serde(borrow, alias = "secretRef", alias = "secretKeyRef")]
    secret: Option<Name<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Name<'a> {
    #[serde(borrow, alias = "secretName", alias = "claimName")]
    name: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_place_of_a_pod_that_names_another_object_is_found() {
        let from = |kind: &str, name: &str| json!({ kind: { "name": name } });
        let pod = json!({"metadata": {"name": "p"}, "status": {"phase": "Failed"}, "spec": {
            "nodeName": "one",
            "serviceAccountName": "account",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{
                "name": "c",
                "env": [
                    {"name": "A", "value": "v"},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
                    {"name": "C",
                        "valueFrom": {"configMapKeyRef": {"name": "map-key", "key": "k"}}},
                    {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "envFrom": [from("secretRef", "all"), from("configMapRef", "map-all")],
            }],
            "initContainers": [{"name": "i", "envFrom": [from("secretRef", "init")]}],
            "ephemeralContainers": [{"name": "e", "envFrom": [from("secretRef", "late")]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "\u{e9}\"volume", "defaultMode": 420}},
                {"name": "b", "configMap": {"name": "map-volume"}},
                {"name": "c", "emptyDir": {}},
                {"name": "d", "projected": {"sources": [
                    from("secret", "part"), from("configMap", "map-part"),
                    {"serviceAccountToken": {"path": "token"}}]}},
                {"name": "e", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "f", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                {"name": "g", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "mount"}}},
            ],
        }});
        let Read {
            node,
            named,
            is_mirror,
        } = read(pod.to_string().as_bytes()).expect("it reads");
        assert_eq!((node.as_str(), is_mirror), ("one", false));
        let of = |kind: Referent| -> Vec<&str> {
            let of_kind = named.iter().filter(|(is, _)| *is == kind);
            of_kind.map(|(_, name)| &**name).collect()
        };
        let secrets = [
            "all",
            "init",
            "key",
            "late",
            "mount",
            "part",
            "pull",
            "\u{e9}\"volume",
        ];
        assert_eq!(of(Referent::Secret), secrets);
        let maps = ["map-all", "map-key", "map-part", "map-volume"];
        assert_eq!(of(Referent::ConfigMap), maps);
        assert_eq!(of(Referent::ServiceAccount), ["account"]);
        assert_eq!(of(Referent::Claim), ["data", "p-f"]);
    }

    #[test]
    fn a_pod_without_a_node_or_with_nothing_to_name_reads() {
        let found = read(br#"{"spec":{"containers":[{"name":"c"}]}}"#).expect("it reads");
        assert!(found.node.is_empty() && found.named.is_empty());
    }

    #[test]
    fn what_a_mirror_refers_to_is_known_and_is_no_right_of_its_node() {
        let pod = json!({
            "metadata": {"name": "p", "annotations": {"a": 1, "kubernetes.io/config.mirror": "abc"}},
            "spec": {"nodeName": "one", "volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
        });
        let found = read(pod.to_string().as_bytes()).expect("it reads");
        assert!(found.is_mirror && found.named.len() == 1);
    }
}
