//! Probes a running container until it is told to stop: HTTP, gRPC, TCP, commands. When and what it means
//! is `probes`'.

pub mod grpc;
pub mod http;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Template, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nix::errno::Errno;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::plan::FailedProbe;
use super::probes::{Kind, Machine, Outcome, Standing};
use super::worker::NodeContext;
use crate::runtime::{ExecOutcome, Runtime, RuntimeError};

/// What `socket`, `connect` and the resolver say when this machine is out of something.
const NODE_ERRORS: [Errno; 5] = [
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::ENOMEM,
    Errno::ENOBUFS,
    Errno::EADDRNOTAVAIL,
];

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

/// Why a probe or a hook did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The container did not do what it was asked to.
    #[error("{0}")]
    Container(String),
    /// The node could not ask it, which says nothing about the container.
    #[error("{0}")]
    Node(String),
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
            let done = probe(&*node.runtime, &target, kind).await;
            let outcome = match done {
                Ok(()) => Outcome::Success,
                Err(Failure::Container(_)) => Outcome::Failure,
                Err(Failure::Node(_)) => Outcome::Unknown,
            };
            let standing = machine.take(kind, outcome, Timestamp::now());
            let word = kind.word();
            let unhealthy = done.err().map(|failure| match failure {
                Failure::Container(why) => format!("{word} probe failed: {why}"),
                Failure::Node(why) => {
                    format!("{word} probe errored and resulted in unknown state: {why}")
                }
            });
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

async fn probe<R: Runtime>(runtime: &R, target: &Target, kind: Kind) -> Result<(), Failure> {
    let Some(probe) = probe_of(&target.template, kind) else {
        return Ok(());
    };
    let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1))
        .unwrap_or(1)
        .max(1);
    let timeout = Duration::from_secs(seconds);
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return of_exec(runtime.exec(&target.id, &command, timeout).await);
    }
    let over_network = over_network(target, probe);
    match tokio::time::timeout(timeout, over_network).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Container(format!("no answer within {seconds} s"))),
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

/// Only a command that ran, or did not end, says something about its container.
fn of_exec(outcome: Result<ExecOutcome, RuntimeError>) -> Result<(), Failure> {
    match outcome {
        Ok(ended) if ended.code == 0 => Ok(()),
        Ok(ended) => Err(Failure::Container(ended.output.trim().to_owned())),
        Err(error @ RuntimeError::ExecTimeout(_)) => Err(Failure::Container(error.to_string())),
        Err(error) => Err(Failure::Node(error.to_string())),
    }
}

async fn over_network(target: &Target, probe: &Probe) -> Result<(), Failure> {
    let template = &target.template;
    if let Some(tcp) = &probe.tcp_socket {
        let address = address_of(
            template,
            tcp.host.as_deref(),
            &tcp.port,
            Some(target.address),
        )
        .await?;
        let connected = TcpStream::connect(address).await;
        return connected
            .map(drop)
            .map_err(|error| failure(&format!("dial tcp {address}"), &error));
    }
    if let Some(check) = &probe.grpc {
        let port = u16::try_from(check.port).unwrap_or(0);
        let address = SocketAddr::new(target.address, port);
        let service = check.service.as_deref().unwrap_or_default();
        return grpc::check(address, service).await;
    }
    match &probe.http_get {
        Some(get) => http::probe(template, get, target.address).await,
        None => Ok(()),
    }
}

/// Where a probe or a hook goes: to the pod, or to the host that it names, by address or by name.
async fn address_of(
    template: &Template,
    host: Option<&str>,
    port: &IntOrString,
    pod: Option<IpAddr>,
) -> Result<SocketAddr, Failure> {
    let unknown = || Failure::Container(format!("port {port:?} is not in the container"));
    let port = port_of(template, port).ok_or_else(unknown)?;
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        let none = || Failure::Node("the pod has no address".to_owned());
        return Ok(SocketAddr::new(pod.ok_or_else(none)?, port));
    };
    let what = format!("lookup {host}");
    let mut found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| failure(&what, &error))?;
    found
        .next()
        .ok_or_else(|| Failure::Container(format!("{what}: no such host")))
}

/// Errors of this machine are not the container's.
fn failure(what: &str, error: &io::Error) -> Failure {
    let message = format!("{what}: {error}");
    let errno = error.raw_os_error().map(Errno::from_raw);
    if errno.is_some_and(|errno| NODE_ERRORS.contains(&errno)) {
        Failure::Node(message)
    } else {
        Failure::Container(message)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        let template =
            serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        serde_json::from_value(template).expect("a container")
    }

    #[test]
    fn a_node_without_descriptors_memory_or_ports_says_nothing_about_its_containers() {
        for errno in NODE_ERRORS {
            let error = io::Error::from_raw_os_error(errno as i32);
            let outcome = failure("dial tcp 10.100.1.2:80", &error);
            assert!(matches!(outcome, Failure::Node(_)), "{errno}");
        }
        for errno in [Errno::ECONNREFUSED, Errno::ETIMEDOUT, Errno::EHOSTUNREACH] {
            let error = io::Error::from_raw_os_error(errno as i32);
            let outcome = failure("dial tcp 10.100.1.2:80", &error);
            assert!(matches!(outcome, Failure::Container(_)), "{errno}");
        }
    }

    #[test]
    fn an_engine_that_does_not_answer_or_refuses_says_nothing_about_its_containers() {
        let message = || "no".to_owned();
        let refused = RuntimeError::Refused {
            status: 500,
            message: message(),
        };
        let errors = [
            RuntimeError::Unreachable(message()),
            RuntimeError::NotFound(message()),
            refused,
        ];
        for error in errors {
            assert!(matches!(of_exec(Err(error)), Err(Failure::Node(_))));
        }
        let slow = RuntimeError::ExecTimeout(Duration::from_secs(1));
        assert!(matches!(of_exec(Err(slow)), Err(Failure::Container(_))));
        let ended = |code| ExecOutcome {
            code,
            output: " bad \n".to_owned(),
        };
        assert_eq!(of_exec(Ok(ended(0))), Ok(()));
        let failed = Failure::Container("bad".to_owned());
        assert_eq!(of_exec(Ok(ended(1))), Err(failed));
    }

    #[tokio::test]
    async fn a_host_that_is_no_address_is_looked_up_and_never_taken_for_the_pod() {
        let pod = Some("10.100.1.2".parse().expect("an address"));
        let port = IntOrString::String("web".to_owned());
        let template = template();
        let of = async |host| address_of(&template, host, &port, pod).await;
        for own in [None, Some("")] {
            assert_eq!(of(own).await, Ok("10.100.1.2:8080".parse().expect("one")));
        }
        let other = of(Some("192.0.2.7")).await;
        assert_eq!(other, Ok("192.0.2.7:8080".parse().expect("one")));
        let local = of(Some("localhost")).await.expect("every machine has it");
        assert!(local.ip().is_loopback(), "{local}");
        // RFC 6761: no resolver knows such a name.
        let nowhere = of(Some("10.100.1.2.invalid")).await;
        let why = nowhere.expect_err("no such host").to_string();
        assert!(why.starts_with("lookup 10.100.1.2.invalid"), "{why}");
    }
}
