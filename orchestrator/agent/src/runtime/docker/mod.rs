//! The Docker Engine (API 1.41 and newer) as a [`Runtime`].
//!
//! Owns the conversation with the Engine: one call a method, errors told apart. What the requests
//! say is in [`body`], what the answers mean in [`read`]. Must not decide anything about a pod.

mod body;
mod hijack;
mod read;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as BollardError;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    ContainerArchiveInfoOptions, CreateContainerOptions, CreateImageOptions,
    DownloadFromContainerOptions, EventsOptions, InspectContainerOptions, KillContainerOptions,
    ListContainersOptions, ListImagesOptions, RemoveContainerOptions, RemoveImageOptions,
    ResizeContainerTTYOptions, StartContainerOptions,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, future};
use serde_json::json;
use tokio::sync::Mutex;
use tokio_util::io::ReaderStream;

use super::credentials::Credentials;
use super::streams::{Output, Process, Size, Streams, Terminal};
use super::{
    Container, ContainerSpec, Description, ExecOutcome, Image, InRoot, LogOptions, Resources,
    Runtime, RuntimeError, Sighting, StoredImage, pause_image, process,
};
use crate::node::facts;

/// The oldest Engine API that has all the agent asks for (Docker 20.10).
const OLDEST_API: (usize, usize) = (1, 41);

/// The Engine learns of the end of a command some time after the command's output has ended.
const EXIT_PAUSE: Duration = Duration::from_millis(20);
const EXIT_TRIES: usize = 500;
const RESIZE_TRIES: usize = 25;

/// A command's output is kept for a probe's message, not for its bulk.
const EXEC_OUTPUT_LIMIT: usize = 10 * 1024;

/// Whose containers are ours: two nodes, and two clusters, can share one Engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub cluster: String,
    pub node: String,
}

/// One Engine, for one node.
pub struct DockerRuntime {
    docker: Docker,
    /// For connections that become streams.
    host: String,
    owner: Owner,
    scratch: PathBuf,
    /// The id of the image of sandboxes, once it is made.
    pause: Arc<Mutex<Option<String>>>,
    limits: body::Limits,
    powers: Powers,
}

/// What the Engine can do that another may not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Powers {
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// It gives containers users of their own (`userns-remap`).
    pub user_namespaces: bool,
}

impl DockerRuntime {
    /// Connects and checks that the Engine is new enough. `scratch` is where the sandbox image is
    /// written before it is handed over. No container gets more than `pids` processes; zero means no limit.
    pub async fn connect(
        host: &str,
        owner: Owner,
        scratch: PathBuf,
        pids: u32,
    ) -> Result<DockerRuntime, RuntimeError> {
        let docker = Docker::connect_with_host(host).map_err(unreachable)?;
        let docker = docker.negotiate_version().await.map_err(unreachable)?;
        let api = docker.client_version();
        if (api.major_version, api.minor_version) < OLDEST_API {
            let message = format!(
                "the Docker Engine at {host} speaks API {}.{}, and {}.{} is the oldest that works: \
                 install Docker 20.10 or newer",
                api.major_version, api.minor_version, OLDEST_API.0, OLDEST_API.1,
            );
            return Err(RuntimeError::Refused {
                status: 400,
                message,
            });
        }
        let powers = read::powers(&docker.info().await.map_err(unreachable)?);
        Ok(DockerRuntime {
            docker,
            host: host.to_owned(),
            owner,
            scratch,
            pause: Arc::default(),
            limits: body::Limits {
                // The Engine is taken to have the same powers as this process.
                lowest_oom_score: facts::lowest_oom_score(),
                pids: pids.into(),
                user_namespaces: powers.user_namespaces,
            },
            powers,
        })
    }

    /// What the Engine said of itself when the agent started.
    pub fn powers(&self) -> &Powers {
        &self.powers
    }

    /// Removes every container of this owner (of every cluster's node of that name when the
    /// owner's cluster is empty); gives their number.
    pub async fn remove_all(&self) -> Result<usize, RuntimeError> {
        let summaries = self.list(None).await?;
        let count = summaries.len();
        let ids = summaries.into_iter().filter_map(|summary| summary.id);
        let removals = ids.map(|id| async move { self.remove(&id).await });
        for outcome in future::join_all(removals).await {
            outcome?;
        }
        Ok(count)
    }

