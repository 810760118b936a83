//! How far the datapath of each node is with EndpointSlices, gathered for the node that stops a pod.
//!
//! ```text
//!  every agent ──POST applied/5──▶ held until somebody waits for more ─▶ {"awaited": 9} ─▶ POST applied/9
//!                                              ▲                                              │
//!  agent whose pod ends ──GET applied/9────────┘ held until all Ready nodes have said 9 ◀─────┘
//! ```
//!
//! With several servers each agent speaks to one of them, and the one that is asked asks the others
//! (`?peer=true`), which answer for the agents that speak to them.
//!
//! A pod that ends costs each node one exchange, and nothing is written: while no pod ends, each agent has one
//! silent request. A node that says nothing is told by its name when the one that waits has no more time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{Response, StatusCode};
use axum::{Extension, extract};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::authn::{MASTERS, User};
use super::{State, authz, bootstrap, peers, reply};
use api::ApiError;

/// What both paths begin with; the revision follows.
pub const PREFIX: &str = "/orchestrator/v1/applied/";
/// The route of both.
pub const PATH: &str = "/orchestrator/v1/applied/{revision}";

/// After that long a node that has nothing to say is answered, and says so again.
const REPORT_TIMEOUT: Duration = Duration::from_secs(50);
/// Nobody waits longer for the others.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A node that was here so short ago is on its way back.
const RETURN_TIME: Duration = Duration::from_secs(2);
/// What another server says of its nodes.
const PEER_BYTES: usize = 1 << 20;
/// So much earlier than this server's own time another one answers.
const PEER_MARGIN: Duration = Duration::from_millis(200);

/// What the nodes have said since this server started.
#[derive(Default)]
pub struct Applied {
    /// The newest revision that somebody waits for.
    awaited: watch::Sender<u64>,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    by_node: HashMap<String, u64>,
    present: HashMap<String, Presence>,
    waits: Vec<Wait>,
}

/// Whether a node speaks to this server, and not to another one.
struct Presence {
    /// Its requests that wait here.
    open: usize,
    last: Instant,
}

/// A node's request, while it waits.
struct Visit<'a> {
    applied: &'a Applied,
    node: &'a str,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut said = self.applied.said();
        if let Some(presence) = said.present.get_mut(self.node) {
            presence.open = presence.open.saturating_sub(1);
            presence.last = Instant::now();
        }
    }
}

/// One that waits until all nodes have applied a revision.
struct Wait {
    revision: u64,
    /// The nodes that have not.
    behind: BTreeSet<String>,
    done: oneshot::Sender<()>,
}

impl Applied {
    /// A node's maps hold everything up to this revision.
    fn report(&self, node: &str, revision: u64) {
        let mut said = self.said();
        said.by_node.insert(node.to_owned(), revision);
        for wait in &mut said.waits {
            if wait.revision <= revision {
                wait.behind.remove(node);
            }
        }
        let waits = std::mem::take(&mut said.waits).into_iter();
        let (over, waits) = waits.partition(|wait| wait.behind.is_empty() || wait.done.is_closed());
        said.waits = waits;
        for wait in over {
            // It may have gone meanwhile.
            let _ = wait.done.send(());
        }
    }

    /// Another server has heard so.
    fn hear(&self, node: &str, revision: u64) {
        let known = self.said().by_node.get(node).copied();
        if known.is_none_or(|known| known < revision) {
            self.report(node, revision);
        }
    }

    fn enter<'a>(&'a self, node: &'a str) -> Visit<'a> {
        let (mut said, now) = (self.said(), Instant::now());
        let came = Presence { open: 0, last: now };
        let presence = said.present.entry(node.to_owned()).or_insert(came);
        presence.open += 1;
        presence.last = now;
        Visit {
            applied: self,
            node,
        }
    }

    /// The nodes that speak to this server.
    fn present(&self) -> Vec<String> {
        let (mut said, now) = (self.said(), Instant::now());
        said.present.retain(|_, presence| {
            presence.open > 0 || now.duration_since(presence.last) < RETURN_TIME
        });
        said.present.keys().cloned().collect()
    }

