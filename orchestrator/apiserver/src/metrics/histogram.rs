//! Durations, counted without a lock: an observation is two additions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

/// Upper bounds in seconds, as Kubernetes has them for requests; one more is without a bound.
const BOUNDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// Durations by their size.
#[derive(Debug, Default)]
pub struct Timer {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Timer {
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        // Most are in the first ones.
        let at = BOUNDS.iter().position(|bound| seconds <= *bound);
        self.buckets[at.unwrap_or(BOUNDS.len())].fetch_add(1, Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    /// Writes what was observed, unless that is nothing.
    pub fn encode(&self, mut to: MetricEncoder) -> std::fmt::Result {
        let counts = self.buckets.each_ref().map(|count| count.load(Relaxed));
        let all = counts.iter().sum();
        if all == 0 {
            return Ok(());
        }
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let sum = self.sum_ns.load(Relaxed) as f64 / 1e9;
        to.encode_histogram::<NoLabelSet>(sum, all, &buckets, None)
    }
}
