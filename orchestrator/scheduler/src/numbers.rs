//! What is counted of the scheduler's decisions, under Kubernetes' names.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Since the server's start. Clones are the same.
#[derive(Clone, Debug)]
pub struct Numbers {
    attempts: Family<Attempt, Counter>,
    took: Family<Attempt, Histogram>,
    pending: Family<Place, Gauge>,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    Scheduled,
    Unschedulable,
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    result: Ending,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    queue: &'static str,
}

impl EncodeLabelValue for Ending {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> std::fmt::Result {
        let word = match self {
            Self::Scheduled => "scheduled",
            Self::Unschedulable => "unschedulable",
            Self::Error => "error",
        };
        EncodeLabelValue::encode(&word, encoder)
    }
}

impl Default for Numbers {
    fn default() -> Self {
        // 0.1 ms to 6.5 s.
        let seconds = || Histogram::new(exponential_buckets(0.0001, 2.0, 17));
        Self {
            attempts: Family::default(),
            took: Family::new_with_constructor(seconds),
            pending: Family::default(),
        }
    }
}

impl Numbers {
    pub fn register(&self, registry: &mut Registry) {
        let help = "Decisions by what came of them";
        registry.register("scheduler_schedule_attempts", help, self.attempts.clone());
        let help = "From the decision to the answer to its binding";
        registry.register(
            "scheduler_scheduling_attempt_duration_seconds",
            help,
            self.took.clone(),
        );
        let help = "Pods that wait for a node, by the queue that they are in";
        registry.register("scheduler_pending_pods", help, self.pending.clone());
    }

    pub(crate) fn attempted(&self, result: Ending, took: Duration) {
        let attempt = Attempt { result };
        self.attempts.get_or_create(&attempt).inc();
        self.took
            .get_or_create(&attempt)
            .observe(took.as_secs_f64());
    }

    /// So many pods are in each queue.
    pub(crate) fn waiting(&self, queues: [(&'static str, usize); 3]) {
        for (queue, pods) in queues {
            let pods = i64::try_from(pods).unwrap_or(i64::MAX);
            self.pending.get_or_create(&Place { queue }).set(pods);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_and_queues_have_kubernetes_names() {
        let numbers = Numbers::default();
        numbers.attempted(Ending::Scheduled, Duration::from_millis(2));
        numbers.waiting([("active", 3), ("backoff", 0), ("unschedulable", 1)]);
        let mut registry = Registry::default();
        numbers.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a text");
        for line in [
            "scheduler_schedule_attempts_total{result=\"scheduled\"} 1",
            "scheduler_scheduling_attempt_duration_seconds_count{result=\"scheduled\"} 1",
            "scheduler_pending_pods{queue=\"active\"} 3",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
        }
    }
}
