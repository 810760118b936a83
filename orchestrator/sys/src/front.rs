//! The way of a connection from accept to its end, and what a client may cost on it: time, bytes
//! and streams. The API server and the agents serve HTTP through it.
//!
//! ```text
//! accept ─▶ room ─▶ hello ─▶ handshake ─▶ room for the certificate's holder ─▶ HTTP ─▶ end
//!            │        │          │                        │                      │
//!            └────────┴──────────┴── closed: no room, too slow, not TLS ─────────┘
//! ```

#[cfg(test)]
pub mod frames;
mod known;
mod takeover;
mod unread;

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use jiff::Timestamp;
use nix::sys::socket;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use super::certificates::{Identity, Shown};
use super::connections::{self, Connections, Limits, Place};
use super::{Shutdown, Turns, keep_alive};
pub use known::Known;
pub use takeover::{AnyStream, Stream, Takeover};
pub use unread::RequestBody;

/// Connections that wait to be accepted, as far as net.core.somaxconn (4,096) lets them.
const WAITING: i32 = 4096;

/// Lets many connections wait at a listener at once; the standard library makes room for 128. All agents come back in
/// the same moment when a server starts again: whoever finds no room is heard after 1, 3, 7, 15 or 31 seconds, when
/// its kernel tries again.
///
/// # Errors
///
/// Those of listen(2).
pub fn make_room(listener: &std::net::TcpListener) -> std::io::Result<()> {
    let room = socket::Backlog::new(WAITING)?;
    Ok(socket::listen(listener, room)?)
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// HTTP/1.1: from the end of one request to the end of the next one's head, idle time included.
    pub head: Duration,
    /// The same for clients with a certificate. They keep idle connections for 90 s: a server that
    /// closes one before may do so in the moment in which it is used again.
    pub known_head: Duration,
    /// From the handshake to the end. A client without a certificate has one or two short requests,
    /// and comes again for more, unless the service knows it.
    pub stranger: Duration,
}

const TIMES: Times = Times {
    handshake: Duration::from_secs(10),
    head: Duration::from_secs(10),
    known_head: Duration::from_secs(120),
    stranger: Duration::from_secs(30),
};

/// The head of a request: method, URI and all header fields. HTTP/1.1 also limits the number of
/// fields, to 100, and the URI to 64 KiB.
const HEAD_BYTES: u32 = 64 * 1024;
/// HTTP/2: requests at once on one connection. Watches of one client share a connection.
const STREAMS: u32 = 1000;
/// Holders of tokens come without a certificate too, and a client such as kube-rs, which keeps to one
/// connection, waits for ever with a watch that is one too many. All heads of a connection together may take
/// no more than sixteen long ones.
const STRANGER_STREAMS: u32 = 50;
const STRANGER_HEAD_BYTES: u32 = 20 * 1024;
const _: () = assert!(STRANGER_STREAMS * STRANGER_HEAD_BYTES <= 16 * HEAD_BYTES);
/// HTTP/2: bytes of bodies that a client may send before the server has asked for them.
const WINDOW_BYTES: u32 = 256 * 1024;
const STRANGER_WINDOW_BYTES: u32 = 64 * 1024;
/// HTTP/2: bytes of one answer that wait for a client that does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// HTTP/2: a client that does not answer a ping within the second time is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long open requests may take to end after the connection is to end.
const FAREWELL: Duration = Duration::from_secs(3);
/// A client that was refused in the middle of its request may go on sending so long and so much; what
/// it sends is dropped. Its connection or stream closed at once, it would see a reset and not the answer.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 16 * 1024 * 1024;
/// What a client hears whose head took too long.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 42\r\n\r\n\
    the request's head did not arrive in time\n";
/// When accepting fails (no descriptor is left), the next try waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refused connections are logged no more often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What the listeners of a server share. Clones are the same.
#[derive(Clone)]
pub struct Front {
    connections: Connections,
    times: Times,
    /// By where the clients are.
    hellos: Turns<IpAddr>,
    tasks: TaskTracker,
    shutdown: Shutdown,
    complaints: Arc<Complaints>,
}

