//! Connections to whichever API server answers.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::timeout;
use tower::{BoxError, Service};

/// A server that accepts no connection for so long is left for the next one.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);

/// Connects to the server that answered last, or to the next one that does.
#[derive(Clone)]
pub(super) struct AnyServer {
    http: HttpConnector,
    servers: Arc<[Uri]>,
    /// The one that answered last.
    last: Arc<AtomicUsize>,
}

impl AnyServer {
    pub fn new(http: HttpConnector, servers: &[Uri]) -> Self {
        Self {
            http,
            servers: servers.into(),
            last: Arc::default(),
        }
    }
}

impl Service<Uri> for AnyServer {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, asked: Uri) -> Self::Future {
        let Self {
            mut http,
            servers,
            last,
        } = self.clone();
        Box::pin(async move {
            if servers.len() < 2 {
                return http.call(asked).await.map_err(Into::into);
            }
            let first = last.load(Ordering::Relaxed);
            let mut failed: BoxError = "no server is known".into();
            for index in (first..first + servers.len()).map(|index| index % servers.len()) {
                let server = servers[index].clone();
                match timeout(CONNECT_TIMEOUT, http.call(server.clone())).await {
                    Ok(Ok(connection)) => {
                        if last.swap(index, Ordering::Relaxed) != index {
                            tracing::info!(%server, "another API server is asked from now on");
                        }
                        return Ok(connection);
                    }
                    Ok(Err(error)) => failed = error.into(),
                    Err(_) => failed = format!("{server} does not answer in time").into(),
                }
            }
            Err(failed)
        })
    }
}

/// Where the agent reaches the API servers. A name that nobody knows now is the agent's to look up again.
pub async fn addresses(servers: &[http::Uri]) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for server in servers {
        let host = server.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = server.port_u16().unwrap_or(443);
        match tokio::net::lookup_host((host, port)).await {
            Ok(found) => all.extend(found.map(|address| address.ip())),
            Err(error) => {
                tracing::warn!(%error, host, "the API server's address is not kept from Services");
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn uri(listener: &TcpListener) -> Uri {
        let address = listener.local_addr().expect("an address");
        format!("http://{address}").parse().expect("a URL")
    }

    #[tokio::test]
    async fn a_server_that_refuses_is_left_for_the_next_one() {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let there = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let servers = [uri(&gone), uri(&there)];
        drop(gone);
        let mut connector = AnyServer::new(HttpConnector::new(), &servers);
        for _ in 0..2 {
            let connection = connector.call(servers[0].clone()).await.expect("connected");
            let peer = connection.inner().peer_addr().expect("an address");
            assert_eq!(Some(peer), there.local_addr().ok());
            assert_eq!(connector.last.load(Ordering::Relaxed), 1);
        }
        drop(there);
        assert!(connector.call(servers[0].clone()).await.is_err());
    }
}
