//! Starts one container: its values, its volumes, its spec, the engine.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container as Template, Pod};
use tokio::time::Instant;

use super::Step;
use super::Worker;
use super::execute;
use super::start_clock::Stage;

use crate::api::events;
use crate::api::sources::Sources;
use crate::network::pod_net::shaping::Bandwidth;
use crate::network::wiring::PodNetwork;
use crate::pod::{refuse, shape};
use crate::runtime::container_spec::{self, SpecError, Surroundings};
use crate::runtime::{ContainerSpec, Role, Runtime, RuntimeError, Seccomp};
use crate::volumes::Made;
use sys::beneath::Dir;

/// The directory of seccomp profiles, in the agent's own.
const SECCOMP: &str = "seccomp";
/// The longest profile that is read, in bytes.
const SECCOMP_LIMIT: usize = 1024 * 1024;

/// Role, attempt, generation, level.
pub(super) type Place = (Role, u32, u32, u32);

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    pub(super) async fn start(&mut self, name: &str, place: Place) -> Step {
        let pod = self.update.pod.clone();
        let ephemeral = shape::ephemeral_templates(&pod);
        let mains = shape::main_templates(&pod).iter();
        let template = mains
            .chain(shape::init_templates(&pod))
            .chain(ephemeral.iter().map(|(template, _)| template))
            .find(|it| it.name == name);
        let Some(template) = template else {
            return Step::Settled;
        };
        // The next start asks for its image again.
        self.memory.images.remove(name);
        let specified = self.specify(&pod, template, place).await;
        self.clock.stage(Stage::Files);
        let outcome = match specified {
            Ok(spec) => self.create_and_start(&pod, template, &spec).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {
                self.memory.failures.remove(name);
            }
            Err(error) => {
                let recorder = &self.node.recorder;
                if error.reason == "FailedMount" {
                    let about = events::pod(&pod);
                    recorder.warning(about, error.reason, error.message.clone());
                } else {
                    let about = events::container(&pod, name);
                    recorder.warning(about, "Failed", format!("Error: {error}"));
                }
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
        let target = match role {
            Role::Ephemeral => self.admit_ephemeral(pod, template)?,
            _ => None,
        };
        // What changes from here on is written by an update.
        let inputs = self.inputs();
        let mut sources = self.sources(pod).await?;
        sources.mounted = self.node.csi.mount(pod, &sources.claimed).await?;
        sources.images = self.image_volumes(pod).await?;
        let facts = self.facts();
        let volumes = self.make_files(pod, template, attempt, &sources).await?;
        self.note_written(inputs);
        let handler = execute::handler(&self.node.client, pod).await;
        let handler = handler.map_err(SpecError::config)?;
        let sandbox = self.memory.attached.as_ref().map(|it| it.sandbox.clone());
        let image = self.image_for(template).await?;
        let around = Surroundings {
            sources: &sources,
            facts: &facts,
            volumes: &volumes,
            sub_paths: &self.dir.sub_paths(&template.name, attempt),
            etc: &self.dir.etc(),
            sandbox: &sandbox.unwrap_or_default(),
            target: target.as_deref(),
            termination_message: &self.dir.termination_message(&template.name, attempt),
            image_user: &image.user,
            image_group: self.image_group(pod, template, &image).await?,
            handler: handler.as_deref(),
        };
        let identity = container_spec::identity(template, role, attempt, generation, level);
        let (mut spec, parts) = container_spec::container(pod, template, identity, &around)?;
        self.place_mounts(pod, template, image, &mut spec).await?;
        self.read_seccomp(&mut spec.security.seccomp).await?;
        let (dir, name, mounts) = (self.dir.clone(), template.name.clone(), spec.mounts);
        let mount = move || {
            dir.mount_sub_paths(&name, &parts)?;
            dir.join_nested(&dir.sub_paths(&name, attempt), &mounts)
        };
        let mounted = tokio::task::spawn_blocking(mount).await;
        spec.mounts = mounted.map_err(|e| SpecError::config(e.to_string()))??;
        Ok(spec)
    }

    /// Reads a seccomp profile of the node: no link is followed out of the directory of profiles.
    async fn read_seccomp(&self, seccomp: &mut Seccomp) -> Result<(), SpecError> {
        let Seccomp::File(path) = seccomp else {
            return Ok(());
        };
        let (dir, file) = (self.node.data_dir.join(SECCOMP), path.clone());
        let read = move || {
            let profile = Dir::open(&dir)?.read(&file, SECCOMP_LIMIT)?;
            String::from_utf8(profile).map_err(std::io::Error::other)
        };
        let read = tokio::task::spawn_blocking(read).await;
        let failed = |why: String| SpecError {
            reason: "CreateContainerError",
            message: format!("cannot load seccomp profile {:?}: {why}", path.display()),
        };
        let profile = read.map_err(|error| failed(error.to_string()))?;
        *seccomp = Seccomp::Profile(profile.map_err(|error| failed(error.to_string()))?);
        Ok(())
    }

    /// Whether this node does all that an ephemeral container asks for, as was said of the pod's others before
    /// it began; and the id of the container into which it looks.
    fn admit_ephemeral(&self, pod: &Pod, template: &Template) -> Result<Option<String>, SpecError> {
        let mut alone = pod.clone();
        if let Some(spec) = &mut alone.spec {
            spec.containers = vec![template.clone()];
            spec.init_containers = None;
            spec.ephemeral_containers = None;
        }
        let admission = refuse::admit(&alone, &self.node.abilities);
        let unlimited = || Bandwidth::refusal(&alone);
        if let Some(refusal) = admission.refusal.or_else(unlimited) {
            return Err(SpecError::config(refusal.message));
        }
        let templates = shape::ephemeral_templates(pod).into_iter();
        let target = { templates }
            .find(|(it, _)| it.name == template.name)
            .and_then(|(_, target)| target);
        let Some(target) = target else {
            return Ok(None);
        };
        let latest = shape::latest(&self.containers, &target);
        let running = latest.filter(|container| container.is_running());
        let running = running.map(|container| Some(container.id.clone()));
        running
            .ok_or_else(|| SpecError::config(format!("unable to find target container {target:?}")))
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
            let made = dir.make_termination_message(&name, attempt);
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
        let created = self.clock.engine(node.runtime.create(spec)).await;
        let id = created.map_err(failed("CreateContainerError"))?;
        let about = events::container(pod, &template.name);
        let message = format!("Created container: {}", template.name);
        node.recorder.normal(about.clone(), "Created", message);
        match self.clock.engine(node.runtime.start(&id)).await {
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
}
