//! How long to wait before trying again: containers, images, anything that failed. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::runtime::{Container, Exit};

const FIRST: i64 = 10;
const LONGEST: i64 = 300;

/// A container that lived this long has earned a fresh start.
const HEALTHY_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// When a container that ended may start again, and the level that its next attempt carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    pub at: Timestamp,
    pub level: u32,
    pub delay: SignedDuration,
}

/// The restart that follows an exit: at once after the first, then 10 s doubling to five minutes.
pub fn restart(container: &Container, exit: &Exit) -> Restart {
    let lived = exit.finished_at.duration_since(exit.started_at);
    let level = if lived >= HEALTHY_AFTER {
        1
    } else {
        container.identity.level.saturating_add(1)
    };
    let delay = match level {
        0 | 1 => SignedDuration::ZERO,
        failures => delay(failures - 1),
    };
    Restart {
        at: exit.finished_at + delay,
        level,
        delay,
    }
}

/// The pause after that many failures in a row (one is the first): 10 s doubling to five minutes.
pub fn delay(failures: u32) -> SignedDuration {
    let doublings = failures.saturating_sub(1).min(10);
    SignedDuration::from_secs((FIRST << doublings).min(LONGEST))
}

/// The pause after that many failures of the node's own steps (a sandbox, a wire): 1 s doubling to
/// a minute. They are the node's fault, and it mends sooner than a pod's own.
pub fn short_delay(failures: u32) -> SignedDuration {
    let doublings = failures.saturating_sub(1).min(10);
    SignedDuration::from_secs((1 << doublings).min(60))
}

/// Go's way to write a duration, as Kubernetes' messages have it: `10s`, `2m40s`.
pub fn text(delay: SignedDuration) -> String {
    let seconds = delay.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_five_minutes() {
        let seconds: Vec<i64> = (1..8).map(|failures| delay(failures).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(delay(u32::MAX).as_secs(), 300);
    }

    #[test]
    fn durations_read_like_kubernetes_messages() {
        assert_eq!(text(SignedDuration::from_secs(10)), "10s");
        assert_eq!(text(SignedDuration::from_secs(160)), "2m40s");
    }
}
