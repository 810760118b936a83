//! Probes a running container until it is told to stop: HTTP, TCP, commands. When and what it means
//! is `probes`'.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Template, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::pod_plan::FailedProbe;
use super::pod_worker::NodeContext;
use super::probes::{Kind, Machine, Standing};
use super::runtime::Runtime;

/// A running prober; dropping it ends it.
pub struct Prober(JoinHandle<()>);

impl Drop for Prober {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The container that is probed.
pub struct Target {
    pub id: String,
    pub template: Template,
    pub address: IpAddr,
    pub machine: Machine,
}

/// News about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub started: bool,
    pub ready: bool,
    /// Why the container must be restarted.
    pub restart: Option<FailedProbe>,
    /// What a failed probe said.
    pub unhealthy: Option<String>,
}

pub fn has_probes(template: &Template) -> bool {
    let probes = [
        &template.startup_probe,
        &template.liveness_probe,
        &template.readiness_probe,
    ];
    probes.into_iter().any(Option::is_some)
}

/// Starts probing; `tell` is called with news and says whether somebody still listens.
pub fn start<R, N, F>(
    node: Arc<NodeContext<R, N>>,
    target: Target,
    tell: impl Fn(Verdict) -> F + Send + Sync + 'static,
) -> Prober
where
    R: Runtime,
    N: Send + Sync + 'static,
    F: Future<Output = bool> + Send,
{
    Prober(tokio::spawn(async move {
        let mut machine = target.machine.clone();
        let mut known = machine.standing();
        while let Some((kind, due)) = machine.next() {
            let pause = due.duration_since(Timestamp::now());
            tokio::time::sleep(Duration::try_from(pause).unwrap_or_default()).await;
            let outcome = probe(&*node.runtime, &target, kind).await;
            let standing = machine.take(kind, outcome.is_ok(), Timestamp::now());
            let unhealthy = outcome
                .err()
                .map(|why| format!("{} probe failed: {why}", kind.word()));
            if standing == known && unhealthy.is_none() {
                continue;
            }
            known = standing.clone();
            let restart = standing.failed.map(|kind| {
                let (name, word) = (&target.template.name, kind.word().to_lowercase());
                FailedProbe {
                    why: format!("Container {name} failed {word} probe, will be restarted"),
                    grace_seconds: probe_of(&target.template, kind)
                        .and_then(|probe| probe.termination_grace_period_seconds),
                }
            });
            let Standing { started, ready, .. } = standing;
            if !tell(Verdict {
                started,
                ready,
                restart,
                unhealthy,
            })
            .await
            {
                return;
            }
        }
    }))
}

async fn probe<R: Runtime>(runtime: &R, target: &Target, kind: Kind) -> Result<(), String> {
    let Some(probe) = probe_of(&target.template, kind) else {
        return Ok(());
    };
    let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1))
        .unwrap_or(1)
        .max(1);
    let timeout = Duration::from_secs(seconds);
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        let outcome = runtime.exec(&target.id, &command, timeout).await;
        let outcome = outcome.map_err(|e| e.to_string())?;
        return if outcome.code == 0 {
            Ok(())
        } else {
            Err(outcome.output.trim().to_owned())
        };
    }
    let over_network = over_network(target, probe);
    match tokio::time::timeout(timeout, over_network).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {seconds} s")),
    }
}

fn probe_of(template: &Template, kind: Kind) -> Option<&Probe> {
    let probe = match kind {
        Kind::Startup => &template.startup_probe,
        Kind::Liveness => &template.liveness_probe,
        Kind::Readiness => &template.readiness_probe,
    };
    probe.as_ref()
}

async fn over_network(target: &Target, probe: &Probe) -> Result<(), String> {
    let address = |host: &Option<String>, port: &IntOrString| {
        let given = host.as_ref().and_then(|host| host.parse().ok());
        let ip = given.unwrap_or(target.address);
        let port =
            port_of(&target.template, port).ok_or("the probe's port is not in the container")?;
        Ok::<_, String>(SocketAddr::new(ip, port))
    };
    if let Some(tcp) = &probe.tcp_socket {
        let address = address(&tcp.host, &tcp.port)?;
        return TcpStream::connect(address)
            .await
            .map(drop)
            .map_err(|e| format!("dial tcp {address}: {e}"));
    }
    match &probe.http_get {
        Some(get) => http_get(address(&get.host, &get.port)?, get).await,
        None => Ok(()),
    }
}

pub(super) async fn http_get(address: SocketAddr, get: &HTTPGetAction) -> Result<(), String> {
    let path = get
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let failed = |e: &dyn std::fmt::Display| format!("Get \"http://{address}{path}\": {e}");
    let stream = TcpStream::connect(address).await.map_err(|e| failed(&e))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| failed(&e))?;
    let connection = tokio::spawn(connection);
    let mut request = http::Request::get(path).header(http::header::USER_AGENT, "kube-probe/1.33");
    let headers = get.http_headers.iter().flatten();
    let named_host = get
        .http_headers
        .iter()
        .flatten()
        .any(|it| it.name.eq_ignore_ascii_case("host"));
    if !named_host {
        request = request.header(http::header::HOST, address.to_string());
    }
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| failed(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| failed(&e));
    connection.abort();
    let status = answer?.status();
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(format!(
            "HTTP probe failed with statuscode: {}",
            status.as_u16()
        ))
    }
}

pub(super) fn port_of(template: &Template, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let ports = template.ports.iter().flatten();
            let named = ports.filter(|port| port.name.as_ref() == Some(name));
            let found = named.map(|port| port.container_port).next();
            found
                .and_then(|port| u16::try_from(port).ok())
                .or_else(|| name.parse().ok())
        }
    }
}
