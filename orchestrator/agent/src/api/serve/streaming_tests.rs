//! Streams over a real connection, with processes of this machine in the place of containers.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::tests::member;
use super::*;
use crate::runtime::fake::FakeRuntime;
use crate::runtime::{ContainerSpec, Network, PodRef, Resources, Role, Security};
use sys::certificates::{Authority, Usage};

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    authority: Authority,
    address: SocketAddr,
    runtime: Arc<FakeRuntime>,
    shutdown: Shutdown,
}

impl Node {
    /// With a pod `shop/web`, whose container `c` runs, with a terminal or without.
    async fn start(tty: bool) -> Self {
        let authority = Authority::create("test", Timestamp::now()).expect("an authority");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let runtime = Arc::new(FakeRuntime::default());
        let id = runtime.create(&spec("c", tty)).await.expect("made");
        runtime.start(&id).await.expect("started");
        let (_, membership) = watch::channel(member(&authority, &["node-1"]));
        let served = Served::new(runtime.clone(), Arc::default(), Default::default());
        let shutdown = Shutdown::new();
        tokio::spawn(serve(listener, membership, served, shutdown.clone()));
        Self {
            authority,
            address,
            runtime,
            shutdown,
        }
    }

    async fn dial(&self, who: &str) -> TlsStream<TcpStream> {
        let who = Identity::new(who, &[ADMINISTRATORS]);
        let shown = self
            .authority
            .issue(&who, &[], Usage::Client, Timestamp::now());
        let shown = shown.expect("a certificate");
        let config = tls::client_config(self.authority.certificate(), Some(&shown));
        let mut config = config.expect("TLS");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let name = rustls::pki_types::ServerName::try_from("node-1").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.expect("TLS")
    }

    /// Opens a WebSocket of the newest protocol, or says with which code it was refused.
    async fn open(&self, who: &str, path: &str) -> Result<Socket, u16> {
        self.open_of(None, who, path).await
    }

