//! What a pod takes values from: which ConfigMaps and Secrets, their contents as of now, and the
//! addresses of Services. The ConfigMaps and Secrets are those that `watched` knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, Pod, Secret, Service, ServiceAccountTokenProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client};

use super::trust_bundles::{self, BundleWish};
use crate::pod::shape;

/// What is known for one pod.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub objects: Objects,
    /// Tokens of its ServiceAccount, or why there is none.
    pub tokens: Tokens,
    pub claimed: Claimed,
    pub mounted: BTreeMap<String, Mounted>,
    /// Where the files of images lie that are volumes, by the name of the volume in the pod.
    pub images: BTreeMap<String, PathBuf>,
    /// Addresses of Services as environment variables have them, by name.
    pub service_env: BTreeMap<String, String>,
}

/// The objects that a pod refers to and that are there.
pub type Objects = BTreeMap<Wanted, Arc<Contents>>;

/// What a pod refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// An object of the pod's namespace, by its name.
    Object(Kind, String),
    /// Certificates of authorities, which are no namespace's.
    Bundles(BundleWish),
}

/// The tokens that a pod's volumes ask for.
pub type Tokens = BTreeMap<TokenWish, Result<Token, String>>;

/// The volumes of a pod's claims, or why there is none, by the name of the volume in the pod.
pub type Claimed = BTreeMap<String, Result<Arc<PersistentVolume>, String>>;

/// What a CSI driver has mounted for a pod, by the name of the volume in the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub path: PathBuf,
    /// The agent gives its files to the pod's group.
    pub is_given: bool,
    pub read_only: bool,
    /// It is a device.
    pub is_block: bool,
}

/// A token that a volume asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenWish {
    /// Empty: the API server's.
    pub audience: String,
    /// How long it is to be good.
    pub seconds: i64,
}

/// A token. It is in no `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl TokenWish {
    pub fn of(projection: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: projection.audience.clone().unwrap_or_default(),
            seconds: projection.expiration_seconds.unwrap_or(3600),
        }
    }
}

/// The kind of a source, in the words of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
}

/// What is kept of a ConfigMap, a Secret or ClusterTrustBundles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    pub entries: BTreeMap<String, Vec<u8>>,
    /// Why there are no entries, although the object is there.
    pub problem: Option<String>,
    pub immutable: bool,
    /// The store's revision at which it was written.
    pub revision: u64,
}

impl From<ConfigMap> for Contents {
    fn from(object: ConfigMap) -> Contents {
        let text = object.data.into_iter().flatten();
        let text = text.map(|(key, value)| (key, value.into_bytes()));
        let binary = object.binary_data.into_iter().flatten();
        let binary = binary.map(|(key, value)| (key, value.0));
        Contents {
            entries: text.chain(binary).collect(),
            problem: None,
            immutable: object.immutable == Some(true),
            revision: revision(&object.metadata),
        }
    }
}

impl From<Secret> for Contents {
    fn from(object: Secret) -> Contents {
        let entries = object.data.into_iter().flatten();
        Contents {
            entries: entries.map(|(key, value)| (key, value.0)).collect(),
            problem: None,
            immutable: object.immutable == Some(true),
            revision: revision(&object.metadata),
        }
    }
}

/// For a deleted object, the revision of its deletion.
pub(super) fn revision(meta: &ObjectMeta) -> u64 {
    let text = meta.resource_version.as_deref();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Sources {
    /// Every key of a source with its bytes; none when there is no such object.
    pub fn entries(&self, kind: Kind, name: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        let found = self.objects.get(&Wanted::Object(kind, name.to_owned()))?;
        Some(&found.entries)
    }

    /// One key of a source; none when the object or the key is not there.
    pub fn value(&self, kind: Kind, name: &str, key: &str) -> Option<&Vec<u8>> {
        self.entries(kind, name)?.get(key)
    }
}

/// The variables by which a container finds the API and the Services of its namespace.
pub async fn service_env(
    client: &Client,
    pod: &Pod,
) -> Result<BTreeMap<String, String>, kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut env = BTreeMap::new();
    let in_default: Api<Service> = Api::namespaced(client.clone(), "default");
    if let Some(api) = in_default.get_opt("kubernetes").await? {
        add_service(&api, &mut env);
    }
    let links = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.enable_service_links)
        .unwrap_or(true);
    if links {
        let all: Api<Service> = Api::namespaced(client.clone(), namespace);
        for service in all.list(&ListParams::default()).await?.items {
            add_service(&service, &mut env);
        }
    }
    Ok(env)
}