    /// Ends when all these nodes have applied the revision. None: they have already.
    fn wait(&self, revision: u64, nodes: Vec<String>) -> Option<oneshot::Receiver<()>> {
        let mut said = self.said();
        let behind = said.behind(revision, nodes);
        if behind.is_empty() {
            return None;
        }
        let (done, all) = oneshot::channel();
        said.waits.push(Wait {
            revision,
            behind,
            done,
        });
        drop(said);
        self.awaited.send_if_modified(|awaited| {
            let raised = *awaited < revision;
            *awaited = revision.max(*awaited);
            raised
        });
        Some(all)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    /// Which of the nodes have not applied the revision.
    fn behind(&self, revision: u64, nodes: Vec<String>) -> BTreeSet<String> {
        let behind = |node: &String| self.by_node.get(node).is_none_or(|at| *at < revision);
        nodes.into_iter().filter(behind).collect()
    }
}

/// POST: the calling node has applied the revision. Answered with the newest one that somebody waits for, as
/// soon as it is a newer one.
pub async fn report(
    Extract(state): Extract<Arc<State>>,
    user: Option<Extension<User>>,
    Path(revision): Path<u64>,
) -> Response<Body> {
    let node = match node_of(&state, user) {
        Ok(node) => node,
        Err(error) => return reply::error(&error),
    };
    let mut awaited = state.applied.awaited.subscribe();
    let _visit = state.applied.enter(&node);
    state.applied.report(&node, revision);
    let newer = tokio::time::timeout(
        REPORT_TIMEOUT,
        awaited.wait_for(|newest| *newest > revision),
    );
    let newest = match newer.await {
        Ok(Ok(newest)) => Some(*newest),
        _ => None,
    };
    reply::json(StatusCode::OK, &json!({ "awaited": newest }))
}

/// What a caller says who waits.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Patience {
    /// How long it waits at most.
    timeout_ms: u64,
    /// Another server asks: it is answered with the nodes that speak to this one and have applied the revision.
    #[serde(default)]
    peer: bool,
}

/// GET: answered with the Ready nodes that have not applied the revision, as soon as there is none, or when the
/// caller's time is over.
pub async fn all(
    Extract(state): Extract<Arc<State>>,
    user: Option<Extension<User>>,
    Path(revision): Path<u64>,
    patience: Result<Query<Patience>, extract::rejection::QueryRejection>,
) -> Response<Body> {
    match wait_for_all(&state, user, revision, patience.ok()).await {
        Ok(answer) => reply::json(StatusCode::OK, &answer),
        Err(error) => reply::error(&error),
    }
}

async fn wait_for_all(
    state: &State,
    user: Option<Extension<User>>,
    revision: u64,
    patience: Option<Query<Patience>>,
) -> Result<Value, ApiError> {
    caller(state, user)?;
    let Some(Query(patience)) = patience else {
        let wrong = "timeoutMs: how many milliseconds to wait, at most 5000";
        return Err(ApiError::BadRequest(wrong.to_owned()));
    };
    let slices = bootstrap::find("discovery.k8s.io", "endpointslices")?;
    if state.objects.store.is_shared() {
        // Who asks may have heard of the revision from another server.
        state.objects.refresh().await?;
    }
    // INVARIANT: every node comes to each revision that is waited for.
    if revision > state.objects.cache.last_change(slices) {
        let wrong = format!("no EndpointSlice has changed at revision {revision} or later");
        return Err(ApiError::BadRequest(wrong));
    }
    let nodes = match patience.peer {
        true => state.applied.present(),
        false => ready_nodes(state)?,
    };
    let time = Duration::from_millis(patience.timeout_ms).min(LONGEST_WAIT);
    let behind = wait(state, revision, &nodes, time, !patience.peer).await;
    Ok(match patience.peer {
        true => {
            let applied = nodes.into_iter().filter(|node| !behind.contains(node));
            json!({ "applied": applied.collect::<Vec<_>>() })
        }
        false => json!({ "behind": behind }),
    })
}

/// Waits until all Ready nodes have applied a revision at which a slice has changed; those that have not by then.
pub async fn by_all(
    state: &State,
    revision: u64,
    time: Duration,
) -> Result<BTreeSet<String>, ApiError> {
    let nodes = ready_nodes(state)?;
    Ok(wait(state, revision, &nodes, time, true).await)
}

