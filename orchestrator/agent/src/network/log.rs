//! The log of the datapath's decisions, for `orchestrator datapath log`.
//!
//! ```text
//! command ── filter, one line of JSON ──▶ agent: load the programs that log, put them to work
//!         ◀── "logging", then lines ─────
//!         ── gone, or stopped reading ──▶ agent: put the normal programs back
//! ```
//!
//! Root asks by a unix socket. One reader at a time: the programs have one filter. An agent that stops puts
//! the normal programs back as well, and one that was killed does so when it starts again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::feed::DatapathHandle;
use super::local_socket;
use datapath::log::Filter;
use sys::Shutdown;

/// The first line of an answer, when the programs are at work.
pub const LOGGING: &str = "logging";
/// The beginning of the only line of an answer that is a refusal.
pub const REFUSED: &str = "refused: ";

/// How long a question may be, in bytes, and how long it may take to arrive.
const QUESTION_BYTES: u64 = 4096;
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reader may take nothing before it counts as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a reader waits for its turn: the one before may be gone, and its programs not yet.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Where the agent of a node answers.
pub fn socket(node: &str) -> PathBuf {
    local_socket::path(node, "log")
}

/// What a session needs of the node.
#[derive(Clone)]
pub struct Source {
    pub node: String,
    pub pin_root: PathBuf,
    pub datapath: DatapathHandle,
}

/// Answers until shutdown.
pub async fn run(source: Source, socket: PathBuf, shutdown: Shutdown) {
    let listener = match local_socket::listen(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            let at = socket.display();
            tracing::warn!(%error, %at, "the datapath's log cannot be asked for");
            return;
        }
    };
    let only = Arc::new(Mutex::new(()));
    while let Some(accepted) = shutdown.unless(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let session = session(stream, source.clone(), only.clone());
                let shutdown = shutdown.clone();
                // At shutdown the owner of the datapath puts the normal programs back.
                tokio::spawn(async move { shutdown.unless(session).await });
            }
            Err(error) => {
                tracing::warn!(%error, "the datapath's log cannot be asked for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // One that is left behind answers nobody.
    let _ = std::fs::remove_file(socket);
}

async fn session(mut stream: UnixStream, source: Source, only: Arc<Mutex<()>>) {
    let ended = match timeout(TURN_TIMEOUT, only.lock()).await {
        Ok(_only) => converse(&mut stream, &source).await,
        Err(_) => Err("the log of this node is being read already".to_owned()),
    };
    if let Err(why) = ended {
        tracing::info!(why, "the datapath is not logged");
        let refusal = format!("{REFUSED}{}\n", why.replace('\n', " "));
        // The reader may have gone.
        let _ = timeout(WRITE_TIMEOUT, stream.write_all(refusal.as_bytes())).await;
    }
}

/// One reader from its question to its end; the error is for the reader.
async fn converse(stream: &mut UnixStream, source: &Source) -> Result<(), String> {
    let question = timeout(QUESTION_TIMEOUT, question(stream)).await;
    let filter = question
        .map_err(|_| "no question came".to_owned())?
        .map_err(|error| format!("the question does not read: {error}"))?;
    let (pin_root, node) = (source.pin_root.clone(), source.node.clone());
    let asked = filter.clone();
    let loading = move || datapath::load_log(&pin_root, &node, &asked);
    let loaded = tokio::task::spawn_blocking(loading).await;
    let (programs, records) = loaded
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let (mut lines, gathering) = records.split();
    let gathered = tokio::task::spawn_blocking(move || gathering.run());
    let begun = source.datapath.begin_log(programs).await;
    if begun.is_ok() {
        tracing::info!(?filter, "the datapath is logged");
        // It ends with the reader, whatever the error.
        let _ = pass_on(stream, &mut lines).await;
    }
    // First the programs, so that no more records come.
    let ended = source.datapath.end_log().await;
    drop(lines);
    if let Ok(Err(error)) = gathered.await {
        tracing::warn!(%error, "the datapath's log was not read to its end");
    }
    tracing::info!("the datapath is not logged any more");
    begun.and(ended)
}

async fn question(stream: &mut UnixStream) -> io::Result<Filter> {
    let mut line = String::new();
    let mut limited = BufReader::new(stream.take(QUESTION_BYTES));
    limited.read_line(&mut line).await?;
    serde_json::from_str(&line).map_err(io::Error::other)
}

/// Hands out lines until the reader goes, or takes nothing for too long.
async fn pass_on(stream: &mut UnixStream, lines: &mut Receiver<String>) -> io::Result<()> {
    let mut next = LOGGING.to_owned();
    loop {
        next.push('\n');
        timeout(WRITE_TIMEOUT, stream.write_all(next.as_bytes())).await??;
        next = tokio::select! {
            line = lines.recv() => match line {
                Some(line) => line,
                None => return Ok(()),
            },
            gone = stream.read_u8() => return gone.map(drop),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_handed_out_until_the_reader_goes() {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let (sender, mut lines) = tokio::sync::mpsc::channel(8);
        for line in ["a", "b"] {
            sender.send(line.to_owned()).await.expect("room");
        }
        let passing = tokio::spawn(async move { pass_on(&mut there, &mut lines).await });
        let mut read = BufReader::new(here).lines();
        for expected in [LOGGING, "a", "b"] {
            let line = read.next_line().await.expect("read");
            assert_eq!(line.as_deref(), Some(expected));
        }
        drop(read);
        assert!(passing.await.expect("no panic").is_err());
    }

    #[tokio::test]
    async fn a_question_is_one_short_line_of_json() {
        let cases = [
            (
                r#"{"pod":["10.100.1.5"],"to":null,"packets":true}"#.to_owned(),
                true,
            ),
            (r#"{"pod":["10.100.1.5"]}"#.to_owned(), false),
            (
                r#"{"pod":[],"to":null,"packets":true,"more":1}"#.to_owned(),
                false,
            ),
            (" ".repeat(2 * QUESTION_BYTES as usize), false),
        ];
        for (text, is_right) in cases {
            let (mut here, mut there) = UnixStream::pair().expect("a pair");
            let asking = tokio::spawn(async move {
                // Fails where the other side has read enough.
                let _ = here.write_all(format!("{text}\n").as_bytes()).await;
            });
            let read = question(&mut there).await;
            drop(there);
            asking.await.expect("no panic");
            assert_eq!(read.is_ok(), is_right, "{read:?}");
        }
    }
}
