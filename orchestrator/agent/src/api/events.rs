//! What the agent tells people about pods and its node: Events, written in the background.
//!
//! Best effort: an event never delays the work that it tells of. One that repeats counts up.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use crate::pod::status::seconds;
use datapath::ObjectKey;

/// The component that tools look for in events of a node.
const COMPONENT: &str = "kubelet";

/// More than this waiting means that the server is away or too slow for events.
const QUEUE: usize = 256;

/// The longest message of an event, in bytes; Kubernetes' limit.
const MESSAGE_LIMIT: usize = 1024;

/// How many written events are remembered to count up on.
const REMEMBERED: usize = 256;

/// Hands events to the task that writes them.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
    field_path: Option<String>,
}

impl About {
    pub fn pod(pod: &Pod) -> About {
        let owned = |text: &Option<String>| text.clone().unwrap_or_default();
        About {
            kind: "Pod",
            namespace: owned(&pod.metadata.namespace),
            name: owned(&pod.metadata.name),
            uid: owned(&pod.metadata.uid),
            field_path: None,
        }
    }

    /// One container of a pod.
    pub fn container(pod: &Pod, name: &str) -> About {
        let spec = pod.spec.as_ref();
        let init = spec.and_then(|spec| spec.init_containers.as_ref());
        let is_init = init
            .into_iter()
            .flatten()
            .any(|template| template.name == name);
        let list = if is_init {
            "initContainers"
        } else {
            "containers"
        };
        About {
            field_path: Some(format!("spec.{list}{{{name}}}")),
            ..About::pod(pod)
        }
    }

    pub fn service(key: &ObjectKey, uid: &str) -> About {
        About {
            kind: "Service",
            namespace: key.namespace().to_owned(),
            name: key.name().to_owned(),
            uid: uid.to_owned(),
            field_path: None,
        }
    }

    /// Kubernetes' events of a node name it as its uid, too.
    pub fn node(node: &Node) -> About {
        let name = node.metadata.name.clone().unwrap_or_default();
        About {
            kind: "Node",
            namespace: String::new(),
            uid: name.clone(),
            name,
            field_path: None,
        }
    }
}

impl Recorder {
    /// Starts the writing task; it ends when every recorder is dropped.
    pub fn start(client: Client, host: String) -> Recorder {
        let (queue, notes) = mpsc::channel(QUEUE);
        tokio::spawn(write(client, host, notes));
        Recorder { queue }
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

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    severity: &'static str,
    about: About,
    reason: String,
    message: String,
}

async fn write(client: Client, host: String, mut notes: mpsc::Receiver<Note>) {
    let mut written: BTreeMap<Note, (String, i32)> = BTreeMap::new();
    while let Some(note) = notes.recv().await {
        let namespace = match note.about.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let api: Api<Event> = Api::namespaced(client.clone(), namespace);
        if let Some((name, count)) = written.get_mut(&note) {
            *count += 1;
            let now = seconds(Timestamp::now());
            let patch = Patch::Merge(json!({ "count": *count, "lastTimestamp": now }));
            if api
                .patch(name, &PatchParams::default(), &patch)
                .await
                .is_ok()
            {
                continue;
            }
        }
        let event = event(&note, namespace, &host, Timestamp::now());
        let name = event.metadata.name.clone().unwrap_or_default();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if written.len() >= REMEMBERED {
                    written.clear();
                }
                written.insert(note, (name, 1));
            }
            Err(error) => tracing::debug!(%error, "an event was not written"),
        }
    }
}

fn event(note: &Note, namespace: &str, host: &str, now: Timestamp) -> Event {
    let mut event = Event::default();
    event.metadata.name = Some(format!("{}.{:x}", note.about.name, now.as_nanosecond()));
    event.metadata.namespace = Some(namespace.to_owned());
    event.involved_object = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(note.about.kind.to_owned()),
        namespace: Some(note.about.namespace.clone()).filter(|it| !it.is_empty()),
        name: Some(note.about.name.clone()),
        uid: Some(note.about.uid.clone()),
        field_path: note.about.field_path.clone(),
        ..Default::default()
    };
    event.reason = Some(note.reason.clone());
    event.message = Some(note.message.clone());
    event.type_ = Some(note.severity.to_owned());
    event.source = Some(EventSource {
        component: Some(COMPONENT.to_owned()),
        host: Some(host.to_owned()),
    });
    event.first_timestamp = Some(seconds(now));
    event.last_timestamp = Some(seconds(now));
    event.count = Some(1);
    event.reporting_component = Some(COMPONENT.to_owned());
    event.reporting_instance = Some(host.to_owned());
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_writes_no_terminal_escapes_and_no_more_than_a_limit_into_an_event() {
        let (queue, mut notes) = mpsc::channel(1);
        let recorder = Recorder { queue };
        // ESC and BEL are of C0, CSI is of C1, DEL is between them.
        let written = "Readiness probe failed: \u{1b}]0;title\u{7}\u{9b}2J\u{7f}line\r\nnext é";
        let long = format!("{written}{}", "é".repeat(10_000));
        recorder.warning(About::pod(&Pod::default()), "Unhealthy", long);
        let note = notes.try_recv().expect("an event");
        assert!(note.message.len() <= MESSAGE_LIMIT);
        assert!(!note.message.chars().any(char::is_control));
        let kept = "Readiness probe failed: \u{fffd}]0;title\u{fffd}\u{fffd}2J\u{fffd}line  next é";
        assert!(note.message.starts_with(kept), "{}", note.message);
    }
}
