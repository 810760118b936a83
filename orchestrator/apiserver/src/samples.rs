//! What nodes and pods use, as their agents last said: kept in memory, and shown as metrics.k8s.io.
//!
//! ```text
//!  agent ──POST samples, every second──▶ Samples: one sample a node ──▶ metrics (GET, list, table)
//!                    ◀── when the next is wanted                          joined with pods and nodes of the cache
//! ```
//!
//! Nothing is written to the store. A node can only speak of pods that are bound to it: a pod is looked for in
//! the sample of its own node, by its uid.

mod metrics;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::applied::node_of;
use super::authn::User;
use super::shares::Ticket;
use super::{State, reply, upload};
use api::ApiError;
use api::samples::{CONTAINERS, NodeSample, PODS, PodSample, Taken, Usage};

pub use api::samples::PATH;
pub use metrics::{answer, resources};

/// How long a sample is shown. Kubernetes' metrics-server forgets a node after two rounds of 15 seconds.
const LIFETIME: SignedDuration = SignedDuration::from_secs(30);
/// How often a node says what it uses, while there are not many.
const INTERVAL: Duration = Duration::from_secs(1);
/// Samples a second that this server takes: with more nodes each speaks less often.
const SAMPLES_PER_SECOND: usize = 200;
/// No node is asked less often than that, so that its sample lives until the next.
const LONGEST_INTERVAL: Duration = Duration::from_secs(15);
/// Nodes that are remembered; the joined ones of the largest cluster.
const NODES: usize = 10_000;

/// The newest sample of each node.
#[derive(Default)]
pub struct Samples(Mutex<HashMap<String, Arc<Sample>>>);

/// One node's sample, as it is kept.
#[derive(Debug)]
struct Sample {
    /// When it came, by this server's clock.
    at: Timestamp,
    window: Duration,
    usage: Usage,
    /// By uid.
    pods: HashMap<String, PodSample>,
}

impl Samples {
    /// Keeps a node's sample, and says when the next one is wanted.
    fn take(&self, node: &str, sample: NodeSample, now: Timestamp) -> Taken {
        let pods = sample.pods.into_iter().take(PODS).map(|mut pod| {
            pod.containers.truncate(CONTAINERS);
            (pod.uid.clone(), pod)
        });
        let kept = Sample {
            at: now,
            window: Duration::from_millis(sample.window_ms),
            usage: sample.usage,
            pods: pods.collect(),
        };
        let mut all = self.all();
        if !all.contains_key(node) {
            all.retain(|_, other| other.is_fresh(now));
        }
        if all.len() < NODES || all.contains_key(node) {
            all.insert(node.to_owned(), Arc::new(kept));
        }
        Taken {
            next_ms: u64::try_from(interval(all.len()).as_millis()).unwrap_or_default(),
        }
    }

    /// The sample of a node, unless it is too old.
    fn of(&self, node: &str, now: Timestamp) -> Option<Arc<Sample>> {
        let found = self.all().get(node).cloned();
        found.filter(|sample| sample.is_fresh(now))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Sample>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sample {
    fn is_fresh(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < LIFETIME
    }
}

/// How often each of so many nodes speaks.
fn interval(nodes: usize) -> Duration {
    let rounds = u32::try_from(nodes.div_ceil(SAMPLES_PER_SECOND)).unwrap_or(u32::MAX);
    INTERVAL.saturating_mul(rounds.max(1)).min(LONGEST_INTERVAL)
}

/// POST: what the calling node and its pods use.
pub async fn take(
    Extract(state): Extract<Arc<State>>,
    user: Option<Extension<User>>,
    request: Request,
) -> Response<Body> {
    match taken(&state, user, request).await {
        Ok(taken) => reply::json(StatusCode::OK, &json!(taken)),
        Err(error) => reply::error(&error),
    }
}

async fn taken(
    state: &State,
    user: Option<Extension<User>>,
    request: Request,
) -> Result<Taken, ApiError> {
    let node = node_of(state, user)?;
    let (parts, body) = request.into_parts();
    let ticket = parts
        .extensions
        .get::<Ticket>()
        .cloned()
        .unwrap_or_default();
    let body = upload::read(&parts.headers, body, upload::SAMPLE, &ticket).await?;
    let sample = serde_json::from_slice(&body.bytes)
        .map_err(|error| ApiError::BadRequest(format!("no sample of a node: {error}")))?;
    Ok(state.samples.take(&node, sample, Timestamp::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_sample_is_forgotten_when_its_node_is_silent() {
        let samples = Samples::default();
        samples.take("a", NodeSample::default(), at(0));
        assert!(samples.of("a", at(29)).is_some());
        assert!(samples.of("a", at(30)).is_none());
        samples.take("b", NodeSample::default(), at(40));
        assert_eq!(samples.all().len(), 1, "the silent one takes no memory");
    }

    #[test]
    fn many_nodes_speak_less_often_so_that_the_server_has_no_more_to_do() {
        for (nodes, seconds) in [(0, 1), (3, 1), (200, 1), (201, 2), (2_000, 10), (9_000, 15)] {
            assert_eq!(interval(nodes), Duration::from_secs(seconds), "{nodes}");
        }
    }

    #[test]
    fn more_than_a_node_may_say_is_not_kept() {
        let pod = |name: usize| PodSample {
            uid: format!("u-{name}"),
            containers: vec![Default::default(); CONTAINERS + 1],
            ..PodSample::default()
        };
        let sample = NodeSample {
            pods: (0..=PODS).map(pod).collect(),
            ..NodeSample::default()
        };
        let samples = Samples::default();
        samples.take("a", sample, at(0));
        let kept = samples.of("a", at(0)).expect("kept");
        assert_eq!(kept.pods.len(), PODS);
        assert_eq!(kept.pods["u-7"].containers.len(), CONTAINERS);
    }
}
