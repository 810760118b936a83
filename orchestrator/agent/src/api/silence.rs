//! When a server that has taken a connection is held for one that stands still: a process that is stopped, a machine
//! that hangs. Its kernel acknowledges what is sent, so nothing but the server's own silence shows it.
//!
//! ```text
//!  bytes ── bytes ─────── ping ── answer ─────── ping ─────────────────────┬─▶ silent
//!              └ interval ─┘└ delay ┘               └ grace + 4 × delay ────┘
//! ```

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// A server from which nothing came for so long is asked whether it is there (a ping of HTTP/2: 17 bytes, no request).
pub const PING_INTERVAL: Duration = Duration::from_millis(300);
/// How long the answer may take beyond what answers take.
const GRACE: Duration = Duration::from_millis(300);
/// Before anything came: servers answer new connections in turn, and thousands of agents may come at once.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// A timer that is so late was held up with this process: it says nothing of the server.
const LATE: Duration = Duration::from_millis(100);

/// The silence of one connection on which the server is asked.
pub struct Silence {
    timer: Pin<Box<Sleep>>,
    /// Of the last bytes.
    since: Instant,
    has_spoken: bool,
    /// How late answers are, on an average that forgets: a loaded server gets more time.
    delay: Duration,
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            timer: Box::pin(sleep(FIRST_WORD)),
            since: Instant::now(),
            has_spoken: false,
            delay: Duration::ZERO,
        }
    }
}

impl Silence {
    /// Bytes have come.
    pub fn end(&mut self) {
        let now = Instant::now();
        if self.has_spoken {
            let late = (now - self.since).saturating_sub(PING_INTERVAL);
            self.delay = (self.delay * 7 + late) / 8;
        }
        self.has_spoken = true;
        self.since = now;
        if self.due() < self.timer.deadline() {
            let due = self.due();
            self.timer.as_mut().reset(due);
        }
    }

    /// Begins anew: whoever is silent is not left.
    pub fn forgive(&mut self) {
        self.since = Instant::now();
        let due = self.due();
        self.timer.as_mut().reset(due);
    }

    /// Ready once the silence is too long. Nothing is there to be read when this is asked.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let now = Instant::now();
            if now > self.timer.deadline() + LATE {
                self.since = now;
            }
            let due = self.due();
            if now >= due {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
    }

    fn due(&self) -> Instant {
        let patience = match self.has_spoken {
            true => PING_INTERVAL + GRACE + self.delay * 4,
            false => FIRST_WORD,
        };
        self.since + patience
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;

    async fn how_long(silence: &mut Silence) -> Duration {
        let begun = Instant::now();
        poll_fn(|context| silence.poll(context)).await;
        begun.elapsed()
    }

    /// Bytes come so late after each ping.
    async fn answers(silence: &mut Silence, late: Duration) {
        for _ in 0..50 {
            advance(PING_INTERVAL + late).await;
            silence.end();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_a_ping_is_silent() {
        let mut silence = Silence::default();
        silence.end();
        let short = how_long(&mut silence).await;
        assert!(
            short >= PING_INTERVAL + GRACE && short < Duration::from_millis(700),
            "{short:?}"
        );
        silence.forgive();
        assert_eq!(
            how_long(&mut silence).await,
            short,
            "it is waited for once more"
        );
        let mut handshake = Silence::default();
        assert!(how_long(&mut handshake).await >= FIRST_WORD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_slow_gets_more_time() {
        let mut silence = Silence::default();
        answers(&mut silence, Duration::from_millis(200)).await;
        assert!(how_long(&mut silence).await > Duration::from_secs(1));
        answers(&mut silence, Duration::ZERO).await;
        assert!(how_long(&mut silence).await < Duration::from_millis(700));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_was_held_up_itself_waits_once_more() {
        let mut silence = Silence::default();
        silence.end();
        // Nobody polls: as a process that gets no time.
        advance(Duration::from_secs(10)).await;
        let waited = how_long(&mut silence).await;
        assert!(waited >= PING_INTERVAL + GRACE, "{waited:?}");
    }
}
