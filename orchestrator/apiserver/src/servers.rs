//! The servers that share a store, as Leases in kube-system: each renews its own, and Service
//! default/kubernetes leads to those that do.
//!
//! ```text
//!  told to stop ─▶ /readyz 503, Lease gone, out of the endpoints ─▶ nodes have applied that ─▶ no connection is taken,
//!                                                                                             what is open ends
//! ```
//!
//! A server is alive while its Lease changes. That is counted in renewals of the one that looks, not in time: when
//! the store stands still nobody renews, and nobody is taken for dead.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::objects::{Current, WriteError};
use super::write::Writer;
use super::{State, applied, bootstrap, reply};
use api::{ApiError, meta};
use store::Revision;

const NAMESPACE: &str = "kube-system";
/// Marks the Leases of API servers, as in Kubernetes (KEP-1965).
const IDENTITY: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");
/// How often a server renews its Lease, and looks at those of the others.
const INTERVAL: Duration = Duration::from_secs(2);
/// A server is gone when this one has renewed so many times and the other has not.
const MISSED: u64 = 4;
/// The Lease of a server that is gone is removed after so many renewals, ten minutes: until then people see that it is
/// missing.
pub const REMOVED_AFTER: u64 = 300;

/// How long a server that leaves waits until that is known, and how often it looks.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
const LEAVE_PAUSE: Duration = Duration::from_millis(20);

/// When each server's Lease was seen to change. No other server's clock is believed.
#[derive(Default)]
pub struct Servers {
    seen: Mutex<Seen>,
    is_leaving: AtomicBool,
    /// Held while this server's Lease is written.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Seen {
    /// How often this server has renewed its own.
    renewals: u64,
    /// The revision of each Lease, and how often this server had renewed when it was new.
    leases: BTreeMap<String, (Revision, u64)>,
}

impl Servers {
    /// Whether a Lease changed a short while ago, as far as this server has watched.
    fn is_alive(&self, name: &str, revision: Revision) -> bool {
        self.missed(name, revision) < MISSED
    }

    /// How often this server has renewed its own Lease since that one was seen to change.
    fn missed(&self, name: &str, revision: Revision) -> u64 {
        let mut seen = self.seen();
        let now = seen.renewals;
        let last = seen
            .leases
            .entry(name.to_owned())
            .or_insert((revision, now));
        if last.0 != revision {
            *last = (revision, now);
        }
        now - last.1
    }

    fn renewed(&self) {
        self.seen().renewals += 1;
    }

    /// Its Lease is gone.
    fn forget(&self, name: &str) {
        self.seen().leases.remove(name);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this server was told to stop.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::SeqCst)
    }
}

/// Renews this server's Lease and has Service default/kubernetes lead to those that are alive, until the server stops.
pub fn start(state: &Arc<State>) {
    if !state.objects.store.is_shared() {
        return;
    }
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.restarting("servers", move || {
        let (state, shutdown) = (state.clone(), shutdown.clone());
        async move {
            let tick = || shutdown.unless(tokio::time::sleep(INTERVAL));
            while tick().await.is_some() {
                // The next try comes as soon: whoever says nothing for long is taken for dead.
                if let Err(error) = tend(&state).await {
                    tracing::warn!(%error, "the other servers do not hear of this one");
                }
            }
            remove(&state).await
        }
    });
}

/// One renewal, and what it shows of the others.
pub async fn tend(state: &State) -> Result<(), ApiError> {
    renew(state).await?;
    bootstrap::lead_to_servers(state).await?;
    remove_expired(state).await
}

/// Says that this server is there.
pub async fn renew(state: &State) -> Result<(), ApiError> {
    let _turn = state.servers.turn.lock().await;
    if !state.objects.store.is_shared() || state.servers.is_leaving() {
        return Ok(());
    }
    let now = Timestamp::now();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name(state), "namespace": NAMESPACE, "labels": {IDENTITY.0: IDENTITY.1}},
        "spec": {
            "holderIdentity": state.config.advertise.to_string(),
            "leaseDurationSeconds": INTERVAL.as_secs() * MISSED,
            "renewTime": format!("{now:.6}"),
        },
    });
    bootstrap::ensure(state, leases()?, lease, true).await?;
    state.servers.renewed();
    Ok(())
}

