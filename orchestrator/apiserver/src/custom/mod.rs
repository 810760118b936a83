//! Custom kinds: follows CustomResourceDefinitions, says which of their names are accepted, serves their
//! kinds, and empties those that go.
//!
//! ```text
//! definition ─▶ names ─▶ api::custom::Kind ─▶ cache ─▶ registry ─▶ status: Established
//!    deleted ─▶ no more creates ─▶ instances deleted ─▶ finalizer gone ─▶ registry, cache
//! ```
//!
//! One task owns all this, so nothing here races with itself. A kind is served before its definition
//! says so: who waits for the condition finds it.

pub mod conversion;
mod converters;
mod instances;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;

use super::cache::Watch;
use super::objects::{Current, WriteError};
use super::write::{Part, Writer};
use super::{State, cache};
use api::custom::Kind;
use api::{ApiError, Resource, Subresource, meta};

pub use conversion::convert;
pub use converters::Converters;

pub use names::set_condition;

use names::Names;

/// What keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Serves the kinds of the definitions that are there, and follows them from then on.
pub async fn start(state: &Arc<State>) -> Result<(), ApiError> {
    let from = state.objects.cache.revision();
    let mut kinds = Kinds {
        state: state.clone(),
        known: BTreeMap::new(),
        emptying: JoinSet::new(),
    };
    kinds.sync_all(BTreeSet::new()).await?;
    let shutdown = state.tasks.shutdown().clone();
    state.tasks.essential("custom kinds", async move {
        shutdown.unless(kinds.follow(from)).await.unwrap_or(Ok(()))
    });
    Ok(())
}

/// The task that owns the custom kinds.
struct Kinds {
    state: Arc<State>,
    known: BTreeMap<String, Known>,
    /// Kinds that go: the names of their definitions come out when they are empty.
    emptying: JoinSet<Result<String, ApiError>>,
}

/// A definition as it was last seen.
struct Known {
    uid: String,
    group: String,
    names: Names,
    /// What its kind was made of.
    form: Form,
    /// None: it is not served.
    kind: Option<Kind>,
    stage: Stage,
}

/// How far a definition has got on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Living,
    Emptying,
    Empty,
}

/// What of a definition makes another kind of it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Form {
    uid: String,
    generation: i64,
    names: Value,
    has_old_versions: bool,
}

impl Kinds {
    async fn follow(mut self, from: store::Revision) -> Result<(), ApiError> {
        let mut watch = self.watch(from).await;
        loop {
            let mut names = BTreeSet::new();
            tokio::select! {
                event = watch.next() => match event {
                    Ok(event) => {
                        names.insert(event.object.name().to_owned());
                    }
                    Err(_) => {
                        // Definitions have changed faster than this task reads.
                        let now = self.state.objects.cache.revision();
                        watch = self.watch(now).await;
                        names = self.known.keys().cloned().collect();
                        self.sync_all(names.clone()).await?;
                    }
                },
                Some(emptied) = self.emptying.join_next() => match emptied {
                    Ok(Ok(name)) => {
                        if let Some(known) = self.known.get_mut(&name) {
                            known.stage = Stage::Empty;
                        }
                        names.insert(name);
                    }
                    Ok(Err(error)) => tracing::warn!(%error, "objects of a custom kind stay"),
                    Err(error) => tracing::error!(%error, "emptying a custom kind failed"),
                },
            }
            self.sync_some(names).await?;
        }
    }

    async fn watch(&self, from: store::Revision) -> Watch {
        let mut from = from;
        loop {
            let cache = &self.state.objects.cache;
            match cache.watch(definitions(), None, None, from).await {
                Ok(watch) => return watch,
                Err(_) => from = cache.revision(),
            }
        }
    }

    /// All that are there, and those that may be there no more.
    async fn sync_all(&mut self, mut names: BTreeSet<String>) -> Result<(), ApiError> {
        let (_, all) = self.state.objects.cache.list(definitions(), None);
        names.extend(all.iter().map(|object| object.name().to_owned()));
        self.sync_some(names).await
    }

    /// Looks at these definitions, and at those that wait for a name that one of them gave up.
    async fn sync_some(&mut self, mut names: BTreeSet<String>) -> Result<(), ApiError> {
        while let Some(name) = names.pop_first() {
            let freed = self.sync(&name).await?;
            let waiting = self
                .known
                .iter()
                .filter(|(other, known)| **other != name && freed.as_ref() == Some(&known.group));
            names.extend(waiting.map(|(name, _)| name.clone()));
        }
        Ok(())
    }

    /// One definition; the group in which names are free now.
    async fn sync(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(found) = self.state.objects.cache.get(definitions(), "", name) else {
            return Ok(self.forget(name));
        };
        let current = Current::of(&found)?;
        let uid = meta::uid(&current.value);
        let mut freed = None;
        if self.known.get(name).is_some_and(|known| known.uid != uid) {
            // Another definition of the same name.
            freed = self.forget(name);
        }
        let before = self.known.get(name).map(|known| known.names.clone());
        let mut wanted = match meta::is_terminating(&current.value) {
            true => current.value.clone(),
            false => names::judged(
                &current.value,
                &self.taken(name, &current.value),
                Timestamp::now(),
            ),
        };
        self.serve(name, &wanted).await?;
        self.end(name, &mut wanted);
        let names = Names::of(&wanted);
        if before.is_some_and(|before| before != names) {
            freed = Some(group(&wanted).to_owned());
        }
        self.write(&current, wanted).await?;
        Ok(freed)
    }

