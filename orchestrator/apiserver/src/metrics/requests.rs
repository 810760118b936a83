//! Requests by what they are for. A row is found by the address of what the path names, so that counting a
//! request compares no texts.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::http::{Method, Uri};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::histogram::Timer;
use super::{count, level};
use crate::authn::{MASTERS, User};
use crate::registry::Snapshot;
use crate::request::{Query, Route, Target, Verb};
use api::resource::Name;
use api::{Resource, Subresource};

/// Rows at most; requests for more are counted in one of none of them. Only who defines kinds gets there.
const MAX_ROWS: usize = 4096;
/// Answers are counted by these codes, all others together.
const CODES: [u16; 24] = [
    101, 200, 201, 202, 204, 301, 302, 304, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422,
    429, 500, 502, 503, 504,
];
/// Paths that are no objects, which have rows of their own (`subresource`, as in Kubernetes).
const PATHS: [&str; 10] = [
    "/api",
    "/apis",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/version",
    "/join",
];
/// Methods that have rows of their own.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// The users that Kubernetes counts by name, and what it calls those of an address and all others.
const USERS: [&str; 6] = [
    "admin",
    "client",
    "kube_proxy",
    "kubelet",
    "email_id",
    "other",
];

/// All requests since the server's start.
#[derive(Debug, Default)]
pub struct Requests {
    rows: RwLock<Rows>,
    /// Requests that have a seat: those that read, and those that write.
    working: [AtomicI64; 2],
    authenticated: [AtomicU64; 2],
    authorized: [AtomicU64; 2],
    by_user: [AtomicU64; USERS.len()],
}

#[derive(Debug, Default)]
struct Rows {
    by_labels: BTreeMap<Labels, Arc<Row>>,
    /// A resource is kept with the row, so that no other one takes its address.
    by_address: HashMap<Address, (Arc<Resource>, Arc<Row>)>,
}

/// What a path names, by its address, and what is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Address {
    resource: usize,
    /// Subresource, verb, and what decides about the scope.
    rest: (Option<Subresource>, Verb, u8),
}

/// What tells requests apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    group: Name,
    version: Name,
    resource: Name,
    subresource: &'static str,
    scope: &'static str,
    verb: &'static str,
}

/// Requests of one sort.
#[derive(Debug, Default)]
pub struct Row {
    labels: Labels,
    codes: [AtomicU64; CODES.len() + 1],
    took: Timer,
    took_working: Timer,
    lasting: AtomicI64,
    events: AtomicU64,
}

/// A request, from its head to the head of its answer.
#[derive(Debug)]
pub struct Span {
    began: Instant,
    /// How long it took until it had a seat.
    waited: Duration,
}

/// A request that has a seat; counts until it is dropped.
pub struct Working<'a>(&'a AtomicI64);

/// A watch, log or stream; counts until it is dropped.
pub struct Lasting(Arc<Row>);

impl Span {
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
            waited: Duration::ZERO,
        }
    }

    /// The request has its seat now.
    pub fn seated(&mut self) {
        self.waited = self.began.elapsed();
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.lasting.fetch_sub(1, Relaxed);
    }
}

impl Row {
    /// The request has its answer.
    pub fn answered(&self, code: u16, span: &Span) {
        let at = CODES.iter().position(|known| *known == code);
        self.codes[at.unwrap_or(CODES.len())].fetch_add(1, Relaxed);
        let took = span.began.elapsed();
        self.took.observe(took);
        self.took_working.observe(took.saturating_sub(span.waited));
    }

    /// So many events go out to a watch.
    pub fn sent(&self, events: u64) {
        self.events.fetch_add(events, Relaxed);
    }

    pub fn lasts(self: Arc<Self>) -> Lasting {
        self.lasting.fetch_add(1, Relaxed);
        Lasting(self)
    }
}

