//! Answers the health checks of load balancers, one port a Service, as kube-proxy does (KEP-27):
//! `200` while this node has ready endpoints, else `503`, and how many in a header and in JSON.
//!
//! A port is bound in the node's own network namespace, on all its addresses, while a Service asks
//! for it; one that cannot be bound is tried again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use hyper::service::service_fn;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::api::events::{self, Recorder};
use crate::network::health_checks::HealthChecks;
use datapath::ObjectKey;
use sys::Shutdown;
use sys::connections::Limits;
use sys::front::{Front, RequestBody, Visit};

const RETRY: Duration = Duration::from_secs(5);
/// Connections at once to all ports together: pods can reach them, and so may the world.
const LIMITS: Limits = Limits {
    all: 512,
    strangers: 512,
    strangers_per_source: 64,
    per_holder: 0,
};

/// Load balancers that weigh nodes read the number of local endpoints here.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What the ports are answered from.
#[derive(Clone)]
pub struct Source {
    pub checks: watch::Receiver<HealthChecks>,
    /// The node's maps hold what the API has: it may be sent connections.
    pub in_sync: watch::Receiver<bool>,
}

/// Keeps a port bound for every Service that asks for one, until shutdown.
pub async fn run(mut source: Source, node: String, recorder: Recorder, shutdown: Shutdown) {
    let mut open: BTreeMap<u16, Listening> = BTreeMap::new();
    // By port: for which Service it could not be bound; each hears of it once.
    let mut failed: BTreeMap<u16, ObjectKey> = BTreeMap::new();
    let serving = shutdown.child();
    let front = Front::new(LIMITS, serving.clone());
    loop {
        let checks = source.checks.borrow_and_update().clone();
        let wanted = checks.ports();
        let unwanted: Vec<u16> = open.keys().copied().collect();
        for port in unwanted.into_iter().filter(|it| !wanted.contains_key(it)) {
            if let Some(listening) = open.remove(&port) {
                listening.close().await;
            }
        }
        failed.retain(|port, service| wanted.get(port).is_some_and(|(key, _)| *key == service));
        for (port, (key, asked)) in wanted {
            if open.contains_key(&port) {
                continue;
            }
            match listen(port).await {
                Ok(listener) => {
                    failed.remove(&port);
                    open.insert(
                        port,
                        Listening::start(listener, port, source.clone(), &front, serving.child()),
                    );
                }
                Err(error) if failed.insert(port, key.clone()).is_none() => {
                    let message = format!(
                        "node {node} failed to start healthcheck {key} on port {port}: {error}; find \
                         what holds the port there with `ss -ltnp`, or give the Service another \
                         healthCheckNodePort; trying again every {RETRY:?}"
                    );
                    tracing::warn!(message);
                    let about = events::service(key, &asked.uid);
                    recorder.warning(about, "FailedToStartServiceHealthcheck", message);
                }
                Err(_) => {}
            }
        }
        let again = async {
            match failed.is_empty() {
                true => std::future::pending().await,
                false => tokio::time::sleep(RETRY).await,
            }
        };
        tokio::select! {
            () = shutdown.requested() => return,
            changed = source.checks.changed() => if changed.is_err() { return serving.trigger() },
            () = again => {}
        }
    }
}

/// All addresses of the node, of both families where it has both.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        // EAFNOSUPPORT, EADDRNOTAVAIL: the node has no IPv6.
        Err(error) if matches!(error.raw_os_error(), Some(97 | 99)) => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        bound => bound,
    }
}

/// One bound port.
struct Listening {
    stop: Shutdown,
    task: JoinHandle<()>,
}

impl Listening {
    fn start(
        listener: TcpListener,
        port: u16,
        source: Source,
        front: &Front,
        stop: Shutdown,
    ) -> Listening {
        let front = front.beside(stop.clone());
        let router = router(port, source);
        let task = tokio::spawn(async move {
            let serve = |visit: Visit| {
                let router = router.clone();
                let answer = move |request: Request<RequestBody>| {
                    router.clone().oneshot(request.map(Body::new))
                };
                visit.serve_plain(service_fn(answer))
            };
            front.accept(&listener, serve).await;
        });
        Listening { stop, task }
    }

    /// Returns when the port is free. Clients that hold their connections do not hold the port.
    async fn close(self) {
        self.stop.trigger();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "health checks were not answered any more");
        }
    }
}

/// Every path is answered alike.
fn router(port: u16, source: Source) -> Router {
    Router::new().fallback(answer).with_state((port, source))
}

