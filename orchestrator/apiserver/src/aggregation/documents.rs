//! The OpenAPI documents of other servers: where that of their version is (v3), and what this server's one
//! document gets of theirs (v2). What was read is kept until it is read anew, also while its server is away.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, StatusCode};
use futures::future::join_all;
use serde_json::Value;

use super::{Server, ask};
use crate::openapi::{self, Document, foreign};
use crate::outgoing::ClientConfig;
use crate::{State, reply};
use api::ApiError;
use sys::Shutdown;

/// How often a server is asked whether its documents have changed.
const INTERVAL: Duration = Duration::from_secs(60);
/// How soon it is asked again when it could not tell.
const RETRY: Duration = Duration::from_secs(10);
/// How often it is looked whether a server is to be asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a server may take for one document.
const TIMEOUT: Duration = Duration::from_secs(10);
const INDEX_BYTES: usize = 1024 * 1024;
const DOCUMENT_BYTES: usize = 8 * 1024 * 1024;
/// The hash in the URL of a document.
const HASH_LENGTH: usize = 128;

/// What a server's documents are.
#[derive(Default)]
pub struct Described {
    /// When it is asked next; None: as soon as it is available.
    due: Option<Instant>,
    /// The path of its v3 document, with the hash of it.
    v3: Option<String>,
    /// Its part of the v2 document.
    v2: Option<Arc<Document>>,
    /// What it calls the v2 document that this was made of.
    tag: Option<HeaderValue>,
}

impl Server {
    /// The URL of its v3 document.
    pub fn v3_url(&self) -> Option<String> {
        self.described().v3.clone()
    }

    /// Its part of the v2 document.
    pub fn v2_part(&self) -> Option<Arc<Document>> {
        self.described().v2.clone()
    }

    /// It may have other documents than before.
    pub(super) fn ask_anew(&self) {
        self.described().due = None;
    }

    fn described(&self) -> std::sync::MutexGuard<'_, Described> {
        let described = self.described.lock();
        described.unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self) -> bool {
        let due = self.described().due;
        !self.is_own && self.probed().available && due.is_none_or(|due| due <= Instant::now())
    }
}

/// Keeps the documents of all servers until this one stops.
pub async fn keep(state: Arc<State>, shutdown: Shutdown) -> Result<(), ApiError> {
    loop {
        let servers = state.aggregated.servers(&state)?;
        let due = servers.iter().filter(|server| server.is_due());
        join_all(due.map(|server| refresh(&state, server))).await;
        let pause = tokio::time::sleep(LOOK_INTERVAL);
        if shutdown.unless(pause).await.is_none() {
            return Ok(());
        }
    }
}

async fn refresh(state: &State, server: &Server) {
    let Ok(client) = &server.client else {
        return;
    };
    let tag = server.described().tag.clone();
    let (v3, v2) = tokio::join!(
        v3(state, client, server),
        v2(state, client, server, tag.as_ref())
    );
    let whole = v3.is_ok() && v2.is_ok();
    for why in [v3.as_ref().err(), v2.as_ref().err()].into_iter().flatten() {
        tracing::debug!(server = server.name, "its OpenAPI document: {why}");
    }
    let mut described = server.described();
    if let Ok(v3) = v3 {
        described.v3 = v3;
    }
    if let Ok(Some((v2, tag))) = v2 {
        (described.v2, described.tag) = (v2, tag);
    }
    described.due = Some(Instant::now() + if whole { INTERVAL } else { RETRY });
}

/// Where it says that its document is; None if it has none.
async fn v3(
    state: &State,
    client: &ClientConfig,
    server: &Server,
) -> Result<Option<String>, String> {
    let asking = ask(state, client, "/openapi/v3", None, INDEX_BYTES, TIMEOUT);
    let answer = asking.await?;
    match answer.code {
        StatusCode::OK => {
            let index = reply::parse(&answer.body).map_err(|error| error.to_string())?;
            Ok(listed(&index, &server.group, &server.version))
        }
        StatusCode::NOT_FOUND => Ok(None),
        other => Err(format!("{other}")),
    }
}

/// The URL of a version's document in an index. Clients follow it: nothing but the hash is believed.
pub fn listed(index: &Value, group: &str, version: &str) -> Option<String> {
    let path = format!("apis/{group}/{version}");
    let url = index["paths"][&path]["serverRelativeURL"].as_str()?;
    let hash = url.split_once("?hash=").map_or("", |(_, hash)| hash);
    let is_hash = hash.len() <= HASH_LENGTH && hash.bytes().all(|it| it.is_ascii_alphanumeric());
    Some(match is_hash && !hash.is_empty() {
        true => format!("/openapi/v3/{path}?hash={hash}"),
        false => format!("/openapi/v3/{path}"),
    })
}

/// Its part of the v2 document and what it calls that, unless it is the same as before.
async fn v2(
    state: &State,
    client: &ClientConfig,
    server: &Server,
    tag: Option<&HeaderValue>,
) -> Result<Option<(Option<Arc<Document>>, Option<HeaderValue>)>, String> {
    let asking = ask(state, client, "/openapi/v2", tag, DOCUMENT_BYTES, TIMEOUT);
    let answer = asking.await?;
    match answer.code {
        StatusCode::OK => {
            let (group, version) = (server.group.clone(), server.version.clone());
            let packed = tokio::task::spawn_blocking(move || {
                let document = reply::parse(&answer.body).map_err(|error| error.to_string())?;
                let part = foreign::part(document, &group, &version)?;
                openapi::pack(&part).map_err(|error| error.to_string())
            });
            let packed = packed.await.map_err(|error| error.to_string())??;
            Ok(Some((Some(Arc::new(packed)), answer.tag)))
        }
        StatusCode::NOT_MODIFIED => Ok(None),
        StatusCode::NOT_FOUND => Ok(Some((None, None))),
        other => Err(format!("{other}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_index_leads_to_the_version_s_own_document_and_nowhere_else() {
        let listed = |url: &str| {
            let index = json!({"paths": {"apis/example.com/v1": {"serverRelativeURL": url}}});
            listed(&index, "example.com", "v1")
        };
        let plain = "/openapi/v3/apis/example.com/v1";
        let hashed = format!("{plain}?hash=0A9F");
        assert_eq!(listed(&hashed).as_deref(), Some(&*hashed));
        for url in [
            plain,
            "https://evil.example/x",
            "/openapi/v3/apis/apps/v1?hash=",
            "/x?hash=a%0ab",
            "/api/v1/secrets?hash=../..",
        ] {
            assert_eq!(listed(url).as_deref(), Some(plain), "{url}");
        }
        let elsewhere = json!({"paths": {"apis/apps/v1": {"serverRelativeURL": plain}}});
        assert_eq!(super::listed(&elsewhere, "example.com", "v1"), None);
        assert_eq!(super::listed(&json!([]), "example.com", "v1"), None);
    }
}