impl Requests {
    /// The row of a request for objects that are served here.
    pub fn row(&self, target: &Target, verb: Verb, applies: bool) -> Arc<Row> {
        let resource = target.resource();
        let address = Address {
            resource: Arc::as_ptr(resource).addr(),
            rest: (
                target.subresource,
                verb,
                u8::from(target.name.is_some())
                    | u8::from(target.namespace.is_some()) << 1
                    | u8::from(applies) << 2,
            ),
        };
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, row)) = rows.by_address.get(&address) {
            return row.clone();
        }
        drop(rows);
        let row = self.labelled(Labels {
            group: resource.group.clone(),
            version: resource.version.clone(),
            resource: resource.plural.clone(),
            subresource: target.subresource.map_or("", Subresource::name),
            scope: scope(target, verb),
            verb: word(target, verb, applies),
        });
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if rows.by_address.len() >= MAX_ROWS {
            // Kinds that are gone leave their addresses behind.
            rows.by_address.clear();
        }
        rows.by_address
            .insert(address, (resource.clone(), row.clone()));
        row
    }

    /// The row of any request, by its head alone.
    pub fn row_of(&self, served: &Snapshot, method: &Method, uri: &Uri) -> Arc<Row> {
        if let Ok(Route::Objects(target)) = Route::parse(served, uri.path()) {
            let watches = Query::of(uri).flag("watch");
            let verb = target.verb(method, watches).unwrap_or(Verb::Unnamed);
            return self.row(&target, verb, false);
        }
        let path = PATHS.iter().find(|path| **path == uri.path());
        let method = METHODS.iter().find(|known| **known == method.as_str());
        self.labelled(Labels {
            subresource: path.copied().unwrap_or_default(),
            verb: method.copied().unwrap_or("other"),
            ..Labels::default()
        })
    }

    fn labelled(&self, labels: Labels) -> Arc<Row> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let is_full = rows.by_labels.len() >= MAX_ROWS && !rows.by_labels.contains_key(&labels);
        let labels = if is_full { Labels::default() } else { labels };
        let row = rows.by_labels.entry(labels.clone());
        let new = || {
            Arc::new(Row {
                labels,
                ..Row::default()
            })
        };
        row.or_insert_with(new).clone()
    }

    /// A request takes its seat.
    pub fn work(&self, method: &Method) -> Working<'_> {
        let writes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let working = &self.working[usize::from(writes)];
        working.fetch_add(1, Relaxed);
        Working(working)
    }

    /// Somebody was found to be who they say, or not.
    pub fn authenticated(&self, user: Option<&User>) {
        self.authenticated[usize::from(user.is_none())].fetch_add(1, Relaxed);
        if let Some(user) = user {
            self.by_user[sort_of(user)].fetch_add(1, Relaxed);
        }
    }

    /// A request may be made, or not.
    pub fn authorized(&self, allowed: bool) {
        self.authorized[usize::from(!allowed)].fetch_add(1, Relaxed);
    }
}

/// The place in `USERS`.
fn sort_of(user: &User) -> usize {
    let known = USERS[..4].iter().position(|name| **name == *user.name);
    let sort = known.or_else(|| user.name.contains('@').then_some(4));
    // An administrator of another name is one too.
    sort.unwrap_or(if user.is_in(MASTERS) { 0 } else { 5 })
}

/// Kubernetes' word for what is done.
fn word(target: &Target, verb: Verb, applies: bool) -> &'static str {
    if target.subresource.is_some_and(Subresource::connects) {
        return "CONNECT";
    }
    match verb {
        Verb::Get => "GET",
        Verb::List => "LIST",
        Verb::Watch => "WATCH",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch if applies => "APPLY",
        Verb::Patch => "PATCH",
        Verb::Delete => "DELETE",
        Verb::DeleteCollection => "DELETECOLLECTION",
        Verb::Unnamed => "other",
    }
}

fn scope(target: &Target, verb: Verb) -> &'static str {
    match (&target.name, &target.namespace) {
        (Some(_), _) => "resource",
        _ if verb == Verb::Create => "resource",
        (None, Some(_)) => "namespace",
        (None, None) => "cluster",
    }
}

/// Writes them out.
#[derive(Debug)]
pub struct Numbers(pub Arc<Requests>);

impl Collector for Numbers {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let rows: Vec<Arc<Row>> = {
            let rows = self.0.rows.read().unwrap_or_else(PoisonError::into_inner);
            rows.by_labels.values().cloned().collect()
        };
        answers(&rows, &mut to)?;
        durations(&rows, &mut to)?;
        watches(&rows, &mut to)?;
        self.0.encode(&mut to)
    }
}

