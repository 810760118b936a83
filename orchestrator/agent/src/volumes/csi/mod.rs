//! Volumes of Container Storage Interface drivers: the agent is the client that a kubelet is.
//!
//! ```text
//! driver's socket in plugins_registry ─▶ registration: GetInfo, NodeGetInfo ─▶ CSINode, labels of the node
//!
//! pod's worker ─▶ Csi::mount ─▶ note ─▶ attached? ─▶ NodeStageVolume ─▶ NodePublishVolume ─▶ path
//!              ─▶ Csi::release ◀─ note ◀─ NodeUnstageVolume (last pod) ◀─ NodeUnpublishVolume
//! ```
//!
//! A driver may hang: what is asked of it runs in a task of the pod's own, for which the worker waits a moment and
//! comes back. A note is on disk before the first call and until after the last one, so that an agent that starts
//! anew, or after a reboot, undoes what the one before it began. It says whether the driver was asked in this boot:
//! a volume for one pod is kept from others only by those. Steps on one volume are taken one at a time.

mod attached;
#[cfg(test)]
pub mod double;
pub mod driver;
mod keeper;
pub mod messages;
mod mounting;
mod records;
mod registration;
pub mod rpc;
mod wish;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use tokio_util::task::AbortOnDropHandle;

use crate::api::events::Recorder;
use crate::api::sources::{Claimed, Mounted};
use crate::runtime::container_spec::SpecError;
pub use attached::InUse;
use driver::Driver;
pub use keeper::{ROUND, run};
pub use records::Places;
use sys::mounts;
use wish::Wish;

/// How long a worker waits for a driver before it looks after its pod again.
const WAIT: Duration = match cfg!(test) {
    false => Duration::from_secs(5),
    true => Duration::from_millis(200),
};

/// The drivers of the node and what is asked of them. Clones are the same.
#[derive(Clone)]
pub struct Csi(Arc<Inner>);

struct Inner {
    node: String,
    client: Client,
    recorder: Recorder,
    places: Places,
    in_use: InUse,
    boot: String,
    /// By name.
    drivers: Mutex<BTreeMap<String, Driver>>,
    /// By uid: what goes on for a pod.
    tasks: Mutex<BTreeMap<String, Work>>,
    /// By the volume's key: one step at a time.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A task of a pod; it ends with the pod's worker.
enum Work {
    Mount(AbortOnDropHandle<Result<BTreeMap<String, Mounted>, String>>),
    Release(AbortOnDropHandle<Result<(), String>>),
}

impl Csi {
    pub fn new(
        node: &str,
        client: Client,
        recorder: Recorder,
        places: Places,
        in_use: InUse,
    ) -> Csi {
        Csi(Arc::new(Inner {
            node: node.to_owned(),
            client,
            recorder,
            places,
            in_use,
            boot: records::boot(),
            drivers: Mutex::default(),
            tasks: Mutex::default(),
            turns: Mutex::default(),
        }))
    }

