//! port-forward: any number of connections to ports of one pod.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use http::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy, split};
use tokio::time::{Instant, timeout_at};

use crate::StreamError;
use crate::command::CREATION_TIMEOUT;
use crate::negotiate::{Dialect, FORWARD, Refused, negotiate};
use crate::session::{Session, Wire};
use crate::shell::{Closer, Link, Reader, Writer};
use crate::spdy::{Role, Spdy};
use crate::table::{Headers, Id, Table};
use crate::websocket::{Content, WebSocket};

/// Ports of a request over WebSocket: two channels each, and channel 255 is not free.
const MAX_PORTS: usize = 127;
/// With base64 a channel is one ASCII character from '0' on.
const MAX_PORTS_BASE64: usize = 39;
/// Bytes that are moved at once to a connection's target.
const PART: usize = 16 * 1024;
/// Connections of which only one of both streams is there.
const MAX_HALF_OPEN: usize = 256;

/// Answers a request for port-forward. `ports` are those of the query, which only WebSocket channels need.
///
/// # Errors
/// [`Refused`]: 400 without the headers of an upgrade or without ports, 403 when no protocol is known to both.
pub fn forward<B>(
    request: &mut Request<B>,
    ports: &[u16],
) -> Result<
    (
        Response<()>,
        BoxFuture<'static, Result<Connections, StreamError>>,
    ),
    Refused,
> {
    let (response, starting) = forward_over(request.method(), request.headers(), ports)?;
    let upgraded = hyper::upgrade::on(request).map_err(StreamError::Upgrade);
    let connections = upgraded
        .map_ok(move |transport| starting.start(TokioIo::new(transport)))
        .boxed();
    Ok((response, connections))
}

/// A port-forward whose client has its answer.
pub struct StartingForward {
    dialect: Dialect,
    ports: Vec<u16>,
}

/// The same as [`forward`] for a server that gives its connections away itself: the answer, and what goes on over
/// the connection once that was sent.
///
/// # Errors
/// [`Refused`], as of [`forward`].
pub fn forward_over(
    method: &Method,
    headers: &HeaderMap,
    ports: &[u16],
) -> Result<(Response<()>, StartingForward), Refused> {
    let (dialect, response) = negotiate(method, headers, &FORWARD)?;
    if let Dialect::Channels { base64, .. } = dialect {
        let most = if base64 { MAX_PORTS_BASE64 } else { MAX_PORTS };
        if ports.is_empty() {
            let message = "query parameter \"port\" is required";
            return Err(Refused::bad_request(message));
        }
        if ports.len() > most {
            return Err(Refused::bad_request(format!("more than {most} ports")));
        }
    }
    let ports = ports.to_vec();
    Ok((response, StartingForward { dialect, ports }))
}

impl StartingForward {
    pub fn start<T>(self, transport: T) -> Connections
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        start(transport, self.dialect, &self.ports)
    }
}

/// Speaks `dialect` over any transport.
pub(crate) fn start<T>(transport: T, dialect: Dialect, ports: &[u16]) -> Connections
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut table = Table::default();
    let spdy = || Box::new(Spdy::new(Role::Server));
    let wire = match dialect {
        Dialect::Spdy(_) => Wire::Spdy(spdy()),
        Dialect::Tunnel => Wire::WebSocket(Box::new(WebSocket::new(Content::Spdy(spdy())))),
        Dialect::Channels { base64, .. } => {
            let mut socket = WebSocket::new(Content::Channels {
                base64,
                close_signal: false,
            });
            // Both channels of each port begin with the port, in a message of its own.
            let twice = ports.iter().flat_map(|port| [port, port]);
            for (id, port) in (0..).zip(twice) {
                table.insert(id);
                socket.greet(id, &port.to_le_bytes());
            }
            Wire::WebSocket(Box::new(socket))
        }
    };
    let link = Link::start(Session::new(wire, table, true, Instant::now()), transport);
    let source = match dialect {
        Dialect::Channels { .. } => Source::Channels(channels(&link, ports)),
        Dialect::Spdy(_) | Dialect::Tunnel => Source::Streams(BTreeMap::new()),
    };
    Connections {
        closer: Closer::new(link),
        source,
    }
}

fn channels(link: &Link, ports: &[u16]) -> VecDeque<Connection> {
    let mut connections = VecDeque::new();
    for (index, port) in ports.iter().enumerate() {
        let data = 2 * index as Id;
        let [data, error] = [data, data + 1].map(|id| Half::new(link, id));
        connections.push_back(Connection::new(*port, data, error));
    }
    connections
}

/// The connections that a client forwards. Dropped, the client's connection ends with all of them.
pub struct Connections {
    closer: Closer,
    source: Source,
}

enum Source {
    /// One a port, from the beginning.
    Channels(VecDeque<Connection>),
    /// Streams that wait for the other of their connection, by request id.
    Streams(BTreeMap<String, Pair>),
}

struct Pair {
    data: Option<(u16, Half)>,
    error: Option<Half>,
    expires: Instant,
}

/// Both directions of one stream.
struct Half {
    reader: Reader,
    writer: Writer,
}

impl Half {
    fn new(link: &Link, id: Id) -> Self {
        Self {
            reader: link.reader(id),
            writer: link.writer(id),
        }
    }
}