    async fn list(
        &self,
        uid: Option<&str>,
    ) -> Result<Vec<bollard::models::ContainerSummary>, RuntimeError> {
        let labels = body::owner_filter(&self.owner, uid);
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters),
            ..Default::default()
        };
        self.docker
            .list_containers(Some(options))
            .await
            .map_err(error)
    }

    async fn inspect(&self, id: &str) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        match self
            .docker
            .inspect_container(id, None::<InspectContainerOptions>)
            .await
        {
            Ok(found) => Ok(Some(found)),
            Err(BollardError::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(None),
            Err(other) => Err(error(other)),
        }
    }

    async fn create_once(&self, spec: &ContainerSpec, name: &str) -> Result<String, RuntimeError> {
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            ..Default::default()
        };
        let body = body::container(spec, &self.owner, self.limits);
        let made = self.docker.create_container(Some(options), body).await;
        let made = made.map_err(error);
        if let Err(RuntimeError::NotFound(_)) = made {
            // Somebody may have removed the image of sandboxes: the next one is made of a new one.
            self.pause.lock().await.take_if(|id| *id == spec.image);
        }
        Ok(made?.id)
    }

    async fn make_pause_image(&self) -> Result<String, RuntimeError> {
        let scratch = self.scratch.clone();
        let failed = |e: std::io::Error| RuntimeError::PauseImage(e.to_string());
        let parts = tokio::task::spawn_blocking(pause_image::parts).await;
        let parts = parts
            .map_err(|e| RuntimeError::PauseImage(e.to_string()))?
            .map_err(failed)?;
        let (reference, layer) = (parts.reference(), parts.layer());
        let entrypoint = parts.entrypoint();
        if let Some(id) = self.image_of(&reference, &layer, &entrypoint).await? {
            return Ok(id);
        }
        let file = tokio::task::spawn_blocking(move || parts.write_tar(&scratch)).await;
        let file = file
            .map_err(|e| RuntimeError::PauseImage(e.to_string()))?
            .map_err(failed)?;
        let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 256 * 1024);
        let (repository, tag) = pause_image::split(&reference);
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repository.to_owned()),
            tag: Some(tag.to_owned()),
            changes: vec![format!("ENTRYPOINT {}", serde_json::json!(entrypoint))],
            ..Default::default()
        };
        let upload = bollard::body_try_stream(stream);
        let mut progress = self.docker.create_image(Some(options), Some(upload), None);
        while let Some(step) = progress.next().await {
            step.map_err(|e| RuntimeError::PauseImage(e.to_string()))?;
        }
        let made = self.image_of(&reference, &layer, &entrypoint).await?;
        let other =
            || RuntimeError::PauseImage(format!("the Engine made {reference} of other bytes"));
        made.ok_or_else(other)
    }

    /// The id of the image of that name, if it is this layer started like this: a name can be anybody's,
    /// and sandboxes hold what their pods' network is made of.
    async fn image_of(
        &self,
        reference: &str,
        layer: &str,
        entrypoint: &[String],
    ) -> Result<Option<String>, RuntimeError> {
        let found = match self.docker.inspect_image(reference).await {
            Err(BollardError::DockerResponseServerError {
                status_code: 404, ..
            }) => return Ok(None),
            found => found.map_err(error)?,
        };
        let layers = found.root_fs.and_then(|it| it.layers).unwrap_or_default();
        let config = found.config.unwrap_or_default();
        let same = layers == [layer]
            && config.entrypoint.as_deref() == Some(entrypoint)
            && config.cmd.unwrap_or_default().is_empty()
            && config.env.unwrap_or_default().is_empty();
        Ok(found.id.filter(|_| same))
    }
}

impl Runtime for DockerRuntime {
    async fn describe(&self) -> Result<Description, RuntimeError> {
        let version = self.docker.version().await.map_err(error)?;
        let version = version.version.unwrap_or_default();
        Ok(Description {
            version: format!("docker://{version}"),
            cgroup_driver: self.powers.cgroup_driver.clone(),
        })
    }

    async fn pods(&self) -> Result<Vec<Sighting>, RuntimeError> {
        Ok(read::sightings(&self.list(None).await?))
    }

    async fn containers(&self, uid: &str) -> Result<Vec<Container>, RuntimeError> {
        let ids = self
            .list(Some(uid))
            .await?
            .into_iter()
            .filter_map(|summary| summary.id);
        let inspections = ids.map(|id| async move { self.inspect(&id).await });
        let inspected = future::try_join_all(inspections).await?;
        Ok(inspected
            .into_iter()
            .flatten()
            .filter_map(|found| read::container(&found))
            .collect())
    }

