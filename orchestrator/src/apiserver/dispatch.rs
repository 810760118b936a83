//! From a request to its handler: limits, authentication, authorisation, panics.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::{Method, Response};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;
use tower_http::catch_panic::CatchPanicLayer;

use super::authn::{self, User};
use super::negotiate::Wanted;
use super::request::{Query, Route, Target, Verb};
use super::rest::{self, Answer, Call};
use super::{State, authz, discovery, health, join, openapi, reply};
use crate::api::{ApiError, Subresource};

/// The largest body that is read, as in Kubernetes.
const BODY_LIMIT_BYTES: usize = 3 * 1024 * 1024;
/// How long a request may take that is no watch and no log.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that the server answers.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/healthz", get(health::livez))
        .route("/version", get(health::version))
        .route("/openapi/v2", get(openapi::v2))
        .route("/openapi/v3", get(openapi::v3_index))
        .route("/openapi/v3/{*path}", get(openapi::v3))
        .route(join::PATH, post(join::join))
        .fallback(resources)
        .layer(middleware::from_fn(authenticate))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(state)
}

/// Finds out who asks, and whether they may ask for this path at all.
async fn authenticate(mut request: Request, next: Next) -> Response<Body> {
    let path = request.uri().path();
    let known = request.extensions().get::<User>();
    // The join endpoint has a credential of its own kind, and takes a node's certificate too.
    let user = if path == join::PATH {
        Ok(known.cloned().unwrap_or_else(User::anonymous))
    } else {
        authn::authenticate(known, request.headers(), Timestamp::now())
    };
    let allowed = user.and_then(|user| authz::path(&user, path).map(|()| user));
    match allowed {
        Ok(user) => {
            tracing::debug!(user = %user.name, method = %request.method(), uri = %request.uri());
            request.extensions_mut().insert(user);
            next.run(request).await
        }
        Err(error) => reply::error(&error),
    }
}

/// `/api` and `/apis`: discovery and objects.
async fn resources(Extract(state): Extract<Arc<State>>, request: Request) -> Response<Body> {
    answer(state, request)
        .await
        .unwrap_or_else(|error| reply::error(&error))
}

async fn answer(state: Arc<State>, request: Request) -> Answer {
    let path = request.uri().path();
    if path == "/" {
        return Ok(discovery::paths());
    }
    let target = match Route::parse(path)? {
        Route::Objects(target) => target,
        route if request.method() == Method::GET => {
            return discovery::answer(&state, &route, request.headers());
        }
        _ => return Err(ApiError::NoSuchResource),
    };
    let user = request
        .extensions()
        .get::<User>()
        .cloned()
        .unwrap_or_else(User::anonymous);
    let query = Query::of(request.uri());
    let verb = target
        .verb(request.method(), query.flag("watch"))
        .ok_or_else(|| ApiError::method_not_allowed(target.resource, request.method().as_str()))?;
    let verb = named_watch(&target, verb, &query);
    authz::objects(
        &state,
        &user,
        authz::Wish {
            verb,
            target: &target,
            query: Some(&query),
        },
    )?;
    if !is_served(&target, verb) {
        return Err(ApiError::method_not_allowed(target.resource, verb.as_str()));
    }
    let wanted = match target.subresource {
        // A log is text, whatever the client accepts.
        Some(Subresource::Log) => Wanted::JSON,
        _ => Wanted::negotiate(request.headers(), &query)?,
    };
    let (parts, body) = request.into_parts();
    let reads = verb.reads();
    let body = if reads {
        Bytes::new()
    } else {
        read(body).await?
    };
    let streams = verb == Verb::Watch || target.subresource == Some(Subresource::Log);
    let serve = rest::serve(Call {
        state,
        user,
        target,
        verb,
        query,
        headers: parts.headers,
        wanted,
        body,
    });
    match (streams, reads) {
        (true, _) => serve.await,
        (false, true) => in_time(serve).await,
        (false, false) => in_time(to_the_end(serve)).await,
    }
}

async fn in_time(serve: impl Future<Output = Answer>) -> Answer {
    let late = || {
        let seconds = PATIENCE.as_secs();
        ApiError::Timeout(format!("the request did not complete within {seconds} s"))
    };
    let answer = tokio::time::timeout(PATIENCE, serve).await;
    answer.unwrap_or_else(|_| Err(late()))
}

/// A client that goes away does not end a write halfway: what belongs to a commit (addresses that
/// are kept or given back) is done whether or not somebody waits for the answer.
async fn to_the_end(serve: impl Future<Output = Answer> + Send + 'static) -> Answer {
    match tokio::spawn(serve).await {
        Ok(answer) => answer,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApiError::ServiceUnavailable(
                "the server is stopping".to_owned(),
            )),
        },
    }
}

/// `pods/x?watch=true` watches one object, as `fieldSelector=metadata.name=x` does.
fn named_watch(target: &Target, verb: Verb, query: &Query) -> Verb {
    match verb {
        Verb::Get if target.subresource.is_none() && query.flag("watch") => Verb::Watch,
        verb => verb,
    }
}

fn is_served(target: &Target, verb: Verb) -> bool {
    match target.subresource {
        Some(sub) => sub.verbs().contains(&verb.as_str()),
        None => target.resource.verbs.contains(&verb.as_str()),
    }
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let body = Limited::new(body, BODY_LIMIT_BYTES).collect();
    match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge(format!(
            "Request entity too large: limit is {BODY_LIMIT_BYTES}"
        ))),
        Ok(Err(error)) => Err(ApiError::BadRequest(format!(
            "the body could not be read: {error}"
        ))),
        Err(_) => Err(ApiError::Timeout(
            "the body did not arrive in time".to_owned(),
        )),
    }
}

/// One broken request must not look like a broken server.
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response<Body> {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    reply::error(&reply::internal(
        "this request hit a defect of the server; its log says more",
    ))
}
