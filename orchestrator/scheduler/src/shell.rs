//! The scheduler's shell: watches feed the engine, its orders become bindings, events and
//! conditions. One task owns the engine; it decides one pod at a time while earlier bindings are
//! under way.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine::{Bound, Change, Engine, Order};
use super::pod::{PodKey, PodRow};
use super::snapshot::NodeRow;
use api::meta::timestamp;
use client::{About, ClientError, Delivery, Kind, PatchKind, Recorder, Verbs, list_watch};

/// Bindings under way at a time.
const CONCURRENT: usize = 64;
/// Changes taken in before the next decision, at most.
const DRAIN: usize = 256;

/// Runs until `shutdown`.
pub async fn run(client: kube::Client, shutdown: CancellationToken) {
    let (changes, mut delivered) = mpsc::channel(DRAIN);
    let mut watches = JoinSet::new();
    watches.spawn(list_watch(
        client.clone(),
        Kind::POD,
        "",
        changes.clone(),
        pod_change,
    ));
    watches.spawn(list_watch(
        client.clone(),
        Kind::NODE,
        "",
        changes,
        node_change,
    ));
    let binder = Binder {
        recorder: Recorder::start(client.clone(), "default-scheduler"),
        verbs: Verbs::new(client),
    };
    let mut engine = Engine::default();
    let mut running: JoinSet<Ended> = JoinSet::new();
    loop {
        while running.len() < CONCURRENT
            && let Some(order) = engine.next(Timestamp::now())
        {
            let binder = binder.clone();
            running.spawn(async move { binder.carry_out(order).await });
        }
        let wait = wait(&engine, running.len());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(change) = delivered.recv() => {
                engine.apply(change, Timestamp::now());
                for _ in 1..DRAIN {
                    let Ok(change) = delivered.try_recv() else { break };
                    engine.apply(change, Timestamp::now());
                }
            }
            Some(ended) = running.join_next() => match ended {
                Ok(Some((key, uid, bound))) => engine.bound(&key, &uid, bound, Timestamp::now()),
                Ok(None) => {}
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What a binding came to; nothing for an explanation.
type Ended = Option<(PodKey, String, Bound)>;

fn wait(engine: &Engine, running: usize) -> Duration {
    const LONGEST: Duration = Duration::from_secs(3600);
    let deadline = engine.next_deadline().filter(|_| running < CONCURRENT);
    deadline.map_or(LONGEST, |at| {
        let wait = Timestamp::now()
            .duration_until(at)
            .max(SignedDuration::ZERO);
        Duration::try_from(wait).unwrap_or(LONGEST).min(LONGEST)
    })
}

fn pod_change(delivery: Delivery<Pod>) -> Change {
    match delivery {
        Delivery::Snapshot { items, revision } => Change::Pods {
            items: items.into_iter().map(PodRow::from).collect(),
            revision,
        },
        Delivery::Upsert(pod) => Change::Pod(PodRow::from(pod)),
        Delivery::Delete(pod) => Change::PodGone(PodRow::from(pod).key),
    }
}

fn node_change(delivery: Delivery<Node>) -> Change {
    match delivery {
        Delivery::Snapshot { items, .. } => {
            Change::Nodes(items.into_iter().map(NodeRow::from).collect())
        }
        Delivery::Upsert(node) => Change::Node(NodeRow::from(node)),
        Delivery::Delete(node) => Change::NodeGone(NodeRow::from(node).name),
    }
}

/// Carries out orders.
#[derive(Clone)]
struct Binder {
    verbs: Verbs,
    recorder: Recorder,
}

impl Binder {
    async fn carry_out(&self, order: Order) -> Ended {
        match order {
            Order::Bind { key, uid, node } => {
                let bound = self.bind(&key, &uid, &node).await;
                Some((key, uid, bound))
            }
            Order::Explain {
                key,
                uid,
                message,
                changed,
            } => {
                self.explain(&key, &uid, message, changed).await;
                None
            }
        }
    }

    async fn bind(&self, key: &PodKey, uid: &str, node: &str) -> Bound {
        let (namespace, name) = key;
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        match self
            .verbs
            .create(Kind::POD, namespace, (name, "binding"), &binding)
            .await
        {
            Ok(_) => {
                let text = format!("Successfully assigned {namespace}/{name} to {node}");
                self.recorder.normal(about(key, uid), "Scheduled", text);
                Bound::Done
            }
            Err(error) => {
                tracing::info!(namespace, name, node, %error, "not bound");
                Bound::Failed(self.look_again(key).await)
            }
        }
    }

    /// The pod as the server has it. Until it is known, the pod keeps its place: it may be bound.
    async fn look_again(&self, (namespace, name): &PodKey) -> Option<Box<PodRow>> {
        let mut pause = Duration::from_millis(20);
        loop {
            match self.verbs.get(Kind::POD, namespace, name).await {
                Ok(object) => {
                    let pod = serde_json::from_value::<Pod>(object).ok()?;
                    return Some(Box::new(PodRow::from(pod)));
                }
                Err(ClientError::NotFound(_)) => return None,
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    async fn explain(&self, key: &PodKey, uid: &str, message: String, changed: bool) {
        if changed {
            let body = json!({
                "metadata": {"uid": uid},
                "status": {"conditions": [{
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": message,
                    "lastTransitionTime": timestamp(Timestamp::now()),
                }]},
            });
            let target = (key.0.as_str(), key.1.as_str(), "status");
            let patched = self
                .verbs
                .patch(Kind::POD, target, PatchKind::Strategic, &body)
                .await;
            if let Err(error) = patched {
                tracing::debug!(%error, "condition not written");
            }
        }
        self.recorder
            .warning(about(key, uid), "FailedScheduling", message);
    }
}

fn about(key: &PodKey, uid: &str) -> About {
    About {
        kind: Kind::POD,
        namespace: key.0.clone(),
        name: key.1.clone(),
        uid: uid.to_owned(),
        field_path: String::new(),
    }
}
