//! The end and the beginning of containers as they themselves may have a say in: the way out of their
//! Services, `preStop`, stop signals, `postStart`, and the termination messages of containers that
//! have ended. Hooks run beside the worker: a slow one must not keep the pod from being killed in time.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Template, LifecycleHandler};
use tokio::time::Instant;

use super::Note;
use super::Step;
use super::Worker;
use super::instant_of;
use super::pod_name;

use crate::api::events;
use crate::network::drain::nodes::Leaver;
use crate::network::drain::{Drain, LIMIT, Progress};
use crate::network::wiring::PodNetwork;
use crate::pod::plan::{PostStart, PreStop, Signalled};
use crate::pod::prober::http;
use crate::pod::shape;
use crate::runtime::{LogOptions, Role, Runtime, State};
use datapath::Addrs;

/// A termination message, in bytes. These are Kubernetes' limits.
const MESSAGE_LIMIT: usize = 4096;
/// What of a log stands for the message of a container that failed without one, in bytes and lines.
const MESSAGE_LOG_LIMIT: usize = 2048;
const MESSAGE_LOG_LINES: u64 = 80;

/// How long a hook may take that has no deadline of its own.
const POST_START_TIMEOUT: Duration = Duration::from_secs(600);

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    /// Begins to watch the pod leave its Services; one that is in none has left.
    pub(super) fn drain(&mut self) -> Step {
        let leaver = self.leaver();
        let in_none = self.node.nodes.in_none(&leaver);
        self.memory.drain = Some(Drain {
            since: Timestamp::now(),
            seen: if in_none {
                Progress::DONE
            } else {
                Progress::default()
            },
        });
        if !in_none {
            let (nodes, notes) = (self.node.nodes.clone(), self.notes.clone());
            tokio::spawn(async move {
                let tell = |progress| {
                    let notes = notes.clone();
                    // The pod may have ended meanwhile.
                    async move { drop(notes.send(Note::Drained(progress)).await) }
                };
                let patience = Duration::try_from(LIMIT).unwrap_or_default();
                drop(tokio::time::timeout(patience, nodes.observe(leaver, tell)).await);
            });
        }
        Step::Progress
    }

    fn leaver(&self) -> Leaver {
        let pod = &self.update.pod;
        let sandbox = shape::sandbox(&self.containers);
        let pid = sandbox.and_then(|sandbox| match sandbox.state {
            State::Running { pid, .. } => Some(pid),
            _ => None,
        });
        let host_network = shape::host_network(pod);
        let address = self
            .memory
            .addrs
            .filter(|_| !host_network)
            .and_then(Addrs::first);
        let revision = pod.metadata.resource_version.as_deref();
        Leaver {
            uid: self.uid().to_owned(),
            address,
            told: revision.and_then(|text| text.parse().ok()).unwrap_or(0),
            pid,
            ports: host_network.then(|| shape::tcp_ports(pod)),
        }
    }

    /// Runs a container's `preStop`.
    pub(super) fn pre_stop(
        &mut self,
        id: String,
        name: &str,
        why: String,
        until: Timestamp,
    ) -> Step {
        let pod = self.update.pod.clone();
        let about = events::container(&pod, name);
        self.node.recorder.normal(about.clone(), "Killing", why);
        let begun = PreStop {
            until,
            ended: false,
        };
        self.memory.pre_stops.insert(id.clone(), begun);
        let template = shape::template(&pod, name).cloned();
        let (node, notes) = (self.node.clone(), self.notes.clone());
        let address = self.memory.addrs.and_then(Addrs::first);
        tokio::spawn(async move {
            let hook = template
                .as_ref()
                .and_then(|it| it.lifecycle.as_ref()?.pre_stop.clone());
            if let (Some(hook), Some(template)) = (hook, template) {
                let run = run_hook(&*node.runtime, &id, &hook, &template, address);
                let outcome = tokio::time::timeout_at(instant_of(until), run).await;
                if let Ok(Err(error)) = outcome {
                    node.recorder.warning(about, "FailedPreStopHook", error);
                }
            }
            // The pod may have ended meanwhile.
            drop(notes.send(Note::PreStopped(id)).await);
        });
        Step::Settled
    }

    /// Asks a container to stop.
    pub(super) fn stop(&mut self, id: String, name: &str, why: String, kill_at: Timestamp) -> Step {
        if !self.memory.pre_stops.contains_key(&id) {
            let about = events::container(&self.update.pod, name);
            self.node.recorder.normal(about, "Killing", why);
        }
        self.measure_wait();
        let at = Timestamp::now();
        let signalled = Signalled { at, kill_at };
        self.memory.signalled.insert(id.clone(), signalled);
        let node = self.node.clone();
        tokio::spawn(async move {
            if let Err(error) = node.runtime.signal(&id, false).await {
                // The plan kills it when its time is up.
                tracing::warn!(%error, id, "a container was not asked to stop");
            }
        });
        Step::Settled
    }

    /// Counts how long a pod that stops now has waited to be out of its Services, and says for whom in
    /// vain.
    fn measure_wait(&self) {
        let leaver = self.leaver();
        let first = self.memory.signalled.is_empty();
        let Some(drain) = self.memory.drain.filter(|_| first) else {
            return;
        };
        if self.node.nodes.in_none(&leaver) {
            return;
        }
        let waited = Timestamp::now().duration_since(drain.since);
        let waited = Duration::try_from(waited).unwrap_or_default();
        self.node.metrics.left(waited, drain.seen.left);
        if drain.seen.left {
            return;
        }
        let pod = pod_name(&self.update.pod);
        let nodes = self.node.nodes.clone();
        tokio::spawn(async move {
            let missing = nodes.missing(&leaver).await;
            tracing::warn!(
                pod,
                ?missing,
                "a pod is stopped before every node has said that it sends it no connections"
            );
        });
    }

    /// Runs a container's `postStart`, beside the worker. The plan waits for its end, and stops a container
    /// whose hook has failed.
    pub(super) fn post_start(&mut self, id: String, template: &Template) {
        let lifecycle = template.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|it| it.post_start.clone()) else {
            return;
        };
        let running = PostStart::Running;
        self.memory.post_starts.insert(id.clone(), running);
        let about = events::container(&self.update.pod, &template.name);
        let (node, notes) = (self.node.clone(), self.notes.clone());
        let template = template.clone();
        let address = self.memory.addrs.and_then(Addrs::first);
        tokio::spawn(async move {
            let run = run_hook(&*node.runtime, &id, &hook, &template, address);
            let outcome = tokio::time::timeout(POST_START_TIMEOUT, run).await;
            let failed = match outcome {
                Ok(outcome) => outcome.err(),
                Err(_) => Some("it did not end".to_owned()),
            };
            if let Some(why) = &failed {
                let recorder = &node.recorder;
                recorder.warning(about, "FailedPostStartHook", why.clone());
            }
            // The pod may have ended meanwhile.
            drop(notes.send(Note::PostStarted { id, failed }).await);
        });
    }

    /// Reads the termination messages of containers that have ended, once each.
    pub(super) async fn read_termination_messages(&mut self) {
        let pod = self.update.pod.clone();
        let templates = shape::init_templates(&pod).iter();
        let templates: Vec<&Template> = templates.chain(shape::main_templates(&pod)).collect();
        for container in &self.containers {
            let Some(exit) = container.exit() else {
                continue;
            };
            let identity = &container.identity;
            if identity.role == Role::Sandbox
                || self.memory.termination_messages.contains_key(&container.id)
            {
                continue;
            }
            let (dir, name, attempt) = (self.dir.clone(), identity.name.clone(), identity.attempt);
            let read = move || dir.read_termination_message(&name, attempt, MESSAGE_LIMIT);
            // A file that is not there, or not a regular file any more, is an empty message.
            let message = tokio::task::spawn_blocking(read).await.ok();
            let mut message = message.and_then(Result::ok).unwrap_or_default();
            let template = templates.iter().find(|it| it.name == identity.name);
            let policy = template.and_then(|it| it.termination_message_policy.as_deref());
            if message.is_empty() && exit.code != 0 && policy == Some("FallbackToLogsOnError") {
                message = end_of_log(&*self.node.runtime, &container.id).await;
            }
            let message = String::from_utf8_lossy(&message).into_owned();
            let messages = &mut self.memory.termination_messages;
            messages.insert(container.id.clone(), message);
        }
    }
}

