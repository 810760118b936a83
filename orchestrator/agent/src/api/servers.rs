//! Connections to whichever API server answers, and what makes the agent leave one.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Response, StatusCode, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::{BoxError, Service};

use super::silence::Silence;

/// A server that accepts no connection for so long is left for the next one.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);
/// One that accepts connections and answers nothing for so long is left, too: a process that stands still.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Whoever asked gave up after so long: as good as no answer.
const GIVEN_UP: Duration = Duration::from_millis(1500);
/// Where all are slow, going round among them makes them slower.
const BETWEEN_LEAVES: Duration = Duration::from_secs(10);

/// The API servers, of which one is asked until it does not answer. All clients of the agent share it, and leave a
/// server together. Clones are the same.
#[derive(Clone)]
pub struct Servers(Arc<Shared>);

struct Shared {
    all: Box<[Uri]>,
    /// The one that answered last.
    asked: AtomicUsize,
    leaving: Mutex<Leaving>,
}

/// How the server that is asked is left.
#[derive(Default)]
struct Leaving {
    /// Ends the connections to it.
    ends: CancellationToken,
    last: Option<Instant>,
    /// Since when it says that its store does not answer.
    unable: Option<Instant>,
}

impl Servers {
    /// There is at least one. `place` says which is asked first, so that not all nodes ask the same one.
    pub fn new(all: &[Uri], place: usize) -> Self {
        Self(Arc::new(Shared {
            all: all.into(),
            asked: AtomicUsize::new(place % all.len().max(1)),
            leaving: Mutex::default(),
        }))
    }

    /// The name in requests and in `Host`, whichever is asked.
    pub fn first(&self) -> Uri {
        self.0.all.first().cloned().unwrap_or_default()
    }

    /// Whether there is another one to go to.
    pub fn are_several(&self) -> bool {
        self.0.all.len() > 1
    }

    /// Waits for the head of an answer. A server that says nothing for too long is left, and the answer is an error;
    /// one that says for as long that it cannot answer is left as well.
    pub async fn answer<B, E>(
        &self,
        answer: impl Future<Output = Result<Response<B>, E>>,
    ) -> Result<Response<B>, E> {
        if !self.are_several() {
            return answer.await;
        }
        let mut question = Question {
            servers: self,
            asked: self.0.asked.load(Ordering::Relaxed),
            since: Instant::now(),
            is_answered: false,
        };
        let mut answer = std::pin::pin!(answer);
        let answered = match timeout(ANSWER_TIMEOUT, &mut answer).await {
            Ok(answered) => answered,
            Err(_) => {
                self.leave(question.asked);
                answer.await
            }
        };
        question.is_answered = true;
        if let Ok(answered) = &answered {
            self.heard(question.asked, answered.status());
        }
        answered
    }

    fn heard(&self, server: usize, status: StatusCode) {
        let mut leaving = self.leaving();
        if !matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ) {
            leaving.unable = None;
            return;
        }
        let since = *leaving.unable.get_or_insert_with(Instant::now);
        drop(leaving);
        if since.elapsed() >= ANSWER_TIMEOUT {
            self.leave(server);
        }
    }

    /// Ends all connections to a server that answers nothing, and has the next one asked.
    fn leave(&self, server: usize) {
        let mut leaving = self.leaving();
        let too_early = leaving.last.is_some_and(|it| it.elapsed() < BETWEEN_LEAVES);
        if self.0.asked.load(Ordering::Relaxed) != server || too_early {
            return;
        }
        leaving.last = Some(Instant::now());
        leaving.unable = None;
        let next = (server + 1) % self.0.all.len();
        self.0.asked.store(next, Ordering::Relaxed);
        let ends = std::mem::take(&mut leaving.ends);
        drop(leaving);
        tracing::warn!(server = %self.0.all[server], "an API server accepts and does not do what it is asked: it is left");
        ends.cancel();
    }

    fn leaving(&self) -> std::sync::MutexGuard<'_, Leaving> {
        self.0
            .leaving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request without an answer yet. Whoever drops it may have waited long enough to know.
