//! The scheduler's shell: watches feed the engine, its orders become bindings, events and
//! conditions. One task owns the engine; it decides one pod at a time while earlier bindings are
//! under way.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine::{Bound, Engine, Explanation, Order, Victim};
use super::numbers::{Ending, Numbers};
use super::pod::{PodKey, PodRow};
use super::profile::Config;
use super::volumes::Plan;
use super::volumes::objects::SELECTED_NODE;
use api::meta::timestamp;
use client::{About, ClientError, Kind, PatchKind, Recorder, Verbs};

mod watches;

/// Bindings under way at a time.
const CONCURRENT: usize = 64;
/// Changes taken in before the next decision, at most.
const DRAIN: usize = 256;

/// Runs until `shutdown`.
pub async fn run(
    client: kube::Client,
    config: Config,
    numbers: Numbers,
    shutdown: CancellationToken,
) {
    let (changes, mut delivered) = mpsc::channel(DRAIN);
    let _watches = watches::start(&client, &changes);
    let binder = Binder {
        recorder: Recorder::start(client.clone(), "default-scheduler"),
        verbs: Verbs::new(client),
    };
    let mut engine = Engine::new(config);
    let mut running: JoinSet<Ended> = JoinSet::new();
    loop {
        while running.len() < CONCURRENT
            && let Some((began, order)) = decide(&mut engine)
        {
            let (binder, numbers) = (binder.clone(), numbers.clone());
            running.spawn(async move {
                let explains = matches!(order, Order::Explain(_));
                let ended = binder.carry_out(order).await;
                if let Some(result) = result(explains, &ended) {
                    numbers.attempted(result, began.elapsed());
                }
                ended
            });
        }
        numbers.waiting(engine.waiting());
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

/// The next order, and when its decision began.
fn decide(engine: &mut Engine) -> Option<(Instant, Order)> {
    let began = Instant::now();
    Some((began, engine.next(Timestamp::now())?))
}

/// What came of a decision. Volumes that are being made leave it open.
fn result(explains: bool, ended: &Ended) -> Option<Ending> {
    match ended {
        Some((_, _, Bound::Done)) => Some(Ending::Scheduled),
        Some((_, _, Bound::Failed(_))) => Some(Ending::Error),
        None => explains.then_some(Ending::Unschedulable),
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
            Order::Prepare {
                key,
                uid,
                node,
                plan,
            } => match self.prepare(&plan, &node).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::info!(?key, node, %error, "volumes not prepared");
                    let found = self.look_again(&key).await;
                    Some((key, uid, Bound::Failed(found)))
                }
            },
            Order::Explain(explanation) => {
                self.explain(explanation).await;
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

    /// Gives volumes to claims, as they were when that was decided, and says for which node others are made.
    async fn prepare(&self, plan: &Plan, node: &str) -> Result<(), ClientError> {
        for gift in &plan.bind {
            let (namespace, name) = &gift.claim;
            let body = json!({
                "metadata": {
                    "resourceVersion": gift.revision,
                    "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
                },
                "spec": {"claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": namespace,
                    "name": name,
                    "uid": gift.claim_uid,
                }},
            });
            let target = ("", gift.volume.as_str(), "");
            self.verbs
                .patch(Kind::PERSISTENT_VOLUME, target, PatchKind::Merge, &body)
                .await?;
        }
        for (namespace, name) in &plan.provision {
            let body = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            let target = (namespace.as_str(), name.as_str(), "");
            let kind = Kind::PERSISTENT_VOLUME_CLAIM;
            self.verbs
                .patch(kind, target, PatchKind::Merge, &body)
                .await?;
        }
        Ok(())
    }

    /// Stops the victims first: the pod that is nominated knows then that they are on their way out.
    async fn explain(&self, explanation: Explanation) {
        let Explanation {
            key,
            uid,
            message,
            changed,
            nominated,
            victims,
            demoted,
        } = explanation;
        for victim in &victims {
            let node = nominated.as_deref().unwrap_or_default();
            self.stop(victim, &uid, node).await;
        }
        for (key, uid) in &demoted {
            let body = json!({"metadata": {"uid": uid}, "status": {"nominatedNodeName": null}});
            self.write_status(key, &body).await;
        }
        let mut status = json!({});
        if changed {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
                "lastTransitionTime": timestamp(Timestamp::now()),
            }]);
        }
        if let Some(node) = &nominated {
            status["nominatedNodeName"] = if node.is_empty() {
                json!(null)
            } else {
                json!(node)
            };
        }
        if changed || nominated.is_some() {
            let body = json!({"metadata": {"uid": uid}, "status": status});
            self.write_status(&key, &body).await;
        }
        self.recorder
            .warning(about(&key, &uid), "FailedScheduling", message);
    }

    /// Says of a pod why it is stopped, and deletes it with its own grace period.
    async fn stop(&self, victim: &Victim, preemptor: &str, node: &str) {
        let (namespace, name) = &victim.key;
        let scheduler = &victim.scheduler;
        let body = json!({
            "metadata": {"uid": victim.uid},
            "status": {"conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "PreemptionByScheduler",
                "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
                "lastTransitionTime": timestamp(Timestamp::now()),
            }]},
        });
        self.write_status(&victim.key, &body).await;
        let options = json!({"preconditions": {"uid": victim.uid}});
        match self
            .verbs
            .delete(Kind::POD, namespace, name, &options)
            .await
        {
            Ok(_) => {
                let text = format!("Preempted by pod {preemptor} on node {node}");
                self.recorder
                    .normal(about(&victim.key, &victim.uid), "Preempted", text);
            }
            // It is gone already, or is another pod now.
            Err(ClientError::NotFound(_) | ClientError::Conflict(_)) => {}
            Err(error) => tracing::info!(namespace, name, %error, "not preempted"),
        }
    }

    async fn write_status(&self, key: &PodKey, body: &serde_json::Value) {
        let target = (key.0.as_str(), key.1.as_str(), "status");
        let patched = self
            .verbs
            .patch(Kind::POD, target, PatchKind::Strategic, body);
        if let Err(error) = patched.await {
            tracing::debug!(%error, "status not written");
        }
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