/// A connection that was let in.
pub struct Visit {
    stream: TcpStream,
    peer: IpAddr,
    place: Place,
    front: Front,
}

/// A connection after its handshake.
pub struct Secured {
    /// Boxed, since it is moved from one future into the next, and each of these has room for what it takes.
    stream: Box<TlsStream<TcpStream>>,
    peer: IpAddr,
    identity: Option<Identity>,
    shown: Option<Shown>,
    place: Place,
    front: Front,
}

type Failure = Box<dyn StdError + Send + Sync>;

impl Front {
    pub fn new(limits: Limits, shutdown: Shutdown) -> Self {
        Self::with(limits, TIMES, shutdown)
    }

    pub fn with(limits: Limits, times: Times, shutdown: Shutdown) -> Self {
        Self {
            connections: Connections::new(limits),
            times,
            hellos: Turns::default(),
            tasks: TaskTracker::new(),
            shutdown,
            complaints: Arc::new(Complaints::default()),
        }
    }

    /// A front of its own shutdown that shares this one's room.
    pub fn beside(&self, shutdown: Shutdown) -> Self {
        Self {
            shutdown,
            tasks: TaskTracker::new(),
            ..self.clone()
        }
    }

    /// Serves the listener's connections until shutdown, each in a task of its own.
    pub async fn accept<F>(&self, listener: &TcpListener, mut serve: impl FnMut(Visit) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        while let Some(accepted) = self.shutdown.unless(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => self.begin(stream, peer, &mut serve),
                Err(error) => {
                    // Most often no descriptor is left: a stranger gives its own back.
                    self.complaints
                        .say(|| tracing::warn!(%error, "a connection could not be accepted"));
                    self.connections.make_room();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn begin<F>(&self, stream: TcpStream, peer: SocketAddr, serve: impl FnOnce(Visit) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let Some(place) = self.connections.admit(peer.ip()) else {
            self.complaints.say(|| {
                tracing::warn!(%peer, "a connection was refused: there are as many as there may be");
            });
            return;
        };
        let served = serve(Visit {
            stream,
            peer: peer.ip(),
            place,
            front: self.clone(),
        });
        self.tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(error, "a connection ended");
            }
        });
    }

    /// Waits after shutdown until the connections have ended; false if some did not in time.
    pub async fn closed(&self) -> bool {
        self.tasks.close();
        let patience = FAREWELL + Duration::from_millis(500);
        let ended = tokio::time::timeout(patience, self.tasks.wait()).await;
        ended.is_ok()
    }
}

impl Visit {
    /// The TLS handshake. A slow client costs its room only, and for a limited time.
    pub async fn shake_hands(self, config: Arc<ServerConfig>) -> Result<Secured, Failure> {
        let Self {
            stream,
            peer,
            mut place,
            front,
        } = self;
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        let closing = place.closing_token();
        let stream = tokio::select! {
            stream = front.handshake(stream, peer, config, &mut place) => stream?,
            () = closing.cancelled() => return Err("closed for a newer connection".into()),
            () = front.shutdown.requested() => return Err("the server is stopping".into()),
        };
        let chain = stream.get_ref().1.peer_certificates();
        let leaf = chain.and_then(|chain| chain.first());
        let identity = leaf.map(|der| Identity::of_peer(der)).transpose()?;
        let shown = leaf.map(|der| Shown::of_peer(der)).transpose()?;
        if let Some(identity) = &identity
            && !place.take_for(&identity.common_name)
        {
            let name = &identity.common_name;
            front.complaints.say(|| {
                tracing::warn!(%peer, name, "a connection was refused: this client has too many");
            });
            return Err("this client has too many connections".into());
        }
        place.shakes_hands(false);
        Ok(Secured {
            stream: Box::new(stream),
            peer,
            identity,
            shown,
            place,
            front,
        })
    }

