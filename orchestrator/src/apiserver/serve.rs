//! HTTPS around the router: accept, shake hands, serve until told to stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::attempts::Remote;
use super::authn::User;
use super::{ApiServer, port_owner};
use crate::sys::tls::{ClientCertificate, ShownCertificate, TlsError, server_config};

/// A peer that does not finish its handshake, or its request's head, in this time is dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long open requests may take to end after the server was told to stop.
const FAREWELL: Duration = Duration::from_secs(3);
/// Watches of one client share a connection.
const STREAMS_PER_CONNECTION: u32 = 1000;

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "port {port} of {address} is in use{}: stop that process, or choose another address with \
         --bind",
        owner.as_ref().map(|owner| format!(" by {owner}")).unwrap_or_default()
    )]
    InUse {
        address: std::net::IpAddr,
        port: u16,
        owner: Option<String>,
    },
    #[error("{0} is no address of this machine: choose one with --bind, or make it first")]
    NotHere(SocketAddr),
    #[error("{address} cannot be listened on: {source}")]
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("a server without certificates cannot listen")]
    NoCertificates,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("a listener failed: {0}")]
    Listener(#[from] io::Error),
}

/// Takes an address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::InUse {
            address: address.ip(),
            port: address.port(),
            owner: port_owner::of(address.port()),
        },
        io::ErrorKind::AddrNotAvailable => ServeError::NotHere(address),
        _ => ServeError::Bind { address, source },
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves on every listener until the server's tasks are told to stop, then lets open requests end.
pub async fn serve(server: &ApiServer, listeners: Vec<TcpListener>) -> Result<(), ServeError> {
    let pki = server
        .state
        .pki
        .as_ref()
        .ok_or(ServeError::NoCertificates)?;
    let mut issued = pki.follow();
    let shown = ShownCertificate::new(&issued.borrow_and_update().server)?;
    let tls = server_config(
        shown.clone(),
        pki.authority.certificate(),
        ClientCertificate::Optional,
    )?;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let open = GracefulShutdown::new();
    let shutdown = server.state.tasks.shutdown().clone();
    let listeners = listeners
        .into_iter()
        .map(tokio::net::TcpListener::from_std)
        .collect::<Result<Vec<_>, _>>()?;
    let accepting = listeners
        .iter()
        .map(|listener| accept(server, listener, &acceptor, &open));
    let renewing = async {
        while issued.changed().await.is_ok() {
            if let Err(error) = shown.replace(&issued.borrow_and_update().server) {
                tracing::error!(%error, "the server's new certificate cannot be shown");
            }
        }
    };
    let serving = futures::future::join(futures::future::join_all(accepting), renewing);
    shutdown.unless(serving).await;
    drop(listeners);
    if tokio::time::timeout(FAREWELL, open.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests did not end in time; their connections are closed");
    }
    Ok(())
}

async fn accept(
    server: &ApiServer,
    listener: &tokio::net::TcpListener,
    acceptor: &TlsAcceptor,
    open: &GracefulShutdown,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => {
                let (server, acceptor) = (server.clone(), acceptor.clone());
                // Counted before the handshake: stopping waits for it too, at most its patience.
                let watcher = open.watcher();
                tokio::spawn(async move {
                    if let Err(error) = converse(server, stream, acceptor, watcher).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others have to end first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One connection, from its handshake to its end.
async fn converse(
    server: ApiServer,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let remote = Remote(stream.peer_addr()?);
    let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let user = certificate.map(|der| User::of_peer(der)).transpose()?;
    let ends = user.as_ref().and_then(|user| user.certificate.as_ref());
    let ends = ends.map(|shown| shown.ends.duration_since(Timestamp::now()));
    let router = server.router().layer(Extension(remote));
    let router = match user {
        Some(user) => router.layer(Extension(user)),
        None => router,
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let connection = watcher.watch(connection.into_owned());
    let Some(left) = ends else {
        return connection.await;
    };
    // Watches end with the certificate; what is left then has a moment.
    let left = Duration::try_from(left).unwrap_or_default() + FAREWELL;
    let ended = tokio::time::timeout(left, connection).await;
    ended.unwrap_or(Ok(()))
}