/// Docker's link variables, as Kubernetes writes them.
fn add_service(service: &Service, env: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let address = spec
        .cluster_ip
        .as_deref()
        .filter(|ip| !ip.is_empty() && *ip != "None");
    let (Some(address), Some(name)) = (address, &service.metadata.name) else {
        return;
    };
    let name = name.to_uppercase().replace('-', "_");
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    env.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
    env.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{address}:{}", port.port);
        if let Some(port_name) = &port.name {
            let port_name = port_name.to_uppercase().replace('-', "_");
            env.insert(
                format!("{name}_SERVICE_PORT_{port_name}"),
                port.port.to_string(),
            );
        }
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        env.insert(format!("{prefix}_PROTO"), lower);
        env.insert(format!("{prefix}_PORT"), port.port.to_string());
        env.insert(format!("{prefix}_ADDR"), address.to_owned());
        env.entry(format!("{name}_PORT"))
            .or_insert_with(|| url.clone());
        env.insert(prefix, url);
    }
}

/// The tokens that a pod's volumes ask for.
pub fn wished_tokens(pod: &Pod) -> BTreeSet<TokenWish> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let projected = volumes.into_iter().flatten();
    let projected = projected.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref());
    let tokens = projected.flatten();
    let tokens = tokens.filter_map(|source| source.service_account_token.as_ref());
    tokens.map(TokenWish::of).collect()
}

/// The names of the Secrets with which a pod's images are pulled.
pub fn pull_secrets(pod: &Pod) -> impl Iterator<Item = &String> {
    let spec = pod.spec.as_ref();
    let named = spec.and_then(|spec| spec.image_pull_secrets.as_ref());
    let names = named.into_iter().flatten().map(|it| &it.name);
    names.filter(|name| !name.is_empty())
}

/// What a pod's images, containers and volumes refer to.
pub fn needed(pod: &Pod) -> BTreeSet<Wanted> {
    let objects = objects_of(pod).into_iter();
    let objects = objects.map(|(kind, name)| Wanted::Object(kind, name));
    let bundles = trust_bundles::wished(pod).into_iter().map(Wanted::Bundles);
    objects.chain(bundles).collect()
}

fn objects_of(pod: &Pod) -> BTreeSet<(Kind, String)> {
    let pull = pull_secrets(pod).map(|name| (Kind::Secret, name.clone()));
    let mut needed: BTreeSet<_> = pull.collect();
    let ephemeral = shape::ephemeral_templates(pod);
    for template in shape::init_templates(pod)
        .iter()
        .chain(shape::main_templates(pod))
        .chain(ephemeral.iter().map(|(template, _)| template))
    {
        for from in template.env_from.iter().flatten() {
            needed.extend(
                from.config_map_ref
                    .as_ref()
                    .map(|it| (Kind::ConfigMap, it.name.clone())),
            );
            needed.extend(
                from.secret_ref
                    .as_ref()
                    .map(|it| (Kind::Secret, it.name.clone())),
            );
        }
        for from in template
            .env
            .iter()
            .flatten()
            .filter_map(|var| var.value_from.as_ref())
        {
            let config_map = from.config_map_key_ref.as_ref();
            needed.extend(config_map.map(|it| (Kind::ConfigMap, it.name.clone())));
            needed.extend(
                from.secret_key_ref
                    .as_ref()
                    .map(|it| (Kind::Secret, it.name.clone())),
            );
        }
    }
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    for volume in volumes.into_iter().flatten() {
        needed.extend(
            volume
                .config_map
                .as_ref()
                .map(|it| (Kind::ConfigMap, it.name.clone())),
        );
        let secret = volume.secret.as_ref().and_then(|it| it.secret_name.clone());
        needed.extend(secret.map(|name| (Kind::Secret, name)));
        let projected = volume.projected.as_ref().and_then(|it| it.sources.as_ref());
        for source in projected.into_iter().flatten() {
            needed.extend(
                source
                    .config_map
                    .as_ref()
                    .map(|it| (Kind::ConfigMap, it.name.clone())),
            );
            needed.extend(
                source
                    .secret
                    .as_ref()
                    .map(|it| (Kind::Secret, it.name.clone())),
            );
        }
    }
    needed
}
