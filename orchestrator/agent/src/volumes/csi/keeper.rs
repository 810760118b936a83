//! What goes on for volumes that are mounted: they grow with their PersistentVolumes, and drivers that want it are
//! told of them again and again (`requiresRepublish`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::driver::Driver;
use super::messages::{CapacityRange, EXPANDS, ExpandVolume};
use super::mounting::{manners, secrets};
use super::records::Note;
use super::wish::Wish;
use super::{Csi, Inner, registration};
use crate::api::events;
use crate::api::sources::Claimed;
use crate::node::running::Running;
use crate::pod::quantity;
use crate::volumes::claimed::{self, Named};
use sys::Shutdown;

/// Between two rounds over the node's volumes, where nothing else is said.
pub const ROUND: Duration = Duration::from_secs(60);
/// What a claim says while its volume is larger than what is on it.
const RESIZE_PENDING: &str = "FileSystemResizePending";

/// Registers drivers and looks after their volumes once a round, until shutdown.
pub async fn run(csi: Csi, running: Arc<Running>, round: Duration, shutdown: Shutdown) {
    let registering = tokio::spawn(registration::run(csi.0.clone(), shutdown.clone()));
    while shutdown.unless(tokio::time::sleep(round)).await.is_some() {
        // A driver that hangs keeps only its own volumes waiting.
        let pods = running.pods();
        let all = pods.values().map(|pod| csi.0.look_after(&pod.pod));
        futures::future::join_all(all).await;
    }
    registering.abort();
}

impl Inner {
    async fn look_after(&self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let notes = self.places.of_pod(uid).unwrap_or_default();
        let ends = pod.metadata.deletion_timestamp.is_some();
        if ends || notes.iter().all(|note| note.boot != self.boot) {
            return;
        }
        let mut all = Claimed::new();
        for named in claimed::named(pod) {
            let read = self.claim_and_volume(pod, &named).await;
            if let Ok((_, volume)) = read {
                all.insert(named.volume, Ok(Arc::new(volume)));
            }
        }
        for wish in Wish::all(pod, &all) {
            let Some(note) = notes.iter().find(|note| note.volume == wish.volume) else {
                continue;
            };
            if note.boot == self.boot
                && let Err(why) = self.renew(pod, &wish, note).await
            {
                tracing::debug!(
                    why,
                    uid,
                    volume = wish.volume,
                    "a volume was not looked after"
                );
            }
        }
    }

    async fn renew(&self, pod: &Pod, wish: &Wish, note: &Note) -> Result<(), String> {
        if manners(&self.client, &wish.driver).await?.republishes {
            return self.mount(pod, wish, true).await.map(drop);
        }
        let driver = self.driver(&wish.driver)?;
        let offers = driver.offers().await.map_err(|error| error.to_string())?;
        grow(self, pod, wish, (&driver, &offers, note)).await;
        Ok(())
    }

    async fn claim_and_volume(
        &self,
        pod: &Pod,
        named: &Named,
    ) -> Result<(PersistentVolumeClaim, PersistentVolume), String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let claim = claims.get(&named.claim).await.map_err(|e| e.to_string())?;
        let name = claimed::volume_of(pod, named, &claim)?.to_owned();
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let volume = volumes.get(&name).await.map_err(|e| e.to_string())?;
        match claimed::is_bound(&volume, &claim) {
            true => Ok((claim, volume)),
            false => Err(format!("PV {name} is not bound to the claim")),
        }
    }
}

