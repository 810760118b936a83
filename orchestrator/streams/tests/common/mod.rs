//! A server that has one pod, whose commands run on this machine and whose ports send back what they get:
//! enough of the API for kubectl's and kube-rs' exec, attach, cp and port-forward, over plain HTTP on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use streams::{Command, Connections, Wants, status};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub fn push(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    /// What has been seen since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Serves until the test ends. `Seen` gets the protocol of each connection, sizes, and who has gone.
pub async fn serve() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let noting = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = noting.clone();
            let service = service_fn(move |request| answer(request, seen.clone()));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    (address, seen)
}

async fn answer(
    mut request: Request<Incoming>,
    seen: Seen,
) -> Result<Response<String>, Infallible> {
    let path = request.uri().path().to_owned();
    let query = query(request.uri().query().unwrap_or_default());
    let has = |name: &str| {
        query
            .iter()
            .any(|(key, value)| key == name && value == "true")
    };
    let refused_or = |answered: Result<Response<()>, streams::Refused>| match answered {
        Ok(response) => {
            let header = |name| response.headers().get(name)?.to_str().ok();
            let protocol = header("sec-websocket-protocol").or(header("x-stream-protocol-version"));
            let upgrade = header("upgrade").unwrap_or_default();
            seen.push(format!("{upgrade} {}", protocol.unwrap_or_default()));
            response.map(|()| String::new())
        }
        Err(refused) => refused.into_response(),
    };
    Ok(match path.rsplit('/').next().unwrap_or_default() {
        "exec" | "attach" => {
            let words = query.iter().filter(|(key, _)| key == "command");
            let words = words.map(|(_, value)| value.clone()).collect();
            let wants = Wants {
                stdin: has("stdin"),
                stdout: has("stdout"),
                stderr: has("stderr"),
                tty: has("tty"),
            };
            let answered = streams::command(&mut request, wants);
            refused_or(answered.map(|(response, command)| {
                let seen = seen.clone();
                tokio::spawn(async move {
                    match command.await {
                        Ok(command) => run(command, words, wants.tty, seen).await,
                        Err(error) => seen.push(error.to_string()),
                    }
                });
                response
            }))
        }
        "portforward" => {
            let ports = query.iter().filter(|(key, _)| key == "ports");
            // kube-rs names them all in one.
            let ports = ports.flat_map(|(_, ports)| ports.split(','));
            let ports: Vec<u16> = ports.filter_map(|port| port.parse().ok()).collect();
            let answered = streams::forward(&mut request, &ports);
            refused_or(answered.map(|(response, connections)| {
                let seen = seen.clone();
                tokio::spawn(async move {
                    match connections.await {
                        Ok(connections) => echo(connections, seen).await,
                        Err(error) => seen.push(error.to_string()),
                    }
                });
                response
            }))
        }
        _ => document(&path),
    })
}

/// Runs the words as a process of this machine; none are attached to a `cat`.
async fn run(mut command: Command, words: Vec<String>, tty: bool, seen: Seen) {
    let words = if words.is_empty() {
        vec!["cat".into()]
    } else {
        words
    };
    if tty {
        let size = command.sizes.next().await.unwrap();
        seen.push(format!("size {} {}", size.width, size.height));
    }
    let mut child = tokio::process::Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (stdin, mut to) = (command.stdin.take(), child.stdin.take().unwrap());
    let (mut from, stdout) = (child.stdout.take().unwrap(), command.stdout.take());
    let (mut errors, stderr) = (child.stderr.take().unwrap(), command.stderr.take());
    let feeding = tokio::spawn(async move {
        if let Some(mut stdin) = stdin {
            let _ = tokio::io::copy(&mut stdin, &mut to).await;
        }
        let _ = to.shutdown().await;
    });
    let copying = async {
        let out = async {
            if let Some(mut stdout) = stdout {
                let _ = tokio::io::copy(&mut from, &mut stdout).await;
            }
        };
        let err = async {
            if let Some(mut stderr) = stderr {
                let _ = tokio::io::copy(&mut errors, &mut stderr).await;
            }
        };
        tokio::join!(out, err);
        child.wait().await.unwrap().code().unwrap_or(137)
    };
    tokio::select! {
        code = copying => command.finish(&status::exit_code(code)),
        () = command.gone() => seen.push("gone".into()),
    }
    feeding.abort();
}

/// Port 8080 sends back what it gets, all others are closed.
async fn echo(mut connections: Connections, seen: Seen) {
    while let Some(connection) = connections.next().await {
        if connection.port != 8080 {
            connection.error.fail("nobody listens there");
            continue;
        }
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(far);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        });
        tokio::spawn(connection.relay(near));
    }
    seen.push("gone".into());
}

/// Discovery and the pod.
fn document(path: &str) -> Response<String> {
    let pods = json!([
        {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get"], "shortNames": ["po"]},
    ]);
    let value = match path {
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        "/api/v1" => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": pods}),
        "/api/v1/namespaces/default/pods/web" => pod(),
        _ => {
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound"})
        }
    };
    let mut response = Response::new(value.to_string());
    if value["kind"] == "Status" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let json = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    response
}

fn pod() -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "web", "namespace": "default", "uid": "1"},
        "spec": {"containers": [{
            "name": "web", "image": "web", "stdin": true, "ports": [{"containerPort": 8080}],
        }]},
        "status": {
            "phase": "Running",
            "containerStatuses": [{
                "name": "web", "ready": true, "restartCount": 0, "image": "web", "imageID": "web",
                "state": {"running": {}},
            }],
        },
    })
}

fn query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (decoded(key), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap()
}
