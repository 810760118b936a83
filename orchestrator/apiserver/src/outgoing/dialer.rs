//! Makes the connections of a client: finds where its server is now, gets there, and sees that it is the
//! one that is meant.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Uri;
use futures::future::BoxFuture;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Service;

use super::endpoints::{self, Endpoint, ServicePort, Way};
use super::{agents, random_index};
use crate::State;
use sys::front::AnyStream;

/// How long a server may take to accept a connection, and for its TLS handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many of a Service's endpoints are tried for one connection.
pub const ENDPOINTS_TRIED: usize = 3;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Anywhere that this machine reaches.
    At { host: String, port: u16 },
    /// Behind a Service of the cluster.
    Of(ServicePort),
}

/// Connects with one server.
#[derive(Clone)]
pub struct Dialer {
    pub state: Weak<State>,
    pub server: Arc<Server>,
    /// None: without TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whom the server's certificate must name.
    pub name: ServerName<'static>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DialError(pub String);

impl Service<Uri> for Dialer {
    type Response = Dialled;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Dialled, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial().await.map_err(DialError) })
    }
}

impl Dialer {
    async fn dial(self) -> Result<Dialled, String> {
        let stream = {
            let state = self.state.upgrade();
            let state = state.ok_or("the server is stopping")?;
            reach(&state, &self.server).await?
        };
        let Some(tls) = self.tls else {
            return Ok(Dialled(TokioIo::new(stream)));
        };
        let handshake = TlsConnector::from(tls).connect(self.name, stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(Dialled(TokioIo::new(Box::new(stream)))),
            Ok(Err(error)) => Err(format!("tls: {error}")),
            Err(_) => Err("net/http: TLS handshake timeout".to_owned()),
        }
    }
}

async fn reach(state: &State, server: &Server) -> Result<AnyStream, String> {
    match server {
        Server::At { host, port } => direct(host, *port).await,
        Server::Of(service) => {
            let mut endpoints =
                endpoints::ready(state, service).map_err(|unready| unready.to_string())?;
            let first = random_index(endpoints.len());
            endpoints.rotate_left(first);
            let mut why = String::new();
            for endpoint in endpoints.iter().take(ENDPOINTS_TRIED) {
                match go(state, &service.namespace, endpoint).await {
                    Ok(stream) => return Ok(stream),
                    Err(reason) => why = reason,
                }
            }
            Err(why)
        }
    }
}

/// A stream of bytes to an endpoint that may be reached.
pub async fn go(state: &State, namespace: &str, endpoint: &Endpoint) -> Result<AnyStream, String> {
    match endpoints::way(state, namespace, endpoint)? {
        Way::Tunnel => agents::tunnel(state, endpoint.address, endpoint.node.as_deref()).await,
        Way::Direct => {
            let (host, port) = (endpoint.address.ip().to_string(), endpoint.address.port());
            direct(&host, port).await
        }
    }
}

/// A connection from this machine.
pub async fn direct(host: &str, port: u16) -> Result<AnyStream, String> {
    let dialled = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect((host, port))).await;
    let failed = |why: &dyn std::fmt::Display| format!("dial tcp {host}:{port}: {why}");
    match dialled {
        Ok(Ok(stream)) => {
            // What is small must not wait for the answer to what went before.
            stream.set_nodelay(true).map_err(|error| failed(&error))?;
            Ok(Box::new(stream))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(failed(&"connect: connection refused"))
        }
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(failed(&"i/o timeout")),
    }
}

/// A connection of the pool.
pub struct Dialled(TokioIo<AnyStream>);

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