    /// Serves HTTP/1.1 without TLS: every client is a stranger.
    pub async fn serve_plain<S, B>(self, service: S) -> Result<(), Failure>
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Unpin,
        S::Error: Into<Failure>,
        B: Body + 'static,
        B::Error: Into<Failure>,
    {
        let ends = Ends::of(&self.place, &self.front, None);
        serve_http1(self.stream, service, ends).await
    }
}

impl Front {
    async fn handshake(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        config: Arc<ServerConfig>,
        place: &mut Place,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        tokio::time::timeout(self.times.handshake, async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            place.shakes_hands(true);
            // To answer a hello is what costs the server most. Answered one after the other, with
            // the other tasks' turns in between, a thousand of them do not hold up the requests of
            // clients that are connected; and those of one source do not delay another one's.
            let turn = self.hellos.next(connections::source(peer)).await;
            let mut rest = hello.into_stream(config);
            let begun = futures::poll!(&mut rest);
            tokio::task::yield_now().await;
            drop(turn);
            match begun {
                std::task::Poll::Ready(stream) => Ok(stream?),
                std::task::Poll::Pending => Ok(rest.await?),
            }
        })
        .await?
    }
}

impl Secured {
    /// Whose certificate the client has shown.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// What else the certificate says.
    pub fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }

    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Serves the requests of the connection until it ends.
    pub async fn serve<S, B>(self, service: S) -> Result<(), Failure>
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Unpin,
        S::Future: Send + 'static,
        S::Error: Into<Failure>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Failure>,
    {
        let ends = Ends::of(&self.place, &self.front, self.shown.as_ref());
        // Not guessed from the first bytes, for which a client could be waited for without end.
        if self.stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            serve_http2(self.stream, service, ends).await
        } else {
            serve_http1(self.stream, service, ends).await
        }
    }
}

/// What ends a connection besides its client.
struct Ends<'a> {
    place: &'a Place,
    shutdown: &'a Shutdown,
    times: Times,
    stranger: bool,
    known: Known,
    /// No connection outlives the certificate that it was opened with.
    ends_at: tokio::time::Instant,
}

impl<'a> Ends<'a> {
    fn of(place: &'a Place, front: &'a Front, shown: Option<&Shown>) -> Self {
        let life = shown.map(|shown| {
            let left = shown.ends.duration_since(Timestamp::now());
            Duration::try_from(left).unwrap_or_default()
        });
        Self {
            place,
            shutdown: &front.shutdown,
            times: front.times,
            stranger: shown.is_none(),
            known: Known::default(),
            ends_at: tokio::time::Instant::now() + life.unwrap_or(front.times.stranger),
        }
    }

    /// Drives the connection to its end. Open requests are ended in order, unless the room is needed.
    async fn drive<C>(&self, connection: &mut C) -> Result<(), Failure>
    where
        C: GracefulConnection + Unpin,
        C::Error: Into<Failure>,
    {
        let driven = async {
            let too_old = async {
                tokio::time::sleep_until(self.ends_at).await;
                if self.stranger && self.known.is_noted() {
                    std::future::pending().await
                }
            };
            tokio::select! {
                ended = &mut *connection => return ended.map_err(Into::into),
                () = self.shutdown.requested() => {}
                () = too_old => {}
            }
            Pin::new(&mut *connection).graceful_shutdown();
            let ended = tokio::time::timeout(FAREWELL, connection).await;
            ended.map_err(Failure::from)?.map_err(Into::into)
        };
        tokio::select! {
            ended = driven => ended,
            () = self.place.closing() => Err("closed for a newer connection".into()),
        }
    }

    /// Lets a connection be what else it has become. One without a certificate was given away by a service that
    /// knows its client by a token: that it was short is not demanded any more.
    async fn let_go_on(&self, work: BoxFuture<'static, ()>) {
        let certificate_ends = async {
            match self.stranger {
                true => std::future::pending().await,
                false => tokio::time::sleep_until(self.ends_at).await,
            }
        };
        tokio::select! {
            () = work => {}
            () = self.place.closing() => {}
            () = self.shutdown.requested() => {}
            () = certificate_ends => {}
        }
    }
}

