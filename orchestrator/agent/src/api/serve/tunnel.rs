//! CONNECT: a stream of bytes between the API server and a pod.
//!
//! The API server has no place in the pod network; an agent has. So it is the way to webhooks, aggregated
//! servers and pods, on this node or another one, and to nothing else: the address must lie in the
//! cluster's pod ranges, and be none of those that nodes have there for themselves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use sys::certificates::Identity;
use sys::front::Takeover;
use sys::relay::relay;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::is_api_server;
use crate::node::join::Ranges;

/// Tunnels at once. Each is a connection of the server's, of which logs need some too.
const TUNNELS: usize = 384;
/// How long a pod may take to accept a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// A tunnel ends that has carried nothing for so long, as a kubelet's streams do.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// The tunnels of a node. Clones share them.
#[derive(Clone)]
pub struct Tunnels {
    room: Arc<Semaphore>,
    pods: Arc<[Ranges]>,
}

/// What a CONNECT asks for.
pub struct Wish {
    target: String,
    takeover: Option<Takeover>,
    from: Option<Arc<Identity>>,
}

impl Wish {
    pub fn of<B>(request: &Request<B>, from: Option<Arc<Identity>>) -> Self {
        let authority = request.uri().authority();
        Self {
            target: authority.map(ToString::to_string).unwrap_or_default(),
            takeover: request.extensions().get().cloned(),
            from,
        }
    }
}

impl Tunnels {
    /// To pods of these ranges.
    pub fn new(pods: Vec<Ranges>) -> Self {
        Self {
            room: Arc::new(Semaphore::new(TUNNELS)),
            pods: pods.into(),
        }
    }

    /// Answers CONNECT. After a success the connection is the tunnel.
    pub async fn answer(&self, wish: Wish) -> Response<Body> {
        match self.open(wish).await {
            Ok(()) => StatusCode::OK.into_response(),
            Err(refusal) => refusal.into_response(),
        }
    }

    async fn open(&self, wish: Wish) -> Result<(), (StatusCode, String)> {
        if !wish.from.as_deref().is_some_and(is_api_server) {
            let why = "tunnels are for the API server".to_owned();
            return Err((StatusCode::FORBIDDEN, why));
        }
        let target: SocketAddr = wish.target.parse().map_err(|_| {
            let why = "CONNECT takes an address and a port".to_owned();
            (StatusCode::BAD_REQUEST, why)
        })?;
        if !self.leads_to_a_pod(target.ip()) {
            let why = format!("{} is not an address of a pod", target.ip());
            return Err((StatusCode::FORBIDDEN, why));
        }
        let Some(takeover) = wish.takeover else {
            let why = "CONNECT works over HTTP/1.1".to_owned();
            return Err((StatusCode::HTTP_VERSION_NOT_SUPPORTED, why));
        };
        let room = self.room.clone().try_acquire_owned().map_err(|_| {
            let why = format!("this node has {TUNNELS} tunnels, as many as it may");
            (StatusCode::SERVICE_UNAVAILABLE, why)
        })?;
        let pod = dial(target).await?;
        takeover.then(move |server| carry(server, pod, room));
        Ok(())
    }

    fn leads_to_a_pod(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let mut ranges = self.pods.iter();
        let range = ranges.find(|range| range.pods.contains(address));
        range.is_some_and(|range| !is_of_a_node(range, address))
    }
}

/// The first number of each node's share of a range is the node itself.
fn is_of_a_node(range: &Ranges, address: IpAddr) -> bool {
    let (number, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let host_bits = u32::from(width - range.mask_bits.min(width));
    let within = number & 1_u128.checked_shl(host_bits).map_or(u128::MAX, |it| it - 1);
    within <= 1
}

async fn dial(target: SocketAddr) -> Result<TcpStream, (StatusCode, String)> {
    let dialled = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(target)).await;
    let failed = |why: &dyn std::fmt::Display| {
        (
            StatusCode::BAD_GATEWAY,
            format!("dial tcp {target}: connect: {why}"),
        )
    };
    match dialled {
        Ok(Ok(stream)) => {
            // What is small must not wait for the answer to what went before.
            stream.set_nodelay(true).map_err(|error| failed(&error))?;
            Ok(stream)
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(failed(&"connection refused"))
        }
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => {
            let why = format!("dial tcp {target}: i/o timeout");
            Err((StatusCode::GATEWAY_TIMEOUT, why))
        }
    }
}

