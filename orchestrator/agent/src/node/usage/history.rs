//! From counters of CPU time to how much is used now. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

/// Over which time CPU is counted, at most.
const WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// A time that is shorter says nothing.
const SHORTEST: SignedDuration = SignedDuration::from_millis(100);

/// CPU in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Billionths of a CPU.
    pub nanocores: u64,
    /// Over which time.
    pub window_ms: u64,
}

/// The counters of the last seconds.
#[derive(Debug, Default)]
pub struct History(BTreeMap<String, VecDeque<(Timestamp, u64)>>);

impl History {
    /// Notes a counter, and says what is used since the oldest one within the window. One that is new has counted
    /// since its container started.
    pub fn rate(
        &mut self,
        key: &str,
        now: Timestamp,
        cpu_ns: u64,
        started_at: Option<Timestamp>,
    ) -> Rate {
        let points = self.0.entry(key.to_owned()).or_default();
        // Another counter under the same name, or a clock that was set back.
        if points
            .back()
            .is_some_and(|(at, ns)| *at >= now || *ns > cpu_ns)
        {
            points.clear();
        }
        if points.is_empty()
            && let Some(start) = started_at.filter(|start| *start < now)
        {
            points.push_back((start, 0));
        }
        points.push_back((now, cpu_ns));
        while points.len() > 2
            && points
                .get(1)
                .is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW)
        {
            points.pop_front();
        }
        let Some((since, from)) = points.front().copied() else {
            return Rate::default();
        };
        let window = now.duration_since(since);
        if window < SHORTEST {
            return Rate::default();
        }
        let used = u128::from(cpu_ns - from) * 1_000_000_000;
        let nanos = u128::try_from(window.as_nanos()).unwrap_or(u128::MAX);
        Rate {
            nanocores: u64::try_from(used / nanos).unwrap_or(u64::MAX),
            window_ms: u64::try_from(window.as_millis()).unwrap_or_default(),
        }
    }

    pub fn retain(&mut self, keys: &BTreeSet<&str>) {
        self.0.retain(|key, _| keys.contains(&**key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).expect("in range")
    }

    #[test]
    fn a_container_is_measured_from_its_start_then_over_ten_seconds() {
        let mut history = History::default();
        let mut rate = |ms: i64, cpu_ms: u64| {
            let rate = history.rate("c", at(ms), cpu_ms * 1_000_000, Some(at(0)));
            (rate.nanocores / 1_000_000, rate.window_ms)
        };
        assert_eq!(rate(500, 250), (500, 500), "half a CPU since its start");
        for second in 1..30 {
            rate(second * 1000, 250);
        }
        // It has slept for 29 s, and works now.
        assert_eq!(rate(30_000, 1250), (100, 10_000));
    }

    #[test]
    fn a_counter_that_starts_anew_is_no_giant() {
        let mut history = History::default();
        history.rate("c", at(0), 5_000_000_000, None);
        let rate = history.rate("c", at(1000), 1000, None);
        assert_eq!(rate, Rate::default());
        let rate = history.rate("c", at(500), 2000, None);
        assert_eq!(rate, Rate::default(), "the clock was set back");
    }

    #[test]
    fn the_history_keeps_no_more_than_its_window() {
        let mut history = History::default();
        for ms in 0..100_000 {
            history.rate("c", at(ms * 100), 0, None);
        }
        assert!(history.0["c"].len() <= 102, "{}", history.0["c"].len());
        history.retain(&BTreeSet::new());
        assert!(history.0.is_empty());
    }
}
