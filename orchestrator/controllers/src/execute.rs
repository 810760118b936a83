//! Carries out plans against the server. It chooses nothing; what it learns it hands back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::action::{Action, Ask, Create, Delete, Patch, Plan, Reply, Tell};
use super::engine::Ending;
use super::object::{Key, Object};
use super::task::Task;
use client::{About, ClientError, Kind, Recorder, Verbs};

/// What the server's answers tell the engine.
#[derive(Debug)]
pub enum Answer {
    Object(Box<Object>),
    Gone { kind: Kind, key: Key, uid: String },
    Read(Task, Ask, Reply),
}

/// One executor for all plans.
#[derive(Clone)]
pub struct Executor {
    /// By the account of a controller.
    verbs: Arc<BTreeMap<&'static str, Verbs>>,
    recorder: Recorder,
    answers: mpsc::UnboundedSender<Answer>,
}

/// One plan's way to the server.
struct Worker<'a> {
    task: &'a Task,
    verbs: &'a Verbs,
    recorder: &'a Recorder,
    answers: &'a mpsc::UnboundedSender<Answer>,
}

/// The first batch of creates; each next one is twice as large while all succeed.
const FIRST_BATCH: usize = 1;
/// For an answer to what a plan asks for, which another server may have to give.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// What events call an object, before its name: only Jobs have no colon there.
fn noun(kind: Kind) -> String {
    let word = kind.kind.to_lowercase();
    match kind {
        Kind::JOB => word,
        _ => word + ":",
    }
}

impl Executor {
    pub fn new(
        verbs: BTreeMap<&'static str, Verbs>,
        recorder: Recorder,
        answers: mpsc::UnboundedSender<Answer>,
    ) -> Self {
        Self {
            verbs: Arc::new(verbs),
            recorder,
            answers,
        }
    }

    /// Carries out the plan of a task as its controller's account, up to its first failure. All answers are sent
    /// before this returns.
    pub async fn run(&self, task: &Task, plan: Plan) -> Ending {
        let account = task.account;
        let Some(verbs) = self.verbs.get(account) else {
            let message = format!("the account {account} has no client");
            return Ending::Failed {
                creating: false,
                conflict: false,
                message,
            };
        };
        let worker = Worker {
            task,
            verbs,
            recorder: &self.recorder,
            answers: &self.answers,
        };
        worker.run(plan).await
    }
}

