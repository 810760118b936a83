//! The sockets of the cluster's DNS: one pair for each family of the node.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, UdpSocket};

use datapath::Addrs;

/// The first that is free on the node: another name server may listen at all of its addresses. Below 1024,
/// so that no pod of the node's network takes it without the right to.
const PORTS: [u16; 3] = [53, 54, 55];

/// Queries that wait while the agent is busy, or away.
const RECEIVE_BUFFER: usize = 4 << 20;

const PAUSE: Duration = Duration::from_secs(1);

/// At one address.
pub struct Sockets {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
}

/// Opens them at all addresses, at one port, as soon as it can.
pub async fn open(addrs: Addrs) -> (Vec<Sockets>, u16) {
    loop {
        let mut why = None;
        for port in PORTS {
            match open_at(addrs, port).await {
                Ok(opened) => return (opened, port),
                Err(error) => why = Some(error),
            }
        }
        if let Some(error) = why {
            tracing::error!(%error, %addrs, "pods have no DNS: no port of {PORTS:?} is free");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn open_at(addrs: Addrs, port: u16) -> io::Result<Vec<Sockets>> {
    let mut opened = Vec::new();
    for addr in addrs.iter() {
        opened.push(pair(addr, port).await?);
    }
    Ok(opened)
}

async fn pair(addr: IpAddr, port: u16) -> io::Result<Sockets> {
    let at = SocketAddr::new(addr, port);
    let udp = UdpSocket::bind(at).await?;
    // Without the right to it, the kernel's own size has to do.
    let _ = setsockopt(&udp, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    let tcp = TcpListener::bind(at).await?;
    Ok(Sockets { udp, tcp })
}
