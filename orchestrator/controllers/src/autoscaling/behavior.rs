//! How fast an autoscaler may go: stabilisation windows and policies (KEP-853). Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior,
};

use super::usage::Tolerance;
use api::quantity::Quantity;

/// The tolerance where none is said.
const TOLERANCE: f64 = 0.1;
/// The stabilisation window of going down where none is said.
const DOWN_WINDOW_SECONDS: i32 = 300;

/// What an autoscaler remembers.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What was recommended when.
    pub recommended: Vec<(Timestamp, i64)>,
    /// By how much it went up and down when.
    pub ups: Vec<(Timestamp, i64)>,
    pub downs: Vec<(Timestamp, i64)>,
}

/// Nothing older is asked for by any window or policy that validates (an hour and half an hour).
const KEPT: SignedDuration = SignedDuration::from_hours(1);

impl History {
    /// Forgets what nobody asks for any more.
    pub fn prune(&mut self, now: Timestamp) {
        for list in [&mut self.recommended, &mut self.ups, &mut self.downs] {
            list.retain(|(at, _)| at.duration_until(now) <= KEPT);
        }
    }

    /// Notes that a number of replicas became another one.
    pub fn note(&mut self, from: i64, to: i64, now: Timestamp) {
        if to > from {
            self.ups.push((now, to - from));
        } else {
            self.downs.push((now, from - to));
        }
    }
}

/// The two directions with what is not said filled in.
pub struct Rules {
    up: Rule,
    down: Rule,
}

struct Rule {
    window: SignedDuration,
    tolerance: f64,
    select: String,
    policies: Vec<HPAScalingPolicy>,
}

/// A number of replicas, and the reason and message of a condition that says what held it.
pub type Held = (i64, &'static str, &'static str);

impl Rules {
    pub fn of(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Self {
        let percent = policy("Percent", 100);
        let up = behavior.and_then(|it| it.scale_up.as_ref());
        let down = behavior.and_then(|it| it.scale_down.as_ref());
        Self {
            up: rule(up, 0, &[policy("Pods", 4), percent.clone()]),
            down: rule(down, DOWN_WINDOW_SECONDS, &[percent]),
        }
    }

    pub fn tolerance(&self) -> Tolerance {
        Tolerance {
            up: self.up.tolerance,
            down: self.down.tolerance,
        }
    }

    /// The least that was recommended lately on the way up, the most on the way down.
    pub fn stabilized(
        &self,
        desired: i64,
        current: i64,
        history: &History,
        now: Timestamp,
    ) -> Held {
        let within = |window: SignedDuration| {
            let recent = history.recommended.iter();
            let recent = recent.filter(move |(at, _)| at.duration_until(now) < window);
            recent.map(|(_, replicas)| *replicas)
        };
        let lowest = within(self.up.window).fold(desired, i64::min);
        let highest = within(self.down.window).fold(desired, i64::max);
        let stable = current.max(lowest).min(highest);
        match stable {
            _ if stable == desired => (
                stable,
                "ReadyForNewScale",
                "recommended size matches current size",
            ),
            _ if desired > stable => (
                stable,
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            ),
            _ => (
                stable,
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            ),
        }
    }

    /// No faster than the policies say, and within the bounds. None of the held: it is within the range.
    pub fn limited(
        &self,
        desired: i64,
        current: i64,
        (least, most): (i64, i64),
        history: &History,
        now: Timestamp,
    ) -> (Held, bool) {
        let bounded = |bound: i64, limit: i64, words: [(&'static str, &'static str); 2]| {
            let (reason, message) = words[usize::from(bound != limit)];
            ((limit, reason, message), true)
        };
        if desired > current {
            let limit = self.up.limit(current, history, now, true).max(current);
            let allowed = limit.min(most);
            if desired > allowed {
                let words = [
                    (
                        "TooManyReplicas",
                        "the desired replica count is more than the maximum replica count",
                    ),
                    (
                        "ScaleUpLimit",
                        "the desired replica count is increasing faster than the maximum scale rate",
                    ),
                ];
                return bounded(most, allowed, words);
            }
        } else if desired < current {
            let limit = self.down.limit(current, history, now, false).min(current);
            let allowed = limit.max(least);
            if desired < allowed {
                let words = [
                    (
                        "TooFewReplicas",
                        "the desired replica count is less than the minimum replica count",
                    ),
                    (
                        "ScaleDownLimit",
                        "the desired replica count is decreasing faster than the maximum scale rate",
                    ),
                ];
                return bounded(least, allowed, words);
            }
        }
        let fine = "the desired count is within the acceptable range";
        ((desired, "DesiredWithinRange", fine), false)
    }
}

impl Rule {
    /// The furthest that the policies allow to go from here.
    fn limit(&self, current: i64, history: &History, now: Timestamp, up: bool) -> i64 {
        if self.select == "Disabled" {
            return current;
        }
        let limits = self.policies.iter().map(|policy| {
            let period = SignedDuration::from_secs(policy.period_seconds.into());
            let sum = |list: &[(Timestamp, i64)]| {
                let recent = list
                    .iter()
                    .filter(|(at, _)| at.duration_until(now) < period);
                recent.map(|(_, change)| change).sum::<i64>()
            };
            let start = current - sum(&history.ups) + sum(&history.downs);
            let value = i64::from(policy.value);
            match (policy.type_.as_str(), up) {
                ("Pods", true) => start.saturating_add(value),
                ("Pods", false) => start.saturating_sub(value),
                (_, true) => start.saturating_add(start.saturating_mul(value).div_ceil_to(100)),
                (_, false) => start.saturating_mul(100 - value).div_euclid(100),
            }
        });
        // Max is for the policy that changes the most.
        let furthest = (self.select != "Min") == up;
        let chosen = if furthest { limits.max() } else { limits.min() };
        chosen.unwrap_or(current)
    }
}

trait DivCeil {
    fn div_ceil_to(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    fn div_ceil_to(self, by: i64) -> i64 {
        self.div_euclid(by) + i64::from(self.rem_euclid(by) != 0)
    }
}

fn policy(kind: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy {
        type_: kind.to_owned(),
        value,
        period_seconds: 15,
    }
}

fn rule(said: Option<&HPAScalingRules>, window: i32, policies: &[HPAScalingPolicy]) -> Rule {
    let said = said.cloned().unwrap_or_default();
    let window = said.stabilization_window_seconds.unwrap_or(window);
    let tolerance = said.tolerance.and_then(|it| Quantity::parse(&it.0).ok());
    Rule {
        window: SignedDuration::from_secs(window.into()),
        tolerance: tolerance.map_or(TOLERANCE, |it| it.wide_millis() as f64 / 1000.0),
        select: said.select_policy.unwrap_or_else(|| "Max".to_owned()),
        policies: said
            .policies
            .filter(|policies| !policies.is_empty())
            .unwrap_or_else(|| policies.to_vec()),
    }
}
