//! exec and attach: the API server's connection becomes the streams of a process of a container.
//!
//! ```text
//! client ═ API server ═ connection ─▶ streams::Command ─▶ stdin, sizes ─▶ Engine
//!                                            ▲ status          stdout, stderr │
//!                                            └────────────────────────────────┘
//! ```
//!
//! A client that vanishes ends the streams and not the process: a command reads the end of its stdin, as under a
//! kubelet, and a container that was attached to goes on.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use streams::{Command, TerminalSize, Wants, status};
use sys::front::Takeover;
use tokio::io::{AsyncWriteExt as _, copy};

use super::{Meant, Served, attempts, full, not_an_upgrade};
use crate::runtime::streams::{Output, Process, Size, Streams, Terminal};
use crate::runtime::{Container, Runtime};

/// The query: what is asked for, one pair after the other.
type Pairs = Query<Vec<(String, String)>>;

/// Runs a command in a container.
pub async fn exec<R: Runtime>(
    State(served): State<Served<R>>,
    Path((namespace, pod, name)): Path<(String, String, String)>,
    Query(pairs): Pairs,
    request: Request,
) -> Response {
    let meant = Meant::of(&namespace, &pod, request.headers());
    let container = match running(&*served.runtime, &meant, &name).await {
        Ok(container) => container,
        Err(refusal) => return refusal,
    };
    let words = pairs.iter().filter(|(key, _)| key == "command");
    let words: Vec<String> = words.map(|(_, word)| word.clone()).collect();
    if words.is_empty() {
        let why = "you must specify the command to run";
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    let (runtime, wants) = (served.runtime.clone(), wants(&pairs));
    take_over(&served, request, wants, async move |client| {
        run(&*runtime, &container.id, &words, wants, client).await;
    })
}

/// Attaches to the process of a container that runs. Whether it has a terminal was said when it was made.
pub async fn attach<R: Runtime>(
    State(served): State<Served<R>>,
    Path((namespace, pod, name)): Path<(String, String, String)>,
    Query(pairs): Pairs,
    request: Request,
) -> Response {
    let meant = Meant::of(&namespace, &pod, request.headers());
    let container = match running(&*served.runtime, &meant, &name).await {
        Ok(container) => container,
        Err(refusal) => return refusal,
    };
    let tty = match served.runtime.has_terminal(&container.id).await {
        Ok(tty) => tty,
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
        }
    };
    let runtime = served.runtime.clone();
    let (wants, streams) = of_attached(wants(&pairs), tty);
    take_over(&served, request, wants, async move |client| {
        follow(&*runtime, &container.id, streams, client).await;
    })
}

/// What a client gets and what the Engine is asked for. Whether there is a terminal is the container's to say;
/// whether the client tells of its sizes is the client's: one that has none itself makes no stream for them.
fn of_attached(asked: Wants, terminal: bool) -> (Wants, Streams) {
    let wants = Wants {
        stderr: asked.stderr && !terminal,
        ..asked
    };
    let streams = Streams {
        tty: terminal,
        ..streams_of(wants)
    };
    (wants, streams)
}

fn wants(pairs: &[(String, String)]) -> Wants {
    let is_set = |name: &str| {
        let mut pairs = pairs.iter();
        pairs.any(|(key, value)| key == name && matches!(value.as_str(), "true" | "1"))
    };
    let tty = is_set("tty");
    Wants {
        stdin: is_set("stdin"),
        stdout: is_set("stdout"),
        stderr: is_set("stderr") && !tty,
        tty,
    }
}

/// Answers with the switch of protocols, and does `work` with the client's streams then.
fn take_over<R: Runtime, F>(
    served: &Served<R>,
    request: Request,
    wants: Wants,
    work: impl FnOnce(Command) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(takeover) = request.extensions().get::<Takeover>().cloned() else {
        return not_an_upgrade();
    };
    let Ok(room) = served.streams.clone().try_acquire_owned() else {
        return full();
    };
    let (answer, starting) = match streams::command_over(request.method(), request.headers(), wants)
    {
        Ok(accepted) => accepted,
        Err(refused) => return refused.into_response().map(Body::from),
    };
    takeover.then(async move |connection| {
        let _room = room;
        match starting.start(connection).await {
            Ok(client) => {
                let gone = client.gone();
                work(client).await;
                // What was written last is still on its way.
                gone.await;
            }
            Err(error) => tracing::debug!(%error, "a stream did not begin"),
        }
    });
    answer.map(|()| Body::empty())
}

/// The running attempt of a container.
async fn running<R: Runtime>(
    runtime: &R,
    meant: &Meant<'_>,
    name: &str,
) -> Result<Container, Response> {
    let attempts = attempts(runtime, meant, name).await;
    let attempts = attempts
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response())?;
    let last = attempts.into_iter().rev().find(Container::is_running);
    last.ok_or_else(|| {
        let why = format!("container not found ({name:?})");
        (StatusCode::NOT_FOUND, why).into_response()
    })
}

