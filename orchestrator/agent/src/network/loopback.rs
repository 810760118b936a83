//! Connections to what a pod listens on at its own loopback addresses.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// How long a process may take to accept.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects with a port at 127.0.0.1, else at ::1, in the network namespace of a process. A socket stays in the
/// namespace in which it was made, so that only that is done there.
///
/// # Errors
/// Why neither is reached, with both addresses, as the container runtimes of Kubernetes tell it.
pub async fn dial(pid: u32, port: u16) -> io::Result<TcpStream> {
    let (v4, v6) = sockets(pid).await?;
    let v4 = connect(v4, Ipv4Addr::LOCALHOST.into(), port).await;
    let why = match v4 {
        Ok(stream) => return Ok(stream),
        Err(why) => why,
    };
    match connect(v6, Ipv6Addr::LOCALHOST.into(), port).await {
        Ok(stream) => Ok(stream),
        Err(error) => Err(io::Error::other(format!(
            "failed to connect to localhost:{port} inside namespace, IPv4: {why} IPv6: {error}"
        ))),
    }
}

type Sockets = (io::Result<TcpSocket>, io::Result<TcpSocket>);

async fn sockets(pid: u32) -> io::Result<Sockets> {
    let (done, made) = oneshot::channel();
    // A thread of its own, which ends in that namespace.
    std::thread::Builder::new()
        .name("pod socket".to_owned())
        .spawn(move || {
            // Whoever waited is gone, or hears of it.
            let _ = done.send(enter(pid).map(|()| (TcpSocket::new_v4(), TcpSocket::new_v6())));
        })?;
    made.await
        .unwrap_or_else(|_| Err(io::Error::other("the thread ended without a socket")))
}

fn enter(pid: u32) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

async fn connect(
    socket: io::Result<TcpSocket>,
    address: IpAddr,
    port: u16,
) -> io::Result<TcpStream> {
    let target = SocketAddr::new(address, port);
    let failed = |why: &dyn std::fmt::Display| {
        let network = if address.is_ipv4() { "tcp4" } else { "tcp6" };
        io::Error::other(format!("dial {network} {target}: {why}"))
    };
    let socket = socket.map_err(|error| failed(&error))?;
    match tokio::time::timeout(DIAL_TIMEOUT, socket.connect(target)).await {
        Ok(Ok(stream)) => {
            // What is small must not wait for the answer to what went before.
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(failed(&"connect: connection refused"))
        }
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(failed(&"i/o timeout")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Whether this process may enter a namespace, if only its own.
    fn may_enter() -> bool {
        std::thread::spawn(|| enter(std::process::id()).is_ok())
            .join()
            .is_ok_and(|entered| entered)
    }

    #[tokio::test]
    async fn a_port_of_either_loopback_address_is_reached() {
        if !may_enter() {
            return;
        }
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else {
                continue;
            };
            let port = listener.local_addr().expect("an address").port();
            let dialled = dial(std::process::id(), port).await;
            assert!(dialled.is_ok(), "{address}: {dialled:?}");
        }
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_told_with_both_addresses() {
        if !may_enter() {
            return;
        }
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let why = dial(std::process::id(), port).await.expect_err("refused");
        let why = why.to_string();
        let refused = format!("dial tcp4 127.0.0.1:{port}: connect: connection refused");
        assert!(
            why.contains(&refused) && why.contains("dial tcp6 [::1]"),
            "{why}"
        );
    }
}
