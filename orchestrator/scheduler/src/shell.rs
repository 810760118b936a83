//! The scheduler's shell: watches feed the engine, its orders become bindings, events and
//! conditions. One task owns the engine; it decides one pod at a time while earlier bindings are
//! under way.

use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine::{Bound, Engine, Explanation, Order, Victim};
use super::extender::Said;
use super::numbers::{Ending, Numbers};
use super::pod::{PodKey, PodRow};
use super::profile::Config;
use super::volumes::Plan;
use super::volumes::objects::SELECTED_NODE;
use api::meta::timestamp;
use client::{About, ClientError, Kind, PatchKind, Recorder, Verbs};
use extend::Extenders;

mod extend;
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
        extenders: Extenders::new(&config.extenders).await,
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
                if let Some(result) = result(explains, &ended.outcome) {
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
                Ok(ended) => take_in(&mut engine, ended, Timestamp::now()),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What an order came to, for that pod and uid.
struct Ended {
    key: PodKey,
    uid: String,
    outcome: Outcome,
}

enum Outcome {
    /// There is nothing to be taken in.
    Told,
    Bound(Bound),
    Consulted(Result<Said, String>),
    Agreed(Result<Option<Vec<String>>, String>),
}

/// The next order, and when its decision began.
fn decide(engine: &mut Engine) -> Option<(Instant, Order)> {
    let began = Instant::now();
    Some((began, engine.next(Timestamp::now())?))
}

/// What came of a decision. Volumes that are being made, and extenders that are asked, leave it open.
fn result(explains: bool, outcome: &Outcome) -> Option<Ending> {
    match outcome {
        Outcome::Bound(Bound::Done) => Some(Ending::Scheduled),
        Outcome::Bound(Bound::Failed(_)) => Some(Ending::Error),
        _ => explains.then_some(Ending::Unschedulable),
    }
}

fn take_in(engine: &mut Engine, ended: Ended, now: Timestamp) {
    let Ended { key, uid, outcome } = ended;
    match outcome {
        Outcome::Told => {}
        Outcome::Bound(bound) => engine.bound(&key, &uid, bound, now),
        Outcome::Consulted(said) => engine.consulted(&key, &uid, said, now),
        Outcome::Agreed(agreed) => engine.agreed(&key, &uid, agreed, now),
    }
}

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
    extenders: Extenders,
}

impl Binder {
    async fn carry_out(&self, order: Order) -> Ended {
        let (key, uid, outcome) = match order {
            Order::Bind { key, uid, node } => {
                let bound = self.bind(&key, &uid, &node).await;
                (key, uid, Outcome::Bound(bound))
            }
            Order::Prepare {
                key,
                uid,
                node,
                plan,
            } => {
                let outcome = match self.prepare(&plan, &node).await {
                    Ok(()) => Outcome::Told,
                    Err(error) => {
                        tracing::info!(?key, node, %error, "volumes not prepared");
                        Outcome::Bound(Bound::Failed(self.look_again(&key).await))
                    }
                };
                (key, uid, outcome)
            }
            Order::Explain(explanation) => {
                let (key, uid) = (explanation.key.clone(), explanation.uid.clone());
                self.explain(explanation).await;
                (key, uid, Outcome::Told)
            }
            Order::Consult { key, uid, nodes } => {
                let said = self.extenders.consult(&self.verbs, &key, &uid, nodes).await;
                (key, uid, Outcome::Consulted(said))
            }
            Order::ConsultPreemption {
                key,
                uid,
                node,
                victims,
                violations,
            } => {
                let (pod, victims) = ((&key, &*uid), (&*victims, violations));
                let agreed = self.extenders.agree(&self.verbs, pod, &node, victims).await;
                (key, uid, Outcome::Agreed(agreed))
            }
        };
        Ended { key, uid, outcome }
    }

    async fn bind(&self, key: &PodKey, uid: &str, node: &str) -> Bound {
        let (namespace, name) = key;
        let bound = match self.extenders.bind(&self.verbs, key, uid, node).await {
            Some(bound) => bound,
            None => self.bind_here(key, uid, node).await,
        };
        match bound {
            Ok(()) => {
                let text = format!("Successfully assigned {namespace}/{name} to {node}");
                self.recorder.normal(about(key, uid), "Scheduled", text);
                Bound::Done
            }
            Err(error) => {
                tracing::info!(namespace, name, node, error, "not bound");
                Bound::Failed(self.look_again(key).await)
            }
        }
    }

    async fn bind_here(&self, key: &PodKey, uid: &str, node: &str) -> Result<(), String> {
        let (namespace, name) = key;
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let created = self
            .verbs
            .create(Kind::POD, namespace, (name, "binding"), &binding);
        created.await.map(drop).map_err(|error| error.to_string())
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
            is_error,
            changed,
            nominated,
            victims,
            demoted,
        } = explanation;
        let node = nominated.as_deref().unwrap_or_default();
        let stopped = victims.iter().map(|victim| self.stop(victim, &uid, node));
        join_all(stopped).await;
        for (key, uid) in &demoted {
            let body = json!({"metadata": {"uid": uid}, "status": {"nominatedNodeName": null}});
            self.write_status(key, &body).await;
        }
        let mut status = json!({});
        if changed {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": if is_error { "SchedulerError" } else { "Unschedulable" },
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
