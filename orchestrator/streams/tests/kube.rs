//! kube-rs over WebSocket: exec and attach ask for version 5, port-forward gets version 4.

mod common;

use common::serve;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use kube::{Client, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// More than every buffer on the way.
const LARGE: usize = 4 * 1024 * 1024;

fn pods(server: std::net::SocketAddr) -> Api<Pod> {
    let config = Config::new(format!("http://{server}").parse().unwrap());
    Api::default_namespaced(Client::try_from(config).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_rs_runs_commands_and_finishes_stdin() {
    let (server, seen) = serve().await;
    let wants = AttachParams::default().stdin(true).stderr(true);
    let mut process = pods(server)
        .exec("web", ["sh", "-c", "cat; echo err >&2; exit 3"], &wants)
        .await
        .unwrap();
    let mut stdin = process.stdin().unwrap();
    let large: Vec<u8> = (0..LARGE).map(|at| (at * 7) as u8).collect();
    let sent = large.clone();
    tokio::spawn(async move {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let (mut out, mut err) = (Vec::new(), String::new());
    process
        .stdout()
        .unwrap()
        .read_to_end(&mut out)
        .await
        .unwrap();
    process
        .stderr()
        .unwrap()
        .read_to_string(&mut err)
        .await
        .unwrap();
    assert!(out == large, "{} bytes came back", out.len());
    assert_eq!(err, "err\n");
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    let causes = status.details.unwrap().causes.unwrap();
    assert_eq!(causes[0].message.as_deref(), Some("3"));
    process.join().await.unwrap();
    assert_eq!(seen.take(), ["websocket v5.channel.k8s.io"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_rs_forwards_a_port() {
    let (server, seen) = serve().await;
    let mut forwarder = pods(server).portforward("web", &[8080, 81]).await.unwrap();
    let mut stream = forwarder.take_stream(8080).unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    let failed = forwarder.take_error(81).unwrap().await;
    assert_eq!(failed.as_deref(), Some("nobody listens there"));
    assert_eq!(seen.take(), ["websocket v4.channel.k8s.io"]);
}