/// The end of a container's log.
async fn end_of_log<R: Runtime>(runtime: &R, id: &str) -> Vec<u8> {
    let options = LogOptions {
        tail: Some(MESSAGE_LOG_LINES),
        ..Default::default()
    };
    let mut frames = runtime.logs(id, &options);
    let mut words = Vec::new();
    while let Some(Ok(frame)) = frames.next().await {
        words.extend_from_slice(&frame);
        // A line has the length that the container gave it.
        let surplus = words.len().saturating_sub(MESSAGE_LOG_LIMIT);
        words.drain(..surplus);
    }
    words
}

async fn run_hook<R: Runtime>(
    runtime: &R,
    id: &str,
    hook: &LifecycleHandler,
    template: &Template,
    address: Option<std::net::IpAddr>,
) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
        return Ok(());
    }
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let outcome = runtime.exec(id, &command, POST_START_TIMEOUT).await;
        let outcome = outcome.map_err(|e| e.to_string())?;
        return match outcome.code {
            0 => Ok(()),
            code => Err(format!(
                "command ended with {code}: {}",
                outcome.output.trim()
            )),
        };
    }
    let Some(get) = &hook.http_get else {
        return Ok(());
    };
    // Whatever the answer's code: it was asked.
    let answer = http::ask(template, get, address).await;
    answer.map(drop).map_err(|failure| failure.to_string())
}
