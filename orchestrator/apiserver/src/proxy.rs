//! Requests that the node's agent answers: logs. The server checks the pod, dials the agent with
//! its own certificate, and passes the stream on.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::rest::{Answer, Call};
use super::{Pki, State, reply};
use api::{self, ApiError};
use sys::tls::client_config;

/// How long an agent may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an agent may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest error text that is taken from an agent.
const ERROR_BYTES: usize = 8 * 1024;
/// Where agents listen unless their node says otherwise.
const AGENT_PORT: u16 = 10250;

/// The query parameters of a log that go to the agent as they are.
const LOG_PARAMETERS: [&str; 7] = [
    "follow",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "timestamps",
];

/// GET of a pod's log.
pub async fn log(call: &Call) -> Answer {
    let (namespace, name) = (
        call.target.namespace.as_deref().unwrap_or_default(),
        call.target.name.as_deref().unwrap_or_default(),
    );
    let pod = call
        .state
        .objects
        .current(call.target.storage(), namespace, name)?
        .value;
    let container = container(&pod, name, call.query.get("container").unwrap_or_default())?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::BadRequest(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let agent = Agent::of(&call.state, node)?;
    let query: Vec<String> = LOG_PARAMETERS
        .iter()
        .filter_map(|key| Some(format!("{key}={}", escape(call.query.get(key)?))))
        .collect();
    let path = format!(
        "/containerLogs/{namespace}/{name}/{container}?{}",
        query.join("&")
    );
    let answer = agent.get(&call.state, &path).await?;
    let code = answer.status();
    if code.is_success() {
        return Ok(reply::response(
            "text/plain",
            StatusCode::OK,
            Body::new(answer.into_body()),
        ));
    }
    let text = Limited::new(answer.into_body(), ERROR_BYTES)
        .collect()
        .await;
    let text = text.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
    let text = text.unwrap_or_else(|_| format!("the agent of node {node} answered {code}"));
    Err(match code {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => ApiError::BadRequest(text),
        _ => reply::internal(text),
    })
}

/// The container that is meant; a pod with one container needs no name.
fn container(pod: &Value, name: &str, asked: &str) -> Result<String, ApiError> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str())
            .collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    if !asked.is_empty() {
        return match containers.iter().chain(&init).any(|known| *known == asked) {
            true => Ok(asked.to_owned()),
            false => Err(ApiError::BadRequest(format!(
                "container {asked} is not valid for pod {name}"
            ))),
        };
    }
    if let ([only], []) = (containers.as_slice(), init.as_slice()) {
        return Ok((*only).to_owned());
    }
    let mut message = format!(
        "a container name must be specified for pod {name}, choose one of: [{}]",
        containers.join(" ")
    );
    if !init.is_empty() {
        message.push_str(&format!(
            " or one of the init containers: [{}]",
            init.join(" ")
        ));
    }
    Err(ApiError::BadRequest(message))
}

/// Where a node's agent answers.
struct Agent {
    node: String,
    address: IpAddr,
    port: u16,
}

impl Agent {
    fn of(state: &State, node: &str) -> Result<Self, ApiError> {
        let nodes = api::find("", "v1", "nodes").ok_or(ApiError::NoSuchResource)?;
        let status = state.objects.current(nodes, "", node)?.value["status"].take();
        let addresses = status["addresses"].as_array().into_iter().flatten();
        let address = addresses
            .filter(|address| address["type"] == "InternalIP")
            .find_map(|address| address["address"].as_str()?.parse().ok());
        let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        let address = address.ok_or_else(|| {
            reply::internal(format!(
                "node {node} has no InternalIP: is its agent running?"
            ))
        })?;
        let port = port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(AGENT_PORT);
        Ok(Self {
            node: node.to_owned(),
            address,
            port,
        })
    }

    async fn get(&self, state: &State, path: &str) -> Result<Response<Incoming>, ApiError> {
        let pki = state
            .pki
            .as_ref()
            .ok_or_else(|| reply::internal("a server without certificates cannot reach agents"))?;
        let dialled = tokio::time::timeout(PATIENCE, self.dial(pki)).await;
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(&error.to_string())),
            Err(_) => return Err(self.unreachable("no answer")),
        };
        let failed = |error: hyper::Error| self.unreachable(&error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", format!("{}:{}", self.node, self.port))
            .body(Empty::<Bytes>::new())
            .map_err(reply::internal)?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        answer
            .map_err(|_| self.unreachable("no answer"))?
            .map_err(failed)
    }

    async fn dial(&self, pki: &Pki) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
        let issued = pki.issued();
        let mut config = client_config(pki.authority.certificate(), Some(&issued.agent_client))?;
        // One request a connection: HTTP/1.1 does.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect((self.address, self.port)).await?;
        // By name: a node may claim any address, and be given none of what is meant for others.
        let name = ServerName::try_from(self.node.clone())?;
        Ok(TlsConnector::from(std::sync::Arc::new(config))
            .connect(name, stream)
            .await?)
    }

    fn unreachable(&self, why: &str) -> ApiError {
        ApiError::ServiceUnavailable(format!(
            "the agent of node {} does not answer at {}:{}: {why}",
            self.node, self.address, self.port
        ))
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Escapes what a query value may not contain.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_only_container_needs_no_name() {
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "p", ""), Ok("a".to_owned()));
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let error = container(&two, "p", "").expect_err("ambiguous").to_string();
        assert_eq!(
            error,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert_eq!(container(&two, "p", "b"), Ok("b".to_owned()));
        assert!(container(&two, "p", "c").is_err());
    }

    #[test]
    fn query_values_are_escaped() {
        assert_eq!(
            escape("2026-01-01T00:00:00+01:00"),
            "2026-01-01T00:00:00%2B01:00"
        );
    }
}
