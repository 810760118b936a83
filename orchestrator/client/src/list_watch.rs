//! List, then watch from the list's revision, for ever. Unlike `kube::runtime::watcher` it hands
//! the list's revision on, so that a cache can tell which of its own writes the list does not know
//! yet.

use std::time::Duration;

use futures::TryStreamExt;
use http::Request;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::WatchEvent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::kind::Kind;
use super::verbs::ClientError;

/// What a watch delivers. The first delivery is always a snapshot.
pub enum Delivery<T> {
    /// All there is at `revision`; whatever is not in it is gone.
    Snapshot {
        items: Vec<T>,
        revision: u64,
    },
    Upsert(T),
    Delete(T),
}

/// Delivers `kind` (narrowed by `query`, such as `fieldSelector=…`) into `out` until its receiver
/// is gone. Failures are retried with back-off; a lost history is listed anew.
pub async fn list_watch<T, M>(
    client: kube::Client,
    kind: Kind,
    query: &str,
    out: mpsc::Sender<M>,
    deliver: impl Fn(Delivery<T>) -> M,
) where
    T: DeserializeOwned + Versioned + Clone,
{
    let mut pause = FIRST_PAUSE;
    let mut from: Option<String> = None;
    while !out.is_closed() {
        let outcome = match &mut from {
            None => snapshot(&client, kind, query, &out, &deliver)
                .await
                .map(|at| from = Some(at)),
            Some(at) => follow(&client, kind, query, at, &out, &deliver).await,
        };
        match outcome {
            Ok(()) => pause = FIRST_PAUSE,
            Err(ClientError::Gone(_)) => from = None,
            Err(error) => {
                tracing::warn!(kind = kind.plural, %error, "watch interrupted");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The server ends a watch after this; it is resumed from where it was.
const WATCH_SECONDS: u32 = 1800;

#[derive(Deserialize)]
struct List<T> {
    metadata: ListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
}

/// What resuming a watch needs of an object.
pub trait Versioned {
    fn revision(&self) -> &str;
}

impl<T: Metadata<Ty = ObjectMeta>> Versioned for T {
    fn revision(&self) -> &str {
        self.metadata()
            .resource_version
            .as_deref()
            .unwrap_or_default()
    }
}

/// An object of any kind of which only the metadata is read; nothing else is even decoded.
#[derive(Deserialize, Clone, Debug)]
pub struct Bare {
    pub metadata: ObjectMeta,
}

impl Versioned for Bare {
    fn revision(&self) -> &str {
        self.metadata
            .resource_version
            .as_deref()
            .unwrap_or_default()
    }
}

async fn snapshot<T: DeserializeOwned, M>(
    client: &kube::Client,
    kind: Kind,
    query: &str,
    out: &mpsc::Sender<M>,
    deliver: &impl Fn(Delivery<T>) -> M,
) -> Result<String, ClientError> {
    let uri = format!("{}?{query}", kind.path("", "", ""));
    let list: List<T> = client.request(get(&uri)?).await?;
    let revision = list.metadata.resource_version;
    let number = revision.parse().unwrap_or(0);
    // A closed channel ends the loop of the caller; nothing else is to be done about it here.
    let _ = out
        .send(deliver(Delivery::Snapshot {
            items: list.items,
            revision: number,
        }))
        .await;
    Ok(revision)
}

/// Follows the history from `from`, which moves with every event, until the server ends the watch.
async fn follow<T, M>(
    client: &kube::Client,
    kind: Kind,
    query: &str,
    from: &mut String,
    out: &mpsc::Sender<M>,
    deliver: &impl Fn(Delivery<T>) -> M,
) -> Result<(), ClientError>
where
    T: DeserializeOwned + Versioned + Clone,
{
    let uri = format!(
        "{}?{query}&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}\
         &resourceVersion={from}",
        kind.path("", "", "")
    );
    let events = client.request_events::<T>(get(&uri)?).await?;
    let mut events = std::pin::pin!(events);
    loop {
        let event = tokio::select! {
            event = events.try_next() => event?,
            () = out.closed() => return Ok(()),
        };
        let delivery = match event {
            None => return Ok(()),
            Some(WatchEvent::Bookmark(bookmark)) => {
                *from = bookmark.metadata.resource_version;
                continue;
            }
            Some(WatchEvent::Error(status)) => return Err(kube::Error::Api(status).into()),
            Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                from.replace_range(.., object.revision());
                Delivery::Upsert(object)
            }
            Some(WatchEvent::Deleted(object)) => {
                from.replace_range(.., object.revision());
                Delivery::Delete(object)
            }
        };
        if out.send(deliver(delivery)).await.is_err() {
            return Ok(());
        }
    }
}

fn get(uri: &str) -> Result<Request<Vec<u8>>, ClientError> {
    Request::get(uri)
        .body(Vec::new())
        .map_err(|e| ClientError::Refused(e.to_string()))
}
