//! The audit log: who has asked for what, and what became of it.
//!
//! ```text
//! request ─▶ policy: None? ──▶ nothing more
//!               │ else
//!               ▼
//!             Trail ◀── who asks, authorisation, admission, objects, the answer
//!               │ a line at each stage
//!               ├──▶ queue ──▶ file      full: requests wait, then are refused (503)
//!               └──▶ queue ──▶ webhook   full: the event is dropped and counted
//! ```
//!
//! A [`Trail`] goes with each request, from its first look at the policy to the last byte of its
//! answer; whoever learns something that belongs into the log tells the trail. While nothing is
//! logged a trail is empty and costs nothing. No request waits for a disk or for the webhook, but for
//! room in the file's queue: what cannot be logged is not done.

mod event;
mod file;
pub mod policy;
mod queue;
mod trail;
mod webhook;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;
use jiff::Timestamp;

use super::State;
use super::authn::User;
use super::outgoing::{ClientConfig, kubeconfig};
use super::request_info::RequestInfo;
use super::shares::Peer;
use api::ApiError;

pub use file::FileOptions;
pub use policy::Level;
pub use trail::Trail;

use file::LogFile;
use policy::Policy;
use queue::Queue;

/// Bytes of events that wait for a backend.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Lines that the file takes at once.
const FILE_BATCH: usize = 4096;
/// How long a request waits for room in the file's queue before it is refused.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);

/// What is logged, and where.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Without a policy nothing is logged.
    pub policy: Option<PathBuf>,
    pub file: Option<FileOptions>,
    /// A kubeconfig that names the webhook.
    pub webhook: Option<PathBuf>,
}

/// The log of a server.
pub struct Log {
    policy: Policy,
    file: Option<Backend>,
    webhook: Option<Backend>,
}

/// Events on their way to one place.
pub struct Backend {
    name: &'static str,
    queue: Queue,
    /// Events that have not arrived there.
    lost: AtomicU64,
}

impl Log {
    /// Reads the policy and opens the backends. None: nothing is to be logged.
    pub fn open(options: &Options) -> Result<Option<(Arc<Self>, Outlets)>, String> {
        let Some(path) = &options.policy else {
            return match options.file.is_some() || options.webhook.is_some() {
                true => Err("an audit log needs a policy: give --audit-policy-file".to_owned()),
                false => Ok(None),
            };
        };
        let policy = read_policy(path)?;
        let file = options.file.as_ref().map(open_file).transpose()?;
        let client = options.webhook.as_deref().map(kubeconfig::read);
        let client = client
            .transpose()
            .map_err(|why| format!("the audit webhook: {why}"))?;
        if file.is_none() && client.is_none() {
            tracing::warn!("there is an audit policy and nowhere to log to: nothing is logged");
            return Ok(None);
        }
        let log = Arc::new(Self {
            policy,
            file: file.as_ref().map(|_| Backend::new("file")),
            webhook: client.as_ref().map(|_| Backend::new("webhook")),
        });
        Ok(Some((log, Outlets { file, client })))
    }

    /// Writes an event to every backend.
    fn write(&self, line: Bytes) {
        if let Some(webhook) = &self.webhook
            && !webhook.queue.try_push(line.clone())
        {
            webhook.lost(1, "its queue is full");
        }
        if let Some(file) = &self.file {
            file.queue.push(line);
        }
    }

    /// A log that nothing empties.
    #[cfg(test)]
    pub fn of_test() -> Arc<Self> {
        Arc::new(Self {
            policy: Policy::default(),
            file: Some(Backend::new("test")),
            webhook: None,
        })
    }

    /// What was written since the last time.
    #[cfg(test)]
    async fn written(&self) -> Vec<serde_json::Value> {
        let queue = &self.file.as_ref().expect("a backend").queue;
        let lines = tokio::time::timeout(Duration::from_millis(1), queue.take(usize::MAX)).await;
        let lines = lines.ok().flatten().unwrap_or_default();
        let parse = |line: &Bytes| serde_json::from_slice(line).expect("an event");
        lines.iter().map(parse).collect()
    }

