//! Objects of the API in the store: read from the cache, written with an expectation, and visible
//! to every reader before the write is answered.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::MutexGuard;

use super::cache::{Cache, Cached, object_key};
use super::metrics::Timer;
use super::reply::{self, internal};
use super::turns::Turns;
use super::{upload, wire};
use api::{ApiError, Lifetime, Resource};
use store::{self, Expect, Revision, Store, StoreError, Write};

/// The store behind its cache.
pub struct Objects {
    pub store: Arc<dyn Store>,
    pub cache: Cache,
    /// How long commits take.
    commits: Arc<Timer>,
    turns: Turns,
}

/// An object as it is now, to be changed.
#[derive(Clone, Debug)]
pub struct Current {
    /// Without resourceVersion, as it is stored.
    pub value: Value,
    /// What its resourceVersion says.
    pub revision: Revision,
    /// With resourceVersion, as clients get it.
    pub bytes: Bytes,
}

/// Why a write did not happen.
#[derive(Debug)]
pub enum WriteError {
    /// Somebody wrote the object (or made, or deleted it) in between.
    Changed,
    /// Anything else.
    Failed(ApiError),
}

impl From<ApiError> for WriteError {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl Objects {
    pub fn new(store: Arc<dyn Store>, cache: Cache, commits: Arc<Timer>) -> Self {
        Self {
            store,
            cache,
            commits,
            turns: Turns::default(),
        }
    }

    /// Returns when the cache shows what any server of the store answered before.
    pub async fn refresh(&self) -> Result<(), ApiError> {
        if !self.store.is_shared() {
            return Ok(());
        }
        let newest = self.store.fresh().await;
        let newest = newest.map_err(|error| store_error(&error))?;
        self.cache.wait_for(newest).await;
        Ok(())
    }

    /// The object as clients get it.
    pub fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Cached>, ApiError> {
        let found = self.cache.get(resource, namespace, name);
        found.ok_or_else(|| ApiError::not_found(resource, name))
    }

    /// Waits for a turn at an object for which this write has lost a race, unless it has one already.
    pub async fn wait_for_turn<'a>(
        &'a self,
        turn: &mut Option<MutexGuard<'a, ()>>,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) {
        if turn.is_none() {
            let key = object_key(resource, namespace, name);
            *turn = self.turns.at(&key).await;
        }
    }

    /// The object to be changed.
    pub fn current(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Current, ApiError> {
        Current::of(&*self.get(resource, namespace, name)?)
    }

    /// Writes an object that is as expected until then, and `with` it in the same commit. What lasts longer
    /// than the object has a commit of its own, before it.
    pub async fn write(
        &self,
        resource: &Resource,
        object: &Value,
        expect: Expect,
        with: Vec<Write>,
    ) -> Result<Bytes, WriteError> {
        let write = put(resource, object, expect);
        let bytes = stored(&write)?;
        let (with, before) = with
            .into_iter()
            .partition(|other| other.lifetime == write.lifetime);
        // A commit is on disk or it is not, as a whole.
        let before: Vec<Write> = before;
        if !before.is_empty() {
            self.commit(before).await?;
        }
        let mut writes = vec![write];
        writes.extend::<Vec<Write>>(with);
        let revision = self.commit(writes).await?;
        Ok(wire::with_revision(&bytes, revision))
    }

    /// Removes an object that is still at `revision`.
    pub async fn remove(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        revision: Revision,
    ) -> Result<(), WriteError> {
        let write = Write {
            key: object_key(resource, namespace, name),
            value: None,
            expect: Expect::At(revision),
            lifetime: lifetime(resource),
        };
        self.commit(vec![write]).await.map(|_| ())
    }

    /// Writes several objects that all are as expected until then, or none.
    pub async fn write_all(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.commit(writes).await.map(|_| ())
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, WriteError> {
        let began = Instant::now();
        let committed = self.store.commit(writes).await;
        self.commits.observe(began.elapsed());
        let revision = match committed {
            Ok(revision) => revision,
            Err(StoreError::Conflict { .. }) => {
                // Whoever tries again must see what was in the way.
                self.cache.wait_for(self.store.revision()).await;
                return Err(WriteError::Changed);
            }
            Err(other) => return Err(WriteError::Failed(store_error(&other))),
        };
        self.cache.wait_for(revision).await;
        Ok(revision)
    }
}

impl Current {
    pub fn of(cached: &Cached) -> Result<Self, ApiError> {
        let mut value = reply::parse(&cached.bytes())?;
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        Ok(Self {
            value,
            revision: cached.revision,
            bytes: cached.bytes(),
        })
    }

    /// The object with its resourceVersion, as a patch sees it.
    pub fn with_revision(&self) -> Value {
        let mut value = self.value.clone();
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        value
    }
}

/// The write of an object; its name and namespace are its own.
pub fn put(resource: &Resource, object: &Value, expect: Expect) -> Write {
    let (namespace, name) = (api::meta::namespace(object), api::meta::name(object));
    Write {
        key: object_key(resource, namespace, name),
        value: Some(resource.serialize(object).into()),
        expect,
        lifetime: lifetime(resource),
    }
}

/// The bytes of a write that are kept. Patches, and the record of who owns which field, make objects
/// larger than any one request.
fn stored(write: &Write) -> Result<Bytes, ApiError> {
    let bytes = write.value.clone().unwrap_or_default();
    let limit = upload::OBJECT.bytes;
    if bytes.len() > limit {
        return Err(ApiError::TooLarge(format!(
            "Request entity too large: the object would have {} bytes, limit is {limit}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// What the client hears about a failure of the store.
pub fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::Compacted { .. } => ApiError::Expired(
            "The provided continue parameter is too old to display a consistent list result. You \
             must start a new list without the continue parameter."
                .to_owned(),
        ),
        StoreError::Future { current } => {
            ApiError::Timeout(format!("Too large resource version, current: {current}"))
        }
        StoreError::TooLarge(_) => ApiError::TooLarge(error.to_string()),
        StoreError::Unavailable(_) | StoreError::Fenced => {
            ApiError::ServiceUnavailable(error.to_string())
        }
        StoreError::Uncertain(_) => ApiError::Timeout(error.to_string()),
        StoreError::Closed => ApiError::ServiceUnavailable("the server is stopping".to_owned()),
        other => internal(other),
    }
}

fn lifetime(resource: &Resource) -> store::Lifetime {
    match resource.lifetime {
        Lifetime::Durable => store::Lifetime::Durable,
        Lifetime::Volatile => store::Lifetime::Volatile,
    }
}
