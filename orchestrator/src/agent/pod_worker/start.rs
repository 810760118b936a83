//! Starts one container: its values, its volumes, its spec, the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Template, Pod};
use tokio::time::Instant;

use super::{Step, Worker};
use crate::agent::container_spec::{self, SpecError, Surroundings};
use crate::agent::events::About;
use crate::agent::pod_shape;
use crate::agent::runtime::{ContainerSpec, Role, Runtime, RuntimeError};
use crate::agent::sources::{self, Sources};
use crate::agent::volumes::Made;
use crate::agent::wiring::PodNetwork;

/// Values that were read for the sandbox are good enough for containers that follow at once.
const FRESH: Duration = Duration::from_secs(5);

/// Role, attempt, generation, level.
pub(super) type Place = (Role, u32, u32, u32);

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    pub(super) async fn start(&mut self, name: &str, place: Place) -> Step {
        let pod = self.update.pod.clone();
        let mains = pod_shape::main_templates(&pod).iter();
        let template = mains
            .chain(pod_shape::init_templates(&pod))
            .find(|it| it.name == name);
        let Some(template) = template else {
            return Step::Settled;
        };
        // The next start asks for its image again.
        self.memory.images.remove(name);
        let outcome = match self.specify(&pod, template, place).await {
            Ok(spec) => self.create_and_start(&pod, template, &spec).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {
                self.memory.failures.remove(name);
            }
            Err(error) => {
                let about = About::container(&pod, name);
                let reason = if error.reason == "FailedMount" {
                    error.reason
                } else {
                    "Failed"
                };
                self.node
                    .recorder
                    .warning(about, reason, format!("Error: {error}"));
                self.remember_failure(name, error.reason, error.message);
            }
        }
        Step::Progress
    }

    /// Everything that the container is made of, its files included.
    async fn specify(
        &mut self,
        pod: &Pod,
        template: &Template,
        (role, attempt, generation, level): Place,
    ) -> Result<ContainerSpec, SpecError> {
        let sources = self.sources(pod).await?;
        let facts = self.facts();
        let volumes = self.make_files(pod, template, attempt, &sources).await?;
        let sandbox = self.memory.attached.as_ref().map(|it| it.sandbox.clone());
        let image_user = self.image_users.get(&template.name).cloned();
        let around = Surroundings {
            sources: &sources,
            facts: &facts,
            volumes: &volumes,
            sub_paths: &self.dir.sub_paths(&template.name, attempt),
            etc: &self.dir.etc(),
            sandbox: &sandbox.unwrap_or_default(),
            last_words: &self.dir.last_words(&template.name, attempt),
            image_user: &image_user.unwrap_or_default(),
        };
        let identity = container_spec::identity(template, role, attempt, generation, level);
        let (spec, parts) = container_spec::container(pod, template, identity, &around)?;
        let (dir, name) = (self.dir.clone(), template.name.clone());
        let mount = move || dir.mount_sub_paths(&name, &parts);
        let mounted = tokio::task::spawn_blocking(mount).await;
        mounted.map_err(|e| SpecError::config(e.to_string()))??;
        Ok(spec)
    }

    async fn make_files(
        &self,
        pod: &Pod,
        template: &Template,
        attempt: u32,
        sources: &Sources,
    ) -> Result<BTreeMap<String, Made>, SpecError> {
        let (dir, pod, facts) = (self.dir.clone(), pod.clone(), self.facts());
        let (sources, name) = (sources.clone(), template.name.clone());
        let make = move || {
            let made = dir.make_last_words(&name, attempt);
            made.map_err(|e| SpecError::config(format!("make the pod's files: {e}")))?;
            dir.make_volumes(&pod, &sources, &facts)
        };
        let made = tokio::task::spawn_blocking(make).await;
        made.map_err(|e| SpecError::config(e.to_string()))?
    }

    async fn create_and_start(
        &mut self,
        pod: &Pod,
        template: &Template,
        spec: &ContainerSpec,
    ) -> Result<(), SpecError> {
        let node = self.node.clone();
        let failed = |reason: &'static str| {
            move |error: RuntimeError| SpecError {
                reason,
                message: error.to_string(),
            }
        };
        let started = Instant::now();
        let created = node.runtime.create(spec).await;
        let id = created.map_err(failed("CreateContainerError"))?;
        let about = About::container(pod, &template.name);
        let message = format!("Created container: {}", template.name);
        node.recorder.normal(about.clone(), "Created", message);
        match node.runtime.start(&id).await {
            Ok(()) => {
                let message = format!("Started container {}", template.name);
                node.recorder.normal(about, "Started", message);
                node.metrics.containers().note(started.elapsed());
                self.post_start(id, template);
                Ok(())
            }
            // The container itself now carries the reason: it counts as an attempt that ended.
            Err(RuntimeError::Refused { message, .. } | RuntimeError::NotFound(message)) => {
                node.recorder
                    .warning(about, "Failed", format!("Error: {message}"));
                Ok(())
            }
            Err(error) => Err(failed("RunContainerError")(error)),
        }
    }

    /// ConfigMaps, Secrets and Services; the last known ones when the server is away.
    async fn sources(&mut self, pod: &Pod) -> Result<Sources, SpecError> {
        if let Some((read_at, sources)) = &self.sources
            && read_at.elapsed() < FRESH
        {
            return Ok(sources.clone());
        }
        match sources::read(&self.node.client, pod).await {
            Ok(sources) => {
                self.sources = Some((Instant::now(), sources.clone()));
                Ok(sources)
            }
            Err(error) => match &self.sources {
                Some((_, sources)) => Ok(sources.clone()),
                None => Err(SpecError::config(format!(
                    "read from the API server: {error}"
                ))),
            },
        }
    }
}
