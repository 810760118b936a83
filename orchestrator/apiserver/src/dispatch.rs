//! From a request to its handler: limits, authentication, authorisation, panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State as Extract};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Response, header};
use axum::routing::{delete, get, post};
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use super::audit::{self, Level, Trail};
use super::authn::impersonation;
use super::authn::service_account::discovery as discovery_of_keys;
use super::authn::{self, User};
use super::metrics::{self, Row, Span};
use super::negotiate::{self, Offer, Wanted, prefers_protobuf};
use super::reply::{self, Warnings};
use super::request::{self, Query, Route, Target, Verb};
use super::rest::{self, Answer, Call};
use super::server_token::known;
use super::shares::{Peer, Ticket};
use super::upload::{self, Upload};
use super::{
    State, aggregation, applied, authz, discovery, gzip, health, hops, join, openapi, options,
    proxy, samples, server_join, snapshots,
};
use api::{ApiError, Behaviour, Format, Subresource, encode};
use store::Fence;
use streams::Shape;
use sys::front::Known;

/// How long a request may take that is no watch and no log.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that the server answers. Clones are the same.
#[derive(Clone)]
pub struct Dispatcher {
    state: Arc<State>,
    /// What is no object: health, schemas, joining.
    others: Router,
}

impl Dispatcher {
    pub fn new(state: Arc<State>) -> Self {
        let others = Router::new()
            .route("/livez", get(health::livez))
            .route("/readyz", get(health::readyz))
            .route("/healthz", get(health::livez))
            .route("/version", get(health::version))
            .route(metrics::PATH, get(metrics::serve))
            .route("/openapi/v2", get(openapi::v2))
            .route("/openapi/v3", get(openapi::v3_index))
            .route("/openapi/v3/{*path}", get(openapi::v3))
            .route(
                discovery_of_keys::CONFIGURATION,
                get(discovery_of_keys::configuration),
            )
            .route(discovery_of_keys::KEYS, get(discovery_of_keys::keys))
            .route(join::PATH, post(join::join))
            .route(server_join::PATH, post(server_join::join))
            .route(known::PATH, get(known::list).post(known::add))
            .route(known::ONE, delete(known::revoke))
            .route(snapshots::PATH, get(snapshots::get).post(snapshots::post))
            .route(applied::PATH, get(applied::all).post(applied::report))
            .route(samples::PATH, get(samples::pass).post(samples::take))
            .fallback(|Extract(state): Extract<Arc<State>>, request: Request| {
                resources(state, request)
            })
            .with_state(state.clone());
        Self { state, others }
    }

    /// The same as a router, for clients in this process.
    pub fn into_router(self) -> Router {
        Router::new().fallback(move |request: Request| self.clone().answer(request))
    }

    /// Answers a request, whatever becomes of it.
    pub async fn answer(self, request: Request) -> Response<Body> {
        let is_head = *request.method() == Method::HEAD;
        let answer = AssertUnwindSafe(self.authenticate(request)).catch_unwind();
        let answer = answer.await.unwrap_or_else(panicked);
        match is_head {
            true => without_body(answer),
            false => answer,
        }
    }

    /// Serves a caller that may ask for this path. Objects are what is asked for most, and need no router, which
    /// copies and boxes what serves a route.
    async fn route(&self, request: Request) -> Response<Body> {
        let path = request.uri().path();
        if path.starts_with("/api/") || path.starts_with("/apis/") {
            return resources(self.state.clone(), request).await;
        }
        match self.others.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }

