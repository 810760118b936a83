//! The server's numbers, for Prometheus: `/metrics`, in OpenMetrics' text form, under the names of Kubernetes
//! 1.33 that dashboards and alerts ask for.
//!
//! | name | kind | labels | what it counts |
//! |---|---|---|---|
//! | `apiserver_request_total` | counter | R, `code` | answers |
//! | `apiserver_request_duration_seconds` | histogram | R | from a request's head to the head of its answer |
//! | `apiserver_request_sli_duration_seconds` | histogram | R | the same without the wait for a seat |
//! | `apiserver_longrunning_requests` | gauge | R | watches, logs and streams that go on |
//! | `apiserver_current_inflight_requests` | gauge | `request_kind` | requests that have a seat |
//! | `apiserver_watch_events_total` | counter | `group`, `version`, `resource` | events that went out to watches |
//! | `authentication_attempts` | counter | `result` | callers that were looked at |
//! | `authenticated_user_requests` | counter | `username` | requests by sort of user |
//! | `authorization_attempts_total` | counter | `result` | decisions |
//! | `etcd_request_duration_seconds` | histogram | `operation`, `type` | commits of the store, until they are on disk |
//! | `apiserver_storage_objects`, `apiserver_resource_objects` | gauge | resource | objects |
//! | `apiserver_watch_cache_resource_version` | gauge | resource | the last change that is visible |
//! | `apiserver_watch_cache_past_bytes` | gauge | resource | what changes and pages of the past take |
//! | `kubernetes_build_info` | gauge | versions | 1 |
//! | `process_…` | | – | CPU time, memory, files, start |
//! | `workqueue_…` | | `name` | the controllers' work (`controllers::numbers`) |
//! | `scheduler_…` | | | decisions of the scheduler (`scheduler::numbers`) |
//!
//! R is `group`, `version`, `resource`, `subresource`, `scope`, `verb`, `component`.
//!
//! INVARIANT: no client makes a series. Labels of a request are those of what is served here, or words of a
//! table; what a path says besides is in none.

mod histogram;
mod process;
mod requests;
mod stored;

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use prometheus_client::encoding::{
    EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::{State, health, negotiate, reply};
use requests::Requests;

pub use histogram::Timer;
pub use requests::{Lasting, Row, Span};

/// Where the numbers are.
pub const PATH: &str = "/metrics";

const OPEN_METRICS: &str = "application/openmetrics-text";
/// The older form differs in nothing that is written here but the names in comments.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything since the server's start.
pub struct Metrics {
    requests: Arc<Requests>,
    commits: Arc<Timer>,
    registry: Mutex<Registry>,
}

impl Metrics {
    /// `commit` is what the binary was built of.
    pub fn new(commit: &str) -> Self {
        let requests = Arc::new(Requests::default());
        let commits = Arc::new(Timer::default());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(requests::Numbers(requests.clone())));
        registry.register_collector(Box::new(stored::Commits(commits.clone())));
        registry.register_collector(Box::new(process::Numbers));
        let build = [
            ("git_version", health::KUBERNETES.to_owned()),
            ("git_commit", commit.to_owned()),
            ("major", "1".to_owned()),
            ("minor", health::MINOR.to_owned()),
        ];
        registry.register(
            "kubernetes_build",
            "What this server is",
            Info::new(build.to_vec()),
        );
        Self {
            requests,
            commits,
            registry: Mutex::new(registry),
        }
    }

    pub fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// How long commits of the store take.
    pub fn commits(&self) -> &Arc<Timer> {
        &self.commits
    }

    /// Other parts of the process have numbers as well.
    pub fn register(&self, more: impl FnOnce(&mut Registry)) {
        more(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Keeps a processor busy for some milliseconds.
    fn text(&self, state: &State) -> String {
        let mut of_state = Registry::default();
        of_state.register_collector(Box::new(stored::Objects(state.objects.cache.figures())));
        let mut out = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let encoded =
            [&*registry, &of_state].map(|registry| text::encode_registry(&mut out, registry));
        let ended = text::encode_eof(&mut out);
        // Writing to a string cannot fail, and no value here refuses to be written.
        debug_assert!(encoded.into_iter().chain([ended]).all(|it| it.is_ok()));
        out
    }
}

impl State {
    /// Where a request is counted, by its head alone.
    pub fn row_of(&self, method: &Method, uri: &Uri) -> Arc<Row> {
        let served = self.registry.snapshot();
        self.metrics.requests().row_of(&served, method, uri)
    }
}

/// `GET /metrics`, for whom roles let it (`system:monitoring`).
pub async fn serve(Extract(state): Extract<Arc<State>>, headers: HeaderMap) -> Response<Body> {
    let ranges = negotiate::accepted(&headers);
    let open = ranges.iter().any(|range| range.media == OPEN_METRICS);
    let content_type = match open {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => TEXT,
    };
    match sys::give_way(move || state.metrics.text(&state)).await {
        Ok(text) => reply::response(content_type, StatusCode::OK, Body::from(text)),
        Err(error) => reply::error(&reply::internal(&error)),
    }
}

/// A row of a counter.
fn count(metric: &mut MetricEncoder, labels: &impl EncodeLabelSet, value: u64) -> std::fmt::Result {
    let mut row = metric.encode_family(labels)?;
    row.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

/// A row of a gauge.
fn level(
    metric: &mut MetricEncoder,
    labels: &impl EncodeLabelSet,
    value: &impl EncodeGaugeValue,
) -> std::fmt::Result {
    metric.encode_family(labels)?.encode_gauge(value)
}
