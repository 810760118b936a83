//! Every kubectl of this machine, from 1.20 on, over SPDY and over WebSocket where it can.

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use common::{Seen, serve};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);
/// More than every buffer on the way.
const LARGE: usize = 8 * 1024 * 1024;

/// A kubectl and whether it is told to use WebSocket.
struct Client {
    program: PathBuf,
    minor: u32,
    websocket: bool,
    server: SocketAddr,
    home: PathBuf,
}

/// The kubectls of this machine by minor version, each once with SPDY and, from 1.30 on, once with WebSocket.
/// None is a failure where all are there (CI).
fn clients(server: SocketAddr, home: &Path) -> Vec<Client> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.dev/cache/kubernetes-client");
    let directories = [
        "/usr/bin".into(),
        "/usr/local/bin".into(),
        "/usr/lib/google-cloud-sdk/bin".into(),
        cache,
    ];
    let mut found = Vec::new();
    for minor in 20..60 {
        let names = [format!("kubectl.1.{minor}"), format!("kubectl-1.{minor}")];
        let paths = directories
            .iter()
            .flat_map(|directory: &PathBuf| names.iter().map(move |name| directory.join(name)));
        if let Some(program) = paths.into_iter().find(|path| path.exists()) {
            for websocket in [false, true] {
                if minor >= 30 || !websocket {
                    found.push(Client {
                        program: program.clone(),
                        minor,
                        websocket,
                        server,
                        home: home.to_owned(),
                    });
                }
            }
        }
    }
    if found.is_empty() {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "no kubectl is on this machine");
        println!("SKIPPED: no kubectl is on this machine");
    }
    found
}

impl Client {
    fn name(&self) -> String {
        let way = if self.websocket { "WebSocket" } else { "SPDY" };
        format!("kubectl 1.{} over {way}", self.minor)
    }

