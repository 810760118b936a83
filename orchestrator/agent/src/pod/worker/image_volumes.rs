//! The images that a pod has as volumes (KEP-4639): looked for and pulled as those of its containers, and laid out
//! as files of the node.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::images::pull_with;
use super::{NodeContext, Note, Worker};
use crate::api::events;
use crate::network::wiring::PodNetwork;
use crate::pod::shape;
use crate::runtime::container_spec::SpecError;
use crate::runtime::credentials::Keyring;
use crate::runtime::{Image, Runtime, RuntimeError, image_name};
use crate::volumes::image_trees::ImageTrees;

/// How long a start waits for images before the worker looks after its pod again.
const WAIT: Duration = Duration::from_secs(5);
/// Said while they are not there: the start is tried again as soon as they are.
const STILL: &str = "the images of the pod's volumes are still pulled";

/// By the volume's name: where an image's files lie.
type Laid = BTreeMap<String, PathBuf>;

/// What is known of the images that the pod has as volumes.
#[derive(Default)]
pub(super) struct ImageVolumes {
    laid: Option<Laid>,
    task: Option<AbortOnDropHandle<Result<Laid, SpecError>>>,
}

/// An image as a volume.
struct Wanted {
    volume: String,
    reference: String,
    policy: String,
}

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    /// Where the files of the pod's image volumes lie. An error may be that they are still pulled.
    pub(super) async fn image_volumes(&mut self, pod: &Pod) -> Result<Laid, SpecError> {
        let wanted = wanted(pod);
        if let Some(laid) = &self.image_volumes.laid {
            return Ok(laid.clone());
        }
        if wanted.is_empty() {
            return Ok(Laid::new());
        }
        let mut task = match self.image_volumes.task.take() {
            Some(task) => task,
            None => {
                let keyring = self.keyring().await;
                let (node, pod, notes) = (self.node.clone(), pod.clone(), self.notes.clone());
                AbortOnDropHandle::new(tokio::spawn(async move {
                    let laid = lay_all(&node, &pod, &wanted, &keyring).await;
                    // The pod may have ended meanwhile.
                    let _ = notes.send(Note::ImagesLaid).await;
                    laid
                }))
            }
        };
        match tokio::time::timeout(WAIT, &mut task).await {
            Ok(done) => {
                let laid = done.map_err(|error| SpecError::config(error.to_string()))??;
                self.image_volumes.laid = Some(laid.clone());
                Ok(laid)
            }
            Err(_) => {
                self.image_volumes.task = Some(task);
                Err(failed("FailedMount", STILL.to_owned()))
            }
        }
    }

    /// What waited for images is tried again.
    pub(super) fn images_laid(&mut self) {
        let failures = &mut self.memory.failures;
        failures.retain(|_, failure| failure.message != STILL);
    }
}

fn wanted(pod: &Pod) -> Vec<Wanted> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let volumes = volumes.into_iter().flatten();
    let images = volumes.filter_map(|volume| {
        let source = volume.image.as_ref()?;
        let reference = source.reference.clone().unwrap_or_default();
        let said = source.pull_policy.clone();
        Some(Wanted {
            volume: volume.name.clone(),
            policy: said.unwrap_or_else(|| shape::default_pull_policy(&reference).to_owned()),
            reference,
        })
    });
    images.collect()
}

async fn lay_all<R: Runtime, N: PodNetwork>(
    node: &Arc<NodeContext<R, N>>,
    pod: &Pod,
    wanted: &[Wanted],
    keyring: &Keyring,
) -> Result<Laid, SpecError> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut laid = Laid::new();
    for wish in wanted {
        let image = present(node, pod, wish, keyring).await?;
        let path = lay(node, &image, uid).await;
        let path = path.map_err(|why| {
            let volume = &wish.volume;
            let why = format!("MountVolume.SetUp failed for volume {volume:?} : {why}");
            failed("FailedMount", why)
        })?;
        laid.insert(wish.volume.clone(), path);
    }
    Ok(laid)
}

/// The image of a volume, pulled if its policy wants that.
async fn present<R: Runtime, N: PodNetwork>(
    node: &Arc<NodeContext<R, N>>,
    pod: &Pod,
    wish: &Wanted,
    keyring: &Keyring,
) -> Result<Image, SpecError> {
    let name = wish.reference.as_str();
    if !image_name::is_reference(name) {
        let why = format!("couldn't parse image name {name:?}: invalid reference format");
        return Err(failed("InvalidImageName", why));
    }
    let unknown = |error: RuntimeError| failed("ErrImagePull", error.to_string());
    let found = node.runtime.image(name).await.map_err(unknown)?;
    match (found, wish.policy.as_str()) {
        (Some(found), "Always") if !found.has_origin => return Ok(found),
        (Some(found), "IfNotPresent" | "Never") => return Ok(found),
        (None, "Never") => {
            let why = format!("Container image {name:?} is not present with pull policy of Never");
            return Err(failed("ErrImageNeverPull", why));
        }
        _ => {}
    }
    let (recorder, about) = (&node.recorder, events::pod(pod));
    let message = format!("Pulling image {name:?}");
    recorder.normal(about.clone(), "Pulling", message);
    let pulled = pull_with(&*node.runtime, name, &keyring.of(name)).await;
    pulled.map_err(|error| {
        let why = format!("Failed to pull image {name:?}: {error}");
        failed("ErrImagePull", why)
    })?;
    recorder.normal(
        about,
        "Pulled",
        format!("Successfully pulled image {name:?}"),
    );
    let found = node.runtime.image(name).await.map_err(unknown)?;
    found.ok_or_else(|| failed("ErrImagePull", format!("No such image: {name}")))
}

/// Lays the files of an image out, if they are not; gives where.
async fn lay<R: Runtime, N: PodNetwork>(
    node: &Arc<NodeContext<R, N>>,
    image: &Image,
    uid: &str,
) -> Result<PathBuf, String> {
    let trees = ImageTrees::new(&node.data_dir);
    let (id, uid) = (image.id.clone(), uid.to_owned());
    let take = {
        let (trees, id) = (trees.clone(), id.clone());
        move || trees.take(&id, &uid)
    };
    if let Some(path) = blocking(take.clone()).await? {
        return Ok(path);
    }
    // Whole seconds, as archives have them.
    let since = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    let root = node.runtime.root_of(&id).await;
    let root = root.map_err(|error| error.to_string())?;
    let mut archive = node.runtime.export(&root);
    let (parts, from) = mpsc::channel(1);
    let feeding = async move {
        while let Some(part) = archive.next().await {
            // Who fills has failed, and says why.
            if parts.send(part).await.is_err() {
                return;
            }
        }
    };
    let part = Bytes::new();
    let filling = blocking(move || trees.fill(&id, since, Parts { from, part }));
    let ((), filled) = tokio::join!(feeding, filling);
    if let Err(error) = node.runtime.remove(&root).await {
        tracing::warn!(%error, root, "a root that was exported is left behind");
    }
    filled?;
    blocking(take)
        .await?
        .ok_or_else(|| "its files are gone".to_owned())
}

/// An archive as it comes, for who reads it in a thread that may block.
struct Parts {
    from: mpsc::Receiver<Result<Bytes, RuntimeError>>,
    part: Bytes,
}

impl Read for Parts {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.from.blocking_recv() {
                Some(part) => self.part = part.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.part.len());
        self.part.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}

fn failed(reason: &'static str, message: String) -> SpecError {
    SpecError { reason, message }
}
