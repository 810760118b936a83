//! The end of the objects of a kind that goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use crate::State;
use crate::rest::delete;
use api::{ApiError, Resource};

/// How many objects are deleted side by side.
const DELETED_AT_ONCE: usize = 32;

/// Deletes all objects of a kind that takes no new ones; returns when the last one is gone. Those that
/// finalizers keep are waited for.
pub async fn delete_all(state: &State, storage: &Arc<Resource>) -> Result<(), ApiError> {
    let cache = &state.objects.cache;
    let mut asked = BTreeSet::new();
    loop {
        let (revision, all) = cache.list(storage, None);
        if all.is_empty() {
            return Ok(());
        }
        let new = all.iter().filter(|object| asked.insert(object.key.clone()));
        let deletions = new.map(|object| async move {
            delete::by_server(state, storage, object.namespace(), object.name()).await
        });
        let deletions: Vec<_> = deletions.collect();
        stream::iter(deletions)
            .buffer_unordered(DELETED_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        // A revision that is gone already is reason enough to look again.
        if let Ok(mut watch) = cache.watch(storage, None, None, revision).await
            && watch.next().await.is_ok()
        {
            while watch.try_next().is_some_and(|event| event.is_ok()) {}
        }
    }
}