    fn environment(&self, command: &mut Command) {
        let websocket = self.websocket.to_string();
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.home)
            .env("KUBECONFIG", "/dev/null")
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", &websocket)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", &websocket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        self.environment(&mut command);
        command.arg(format!("--server=http://{}", self.server));
        command.args(words);
        command
    }

    async fn run(&self, words: &[&str], stdin: &[u8]) -> Output {
        let mut child = self.command(words).spawn().unwrap();
        let mut to = child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        tokio::spawn(async move {
            let _ = to.write_all(&stdin).await;
        });
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        ended
            .unwrap_or_else(|_| panic!("{} {words:?} does not end", self.name()))
            .unwrap()
    }

    /// The protocol that it is to have spoken.
    #[track_caller]
    fn spoke(&self, seen: &Seen, spdy: &str, websocket: &str) {
        let wanted = if self.websocket { websocket } else { spdy };
        let seen = seen.take();
        assert_eq!(
            seen.first().map(String::as_str),
            Some(wanted),
            "{}",
            self.name()
        );
    }

    #[track_caller]
    fn ran(&self, seen: &Seen) {
        self.spoke(
            seen,
            "SPDY/3.1 v4.channel.k8s.io",
            "websocket v5.channel.k8s.io",
        );
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Without what kubectl 1.30 and 1.31 may say of the empty message that Kubernetes begins with: they read it
/// before they have made their streams.
fn said(stderr: &[u8]) -> String {
    let text = text(stderr);
    let lines = text.split_inclusive('\n');
    lines
        .filter(|line| !line.contains("Unknown stream id 1, discarding"))
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_runs_commands() {
    let (server, seen) = serve().await;
    let home = tempfile::tempdir().unwrap();
    for client in clients(server, home.path()) {
        let name = client.name();
        let large = noise(LARGE);
        let output = client
            .run(&["exec", "-i", "web", "--", "cat"], &large)
            .await;
        assert!(
            output.stdout == large,
            "{name}: {} bytes, {}",
            output.stdout.len(),
            text(&output.stderr)
        );
        assert!(output.status.success(), "{name}");
        client.ran(&seen);

        let words = [
            "exec",
            "web",
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 7",
        ];
        let output = client.run(&words, b"").await;
        assert_eq!(text(&output.stdout), "out\n", "{name}");
        assert_eq!(
            said(&output.stderr),
            "err\ncommand terminated with exit code 7\n",
            "{name}"
        );
        assert_eq!(output.status.code(), Some(7), "{name}");
        client.ran(&seen);

        // Stdin that nobody reads and that is not finished does not keep a command that has ended.
        let words = ["exec", "-i", "web", "--", "head", "-c", "5"];
        let output = client.run(&words, &large).await;
        assert_eq!(
            (output.stdout.as_slice(), output.status.code()),
            (&large[..5], Some(0)),
            "{name}"
        );
        client.ran(&seen);

        let output = client
            .run(&["attach", "-i", "web"], b"to an attached process")
            .await;
        assert_eq!(text(&output.stdout), "to an attached process", "{name}");
        client.ran(&seen);
        println!("{name}: commands");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_copies_files_both_ways() {
    let (server, _seen) = serve().await;
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let large = noise(LARGE);
    std::fs::write(path("from"), &large).unwrap();
    for client in clients(server, home.path()) {
        let name = client.name();
        for (from, to, made) in [
            (
                path("from"),
                format!("web:{}", path("there")),
                path("there"),
            ),
            (format!("web:{}", path("from")), path("back"), path("back")),
        ] {
            let output = client.run(&["cp", &from, &to], b"").await;
            assert!(output.status.success(), "{name}: {}", text(&output.stderr));
            assert!(std::fs::read(&made).unwrap() == large, "{name}: {made}");
            std::fs::remove_file(&made).unwrap();
        }
        println!("{name}: cp");
    }
}

/// `script` gives it a terminal of that size.
#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_tells_the_size_of_its_terminal() {
    let (server, seen) = serve().await;
    let home = tempfile::tempdir().unwrap();
    for client in clients(server, home.path()) {
        let name = client.name();
        let program = client.program.display();
        let words = format!(
            "stty cols 132 rows 50; {program} --server=http://{server} exec -it web -- echo done"
        );
        let mut command = Command::new("script");
        client.environment(&mut command);
        let child = command.args(["-qec", &words, "/dev/null"]).spawn().unwrap();
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = output
            .unwrap_or_else(|_| panic!("{name} does not end"))
            .unwrap();
        assert!(
            text(&output.stdout).contains("done"),
            "{name}: {}",
            text(&output.stdout)
        );
        let seen = seen.take();
        assert_eq!(
            seen.get(1).map(String::as_str),
            Some("size 132 50"),
            "{name}: {seen:?}"
        );
        println!("{name}: terminal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_forwards_ports() {
    let (server, seen) = serve().await;
    let home = tempfile::tempdir().unwrap();
    for client in clients(server, home.path()) {
        let name = client.name();
        let mut command = client.command(&["port-forward", "pod/web", ":8080", ":81"]);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ports = Vec::new();
        while ports.len() < 2 {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
            let line = line
                .unwrap()
                .unwrap()
                .unwrap_or_else(|| panic!("{name} ends"));
            let port = line.strip_prefix("Forwarding from 127.0.0.1:");
            let port = port.and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok());
            ports.extend(port);
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        for number in 0..50usize {
            trip(&name, ports[0], &noise(number)).await;
        }
        let trips = (0..20).map(|number| {
            let data = noise(100_000 + number);
            let (name, port) = (name.clone(), ports[0]);
            async move { trip(&name, port, &data).await }
        });
        futures::future::join_all(trips).await;
        trip(&name, ports[0], &noise(LARGE)).await;
        // A port that fails: the connection ends, the others go on (kubectl 1.22 and newer end themselves).
        let mut refused = TcpStream::connect(("127.0.0.1", ports[1])).await.unwrap();
        let mut read = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, refused.read_to_end(&mut read)).await;
        assert!(ended.is_ok() && read.is_empty(), "{name}");
        child.kill().await.unwrap();
        let gone = async {
            let mut all = Vec::new();
            while !all.contains(&"gone".to_owned()) {
                all.extend(seen.take());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            all
        };
        let all = tokio::time::timeout(PATIENCE, gone).await.unwrap();
        let wanted = if client.websocket {
            "websocket SPDY/3.1+portforward.k8s.io"
        } else {
            "SPDY/3.1 portforward.k8s.io"
        };
        assert_eq!(all[0], wanted, "{name}");
        println!("{name}: port-forward");
    }
}

/// Sends data through a forwarded port, finishes, and gets it back.
async fn trip(name: &str, port: u16, data: &[u8]) {
    let all = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let sending = async {
            writer.write_all(data).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let ((), read) = tokio::join!(sending, reader.read_to_end(&mut back));
        read.unwrap();
        back
    };
    let back = tokio::time::timeout(PATIENCE, all).await;
    let back = back.unwrap_or_else(|_| panic!("{name}: {} bytes do not come back", data.len()));
    assert!(
        back == data,
        "{name}: {} of {} bytes came back",
        back.len(),
        data.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubectl_that_is_killed_is_gone() {
    let (server, seen) = serve().await;
    let home = tempfile::tempdir().unwrap();
    for client in clients(server, home.path()) {
        let name = client.name();
        // It does not end with its stdin: only the client's end ends it.
        let mut command =
            client.command(&["exec", "-i", "web", "--", "sh", "-c", "cat; sleep 1000"]);
        let mut child = command.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"a").await.unwrap();
        let mut read = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut read)
            .await
            .unwrap();
        child.kill().await.unwrap();
        let gone = async {
            while !seen.take().contains(&"gone".to_owned()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        gone.unwrap_or_else(|_| panic!("{name} is not missed"));
    }
}