    /// Finds out who asks, whether they may ask for this path at all, and whether it is their turn.
    async fn authenticate(&self, mut request: Request) -> Response<Body> {
        let state = &self.state;
        let mut span = Span::begin();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        // A join endpoint has a credential of its own kind, and takes a node's certificate too.
        let user = match joins(request.uri().path()) {
            true => {
                let known = request.extensions().get::<User>();
                Ok(known.cloned().unwrap_or_else(User::anonymous))
            }
            false => authenticated(state, &mut request).await,
        };
        state.metrics.requests().authenticated(user.as_ref().ok());
        let head = (request.method(), request.uri(), request.headers());
        let peer = request.extensions().get::<Peer>().copied();
        let trail = match audit::follow(state, user.as_ref(), head, peer).await {
            Ok(trail) => trail,
            Err(error) => return reply::error(&error),
        };
        let mut answer = match user {
            Ok(user) => self.enter(user, &trail, request, &mut span).await,
            Err(error) => reply::error(&error),
        };
        let row = answer.extensions_mut().remove::<Arc<Row>>();
        let row = row.unwrap_or_else(|| state.row_of(&method, &uri));
        row.answered(answer.status().as_u16(), &span);
        trail.answered(answer)
    }

    /// Serves a caller who may ask for this path at all, when it is their turn.
    async fn enter(
        &self,
        user: User,
        trail: &Trail,
        mut request: Request,
        span: &mut Span,
    ) -> Response<Body> {
        let state = &self.state;
        let is_joining = joins(request.uri().path());
        let Caller { user, real } = match caller(state, user, trail, &mut request) {
            Ok(caller) => caller,
            Err(error) => return reply::error(&error),
        };
        let by = real.as_ref().map(|real| &*real.name);
        // A query may hold a command's arguments, or what somebody takes for a token's place.
        let path = request.uri().path();
        tracing::debug!(user = %user.name, by, method = %request.method(), path);
        if let Some(known) = request.extensions().get::<Known>()
            && !user.is_anonymous()
        {
            known.note();
        }
        let peer = request.extensions().get::<Peer>().copied();
        let lasts = request::lasts(request.uri());
        // What one client may have does not grow with the names that it takes.
        let holder = real.as_ref().unwrap_or(&user);
        let ticket = match state.shares.enter(holder, peer, lasts).await {
            Ok(ticket) => ticket,
            Err(error) => return reply::error(&error),
        };
        let asked = (request.method(), request.uri());
        let entered = state.flows.enter(&state.objects.cache, &user, asked, lasts);
        let seat = match entered.await {
            Ok(seat) => seat,
            Err(error) => return reply::error(&error),
        };
        span.seated();
        let requests = state.metrics.requests();
        let working = (!lasts).then(|| requests.work(request.method()));
        let lasting = lasts.then(|| state.row_of(request.method(), request.uri()).lasts());
        let ticket = ticket.with(lasting);
        if !is_joining {
            // Nobody behind here has a use for it, and what is passed on or logged cannot hold it.
            request.headers_mut().remove(header::AUTHORIZATION);
        }
        request.extensions_mut().insert(user);
        if trail.is_at(Level::Metadata) {
            request.extensions_mut().insert(trail.clone());
        }
        request.extensions_mut().insert(ticket.clone());
        let mut answer = self.route(request).await;
        drop(working);
        for (name, value) in seat.into_iter().flat_map(|seat| seat.headers) {
            answer.headers_mut().insert(name, value);
        }
        ticket.until_sent(answer)
    }
}

/// The answer to a request for the head alone.
fn without_body(answer: Response<Body>) -> Response<Body> {
    let length = answer.body().size_hint().exact();
    if length == Some(0) {
        return answer;
    }
    let mut answer = answer.map(|_| Body::empty());
    if let Some(length) = length {
        answer
            .headers_mut()
            .entry(header::CONTENT_LENGTH)
            .or_insert(length.into());
    }
    answer
}

/// Whether a path is one that a machine joins by: it is asked with a credential of its own kind.
pub fn joins(path: &str) -> bool {
    path == join::PATH || path == server_join::PATH
}

/// Who asks.
struct Caller {
    user: User,
    /// Who it is in truth, if it acts as another.
    real: Option<User>,
}

