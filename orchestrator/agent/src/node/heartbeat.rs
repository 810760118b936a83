//! Tells the cluster that the node lives: its lease every ten seconds, its status when it changes and every five minutes. A server that is away is tried again, for ever.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::join::Membership;
use super::register::{self, Health, NodeFacts};
use datapath::Addrs;
use sys::Shutdown;

/// Where nodes' leases are.
pub const NAMESPACE: &str = "kube-node-lease";
const RENEW_EVERY: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
const STATUS_EVERY: Duration = Duration::from_secs(300);

/// From another one's write of the node's addresses to the node's own: whoever writes them again and again
/// keeps neither the server nor the node busy.
const CORRECTION_PAUSE: Duration = Duration::from_secs(1);

/// A server that hangs must not keep the node from trying again.
const PATIENCE: Duration = Duration::from_secs(8);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// What the node tells of itself, as it changes.
pub struct News {
    /// Its addresses; of these it tells those that its certificate names.
    pub addrs: watch::Receiver<Addrs>,
    pub membership: watch::Receiver<Membership>,
    /// Its addresses as the API lists them: what others have written there is put right.
    pub listed: watch::Receiver<Option<Addrs>>,
    pub health: watch::Receiver<Health>,
}

/// Registers the node and keeps it alive until shutdown. `refused` hears when the server does not take the
/// node's certificate, as when its Node was deleted.
pub async fn run(
    client: Client,
    mut facts: NodeFacts,
    news: News,
    refused: Arc<Notify>,
    shutdown: Shutdown,
) {
    let News {
        mut addrs,
        mut membership,
        mut listed,
        mut health,
    } = news;
    let lease = tokio::spawn(keep_lease(
        client.clone(),
        facts.name.clone(),
        refused.clone(),
        shutdown.clone(),
    ));
    let mut node: Option<Node> = None;
    let mut retry = FIRST_RETRY;
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            changed = health.changed() => if changed.is_err() { break },
            changed = addrs.changed() => if changed.is_err() { break },
            changed = membership.changed() => {
                if changed.is_err() { break }
                // After a join the node's object may be a new one.
                node = None;
            }
            changed = listed.changed() => {
                if changed.is_err() { break }
                let listed = *listed.borrow_and_update();
                if listed.is_some_and(|listed| listed != facts.addrs) {
                    due = due.min(Instant::now() + CORRECTION_PAUSE);
                }
                continue;
            }
            () = tokio::time::sleep_until(due) => {}
        }
        let now = health.borrow_and_update().clone();
        let named = membership
            .borrow_and_update()
            .named(*addrs.borrow_and_update());
        facts.addrs = named;
        match tokio::time::timeout(PATIENCE, tell(&client, &facts, &now, &mut node)).await {
            Ok(Ok(())) => {
                retry = FIRST_RETRY;
                due = Instant::now() + STATUS_EVERY;
            }
            outcome => {
                if is_unauthorized(&outcome) {
                    refused.notify_one();
                }
                let why = why(outcome);
                tracing::warn!(why, "the node's status was not written; trying again");
                node = None;
                due = Instant::now() + retry;
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
    lease.abort();
}

fn why<T>(outcome: Result<Result<T, kube::Error>, Elapsed>) -> String {
    match outcome {
        Ok(Err(error)) => error.to_string(),
        _ => "no answer".to_owned(),
    }
}

fn is_unauthorized<T>(outcome: &Result<Result<T, kube::Error>, Elapsed>) -> bool {
    matches!(outcome, Ok(Err(kube::Error::Api(status))) if status.code == 401)
}

/// Registers if that was not done since the last failure, then writes the status.
async fn tell(
    client: &Client,
    facts: &NodeFacts,
    health: &Health,
    node: &mut Option<Node>,
) -> Result<(), kube::Error> {
    if node.is_none() {
        *node = Some(register::register(client, facts).await?);
    }
    let status = node.as_ref().and_then(|node| node.status.as_ref());
    let known: Vec<NodeCondition> = status
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let now = Timestamp::now();
    let written = register::write_status(client, facts, health, &known, now).await?;
    *node = Some(written);
    Ok(())
}

async fn keep_lease(client: Client, name: String, refused: Arc<Notify>, shutdown: Shutdown) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut retry = FIRST_RETRY;
    loop {
        let renewed = tokio::time::timeout(PATIENCE, renew(&api, &name)).await;
        if is_unauthorized(&renewed) {
            refused.notify_one();
        }
        let pause = if matches!(renewed, Ok(Ok(()))) {
            retry = FIRST_RETRY;
            RENEW_EVERY
        } else {
            let pause = retry;
            retry = (retry * 2).min(LAST_RETRY);
            pause
        };
        let wait = tokio::time::sleep(pause);
        if shutdown.unless(wait).await.is_none() {
            return;
        }
    }
}

/// Renews the lease; makes it when there is none, as after a restart of the server.
async fn renew(api: &Api<Lease>, name: &str) -> Result<(), kube::Error> {
    // Six digits: what Kubernetes' MicroTime has.
    let now = format!("{:.6}", Timestamp::now());
    let spec = json!({
        "holderIdentity": name,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": now,
    });
    let patch = Patch::Merge(json!({ "spec": spec }));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": spec,
    });
    let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &lease).await.map(drop)
}
