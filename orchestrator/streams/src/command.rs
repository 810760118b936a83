//! exec and attach: the streams of one process.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use http::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use crate::negotiate::{COMMAND, Dialect, Refused, Version, negotiate};
use crate::session::{Session, Wire};
use crate::shell::{Closer, Link, Reader, Writer};
use crate::spdy::{Role, Spdy};
use crate::table::{Headers, Id, Table};
use crate::websocket::{Content, WebSocket};
use crate::{StreamError, status};

/// A SPDY client has so long to make its streams (kubelet, `StreamCreationTimeout`).
pub(crate) const CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// What a terminal's size may take as JSON.
const MAX_SIZE: usize = 4 * 1024;

const STDIN: Id = 0;
const STDOUT: Id = 1;
const STDERR: Id = 2;
const ERROR: Id = 3;
const RESIZE: Id = 4;

/// The streams that a request asks for by its query. With a terminal there is no stderr, whatever was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Characters and lines of the client's terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// The client of an exec or attach. Dropped without [`Command::finish`], the client is told an internal error.
pub struct Command {
    /// Ends when the client has finished it (half-close) or has gone.
    pub stdin: Option<Reader>,
    pub stdout: Option<Writer>,
    pub stderr: Option<Writer>,
    pub sizes: Sizes,
    error: Id,
    /// The error stream carries a Status as JSON.
    as_status: bool,
    closer: Closer,
    finished: bool,
}

/// Answers a request for exec or attach.
///
/// The future waits for the upgrade, and with SPDY for the client's streams (30 s).
///
/// # Errors
/// [`Refused`]: 400 without the headers of an upgrade, 403 when no protocol is known to both.
pub fn command<B>(
    request: &mut Request<B>,
    wants: Wants,
) -> Result<
    (
        Response<()>,
        BoxFuture<'static, Result<Command, StreamError>>,
    ),
    Refused,
> {
    let (response, starting) = command_over(request.method(), request.headers(), wants)?;
    let upgraded = hyper::upgrade::on(request).map_err(StreamError::Upgrade);
    let command = upgraded
        .and_then(move |transport| starting.start(TokioIo::new(transport)))
        .boxed();
    Ok((response, command))
}

/// A command whose client has its answer, before its streams are there.
pub struct StartingCommand {
    dialect: Dialect,
    wants: Wants,
}

/// The same as [`command`] for a server that gives its connections away itself: the answer, and what goes on over
/// the connection once that was sent.
///
/// # Errors
/// [`Refused`], as of [`command`].
pub fn command_over(
    method: &Method,
    headers: &HeaderMap,
    wants: Wants,
) -> Result<(Response<()>, StartingCommand), Refused> {
    if !wants.stdin && !wants.stdout && !wants.stderr {
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        return Err(Refused::bad_request(message));
    }
    let (dialect, response) = negotiate(method, headers, &COMMAND)?;
    Ok((response, StartingCommand { dialect, wants }))
}

impl StartingCommand {
    /// Waits with SPDY for the client's streams (30 s).
    pub async fn start<T>(self, transport: T) -> Result<Command, StreamError>
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        start(transport, self.dialect, self.wants).await
    }
}

/// Speaks `dialect` over any transport.
pub(crate) async fn start<T>(
    transport: T,
    dialect: Dialect,
    mut wants: Wants,
) -> Result<Command, StreamError>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    wants.stderr &= !wants.tty;
    match dialect {
        Dialect::Spdy(version) => spdy(transport, version, wants).await,
        Dialect::Channels { base64, version } => Ok(channels(transport, base64, version, wants)),
        // No list of protocols for commands has it.
        Dialect::Tunnel => Err(StreamError::Gone),
    }
}

fn channels<T>(transport: T, base64: bool, version: Version, wants: Wants) -> Command
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut socket = WebSocket::new(Content::Channels {
        base64,
        close_signal: version.close_signal,
    });
    // The client learns by an empty message on the first stream that it may read that all is there.
    let first = match wants {
        Wants { stdout: true, .. } => STDOUT,
        Wants { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    socket.greet(first, &[]);
    let mut table = Table::default();
    (STDIN..=RESIZE).for_each(|id| table.insert(id));
    let wire = Wire::WebSocket(Box::new(socket));
    let session = Session::new(wire, table, false, Instant::now());
    let closer = Closer::new(Link::start(session, transport));
    let found = [STDIN, STDOUT, STDERR, ERROR, RESIZE].map(Some);
    build(closer, found, wants, version.status)
}

async fn spdy<T>(transport: T, version: Version, wants: Wants) -> Result<Command, StreamError>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let wire = Wire::Spdy(Box::new(Spdy::new(Role::Server)));
    let session = Session::new(wire, Table::default(), false, Instant::now());
    let closer = Closer::new(Link::start(session, transport));
    let link = closer.link();
    let needed = [
        wants.stdin,
        wants.stdout,
        wants.stderr,
        true,
        wants.tty && version.sizes,
    ];
    let mut found = [None; 5];
    let deadline = Instant::now() + CREATION_TIMEOUT;
    while (0..5).any(|index| needed[index] && found[index].is_none()) {
        let accepted = timeout_at(deadline, link.accept()).await;
        let (id, headers) = accepted
            .map_err(|_| StreamError::Timeout)?
            .ok_or(StreamError::Gone)?;
        match place(&headers) {
            Some(index) if needed[index] && found[index].is_none() => found[index] = Some(id),
            // One that nobody uses ends at once, and harms nothing.
            _ => drop((link.reader(id), link.writer(id))),
        }
    }
    Ok(build(closer, found, wants, version.status))
}