async fn serve_http1<I, S, B>(io: I, service: S, ends: Ends<'_>) -> Result<(), Failure>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Unpin,
    S::Error: Into<Failure>,
    B: Body + 'static,
    B::Error: Into<Failure>,
{
    let head_timeout = match ends.stranger {
        true => ends.times.head,
        false => ends.times.known_head,
    };
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_header_size(HEAD_BYTES as usize)
        .max_buf_size(HEAD_BYTES as usize);
    let takeover = Takeover::default();
    let (of_request, known) = (takeover.clone(), ends.known.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(RequestBody::plain);
        let (takeover, method) = (of_request.clone(), request.method().clone());
        request.extensions_mut().insert(takeover.clone());
        request.extensions_mut().insert(known.clone());
        service.call(request).inspect(move |answer| {
            let status = answer.as_ref().ok().map(Response::status);
            takeover.keep_if_upgraded(&method, status);
        })
    });
    let mut connection = builder.serve_connection(TokioIo::new(io), service);
    let ended = ends.drive(&mut connection).await;
    if ends.place.is_closing() || ends.shutdown.is_requested() {
        return ended;
    }
    let parts = connection.into_parts();
    let mut io = parts.io.into_inner();
    if let Some(work) = takeover.take().filter(|_| ended.is_ok()) {
        let (read, stream) = (parts.read_buf, io);
        let stream = takeover::Rest { read, stream };
        ends.let_go_on(work(Box::new(stream))).await;
        return Ok(());
    }
    if parts.read_buf.is_empty() || !ended.as_ref().is_err_and(is_timeout) {
        linger(io).await;
    } else {
        // A head had begun: nothing else is being written. A client that is idle is told nothing.
        let told = tokio::time::timeout(LINGER_TIME, io.write_all(TOO_SLOW)).await;
        if let Ok(Ok(())) = told {
            linger(io).await;
        }
    }
    ended
}

fn is_timeout(failure: &Failure) -> bool {
    let error = failure.downcast_ref::<hyper::Error>();
    error.is_some_and(hyper::Error::is_timeout)
}

async fn serve_http2<I, S, B>(io: I, service: S, ends: Ends<'_>) -> Result<(), Failure>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Unpin,
    S::Future: Send + 'static,
    S::Error: Into<Failure>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Failure>,
{
    let (streams, window, head) = match ends.stranger {
        true => (STRANGER_STREAMS, STRANGER_WINDOW_BYTES, STRANGER_HEAD_BYTES),
        false => (STREAMS, WINDOW_BYTES, HEAD_BYTES),
    };
    // Streams that are opened and reset at once are counted by h2 itself, which ends a connection
    // that has too many of them.
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window)
        .max_header_list_size(head)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let known = ends.known.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(known.clone());
        let (request, unanswered) = RequestBody::drained(request);
        let answer = service.call(request);
        async move {
            let answer = answer.await;
            drop(unanswered);
            answer
        }
    });
    let mut connection = builder.serve_connection(TokioIo::new(io), service);
    ends.drive(&mut connection).await
}

/// Closes in a way in which the client can still read its answer.
async fn linger(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let lingering = async {
        io.shutdown().await?;
        let mut rest = io.take(LINGER_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Whatever comes of it: the connection is over.
    let _ = tokio::time::timeout(LINGER_TIME, lingering).await;
}

/// What strangers cause is not logged as often as they like.
struct Complaints {
    started: Instant,
    /// Milliseconds since then; the next one is said from there on.
    next: AtomicU64,
}

impl Default for Complaints {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            next: AtomicU64::new(0),
        }
    }
}

impl Complaints {
    fn say(&self, log: impl FnOnce()) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = millis(self.started.elapsed());
        let next = self.next.load(Ordering::Relaxed);
        if now >= next {
            let after = now + millis(COMPLAINT_INTERVAL);
            self.next.store(after, Ordering::Relaxed);
            log();
        }
    }
}

#[cfg(test)]
mod tests;
