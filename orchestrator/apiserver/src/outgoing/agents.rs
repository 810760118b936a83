//! How the server reaches a node's agent, and through it what lies in the pod network.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Pki, State, reply};
use api::ApiError;
use sys::front::AnyStream;
use sys::tls::client_config;

/// How long an agent may take to accept a connection. Another one is tried then.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an agent may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an agent may take to connect with a pod; it gives up a little earlier itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(7);
/// The longest error text that is taken from an agent.
pub const ERROR_BYTES: usize = 8 * 1024;
/// Where agents listen unless their node says otherwise.
const AGENT_PORT: u16 = 10250;

/// Where a node's agent answers.
pub struct Agent {
    node: String,
    address: IpAddr,
    port: u16,
}

/// Why there is no tunnel.
#[derive(Debug)]
pub enum NoTunnel {
    /// The agent does not answer, or has no room: another one may.
    Away(String),
    /// The agent answers, and the target does not, or may not be reached.
    Refused(String),
}

impl Agent {
    pub fn of(state: &State, node: &str) -> Result<Self, ApiError> {
        let nodes = api::find("", "v1", "nodes").ok_or(ApiError::NoSuchResource)?;
        let node = state.objects.current(nodes, "", node)?.value;
        Self::of_node(&node)
    }

    fn of_node(node: &Value) -> Result<Self, ApiError> {
        let (name, status) = (api::meta::name(node), &node["status"]);
        let addresses = status["addresses"].as_array().into_iter().flatten();
        let address = addresses
            .filter(|address| address["type"] == "InternalIP")
            .find_map(|address| address["address"].as_str()?.parse().ok());
        let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        let address = address.ok_or_else(|| {
            reply::internal(format!(
                "node {name} has no InternalIP: is its agent running?"
            ))
        })?;
        let port = port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(AGENT_PORT);
        Ok(Self {
            node: name.to_owned(),
            address,
            port,
        })
    }

    /// One request of a connection of its own. After 101 that is to be had by `hyper::upgrade::on`.
    pub async fn send(
        &self,
        state: &State,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, ApiError> {
        let pki = state
            .pki
            .as_ref()
            .ok_or_else(|| reply::internal("a server without certificates cannot reach agents"))?;
        let stream = self.dial(pki).await.map_err(|why| self.unreachable(&why))?;
        let failed = |error: hyper::Error| self.unreachable(&error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        tokio::spawn(connection.with_upgrades());
        let host = HeaderValue::from_str(&format!("{}:{}", self.node, self.port));
        let host = host.map_err(reply::internal)?;
        request.headers_mut().insert(header::HOST, host);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        answer
            .map_err(|_| self.unreachable("no answer"))?
            .map_err(failed)
    }

    /// Whether the port is that of the agent itself.
    pub fn answers_at(&self, port: u16) -> bool {
        self.port == port
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// A stream of bytes to an address of the pod network.
    async fn tunnel(&self, pki: &Pki, target: SocketAddr) -> Result<AnyStream, NoTunnel> {
        let away = |why: &dyn std::fmt::Display| NoTunnel::Away(self.unreachable(why).to_string());
        let stream = self.dial(pki).await.map_err(|why| away(&why))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| away(&error))?;
        tokio::spawn(connection.with_upgrades());
        let request = Request::connect(target.to_string())
            .header("host", target.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|error| NoTunnel::Refused(error.to_string()))?;
        let answer = tokio::time::timeout(CONNECT_TIMEOUT, sender.send_request(request)).await;
        let answer = answer
            .map_err(|_| away(&"no answer"))?
            .map_err(|error| away(&error))?;
        let code = answer.status();
        if code.is_success() {
            let stream = hyper::upgrade::on(answer).await;
            return Ok(Box::new(TokioIo::new(
                stream.map_err(|error| away(&error))?,
            )));
        }
        let text = error_text(answer).await;
        let text =
            text.unwrap_or_else(|| format!("the agent of node {} answered {code}", self.node));
        Err(match code.as_u16() {
            503 => NoTunnel::Away(text),
            _ => NoTunnel::Refused(text),
        })
    }

    async fn dial(&self, pki: &Pki) -> Result<TlsStream<TcpStream>, String> {
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, self.secure(pki)).await;
        match dialled {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    async fn secure(
        &self,
        pki: &Pki,
    ) -> Result<TlsStream<TcpStream>, Box<dyn Error + Send + Sync>> {
        let issued = pki.issued();
        let mut config = client_config(pki.authority.certificate(), Some(&issued.agent_client))?;
        // One request a connection, or a tunnel: HTTP/1.1 does.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect((self.address, self.port)).await?;
        stream.set_nodelay(true)?;
        sys::keep_alive(&stream)?;
        // By name: a node may claim any address, and be given none of what is meant for others.
        let name = ServerName::try_from(self.node.clone())?;
        Ok(TlsConnector::from(std::sync::Arc::new(config))
            .connect(name, stream)
            .await?)
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> ApiError {
        ApiError::ServiceUnavailable(format!(
            "the agent of node {} does not answer at {}:{}: {why}",
            self.node, self.address, self.port
        ))
    }
}

/// What a failed answer says, if it does in a few words.
pub async fn error_text(answer: Response<Incoming>) -> Option<String> {
    let body = Limited::new(answer.into_body(), ERROR_BYTES).collect();
    let body = tokio::time::timeout(ANSWER_TIMEOUT, body)
        .await
        .ok()?
        .ok()?;
    let text = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// Through how many agents one address is tried.
const AGENTS_TRIED: usize = 3;

/// A stream of bytes to an address of the pod network: through the agent of its node, or of another one
/// while that is away.
pub async fn tunnel(
    state: &State,
    target: SocketAddr,
    node: Option<&str>,
) -> Result<AnyStream, String> {
    let pki = state.pki.as_ref();
    let pki = pki.ok_or("a server without certificates cannot reach agents")?;
    let mut why = "no node's agent can be asked for the way to a pod".to_owned();
    for agent in nearest(state, target.ip(), node) {
        match agent.tunnel(pki, target).await {
            Ok(stream) => return Ok(stream),
            Err(NoTunnel::Refused(why)) => return Err(why),
            Err(NoTunnel::Away(reason)) => why = reason,
        }
    }
    Err(why)
}

/// Agents in the order in which they are asked: the one of the pod's node first, those last that have not
/// been heard of for a while.
fn nearest(state: &State, target: IpAddr, node: Option<&str>) -> Vec<Agent> {
    let Some(nodes) = api::find("", "v1", "nodes") else {
        return Vec::new();
    };
    let (_, nodes) = state.objects.cache.list(nodes, None);
    let mut ranked = Vec::new();
    for cached in nodes {
        let Ok(object) = reply::parse(&cached.bytes()) else {
            continue;
        };
        let holds = || {
            let mut ranges = crate::addresses::pod_ranges(&object);
            ranges.any(|(_, range)| range.is_some_and(|range| range.contains(target)))
        };
        let own = match node {
            Some(node) => node == cached.name(),
            None => holds(),
        };
        if let Ok(agent) = Agent::of_node(&object) {
            ranked.push((!cached.is_ready_node(), !own, agent));
        }
    }
    ranked.sort_by_key(|(away, foreign, _)| (*away, *foreign));
    let agents = ranked.into_iter().map(|(_, _, agent)| agent);
    agents.take(AGENTS_TRIED).collect()
}
