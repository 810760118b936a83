//! The tokens for servers that are good, as the store knows them: by an id, with their end and who has joined by them.
//! Nothing of it can be shown instead of a token, which only the authority's key signs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State as Extract};
use axum::http::{Response, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{Entry, Expect, Range, Write};

use crate::objects::store_error;
use crate::shares::Ticket;
use crate::{State, reply, upload};
use api::ApiError;

/// The endpoint, and the one of a token.
pub const PATH: &str = "/orchestrator/v1/servers/tokens";
pub const ONE: &str = "/orchestrator/v1/servers/tokens/{id}";

/// A token leads to the authority's key.
pub const LONGEST_LIFE_S: i64 = 24 * 3600;
pub const ID_LENGTH: usize = 12;
/// Clocks differ.
const LEEWAY_S: i64 = 60;
pub const KEYS: &str = "/cluster/server-tokens/";
const MOST: usize = 100;

#[derive(Serialize, Deserialize)]
pub struct Known {
    pub id: String,
    /// Seconds since 1970.
    pub ends: i64,
    /// Where the etcd of each server is that has joined by it.
    #[serde(default)]
    pub joined: Vec<String>,
}

/// GET: all.
pub async fn list(Extract(state): Extract<Arc<State>>) -> Response<Body> {
    match all(&state).await {
        Ok(all) => {
            let items: Vec<Known> = all.into_iter().map(|(known, _)| known).collect();
            reply::json(StatusCode::OK, &json!({ "items": items }))
        }
        Err(error) => reply::error(&error),
    }
}

/// POST: one more is good. Those that have ended are forgotten.
pub async fn add(Extract(state): Extract<Arc<State>>, request: Request) -> Response<Body> {
    match added(&state, request).await {
        Ok(known) => reply::json(StatusCode::CREATED, &json!(known)),
        Err(error) => reply::error(&error),
    }
}

/// DELETE: one is not good any more.
pub async fn revoke(Extract(state): Extract<Arc<State>>, Path(id): Path<String>) -> Response<Body> {
    match revoked(&state, &id).await {
        Ok(known) => reply::json(StatusCode::OK, &json!(known)),
        Err(error) => reply::error(&error),
    }
}

/// Whether a token with this id is good still, but for its end, which is signed.
pub async fn is_good(state: &State, id: &str) -> Result<bool, ApiError> {
    Ok(find(state, id).await?.is_some())
}

/// Notes who has joined by a token.
pub async fn note(state: &State, id: &str, peer: &str) {
    let noted = async {
        let Some((mut known, entry)) = find(state, id).await? else {
            return Ok(());
        };
        if !known.joined.iter().any(|it| it == peer) {
            known.joined.push(peer.to_owned());
        }
        write(state, &known, Expect::At(entry.modified)).await
    };
    if let Err(error) = noted.await {
        tracing::warn!(%error, "that a token was used is not noted");
    }
}

async fn added(state: &State, request: Request) -> Result<Known, ApiError> {
    let (parts, body) = request.into_parts();
    let body = upload::read(&parts.headers, body, upload::JOIN, &Ticket::default()).await?;
    let wrong = |why: String| ApiError::BadRequest(format!("not a token of a server: {why}"));
    let known: Known = serde_json::from_slice(&body.bytes).map_err(|it| wrong(it.to_string()))?;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if known.id.len() != ID_LENGTH || !known.id.bytes().all(fits) {
        return Err(wrong(format!(
            "id must be {ID_LENGTH} small letters and digits"
        )));
    }
    let now = Timestamp::now().as_second();
    if known.ends > now + LONGEST_LIFE_S + LEEWAY_S {
        return Err(wrong("ends must be within a day".to_owned()));
    }
    let (ended, good): (Vec<_>, Vec<_>) = all(state)
        .await?
        .into_iter()
        .partition(|(known, _)| known.ends < now - LEEWAY_S);
    if good.len() >= MOST {
        return Err(wrong(format!(
            "there are {MOST} that are good: revoke some"
        )));
    }
    for (_, entry) in ended {
        let write = Write::delete(&*entry.key, Expect::At(entry.modified));
        commit(state, write).await?;
    }
    let known = Known {
        joined: Vec::new(),
        ..known
    };
    write(state, &known, Expect::Absent).await?;
    Ok(known)
}

async fn revoked(state: &State, id: &str) -> Result<Known, ApiError> {
    let (known, entry) = find(state, id).await?.ok_or(ApiError::NoSuchResource)?;
    commit(state, Write::delete(&*entry.key, Expect::Any)).await?;
    Ok(known)
}

async fn all(state: &State) -> Result<Vec<(Known, Entry)>, ApiError> {
    let page = state.objects.store.range(Range::all(KEYS)).await;
    let page = page.map_err(|error| store_error(&error))?;
    let read = |entry: Entry| Some((serde_json::from_slice(&entry.value).ok()?, entry));
    Ok(page.entries.into_iter().filter_map(read).collect())
}

async fn find(state: &State, id: &str) -> Result<Option<(Known, Entry)>, ApiError> {
    let found = state.objects.store.get(&format!("{KEYS}{id}")).await;
    let found = found.map_err(|error| store_error(&error))?;
    Ok(found.and_then(|entry| Some((serde_json::from_slice(&entry.value).ok()?, entry))))
}

async fn write(state: &State, known: &Known, expect: Expect) -> Result<(), ApiError> {
    let (key, text) = (format!("{KEYS}{}", known.id), json!(known).to_string());
    commit(state, Write::put(key, text, expect)).await
}

async fn commit(state: &State, write: Write) -> Result<(), ApiError> {
    let committed = state.objects.store.commit(vec![write]).await;
    committed.map(drop).map_err(|error| store_error(&error))
}
