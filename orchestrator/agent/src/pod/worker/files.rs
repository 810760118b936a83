//! What the agent writes of a pod's volumes, kept up to date while the pod runs: with the objects
//! that the pod refers to and with its own labels and annotations.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::Worker;
use crate::api::events;
use crate::api::sources::{self, Claimed, Objects, Sources, Tokens};
use crate::network::wiring::PodNetwork;
use crate::pod::downward::Facts;
use crate::pod::shape::{self, Outcome};
use crate::runtime::container_spec::SpecError;
use crate::runtime::{Container, Runtime};
use crate::volumes;

/// Values that were read for the sandbox are good enough for containers that follow at once.
const FRESH: Duration = Duration::from_secs(5);
/// How long a start waits for the server to say what the pod's objects are. They wake the pod when
/// they come later.
pub(super) const OBJECTS_TIMEOUT: Duration = Duration::from_secs(2);
/// When to write again after a volume could not be written.
const WRITE_RETRY: Duration = Duration::from_secs(10);

/// The last time that a pod's volumes were written.
pub(super) struct Written {
    inputs: Inputs,
    /// It did not work, and is tried again then.
    retry_at: Option<Instant>,
}

/// Everything that the files of a pod's volumes follow from, besides its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inputs {
    /// Of the objects that the pod refers to.
    changes: u64,
    /// Of its tokens.
    tokens: u64,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    facts: Facts,
}

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    /// Follows the objects that the pod refers to for as long as it shall run. What could not be
    /// started for want of them is tried again when one of them changes.
    pub(super) fn follow_objects(&mut self) {
        let ends = self.update.gone || self.update.pod.metadata.deletion_timestamp.is_some();
        let runs = !ends && shape::outcome(&self.view()) == Outcome::Active;
        if !runs {
            self.objects = None;
            return;
        }
        let (watched, wake) = (&self.node.watched, &self.wake);
        let pod = &self.update.pod;
        let objects = self.objects.get_or_insert_with(|| watched.refer(pod, wake));
        let changes = objects.changes();
        if self.seen_changes != changes {
            self.seen_changes = changes;
            let failures = &mut self.memory.failures;
            failures.retain(|_, failure| !is_of_objects(&failure.reason));
        }
    }

    /// Writes the volumes of running containers anew if something that they follow from has
    /// changed. Gives when to try again what did not work.
    pub(super) async fn update_volumes(&mut self) -> Option<Instant> {
        let running = shape::members(&self.containers).any(Container::is_running);
        if self.objects.is_none() || !running || !volumes::writes_any(&self.update.pod) {
            return None;
        }
        let tokens = self.tokens().await;
        let written = match tokens.values().all(Result::is_ok) {
            true => self.write_volumes(tokens).await,
            // The old files stay until one has come.
            false => None,
        };
        written.into_iter().chain(self.tokens.next()).min()
    }

    async fn write_volumes(&mut self, tokens: Tokens) -> Option<Instant> {
        let inputs = self.inputs()?;
        if let Some(written) = self.written.as_ref().filter(|it| it.inputs == inputs) {
            let retry_at = written.retry_at?;
            if retry_at > Instant::now() {
                return Some(retry_at);
            }
        }
        // A restarted agent waits for the server to name them all; the old files stay meanwhile.
        let objects = self.objects.as_ref()?.objects()?;
        let sources = Sources {
            objects,
            tokens,
            claimed: Claimed::new(),
            mounted: BTreeMap::new(),
            images: BTreeMap::new(),
            service_env: BTreeMap::new(),
        };
        let (dir, pod, facts) = (self.dir.clone(), self.update.pod.clone(), self.facts());
        let write = move || dir.update_volumes(&pod, &sources, &facts);
        let written = tokio::task::spawn_blocking(write).await;
        let written = written.unwrap_or_else(|e| Err(SpecError::config(e.to_string())));
        let retry_at = written.err().map(|error| {
            let about = events::pod(&self.update.pod);
            let recorder = &self.node.recorder;
            recorder.warning(about, error.reason, error.message);
            Instant::now() + WRITE_RETRY
        });
        self.written = Some(Written { inputs, retry_at });
        retry_at
    }

    /// The volumes have just been written for a container that starts.
    pub(super) fn note_written(&mut self, inputs: Option<Inputs>) {
        self.written = inputs.map(|inputs| Written {
            inputs,
            retry_at: None,
        });
    }

    /// As of now; none while the pod's objects are not followed.
    pub(super) fn inputs(&self) -> Option<Inputs> {
        let meta = &self.update.pod.metadata;
        Some(Inputs {
            changes: self.objects.as_ref()?.changes(),
            tokens: self.tokens.changes,
            labels: meta.labels.clone().unwrap_or_default(),
            annotations: meta.annotations.clone().unwrap_or_default(),
            facts: self.facts(),
        })
    }

    /// ConfigMaps, Secrets and Services; the last known ones when the server is away.
    pub(super) async fn sources(&mut self, pod: &Pod) -> Result<Sources, SpecError> {
        let service_env = self.service_env(pod).await;
        let tokens = self.tokens().await;
        let objects = match &mut self.objects {
            Some(objects) => objects.wait(OBJECTS_TIMEOUT).await,
            None => Some(Objects::new()),
        };
        let message = || "the server has not said what the pod's objects are";
        let objects = objects.ok_or_else(|| SpecError::config(message()))?;
        Ok(Sources {
            objects,
            tokens,
            claimed: self.claimed(pod).await,
            mounted: BTreeMap::new(),
            images: BTreeMap::new(),
            service_env: service_env?,
        })
    }

    async fn service_env(&mut self, pod: &Pod) -> Result<BTreeMap<String, String>, SpecError> {
        if let Some((read_at, env)) = &self.service_env
            && read_at.elapsed() < FRESH
        {
            return Ok(env.clone());
        }
        match sources::service_env(&self.node.client, pod).await {
            Ok(env) => {
                self.service_env = Some((Instant::now(), env.clone()));
                Ok(env)
            }
            Err(error) => match &self.service_env {
                Some((_, env)) => Ok(env.clone()),
                None => Err(SpecError::config(format!(
                    "read from the API server: {error}"
                ))),
            },
        }
    }
}

/// Whether a change of an object may help against it.
fn is_of_objects(reason: &str) -> bool {
    matches!(reason, "FailedMount" | "CreateContainerConfigError")
}
