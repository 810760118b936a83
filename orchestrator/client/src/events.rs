//! Records events about objects. Best effort and in the background: an event never delays the work
//! that it tells of. What is written, counted up, combined or dropped is decided in `correlate`.

use jiff::Timestamp;
use serde_json::{Value, json};
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
    /// The part of the object, such as `spec.containers{web}`; empty for the whole.
    pub field_path: String,
}

/// Who writes events.
#[derive(Clone, Debug)]
struct Reporter {
    component: &'static str,
    /// The node that it runs for; empty if it is none's.
    host: String,
}

/// Hands events to the task that writes them.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

impl Recorder {
    /// Starts the writing task; it ends when every recorder is dropped.
    pub fn start(client: kube::Client, component: &'static str) -> Self {
        Self::start_on(client, component, String::new())
    }

    /// Starts the writing task of a component that runs for a node.
    pub fn start_on(client: kube::Client, component: &'static str, host: String) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE);
        let reporter = Reporter { component, host };
        tokio::spawn(write(Verbs::new(client), reporter, notes));
        Self { queue }
    }

    pub fn normal(&self, about: About, reason: &str, message: impl Into<String>) {
        self.record("Normal", about, reason, message.into());
    }

    pub fn warning(&self, about: About, reason: &str, message: impl Into<String>) {
        self.record("Warning", about, reason, message.into());
    }

    fn record(&self, severity: &'static str, about: About, reason: &str, message: String) {
        let note = Note {
            severity,
            about,
            reason: reason.to_owned(),
            message: presentable(&message),
        };
        if self.queue.try_send(note).is_err() {
            tracing::debug!("event dropped: the queue is full");
        }
    }
}

/// A message as people may read it on a terminal. Containers choose parts of it (what a probe's command
/// wrote), so it is cut, and no control character is left in it.
fn presentable(message: &str) -> String {
    let plain = message.chars().map(|c| match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    });
    let mut text = String::new();
    for c in plain {
        if text.len() + c.len_utf8() > MESSAGE_LIMIT {
            break;
        }
        text.push(c);
    }
    text
}

/// The longest message of an event, in bytes; Kubernetes' limit.
const MESSAGE_LIMIT: usize = 1024;
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

async fn write(verbs: Verbs, reporter: Reporter, mut notes: mpsc::Receiver<Note>) {
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
        match create(&verbs, &reporter, &key, &message).await {
            Ok(name) => correlator.written(key, name, Timestamp::now()),
            Err(error) => tracing::debug!(%error, "event not written"),
        }
    }
}

async fn create(
    verbs: &Verbs,
    reporter: &Reporter,
    note: &Note,
    message: &str,
) -> Result<String, super::ClientError> {
    let now = Timestamp::now();
    let name = format!("{}.{:x}", note.about.name, now.as_nanosecond());
    let object = event(reporter, note, message, &name, now);
    verbs
        .create(Kind::EVENT, note.namespace(), ("", ""), &object)
        .await?;
    Ok(name)
}

/// The object of an event. Members that would be empty are left out.
fn event(reporter: &Reporter, note: &Note, message: &str, name: &str, now: Timestamp) -> Value {
    let About {
        kind,
        namespace,
        name: involved,
        uid,
        field_path,
    } = &note.about;
    let Reporter { component, host } = reporter;
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": note.namespace()},
        "involvedObject": {
            "apiVersion": kind.api_version(), "kind": kind.kind, "name": involved, "uid": uid,
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
    let optional = [
        ("/involvedObject", "namespace", namespace),
        ("/involvedObject", "fieldPath", field_path),
        ("/source", "host", host),
        ("", "reportingInstance", host),
    ];
    for (parent, member, text) in optional {
        if let Some(parent) = object.pointer_mut(parent).filter(|_| !text.is_empty()) {
            parent[member] = json!(text);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            kind: Kind::POD,
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            uid: "1".to_owned(),
            field_path: String::new(),
        }
    }

    #[test]
    fn a_command_writes_no_terminal_escapes_and_no_more_than_a_limit_into_an_event() {
        let (queue, mut notes) = mpsc::channel(1);
        let recorder = Recorder { queue };
        // ESC and BEL are of C0, CSI is of C1, DEL is between them.
        let written = "Readiness probe failed: \u{1b}]0;title\u{7}\u{9b}2J\u{7f}line\r\nnext é";
        let long = format!("{written}{}", "é".repeat(10_000));
        recorder.warning(about(), "Unhealthy", long);
        let note = notes.try_recv().expect("an event");
        assert!(note.message.len() <= MESSAGE_LIMIT);
        assert!(!note.message.chars().any(char::is_control));
        let kept = "Readiness probe failed: \u{fffd}]0;title\u{fffd}\u{fffd}2J\u{fffd}line  next é";
        assert!(note.message.starts_with(kept), "{}", note.message);
    }

    #[test]
    fn an_event_names_its_reporter_and_the_part_that_it_is_about_if_there_is_one() {
        let now = "2026-01-02T03:04:05Z".parse().expect("a time");
        let made = |component, host: &str, field_path: &str| {
            let reporter = Reporter {
                component,
                host: host.to_owned(),
            };
            let note = Note {
                severity: "Normal",
                about: About {
                    field_path: field_path.to_owned(),
                    ..about()
                },
                reason: "Started".to_owned(),
                message: "m".to_owned(),
            };
            event(&reporter, &note, "m", "web-0.1", now)
        };
        let of_node = made("kubelet", "node-1", "spec.containers{web}");
        let involved = &of_node["involvedObject"];
        assert_eq!(involved["fieldPath"], "spec.containers{web}");
        assert_eq!(involved["namespace"], "shop");
        assert_eq!(
            of_node["source"],
            json!({"component": "kubelet", "host": "node-1"})
        );
        assert_eq!(of_node["reportingInstance"], "node-1");
        let of_none = made("default-scheduler", "", "");
        assert!(of_none["involvedObject"].get("fieldPath").is_none());
        assert_eq!(of_none["source"], json!({"component": "default-scheduler"}));
        assert!(of_none.get("reportingInstance").is_none());
    }
}