async fn carry(server: sys::front::AnyStream, pod: TcpStream, room: OwnedSemaphorePermit) {
    relay(server, pod, IDLE_TIMEOUT).await;
    drop(room);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::{ADMINISTRATORS, API_SERVER};
    use super::*;

    fn tunnels(pods: &str, mask_bits: u8) -> Tunnels {
        Tunnels::new(vec![Ranges {
            pods: pods.parse().expect("a range"),
            mask_bits,
            services: None,
        }])
    }

    fn server() -> Identity {
        Identity::new(API_SERVER, &[ADMINISTRATORS])
    }

    /// The answer to a CONNECT whose target is not reached.
    async fn refusal(tunnels: &Tunnels, from: Option<Identity>, target: &str) -> u16 {
        let mut request = Request::connect(target).body(()).expect("a request");
        request.extensions_mut().insert(Takeover::default());
        let wish = Wish::of(&request, from.map(Arc::new));
        let answer = tunnels.answer(wish).await;
        answer.status().as_u16()
    }

    #[tokio::test]
    async fn nobody_but_the_api_server_is_given_a_tunnel() {
        let tunnels = tunnels("127.9.0.0/16", 24);
        let admin = Identity::new("kubernetes-admin", &[ADMINISTRATORS]);
        let node = Identity::new("system:node:node-2", &["system:nodes"]);
        let impostor = Identity::new(API_SERVER, &["users"]);
        for from in [None, Some(admin), Some(node), Some(impostor)] {
            assert_eq!(refusal(&tunnels, from, "127.9.1.5:80").await, 403);
        }
    }

    #[tokio::test]
    async fn a_tunnel_leads_to_pods_and_nowhere_else() {
        let tunnels = tunnels("10.100.0.0/16", 24);
        for target in [
            "127.0.0.1:10250",
            "172.31.0.11:10250",
            "[::1]:6443",
            "[::ffff:127.0.0.1]:6443",
            "169.254.169.254:80",
            "10.96.0.1:443",
            "0.0.0.0:80",
            // Each node's own numbers in the range.
            "10.100.7.0:80",
            "10.100.7.1:10250",
        ] {
            let code = refusal(&tunnels, Some(server()), target).await;
            assert_eq!(code, 403, "{target}");
        }
        for target in ["web.shop.svc:80", "10.100.1.2"] {
            let code = refusal(&tunnels, Some(server()), target).await;
            assert_eq!(code, 400, "{target}");
        }
        assert!(tunnels.leads_to_a_pod([10, 100, 7, 2].into()));
    }

    #[tokio::test]
    async fn a_pod_that_does_not_listen_is_told_with_its_address() {
        let free = TcpListener::bind("127.9.1.5:0").await.expect("a port");
        let target = free.local_addr().expect("an address");
        drop(free);
        let tunnels = tunnels("127.9.0.0/16", 24);
        let code = refusal(&tunnels, Some(server()), &target.to_string()).await;
        assert_eq!(code, 502);
        assert_eq!(
            tunnels.room.available_permits(),
            TUNNELS,
            "its room is free"
        );
    }

    #[tokio::test]
    async fn there_are_only_so_many_tunnels() {
        let pod = TcpListener::bind("127.9.1.5:0").await.expect("a port");
        let target = pod.local_addr().expect("an address").to_string();
        let tunnels = tunnels("127.9.0.0/16", 24);
        let all = tunnels.room.clone().acquire_many_owned(TUNNELS as u32);
        let all = all.await.expect("room");
        assert_eq!(refusal(&tunnels, Some(server()), &target).await, 503);
        drop(all);
        assert_eq!(refusal(&tunnels, Some(server()), &target).await, 200);
    }

    #[tokio::test]
    async fn a_tunnel_ends_with_its_pod_and_gives_back_its_room() {
        let listener = TcpListener::bind("127.9.1.5:0").await.expect("a port");
        let target = listener.local_addr().expect("an address");
        let room = Arc::new(Semaphore::new(1));
        let permit = room.clone().acquire_owned().await.expect("room");
        let pod = dial(target).await.expect("it listens");
        let (mut server, end) = tokio::io::duplex(64);
        let carried = tokio::spawn(carry(Box::new(end), pod, permit));
        let (mut pod, _) = listener.accept().await.expect("a connection");
        server.write_all(b"ping").await.expect("written");
        let mut heard = [0; 4];
        pod.read_exact(&mut heard).await.expect("read");
        pod.write_all(&heard).await.expect("written");
        drop(pod);
        let mut echoed = String::new();
        server.shutdown().await.expect("shut down");
        server.read_to_string(&mut echoed).await.expect("read");
        assert_eq!(echoed, "ping");
        carried.await.expect("no panic");
        assert_eq!(room.available_permits(), 1);
    }
}