    /// Has drivers mount what the pod wants of them, as far as that is not done; gives where each volume is. Volumes
    /// whose claims were not read are left out. An error may be that a driver has not answered yet: it is asked on,
    /// and the next call has its answer.
    pub async fn mount(
        &self,
        pod: &Pod,
        claimed: &Claimed,
    ) -> Result<BTreeMap<String, Mounted>, SpecError> {
        let wishes = Wish::all(pod, claimed);
        if wishes.is_empty() {
            return Ok(BTreeMap::new());
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut task = match self.take(&uid) {
            Some(Work::Mount(task)) => task,
            // The pod that is released does not begin again.
            Some(Work::Release(task)) => {
                self.tasks().insert(uid, Work::Release(task));
                return Err(super::failed_mount(
                    "the pod's volumes are let go".to_owned(),
                ));
            }
            None => {
                let (inner, pod) = (self.0.clone(), pod.clone());
                let drivers = wishes.iter().map(|wish| wish.driver.clone());
                tracing::debug!(uid, drivers = ?drivers.collect::<Vec<_>>(), "mounts");
                let mounting = async move { inner.mount_all(&pod, wishes).await };
                AbortOnDropHandle::new(tokio::spawn(mounting))
            }
        };
        match tokio::time::timeout(WAIT, &mut task).await {
            Ok(done) => done
                .unwrap_or_else(|error| Err(error.to_string()))
                .map_err(super::failed_mount),
            Err(_) => {
                self.tasks().insert(uid, Work::Mount(task));
                let why = "MountVolume: still waiting for the volume to be attached, or for its \
                           driver's answer";
                Err(super::failed_mount(why.to_owned()))
            }
        }
    }

    /// Has drivers let go of everything of the pod. An error may be that one has not answered yet.
    pub async fn release(&self, uid: &str) -> Result<(), String> {
        let mut task = match self.take(uid) {
            Some(Work::Release(task)) => task,
            begun => {
                if let Some(Work::Mount(mount)) = begun {
                    // What it may have begun is noted.
                    mount.abort();
                    drop(mount.await);
                }
                let notes = self.0.places.of_pod(uid);
                let notes = notes.map_err(|error| format!("read the pod's notes: {error}"))?;
                if notes.is_empty() {
                    return Ok(());
                }
                let inner = self.0.clone();
                let releasing = async move { inner.release_all(notes).await };
                AbortOnDropHandle::new(tokio::spawn(releasing))
            }
        };
        match tokio::time::timeout(WAIT, &mut task).await {
            Ok(done) => done.unwrap_or_else(|error| Err(error.to_string())),
            Err(_) => {
                self.tasks().insert(uid.to_owned(), Work::Release(task));
                Err("a driver has not answered yet".to_owned())
            }
        }
    }

    /// Forgets what the next agent does not know, and finds the drivers that there are.
    #[cfg(test)]
    pub async fn start_anew(&self) {
        self.tasks().clear();
        registration::look(&self.0).await;
    }

    #[cfg(test)]
    pub fn places(&self) -> &Places {
        &self.0.places
    }

    fn take(&self, uid: &str) -> Option<Work> {
        self.tasks().remove(uid)
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, Work>> {
        let tasks = self.0.tasks.lock();
        tasks.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn drivers(&self) -> MutexGuard<'_, BTreeMap<String, Driver>> {
        let drivers = self.drivers.lock();
        drivers.unwrap_or_else(PoisonError::into_inner)
    }

    fn driver(&self, name: &str) -> Result<Driver, String> {
        let found = self.drivers().get(name).cloned();
        found.ok_or_else(|| {
            format!(
                "kubernetes.io/csi: driver name {name} not found in the list of registered CSI \
                 drivers"
            )
        })
    }

    /// The turn of a volume: whoever has its lock takes the next step.
    fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let turns = self.turns.lock();
        let mut turns = turns.unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(key.to_owned()).or_default().clone()
    }
}

/// What the notes on disk say that the node uses, for its first status.
pub fn restored(places: &Places) -> InUse {
    let in_use = InUse::default();
    let notes = places.all().unwrap_or_else(|error| {
        tracing::warn!(%error, "the notes of volumes do not read");
        Vec::new()
    });
    for key in notes.iter().filter_map(|note| note.attached.as_ref()) {
        in_use.add(key);
    }
    in_use
}

/// Detaches what drivers have mounted for pods, without asking them: the node is taken apart.
pub fn detach_all(data: &Path) -> io::Result<()> {
    let places = Places {
        kubelet: PathBuf::new(),
        data: data.to_owned(),
    };
    for note in places.all()? {
        for place in [Some(&note.target), note.staging.as_ref()]
            .into_iter()
            .flatten()
        {
            mounts::detach_below(place)?;
        }
    }
    Ok(())
}
