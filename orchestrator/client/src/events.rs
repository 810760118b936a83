//! Records events about objects. Best effort and in the background: an event never delays the work
//! that it tells of. What is written, counted up, combined or dropped is decided in `correlate`.

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;

use super::correlate::{Correlator, Verdict};
use super::kind::Kind;
use super::verbs::{PatchKind, Verbs};

/// The object that an event is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct About {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Hands events to the task that writes them.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

impl Recorder {
    /// Starts the writing task; it ends when every recorder is dropped.
    pub fn start(client: kube::Client, component: &'static str) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE);
        tokio::spawn(write(Verbs::new(client), component, notes));
        Self { queue }
    }

    pub fn normal(&self, about: About, reason: &str, message: String) {
        self.record("Normal", about, reason, message);
    }

    pub fn warning(&self, about: About, reason: &str, message: String) {
        self.record("Warning", about, reason, message);
    }

    fn record(&self, severity: &'static str, about: About, reason: &str, message: String) {
        let note = Note {
            severity,
            about,
            reason: reason.to_owned(),
            message,
        };
        if self.queue.try_send(note).is_err() {
            tracing::debug!("event dropped: the queue is full");
        }
    }
}

/// More than this waiting means that the server is too slow for events; they are dropped.
const QUEUE: usize = 1024;

/// One event that has happened.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Note {
    pub severity: &'static str,
    pub about: About,
    pub reason: String,
    pub message: String,
}

impl Note {
    /// Events of cluster-wide objects live in `default`.
    fn namespace(&self) -> &str {
        if self.about.namespace.is_empty() {
            "default"
        } else {
            &self.about.namespace
        }
    }
}

async fn write(verbs: Verbs, component: &'static str, mut notes: mpsc::Receiver<Note>) {
    let mut correlator = Correlator::default();
    while let Some(note) = notes.recv().await {
        let (key, message) = match correlator.decide(note, Timestamp::now()) {
            Verdict::Drop => continue,
            Verdict::Create { key, message } => (key, message),
            Verdict::Count {
                key,
                message,
                name,
                count,
            } => {
                let now = Timestamp::now();
                let body = json!({"count": count, "message": message, "lastTimestamp": now});
                let target = (key.namespace(), name.as_str(), "");
                let patched = verbs.patch(Kind::EVENT, target, PatchKind::Merge, &body);
                if patched.await.is_ok() {
                    continue;
                }
                correlator.lost(&key);
                (key, message)
            }
        };
        match create(&verbs, component, &key, &message).await {
            Ok(name) => correlator.written(key, name, Timestamp::now()),
            Err(error) => tracing::debug!(%error, "event not written"),
        }
    }
}

async fn create(
    verbs: &Verbs,
    component: &str,
    note: &Note,
    message: &str,
) -> Result<String, super::ClientError> {
    let now = Timestamp::now();
    let name = format!("{}.{:x}", note.about.name, now.as_nanosecond());
    let object = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": note.namespace()},
        "involvedObject": {
            "apiVersion": note.about.kind.api_version(),
            "kind": note.about.kind.kind,
            "namespace": note.about.namespace,
            "name": note.about.name,
            "uid": note.about.uid,
        },
        "type": note.severity,
        "reason": note.reason,
        "message": message,
        "source": {"component": component},
        "reportingComponent": component,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    });
    verbs
        .create(Kind::EVENT, note.namespace(), ("", ""), &object)
        .await?;
    Ok(name)
}
