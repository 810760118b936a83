//! What a node that is cut off from the API server must end by itself, so that a pod never runs twice.
//!
//! ```text
//!  lease renewed (asked at t) ─▶ Fence ──┬─ a pod with fast failover runs and t is 5 s ago ─▶ it is killed
//!                                        └─ the server has said for 40 s that there is no such node ─▶ all pods end
//! ```
//!
//! A pod asks for fast failover by the annotation [`FAILOVER`]. While one runs, the lease is renewed every second and
//! says by its duration that it is kept: the node lifecycle controller replaces such pods two seconds after the
//! lease has ended, when this node has killed them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::running::{Eviction, Running, RunningContainer, RunningPod};
use super::static_pods::is_static;
use sys::Shutdown;

pub use api::annotations::{FAILOVER, FAILOVER_FAST};

/// How long a lease lasts that promises to fence: what `leaseDurationSeconds` says.
pub const FAST_LEASE: Duration = Duration::from_secs(5);
/// How often such a lease is renewed.
pub const FAST_RENEWAL: Duration = Duration::from_secs(1);
/// When the cluster has forgotten the pods of a node that was deleted (Kubernetes' quarantine of pod GC).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(40);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How this node stands with the API server. Clones share it.
#[derive(Clone)]
pub struct Fence(watch::Sender<Contact>);

/// The last words of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// When the request was sent that renewed the lease last.
    renewed: Instant,
    /// Since when the server answers that it knows no such node.
    refused: Option<Instant>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    KillFast,
    EndAll,
}

impl Default for Fence {
    fn default() -> Self {
        // A restarted agent has no whole lease left: it may have been cut off before.
        let now = Instant::now();
        let renewed = now.checked_sub(FAST_LEASE / 2).unwrap_or(now);
        Self(watch::Sender::new(Contact {
            renewed,
            refused: None,
        }))
    }
}

impl Fence {
    /// The lease was renewed by a request that was sent then.
    pub fn renewed(&self, asked: Instant) {
        self.0.send_replace(Contact {
            renewed: asked,
            refused: None,
        });
    }

    /// The server said that it knows no such node.
    pub fn refused(&self, now: Instant) {
        self.0.send_modify(|contact| {
            contact.refused.get_or_insert(now);
        });
    }

    /// Ends what must end, until shutdown.
    pub async fn keep(self, running: Arc<Running>, shutdown: Shutdown) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.unless(tick.tick()).await.is_some() {
            let contact = *self.0.borrow();
            match verdict(contact, Instant::now()) {
                Verdict::Nothing => {}
                Verdict::KillFast => end(&running, &running.pods(), is_fast),
                // Those of the node's own manifests are nobody else's.
                Verdict::EndAll => end(&running, &running.pods(), |pod| !is_static(pod)),
            }
        }
    }
}

fn verdict(contact: Contact, now: Instant) -> Verdict {
    let is_forgotten = contact
        .refused
        .is_some_and(|since| now.duration_since(since) >= FORGOTTEN_AFTER);
    if is_forgotten {
        return Verdict::EndAll;
    }
    match now.duration_since(contact.renewed) >= FAST_LEASE {
        true => Verdict::KillFast,
        false => Verdict::Nothing,
    }
}

/// Whether a pod must never run on two nodes, and be replaced at once when its node is silent.
pub fn is_fast(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let value = annotations.and_then(|all| all.get(FAILOVER));
    value.is_some_and(|value| value == FAILOVER_FAST)
}

/// Kills these pods at once, and has their workers start nothing more of them.
fn end(running: &Running, pods: &BTreeMap<String, RunningPod>, which: impl Fn(&Pod) -> bool) {
    let pods = pods
        .iter()
        .filter(|(_, pod)| !pod.containers.is_empty() && which(&pod.pod));
    for (uid, pod) in pods {
        let name = pod.pod.metadata.name.as_deref().unwrap_or_default();
        tracing::warn!(name, uid, "this node is cut off: the pod is ended here");
        let message = "The node was cut off from the API server, and the pod may run elsewhere.";
        running.evict(uid, Eviction::under_pressure(message.to_owned()));
        for container in &pod.containers {
            if let Err(error) = kill(container) {
                tracing::debug!(%error, uid, "a container had ended already");
            }
        }
    }
}

/// Kills the first process of a container, which takes all others of it with it. Numbers of processes are used
/// again: it is one of that very container, or nothing is done.
fn kill(container: &RunningContainer) -> std::io::Result<()> {
    let raw = i32::try_from(container.pid).map_err(std::io::Error::other)?;
    let pid = Pid::from_raw(raw).ok_or_else(|| std::io::Error::other("no process"))?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let cgroups = std::fs::read_to_string(format!("/proc/{raw}/cgroup"))?;
    if !cgroups.contains(&container.id) {
        return Err(std::io::Error::other("the process is another container's"));
    }
    Ok(pidfd_send_signal(process, Signal::KILL)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(annotations: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"annotations": annotations}})).expect("a pod")
    }

    #[test]
    fn only_a_pod_that_asks_for_it_is_fast() {
        assert!(is_fast(&pod(json!({FAILOVER: "fast"}))));
        assert!(!is_fast(&pod(json!({FAILOVER: "slow"}))));
        assert!(!is_fast(&Pod::default()));
    }

    #[test]
    fn a_node_that_cannot_renew_its_lease_kills_before_it_is_given_up() {
        let fence = Fence::default();
        let start = Instant::now();
        fence.renewed(start);
        let at = |seconds: u64| verdict(*fence.0.borrow(), start + Duration::from_secs(seconds));
        assert_eq!(at(4), Verdict::Nothing);
        assert_eq!(at(5), Verdict::KillFast);
        assert_eq!(
            at(500),
            Verdict::KillFast,
            "the server is away: other pods go on"
        );
    }

    #[test]
    fn a_deleted_node_ends_all_of_its_pods_once_the_cluster_has_forgotten_them() {
        let fence = Fence::default();
        let start = Instant::now();
        fence.refused(start);
        fence.refused(start + Duration::from_secs(30));
        let at = |seconds: u64| verdict(*fence.0.borrow(), start + Duration::from_secs(seconds));
        assert_eq!((at(39), at(40)), (Verdict::KillFast, Verdict::EndAll));
        fence.renewed(start + Duration::from_secs(45));
        assert_eq!(at(46), Verdict::Nothing, "it has joined again");
    }

    #[test]
    fn a_process_that_is_not_the_containers_is_not_killed() {
        let own = RunningContainer {
            id: "0123456789abcdef".into(),
            name: "c".into(),
            image: String::new(),
            pid: std::process::id(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let error = kill(&own).expect_err("it is this test");
        assert!(error.to_string().contains("another container's"), "{error}");
        for pid in [0, u32::MAX] {
            assert!(kill(&RunningContainer { pid, ..own.clone() }).is_err());
        }
    }
}
