//! The executor: one method an action. Each is safe to do again.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::time::Instant;

use super::Note;
use super::RETRY;
use super::Step;
use super::Worker;
use super::alarm;
use super::is_pulling;
use super::pod_name;

use crate::api::events;
use crate::network::pod_net::shaping::Bandwidth;
use crate::network::wiring::PodNetwork;
use crate::pod::plan::{Action, Attached, Failure, ImageState};
use crate::pod::shape;
use crate::runtime::container_spec;
use crate::runtime::image_name;
use crate::runtime::{Identity, Image, Role, Runtime, RuntimeError};
use datapath::Addrs;

/// A container that was told to die is looked at again after this, if no news comes.
const DYING: Duration = Duration::from_millis(500);

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    pub(super) async fn execute(&mut self, action: Action) -> Step {
        match action {
            Action::EnsureImage {
                container,
                image,
                policy,
            } => self.ensure_image(container, image, &policy).await,
            Action::CreateSandbox { attempt } => self.create_sandbox(attempt).await,
            Action::Attach { sandbox, pid } => self.attach(sandbox, pid).await,
            Action::Start {
                container,
                role,
                attempt,
                generation,
                level,
            } => {
                let identity = (role, attempt, generation, level);
                self.start(&container, identity).await
            }
            Action::Drain => self.drain(),
            Action::PreStop {
                id,
                container,
                why,
                until,
            } => self.pre_stop(id, &container, why, until),
            Action::Stop {
                id,
                container,
                why,
                kill_at,
            } => self.stop(id, &container, why, kill_at),
            Action::Kill { id } => match self.node.runtime.signal(&id, true).await {
                Ok(()) => Step::Wait(Instant::now() + DYING),
                Err(error) => self.later("kill a container", &error),
            },
            Action::Remove { id } => self.remove(&id).await,
            Action::RemoveSandbox { id } => self.remove_sandbox(&id).await,
            Action::ReportEnd => self.report_end().await,
            Action::Release => self.release().await,
            Action::CleanUp => self.clean_up().await,
            Action::Confirm => self.confirm().await,
            Action::Finish => Step::Finished,
            wake @ Action::WakeAt(_) => alarm(&wake).map_or(Step::Settled, Step::Wait),
        }
    }

    pub(super) fn later(&self, what: &str, error: &dyn std::fmt::Display) -> Step {
        tracing::warn!(pod = pod_name(&self.update.pod), %error, "could not {what}");
        Step::Wait(Instant::now() + RETRY)
    }

    async fn ensure_image(&mut self, container: String, image: String, policy: &str) -> Step {
        if is_pulling(&self.memory, &container) {
            return Step::Settled;
        }
        if !image_name::is_reference(&image) {
            let message = format!("couldn't parse image name {image:?}: invalid reference format");
            let about = events::container(&self.update.pod, &container);
            let recorder = &self.node.recorder;
            recorder.warning(about, "InspectFailed", message.clone());
            self.image_failed(container, "InvalidImageName", message);
            return Step::Progress;
        }
        let found = match self.node.runtime.image(&image).await {
            Ok(found) => found,
            Err(error) => return self.later("look for an image", &error),
        };
        let about = events::container(&self.update.pod, &container);
        match (found, policy) {
            (Some(found), "Always") if found.has_origin => {
                self.image_users.insert(container.clone(), found.user);
                self.pull(container, image)
            }
            (Some(Image { user, .. }), _) => {
                let message = format!("Container image \"{image}\" already present on machine");
                self.node.recorder.normal(about, "Pulled", message);
                self.image_users.insert(container.clone(), user);
                self.memory.images.insert(container, ImageState::Ready);
                Step::Progress
            }
            (None, "Never") => {
                let message =
                    format!("Container image \"{image}\" is not present with pull policy of Never");
                self.node
                    .recorder
                    .warning(about, "ErrImageNeverPull", message.clone());
                self.image_failed(container, "ErrImageNeverPull", message);
                Step::Progress
            }
            (None, _) => self.pull(container, image),
        }
    }

    /// Pulls in the background: a slow registry must not keep the pod from being stopped.
    fn pull(&mut self, container: String, image: String) -> Step {
        let about = events::container(&self.update.pod, &container);
        self.node
            .recorder
            .normal(about, "Pulling", format!("Pulling image \"{image}\""));
        self.memory
            .images
            .insert(container.clone(), ImageState::Pulling);
        let (node, notes) = (self.node.clone(), self.notes.clone());
        tokio::spawn(async move {
            let started = Instant::now();
            let outcome = node.runtime.pull(&image).await;
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

    pub(super) fn pulled(
        &mut self,
        container: String,
        image: &str,
        outcome: Result<(), RuntimeError>,
        took: Duration,
    ) {
        let about = events::container(&self.update.pod, &container);
        match outcome {
            Ok(()) => {
                let message = format!("Successfully pulled image \"{image}\" in {took:.3?}");
                self.node.recorder.normal(about, "Pulled", message);
                self.memory
                    .images
                    .insert(container.clone(), ImageState::Ready);
                self.pull_failures.remove(&container);
            }
            Err(error) => {
                let message = format!("failed to pull image \"{image}\": {error}");
                self.node
                    .recorder
                    .warning(about.clone(), "Failed", message.clone());
                self.node
                    .recorder
                    .warning(about, "Failed", "Error: ErrImagePull");
                self.image_failed(container, "ErrImagePull", message);
            }
        }
    }

    fn image_failed(&mut self, container: String, reason: &str, message: String) {
        let count = self.pull_failures.entry(container.clone()).or_insert(0);
        *count += 1;
        let failure = Failure {
            reason: reason.to_owned(),
            message,
            at: jiff::Timestamp::now(),
            count: *count,
        };
        self.memory
            .images
            .insert(container, ImageState::Failed(failure));
    }

    async fn create_sandbox(&mut self, attempt: u32) -> Step {
        let outcome = self.try_create_sandbox(attempt).await;
        match outcome {
            Ok(()) => Step::Progress,
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                let about = events::pod(&self.update.pod);
                self.node
                    .recorder
                    .warning(about, "FailedCreatePodSandBox", message.clone());
                self.remember_failure("", "", message);
                Step::Progress
            }
        }
    }

    async fn try_create_sandbox(&mut self, attempt: u32) -> Result<(), String> {
        let node = self.node.clone();
        let pod = self.update.pod.clone();
        let addrs = match shape::host_network(&pod) {
            true => None,
            false => Some(
                node.network
                    .allocate(self.uid())
                    .map_err(|e| e.to_string())?,
            ),
        };
        let identity = Identity {
            role: Role::Sandbox,
            name: String::new(),
            attempt,
            generation: attempt,
            level: 0,
            spec_hash: String::new(),
            addrs,
        };
        let text = |error: RuntimeError| error.to_string();
        let make = async {
            let image = node.runtime.pause_image().await.map_err(text)?;
            let started = Instant::now();
            let spec = container_spec::sandbox(&pod, identity, image, node.netns.clone());
            let id = node.runtime.create(&spec).await.map_err(text)?;
            node.runtime.start(&id).await.map_err(text)?;
            node.metrics.sandboxes().note(started.elapsed());
            Ok(())
        };
        // What containers need from the API is read while the engine works.
        let (made, _) = tokio::join!(make, self.sources(&pod));
        made
    }

    async fn attach(&mut self, sandbox: String, pid: u32) -> Step {
        match self.try_attach(&sandbox, pid).await {
            Ok(addrs) => {
                self.memory.failures.remove("");
                self.memory.attached = Some(Attached { sandbox, addrs });
                self.memory.addrs = Some(addrs);
                self.memory.released = false;
                Step::Progress
            }
            Err(error) => {
                let about = events::pod(&self.update.pod);
                let message = format!("Failed to set up the pod's network: {error}");
                self.node
                    .recorder
                    .warning(about, "FailedCreatePodSandBox", message.clone());
                self.remember_failure("", "", message);
                Step::Progress
            }
        }
    }

    async fn try_attach(&mut self, sandbox: &str, pid: u32) -> Result<Addrs, String> {
        let (node, uid) = (self.node.clone(), self.uid().to_owned());
        let known = self.containers.iter().find(|it| it.id == sandbox);
        let known = known.and_then(|it| it.identity.addrs);
        let addrs = if shape::host_network(&self.update.pod) {
            node.network
                .join_node(pid)
                .await
                .map_err(|e| e.to_string())?;
            *node.addrs.borrow()
        } else {
            let addrs = known.ok_or("the sandbox carries no address")?;
            if !node.network.restore(&uid, addrs) {
                // Its address is another pod's by now: only a new sandbox helps.
                node.runtime
                    .remove(sandbox)
                    .await
                    .map_err(|e| e.to_string())?;
                return Err(format!("address {addrs} is taken; making a new sandbox"));
            }
            // What does not read was refused before.
            let bandwidth = Bandwidth::of(&self.update.pod).unwrap_or_default();
            node.network.limit(&uid, bandwidth);
            node.network
                .attach(&uid, pid, addrs)
                .await
                .map_err(|e| e.to_string())?;
            addrs
        };
        let mut facts = self.facts();
        facts.pod_ips = Some(addrs);
        let (dir, pod, dns) = (self.dir.clone(), self.update.pod.clone(), node.dns.clone());
        let written = tokio::task::spawn_blocking(move || dir.write_etc(&pod, &facts, &dns)).await;
        written
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("write the pod's /etc: {e}"))?;
        Ok(addrs)
    }

    async fn remove(&mut self, id: &str) -> Step {
        match self.node.runtime.remove(id).await {
            Ok(()) => Step::Progress,
            Err(error) => self.later("remove a container", &error),
        }
    }

    async fn remove_sandbox(&mut self, id: &str) -> Step {
        if let Err(error) = self.node.network.detach(self.uid()).await {
            return self.later("take a pod off the network", &error);
        }
        self.memory.attached = None;
        self.remove(id).await
    }

    async fn report_end(&mut self) -> Step {
        match self.report().await {
            Ok(()) => {
                self.memory.reported_end = true;
                Step::Progress
            }
            Err(error) => self.later("report a pod's end", &error),
        }
    }

    async fn release(&mut self) -> Step {
        if let Err(error) = self.node.network.release(self.uid()).await {
            return self.later("release a pod's address", &error);
        }
        self.memory.attached = None;
        let dir = self.dir.clone();
        let removed = tokio::task::spawn_blocking(move || dir.remove_volumes()).await;
        if let Ok(Err(error)) = removed {
            return self.later("remove a pod's volumes", &error);
        }
        self.memory.released = true;
        Step::Progress
    }

    async fn clean_up(&mut self) -> Step {
        let dir = self.dir.clone();
        let removed = tokio::task::spawn_blocking(move || dir.remove()).await;
        if let Ok(Err(error)) = removed {
            return self.later("remove a pod's files", &error);
        }
        self.memory.cleaned = true;
        Step::Progress
    }

    async fn confirm(&mut self) -> Step {
        let meta = &self.update.pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or("default");
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), namespace);
        let preconditions = Preconditions {
            uid: meta.uid.clone(),
            resource_version: None,
        };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..Default::default()
        };
        match api
            .delete(meta.name.as_deref().unwrap_or_default(), &params)
            .await
        {
            Ok(_) => {}
            // It is gone, or another pod has its name.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => return self.later("confirm a pod's deletion", &error),
        }
        self.memory.confirmed = true;
        Step::Progress
    }
}
