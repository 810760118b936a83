//! One request over a connection of its own: what the API server's proxy passes on to a pod, to an endpoint of a
//! Service, or to a port of a node. It is the client's request, so nothing of it is kept for the next one.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::dialer::{self, ENDPOINTS_TRIED, HANDSHAKE_TIMEOUT};
use super::endpoints::Endpoint;
use super::{HEAD_BYTES, random_index, reason};
use crate::State;
use sys::front::AnyStream;
use sys::tls::{Trust, trusting_config};

/// Where a request goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// One of these, in this namespace; whether it may be reached is looked at then.
    Endpoints(String, Vec<Endpoint>),
    /// A port of a node, from this machine.
    Node(SocketAddr),
}

/// Sends a request, whose URI is a path, to the first that takes a connection. After 101 the connection can be
/// had by `hyper::upgrade::on`. With `tls` any certificate will do, as in Kubernetes: nobody says which name to
/// expect of a pod.
///
/// # Errors
/// Why nobody was reached, in the words of Go's HTTP client.
pub async fn send_once(
    state: &State,
    to: &Destination,
    tls: bool,
    request: Request<Body>,
) -> Result<Response<Incoming>, String> {
    let (address, stream) = reach(state, to).await?;
    let stream = match tls {
        true => secure(address, stream).await?,
        false => stream,
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES);
    let (mut sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| reason(&error))?;
    tokio::spawn(connection.with_upgrades());
    let answer = sender.send_request(request).await;
    answer.map_err(|error| match error.is_incomplete_message() {
        true => "EOF".to_owned(),
        false => reason(&error),
    })
}

async fn reach(state: &State, to: &Destination) -> Result<(SocketAddr, AnyStream), String> {
    let (namespace, endpoints) = match to {
        Destination::Node(address) => {
            let (host, port) = (address.ip().to_string(), address.port());
            return Ok((*address, dialer::direct(&host, port).await?));
        }
        Destination::Endpoints(namespace, endpoints) => (namespace, endpoints),
    };
    let mut why = String::new();
    let first = random_index(endpoints.len());
    let ordered = endpoints.iter().cycle().skip(first);
    for endpoint in ordered.take(endpoints.len().min(ENDPOINTS_TRIED)) {
        match dialer::go(state, namespace, endpoint).await {
            Ok(stream) => return Ok((endpoint.address, stream)),
            Err(reason) => why = reason,
        }
    }
    Err(why)
}

async fn secure(address: SocketAddr, stream: AnyStream) -> Result<AnyStream, String> {
    let config = trusting_config(Trust::Anybody, None);
    let mut config = config.map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::from(address.ip());
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(format!("tls: {error}")),
        Err(_) => Err("net/http: TLS handshake timeout".to_owned()),
    }
}