/// Has the driver make what is on a volume as large as its PersistentVolume, if the claim says that it is smaller. A
/// failure is told of and tried again in the next round: the volume is of use meanwhile.
pub(super) async fn grow(
    inner: &Inner,
    pod: &Pod,
    wish: &Wish,
    (driver, offers, note): (&Driver, &[i32], &Note),
) {
    if wish.is_inline || !offers.contains(&EXPANDS) {
        return;
    }
    let grown = try_grow(inner, pod, wish, (driver, offers, note)).await;
    let about = events::pod(pod);
    match grown {
        Ok(false) => {}
        Ok(true) => {
            let message = format!(
                "MountVolume.NodeExpandVolume succeeded for volume {:?}",
                wish.name
            );
            inner
                .recorder
                .normal(about, "FileSystemResizeSuccessful", message);
        }
        Err(why) => {
            let message = format!("NodeExpandVolume failed for volume {:?} : {why}", wish.name);
            inner.recorder.warning(about, "VolumeResizeFailed", message);
        }
    }
}

async fn try_grow(
    inner: &Inner,
    pod: &Pod,
    wish: &Wish,
    (driver, offers, note): (&Driver, &[i32], &Note),
) -> Result<bool, String> {
    let all = claimed::named(pod);
    let named = all.iter().find(|named| named.volume == wish.volume);
    let Some(named) = named else {
        return Ok(false);
    };
    let (claim, volume) = inner.claim_and_volume(pod, named).await?;
    if !is_smaller(&claim, wish.capacity) {
        return Ok(false);
    }
    let range = CapacityRange {
        required_bytes: wish.capacity,
        limit_bytes: 0,
    };
    let path = |path: &std::path::Path| path.display().to_string();
    let message = ExpandVolume {
        volume_id: wish.handle.clone(),
        volume_path: path(&note.target),
        capacity_range: Some(range),
        staging_target_path: note.staging.as_deref().map(path).unwrap_or_default(),
        volume_capability: Some(wish.capability(offers, None)),
        secrets: secrets(&inner.client, wish.expand_secret.as_ref()).await?,
    };
    let grown = driver.expand(&message).await;
    grown.map_err(|error| error.to_string())?;
    let body = grown_status(&claim, &volume);
    let namespace = claim.metadata.namespace.as_deref().unwrap_or("default");
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(inner.client.clone(), namespace);
    let params = PatchParams::default();
    let written = claims
        .patch_status(&named.claim, &params, &Patch::Merge(body))
        .await;
    written.map_err(|error| error.to_string())?;
    Ok(true)
}

/// Whether a claim says that it has less than so many bytes.
fn is_smaller(claim: &PersistentVolumeClaim, bytes: i64) -> bool {
    let status = claim.status.as_ref();
    let capacity = status.and_then(|status| status.capacity.as_ref());
    let has = capacity.and_then(|all| all.get("storage"));
    let has = has.and_then(quantity::milli);
    has.is_some_and(|milli| milli / 1000 < i128::from(bytes))
}

/// What a claim says once its volume has grown.
fn grown_status(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Value {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    let status = claim.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let others = conditions.into_iter().flatten();
    let others: Vec<_> = others
        .filter(|it| ![RESIZE_PENDING, "Resizing"].contains(&it.type_.as_str()))
        .collect();
    let capacity = capacity.and_then(|all| all.get("storage"));
    json!({
        "metadata": {"uid": claim.metadata.uid},
        "status": {"capacity": {"storage": capacity}, "conditions": others},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_has_less_than_its_volume_gets_the_volumes_size_and_loses_the_condition() {
        let claim = json!({"metadata": {"uid": "u"}, "status": {
            "capacity": {"storage": "1Gi"},
            "conditions": [{"type": "FileSystemResizePending", "status": "True"},
                {"type": "Other", "status": "True"}]}});
        let claim = serde_json::from_value(claim).expect("a claim");
        let volume = json!({"metadata": {}, "spec": {"capacity": {"storage": "2Gi"}}});
        let volume = serde_json::from_value(volume).expect("a volume");
        assert!(is_smaller(&claim, 2 << 30));
        assert!(!is_smaller(&claim, 1 << 30));
        let body = grown_status(&claim, &volume);
        assert_eq!(body["status"]["capacity"]["storage"], "2Gi");
        assert_eq!(
            body["status"]["conditions"].as_array().map(Vec::len),
            Some(1)
        );
    }
}
