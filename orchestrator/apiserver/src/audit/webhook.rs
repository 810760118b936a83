//! The audit log as batches that a webhook gets (EventList of audit.k8s.io/v1). It never holds up a
//! request: what it does not take in time is dropped and counted.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Backend;
use crate::State;
use crate::outgoing::{self, ClientConfig};

// Kubernetes' defaults for batches.
/// Events of a batch.
const BATCH: usize = 400;
/// How long the first event of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(30);
/// Batches a second, on average, and those that may come at once.
const BATCHES_PER_SECOND: u32 = 10;
const BURST: u32 = 15;
/// How often a batch is sent, and the first pause; each further one is half as long again.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// How long the webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends what waits until nothing more will come. When it will not, each batch is tried once.
pub async fn run(state: Weak<State>, to: ClientConfig, backend: &Backend) {
    let mut pace = Pace::new(Instant::now());
    while let Some(mut batch) = backend.queue.take(BATCH).await {
        let full = Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH && !backend.queue.is_closed() {
            let more = backend.queue.take(BATCH - batch.len());
            match tokio::time::timeout_at(full, more).await {
                Ok(Some(lines)) => batch.extend(lines),
                Ok(None) | Err(_) => break,
            }
        }
        tokio::time::sleep_until(pace.next(Instant::now())).await;
        let body = event_list(&batch);
        let sent = send(&state, &to, body, backend).await;
        if let Err(why) = sent {
            backend.lost(batch.len() as u64, &why);
        }
        backend.queue.written();
    }
}

async fn send(
    state: &Weak<State>,
    to: &ClientConfig,
    body: Bytes,
    backend: &Backend,
) -> Result<(), String> {
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let state = state.upgrade().ok_or("the server is stopping")?;
        let sent = outgoing::post(&state, to, body.clone(), TIMEOUT).await;
        drop(state);
        match sent {
            Ok(()) => return Ok(()),
            Err(failure)
                if attempt == ATTEMPTS || !failure.may_pass || backend.queue.is_closed() =>
            {
                return Err(failure.why);
            }
            Err(failure) => tracing::warn!(why = failure.why, "audit events are sent again"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = backend.queue.closed() => {}
        }
        pause = pause * 3 / 2;
    }
    Ok(())
}

/// The lines of a batch as one document.
fn event_list(lines: &[Bytes]) -> Bytes {
    let mut body =
        br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
    }
    body.extend_from_slice(b"]}");
    body.into()
}

/// When the next batch may be sent.
struct Pace {
    next: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { next: now }
    }

    fn next(&mut self, now: Instant) -> Instant {
        let interval = Duration::from_secs(1) / BATCHES_PER_SECOND;
        let earliest = now.checked_sub(interval * BURST).unwrap_or(now);
        let at = self.next.max(earliest);
        self.next = at + interval;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_in_a_burst_and_then_at_their_pace() {
        let now = Instant::now();
        let mut pace = Pace::new(now - Duration::from_secs(60));
        let times: Vec<Instant> = (0..BURST + 3).map(|_| pace.next(now)).collect();
        let at_once = times.iter().filter(|at| **at <= now).count();
        assert_eq!(at_once, usize::try_from(BURST).expect("small") + 1);
        assert_eq!(times[17], now + Duration::from_millis(200));
    }

    #[test]
    fn a_batch_is_a_list_of_its_lines() {
        let lines = [
            Bytes::from_static(b"{\"a\":1}\n"),
            Bytes::from_static(b"{}\n"),
        ];
        let list: serde_json::Value = serde_json::from_slice(&event_list(&lines)).expect("JSON");
        assert_eq!(list["kind"], "EventList");
        assert_eq!(list["items"].to_string(), r#"[{"a":1},{}]"#);
    }
}
