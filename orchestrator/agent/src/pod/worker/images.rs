//! The images of a pod: looked for, pulled with the pod's secrets, and the words of a kubelet for what goes
//! wrong.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Template, Pod};
use tokio::time::Instant;

use super::files::OBJECTS_TIMEOUT;
use super::{Note, Step, Worker, is_pulling};

use crate::api::events;
use crate::api::sources::{self, Kind, Wanted};
use crate::network::wiring::PodNetwork;
use crate::pod::plan::{Failure, ImageState};
use crate::runtime::container_spec::SpecError;
use crate::runtime::credentials::{Credentials, Keyring};
use crate::runtime::image_name;
use crate::runtime::{Image, Runtime, RuntimeError};

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    pub(super) async fn ensure_image(
        &mut self,
        container: String,
        image: String,
        policy: &str,
    ) -> Step {
        if is_pulling(&self.memory, &container) {
            return Step::Settled;
        }
        if !image_name::is_reference(&image) {
            let message = format!(
                "Failed to apply default image tag {image:?}: couldn't parse image name \
                 {image:?}: invalid reference format"
            );
            let about = events::container(&self.update.pod, &container);
            let recorder = &self.node.recorder;
            recorder.warning(about, "InspectFailed", message.clone());
            self.image_failed(container, "InvalidImageName", message);
            return Step::Progress;
        }
        let found = match self.clock.engine(self.node.runtime.image(&image)).await {
            Ok(found) => found,
            Err(error) => return self.later("look for an image", &error),
        };
        let about = events::container(&self.update.pod, &container);
        match (found, policy) {
            (Some(found), "Always") if found.has_origin => self.pull(container, image).await,
            (Some(found), _) => {
                let message = format!("Container image \"{image}\" already present on machine");
                self.node.recorder.normal(about, "Pulled", message);
                self.found_images.insert(container.clone(), found);
                self.memory.images.insert(container, ImageState::Ready);
                Step::Progress
            }
            (None, "Never") => {
                let message =
                    format!("Container image \"{image}\" is not present with pull policy of Never");
                let recorder = &self.node.recorder;
                recorder.warning(about, "ErrImageNeverPull", message.clone());
                self.image_failed(container, "ErrImageNeverPull", message);
                Step::Progress
            }
            (None, _) => self.pull(container, image).await,
        }
    }

    /// Pulls in the background: a slow registry must not keep the pod from being stopped.
    async fn pull(&mut self, container: String, image: String) -> Step {
        let about = events::container(&self.update.pod, &container);
        let message = format!("Pulling image \"{image}\"");
        self.node.recorder.normal(about, "Pulling", message);
        let shown = self.keyring().await.of(&image);
        self.clock.disregard();
        let pulling = ImageState::Pulling;
        self.memory.images.insert(container.clone(), pulling);
        let (node, notes) = (self.node.clone(), self.notes.clone());
        tokio::spawn(async move {
            let started = Instant::now();
            let outcome = pull_with(&*node.runtime, &image, &shown).await;
            let took = started.elapsed();
            // The pod may have ended meanwhile.
            let _ = notes
                .send(Note::Pulled {
                    container,
                    image,
                    outcome,
                    took,
                })
                .await;
        });
        Step::Settled
    }

    /// What the pod's pull secrets say; those that are not there are named in an event.
    pub(super) async fn keyring(&mut self) -> Keyring {
        let mut keyring = Keyring::default();
        let pod = self.update.pod.clone();
        if sources::pull_secrets(&pod).next().is_none() {
            return keyring;
        }
        let objects = match &mut self.objects {
            Some(objects) => objects.wait(OBJECTS_TIMEOUT).await,
            None => None,
        };
        let objects = objects.unwrap_or_default();
        let mut missing = Vec::new();
        for name in sources::pull_secrets(&pod) {
            let found = objects.get(&Wanted::Object(Kind::Secret, name.clone()));
            if !found.is_some_and(|found| keyring.add(&found.entries)) {
                missing.push(name.as_str());
            }
        }
        if !missing.is_empty() {
            self.tell_missing(&pod, &missing.join(", "));
        }
        keyring
    }

    fn tell_missing(&self, pod: &Pod, missing: &str) {
        let message = format!(
            "Unable to retrieve some image pull secrets ({missing}); attempting to pull the image \
             may not succeed."
        );
        let reason = "FailedToRetrieveImagePullSecret";
        self.node
            .recorder
            .warning(events::pod(pod), reason, message);
    }

    pub(super) fn pulled(
        &mut self,
        container: String,
        image: &str,
        outcome: Result<(), RuntimeError>,
        took: Duration,
    ) {
        let about = events::container(&self.update.pod, &container);
        let recorder = &self.node.recorder;
        match outcome {
            Ok(()) => {
                let message = format!("Successfully pulled image \"{image}\" in {took:.3?}");
                recorder.normal(about, "Pulled", message);
                let ready = ImageState::Ready;
                self.memory.images.insert(container.clone(), ready);
                self.pull_failures.remove(&container);
            }
            Err(error) => {
                let message = format!("Failed to pull image \"{image}\": {error}");
                recorder.warning(about, "Failed", message.clone());
                self.image_failed(container, "ErrImagePull", message);
            }
        }
    }

    /// The image that a container is made of now: a pull may have brought another one.
    pub(super) async fn image_for(&mut self, template: &Template) -> Result<Image, SpecError> {
        if let Some(found) = self.found_images.remove(&template.name) {
            return Ok(found);
        }
        let failed = |error: RuntimeError| SpecError {
            reason: "CreateContainerError",
            message: error.to_string(),
        };
        let name = template.image.as_deref().unwrap_or_default();
        let found = self.clock.engine(self.node.runtime.image(name)).await;
        let found = found.map_err(failed)?;
        let gone = || RuntimeError::NotFound(format!("No such image: {name}"));
        found.ok_or_else(gone).map_err(failed)
    }

    fn image_failed(&mut self, container: String, reason: &str, message: String) {
        let about = events::container(&self.update.pod, &container);
        let recorder = &self.node.recorder;
        recorder.warning(about, "Failed", format!("Error: {reason}"));
        let count = self.pull_failures.entry(container.clone()).or_insert(0);
        *count += 1;
        let failure = Failure {
            reason: reason.to_owned(),
            message,
            at: jiff::Timestamp::now(),
            count: *count,
        };
        let failed = ImageState::Failed(failure);
        self.memory.images.insert(container, failed);
    }
}

/// Pulls with the first credentials that the registry takes; without any if there are none.
pub(super) async fn pull_with<R: Runtime>(
    runtime: &R,
    image: &str,
    shown: &[Credentials],
) -> Result<(), RuntimeError> {
    let tries = shown.iter().map(Some);
    let none = shown.is_empty().then_some(None);
    let mut outcome = Ok(());
    for credentials in tries.chain(none) {
        outcome = runtime.pull(image, credentials).await;
        if !matches!(outcome, Err(RuntimeError::Pull(_))) {
            break;
        }
    }
    outcome
}