/// Whom the user acts as, and that it may ask for this path at all.
fn caller(
    state: &State,
    user: User,
    trail: &Trail,
    request: &mut Request,
) -> Result<Caller, ApiError> {
    let mut caller = Caller { user, real: None };
    let is_joining = joins(request.uri().path());
    if !is_joining
        && let Some(other) = impersonation::acting_as(state, &caller.user, request.headers_mut())?
    {
        trail.impersonates(&other);
        caller.real = Some(std::mem::replace(&mut caller.user, other));
    }
    let path = request.uri().path();
    let allowed = authz::path(state, &caller.user, request.method().as_str(), path);
    if allowed.is_err() || !authz::is_for_resource(path) {
        // Objects are judged with their verb, later.
        trail.decided(&allowed);
        state.metrics.requests().authorized(allowed.is_ok());
    }
    allowed.map(|_| caller)
}

/// Whoever shows a certificate, a token or nothing. An address of many bad tokens waits with all of its
/// tokens. (A shared request cannot be waited with, since a body is not `Sync`.)
async fn authenticated(state: &State, request: &mut Request) -> Result<User, ApiError> {
    hops::authorize_by_protocol(request.headers_mut());
    let known = request.extensions().get::<User>();
    let is_known = known.is_some_and(|user| !user.is_anonymous());
    let shows = !is_known && request.headers().contains_key(header::AUTHORIZATION);
    let peer = request.extensions().get::<Peer>().filter(|_| shows);
    let failures = &state.authentication.failures;
    let _turn = match peer.filter(|peer| failures.are_many(peer.0, Instant::now())) {
        Some(peer) => {
            let stranger = User::anonymous();
            Some(state.shares.enter(&stranger, Some(*peer), false).await?)
        }
        None => None,
    };
    let user = authn::authenticate(state, known, request.headers(), Timestamp::now()).await;
    if let (Err(_), Some(peer)) = (&user, peer) {
        failures.note(peer.0, Instant::now());
    }
    user
}

/// `/api` and `/apis`: discovery and objects.
async fn resources(state: Arc<State>, request: Request) -> Response<Body> {
    let headers = request.headers();
    let (compress, protobuf) = (gzip::is_accepted(headers), prefers_protobuf(headers));
    let is_read = request.method() == Method::GET && !request::lasts(request.uri());
    let mut row = None;
    let mut answer = match answer(state, request, &mut row).await {
        Ok(answer) if compress && is_read => gzip::if_large(answer),
        Ok(answer) => answer,
        Err(error) if protobuf => reply::error_as(Format::Protobuf, &error),
        Err(error) => reply::error(&error),
    };
    if let Some(row) = row {
        answer.extensions_mut().insert::<Arc<Row>>(row);
    }
    answer
}

/// In which forms the answer to a request could be.
fn offer(target: &Target, verb: Verb) -> Offer {
    let resource = target.resource();
    let object = target
        .subresource
        .map_or(&**resource, |sub| sub.object(resource));
    let built_in = encode::is_known(object);
    match verb {
        Verb::Watch => Offer::Watch { built_in },
        _ if matches!(resource.behaviour, Behaviour::Review(_)) => Offer::Review,
        _ if built_in => Offer::BuiltIn,
        _ => Offer::Custom,
    }
}

