//! What nodes and pods use, as their agents last said: kept in memory, and shown as metrics.k8s.io.
//!
//! ```text
//!  agent ──POST samples, every second──▶ Samples: one sample a node ──▶ metrics (GET, list, table)
//!                    ◀── when the next is wanted                          joined with pods and nodes of the cache
//! ```
//!
//! With several servers each agent speaks to one; whoever is asked for metrics has the others' samples first.
//!
//! Nothing is written to the store. A node can only speak of pods that are bound to it: a pod is looked for in
//! the sample of its own node, by its uid.

mod metrics;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::applied::{caller, node_of};
use super::authn::User;
use super::shares::Ticket;
use super::{State, peers, reply, upload};
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

/// What another server passes on: some 300 bytes a container.
const PASSED_BYTES: usize = 128 << 20;
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// The newest sample of each node.
#[derive(Default)]
pub struct Samples {
    own: Mutex<ByNode>,
    /// Those that other servers have taken, and when they were asked last.
    others: Mutex<(ByNode, Option<Instant>)>,
}

type ByNode = HashMap<String, Arc<Sample>>;

/// A sample on its way to another server.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Passed {
    node: String,
    age_ms: u64,
    sample: NodeSample,
}

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
        let kept = Sample::of(sample, now);
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
        let own = self.all().get(node).cloned();
        let other = self.others().0.get(node).cloned();
        let newest = own.into_iter().chain(other).max_by_key(|sample| sample.at);
        newest.filter(|sample| sample.is_fresh(now))
    }

    /// Those of this server that are shown.
    fn to_pass(&self, now: Timestamp) -> Vec<Passed> {
        let all = self.all();
        let fresh = all.iter().filter(|(_, sample)| sample.is_fresh(now));
        let passed = fresh.map(|(node, sample)| Passed {
            node: node.clone(),
            age_ms: u64::try_from(now.duration_since(sample.at).as_millis()).unwrap_or_default(),
            sample: NodeSample {
                window_ms: u64::try_from(sample.window.as_millis()).unwrap_or_default(),
                usage: sample.usage,
                pods: sample.pods.values().cloned().collect(),
            },
        });
        passed.collect()
    }

    /// Keeps what another server has.
    fn hear(&self, passed: Vec<Passed>, now: Timestamp) {
        let mut others = self.others();
        others.0.retain(|_, sample| sample.is_fresh(now));
        for passed in passed.into_iter().take(NODES) {
            // Its clock is not believed, only how much time it says has passed.
            let at = now
                .checked_sub(Duration::from_millis(passed.age_ms))
                .unwrap_or(Timestamp::MIN);
            let kept = Arc::new(Sample::of(passed.sample, at));
            let other = others.0.entry(passed.node).or_insert_with(|| kept.clone());
            if other.at < kept.at {
                *other = kept;
            }
        }
    }

    /// Whether it is time to ask the others again.
    fn is_due(&self, now: Instant) -> bool {
        let mut others = self.others();
        let due = others
            .1
            .is_none_or(|last| now.duration_since(last) >= INTERVAL);
        if due {
            others.1 = Some(now);
        }
        due
    }

    fn others(&self) -> MutexGuard<'_, (ByNode, Option<Instant>)> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> MutexGuard<'_, ByNode> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sample {
    fn of(sample: NodeSample, at: Timestamp) -> Self {
        let pods = sample.pods.into_iter().take(PODS).map(|mut pod| {
            pod.containers.truncate(CONTAINERS);
            (pod.uid.clone(), pod)
        });
        Self {
            at,
            window: Duration::from_millis(sample.window_ms),
            usage: sample.usage,
            pods: pods.collect(),
        }
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < LIFETIME
    }
}

/// How often each of so many nodes speaks.
fn interval(nodes: usize) -> Duration {
    let rounds = u32::try_from(nodes.div_ceil(SAMPLES_PER_SECOND)).unwrap_or(u32::MAX);
    INTERVAL.saturating_mul(rounds.max(1)).min(LONGEST_INTERVAL)
}

/// GET: what the agents have told this server; for other servers.
pub async fn pass(
    Extract(state): Extract<Arc<State>>,
    user: Option<Extension<User>>,
) -> Response<Body> {
    let refused = match caller(&state, user) {
        Ok(None) => {
            let passed = state.samples.to_pass(Timestamp::now());
            return reply::json(StatusCode::OK, &json!(passed));
        }
        // A node knows what it uses itself.
        Ok(Some(_)) => ApiError::Forbidden {
            target: Default::default(),
            message: "forbidden: only servers ask each other this".to_owned(),
        },
        Err(error) => error,
    };
    reply::error(&refused)
}

/// Asks the other servers for what agents have told them, unless that was done a moment ago.
pub async fn gather(state: &State) {
    if !state.objects.store.is_shared() || !state.samples.is_due(Instant::now()) {
        return;
    }
    peers::ask_each(state, PATH, (PASSED_BYTES, PEER_TIMEOUT), |answer| {
        if let Ok(passed) = serde_json::from_value(answer) {
            state.samples.hear(passed, Timestamp::now());
        }
    })
    .await;
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
    fn what_another_server_was_told_is_shown_and_as_old_as_it_is() {
        let (one, two) = (Samples::default(), Samples::default());
        let sample = NodeSample {
            window_ms: 700,
            ..NodeSample::default()
        };
        one.take("a", sample, at(0));
        // Their clocks differ by a day.
        let day = 24 * 3600;
        two.hear(one.to_pass(at(10)), at(day + 10));
        let heard = two.of("a", at(day + 10)).expect("heard");
        assert_eq!(
            (heard.at, heard.window),
            (at(day), Duration::from_millis(700))
        );
        assert!(
            two.of("a", at(day + 31)).is_none(),
            "as old as at the other one"
        );
        assert!(
            two.to_pass(at(day + 10)).is_empty(),
            "nothing goes in circles"
        );
        // The node has changed over.
        two.take("a", NodeSample::default(), at(day + 20));
        two.hear(one.to_pass(at(21)), at(day + 21));
        assert_eq!(
            two.of("a", at(day + 21)).expect("a sample").at,
            at(day + 20)
        );
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
