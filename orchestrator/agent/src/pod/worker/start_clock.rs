//! How long a pod's first start takes apart from the Engine: the agent's own share of it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::time::Instant;

use crate::node::static_pods::is_static;
use crate::pod::shape;

/// Runs from when the agent hears of a pod until the API knows that it runs.
///
/// Requests to the API, files, volumes and the network are the agent's share. Whatever takes its time by its own
/// nature ends the count: init containers, `postStart` hooks, pulls, and a step that failed and is tried again.
pub(super) struct StartClock {
    began: Instant,
    /// What was spent in requests to the Engine, in nanoseconds. A worker asks one thing after the other.
    engine_ns: AtomicU64,
    /// The agent's share so far, as of the end of the last stage, and what each stage took of it.
    staged_ns: AtomicU64,
    stages_ns: [AtomicU64; STAGES.len()],
    counts: AtomicBool,
}

/// What a worker is busy with while a pod starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The worker waits for its turn and looks what is to be done.
    Plan,
    /// The API is read, as far as that takes longer than the sandbox.
    Sandbox,
    /// Link, addresses and routes; the datapath.
    Network,
    /// Volumes, `/etc`, and what else a container is made of.
    Files,
    /// The status is written.
    Report,
}

/// The stages with their names in metrics.
const STAGES: [(Stage, &str); 5] = [
    (Stage::Plan, "plan"),
    (Stage::Sandbox, "sandbox"),
    (Stage::Network, "network"),
    (Stage::Files, "files"),
    (Stage::Report, "report"),
];

/// The agent's share of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    pub all: Duration,
    pub stages: [(&'static str, Duration); STAGES.len()],
}

impl StartClock {
    pub fn new(pod: &Pod) -> StartClock {
        let hooked = shape::main_templates(pod).iter().any(|it| {
            let lifecycle = it.lifecycle.as_ref();
            lifecycle.is_some_and(|lifecycle| lifecycle.post_start.is_some())
        });
        let inits = shape::init_templates(pod);
        // What an agent has told of has begun before; of a static pod that is not known.
        let told = pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref());
        let is_first = told.is_none() && !is_static(pod);
        StartClock {
            began: Instant::now(),
            engine_ns: AtomicU64::new(0),
            staged_ns: AtomicU64::new(0),
            stages_ns: Default::default(),
            counts: AtomicBool::new(is_first && !hooked && inits.is_empty()),
        }
    }

    /// Waits for an answer of the Engine.
    pub async fn engine<T>(&self, answer: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        let answer = answer.await;
        self.engine_ns
            .fetch_add(nanoseconds(asked.elapsed()), Ordering::Relaxed);
        answer
    }

    /// What the agent has spent since the last call went into this stage.
    pub fn stage(&self, stage: Stage) {
        let own = nanoseconds(self.own());
        let before = self.staged_ns.swap(own, Ordering::Relaxed);
        let took = own.saturating_sub(before);
        self.stages_ns[stage as usize].fetch_add(took, Ordering::Relaxed);
    }

    /// This start is not like others.
    pub fn disregard(&self) {
        self.counts.store(false, Ordering::Relaxed);
    }

    /// The agent's share, once, when the status that was written says that all containers run.
    pub fn ended(&self, written: &PodStatus) -> Option<Share> {
        let mut all = written.container_statuses.iter().flatten();
        let runs = all.all(|it| {
            it.state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
        });
        if !runs || written.phase.as_deref() != Some("Running") {
            return None;
        }
        self.stage(Stage::Report);
        let counts = self.counts.swap(false, Ordering::Relaxed);
        let stages = STAGES.map(|(stage, name)| {
            let took = self.stages_ns[stage as usize].load(Ordering::Relaxed);
            (name, Duration::from_nanos(took))
        });
        counts.then(|| Share {
            all: stages.iter().map(|(_, took)| took).sum(),
            stages,
        })
    }

    fn own(&self) -> Duration {
        let engine = Duration::from_nanos(self.engine_ns.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(engine)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn clock(spec: serde_json::Value) -> StartClock {
        let pod = serde_json::from_value(json!({ "spec": spec }));
        StartClock::new(&pod.expect("a pod"))
    }

    fn status(state: &str) -> PodStatus {
        let own = json!({ "name": "main", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": { state: {} } });
        let status = json!({ "phase": "Running", "containerStatuses": [own] });
        serde_json::from_value(status).expect("a status")
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_engine_takes_is_not_the_agents_share() {
        let clock = clock(json!({ "containers": [{ "name": "main" }] }));
        sleep(SECOND).await;
        clock.engine(sleep(5 * SECOND)).await;
        clock.stage(Stage::Network);
        assert_eq!(clock.ended(&status("waiting")), None);
        sleep(2 * SECOND).await;
        let own = clock.ended(&status("running")).expect("it runs");
        assert!((3 * SECOND..4 * SECOND).contains(&own.all), "{own:?}");
        let named = own.stages.map(|(name, took)| (name, took.as_secs()));
        let expected = [("plan", 0), ("sandbox", 0), ("network", 1), ("files", 0)];
        assert_eq!(named[..4], expected);
        assert_eq!(named[4], ("report", 2));
        assert_eq!(clock.ended(&status("running")), None, "twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_has_to_wait_by_its_nature_is_not_counted() {
        let hook = json!({ "postStart": { "sleep": { "seconds": 1 } } });
        for spec in [
            json!({ "containers": [{ "name": "main", "lifecycle": hook }] }),
            json!({ "containers": [{ "name": "main" }], "initContainers": [{ "name": "i" }] }),
        ] {
            assert_eq!(clock(spec).ended(&status("running")), None);
        }
        let pulled = clock(json!({ "containers": [{ "name": "main" }] }));
        pulled.disregard();
        assert_eq!(pulled.ended(&status("running")), None);
    }
}
