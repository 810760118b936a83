//! The servers that share a store, as Leases in kube-system: each renews its own, and Service
//! default/kubernetes leads to those that do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::objects::WriteError;
use super::write::Writer;
use super::{State, bootstrap, reply};
use api::{ApiError, meta};
use store::Revision;

const NAMESPACE: &str = "kube-system";
/// Marks the Leases of API servers, as in Kubernetes (KEP-1965).
const IDENTITY: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");
/// A server that renews nothing for so long is gone: three times the interval of upkeep.
const LIFETIME: Duration = Duration::from_secs(30);

/// When each server's Lease was seen to change. No other server's clock is believed.
#[derive(Default)]
pub struct Servers(Mutex<BTreeMap<String, (Revision, Instant)>>);

impl Servers {
    /// Whether a Lease changed a short while ago, as far as this server has watched.
    fn is_alive(&self, name: &str, revision: Revision, now: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.entry(name.to_owned()).or_insert((revision, now));
        if last.0 != revision {
            *last = (revision, now);
        }
        now.duration_since(last.1) < LIFETIME
    }
}

/// Says that this server is there.
pub async fn renew(state: &State) -> Result<(), ApiError> {
    if !state.objects.store.is_shared() {
        return Ok(());
    }
    let now = Timestamp::now();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name(state), "namespace": NAMESPACE, "labels": {IDENTITY.0: IDENTITY.1}},
        "spec": {
            "holderIdentity": state.config.advertise.to_string(),
            "leaseDurationSeconds": LIFETIME.as_secs(),
            "renewTime": format!("{now:.6}"),
        },
    });
    bootstrap::ensure(state, leases()?, lease, true).await
}

/// Where the servers that are alive are reached, this one among them, in order.
pub fn alive(state: &State) -> Result<Vec<SocketAddr>, ApiError> {
    let own = state.config.advertise;
    let mut all = vec![own];
    if state.objects.store.is_shared() {
        let now = Instant::now();
        for lease in state.objects.cache.list(leases()?, Some(NAMESPACE)).1 {
            let value = reply::parse(&lease.bytes())?;
            let address = of(&value).filter(|_| {
                let name = meta::name(&value);
                state.servers.is_alive(name, lease.revision, now)
            });
            // A Service has one port, and an EndpointSlice one family.
            all.extend(
                address.filter(|it| it.port() == own.port() && it.is_ipv4() == own.is_ipv4()),
            );
        }
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Says that this server is going. The others see it at their next upkeep.
pub async fn leave(state: &State) -> Result<(), ApiError> {
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
        let (servers, start) = (Servers::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(servers.is_alive("a", 7, at(0)));
        assert!(servers.is_alive("a", 7, at(29)));
        assert!(!servers.is_alive("a", 7, at(31)));
        assert!(servers.is_alive("a", 8, at(32)));
    }
}
