//! The end of a pod without a lost connection: it leaves its Services, every Ready node says that it
//! has taken note, the connections that it has end, and only then is it asked to stop.
//!
//! A slice that says that an endpoint is terminating has a revision. The node that stops the pod asks the API
//! server to say when the datapath of each node has applied it, and the API server asks the nodes ([`nodes`]).
//! What it waits for and for how long is decided here and in `pod_plan`, purely; [`nodes`] and
//! [`connections`] only look.

pub mod connections;
pub mod endpoints;
pub mod nodes;

use jiff::{SignedDuration, Timestamp};

pub use nodes::{Nodes, report};

/// What an end may be put off for, at most.
pub const LIMIT: SignedDuration = SignedDuration::from_secs(2);

/// How far the end of a pod has come; remembered from the moment it was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    pub since: Timestamp,
    pub seen: Progress,
}

/// What was seen of a pod that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// No Ready node sends it new connections.
    pub left: bool,
    /// It has no connection from outside any more.
    pub idle: bool,
}

impl Progress {
    /// Of a pod that no Service names.
    pub const DONE: Progress = Progress {
        left: true,
        idle: true,
    };
}

/// Until when a pod may be waited for that is killed at `deadline`. The pod keeps half of its grace
/// for itself, be it ever so short.
pub fn until(since: Timestamp, deadline: Timestamp) -> Timestamp {
    let grace = deadline.duration_since(since);
    since + LIMIT.min(grace / 2)
}

/// What may be done with the pod now.
pub fn progress(drain: &Drain, now: Timestamp, deadline: Timestamp) -> Progress {
    if now >= until(drain.since, deadline) {
        Progress::DONE
    } else {
        drain.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).expect("in range")
    }

    #[test]
    fn an_end_is_put_off_for_two_seconds_or_half_of_the_grace() {
        assert_eq!(until(at(0), at(30_000)), at(2000));
        assert_eq!(until(at(0), at(4000)), at(2000));
        assert_eq!(until(at(0), at(1000)), at(500));
        assert_eq!(until(at(5000), at(5000)), at(5000));
    }

    #[test]
    fn what_is_not_seen_in_time_is_not_waited_for() {
        let drain = Drain {
            since: at(0),
            seen: Progress::default(),
        };
        assert_eq!(progress(&drain, at(1999), at(30_000)), Progress::default());
        assert_eq!(progress(&drain, at(2000), at(30_000)), Progress::DONE);
    }
}