/// The place of a stream in the order of the channels.
fn place(headers: &Headers) -> Option<usize> {
    const TYPES: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];
    let kind = headers.get("streamtype")?;
    TYPES.iter().position(|known| known == kind)
}

fn build(closer: Closer, found: [Option<Id>; 5], wants: Wants, as_status: bool) -> Command {
    let link = closer.link();
    let [stdin, stdout, stderr, error, resize] = found;
    // client-go closes its stdin once ours is closed, so that what comes in keeps its other direction; what
    // goes out is never read.
    let reader = |id: Option<Id>, wanted: bool| {
        let reader = id.map(|id| link.reader(id).keep(link.writer(id)))?;
        wanted.then_some(reader)
    };
    let writer = |id: Option<Id>, wanted: bool| {
        let (writer, _) = id.map(|id| (link.writer(id), link.reader(id)))?;
        wanted.then_some(writer)
    };
    let error = error.unwrap_or(ERROR);
    drop(link.reader(error));
    let sizes = Sizes {
        reader: reader(resize, wants.tty),
        buffer: Vec::new(),
    };
    Command {
        stdin: reader(stdin, wants.stdin),
        stdout: writer(stdout, wants.stdout),
        stderr: writer(stderr, wants.stderr),
        sizes,
        error,
        as_status,
        closer,
        finished: false,
    }
}

impl Command {
    /// Ends the connection: all that was written to stdout and stderr is sent, then the status (see
    /// [`status`]), then the client is given time to read it all. Does not wait for any of it.
    pub fn finish(mut self, status: &Value) {
        self.say(status);
    }

    /// Until the client has gone or has closed the connection. A client that has finished its stdin is there.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        self.closer.link().gone()
    }

    #[cfg(test)]
    pub(crate) fn link(&self) -> &Link {
        self.closer.link()
    }

    fn say(&mut self, status: &Value) {
        self.finished = true;
        let text = if self.as_status {
            status.to_string()
        } else if status["status"] == "Success" {
            String::new()
        } else {
            status["message"].as_str().unwrap_or_default().to_owned()
        };
        self.closer.close(Some((self.error, Bytes::from(text))));
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if !self.finished {
            self.say(&status::internal_error("the command's end is not known"));
        }
    }
}

/// The sizes that the client's terminal takes.
pub struct Sizes {
    reader: Option<Reader>,
    buffer: Vec<u8>,
}

impl Sizes {
    /// The next size; None when there is no terminal or no more sizes come. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        loop {
            match parse_size(&mut self.buffer) {
                Ok(Some(size)) => return Some(size),
                Ok(None) if self.buffer.len() < MAX_SIZE => {}
                _ => {
                    self.reader = None;
                    return None;
                }
            }
            let mut part = [0; 256];
            let read = self.reader.as_mut()?.read(&mut part).await;
            match read {
                Ok(length @ 1..) => self.buffer.extend_from_slice(&part[..length]),
                _ => self.reader = None,
            }
        }
    }
}

/// Takes the first size from a sequence of JSON objects; Ok(None) when more has to come.
fn parse_size(buffer: &mut Vec<u8>) -> Result<Option<TerminalSize>, ()> {
    let mut values = serde_json::Deserializer::from_slice(buffer).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) if !error.is_eof() => return Err(()),
        _ => return Ok(None),
    };
    let taken = values.byte_offset();
    buffer.drain(..taken);
    // Go's names are `Width` and `Height`, and its decoder takes any case.
    let field = |name: &str| {
        let fields = value.as_object()?;
        let (_, value) = fields
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        u16::try_from(value.as_u64()?).ok()
    };
    match (field("width"), field("height")) {
        (Some(width), Some(height)) => Ok(Some(TerminalSize { width, height })),
        _ => Err(()),
    }
}
