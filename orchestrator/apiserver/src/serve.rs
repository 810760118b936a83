//! HTTPS around the router: how many connections there may be, and whose each one is.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use futures::FutureExt as _;
use hyper::service::service_fn;
use rustls::ServerConfig;

use super::authn::User;
use super::dispatch::Dispatcher;
use super::shares::Peer;
use super::{ApiServer, port_owner};
use sys::connections::Limits;
use sys::descriptors;
use sys::front::{self, Front, RequestBody, Visit};
use sys::tls::{ClientCertificate, ShownCertificate, TlsError, server_config};

/// Connections at once, as far as the process may have so many files open. An agent has two or three: there is room
/// for those of 5,000 nodes.
const CONNECTIONS: usize = 32 * 1024;
/// Files that are open besides: the store, connections to agents.
const OTHER_FILES: usize = 256;
/// Connections at once that have shown no certificate, and those of them from one address.
const STRANGERS: usize = 2048;
const STRANGERS_PER_SOURCE: usize = 1024;
/// Connections at once with certificates of one name. Over HTTP/1.1 each watch needs one.
const PER_HOLDER: usize = 1024;

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
    front::make_room(&listener)?;
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
    let tls = Arc::new(tls);
    let shutdown = server.state.tasks.shutdown().clone();
    let front = Front::new(limits(descriptors::raise_limit()), shutdown);
    let listeners = listeners
        .into_iter()
        .map(tokio::net::TcpListener::from_std)
        .collect::<Result<Vec<_>, _>>()?;
    let dispatcher = Dispatcher::new(server.state.clone());
    let accepting = listeners.iter().map(|listener| {
        front.accept(listener, |visit| {
            converse(visit, tls.clone(), dispatcher.clone())
        })
    });
    let renewing = async {
        while issued.changed().await.is_ok() {
            if let Err(error) = shown.replace(&issued.borrow_and_update().server) {
                tracing::error!(%error, "the server's former certificate is shown");
            }
        }
    };
    tokio::select! {
        _ = futures::future::join_all(accepting) => {}
        () = renewing => {}
    }
    drop(listeners);
    if !front.closed().await {
        tracing::warn!("some requests did not end in time; their connections are closed");
    }
    Ok(())
}

fn limits(descriptors: usize) -> Limits {
    let all = descriptors
        .saturating_sub(OTHER_FILES)
        .clamp(64, CONNECTIONS);
    let strangers = STRANGERS.min(all / 4);
    Limits {
        all,
        strangers,
        strangers_per_source: STRANGERS_PER_SOURCE.min(strangers),
        per_holder: PER_HOLDER.min(all / 4),
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One connection, from its handshake to its end.
async fn converse(
    visit: Visit,
    tls: Arc<ServerConfig>,
    dispatcher: Dispatcher,
) -> Result<(), Failure> {
    // Both parts are boxed, so that there is never room for more than one of them.
    let secured = visit.shake_hands(tls).boxed().await?;
    let peer = Peer(secured.peer());
    let user = secured.identity().cloned().map(User::from_certificate);
    let user = user.map(|user| User {
        certificate: secured.shown().cloned(),
        ..user.at(secured.peer())
    });
    let service = service_fn(move |request: Request<RequestBody>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        if let Some(user) = &user {
            request.extensions_mut().insert(user.clone());
        }
        // Boxed, so that it goes with the head of the answer: HTTP/2 keeps room for it as long as a body is sent, and
        // a watch is sent for half an hour.
        let answer = dispatcher.clone().answer(request).boxed();
        answer.map(Ok::<_, Infallible>)
    });
    secured.serve(service).boxed().await
}
