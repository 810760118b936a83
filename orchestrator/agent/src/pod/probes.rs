//! When to probe a container next and what its probes' outcomes mean. Pure: a machine that is told
//! the time and each outcome.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Template, Probe};

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// The word in messages.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
    /// The node could not ask the container: this says nothing about it.
    Unknown,
}

/// What is known after an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub started: bool,
    pub ready: bool,
    /// The probe that says the container must be restarted.
    pub failed: Option<Kind>,
}

/// The probes of one running container.
#[derive(Debug, Clone)]
pub struct Machine {
    lines: Vec<Line>,
    started: bool,
    ready: bool,
    failed: Option<Kind>,
}

#[derive(Debug, Clone)]
struct Line {
    kind: Kind,
    due: Timestamp,
    period: SignedDuration,
    success_threshold: i32,
    failure_threshold: i32,
    /// Outcomes in a row: positive for successes, negative for failures.
    run: i32,
}

impl Machine {
    pub fn new(template: &Template, started_at: Timestamp) -> Machine {
        let line = |kind: Kind, probe: &Option<Probe>| {
            let probe = probe.as_ref()?;
            let seconds = |value: Option<i32>| value.map(|s| SignedDuration::from_secs(s.into()));
            let at_least_one = |value: Option<i32>, default: i32| value.unwrap_or(default).max(1);
            Some(Line {
                kind,
                due: started_at + seconds(probe.initial_delay_seconds).unwrap_or_default(),
                period: SignedDuration::from_secs(at_least_one(probe.period_seconds, 10).into()),
                success_threshold: at_least_one(probe.success_threshold, 1),
                failure_threshold: at_least_one(probe.failure_threshold, 3),
                run: 0,
            })
        };
        let lines = [
            line(Kind::Startup, &template.startup_probe),
            line(Kind::Liveness, &template.liveness_probe),
            line(Kind::Readiness, &template.readiness_probe),
        ];
        Machine {
            lines: lines.into_iter().flatten().collect(),
            started: template.startup_probe.is_none(),
            ready: template.readiness_probe.is_none(),
            failed: None,
        }
    }

    /// Goes on where an earlier agent left off: a container that was ready stays so until a probe
    /// says otherwise.
    pub fn resume(mut self, started: bool, ready: bool) -> Machine {
        self.started |= started;
        self.ready |= ready;
        self
    }

    pub fn standing(&self) -> Standing {
        let ready = self.ready && self.started;
        Standing {
            started: self.started,
            ready,
            failed: self.failed,
        }
    }

    /// The next probe and when it is due; none when there is nothing left to probe.
    pub fn next(&self) -> Option<(Kind, Timestamp)> {
        let active = self.lines.iter().filter(|line| self.is_active(line.kind));
        active
            .map(|line| (line.kind, line.due))
            .min_by_key(|(kind, due)| (*due, *kind))
    }

    /// Takes the outcome of a probe that ended at `now`.
    pub fn take(&mut self, kind: Kind, outcome: Outcome, now: Timestamp) -> Standing {
        let Some(line) = self.lines.iter_mut().find(|line| line.kind == kind) else {
            return self.standing();
        };
        line.due = now + line.period;
        line.run = match (outcome, line.run) {
            (Outcome::Success, run) => run.max(0).saturating_add(1),
            (Outcome::Failure, run) => run.min(0).saturating_sub(1),
            (Outcome::Unknown, _) => return self.standing(),
        };
        let succeeded = line.run >= line.success_threshold;
        let failed = -line.run >= line.failure_threshold;
        match kind {
            Kind::Startup if succeeded => self.started = true,
            Kind::Readiness if succeeded => self.ready = true,
            Kind::Readiness if failed => self.ready = false,
            Kind::Startup | Kind::Liveness if failed => self.failed = Some(kind),
            _ => {}
        }
        self.standing()
    }

