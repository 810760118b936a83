//! Tells the cluster that the node lives: its lease every ten seconds (every second while `fence` asks for it), its status when it changes and every five minutes. A server that is away is tried again, for ever.

use std::collections::BTreeSet;
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

use super::fence::{FAST_LEASE, FAST_RENEWAL, Fence, is_fast};
use super::join::Membership;
use super::register::{self, Health, Listed, NodeFacts, Uncopied};
use super::running::Running;
use datapath::Addrs;
use sys::Shutdown;

/// Where nodes' leases are.
pub const NAMESPACE: &str = "kube-node-lease";
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How long the lease lasts.
const LEASE: Duration = Duration::from_secs(40);
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
    /// What the API lists of it: addresses that others have written are put right, extended resources copied.
    pub listed: watch::Receiver<Option<Listed>>,
    pub health: watch::Receiver<Health>,
    /// Which pods run: some want more of the lease.
    pub running: Arc<Running>,
    pub fence: Fence,
    /// The attached volumes that the node uses.
    pub in_use: watch::Receiver<BTreeSet<String>>,
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
        running,
        fence,
        mut in_use,
    } = news;
    let uid = watch::Sender::new(None);
    let keeper = Keeper::new(&client, &facts.name, &uid, (running, fence), &refused);
    let returned = keeper.returned.clone();
    let lease = tokio::spawn(keeper.run(shutdown.clone()));
    let mut node: Option<Node> = None;
    let mut retry = FIRST_RETRY;
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            // It was given up meanwhile, perhaps: its conditions say that nobody knows.
            () = returned.notified() => node = None,
            changed = health.changed() => if changed.is_err() { break },
            changed = addrs.changed() => if changed.is_err() { break },
            Ok(()) = in_use.changed() => {}
            changed = membership.changed() => {
                if changed.is_err() { break }
                // After a join the node's object may be a new one.
                node = None;
            }
            changed = listed.changed() => {
                if changed.is_err() { break }
                let seen = listed.borrow_and_update().clone();
                let is_wrong = seen.is_some_and(|it| it.is_wrong(facts.addrs));
                due = if is_wrong { due.min(Instant::now() + CORRECTION_PAUSE) } else { due };
                continue;
            }
            () = tokio::time::sleep_until(due) => {}
        }
        let now = health.borrow_and_update().clone();
        let member = membership.borrow_and_update().clone();
        facts.volumes_in_use.clone_from(&in_use.borrow_and_update());
        facts.addrs = member.named(*addrs.borrow_and_update());
        let lacks = uncopied(&listed);
        let told = tell(&client, &facts, (&now, &lacks), &mut node);
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(())) => {
                uid.send_replace(node.as_ref().and_then(|node| node.metadata.uid.clone()));
                retry = FIRST_RETRY;
                due = Instant::now() + STATUS_EVERY;
            }
            outcome => {
                if is_unauthorized(&outcome) {
                    refused.notify_one();
                }
                tracing::warn!(why = why(outcome), "the node's status was not written");
                node = None;
                due = Instant::now() + retry;
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
    lease.abort();
}

/// What of the capacity is to be copied.
fn uncopied(listed: &watch::Receiver<Option<Listed>>) -> Uncopied {
    let seen = listed.borrow();
    seen.as_ref()
        .map(|it| it.uncopied.clone())
        .unwrap_or_default()
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
    (health, uncopied): (&Health, &Uncopied),
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
    let written = register::write_status(client, facts, health, (&known, uncopied), now).await?;
    *node = Some(written);
    Ok(())
}

/// What renews the lease.
struct Keeper {
    api: Api<Lease>,
    name: String,
    /// The node's own, once it is known: the lease goes with the node.
    uid: watch::Receiver<Option<String>>,
    running: Arc<Running>,
    fence: Fence,
    refused: Arc<Notify>,
    /// The lease is renewed again after it was not.
    returned: Arc<Notify>,
}

impl Keeper {
    fn new(
        client: &Client,
        name: &str,
        uid: &watch::Sender<Option<String>>,
        (running, fence): (Arc<Running>, Fence),
        refused: &Arc<Notify>,
    ) -> Self {
        Self {
            api: Api::namespaced(client.clone(), NAMESPACE),
            name: name.to_owned(),
            uid: uid.subscribe(),
            running,
            fence,
            refused: refused.clone(),
            returned: Arc::default(),
        }
    }

    async fn run(self, shutdown: Shutdown) {
        let (mut retry, mut has_failed) = (FIRST_RETRY, false);
        loop {
            let asked = Instant::now();
            let is_fast = self.running.pods().values().any(|pod| is_fast(&pod.pod));
            let (lasts, every, timeout) = match is_fast {
                true => (FAST_LEASE, FAST_RENEWAL, FAST_RENEWAL * 2),
                false => (LEASE, RENEW_EVERY, PATIENCE),
            };
            let renewed = tokio::time::timeout(timeout, self.renew(lasts)).await;
            if is_unauthorized(&renewed) {
                self.fence.refused(asked);
                self.refused.notify_one();
            }
            let pause = if matches!(renewed, Ok(Ok(()))) {
                self.fence.renewed(asked);
                if std::mem::take(&mut has_failed) {
                    self.returned.notify_one();
                }
                retry = FIRST_RETRY;
                every
            } else {
                has_failed = true;
                let pause = retry.min(every);
                retry = (retry * 2).min(LAST_RETRY);
                pause
            };
            if shutdown.unless(self.pause(pause, is_fast)).await.is_none() {
                return;
            }
        }
    }

    /// Not longer than until the first pod comes that wants more of the lease.
    async fn pause(&self, pause: Duration, was_fast: bool) {
        let end = Instant::now() + pause;
        while Instant::now() < end {
            let look = end.min(Instant::now() + FAST_RENEWAL);
            tokio::time::sleep_until(look).await;
            let pods = self.running.pods();
            if !was_fast && pods.values().any(|pod| is_fast(&pod.pod)) {
                return;
            }
        }
    }

    /// Renews the lease; makes it when there is none, as after a restart of the server.
    async fn renew(&self, lasts: Duration) -> Result<(), kube::Error> {
        // Six digits: what Kubernetes' MicroTime has.
        let now = format!("{:.6}", Timestamp::now());
        let spec = json!({
            "holderIdentity": self.name,
            "leaseDurationSeconds": lasts.as_secs(),
            "renewTime": now,
        });
        let mut metadata = json!({});
        if let Some(uid) = &*self.uid.borrow() {
            metadata["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": uid}]);
        }
        let patch = Patch::Merge(json!({ "metadata": metadata, "spec": spec }));
        match self
            .api
            .patch(&self.name, &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
        metadata["name"] = json!(self.name);
        metadata["namespace"] = json!(NAMESPACE);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec,
        });
        let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
        let made = self.api.create(&PostParams::default(), &lease).await;
        made.map(drop)
    }
}