/// Where the servers that are alive are reached, this one among them until it leaves, in order.
pub fn alive(state: &State) -> Result<Vec<SocketAddr>, ApiError> {
    let own = state.config.advertise;
    let mut all = Vec::new();
    if state.objects.store.is_shared() {
        for lease in state.objects.cache.list(leases()?, Some(NAMESPACE)).1 {
            let value = reply::parse(&lease.bytes())?;
            let address = of(&value).filter(|_| {
                let name = meta::name(&value);
                state.servers.is_alive(name, lease.revision)
            });
            // A Service has one port, and an EndpointSlice one family.
            all.extend(
                address.filter(|it| it.port() == own.port() && it.is_ipv4() == own.is_ipv4()),
            );
        }
    }
    all.retain(|it| *it != own);
    // The last one answers to its end.
    if !state.servers.is_leaving() || all.is_empty() {
        all.push(own);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Removes the Leases of servers that have been gone for long. One that comes back makes its own again.
async fn remove_expired(state: &State) -> Result<(), ApiError> {
    let leases = leases()?;
    for lease in state.objects.cache.list(leases, Some(NAMESPACE)).1 {
        let name = lease.name();
        let is_expired = of(&reply::parse(&lease.bytes())?).is_some()
            && state.servers.missed(name, lease.revision) >= REMOVED_AFTER;
        if !is_expired {
            continue;
        }
        match Writer::server(state, leases)
            .remove(&Current::of(&lease)?)
            .await
        {
            Ok(()) => state.servers.forget(name),
            // It is renewed again, or another server was quicker.
            Err(WriteError::Changed) => {}
            Err(WriteError::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Has clients go to the other servers, while this one still answers: before it closes.
pub async fn leave(state: &State) {
    if !state.objects.store.is_shared() {
        return;
    }
    state.servers.is_leaving.store(true, Ordering::SeqCst);
    let left = tokio::time::timeout(LEAVE_TIMEOUT, async {
        remove(state).await?;
        loop {
            bootstrap::lead_to_servers(state).await?;
            // Another server may have written them at the same time, and not have known.
            let Some(revision) = bootstrap::led_elsewhere(state)? else {
                tokio::time::sleep(LEAVE_PAUSE).await;
                continue;
            };
            return match revision {
                0 => Ok(Default::default()),
                revision => applied::by_all(state, revision, LEAVE_TIMEOUT).await,
            };
        }
    });
    match left.await {
        Ok(Ok(behind)) if behind.is_empty() => {}
        Ok(Ok(behind)) => tracing::warn!(?behind, "nodes lead to this server still"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the other servers do not hear that this one goes")
        }
        Err(_) => tracing::warn!("some nodes may lead to this server still"),
    }
}

/// Takes this server's Lease away. The others see it when they look.
async fn remove(state: &State) -> Result<(), ApiError> {
    let _turn = state.servers.turn.lock().await;
    if !state.objects.store.is_shared() {
        return Ok(());
    }
    let leases = leases()?;
    let Ok(current) = state.objects.current(leases, NAMESPACE, &name(state)) else {
        return Ok(());
    };
    match Writer::server(state, leases).remove(&current).await {
        Ok(()) | Err(WriteError::Changed) => Ok(()),
        Err(WriteError::Failed(error)) => Err(error),
    }
}

fn of(lease: &Value) -> Option<SocketAddr> {
    let label = &lease["metadata"]["labels"][IDENTITY.0];
    let holder = lease["spec"]["holderIdentity"].as_str()?;
    holder.parse().ok().filter(|_| *label == IDENTITY.1)
}

fn name(state: &State) -> String {
    let address = state.config.advertise.to_string();
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let address: String = address.chars().map(word).collect();
    format!("apiserver-{}", address.trim_matches('-'))
}

fn leases() -> Result<&'static std::sync::Arc<api::Resource>, ApiError> {
    bootstrap::find("coordination.k8s.io", "leases")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_alive_while_its_lease_changes() {
        let servers = Servers::default();
        assert!(servers.is_alive("a", 7));
        for _ in 1..MISSED {
            servers.renewed();
            assert!(servers.is_alive("a", 7));
        }
        servers.renewed();
        assert!(!servers.is_alive("a", 7));
        assert!(servers.is_alive("a", 8));
    }
}