    /// The names of the other definitions of the group.
    fn taken(&self, name: &str, definition: &Value) -> Names {
        let mut taken = Names::default();
        for (other, known) in &self.known {
            if other != name && known.group == group(definition) {
                taken.add(&known.names);
            }
        }
        taken
    }

    /// Serves the kind as the definition has it now.
    async fn serve(&mut self, name: &str, definition: &Value) -> Result<(), ApiError> {
        let known = self.known.entry(name.to_owned()).or_insert_with(|| Known {
            uid: meta::uid(definition).to_owned(),
            group: group(definition).to_owned(),
            names: Names::default(),
            form: Form::default(),
            kind: None,
            stage: Stage::Living,
        });
        known.names = Names::of(definition);
        let form = Form::of(definition);
        // A deletion counts a generation too.
        let goes_on = meta::is_terminating(definition) && known.kind.is_some();
        if goes_on || known.form == form || !names::is_true(definition, "Established") {
            return Ok(());
        }
        known.form = form;
        match Kind::of(definition) {
            Ok(kind) if is_built_in(&kind.storage) => {
                tracing::warn!(
                    name,
                    "a definition is of a built-in kind, which stays as it is"
                );
            }
            Ok(kind) => {
                let added = self.state.objects.cache.add(&kind.storage).await;
                added.map_err(|error| ApiError::Internal(error.to_string()))?;
                known.kind = Some(kind);
                self.publish();
            }
            Err(error) => tracing::warn!(name, error, "a definition cannot be served"),
        }
        Ok(())
    }

    /// What a definition that goes has to do next.
    fn end(&mut self, name: &str, definition: &mut Value) {
        let has_cleanup = meta::finalizers(definition).iter().any(|f| f == CLEANUP);
        let Some(known) = self.known.get_mut(name) else {
            return;
        };
        if !meta::is_terminating(definition) || !has_cleanup {
            return;
        }
        let (status, reason, message) = match (known.stage, &known.kind) {
            (Stage::Living, Some(kind)) => {
                let (name, state) = (name.to_owned(), self.state.clone());
                let storage = kind.storage.clone();
                known.stage = Stage::Emptying;
                known.kind = Some(kind.closing());
                self.emptying.spawn(async move {
                    instances::delete_all(&state, &storage).await?;
                    Ok(name)
                });
                self.publish();
                (
                    "True",
                    "InstanceDeletionInProgress",
                    "CustomResource deletion is in progress",
                )
            }
            (Stage::Emptying, _) => return,
            (Stage::Empty, _) => (
                "False",
                "InstanceDeletionCompleted",
                "removed all instances",
            ),
            (Stage::Living, None) => (
                "False",
                "NeverEstablished",
                "resource was never established",
            ),
        };
        names::set_condition(
            definition,
            "Terminating",
            status,
            reason,
            message,
            Timestamp::now(),
        );
        if status == "False" {
            let rest = meta::finalizers(definition);
            let rest: Vec<String> = rest.into_iter().filter(|f| f != CLEANUP).collect();
            definition["metadata"]["finalizers"] = rest.into();
        }
    }

    /// Writes what has changed, or removes a definition that nothing keeps. Whoever came in between is
    /// another event.
    async fn write(&self, current: &Current, wanted: Value) -> Result<(), ApiError> {
        if wanted == current.value {
            return Ok(());
        }
        let writer = Writer {
            part: match meta::is_terminating(&wanted) {
                true => Part::Deletion,
                false => Part::Of(Subresource::Status),
            },
            ..Writer::server(&self.state, definitions())
        };
        let written = if meta::is_terminating(&wanted) && meta::finalizers(&wanted).is_empty() {
            writer.remove(current).await
        } else {
            writer.update(current, wanted).await.map(|_| ())
        };
        match written {
            Ok(()) | Err(WriteError::Changed) => Ok(()),
            Err(WriteError::Failed(error)) => {
                let name = meta::name(&current.value);
                tracing::warn!(name, %error, "the status of a definition cannot be written");
                Ok(())
            }
        }
    }

    /// Serves a kind no more.
    fn forget(&mut self, name: &str) -> Option<String> {
        let known = self.known.remove(name)?;
        self.state.converters.forget(name);
        if let Some(kind) = known.kind {
            self.publish();
            self.state.objects.cache.forget(&kind.storage);
        }
        Some(known.group)
    }

    fn publish(&self) {
        let kinds = self.known.values().filter_map(|known| known.kind.as_ref());
        let all: Vec<_> = kinds.flat_map(|kind| kind.served.iter().cloned()).collect();
        self.state.registry.serve_custom(&all);
    }
}

impl Form {
    fn of(definition: &Value) -> Self {
        let stored = definition["status"]["storedVersions"].as_array();
        Self {
            uid: meta::uid(definition).to_owned(),
            generation: definition["metadata"]["generation"]
                .as_i64()
                .unwrap_or_default(),
            names: definition["status"]["acceptedNames"].clone(),
            has_old_versions: stored.is_some_and(|versions| versions.len() > 1),
        }
    }
}

fn definitions() -> &'static Arc<Resource> {
    let kind = "CustomResourceDefinition";
    let found = api::find_kind("apiextensions.k8s.io", "v1", kind);
    found.expect("definitions are a built-in kind")
}

/// Objects of a built-in kind would be found under the same keys.
fn is_built_in(storage: &Resource) -> bool {
    let prefix = cache::prefix(storage, None);
    let mut built_in = api::resources().iter();
    built_in.any(|resource| cache::prefix(resource, None) == prefix)
}

fn group(definition: &Value) -> &str {
    definition["spec"]["group"].as_str().unwrap_or_default()
}
