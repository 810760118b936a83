//! Follows the local volumes of this node: lets them grow, and removes their images when they are deleted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

use super::claimed;
use super::images::{GROWN, Images};
use crate::api::pauses::Pauses;
use crate::pod::quantity;
use api::kinds::storage::local;
use sys::Shutdown;

/// When to try again what did not work: the volume may still be in use.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until shutdown. One task does one step at a time: none of them is urgent.
pub async fn run(client: Client, node: String, data_dir: PathBuf, shutdown: Shutdown) {
    let keeper = Keeper {
        api: Api::all(client),
        images: Images::new(&data_dir),
        node,
    };
    tokio::select! {
        () = shutdown.requested() => {}
        () = keeper.run() => {}
    }
}

struct Keeper {
    api: Api<PersistentVolume>,
    images: Images,
    node: String,
}

/// What is to be done about a volume. Pure.
#[derive(Debug, PartialEq, Eq)]
struct Steps {
    /// The volume is deleted and unused: its image goes if `Some(true)`, then the finalizer.
    end: Option<bool>,
    /// It is to have at least so many bytes.
    bytes: u64,
}

impl Keeper {
    async fn run(&self) {
        let selector = format!("{}={}", local::NODE_LABEL, self.node);
        let config = watcher::Config::default().labels(&selector);
        let mut events = watcher(self.api.clone(), config)
            .backoff(Pauses::default())
            .boxed();
        let mut volumes: BTreeMap<String, PersistentVolume> = BTreeMap::new();
        let mut retry_at = None;
        loop {
            let pause = async {
                match retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let changed = tokio::select! {
                event = events.next() => match event {
                    None => return,
                    Some(Ok(watcher::Event::Apply(it) | watcher::Event::InitApply(it))) => {
                        let name = it.metadata.name.clone().unwrap_or_default();
                        volumes.insert(name.clone(), it);
                        vec![name]
                    }
                    Some(Ok(watcher::Event::Delete(it))) => {
                        volumes.remove(&it.metadata.name.unwrap_or_default());
                        Vec::new()
                    }
                    Some(Ok(watcher::Event::Init)) => {
                        volumes.clear();
                        Vec::new()
                    }
                    Some(Ok(watcher::Event::InitDone)) => {
                        self.tell_of_strays(&volumes);
                        Vec::new()
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "the watch of local volumes is interrupted");
                        Vec::new()
                    }
                },
                () = GROWN.notified() => volumes.keys().cloned().collect(),
                () = pause => volumes.keys().cloned().collect(),
            };
            let mut failed = false;
            for volume in changed.iter().filter_map(|name| volumes.get(name)) {
                if let Err(error) = self.keep(volume).await {
                    let name = volume.metadata.name.as_deref();
                    tracing::debug!(error, name, "a local volume is looked at again");
                    failed = true;
                }
            }
            retry_at = failed.then(|| Instant::now() + RETRY);
        }
    }

    async fn keep(&self, volume: &PersistentVolume) -> Result<(), String> {
        let Some(steps) = steps(volume, &self.node) else {
            return Ok(());
        };
        let name = volume.metadata.name.clone().unwrap_or_default();
        let (images, of) = (self.images.clone(), name.clone());
        let work = move || match steps.end {
            Some(true) => images.remove(&of).map(|()| None),
            Some(false) => Ok(None),
            None => images.grow(&of, steps.bytes).map(|_| images.size(&of)),
        };
        let done = tokio::task::spawn_blocking(work).await;
        let size = done
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        let body = match (steps.end, size) {
            (Some(removed), _) => {
                tracing::info!(name, removed, "a local volume was deleted");
                let all = volume.metadata.finalizers.iter().flatten();
                let rest: Vec<_> = all.filter(|it| *it != local::FINALIZER).collect();
                json!({"metadata": {"finalizers": rest}})
            }
            (None, Some(size)) if says(volume) != Some(size) => {
                json!({"metadata": {"annotations": {local::SIZE: size.to_string()}}})
            }
            _ => return Ok(()),
        };
        self.patch(volume, &name, body).await
    }

    /// Only the object that was looked at is changed.
    async fn patch(
        &self,
        volume: &PersistentVolume,
        name: &str,
        mut body: serde_json::Value,
    ) -> Result<(), String> {
        body["metadata"]["resourceVersion"] = json!(volume.metadata.resource_version);
        body["metadata"]["uid"] = json!(volume.metadata.uid);
        let patched = self
            .api
            .patch(name, &PatchParams::default(), &Patch::Merge(body))
            .await;
        match patched {
            Ok(_) => Ok(()),
            // A newer state of it comes, or none.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Images are never removed for want of an object: it may be restored.
    fn tell_of_strays(&self, volumes: &BTreeMap<String, PersistentVolume>) {
        let names = self.images.all().unwrap_or_default();
        for name in names.iter().filter(|name| !volumes.contains_key(*name)) {
            tracing::warn!(
                name,
                "a disk image has no PersistentVolume any more, and is kept"
            );
        }
    }
}

/// None: the volume is not this node's.
fn steps(volume: &PersistentVolume, node: &str) -> Option<Steps> {
    if claimed::local_node(volume).as_deref() != Some(node) {
        return None;
    }
    let (meta, spec) = (&volume.metadata, volume.spec.as_ref()?);
    let phase = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let holds = meta
        .finalizers
        .iter()
        .flatten()
        .any(|it| it == local::FINALIZER);
    let ends = meta.deletion_timestamp.is_some() && phase != Some("Bound");
    let deletes = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    let capacity = spec.capacity.as_ref().and_then(|all| all.get("storage"));
    let milli = capacity.and_then(quantity::milli).unwrap_or(0);
    Some(Steps {
        end: (ends && holds).then_some(deletes),
        bytes: u64::try_from(milli / 1000).unwrap_or(0),
    })
}

fn says(volume: &PersistentVolume) -> Option<u64> {
    let annotations = volume.metadata.annotations.as_ref()?;
    annotations.get(local::SIZE)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_goes_with_its_deleted_volume_once_no_claim_has_it() {
        let volume = |phase: &str, policy: &str, deleted: bool| {
            let mut volume = json!({
                "metadata": {"name": "v", "finalizers": [local::FINALIZER]},
                "spec": {"capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": policy,
                    "csi": {"driver": local::DRIVER, "volumeHandle": "v",
                        "volumeAttributes": {"node": "n1"}}},
                "status": {"phase": phase},
            });
            if deleted {
                volume["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value::<PersistentVolume>(volume).unwrap()
        };
        let end = |volume: &PersistentVolume| steps(volume, "n1").unwrap().end;
        assert_eq!(end(&volume("Released", "Delete", true)), Some(true));
        assert_eq!(end(&volume("Bound", "Delete", true)), None);
        assert_eq!(end(&volume("Released", "Delete", false)), None);
        assert_eq!(end(&volume("Released", "Retain", true)), Some(false));
        assert_eq!(steps(&volume("Released", "Delete", true), "n2"), None);
        let bytes = steps(&volume("Bound", "Delete", false), "n1")
            .unwrap()
            .bytes;
        assert_eq!(bytes, 1 << 30);
    }
}