impl Connections {
    /// The next connection; None when the client has gone, or over WebSocket when all have ended. May be
    /// dropped while it waits.
    pub async fn next(&mut self) -> Option<Connection> {
        let link = self.closer.link().clone();
        let pairs = match &mut self.source {
            Source::Channels(connections) => {
                if let Some(connection) = connections.pop_front() {
                    return Some(connection);
                }
                link.unused().await;
                return None;
            }
            Source::Streams(pairs) => pairs,
        };
        loop {
            let now = Instant::now();
            expire(pairs, now);
            let first = pairs.values().map(|pair| pair.expires).min();
            let deadline = first.unwrap_or(now + CREATION_TIMEOUT);
            let Ok(accepted) = timeout_at(deadline, link.accept()).await else {
                continue;
            };
            let (id, headers) = accepted?;
            let half = Half::new(&link, id);
            if let Some(connection) = pair_up(pairs, id, half, &headers) {
                return Some(connection);
            }
        }
    }

    /// Until the client has gone.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        self.closer.link().gone()
    }
}

/// Ends those that have waited too long.
fn expire(pairs: &mut BTreeMap<String, Pair>, now: Instant) {
    pairs.retain(|_, pair| {
        let expired = pair.expires <= now;
        if let (true, Some(error)) = (expired, &pair.error) {
            error.writer.finish(b"timed out waiting for streams");
        }
        !expired
    });
}

/// The connection that this stream makes whole. A stream without a port or type, or the second of its type, is
/// dropped, which resets it.
fn pair_up(
    pairs: &mut BTreeMap<String, Pair>,
    id: Id,
    half: Half,
    headers: &Headers,
) -> Option<Connection> {
    let port = headers.get("port")?.parse::<u16>().ok();
    let port = port.filter(|port| *port > 0)?;
    let is_data = match headers.get("streamtype")?.as_str() {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    // Clients without request ids make the error stream first and the data stream right after it.
    let first = if is_data { id.wrapping_sub(2) } else { id };
    let given = headers.get("requestid").filter(|given| !given.is_empty());
    let request = given.cloned().unwrap_or_else(|| first.to_string());
    if pairs.len() >= MAX_HALF_OPEN && !pairs.contains_key(&request) {
        return None;
    }
    let pair = pairs.entry(request.clone()).or_insert_with(|| Pair {
        data: None,
        error: None,
        expires: Instant::now() + CREATION_TIMEOUT,
    });
    let taken = if is_data {
        pair.data.is_some()
    } else {
        pair.error.is_some()
    };
    if taken {
        return None;
    }
    if is_data {
        pair.data = Some((port, half));
    } else {
        pair.error = Some(half);
    }
    if pair.data.is_none() || pair.error.is_none() {
        return None;
    }
    let pair = pairs.remove(&request)?;
    let ((port, data), error) = (pair.data?, pair.error?);
    Some(Connection::new(port, data, error))
}

/// One connection of the client. Dropped, both its streams end; what was written is still sent.
pub struct Connection {
    pub port: u16,
    /// The bytes of the connection. A shutdown tells the client that nothing more comes.
    pub data: Data,
    /// Says why the connection could not be made or has failed.
    pub error: ErrorStream,
}

impl Connection {
    fn new(port: u16, data: Half, error: Half) -> Self {
        let Half { reader, writer } = data;
        Self {
            port,
            data: Data { reader, writer },
            error: ErrorStream {
                writer: error.writer,
            },
        }
    }

    /// Moves bytes both ways between the client and `target`, until the target sends nothing more. A client
    /// that has finished sending may still receive. A client that waits for the end of the error stream before
    /// it finishes (kubectl does) is not waited for.
    ///
    /// # Errors
    /// What reading from or writing to either has ended with; the client is told, where it is there.
    pub async fn relay<T>(self, target: T) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { data, error, port } = self;
        let Data {
            mut reader,
            mut writer,
        } = data;
        let (mut from_target, mut to_target) = split(target);
        let there = async {
            let mut part = vec![0; PART];
            loop {
                let length = reader.read(&mut part).await?;
                if length == 0 {
                    break;
                }
                // A target that takes no more may still have something to say.
                if to_target.write_all(&part[..length]).await.is_err() {
                    break;
                }
            }
            drop(reader);
            let _ = to_target.shutdown().await;
            std::future::pending::<io::Result<()>>().await
        };
        let back = async {
            copy(&mut from_target, &mut writer).await?;
            writer.shutdown().await
        };
        let result = tokio::select! {
            result = back => result,
            result = there => result,
        };
        if let Err(why) = &result {
            error.fail(&format!("error forwarding port {port}: {why}"));
        }
        result
    }
}

/// The bytes of a forwarded connection.
pub struct Data {
    reader: Reader,
    writer: Writer,
}

impl AsyncRead for Data {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, into)
    }
}

impl AsyncWrite for Data {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}

/// The stream on which the client hears what has gone wrong with a connection.
pub struct ErrorStream {
    writer: Writer,
}

impl ErrorStream {
    /// Ends the stream with that text, which kubectl prints after "an error occurred forwarding".
    pub fn fail(self, text: &str) {
        self.writer.finish(text.as_bytes());
    }
}