async fn answer(State((port, source)): State<(u16, Source)>) -> Response {
    let count = source.checks.borrow().count(port);
    let Some(count) = count else {
        return (StatusCode::NOT_FOUND, "no Service asks for this port").into_response();
    };
    let healthy = *source.in_sync.borrow();
    let status = if healthy && count.local_endpoints > 0 {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let service = &count.service;
    let body = json!({
        "service": { "namespace": service.namespace(), "name": service.name() },
        "localEndpoints": count.local_endpoints,
        "serviceProxyHealthy": healthy,
    });
    let nosniff = (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let weight = (WEIGHT, HeaderValue::from(count.local_endpoints));
    (status, [nosniff, weight], Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body_util::BodyExt;
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use kube::Client;
    use kube::client::Body;
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::new("shop", "web")
    }

    fn service(port: u16) -> Service {
        let service = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "s1"},
            "spec": {
                "type": "LoadBalancer",
                "externalTrafficPolicy": "Local",
                "healthCheckNodePort": port,
            },
        });
        serde_json::from_value(service).expect("a Service")
    }

    fn slice(ready: bool) -> EndpointSlice {
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["10.100.1.2"],
                "nodeName": "n1",
                "conditions": {"ready": ready, "terminating": !ready},
            }],
        });
        serde_json::from_value(slice).expect("a slice")
    }

    /// What is heard on a port: status, weight, body.
    async fn ask(port: u16) -> Option<(u16, String, Value)> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let request = b"GET /healthz HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let weight = head
            .lines()
            .find_map(|line| line.strip_prefix("x-load-balancing-endpoint-weight: "))?;
        Some((status, weight.to_owned(), serde_json::from_str(body).ok()?))
    }

    async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        for _ in 0..500 {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {what}");
    }

    /// A client that remembers the messages of events.
    fn recorder(told: Arc<Mutex<Vec<String>>>) -> Recorder {
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let told = told.clone();
            async move {
                let bytes = request.into_body().collect().await?.to_bytes();
                let event: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                told.lock().expect("whole").push(text(&event["message"]));
                Ok::<_, kube::Error>(http::Response::new(Body::from(bytes.to_vec())))
            }
        });
        events::recorder(Client::new(service, "default"), "n1".to_owned())
    }

    #[tokio::test]
    async fn a_port_is_bound_while_a_service_asks_and_says_how_many_pods_are_here() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (checks, watched) = watch::channel(HealthChecks::default());
        let (synced, in_sync) = watch::channel(false);
        let source = Source {
            checks: watched,
            in_sync,
        };
        let task = run(source, "n1".into(), recorder(told.clone()), Shutdown::new());
        let task = tokio::spawn(task);

        checks.send_modify(|checks| checks.service(key(), Some(&service(port))));
        let message = until("an event", async || told.lock().expect("whole").pop()).await;
        assert!(message.contains(&format!("on port {port}: ")), "{message}");
        assert!(message.contains("ss -ltnp"), "{message}");
        drop(taken);
        // Any change makes it try again.
        checks.send_modify(|checks| checks.slice(key(), Some(&slice(true)), "n1"));
        let starting = until("bound", async || ask(port).await).await;
        assert_eq!(
            (starting.0, &*starting.1),
            (503, "1"),
            "the maps are not there yet"
        );
        synced.send_replace(true);
        let body = json!({
            "service": {"namespace": "shop", "name": "web"},
            "localEndpoints": 1,
            "serviceProxyHealthy": true,
        });
        assert_eq!(ask(port).await, Some((200, "1".to_owned(), body.clone())));
        // Clients that say nothing take no more descriptors than are meant for them.
        let mut silent = Vec::new();
        for _ in 0..3 * LIMITS.strangers_per_source {
            silent.push(
                TcpStream::connect(("127.0.0.1", port))
                    .await
                    .expect("it listens"),
            );
        }
        until("the oldest of them closed", async || {
            let open = silent.iter().filter(|stream| {
                let read = stream.try_read(&mut [0]);
                read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            });
            (open.count() <= LIMITS.strangers_per_source).then_some(())
        })
        .await;
        assert_eq!(ask(port).await, Some((200, "1".to_owned(), body.clone())));
        checks.send_modify(|checks| checks.slice(key(), Some(&slice(false)), "n1"));
        let (status, weight, _) = ask(port).await.expect("an answer");
        assert_eq!(
            (status, &*weight),
            (503, "0"),
            "only a terminating one is left"
        );
        checks.send_modify(|checks| checks.service(key(), None));
        let free = async || std::net::TcpListener::bind(("0.0.0.0", port)).ok();
        until("free again", free).await;
        task.abort();
    }
}