    /// Others wait for the startup probe, which ends with its first success.
    fn is_active(&self, kind: Kind) -> bool {
        self.failed.is_none() && (kind == Kind::Startup) != self.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(template: serde_json::Value) -> Machine {
        let template = serde_json::from_value(template).expect("a container");
        Machine::new(&template, at(0))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_container_without_probes_is_ready_at_once() {
        let machine = machine(serde_json::json!({"name": "c"}));
        assert_eq!(
            machine.standing(),
            Standing {
                started: true,
                ready: true,
                failed: None
            }
        );
        assert_eq!(machine.next(), None);
    }

    #[test]
    fn readiness_comes_and_goes_with_its_thresholds() {
        let mut machine = machine(serde_json::json!({"name": "c", "readinessProbe":
            {"initialDelaySeconds": 5, "periodSeconds": 2, "failureThreshold": 2}}));
        assert!(!machine.standing().ready);
        assert_eq!(machine.next(), Some((Kind::Readiness, at(5))));
        assert!(machine.take(Kind::Readiness, Outcome::Success, at(5)).ready);
        assert_eq!(machine.next(), Some((Kind::Readiness, at(7))));
        assert!(machine.take(Kind::Readiness, Outcome::Failure, at(7)).ready);
        assert!(!machine.take(Kind::Readiness, Outcome::Failure, at(9)).ready);
    }

    #[test]
    fn a_resumed_machine_stays_ready_until_its_threshold_of_failures() {
        let mut machine = machine(serde_json::json!({"name": "c",
            "startupProbe": {}, "readinessProbe": {"failureThreshold": 2}}))
        .resume(true, true);
        assert!(machine.standing().ready);
        assert_eq!(machine.next().map(|next| next.0), Some(Kind::Readiness));
        assert!(machine.take(Kind::Readiness, Outcome::Failure, at(1)).ready);
        assert!(!machine.take(Kind::Readiness, Outcome::Failure, at(2)).ready);
    }

    #[test]
    fn liveness_waits_for_the_startup_probe_and_asks_for_a_restart_after_its_threshold() {
        let mut machine = machine(serde_json::json!({"name": "c",
            "startupProbe": {"periodSeconds": 1}, "livenessProbe": {"failureThreshold": 2}}));
        assert_eq!(machine.next().map(|next| next.0), Some(Kind::Startup));
        assert!(machine.take(Kind::Startup, Outcome::Success, at(1)).started);
        assert_eq!(machine.next().map(|next| next.0), Some(Kind::Liveness));
        assert_eq!(
            machine.take(Kind::Liveness, Outcome::Failure, at(2)).failed,
            None
        );
        assert_eq!(
            machine
                .take(Kind::Liveness, Outcome::Failure, at(12))
                .failed,
            Some(Kind::Liveness)
        );
        assert_eq!(machine.next(), None);
    }

    #[test]
    fn what_the_node_could_not_ask_neither_restarts_a_container_nor_takes_it_out_of_its_services() {
        let mut machine = machine(serde_json::json!({"name": "c",
            "livenessProbe": {"failureThreshold": 1}, "readinessProbe": {"failureThreshold": 1}}));
        machine.take(Kind::Readiness, Outcome::Success, at(0));
        let before = machine.standing();
        for second in 1..100 {
            for kind in [Kind::Liveness, Kind::Readiness] {
                assert_eq!(machine.take(kind, Outcome::Unknown, at(second)), before);
            }
        }
        // The container is asked again, a period later.
        assert_eq!(machine.next(), Some((Kind::Liveness, at(109))));
    }

    #[test]
    fn failures_in_a_row_are_counted_across_what_the_node_could_not_ask() {
        let mut machine = machine(serde_json::json!({"name": "c",
            "livenessProbe": {"failureThreshold": 2}}));
        machine.take(Kind::Liveness, Outcome::Failure, at(0));
        machine.take(Kind::Liveness, Outcome::Unknown, at(10));
        let standing = machine.take(Kind::Liveness, Outcome::Failure, at(20));
        assert_eq!(standing.failed, Some(Kind::Liveness));
    }
}