struct Question<'a> {
    servers: &'a Servers,
    asked: usize,
    since: Instant,
    is_answered: bool,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if !self.is_answered && self.since.elapsed() >= GIVEN_UP {
            self.servers.leave(self.asked);
        }
    }
}

/// Connects to the server that answered last, or to the next one that does.
#[derive(Clone)]
pub(super) struct AnyServer {
    http: HttpConnector,
    servers: Servers,
    is_asked: bool,
}

impl AnyServer {
    /// `is_asked`: the server is pinged on these connections, and left when it does not answer.
    pub fn new(http: HttpConnector, servers: &Servers, is_asked: bool) -> Self {
        let servers = servers.clone();
        Self {
            http,
            servers,
            is_asked,
        }
    }
}

impl Service<Uri> for AnyServer {
    type Response = Line;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Line, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, asked: Uri) -> Self::Future {
        let Self {
            mut http,
            servers,
            is_asked,
        } = self.clone();
        Box::pin(async move {
            if !servers.are_several() {
                let io = http.call(asked).await?;
                return Ok(Line { io, of: None });
            }
            let (all, last) = (&servers.0.all, &servers.0.asked);
            let first = last.load(Ordering::Relaxed);
            let mut failed: BoxError = "no server is known".into();
            for index in (first..first + all.len()).map(|index| index % all.len()) {
                // Before it connects: whoever leaves it meanwhile ends this connection as well.
                let left = servers.leaving().ends.clone().cancelled_owned();
                let server = all[index].clone();
                match timeout(CONNECT_TIMEOUT, http.call(server.clone())).await {
                    Ok(Ok(io)) => {
                        if last.swap(index, Ordering::Relaxed) != index {
                            tracing::info!(%server, "another API server is asked from now on");
                        }
                        let of = Some(Of {
                            servers: servers.clone(),
                            index,
                            left: Box::pin(left),
                            silence: is_asked.then(Silence::default),
                        });
                        return Ok(Line { io, of });
                    }
                    Ok(Err(error)) => failed = error.into(),
                    Err(_) => failed = format!("{server} does not answer in time").into(),
                }
            }
            Err(failed)
        })
    }
}

/// A connection that ends when its server is left.
pub(super) struct Line {
    io: TokioIo<TcpStream>,
    /// None: there is no other server.
    of: Option<Of>,
}

/// Which server a connection is to.
struct Of {
    servers: Servers,
    index: usize,
    left: Pin<Box<WaitForCancellationFutureOwned>>,
    /// None: others ask whether it is there.
    silence: Option<Silence>,
}

impl Line {
    fn end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let left = self.of.as_mut().map(|of| of.left.as_mut().poll(context));
        match left {
            Some(Poll::Ready(())) => Err(io::ErrorKind::ConnectionReset.into()),
            _ => Ok(()),
        }
    }

    /// Bytes have come, or there are none: the server is left when that lasts too long.
    fn listen(&mut self, context: &mut Context<'_>, has_come: bool) -> io::Result<()> {
        let Some(of) = &mut self.of else {
            return Ok(());
        };
        let Some(silence) = &mut of.silence else {
            return Ok(());
        };
        if has_come {
            silence.end();
            return Ok(());
        }
        while silence.poll(context).is_ready() {
            of.servers.leave(of.index);
            // One that is not left is waited for once more.
            silence.forgive();
        }
        self.end(context)
    }
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.end(context)?;
        let read = Pin::new(&mut self.io).poll_read(context, to);
        self.listen(context, read.is_ready())?;
        read
    }
}

impl Write for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, from)
    }
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