    /// Waits until all that was logged is written.
    pub async fn close(&self, patience: Duration) {
        for backend in self.file.iter().chain(&self.webhook) {
            if !backend.queue.close(patience).await {
                tracing::warn!(
                    backend = backend.name,
                    "audit events are lost that were not written"
                );
            }
        }
    }
}

/// What the backends write to.
pub struct Outlets {
    file: Option<LogFile>,
    client: Option<ClientConfig>,
}

impl Outlets {
    /// Starts writing.
    pub fn start(self, state: &Arc<State>, log: &Arc<Log>) {
        if let Some(file) = self.file {
            tokio::spawn(write_file(log.clone(), file));
        }
        if let Some(client) = self.client {
            let (state, log) = (Arc::downgrade(state), log.clone());
            tokio::spawn(async move {
                if let Some(backend) = &log.webhook {
                    webhook::run(state, client, backend).await;
                }
            });
        }
    }
}

impl Backend {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            queue: Queue::new(QUEUE_BYTES),
            lost: AtomicU64::new(0),
        }
    }

    /// Counts events that are lost; the first of each thousand is spoken of.
    fn lost(&self, count: u64, why: &str) {
        let before = self.lost.fetch_add(count, Ordering::Relaxed);
        if before == 0 || before / 1000 != (before + count) / 1000 {
            let lost = before + count;
            tracing::error!(backend = self.name, lost, why, "audit events are lost");
        }
    }
}

/// The trail of a request; the error is that of a caller whom nobody knows.
pub async fn follow(
    state: &State,
    user: Result<&User, &ApiError>,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    peer: Option<Peer>,
) -> Result<Trail, ApiError> {
    let Some(log) = &state.audit else {
        return Ok(Trail::default());
    };
    let at = Timestamp::now();
    let info = RequestInfo::of(method, uri);
    let verdict = log.policy.judge(user.ok(), &info);
    if verdict.level == Level::None {
        return Ok(Trail::default());
    }
    if let Some(file) = &log.file
        && !file.queue.room(ROOM_TIMEOUT).await
    {
        let why = "the audit log cannot be written, and what is not logged is not done";
        return Err(ApiError::ServiceUnavailable(why.to_owned()));
    }
    let arrival = event::Arrival {
        id: event::id(headers),
        uri: uri
            .path_and_query()
            .map_or("/", |uri| uri.as_str())
            .to_owned(),
        info,
        user: user.ok().cloned(),
        sources: event::sources(headers, peer.map(|peer| peer.0)),
        user_agent: event::user_agent(headers),
        at,
    };
    Ok(Trail::open(log.clone(), verdict, arrival))
}

/// Writes what waits until nothing more will come. A disk that fails loses events, as Kubernetes'
/// blocking mode does.
async fn write_file(log: Arc<Log>, file: LogFile) {
    let Some(backend) = &log.file else {
        return;
    };
    let mut file = Some(file);
    while let (Some(mut open), Some(lines)) = (file.take(), backend.queue.take(FILE_BATCH).await) {
        let written = tokio::task::spawn_blocking(move || {
            let outcome = open.write(&lines);
            (open, lines.len() as u64, outcome)
        });
        match written.await {
            Ok((open, count, outcome)) => {
                file = Some(open);
                if let Err(error) = outcome {
                    backend.lost(count, &error.to_string());
                }
            }
            Err(error) => {
                tracing::error!(%error, "the audit log has ended; requests that it is for are refused");
            }
        }
        backend.queue.written();
    }
}

fn read_policy(path: &Path) -> Result<Policy, String> {
    let failed = |why: String| format!("the audit policy {}: {why}", path.display());
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    Policy::parse(&text).map_err(failed)
}

fn open_file(options: &FileOptions) -> Result<LogFile, String> {
    let opened = LogFile::open(options.clone());
    opened.map_err(|error| format!("the audit log {}: {error}", options.path.display()))
}
