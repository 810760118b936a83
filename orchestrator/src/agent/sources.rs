//! The ConfigMaps and Secrets that a pod takes values from: which, and their contents as of now.
//! Nothing is kept: they are read when a container is made.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Api, Client};

use super::pod_shape;

/// What was read for one pod.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    config_maps: BTreeMap<String, ConfigMap>,
    secrets: BTreeMap<String, Secret>,
    /// Addresses of Services as environment variables have them, by name.
    pub service_env: BTreeMap<String, String>,
}

/// The kind of a source, in the words of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
}

impl Sources {
    /// Every key of a source with its bytes; none when there is no such object.
    pub fn entries(&self, kind: Kind, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        match kind {
            Kind::ConfigMap => {
                let found = self.config_maps.get(name)?;
                let text = found.data.iter().flatten();
                let text = text.map(|(key, value)| (key.clone(), value.clone().into_bytes()));
                let binary = found.binary_data.iter().flatten();
                let binary = binary.map(|(key, value)| (key.clone(), value.0.clone()));
                Some(text.chain(binary).collect())
            }
            Kind::Secret => {
                let found = self.secrets.get(name)?.data.iter().flatten();
                Some(
                    found
                        .map(|(key, value)| (key.clone(), value.0.clone()))
                        .collect(),
                )
            }
        }
    }

    /// One key of a source; none when the object or the key is not there.
    pub fn value(&self, kind: Kind, name: &str, key: &str) -> Option<Vec<u8>> {
        self.entries(kind, name)?.remove(key)
    }

    /// For tests and for pods that need nothing.
    pub fn with(config_maps: Vec<ConfigMap>, secrets: Vec<Secret>) -> Sources {
        let named = |name: &Option<String>| name.clone().unwrap_or_default();
        Sources {
            config_maps: config_maps
                .into_iter()
                .map(|it| (named(&it.metadata.name), it))
                .collect(),
            secrets: secrets
                .into_iter()
                .map(|it| (named(&it.metadata.name), it))
                .collect(),
            service_env: BTreeMap::new(),
        }
    }
}

/// Reads everything that the pod names. What does not exist is left out.
pub async fn read(client: &Client, pod: &Pod) -> Result<Sources, kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut sources = Sources::default();
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for (kind, name) in needed(pod) {
        match kind {
            Kind::ConfigMap => {
                let found = config_maps.get_opt(&name).await?;
                sources.config_maps.extend(found.map(|found| (name, found)));
            }
            Kind::Secret => {
                let found = secrets.get_opt(&name).await?;
                sources.secrets.extend(found.map(|found| (name, found)));
            }
        }
    }
    sources.service_env = service_env(client, pod, namespace).await?;
    Ok(sources)
}

/// The variables by which a container finds the API and the Services of its namespace.
async fn service_env(
    client: &Client,
    pod: &Pod,
    namespace: &str,
) -> Result<BTreeMap<String, String>, kube::Error> {
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

/// The names that a pod's containers and volumes refer to.
fn needed(pod: &Pod) -> BTreeSet<(Kind, String)> {
    let mut needed = BTreeSet::new();
    for template in pod_shape::init_templates(pod)
        .iter()
        .chain(pod_shape::main_templates(pod))
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