/// `row` is where the request is counted, once that is known.
async fn answer(state: Arc<State>, request: Request, row: &mut Option<Arc<Row>>) -> Answer {
    let path = request.uri().path();
    let trail = trail(&request);
    if path == "/" {
        return Ok(discovery::paths(&state.registry.snapshot()));
    }
    if let Some(server) = state.aggregated.of_path(&state, path)? {
        unserved(&state, &trail, &request)?;
        return aggregation::forward(&state, &server, &who(&request), request).await;
    }
    let route = Route::parse(&state.registry.snapshot(), path).or_else(|error| {
        // Who may not ask is not told what there is.
        unserved(&state, &trail, &request)?;
        Err(error)
    });
    let target = match route? {
        Route::Objects(target) => target,
        route if request.method() == Method::GET => {
            return discovery::answer(&state, &route, request.headers());
        }
        _ => return Err(ApiError::NoSuchResource),
    };
    let user = who(&request);
    let query = Query::of(request.uri());
    let verb = verb(&target, request.method(), &query)?;
    let applies = negotiate::is_apply(request.headers());
    *row = Some(state.metrics.requests().row(&target, verb, applies));
    let wish = authz::Wish::of(verb, &target, &query);
    may(&state, &user, wish, &trail)?;
    if target.subresource.is_some_and(Subresource::connects) {
        return proxy::connect(state, &user, target, &query, request).await;
    }
    if !is_served(&target, verb) {
        return Err(ApiError::method_not_allowed(
            target.resource(),
            verb.as_str(),
        ));
    }
    let mut wanted = wanted(request.headers(), &query, &target, verb, &trail)?;
    options::check(verb, &query)?;
    let (parts, body) = request.into_parts();
    let upgrade = match messages_of(verb, &target) {
        Some(shape) => proxy::messages::asked(&state, &parts, &trail, shape)?,
        None => None,
    };
    if upgrade.is_some() {
        // A message is a line.
        wanted.format = Format::Json;
    }
    let upload = read(verb, &parts, body).await?;
    let fence = parts.extensions.get::<Fence>().cloned();
    let (large, room) = (upload.is_large(), upload.room);
    let call = Call {
        state,
        user,
        target,
        verb,
        query,
        headers: parts.headers,
        wanted,
        body: upload.bytes,
        warnings: Warnings::default(),
        trail: trail.clone(),
    };
    let answer = serve(call, fence, large, room).await?;
    match upgrade {
        Some(upgrade) => upgrade.carry(answer),
        None => Ok(answer),
    }
}

/// Whether the answer must know what any server answered before: all but reads that name a revision of
/// their own, or continue with one.
fn wants_newest(verb: Verb, query: &Query) -> bool {
    let names = |key| query.get(key).is_some_and(|value| !value.is_empty());
    !verb.reads() || !(names("resourceVersion") || names("continue"))
}

/// Lets a request for objects pass; the decision is noted.
fn may(state: &State, user: &User, wish: authz::Wish<'_>, trail: &Trail) -> Result<(), ApiError> {
    let mut allowed = authz::objects(state, user, wish);
    if let (Ok(_), Some(also)) = (&allowed, wish.also()) {
        allowed = authz::objects(state, user, also);
    }
    state.metrics.requests().authorized(allowed.is_ok());
    trail.decided(&allowed);
    allowed.map(drop)
}

/// What makes a message of the answer, if it can be had over WebSocket.
fn messages_of(verb: Verb, target: &Target) -> Option<Shape> {
    match verb {
        Verb::Watch => Some(Shape::Lines),
        _ if target.subresource == Some(Subresource::Log) => Some(Shape::Parts),
        _ => None,
    }
}

/// Serves a request in the time that its kind has, on the threads that are for it.
async fn serve(
    call: Call,
    fence: Option<Fence>,
    large: bool,
    room: Option<OwnedSemaphorePermit>,
) -> Answer {
    let (verb, trail) = (call.verb, call.trail.clone());
    if wants_newest(verb, &call.query) {
        call.state.objects.refresh().await?;
    }
    if verb == Verb::Watch || call.target.subresource == Some(Subresource::Log) {
        return rest::serve(call).await;
    }
    let answer = if verb.reads() {
        in_time(rest::serve(call)).await
    } else if large {
        in_time(write_large(call, fence, room)).await
    } else {
        let work = async move {
            let _room = room;
            Fence::keep(fence, rest::serve(call)).await
        };
        in_time(to_the_end(tokio::spawn(work))).await
    };
    answer.map(|answer| trail.copied(answer))
}