    fn events(&self) -> BoxStream<'static, Result<String, RuntimeError>> {
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            (
                "event".to_owned(),
                // Starts are the agent's own, which looks at what it has started: no news.
                ["die", "oom", "destroy"].map(str::to_owned).to_vec(),
            ),
            ("label".to_owned(), body::owner_filter(&self.owner, None)),
        ]);
        let options = EventsOptions {
            filters: Some(filters),
            ..Default::default()
        };
        let docker = self.docker.clone();
        futures::stream::once(async move { docker.events(Some(options)) })
            .flatten()
            .filter_map(|event| {
                future::ready(event.map_err(error).map(read::event_uid).transpose())
            })
            .boxed()
    }

    async fn ended(&self, pid: u32) {
        if let Err(error) = process::ended(pid).await {
            tracing::debug!(%error, pid, "only the engine will say when a process ends");
            future::pending().await
        }
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, RuntimeError> {
        let name = body::container_name(&spec.pod, &spec.identity);
        match self.create_once(spec, &name).await {
            // A request that was cut off may have done its work: that container never ran.
            Err(RuntimeError::Refused { status: 409, .. }) => {
                self.remove(&name).await?;
                self.create_once(spec, &name).await
            }
            outcome => outcome,
        }
    }

    async fn root_of(&self, image: &str) -> Result<String, RuntimeError> {
        let options = CreateContainerOptions {
            name: Some(format!("orch_root_{}", uuid::Uuid::new_v4())),
            ..Default::default()
        };
        let body = body::root(image, &self.owner);
        let made = self.docker.create_container(Some(options), body).await;
        Ok(made.map_err(error)?.id)
    }

    async fn path_in_root(&self, id: &str, path: &str) -> Result<InRoot, RuntimeError> {
        let options = ContainerArchiveInfoOptions {
            path: path.to_owned(),
        };
        let found = self
            .docker
            .get_container_archive_info(id, Some(options))
            .await;
        match found.map_err(error) {
            Ok(stat) if stat.link_target.is_empty() => Ok(InRoot::Other),
            Ok(stat) => Ok(InRoot::Link(stat.link_target)),
            Err(RuntimeError::NotFound(_)) => Ok(InRoot::Absent),
            Err(other) => Err(other),
        }
    }

    async fn file_in_root(
        &self,
        id: &str,
        path: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, RuntimeError> {
        let options = DownloadFromContainerOptions {
            path: path.to_owned(),
        };
        let mut chunks = self.docker.download_from_container(id, Some(options));
        let mut archive = Vec::new();
        while let Some(chunk) = chunks.next().await {
            match chunk.map_err(error) {
                Ok(chunk) => archive.extend_from_slice(&chunk),
                Err(RuntimeError::NotFound(_)) => return Ok(None),
                Err(other) => return Err(other),
            }
            if archive.len() > limit + read::ARCHIVE_OVERHEAD {
                break;
            }
        }
        let refused = || RuntimeError::Refused {
            status: 413,
            message: format!("{path} is no file of at most {limit} bytes"),
        };
        read::archived_file(&archive, limit)
            .map(Some)
            .ok_or_else(refused)
    }

    fn export(&self, id: &str) -> BoxStream<'static, Result<Bytes, RuntimeError>> {
        let path = self.path(&format!("/containers/{id}/export"));
        // As of a log with a terminal: there are no frames.
        let parts = hijack::log(self.host.clone(), path, future::ready(Ok(true)));
        parts
            .map(|part| part.map(|(Output::Stdout(piece) | Output::Stderr(piece))| piece))
            .boxed()
    }

    async fn resize_container(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
        let body = body::limits(resources);
        let updated = self.docker.update_container(id, body).await;
        updated.map(drop).map_err(error)
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.docker
            .start_container(id, None::<StartContainerOptions>)
            .await
            .map_err(error)
    }

    async fn signal(&self, id: &str, kill: bool) -> Result<(), RuntimeError> {
        let signal = if kill {
            "SIGKILL".to_owned()
        } else {
            let config = self.inspect(id).await?.and_then(|found| found.config);
            config
                .and_then(|config| config.stop_signal)
                .unwrap_or_else(|| "SIGTERM".to_owned())
        };
        let options = KillContainerOptions { signal };
        match self
            .docker
            .kill_container(id, Some(options))
            .await
            .map_err(error)
        {
            // 409: it is not running any more.
            Err(RuntimeError::NotFound(_) | RuntimeError::Refused { status: 409, .. }) => Ok(()),
            outcome => outcome,
        }
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptions {
            force: true,
            v: true,
            ..Default::default()
        };
        match self
            .docker
            .remove_container(id, Some(options))
            .await
            .map_err(error)
        {
            // 409: somebody else's removal is in progress.
            Err(RuntimeError::NotFound(_) | RuntimeError::Refused { status: 409, .. }) => Ok(()),
            outcome => outcome,
        }
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        match self.docker.inspect_image(reference).await.map_err(error) {
            Ok(found) => Ok(Some(read::image(&found))),
            Err(RuntimeError::NotFound(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn pull(
        &self,
        reference: &str,
        credentials: Option<&Credentials>,
    ) -> Result<(), RuntimeError> {
        let options = CreateImageOptions {
            from_image: Some(body::pullable(reference)),
            ..Default::default()
        };
        let shown = credentials.map(body::credentials);
        let mut progress = self.docker.create_image(Some(options), None, shown);
        while let Some(step) = progress.next().await {
            step.map_err(|e| match error(e) {
                RuntimeError::Unreachable(why) => RuntimeError::Unreachable(why),
                other => RuntimeError::Pull(other.to_string()),
            })?;
        }
        Ok(())
    }

    async fn images(&self) -> Result<Vec<StoredImage>, RuntimeError> {
        let images = self.docker.list_images(None::<ListImagesOptions>).await;
        let all = ListContainersOptions {
            all: true,
            ..Default::default()
        };
        // Listed after the images: what is made of one meanwhile counts as its user.
        let images = images.map_err(error)?;
        let containers = self.docker.list_containers(Some(all)).await;
        Ok(read::images(&images, &containers.map_err(error)?))
    }

    async fn remove_image(&self, image: &StoredImage) -> Result<(), RuntimeError> {
        let own = std::slice::from_ref(&image.id);
        let names = match image.names.as_slice() {
            [] => own,
            names => names,
        };
        for name in names {
            let options = None::<RemoveImageOptions>;
            match self
                .docker
                .remove_image(name, options, None)
                .await
                .map_err(error)
            {
                Ok(_) | Err(RuntimeError::NotFound(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    async fn image_root(&self) -> Result<PathBuf, RuntimeError> {
        let root = self.docker.info().await.map_err(error)?.docker_root_dir;
        Ok(root.map_or_else(|| PathBuf::from("/var/lib/docker"), PathBuf::from))
    }

    async fn pause_image(&self) -> Result<String, RuntimeError> {
        let mut pause = self.pause.lock().await;
        if let Some(id) = &*pause {
            return Ok(id.clone());
        }
        let made = self.make_pause_image().await?;
        Ok(pause.insert(made).clone())
    }

    fn logs(
        &self,
        id: &str,
        options: &LogOptions,
    ) -> BoxStream<'static, Result<Bytes, RuntimeError>> {
        let tail = options.tail.map_or("all".to_owned(), |it| it.to_string());
        let since = options.since.map_or("0".to_owned(), |since| {
            format!("{}.{:09}", since.as_second(), since.subsec_nanosecond())
        });
        let LogOptions {
            follow,
            timestamps,
            stdout,
            stderr,
            ..
        } = options;
        let path = self.path(&format!(
            "/containers/{id}/logs?follow={follow}&stdout={stdout}&stderr={stderr}&since={since}\
             &timestamps={timestamps}&tail={tail}"
        ));
        let (docker, id) = (self.docker.clone(), id.to_owned());
        let tty = async move {
            let found = docker.inspect_container(&id, None::<InspectContainerOptions>);
            let config = found.await.map_err(error)?.config;
            Ok(config.and_then(|config| config.tty).unwrap_or(false))
        };
        let frames = hijack::log(self.host.clone(), path, tty);
        frames
            .map(|frame| frame.map(|(Output::Stdout(piece) | Output::Stderr(piece))| piece))
            .boxed()
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..Default::default()
        };
        let exec = self
            .docker
            .create_exec(id, options)
            .await
            .map_err(error)?
            .id;
        let run = async {
            let started = self
                .docker
                .start_exec(&exec, None::<StartExecOptions>)
                .await;
            let mut output = Vec::new();
            if let StartExecResults::Attached {
                output: mut frames, ..
            } = started.map_err(error)?
            {
                while let Some(frame) = frames.next().await {
                    let frame = frame.map_err(error)?.into_bytes();
                    let room = EXEC_OUTPUT_LIMIT
                        .saturating_sub(output.len())
                        .min(frame.len());
                    output.extend_from_slice(&frame[..room]);
                }
            }
            Ok(String::from_utf8_lossy(&output).into_owned())
        };
        let Ok(output) = tokio::time::timeout(timeout, run).await else {
            self.end_command(&exec).await;
            return Err(RuntimeError::ExecTimeout(timeout));
        };
        let output = output?;
        let code = self
            .docker
            .inspect_exec(&exec)
            .await
            .map_err(error)?
            .exit_code;
        Ok(ExecOutcome {
            code: code.unwrap_or(-1),
            output,
        })
    }

    async fn run(
        &self,
        id: &str,
        command: &[String],
        streams: Streams,
    ) -> Result<(String, Process), RuntimeError> {
        let options = CreateExecOptions {
            attach_stdin: Some(streams.stdin),
            attach_stdout: Some(streams.stdout),
            attach_stderr: Some(streams.stderr),
            tty: Some(streams.tty),
            cmd: Some(command.to_vec()),
            ..Default::default()
        };
        let made = self.docker.create_exec(id, options).await;
        let exec = made.map_err(error)?.id;
        let path = self.path(&format!("/exec/{exec}/start"));
        let start = json!({"Detach": false, "Tty": streams.tty});
        let process = hijack::process(&self.host, &path, &start, streams.tty).await?;
        Ok((exec, process))
    }

    async fn exit_code(&self, command: &str) -> Result<Option<i64>, RuntimeError> {
        for _ in 0..EXIT_TRIES {
            let found = self.docker.inspect_exec(command).await.map_err(error)?;
            if found.running != Some(true) {
                return Ok(found.exit_code);
            }
            tokio::time::sleep(EXIT_PAUSE).await;
        }
        Ok(None)
    }

    async fn attach(&self, id: &str, streams: Streams) -> Result<Process, RuntimeError> {
        let Streams {
            stdin,
            stdout,
            stderr,
            tty,
        } = streams;
        let path = self.path(&format!(
            "/containers/{id}/attach?stream=1&stdin={stdin}&stdout={stdout}&stderr={stderr}"
        ));
        hijack::process(&self.host, &path, &json!({}), tty).await
    }

    async fn has_terminal(&self, id: &str) -> Result<bool, RuntimeError> {
        let config = self.inspect(id).await?.and_then(|found| found.config);
        Ok(config.and_then(|config| config.tty).unwrap_or(false))
    }

    async fn resize(&self, terminal: Terminal<'_>, size: Size) -> Result<(), RuntimeError> {
        let mut resized = self.resize_once(terminal, size).await;
        // The Engine gives the streams away a moment before there is a process.
        for _ in 0..RESIZE_TRIES {
            match resized {
                Err(RuntimeError::Refused { .. }) => {}
                resized => return resized,
            }
            tokio::time::sleep(EXIT_PAUSE).await;
            resized = self.resize_once(terminal, size).await;
        }
        resized
    }
}

impl DockerRuntime {
    async fn resize_once(&self, terminal: Terminal<'_>, size: Size) -> Result<(), RuntimeError> {
        let Size { width, height } = size;
        let resized = match terminal {
            Terminal::Command(command) => {
                let options = ResizeExecOptions { width, height };
                self.docker.resize_exec(command, options).await
            }
            Terminal::Container(id) => {
                let options = ResizeContainerTTYOptions {
                    w: width.into(),
                    h: height.into(),
                };
                self.docker.resize_container_tty(id, options).await
            }
        };
        resized.map_err(error)
    }

    /// The process of a command that still runs; the Engine has no way to end one.
    async fn process_of(&self, command: &str) -> Option<u32> {
        let found = self.docker.inspect_exec(command).await.ok()?;
        let pid = found.pid.filter(|_| found.running == Some(true))?;
        u32::try_from(pid).ok().filter(|pid| *pid > 0)
    }

    /// Kills a command, so that probes that do not end do not pile up.
    async fn end_command(&self, command: &str) {
        let Some(pid) = self.process_of(command).await else {
            return;
        };
        let is_it = async { self.process_of(command).await == Some(pid) };
        if let Err(error) = process::kill(pid, is_it).await {
            tracing::debug!(%error, command, "a command was not killed");
        }
    }

    /// A path of the version that the Engine and this client speak.
    fn path(&self, path: &str) -> String {
        let version = self.docker.client_version();
        let (major, minor) = (version.major_version, version.minor_version);
        format!("/v{major}.{minor}{path}")
    }
}

fn unreachable(error: BollardError) -> RuntimeError {
    RuntimeError::Unreachable(error.to_string())
}

/// Tells apart: it is not there, the Engine said no, the Engine did not answer.
fn error(error: BollardError) -> RuntimeError {
    match error {
        BollardError::DockerResponseServerError {
            status_code: 404,
            message,
        } => RuntimeError::NotFound(message),
        BollardError::DockerResponseServerError {
            status_code,
            message,
        } => RuntimeError::Refused {
            status: status_code,
            message,
        },
        BollardError::DockerStreamError { error } => RuntimeError::Refused {
            status: 500,
            message: error,
        },
        other => RuntimeError::Unreachable(other.to_string()),
    }
}
