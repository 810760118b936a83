//! A few numbers about this agent, in the Prometheus text form.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters since the agent's start.
#[derive(Debug, Default)]
pub struct Metrics {
    attaches: Span,
    sandboxes: Span,
    containers: Span,
}

/// How often something was done, and how long it took together and at worst.
#[derive(Debug, Default)]
pub struct Span {
    count: AtomicU64,
    total_us: AtomicU64,
    worst_us: AtomicU64,
}

impl Span {
    pub fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(us, Ordering::Relaxed);
        self.worst_us.fetch_max(us, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Wiring a pod: link, address, routes, datapath.
    pub fn attaches(&self) -> &Span {
        &self.attaches
    }

    /// Making and starting a sandbox.
    pub fn sandboxes(&self) -> &Span {
        &self.sandboxes
    }

    /// Making and starting a container.
    pub fn containers(&self) -> &Span {
        &self.containers
    }

    /// The text that a scraper gets.
    pub fn text(&self) -> String {
        let spans = [
            ("pod_attach", "Pods put on the network.", &self.attaches),
            (
                "sandbox_start",
                "Sandboxes made and started.",
                &self.sandboxes,
            ),
            (
                "container_start",
                "Containers made and started.",
                &self.containers,
            ),
        ];
        let mut text = String::new();
        for (name, help, span) in spans {
            let name = format!("orchestrator_agent_{name}");
            let seconds = |us: &AtomicU64| us.load(Ordering::Relaxed) as f64 / 1e6;
            let count = span.count.load(Ordering::Relaxed);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name}_seconds {help}\n# TYPE {name}_seconds summary"
            );
            let _ = writeln!(text, "{name}_seconds_sum {}", seconds(&span.total_us));
            let _ = writeln!(text, "{name}_seconds_count {count}");
            let _ = writeln!(text, "# TYPE {name}_worst_seconds gauge");
            let _ = writeln!(text, "{name}_worst_seconds {}", seconds(&span.worst_us));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_adds_up_and_keeps_its_worst() {
        let metrics = Metrics::default();
        metrics.attaches().note(Duration::from_millis(2));
        metrics.attaches().note(Duration::from_millis(1));
        let text = metrics.text();
        assert!(
            text.contains("orchestrator_agent_pod_attach_seconds_sum 0.003\n"),
            "{text}"
        );
        assert!(
            text.contains("orchestrator_agent_pod_attach_seconds_count 2\n"),
            "{text}"
        );
        assert!(
            text.contains("orchestrator_agent_pod_attach_worst_seconds 0.002\n"),
            "{text}"
        );
    }
}
