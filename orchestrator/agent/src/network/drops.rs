//! The newest dropped packets of this node, for `orchestrator datapath drops`.
//!
//! The kernel's buffer takes no new record while it is full, so somebody has to empty it: the agent,
//! which keeps the newest in memory. Whoever is root on the node gets them by a unix socket, as the
//! programs wrote them: one byte asks, [`FOLLOW`] for those to come as well.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::local_socket;
use datapath::events::{Drops, Record};
use sys::Shutdown;

/// Those that there are.
pub const ONCE: u8 = 0;
/// And then those to come.
pub const FOLLOW: u8 = 1;

/// How many are kept: some 700 KiB.
const KEPT: usize = 8192;
/// How often the buffer is emptied at most, so that a flood costs the node no processor. What finds no
/// room meanwhile is counted as lost.
const EVERY: Duration = Duration::from_millis(50);

/// How soon a shutdown is noticed where nothing is dropped.
const PATIENCE: Duration = Duration::from_millis(200);

/// Where the agent of a node hands them out.
pub fn socket(node: &str) -> PathBuf {
    local_socket::path(node, "drops")
}

/// The newest.
#[derive(Default)]
struct Kept {
    records: VecDeque<Record>,
    /// How many there were before those.
    first: u64,
}

impl Kept {
    fn keep(&mut self, record: Record) {
        if self.records.len() == KEPT {
            self.records.pop_front();
            self.first += 1;
        }
        self.records.push_back(record);
    }

    /// The bytes of those from number `next` on that are left, and the number after the last.
    fn since(&self, next: u64) -> (Vec<u8>, u64) {
        let known = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let news = self.records.iter().skip(known);
        let end = self.first + self.records.len() as u64;
        (news.flatten().copied().collect(), end)
    }
}

/// Empties the buffer and hands out what was in it until shutdown.
pub async fn run(drops: Drops, socket: PathBuf, shutdown: Shutdown) {
    let kept = watch::Sender::new(Kept::default());
    match local_socket::listen(&socket) {
        Ok(listener) => drop(tokio::spawn(serve(
            listener,
            kept.clone(),
            shutdown.clone(),
        ))),
        Err(error) => {
            let at = socket.display();
            tracing::warn!(%error, %at, "dropped packets are not handed out");
        }
    }
    let (to, ended) = (kept.clone(), shutdown.clone());
    let gathered = tokio::task::spawn_blocking(move || gather(drops, &to, &ended));
    if let Ok(Err(error)) = gathered.await {
        tracing::warn!(%error, "dropped packets are not gathered");
    }
    // One that is left behind answers nobody.
    let _ = std::fs::remove_file(socket);
}

/// Blocks.
fn gather(
    mut drops: Drops,
    kept: &watch::Sender<Kept>,
    shutdown: &Shutdown,
) -> Result<(), io::Error> {
    while !shutdown.is_requested() {
        if !drops.wait(PATIENCE)? {
            continue;
        }
        let records = std::iter::from_fn(|| drops.next_record());
        let records: Vec<Record> = records.take(KEPT).collect();
        kept.send_modify(|kept| records.into_iter().for_each(|record| kept.keep(record)));
        std::thread::sleep(EVERY);
    }
    Ok(())
}

async fn serve(listener: UnixListener, kept: watch::Sender<Kept>, shutdown: Shutdown) {
    while let Some(accepted) = shutdown.unless(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let (kept, shutdown) = (kept.subscribe(), shutdown.clone());
                // Who asked and has gone is no error.
                tokio::spawn(async move { shutdown.unless(hand_out(stream, kept)).await });
            }
            Err(error) => {
                tracing::warn!(%error, "nobody can ask for dropped packets now");
                tokio::time::sleep(EVERY).await;
            }
        }
    }
}

async fn hand_out(mut stream: UnixStream, mut kept: watch::Receiver<Kept>) -> io::Result<()> {
    let follow = stream.read_u8().await? == FOLLOW;
    let mut next = 0;
    loop {
        let (records, end) = kept.borrow_and_update().since(next);
        stream.write_all(&records).await?;
        next = end;
        if !follow {
            return Ok(());
        }
        tokio::select! {
            changed = kept.changed() => if changed.is_err() { return Ok(()) },
            gone = stream.read_u8() => return gone.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::events::RECORD;

    fn record(number: usize) -> Record {
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&number.to_ne_bytes());
        record
    }

    fn number(record: &[u8]) -> usize {
        usize::from_ne_bytes(record[..8].try_into().expect("8 bytes"))
    }

    #[test]
    fn the_newest_are_kept_and_who_has_fallen_behind_goes_on_with_what_is_left() {
        let mut kept = Kept::default();
        (0..KEPT + 10).for_each(|number| kept.keep(record(number)));
        for (next, first) in [(0, 10), (9, 10), (11, 11), (KEPT as u64 + 9, KEPT + 9)] {
            let (bytes, end) = kept.since(next);
            assert_eq!(number(&bytes), first);
            assert_eq!(bytes.len(), (KEPT + 10 - first) * RECORD);
            assert_eq!(end, KEPT as u64 + 10);
        }
        assert!(kept.since(KEPT as u64 + 10).0.is_empty());
    }

    #[tokio::test]
    async fn who_asks_once_gets_what_there_is_and_who_follows_what_comes_as_well() {
        let kept = watch::Sender::new(Kept::default());
        kept.send_modify(|kept| kept.keep(record(1)));
        for (asked, expected) in [(ONCE, &[1][..]), (FOLLOW, &[1, 2])] {
            let (mut here, there) = UnixStream::pair().expect("a pair");
            let handing = tokio::spawn(hand_out(there, kept.subscribe()));
            here.write_all(&[asked]).await.expect("asked");
            for expected_number in expected {
                let mut read = [0; RECORD];
                here.read_exact(&mut read).await.expect("a record");
                assert_eq!(number(&read), *expected_number);
                if asked == FOLLOW && *expected_number == 1 {
                    kept.send_modify(|kept| kept.keep(record(2)));
                }
            }
            if asked == FOLLOW {
                here.shutdown().await.expect("gone");
            }
            let ended = handing.await.expect("no panic");
            assert_eq!(ended.is_ok(), asked == ONCE);
            assert_eq!(here.read(&mut [0]).await.expect("the end"), 0);
        }
    }
}
