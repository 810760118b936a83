//! The end of the machine: pods are asked to end before it goes down, the system's own last (KEP-2000).
//!
//! ```text
//!  SIGTERM ─▶ is the machine going down? ──no──▶ the agent ends, pods go on
//!                     │ yes (systemd says "stopping")
//!                     ▼
//!  node not ready ─▶ ordinary pods end, at most grace − grace of critical ones ─▶ critical pods end ─▶ the agent ends
//! ```
//!
//! systemd stops the agent before the Engine, since the unit is ordered after it, and waits for as long as
//! `TimeoutStopSec` says: no inhibitor is needed.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::watch;
use tokio::time::Instant;

use super::pressure::keeper::is_critical;
use super::register::Health;
use super::running::{Eviction, Running};

/// How often it is looked whether pods have ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long systemd may take to say how it is.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// What kubelets write to pods that end with their node.
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";

/// How long pods have when the machine goes down; zero: they are left as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Farewell {
    pub grace: Duration,
    /// The part of it that is for critical pods alone.
    pub critical_grace: Duration,
}

impl Farewell {
    /// Whether pods have to be asked to end now.
    pub async fn is_due(&self) -> bool {
        !self.grace.is_zero() && is_going_down().await
    }

    /// Ends all pods, in order; ends when they have or the time is over.
    pub async fn say(&self, running: &Arc<Running>, health: &watch::Sender<Health>) {
        tracing::warn!(grace = ?self.grace, "the machine goes down: pods are ended");
        health.send_modify(|health| health.problems = vec!["node is shutting down".to_owned()]);
        let end = Instant::now() + self.grace;
        let ordinary = end.checked_sub(self.critical_grace).unwrap_or(end);
        for (critical, until) in [(false, ordinary), (true, end)] {
            ask(running, critical, until - Instant::now());
            while Instant::now() < until && is_any(running, critical) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

fn ask(running: &Running, critical: bool, grace: Duration) {
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    for (uid, pod) in running.pods() {
        if !pod.containers.is_empty() && is_critical(&pod.pod) == critical {
            running.evict(&uid, Eviction::shut_down(MESSAGE.to_owned(), grace));
        }
    }
}

fn is_any(running: &Running, critical: bool) -> bool {
    let pods = running.pods();
    let mut pods = pods.values().filter(|pod| !pod.containers.is_empty());
    pods.any(|pod| is_critical(&pod.pod) == critical)
}

/// What systemd says of the machine; without systemd nobody knows, and the agent is only restarted.
async fn is_going_down() -> bool {
    let asked = tokio::process::Command::new("systemctl")
        .arg("is-system-running")
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(ASK_TIMEOUT, asked).await {
        Ok(Ok(answer)) => answer.stdout.trim_ascii() == b"stopping",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::Notify;

    use super::*;
    use crate::node::running::{RunningContainer, RunningPod};

    fn running_pod(priority: i64) -> RunningPod {
        let pod = json!({"spec": {"containers": [], "priority": priority}});
        RunningPod {
            pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
            network: None,
            containers: vec![RunningContainer {
                id: "c".into(),
                name: "c".into(),
                image: String::new(),
                pid: 1,
                started_at: jiff::Timestamp::UNIX_EPOCH,
            }],
        }
    }

    #[tokio::test]
    async fn critical_pods_end_after_the_others() {
        let (running, wake) = (Arc::new(Running::default()), Arc::new(Notify::new()));
        for (uid, priority) in [("web", 0), ("dns", 2_000_000_000)] {
            running.put(uid, running_pod(priority), &wake);
        }
        let (health, heard) = watch::channel(Health::default());
        let farewell = Farewell {
            grace: Duration::from_secs(30),
            critical_grace: Duration::from_secs(10),
        };
        let (pods, told) = (running.clone(), health.clone());
        let saying = tokio::spawn(async move { farewell.say(&pods, &told).await });
        wake.notified().await;
        assert_eq!(heard.borrow().problems, ["node is shutting down"]);
        assert!(running.take_eviction("web").is_some());
        assert!(
            running.take_eviction("dns").is_none(),
            "its turn comes later"
        );
        running.forget("web");
        wake.notified().await;
        let eviction = running.take_eviction("dns").expect("now");
        assert_eq!(
            (eviction.reason, &*eviction.message),
            ("Terminated", MESSAGE)
        );
        let grace = eviction.most_grace.as_secs();
        assert!(grace > 20, "its own and what the others left: {grace}");
        running.forget("dns");
        saying.await.expect("it ends when nothing runs any more");
    }
}
