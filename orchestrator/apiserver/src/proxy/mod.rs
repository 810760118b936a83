//! Requests that the server does not answer itself: streams to containers and logs, which the node's agent
//! has, and whatever pods, Services and nodes serve.
//!
//! ```text
//! exec, attach, portforward ─┐              ┌─▶ agent ─▶ container        101, then bytes both ways
//! proxy ─────────────────────┤─▶ admission ─┤
//!   (rights: by the method)  │   (CONNECT)  └─▶ pod, endpoint, node       any method, any answer
//! log ───────────────────────┴────────────────▶ agent ─▶ log             text, or WebSocket messages
//! ```
//!
//! Whoever is asked hears nothing of the client's credentials. An agent is known by its node's name in its
//! certificate, and answers the server's certificate only.

mod http;
mod log;
pub mod messages;
pub mod options;
pub mod rewrite;
mod streams;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::State;
use super::admission::{self, Asked, Attributes, Operation};
use super::audit::Trail;
use super::authn::User;
use super::hops;
use super::reply::{self, Warnings};
use super::request::{Query, Target};
use super::rest::Answer;
use super::shares::Ticket;
use api::{ApiError, Subresource};
use sys::front::Takeover;
use sys::relay::relay;

pub use log::log;

/// Streams and proxied requests at once, of all clients.
const CONNECTIONS: usize = 4096;
/// What a client that was turned away should wait before it comes again.
const RETRY_AFTER_SECONDS: i32 = 1;
/// A stream ends that has carried nothing for so long, as a kubelet's do.
const IDLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(4 * 3600);

/// How many connections there may be still.
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS)))
    }
}

impl Room {
    fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let permit = self.0.clone().try_acquire_owned();
        permit.map_err(|_| ApiError::TooManyRequests {
            message: format!("the server carries {CONNECTIONS} streams, as many as it may"),
            retry_after_seconds: RETRY_AFTER_SECONDS,
        })
    }
}

/// A request that connects, by somebody who may.
struct Connecting {
    state: Arc<State>,
    target: Target,
    /// What lasts as long as the stream.
    held: Held,
}

/// What counts a stream; dropped with it.
type Held = (Ticket, OwnedSemaphorePermit, Trail);

/// Serves a request for a subresource that connects. Its caller may do so; its body was not read.
pub async fn connect(
    state: Arc<State>,
    user: &User,
    target: Target,
    query: &Query,
    request: Request,
) -> Answer {
    if query.get("dryRun").is_some() {
        return Err(ApiError::BadRequest("dryRun is not supported".to_owned()));
    }
    let room = state.connections.take()?;
    let mut options = options::of(&target, query)?;
    let warnings = Warnings::default();
    let trail = request.extensions().get::<Trail>().cloned();
    let trail = trail.unwrap_or_default();
    let said = (&warnings, &trail);
    admit(&state, user, &target, query, &mut options, said).await?;
    let ticket = request.extensions().get::<Ticket>().cloned();
    let connecting = Connecting {
        state,
        target,
        held: (ticket.unwrap_or_default(), room, trail),
    };
    let answer = match connecting.target.subresource {
        Some(Subresource::Proxy) => http::forward(connecting, request).await?,
        _ => streams::open(connecting, &options, request).await?,
    };
    Ok(reply::warn(answer, &warnings.all()))
}

/// Asks those who have a say in it. They see the options, and may change them.
async fn admit(
    state: &State,
    user: &User,
    target: &Target,
    query: &Query,
    options: &mut Value,
    (warnings, trail): (&Warnings, &Trail),
) -> Result<(), ApiError> {
    let kind = target
        .subresource
        .map_or(&**target.resource(), |sub| sub.object(target.resource()));
    let attributes = Attributes {
        state,
        user,
        asked: Asked::now(&target.served, query).with_body(kind),
        resource: target.storage(),
        subresource: target.subresource,
        operation: Operation::Connect,
        namespace: target.namespace.as_deref().unwrap_or_default(),
        name: target.name.as_deref().unwrap_or_default(),
        old: None,
        dry_run: false,
        warnings,
        trail,
    };
    admission::review_body(&attributes, options).await
}

/// Makes the client's connection and the next server's one stream, with what the next server says of it.
fn switch(mut answer: Response<Incoming>, takeover: &Takeover, held: Held) -> Response<Body> {
    let to = answer.headers().get(header::UPGRADE).cloned();
    let stream = hyper::upgrade::on(&mut answer);
    takeover.then(async move |client| {
        if let Ok(server) = stream.await {
            relay(client, TokioIo::new(server), IDLE_TIMEOUT).await;
        }
        drop(held);
    });
    let mut headers = std::mem::take(answer.headers_mut());
    hops::clean(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    hops::ask_to_upgrade(&mut headers, to.as_ref());
    let mut switched = Response::new(Body::empty());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = headers;
    switched
}

fn not_an_upgrade() -> ApiError {
    ApiError::BadRequest("Upgrade request required".to_owned())
}