impl Worker<'_> {
    async fn run(&self, plan: Plan) -> Ending {
        let mut actions = plan.actions.into_iter().peekable();
        let mut batch_size = FIRST_BATCH;
        while let Some(action) = actions.next() {
            let creating = matches!(action, Action::Create(_));
            let outcome = match action {
                Action::Create(first) => {
                    let mut batch = vec![first];
                    while batch.len() < batch_size
                        && let Some(Action::Create(create)) =
                            actions.next_if(|next| matches!(next, Action::Create(_)))
                    {
                        batch.push(create);
                    }
                    batch_size *= 2;
                    self.create_all(batch).await
                }
                Action::Delete(first) => {
                    let mut batch = vec![first];
                    while let Some(Action::Delete(delete)) =
                        actions.next_if(|next| matches!(next, Action::Delete(_)))
                    {
                        batch.push(delete);
                    }
                    self.delete_all(batch).await
                }
                other => self.one(other).await,
            };
            if let Err(error) = outcome {
                match &error {
                    ClientError::Conflict(_) => tracing::debug!(%error, "planned anew"),
                    other => tracing::info!(error = %other, "will be tried again"),
                }
                return Ending::Failed {
                    creating,
                    conflict: matches!(error, ClientError::Conflict(_)),
                    message: error.to_string(),
                };
            }
        }
        Ending::Done
    }

    async fn one(&self, action: Action) -> Result<(), ClientError> {
        match action {
            Action::Create(create) => self.create(create).await,
            Action::Delete(delete) => self.delete(delete).await,
            Action::Patch(patch) => self.patch(patch).await,
            Action::PatchAll(patches) => self.patch_all(patches).await,
            Action::Empty { kind, namespace } => self.empty(kind, &namespace).await,
            Action::Finalize {
                namespace,
                uid,
                kinds,
            } => self.finalize(&namespace, &uid, kinds).await,
            Action::Ask(ask) => {
                self.read(ask).await;
                Ok(())
            }
            Action::Tell(tell) => {
                self.tell(tell);
                Ok(())
            }
        }
    }

    async fn create_all(&self, batch: Vec<Create>) -> Result<(), ClientError> {
        let creates: FuturesUnordered<_> = batch
            .into_iter()
            .map(|create| self.create(create))
            .collect();
        let outcomes: Vec<_> = creates.collect().await;
        outcomes.into_iter().collect()
    }

    async fn delete_all(&self, batch: Vec<Delete>) -> Result<(), ClientError> {
        let deletes: FuturesUnordered<_> = batch
            .into_iter()
            .map(|delete| self.delete(delete))
            .collect();
        let outcomes: Vec<_> = deletes.collect().await;
        outcomes.into_iter().collect()
    }

    async fn create(&self, create: Create) -> Result<(), ClientError> {
        let kind = create.kind;
        match self
            .verbs
            .create(kind, &create.namespace, ("", ""), &create.object)
            .await
        {
            Ok(object) => {
                if let Some(about) = create.about {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    let text = format!("Created {} {name}", noun(kind));
                    self.recorder.normal(about, "SuccessfulCreate", text);
                }
                self.answer(kind, object);
                Ok(())
            }
            Err(ClientError::AlreadyExists(_)) if create.if_absent => Ok(()),
            Err(error) => {
                if let Some(about) = create.about {
                    let text = match kind {
                        Kind::JOB => format!("Error creating job: {error}"),
                        _ => format!("Error creating: {error}"),
                    };
                    self.recorder.warning(about, "FailedCreate", text);
                }
                Err(error)
            }
        }
    }

    async fn patch_all(&self, patches: Vec<Patch>) -> Result<(), ClientError> {
        let patches: FuturesUnordered<_> =
            patches.into_iter().map(|patch| self.patch(patch)).collect();
        let outcomes: Vec<_> = patches.collect().await;
        outcomes.into_iter().collect()
    }

    async fn patch(&self, patch: Patch) -> Result<(), ClientError> {
        let target = (
            patch.key.namespace.as_str(),
            patch.key.name.as_str(),
            patch.subresource,
        );
        match self
            .verbs
            .patch(patch.kind, target, patch.how, &patch.body)
            .await
        {
            Ok(object) => {
                // A scale is another object than the one that it is of.
                if patch.subresource != "scale" {
                    self.answer(patch.kind, object);
                }
                Ok(())
            }
            Err(ClientError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, delete: Delete) -> Result<(), ClientError> {
        let Some(kind) = delete.kind else {
            return Ok(());
        };
        for (kind, key, uid) in &delete.unless_any {
            match self.verbs.get(*kind, &key.namespace, &key.name).await {
                Err(ClientError::NotFound(_)) => {}
                Err(error) => return Err(error),
                Ok(object) if !uid.is_empty() && object["metadata"]["uid"] != json!(uid) => {}
                Ok(_) => return Ok(()),
            }
        }
        let mut options = json!({"preconditions": {"uid": delete.uid}});
        if let Some(seconds) = delete.grace_seconds {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(policy) = delete.propagation {
            options["propagationPolicy"] = json!(policy);
        }
        let Key { namespace, name } = &delete.key;
        match self.verbs.delete(kind, namespace, name, &options).await {
            Ok(object) => {
                if object["metadata"]["deletionTimestamp"].is_string() {
                    self.answer(kind, object);
                } else {
                    let (key, uid) = (delete.key.clone(), delete.uid.clone());
                    self.send(Answer::Gone { kind, key, uid });
                }
                self.tell_deleted(kind, delete);
                Ok(())
            }
            Err(ClientError::NotFound(_) | ClientError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell_deleted(&self, kind: Kind, delete: Delete) {
        let about = delete.about.filter(|about| about.kind != kind);
        if let Some(about) = about {
            let text = format!("Deleted {} {}", noun(kind), delete.key.name);
            self.recorder.normal(about, "SuccessfulDelete", text);
        }
    }

    /// Reads, and hands back what comes of it within a bounded time.
    async fn read(&self, ask: Ask) {
        let path = ask.path.split('#').next().unwrap_or_default();
        let reply = match timeout(READ_TIMEOUT, self.verbs.read(path)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", READ_TIMEOUT.as_secs())),
        };
        self.send(Answer::Read(self.task.clone(), ask, reply));
    }

    /// Asks the server itself whether anything is left, and lets the namespace go if not.
    /// What is known of pods may be older than the end of their namespace: what protects them outlives them.
    /// The plan is made anew when they are heard of.
    async fn empty(&self, kind: Kind, namespace: &str) -> Result<(), ClientError> {
        if kind != Kind::POD && self.verbs.any(Kind::POD, namespace).await? {
            return Ok(());
        }
        let options = json!({});
        let deleted = self.verbs.delete(kind, namespace, "", &options);
        deleted.await.map(drop)
    }

    async fn finalize(
        &self,
        namespace: &str,
        uid: &str,
        kinds: Vec<Kind>,
    ) -> Result<(), ClientError> {
        for kind in kinds {
            match self.verbs.any(kind, namespace).await {
                // A custom kind that is not served any more holds nothing.
                Ok(false) | Err(ClientError::NotFound(_)) => {}
                Ok(true) => {
                    let text = format!("{namespace} still holds {}", kind.plural);
                    return Err(ClientError::Conflict(text));
                }
                Err(error) => return Err(error),
            }
        }
        let mut object = match self.verbs.get(Kind::NAMESPACE, "", namespace).await {
            Err(ClientError::NotFound(_)) => return Ok(()),
            other => other?,
        };
        if object["metadata"]["uid"] != json!(uid) {
            return Ok(());
        }
        if let Some(finalizers) = object["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|name| name != "kubernetes");
        }
        match self
            .verbs
            .replace(Kind::NAMESPACE, ("", namespace, "finalize"), &object)
            .await
        {
            Ok(_) | Err(ClientError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell(
        &self,
        Tell {
            about,
            warning,
            reason,
            message,
        }: Tell,
    ) {
        let tell: fn(&Recorder, About, &str, String) = if warning {
            Recorder::warning
        } else {
            Recorder::normal
        };
        tell(self.recorder, about, reason, message);
    }

    fn answer(&self, kind: Kind, object: Value) {
        match Object::from_json(kind, object) {
            Some(object) => self.send(Answer::Object(Box::new(object))),
            None => tracing::warn!(kind = kind.kind, "the server's answer is no such object"),
        }
    }

    fn send(&self, answer: Answer) {
        // The engine is gone only when everything stops.
        let _ = self.answers.send(answer);
    }
}