async fn run<R: Runtime>(
    runtime: &R,
    container: &str,
    words: &[String],
    wants: Wants,
    mut client: Command,
) {
    let failed = |why: &dyn std::fmt::Display| {
        status::internal_error(&format!("error executing command in container: {why}"))
    };
    let (exec, process) = match runtime.run(container, words, streams_of(wants)).await {
        Ok(started) => started,
        Err(error) => return client.finish(&failed(&error)),
    };
    let ended = converse(runtime, Terminal::Command(&exec), process, &mut client).await;
    let end = match ended {
        Ended::Client => return,
        Ended::Failed(why) => failed(&why),
        Ended::Process => match runtime.exit_code(&exec).await {
            Ok(Some(code)) => status::exit_code(i32::try_from(code).unwrap_or(i32::MAX)),
            Ok(None) => failed(&"the exit code of the command is not known"),
            Err(error) => failed(&error),
        },
    };
    client.finish(&end);
}

async fn follow<R: Runtime>(runtime: &R, container: &str, streams: Streams, mut client: Command) {
    let failed = |why: &dyn std::fmt::Display| {
        status::internal_error(&format!("error attaching to container: {why}"))
    };
    let process = match runtime.attach(container, streams).await {
        Ok(process) => process,
        Err(error) => return client.finish(&failed(&error)),
    };
    let terminal = Terminal::Container(container);
    let end = match converse(runtime, terminal, process, &mut client).await {
        Ended::Client => return,
        Ended::Failed(why) => failed(&why),
        Ended::Process => status::success(),
    };
    client.finish(&end);
}

fn streams_of(wants: Wants) -> Streams {
    Streams {
        stdin: wants.stdin,
        stdout: wants.stdout,
        stderr: wants.stderr,
        tty: wants.tty,
    }
}

/// What has ended a conversation.
enum Ended {
    Process,
    Client,
    Failed(String),
}

/// Moves bytes both ways until the process has written its last, or the client is gone.
async fn converse<R: Runtime>(
    runtime: &R,
    terminal: Terminal<'_>,
    process: Process,
    client: &mut Command,
) -> Ended {
    let Process {
        mut input,
        mut output,
    } = process;
    let gone = client.gone();
    let stdin = client.stdin.take();
    let (mut stdout, mut stderr) = (client.stdout.take(), client.stderr.take());
    let reading = async move {
        let Some(mut stdin) = stdin else {
            // Held, so that it does not end.
            let _held = input;
            return std::future::pending::<Ended>().await;
        };
        // A process that reads no more does not end the conversation: it may have something to say.
        let _ = copy(&mut stdin, &mut input).await;
        let _ = input.shutdown().await;
        // What cannot be shut down, a pipe, ends with this.
        drop(input);
        std::future::pending::<Ended>().await
    };
    let sizes = &mut client.sizes;
    let resizing = async {
        while let Some(TerminalSize { width, height }) = sizes.next().await {
            let size = Size { width, height };
            if let Err(error) = runtime.resize(terminal, size).await {
                tracing::debug!(%error, "a terminal was not resized");
            }
        }
        std::future::pending::<Ended>().await
    };
    let writing = async {
        while let Some(piece) = output.next().await {
            let (to, piece) = match piece {
                Ok(Output::Stdout(piece)) => (&mut stdout, piece),
                Ok(Output::Stderr(piece)) => (&mut stderr, piece),
                Err(error) => return Ended::Failed(error.to_string()),
            };
            if let Some(to) = to
                && to.write_all(&piece).await.is_err()
            {
                return Ended::Client;
            }
        }
        Ended::Process
    };
    tokio::select! {
        ended = writing => ended,
        ended = reading => ended,
        ended = resizing => ended,
        () = gone => Ended::Client,
    }
}

/// Where the handlers of a node's streams find room: so many at once.
pub fn room() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(STREAMS))
}

/// Commands, attached containers and forwarding clients at once. Each is a connection of the server's.
const STREAMS: usize = 384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_a_terminal_makes_no_stream_for_sizes_whatever_the_container_has() {
        let asked = Wants {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let (wants, streams) = of_attached(asked, true);
        assert!(!wants.tty && !wants.stderr && streams.tty && !streams.stderr);
        let (wants, streams) = of_attached(asked, false);
        assert!(!wants.tty && wants.stderr && !streams.tty && streams.stderr);
        let (wants, streams) = of_attached(Wants { tty: true, ..asked }, true);
        assert!(wants.tty && streams.tty);
    }
}
