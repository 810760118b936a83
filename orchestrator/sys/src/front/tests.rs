//! Clients that cost more than they should, over real sockets.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper::service::service_fn;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::*;
use crate::certificates::{Authority, Credentials, Usage};
use crate::tls::{self, ClientCertificate};

const SHORT: Times = Times {
    handshake: Duration::from_millis(300),
    head: Duration::from_millis(300),
    known_head: Duration::from_secs(10),
    stranger: Duration::from_millis(600),
};
const LIMITS: Limits = Limits {
    all: 200,
    strangers: 50,
    strangers_per_source: 20,
    per_holder: 100,
};
/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that says `hello` to everybody, and who it saw.
struct Server {
    address: SocketAddr,
    authority: Authority,
    stop: Shutdown,
    served: Arc<AtomicUsize>,
}

impl Server {
    async fn start(times: Times) -> Self {
        let authority = Authority::create("test", Timestamp::now()).expect("an authority");
        let who = Identity::new("server", &[]);
        let names = ["localhost".to_owned()];
        let own = authority.issue(&who, &names, Usage::Server, Timestamp::now());
        let shown = tls::ShownCertificate::new(&own.expect("a certificate"));
        let config = tls::server_config(
            shown.expect("it reads"),
            authority.certificate(),
            ClientCertificate::Optional,
        );
        let config = Arc::new(config.expect("TLS"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = Shutdown::new();
        let front = Front::with(LIMITS, times, stop.clone());
        let served = Arc::new(AtomicUsize::new(0));
        let counted = served.clone();
        tokio::spawn(async move {
            let serve = |visit: Visit| {
                let (config, served) = (config.clone(), counted.clone());
                async move {
                    let secured = visit.shake_hands(config).await?;
                    let answer = service_fn(move |request: Request<RequestBody>| {
                        served.fetch_add(1, Ordering::Relaxed);
                        if request.uri().path() == "/known" {
                            let known = request.extensions().get::<Known>();
                            known.expect("a place to say so").note();
                        }
                        if let Some(takeover) = request.extensions().get::<Takeover>() {
                            takeover.then(echo);
                        }
                        let body = match *request.method() {
                            http::Method::CONNECT => "",
                            _ => "hello",
                        };
                        let answer = Response::new(Full::<Bytes>::from(body));
                        std::future::ready(Ok::<_, Infallible>(answer))
                    });
                    secured.serve(answer).await
                }
            };
            front.accept(&listener, serve).await;
        });
        Self {
            address,
            authority,
            stop,
            served,
        }
    }

    fn credentials(&self, name: &str) -> Credentials {
        let who = Identity::new(name, &[]);
        let made = self
            .authority
            .issue(&who, &[], Usage::Client, Timestamp::now());
        made.expect("a certificate")
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    async fn secure(
        &self,
        who: Option<&Credentials>,
        protocol: &[u8],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut config = tls::client_config(self.authority.certificate(), who).expect("TLS");
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// What a client without a certificate hears that sends this; empty if it is cut off.
    async fn tell(&self, text: &[u8]) -> String {
        let mut stream = self.secure(None, b"http/1.1").await.expect("a handshake");
        stream.write_all(text).await.expect("the server reads on");
        read_all(&mut stream).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.trigger();
    }
}

/// Says what it hears, in small letters.
async fn echo(mut stream: AnyStream) {
    let mut heard = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut heard).await {
        let said = heard[..length].to_ascii_lowercase();
        stream.write_all(&said).await.expect("written");
        stream.flush().await.expect("written");
    }
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut heard = Vec::new();
    let read = stream.read_to_end(&mut heard);
    // A peer that closes without a word of TLS is an error to rustls: what was heard counts.
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("an end");
    String::from_utf8_lossy(&heard).into_owned()
}

/// Asks on a connection that stays open; false if there is no answer.
async fn answers(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
    let ask = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let asking = async {
        stream.write_all(ask).await?;
        let mut heard = Vec::new();
        while !heard.ends_with(b"hello") {
            heard.push(stream.read_u8().await?);
        }
        std::io::Result::Ok(heard.starts_with(b"HTTP/1.1 200"))
    };
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    answered.is_ok_and(|answered| answered.unwrap_or(false))
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// True if the peer has closed, false if it says nothing.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(Duration::from_millis(50), stream.read_u8());
    read.await.is_ok()
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut_off() {
    let server = Server::start(SHORT).await;
    let began = Instant::now();
    assert_eq!(read_all(&mut server.dial().await).await, "");
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let mut stream = server.secure(None, protocol).await.expect("a handshake");
        read_all(&mut stream).await;
    }
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_with_a_certificate_finds_its_idle_connection_open() {
    let server = Server::start(SHORT).await;
    let known = server.credentials("node-1");
    let stream = server.secure(Some(&known), b"http/1.1").await;
    let mut stream = stream.expect("a handshake");
    for _ in 0..2 {
        assert!(answers(&mut stream).await);
        tokio::time::sleep(SHORT.stranger * 2).await;
    }
}

#[tokio::test]
async fn a_connection_is_taken_over_after_connect_and_by_no_other_answer() {
    let server = Server::start(TIMES).await;
    let known = server.credentials("server");
    let stream = server.secure(Some(&known), b"http/1.1").await;
    let mut stream = stream.expect("a handshake");
    assert!(answers(&mut stream).await && answers(&mut stream).await);
    // What comes in one piece with the request belongs to the tunnel.
    let ask = b"CONNECT 10.100.1.2:80 HTTP/1.1\r\nhost: 10.100.1.2:80\r\n\r\nEARLY";
    stream.write_all(ask).await.expect("written");
    let mut heard = Vec::new();
    while !heard.ends_with(b"early") {
        heard.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(heard.starts_with(b"HTTP/1.1 200"));
    stream.write_all(b"LATE").await.expect("written");
    let mut late = [0; 4];
    stream.read_exact(&mut late).await.expect("an echo");
    assert_eq!(&late, b"late");
    server.stop.trigger();
    assert_eq!(read_all(&mut stream).await, "");
}

#[tokio::test]
async fn what_was_given_away_to_a_client_with_a_token_is_not_cut_off_like_a_stranger() {
    let server = Server::start(SHORT).await;
    let mut stream = server.secure(None, b"http/1.1").await.expect("a handshake");
    let ask = b"CONNECT 10.100.1.2:80 HTTP/1.1\r\nhost: 10.100.1.2:80\r\n\r\nA";
    stream.write_all(ask).await.expect("written");
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\na") {
        heard.push(stream.read_u8().await.expect("an answer"));
    }
    tokio::time::sleep(SHORT.stranger * 2).await;
    stream.write_all(b"B").await.expect("written");
    assert_eq!(stream.read_u8().await.expect("an echo"), b'b');
}

#[tokio::test]
async fn a_head_that_arrives_byte_by_byte_is_answered_408_in_time() {
    let server = Server::start(SHORT).await;
    let stream = server.secure(None, b"http/1.1").await.expect("a handshake");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let drip = async {
        loop {
            // Each byte would begin the time anew, were it counted from the last one.
            if writer.write_all(b"G").await.is_err() {
                return;
            }
            let _ = writer.flush().await;
            tokio::time::sleep(SHORT.head / 20).await;
        }
    };
    let began = Instant::now();
    let heard = tokio::select! {
        heard = read_all(&mut reader) => heard,
        () = drip => String::new(),
    };
    assert_eq!(status(&heard), "408", "{heard}");
    assert!(heard.ends_with("in time\n"), "{heard}");
    assert!(began.elapsed() < SHORT.head * 10, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_without_a_certificate_is_ended_whatever_it_goes_on_asking() {
    let server = Server::start(SHORT).await;
    let known = server.credentials("node-1");
    for (who, ended) in [(None, true), (Some(&known), false)] {
        let stream = server.secure(who, b"h2").await.expect("a handshake");
        let io = TokioIo::new(stream);
        let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = client.await.expect("HTTP/2");
        let open = tokio::spawn(connection);
        let began = Instant::now();
        let mut failed = false;
        while began.elapsed() < SHORT.stranger * 3 && !failed {
            let request = Request::get("https://localhost/").body(Empty::<Bytes>::new());
            failed = sender
                .send_request(request.expect("a request"))
                .await
                .is_err();
            tokio::time::sleep(SHORT.stranger / 20).await;
        }
        assert_eq!(failed, ended, "after {:?}", began.elapsed());
        open.abort();
    }
}

#[tokio::test]
async fn a_client_whom_the_service_knows_by_a_token_is_not_ended() {
    let server = Server::start(SHORT).await;
    for (path, ended) in [("/", true), ("/known", false)] {
        let stream = server.secure(None, b"h2").await.expect("a handshake");
        let io = TokioIo::new(stream);
        let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = client.await.expect("HTTP/2");
        let open = tokio::spawn(connection);
        let mut ask = async || {
            let request = Request::get(format!("https://localhost{path}"));
            let request = request.body(Empty::<Bytes>::new()).expect("a request");
            sender.send_request(request).await.is_ok()
        };
        assert!(ask().await);
        tokio::time::sleep(SHORT.stranger * 2).await;
        assert_eq!(ask().await, !ended, "{path}");
        open.abort();
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_with_its_reason() {
    let server = Server::start(TIMES).await;
    let head = |uri: &str, fields: &str| {
        format!("GET {uri} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n")
    };
    let field = |n: usize, length: usize| format!("x-{n}: {}\r\n", "y".repeat(length));
    let many: String = (0..200).map(|n| field(n, 10)).collect();
    let flood: String = (0..90).map(|n| field(n, 100_000)).collect();
    let selector = format!("/?labelSelector={}", "a".repeat(1024 * 1024));
    let cases = [
        (head("/", &field(1, 8000)), "200"),
        (head("/", &field(1, 70_000)), "431"),
        (head("/", &many), "431"),
        (head("/", &flood), "431"),
        (head(&selector, ""), "431"),
    ];
    for (head, expected) in cases {
        let heard = server.tell(head.as_bytes()).await;
        assert_eq!(status(&heard), expected, "{}", &head[..60]);
    }
    assert_eq!(server.served.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_client_that_is_refused_while_it_sends_still_sees_the_answer() {
    let server = Server::start(TIMES).await;
    let mut text =
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8000000\r\n\r\n".to_vec();
    text.resize(text.len() + 8_000_000, b' ');
    // It reads only after it has sent all, as simple clients do.
    let heard = server.tell(&text).await;
    assert_eq!(status(&heard), "200", "{heard}");
    assert!(heard.ends_with("hello"));
}

#[tokio::test]
async fn strangers_that_hold_on_do_not_keep_others_out() {
    let server = Server::start(TIMES).await;
    let known = server.credentials("node-1");
    let secure = || server.secure(Some(&known), b"http/1.1");
    let mut early = secure().await.expect("a handshake");
    assert!(answers(&mut early).await);
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(server.dial().await);
    }
    let began = Instant::now();
    let mut late = secure().await.expect("a handshake");
    assert!(answers(&mut late).await && answers(&mut early).await);
    assert!(
        began.elapsed() < TIMES.handshake / 2,
        "{:?}",
        began.elapsed()
    );
    let mut open = 0;
    for stream in &mut silent {
        open += usize::from(!is_closed(stream).await);
    }
    assert!(open <= LIMITS.strangers_per_source, "{open} are open");
}

#[tokio::test]
async fn one_certificate_has_so_many_connections_and_others_have_theirs() {
    let server = Server::start(TIMES).await;
    let answered = async |who: &Credentials| {
        let mut stream = server.secure(Some(who), b"http/1.1").await.ok()?;
        answers(&mut stream).await.then_some(stream)
    };
    let greedy = server.credentials("node-1");
    let mut held = Vec::new();
    while let Some(stream) = answered(&greedy).await {
        held.push(stream);
        assert!(held.len() <= LIMITS.per_holder);
    }
    assert_eq!(held.len(), LIMITS.per_holder);
    assert!(answered(&server.credentials("node-2")).await.is_some());
}

#[tokio::test]
async fn a_client_without_a_certificate_has_so_many_streams_at_once_and_one_more_is_refused() {
    const REFUSED_STREAM: u32 = 7;
    let server = Server::start(TIMES).await;
    let stream = server.secure(None, b"h2").await.expect("a handshake");
    let asking = async {
        let mut client = frames::Client::start(stream).await;
        let mut open = Vec::new();
        for _ in 0..STRANGER_STREAMS {
            open.push(client.ask("/", None).await);
        }
        let one_more = client.ask("/", None).await;
        let refused = client.until_reset(one_more).await;
        assert_eq!(refused, frames::Reset(REFUSED_STREAM));
        // One that ends makes room.
        assert_eq!(client.end(open[0], 1).await, Ok(()));
        assert_eq!(client.begin("/", None).await.1, b"hello");
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .expect("an end");
    let served = server.served.load(Ordering::Relaxed);
    assert!(served <= STRANGER_STREAMS as usize + 1, "{served}");
}

#[tokio::test]
async fn an_answer_over_http2_is_followed_by_no_reset_while_the_client_goes_on_sending_for_a_while()
{
    let server = Server::start(TIMES).await;
    let stream = server.secure(None, b"h2").await.expect("a handshake");
    let asking = async {
        let mut client = frames::Client::start(stream).await;
        for _ in 0..50 {
            let (stream, heard) = client.begin("/", None).await;
            assert_eq!(heard, b"hello");
            assert_eq!(client.end(stream, 3).await, Ok(()));
        }
        // One that does not end is not waited for without end.
        let (stream, _) = client.begin("/", None).await;
        client.until_reset(stream).await
    };
    let began = Instant::now();
    let reset = tokio::time::timeout(PATIENCE, asking).await;
    assert_eq!(reset.expect("a reset in time"), frames::Reset(0));
    assert!(began.elapsed() >= LINGER_TIME, "{:?}", began.elapsed());
}

#[test]
fn a_thousand_clients_may_come_in_the_moment_before_the_first_one_is_accepted() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    make_room(&listener).unwrap();
    let address = listener.local_addr().unwrap();
    // The kernel tries again after a second: that would be too late.
    let soon = Duration::from_millis(900);
    let waiting: Vec<_> = (0..1000)
        .map(|_| std::net::TcpStream::connect_timeout(&address, soon).unwrap())
        .collect();
    assert_eq!(waiting.len(), 1000);
}
