//! How long a client of UDP hears nothing when a container dies: from the death of its process to the
//! next answer, on a dev cluster. The client's one socket sends a datagram every millisecond.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::case::{Mark, Outcome};
use super::service::Size;
use crate::cluster::{Cluster, Kubectl, wait};

const NODES: u8 = 2;
const REPLICAS: usize = 20;
const DEATHS: usize = 20;
const PORT: u16 = 5353;
const EVERY: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// What a machine needs to be quiet again after a death and a start.
const REST: Duration = Duration::from_secs(1);

/// Answers each datagram with the pod's name.
const SERVER: &str = "
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('0.0.0.0', 5353))
name = socket.gethostname().encode()
while True:
    server.sendto(name, server.recvfrom(2048)[1])
";

pub fn figures() -> Result<Vec<Outcome>> {
    let cluster = Cluster::up("bench", NODES)?;
    let kubectl = cluster.client()?;
    let service = deploy(&cluster, &kubectl)?;
    let client = process(&cluster, "client", "client")?;
    let mut took_ms = Vec::new();
    for _ in 0..DEATHS {
        wait("somebody else can answer", || {
            Ok((kubectl.ready_pods("app=echo")?.len() > 1).then_some(()))
        });
        thread::sleep(REST);
        let socket = socket_of(client, service)?;
        took_ms.push(die(&cluster, &socket)?.as_secs_f64() * 1e3);
    }
    cluster.down()?;
    Ok(vec![Outcome::alone(
        "UDP, container's death to the next answer",
        Size::NONE,
        "ms",
        &took_ms,
        Some(Mark::AtMost(100.0)),
    )])
}

/// The servers, and a client; the Service's address.
fn deploy(cluster: &Cluster, kubectl: &Kubectl) -> Result<Ipv4Addr> {
    let labels = serde_json::json!({ "app": "echo" });
    let container = serde_json::json!({
        "name": "echo", "image": "django", "command": ["python3", "-c", SERVER],
    });
    let objects = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "echo" },
          "spec": { "replicas": REPLICAS, "selector": { "matchLabels": labels }, "template": {
              "metadata": { "labels": labels }, "spec": { "containers": [container] } } } },
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "echo" },
          "spec": { "selector": labels, "ports": [{ "port": PORT, "protocol": "UDP" }] } },
    ]});
    let file = cluster.dir().join("echo.json");
    fs::write(&file, objects.to_string())?;
    kubectl.args(&["apply", "-f", &file.to_string_lossy()])?;
    kubectl.run("run client --image=tools --labels=app=client")?;
    for (selector, pods) in [("app=echo", REPLICAS), ("app=client", 1)] {
        wait("the pods are Ready", || {
            Ok((kubectl.ready_pods(selector)?.len() == pods).then_some(()))
        });
    }
    Ok(kubectl.field("service echo", "/spec/clusterIP")?.parse()?)
}

/// Kills whoever answers the socket; how long until somebody else does.
fn die(cluster: &Cluster, socket: &UdpSocket) -> Result<Duration> {
    let victim = answer(socket, |_| true)?;
    let process = process(cluster, &victim, "echo")?;
    ensure!(answer(socket, |_| true)? == victim, "the flow has moved");
    let dead = Instant::now();
    kill(process, Signal::SIGKILL)?;
    answer(socket, |name| name != victim)?;
    Ok(dead.elapsed())
}

/// Asks every millisecond until somebody answers who is meant.
fn answer(socket: &UdpSocket, meant: impl Fn(&str) -> bool) -> Result<String> {
    let begun = Instant::now();
    let mut buffer = [0; 256];
    while begun.elapsed() < PATIENCE {
        // An error is about what was sent to the dead one before.
        let _ = socket.send(b"x");
        thread::sleep(EVERY);
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let name = String::from_utf8_lossy(&buffer[..length]);
                if meant(&name) {
                    return Ok(name.into_owned());
                }
            }
            Err(error) => {
                let silent = [ErrorKind::WouldBlock, ErrorKind::ConnectionRefused];
                ensure!(silent.contains(&error.kind()), "{error}");
            }
        }
    }
    anyhow::bail!("nobody answers")
}

/// A connected socket in the network namespace of a process.
fn socket_of(process: Pid, service: Ipv4Addr) -> Result<UdpSocket> {
    let namespace = fs::File::open(format!("/proc/{process}/ns/net"))?;
    let open = move || -> Result<UdpSocket> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((service, PORT))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let opened = thread::spawn(open).join();
    opened.expect("it panics at nothing")
}

fn process(cluster: &Cluster, pod: &str, container: &str) -> Result<Pid> {
    let id = cluster.container(pod, container)?;
    let pid = cluster.docker(&["inspect", "--format", "{{.State.Pid}}", &id])?;
    let pid = pid.trim().parse().context("a process number")?;
    Ok(Pid::from_raw(pid))
}