    /// The same of the pod of that uid.
    async fn open_of(&self, uid: Option<&str>, who: &str, path: &str) -> Result<Socket, u16> {
        let mut request = format!("ws://node-1{path}")
            .into_client_request()
            .expect("a URL");
        let protocol = match path.starts_with("/portForward") {
            true => "v4.channel.k8s.io",
            false => "v5.channel.k8s.io",
        };
        let protocol = protocol.parse().expect("a value");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        if let Some(uid) = uid {
            let uid = uid.parse().expect("a value");
            request.headers_mut().insert(POD_UID_HEADER, uid);
        }
        match client_async(request, self.dial(who).await).await {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

fn spec(name: &str, tty: bool) -> ContainerSpec {
    ContainerSpec {
        pod: PodRef {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: "u1".to_owned(),
        },
        identity: crate::runtime::Identity {
            role: Role::Main,
            name: name.to_owned(),
            attempt: 0,
            generation: 0,
            level: 0,
            spec_hash: String::new(),
            addrs: None,
        },
        image: "i".to_owned(),
        image_id: String::new(),
        command: None,
        args: None,
        env: Vec::new(),
        working_dir: None,
        hostname: None,
        network: Network::Fresh,
        sandbox: None,
        share_pids: false,
        processes_of: None,
        host_pids: false,
        host_ipc: false,
        mounts: Vec::new(),
        devices: Vec::new(),
        resources: Resources::default(),
        cgroup_parent: None,
        own_users: false,
        security: Security::default(),
        handler: None,
        sysctls: std::collections::BTreeMap::new(),
        stop_signal: None,
        stdin: true,
        stdin_once: false,
        tty,
    }
}

struct Socket(WebSocketStream<TlsStream<TcpStream>>);

impl Socket {
    async fn say(&mut self, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        self.0.send(Message::binary(message)).await.expect("sent");
    }

    /// What came on each channel until the server has closed.
    async fn rest(&mut self) -> [Vec<u8>; 4] {
        let mut heard = [const { Vec::new() }; 4];
        let reading = async {
            while let Some(Ok(message)) = self.0.next().await {
                if let Message::Binary(bytes) = message
                    && let Some((channel, bytes)) = bytes.split_first()
                {
                    heard[usize::from(*channel)].extend_from_slice(bytes);
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("an end");
        heard
    }
}

fn status(heard: &[Vec<u8>; 4]) -> Value {
    serde_json::from_slice(&heard[3]).expect("a Status")
}

#[tokio::test]
async fn a_command_reads_its_stdin_to_the_end_and_tells_its_exit_code() {
    let node = Node::start(false).await;
    let path = "/exec/shop/web/c?command=sh&command=-c&command=cat%3B%20echo%20bad%20%3E%262%3B\
                %20exit%203&stdin=true&stdout=true&stderr=true";
    let mut socket = node.open(API_SERVER, path).await.expect("opened");
    let large = vec![b'x'; 300_000];
    socket.say(0, &large).await;
    socket.say(0, b"end").await;
    // The close signal of v5: the client has finished its stdin.
    socket.say(255, &[0]).await;
    let heard = socket.rest().await;
    assert_eq!(heard[1].len(), large.len() + 3);
    assert!(heard[1].ends_with(b"xend"));
    assert_eq!(heard[2], b"bad\n");
    let status = status(&heard);
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "ExitCode", "message": "3"}])
    );
    assert_eq!(node.runtime.commands().len(), 1);
}

#[tokio::test]
async fn a_command_that_succeeds_or_does_not_start_says_so() {
    let node = Node::start(false).await;
    let mut socket = node
        .open(API_SERVER, "/exec/shop/web/c?command=true&stdout=true")
        .await
        .expect("opened");
    let heard = socket.rest().await;
    assert_eq!(status(&heard)["status"], "Success");
    let path = "/exec/shop/web/c?command=/no/such/file&stdout=true";
    let mut socket = node.open(API_SERVER, path).await.expect("opened");
    let failed = status(&socket.rest().await);
    assert_eq!(failed["reason"], "InternalError");
    let message = failed["message"].as_str().expect("a text");
    assert!(
        message.contains("error executing command in container"),
        "{message}"
    );
}

#[tokio::test]
async fn streams_are_for_the_api_server_and_for_what_runs() {
    let node = Node::start(false).await;
    let exec = "/exec/shop/web/c?command=true&stdout=true";
    for (who, path, code) in [
        ("kubernetes-admin", exec, 403),
        ("kubernetes-admin", "/attach/shop/web/c?stdout=true", 403),
        ("kubernetes-admin", "/portForward/shop/web?port=80", 403),
        (
            API_SERVER,
            "/exec/shop/web/other?command=true&stdout=true",
            404,
        ),
        (
            API_SERVER,
            "/exec/shop/other/c?command=true&stdout=true",
            404,
        ),
        (API_SERVER, "/exec/shop/web/c?stdout=true", 400),
        (API_SERVER, "/exec/shop/web/c?command=true", 400),
        // There is no sandbox.
        (API_SERVER, "/portForward/shop/web?port=80", 404),
    ] {
        let refused = node.open(who, path).await.err();
        assert_eq!(refused, Some(code), "{who} {path}");
    }
    assert_eq!(node.runtime.commands().len(), 0);
}

/// One that was deleted without waiting for its node may still run when another pod has its name.
#[tokio::test]
async fn a_stream_is_to_the_pod_that_is_meant_and_to_no_other_of_its_name() {
    let node = Node::start(false).await;
    for path in [
        "/exec/shop/web/c?command=true&stdout=true",
        "/attach/shop/web/c?stdout=true",
        "/portForward/shop/web?port=80",
    ] {
        let refused = node.open_of(Some("u2"), API_SERVER, path).await.err();
        assert_eq!(refused, Some(404), "{path}");
    }
    let exec = "/exec/shop/web/c?command=true&stdout=true";
    let opened = node.open_of(Some("u1"), API_SERVER, exec).await;
    opened.expect("opened").rest().await;
    assert_eq!(node.runtime.commands().len(), 1);
}

#[tokio::test]
async fn attaching_uses_the_container_s_terminal_and_leaves_the_container_running() {
    let node = Node::start(true).await;
    let path = "/attach/shop/web/c?stdin=true&stdout=true&tty=true";
    let mut socket = node.open(API_SERVER, path).await.expect("opened");
    socket.say(4, br#"{"Width":80,"Height":24}"#).await;
    socket.say(0, b"hello").await;
    let hearing = async {
        let mut heard = Vec::new();
        while heard != b"hello" {
            let message = socket.0.next().await.expect("open").expect("a message");
            if let Message::Binary(bytes) = message {
                assert_eq!(bytes[0], 1, "stdout");
                heard.extend_from_slice(&bytes[1..]);
            }
        }
    };
    tokio::time::timeout(PATIENCE, hearing)
        .await
        .expect("an echo");
    let told = async {
        while node.runtime.sizes().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("a size");
    assert_eq!(node.runtime.sizes()[0].1, 80);
    drop(socket);
    assert!(
        node.runtime
            .all()
            .iter()
            .all(|container| container.is_running())
    );
}

#[tokio::test]
async fn a_client_that_vanishes_gives_back_its_room_and_ends_the_stdin_of_its_command() {
    let node = Node::start(false).await;
    let directory = tempfile::tempdir().expect("a directory");
    let mark = directory.path().join("ended");
    let command = format!("cat; echo done > {}", mark.display());
    let command = command
        .replace(' ', "%20")
        .replace(';', "%3B")
        .replace('>', "%3E");
    let path = format!("/exec/shop/web/c?command=sh&command=-c&command={command}&stdin=true");
    let mut socket = node.open(API_SERVER, &path).await.expect("opened");
    socket.say(0, b"x").await;
    drop(socket);
    let ended = async {
        while !mark.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("the command has read the end");
}

#[tokio::test]
async fn a_port_is_forwarded_into_the_pod_and_a_refusal_is_told() {
    let node = Node::start(false).await;
    let mut sandbox = spec("", false);
    sandbox.identity.role = Role::Sandbox;
    let id = node.runtime.create(&sandbox).await.expect("made");
    node.runtime.start(&id).await.expect("started");
    // Its network is that of this process.
    node.runtime.set_pid(&id, std::process::id());
    let entered = std::thread::spawn(|| {
        let own = std::fs::File::open("/proc/self/ns/net")?;
        nix::sched::setns(own, nix::sched::CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
    });
    if !entered.join().is_ok_and(|entered| entered.is_ok()) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer)
            .await
            .expect("echoed");
    });
    let path = format!("/portForward/shop/web?port={port}");
    let mut socket = node.open(API_SERVER, &path).await.expect("opened");
    socket.say(0, b"ping").await;
    let hearing = async {
        let mut heard = Vec::new();
        // Each channel begins with the port.
        while heard.len() < 6 {
            let message = socket.0.next().await.expect("open").expect("a message");
            if let Message::Binary(bytes) = message
                && bytes[0] == 0
            {
                heard.extend_from_slice(&bytes[1..]);
            }
        }
        heard
    };
    let heard = tokio::time::timeout(PATIENCE, hearing)
        .await
        .expect("an echo");
    assert_eq!(heard, [&port.to_le_bytes()[..], b"ping"].concat());
    drop(socket);
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let path = format!("/portForward/shop/web?port={port}");
    let mut socket = node.open(API_SERVER, &path).await.expect("opened");
    let heard = socket.rest().await;
    let why = String::from_utf8_lossy(&heard[1][2..]).into_owned();
    let expected = format!("error forwarding port {port} to pod shop/web, uid u1");
    assert!(
        why.starts_with(&expected) && why.contains("connection refused"),
        "{why}"
    );
}