/// Those of the nodes that have not applied the revision in time.
async fn wait(
    state: &State,
    revision: u64,
    nodes: &[String],
    time: Duration,
    asks_others: bool,
) -> BTreeSet<String> {
    if let Some(all) = state.applied.wait(revision, nodes.to_vec()) {
        let others = async {
            if asks_others {
                ask_others(state, revision, time).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // Who is behind is looked up below.
            _ = all => {}
            () = others => {}
            () = tokio::time::sleep(time) => {}
        }
    }
    state.applied.said().behind(revision, nodes.to_vec())
}

/// Has the other servers wait for the agents that speak to them.
async fn ask_others(state: &State, revision: u64, time: Duration) {
    // What they know at the end of their time arrives within ours.
    let theirs = time.saturating_sub(PEER_MARGIN).as_millis();
    let path = format!("{PREFIX}{revision}?timeoutMs={theirs}&peer=true");
    peers::ask_each(state, &path, (PEER_BYTES, time), |answer| {
        let applied = answer["applied"].as_array().into_iter().flatten();
        for node in applied.filter_map(Value::as_str) {
            state.applied.hear(node, revision);
        }
    })
    .await;
}

/// The node that asks: nobody else may.
pub fn node_of(state: &State, user: Option<Extension<User>>) -> Result<String, ApiError> {
    caller(state, user)?.ok_or_else(only_nodes)
}

/// The node that asks; None for an administrator.
pub fn caller(state: &State, user: Option<Extension<User>>) -> Result<Option<String>, ApiError> {
    let user = user.map_or_else(User::anonymous, |Extension(user)| user);
    authz::holds_name(state, &user)?;
    match user.node() {
        Some(node) => Ok(Some(node.to_owned())),
        None if user.is_in(MASTERS) => Ok(None),
        None => Err(only_nodes()),
    }
}

fn only_nodes() -> ApiError {
    ApiError::Forbidden {
        target: Default::default(),
        message: "forbidden: only the agents of nodes say and ask this".to_owned(),
    }
}

fn ready_nodes(state: &State) -> Result<Vec<String>, ApiError> {
    let (_, nodes) = state
        .objects
        .cache
        .list(bootstrap::find("", "nodes")?, None);
    let ready = nodes.into_iter().filter(|node| node.is_ready_node());
    Ok(ready.map(|node| node.name().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_waits_is_told_when_the_last_node_has_said_so() {
        let applied = Applied::default();
        applied.report("a", 7);
        let mut all = applied.wait(9, nodes(&["a", "b"])).expect("nobody has");
        assert_eq!(*applied.awaited.borrow(), 9);
        applied.report("a", 9);
        applied.report("b", 8);
        assert!(all.try_recv().is_err(), "b is at 8");
        applied.report("b", 12);
        assert!(all.try_recv().is_ok());
        assert!(applied.said().waits.is_empty());
        assert!(applied.wait(9, nodes(&["a", "b"])).is_none());
    }

    #[test]
    fn who_has_gone_is_forgotten_at_the_next_report() {
        let applied = Applied::default();
        drop(applied.wait(9, nodes(&["a", "b"])));
        applied.report("a", 3);
        assert!(applied.said().waits.is_empty());
    }

    #[test]
    fn a_server_answers_for_the_nodes_that_speak_to_it() {
        let applied = Applied::default();
        let visit = applied.enter("a");
        assert_eq!(applied.present(), nodes(&["a"]));
        drop(visit);
        assert_eq!(applied.present(), nodes(&["a"]), "it is on its way back");
        let long_ago = Instant::now()
            .checked_sub(RETURN_TIME * 2)
            .expect("a machine that is up");
        applied.said().present.get_mut("a").expect("known").last = long_ago;
        assert!(applied.present().is_empty(), "it speaks to another one");
    }

    #[test]
    fn what_another_server_has_heard_counts() {
        let applied = Applied::default();
        let mut all = applied.wait(9, nodes(&["a", "b"])).expect("nobody has");
        applied.report("a", 9);
        applied.hear("b", 9);
        assert!(all.try_recv().is_ok());
        applied.hear("a", 3);
        assert!(
            applied.said().behind(9, nodes(&["a"])).is_empty(),
            "nothing is taken back"
        );
    }

    #[test]
    fn a_node_that_has_said_nothing_is_behind() {
        let applied = Applied::default();
        applied.report("a", 9);
        let behind = applied.said().behind(9, nodes(&["a", "b"]));
        assert_eq!(behind, BTreeSet::from(["b".to_owned()]));
    }
}