/// Where the agent reaches the API servers. A name that nobody knows now is the agent's to look up again.
pub async fn addresses(servers: &[http::Uri]) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for server in servers {
        let host = server.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = server.port_u16().unwrap_or(443);
        match tokio::net::lookup_host((host, port)).await {
            Ok(found) => all.extend(found.map(|address| address.ip())),
            Err(error) => {
                tracing::warn!(%error, host, "the API server's address is not kept from Services");
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper::rt::ReadBuf;
    use tokio::net::TcpListener;

    use super::*;

    fn uri(listener: &TcpListener) -> Uri {
        let address = listener.local_addr().expect("an address");
        format!("http://{address}").parse().expect("a URL")
    }

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.expect("a port")
    }

    #[tokio::test]
    async fn a_server_that_refuses_is_left_for_the_next_one() {
        let (gone, there) = (listener().await, listener().await);
        let servers = Servers::new(&[uri(&gone), uri(&there)], 0);
        drop(gone);
        let mut connector = AnyServer::new(HttpConnector::new(), &servers, false);
        for _ in 0..2 {
            let connection = connector.call(servers.first()).await.expect("connected");
            let peer = connection.io.inner().peer_addr().expect("an address");
            assert_eq!(Some(peer), there.local_addr().ok());
            assert_eq!(servers.0.asked.load(Ordering::Relaxed), 1);
        }
        drop(there);
        assert!(connector.call(servers.first()).await.is_err());
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_says_nothing_is_left_with_all_connections_to_it() {
        let (silent, there) = (listener().await, listener().await);
        let servers = Servers::new(&[uri(&silent), uri(&there)], 2);
        let mut connector = AnyServer::new(HttpConnector::new(), &servers, false);
        let mut line = connector.call(servers.first()).await.expect("connected");
        let watch = tokio::spawn(async move {
            let mut bytes = [std::mem::MaybeUninit::uninit(); 9];
            let mut to = ReadBuf::uninit(&mut bytes);
            poll_fn(|context| Pin::new(&mut line).poll_read(context, to.unfilled())).await
        });
        let asked = |ago: Duration| Question {
            servers: &servers,
            asked: 0,
            since: Instant::now()
                .checked_sub(ago)
                .expect("a machine that is up"),
            is_answered: false,
        };
        drop(asked(GIVEN_UP / 2));
        assert_eq!(servers.0.asked.load(Ordering::Relaxed), 0, "too short");
        drop(asked(GIVEN_UP));
        let ended = watch.await.expect("it ends").map_err(|error| error.kind());
        assert_eq!(ended, Err(io::ErrorKind::ConnectionReset));
        let next = connector.call(servers.first()).await.expect("connected");
        let peer = next.io.inner().peer_addr().ok();
        assert_eq!(peer, there.local_addr().ok());
        // All may be slow: the second one is not left at once.
        servers.leave(1);
        assert_eq!(servers.0.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn the_only_server_is_waited_for() {
        let servers = Servers::new(&["http://10.0.0.1".parse().expect("a URL")], 7);
        servers.leave(0);
        assert_eq!(servers.0.asked.load(Ordering::Relaxed), 0);
        let well = async { Ok::<_, io::Error>(Response::new(7)) };
        assert_eq!(servers.answer(well).await.expect("an answer").body(), &7);
    }

    #[tokio::test]
    async fn a_server_whose_store_does_not_answer_is_left_when_that_lasts() {
        let all = ["http://10.0.0.1", "http://10.0.0.2"].map(|it| it.parse().expect("a URL"));
        let servers = Servers::new(&all, 0);
        let ask = async |status: StatusCode| {
            let mut answer = Response::new(());
            *answer.status_mut() = status;
            let answered = servers.answer(async { Ok::<_, io::Error>(answer) }).await;
            answered.expect("an answer");
            servers.0.asked.load(Ordering::Relaxed)
        };
        let long_ago = || {
            let since = Instant::now().checked_sub(ANSWER_TIMEOUT);
            servers.leaving().unable = Some(since.expect("a machine that is up"));
        };
        assert_eq!(
            ask(StatusCode::GATEWAY_TIMEOUT).await,
            0,
            "for the first time"
        );
        long_ago();
        assert_eq!(ask(StatusCode::NOT_FOUND).await, 0, "it does answer");
        assert_eq!(
            ask(StatusCode::SERVICE_UNAVAILABLE).await,
            0,
            "for the first time"
        );
        long_ago();
        assert_eq!(ask(StatusCode::SERVICE_UNAVAILABLE).await, 1);
    }
}