/// In which form the answer is.
fn wanted(
    headers: &HeaderMap,
    query: &Query,
    target: &Target,
    verb: Verb,
    trail: &Trail,
) -> Result<Wanted, ApiError> {
    if target.subresource == Some(Subresource::Log) {
        // A log is text, whatever the client accepts.
        return Ok(Wanted::JSON);
    }
    let mut wanted = Wanted::negotiate(headers, query, offer(target, verb))?;
    let is_logged = trail.is_at(Level::RequestResponse);
    if wanted.format == Format::Protobuf && is_logged && negotiate::accepts_json(headers) {
        // The audit log shows answers as JSON: a client that takes that as well gets it.
        wanted.format = Format::Json;
    }
    Ok(wanted)
}

/// Whether the caller may ask for what is not served here.
fn unserved(state: &State, trail: &Trail, request: &Request) -> Result<(), ApiError> {
    let allowed = authz::unserved(state, &who(request), request.method(), request.uri());
    let allowed = allowed.map(|()| None);
    trail.decided(&allowed);
    allowed.map(drop)
}

/// What the audit log is told of the request.
fn trail(request: &Request) -> Trail {
    let trail = request.extensions().get::<Trail>().cloned();
    trail.unwrap_or_default()
}

/// Whoever `authenticate` has found to be asking.
pub fn who(request: &Request) -> User {
    let user = request.extensions().get::<User>().cloned();
    user.unwrap_or_else(User::anonymous)
}

/// The body of a request whose sender may do this.
async fn read(verb: Verb, parts: &Parts, body: Body) -> Result<Upload, ApiError> {
    if verb.reads() {
        return Ok(Upload::default());
    }
    let ticket = parts.extensions.get::<Ticket>().cloned();
    upload::read(
        &parts.headers,
        body,
        upload::OBJECT,
        &ticket.unwrap_or_default(),
    )
    .await
}

async fn in_time(serve: impl Future<Output = Answer>) -> Answer {
    let late = || {
        let seconds = PATIENCE.as_secs();
        ApiError::Timeout(format!("the request did not complete within {seconds} s"))
    };
    let answer = tokio::time::timeout(PATIENCE, serve).await;
    answer.unwrap_or_else(|_| Err(late()))
}

/// A write that keeps a processor busy: in its turn, and on a thread that gives way to those that
/// answer others.
async fn write_large(
    call: Call,
    fence: Option<Fence>,
    uploaded: Option<OwnedSemaphorePermit>,
) -> Answer {
    let room = (call.state.shares.large_body(&call.user).await, uploaded);
    let runtime = Handle::current();
    let work = sys::give_way(move || {
        let answer = runtime.block_on(Fence::keep(fence, rest::serve(call)));
        drop(room);
        answer
    });
    work.await
        .unwrap_or_else(|error| Err(reply::internal(&error)))
}

/// A client that goes away does not end a write halfway: what belongs to a commit (addresses that
/// are kept or given back) is done whether or not somebody waits for the answer.
async fn to_the_end(work: JoinHandle<Answer>) -> Answer {
    match work.await {
        Ok(answer) => answer,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApiError::ServiceUnavailable(
                "the server is stopping".to_owned(),
            )),
        },
    }
}

/// What a request does. `pods/x?watch=true` watches one object, as `fieldSelector=metadata.name=x` does.
fn verb(target: &Target, method: &Method, query: &Query) -> Result<Verb, ApiError> {
    let verb = target.verb(method, query.flag("watch"));
    match verb {
        Some(Verb::Get) if target.subresource.is_none() && query.flag("watch") => Ok(Verb::Watch),
        Some(verb) => Ok(verb),
        None => Err(ApiError::method_not_allowed(
            target.resource(),
            method.as_str(),
        )),
    }
}

fn is_served(target: &Target, verb: Verb) -> bool {
    match target.subresource {
        Some(sub) => sub.verbs().contains(&verb.as_str()),
        None => target.resource().verbs.contains(&verb.as_str()),
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
