//! The volumes of the pod's claims, read when a container starts. A claim stays bound to its volume, so what
//! was read once is good for the pod's life.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, Client};

use super::Worker;
use crate::api::sources::Claimed;
use crate::network::wiring::PodNetwork;
use crate::runtime::Runtime;
use crate::volumes::claimed::{self, Named};

/// How long the server may take for a claim and its volume.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    pub(super) async fn claimed(&mut self, pod: &Pod) -> Claimed {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        for named in claimed::named(pod) {
            if matches!(self.claimed.get(&named.volume), Some(Ok(_))) {
                continue;
            }
            let reading = read(&self.node.client, pod, namespace, &named);
            let read = tokio::time::timeout(READ_TIMEOUT, reading).await;
            let late = || Err("the server did not answer in time".to_owned());
            let read = read
                .unwrap_or_else(|_| late())
                .map_err(|why| format!("error processing PVC {namespace}/{}: {why}", named.claim));
            self.claimed.insert(named.volume, read.map(Arc::new));
        }
        self.claimed.clone()
    }
}

async fn read(
    client: &Client,
    pod: &Pod,
    namespace: &str,
    named: &Named,
) -> Result<PersistentVolume, String> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get(&named.claim).await;
    let claim = claim.map_err(|e| format!("failed to fetch PVC from API server: {e}"))?;
    let name = claimed::volume_of(pod, named, &claim)?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = volumes.get(name).await;
    let volume = volume.map_err(|e| format!("failed to fetch PV {name} from API server: {e}"))?;
    match claimed::is_bound(&volume, &claim) {
        true => Ok(volume),
        false => Err(format!("PV {name} is not bound to the claim")),
    }
}