type Label<'a> = (&'static str, &'a str);

impl Labels {
    fn all(&self) -> [Label<'_>; 7] {
        [
            ("component", "apiserver"),
            ("group", &self.group),
            ("version", &self.version),
            ("resource", &self.resource),
            ("subresource", self.subresource),
            ("scope", self.scope),
            ("verb", self.verb),
        ]
    }
}

fn answers(rows: &[Arc<Row>], to: &mut DescriptorEncoder) -> fmt::Result {
    let help = "Answers to requests";
    let mut metric = to.encode_descriptor("apiserver_request", help, None, MetricType::Counter)?;
    for row in rows {
        for (at, answers) in row.codes.iter().enumerate() {
            let answers = answers.load(Relaxed);
            if answers == 0 {
                continue;
            }
            let code = CODES
                .get(at)
                .map_or_else(|| "other".to_owned(), u16::to_string);
            let [a, b, c, d, e, f, g] = row.labels.all();
            let labels = [a, b, c, d, e, f, g, ("code", &code)];
            count(&mut metric, &labels, answers)?;
        }
    }
    Ok(())
}

fn durations(rows: &[Arc<Row>], to: &mut DescriptorEncoder) -> fmt::Result {
    type Which = fn(&Row) -> &Timer;
    let timers: [(&str, &str, Which); 2] = [
        (
            "apiserver_request_duration_seconds",
            "From a request's head to the head of its answer",
            |row| &row.took,
        ),
        (
            "apiserver_request_sli_duration_seconds",
            "The same without the wait for a seat",
            |row| &row.took_working,
        ),
    ];
    for (name, help, which) in timers {
        let mut metric = to.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for row in rows {
            which(row).encode(metric.encode_family(&row.labels.all())?)?;
        }
    }
    Ok(())
}

fn watches(rows: &[Arc<Row>], to: &mut DescriptorEncoder) -> fmt::Result {
    let (name, help) = (
        "apiserver_longrunning_requests",
        "Watches, logs and streams that go on",
    );
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for row in rows {
        let lasting = row.lasting.load(Relaxed);
        if lasting != 0 {
            level(&mut metric, &row.labels.all(), &lasting)?;
        }
    }
    let mut events: BTreeMap<[Label<'_>; 3], u64> = BTreeMap::new();
    for row in rows {
        let [_, group, version, resource, ..] = row.labels.all();
        let sent = row.events.load(Relaxed);
        if sent > 0 {
            *events.entry([group, version, resource]).or_default() += sent;
        }
    }
    let (name, help) = ("apiserver_watch_events", "Events that went out to watches");
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, sent) in &events {
        count(&mut metric, labels, *sent)?;
    }
    Ok(())
}

impl Requests {
    fn encode(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let (name, help) = (
            "apiserver_current_inflight_requests",
            "Requests that have a seat",
        );
        let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (kind, working) in ["readOnly", "mutating"].iter().zip(&self.working) {
            level(
                &mut metric,
                &[("request_kind", *kind)],
                &working.load(Relaxed),
            )?;
        }
        // Kubernetes' names of these two counters end without `_total`.
        let unknown = MetricType::Unknown;
        let (name, help) = ("authentication_attempts", "Callers that were looked at");
        let mut metric = to.encode_descriptor(name, help, None, unknown)?;
        for (result, times) in ["success", "failure"].iter().zip(&self.authenticated) {
            level(&mut metric, &[("result", *result)], &times.load(Relaxed))?;
        }
        let (name, help) = ("authenticated_user_requests", "Requests by sort of user");
        let mut metric = to.encode_descriptor(name, help, None, unknown)?;
        for (user, times) in USERS.iter().zip(&self.by_user) {
            level(&mut metric, &[("username", *user)], &times.load(Relaxed))?;
        }
        let (name, help) = ("authorization_attempts", "Decisions about requests");
        let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (result, times) in ["allowed", "denied"].iter().zip(&self.authorized) {
            count(&mut metric, &[("result", *result)], times.load(Relaxed))?;
        }
        Ok(())
    }
}
