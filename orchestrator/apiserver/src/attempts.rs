//! Who asked to join and what came of it, in the log: every success, and of refusals as many as a
//! log can bear. The token is in none of it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Response;

use super::reply;
use super::shares::Peer;
use api::ApiError;

/// One attempt.
pub struct Attempt<'a> {
    /// Where the request comes from; the connection knows.
    pub remote: Option<Peer>,
    /// The name that was asked for; empty where it is not known yet.
    pub node: &'a str,
    /// What was shown: a token's id or a certificate's user.
    pub by: &'a str,
}

/// Refusals are logged one by one up to this many in a row, then so many a second.
const BURST: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(1);

/// How many lines may be written still.
#[derive(Debug, Default)]
pub struct Log(Mutex<Allowance>);

#[derive(Debug, Default)]
struct Allowance {
    used: u32,
    since: Option<Instant>,
    /// Refusals that had no line of their own.
    untold: u64,
}

impl Log {
    /// Notes what came of an attempt; the answer to it.
    pub fn end(
        &self,
        attempt: &Attempt<'_>,
        end: Result<(Response<Body>, &str), ApiError>,
    ) -> Response<Body> {
        match end {
            Ok((answer, what)) => {
                self.joined(attempt, what);
                answer
            }
            Err(error) => {
                self.refused(attempt, &error);
                reply::error(&error)
            }
        }
    }

    fn joined(&self, attempt: &Attempt<'_>, what: &str) {
        let remote = attempt.remote.map(|remote| remote.0.to_string());
        let remote = remote.unwrap_or_default();
        tracing::info!(node = attempt.node, remote, by = attempt.by, "{what}");
    }

    fn refused(&self, attempt: &Attempt<'_>, error: &ApiError) {
        let untold = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now());
        if let Some(untold) = untold {
            let remote = attempt.remote.map(|remote| remote.0.to_string());
            let remote = remote.unwrap_or_default();
            // Whoever asks chooses the name: it is quoted and cut.
            let node: String = attempt.node.chars().take(64).collect();
            tracing::warn!(
                ?node, remote, by = attempt.by, code = error.code(), why = %error, untold,
                "a machine was refused to join"
            );
        }
    }
}

impl Allowance {
    /// Takes one line; the answer is how many had none since the last. None: there is no line left.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since).as_secs() / INTERVAL.as_secs();
        if passed > 0 {
            let passed = u32::try_from(passed).unwrap_or(u32::MAX);
            self.used = self.used.saturating_sub(passed);
            self.since = Some(now);
        }
        if self.used >= BURST {
            self.untold += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_does_not_fill_the_log() {
        let (mut lines, start) = (Allowance::default(), Instant::now());
        let told = (0..1000).filter_map(|_| lines.take(start)).count();
        assert_eq!(told, BURST as usize);
        let untold = lines.take(start + Duration::from_secs(1));
        assert_eq!(untold, Some(1000 - u64::from(BURST)));
        assert_eq!(lines.take(start + Duration::from_secs(1)), None);
        assert_eq!(lines.take(start + Duration::from_secs(60)), Some(1));
    }
}
