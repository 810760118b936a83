//! The sockets of the cluster's DNS: one pair for each family of the node, kept over the agent's end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, UdpSocket};

use super::hold::{self, Pair};
use datapath::Addrs;

/// The first that is free on the node: another name server may listen at all of its addresses. Below 1024,
/// so that no pod of the node's network takes it without the right to.
const PORTS: [u16; 3] = [53, 54, 55];

/// Queries that wait while the agent is busy, or away.
const RECEIVE_BUFFER: usize = 4 << 20;

const PAUSE: Duration = Duration::from_secs(1);

/// The sockets at one address.
pub struct Sockets {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
}

/// Opens the sockets at all addresses, at one port, as soon as it can; those that an earlier agent has left
/// are taken over. They are held from then on, until the future is dropped.
pub async fn open(
    node: &str,
    addrs: Addrs,
) -> (Vec<Sockets>, u16, impl Future<Output = ()> + use<>) {
    let (pairs, port) = loop {
        match adopted(node, addrs).map_or_else(|| fresh(node, addrs), Ok) {
            Ok(opened) => break opened,
            Err(error) => {
                tracing::error!(%error, %addrs, "pods have no DNS: no port of {PORTS:?} is free");
            }
        }
        tokio::time::sleep(PAUSE).await;
    };
    let mut kept = Vec::new();
    let mut opened = Vec::new();
    for pair in pairs {
        match (pair.clone(), pair.registered()) {
            (Ok(copy), Ok(sockets)) => {
                let is_ipv4 = copy.address().is_some_and(|it| it.is_ipv4());
                kept.push((hold::file(node, is_ipv4), copy));
                opened.push(sockets);
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "a socket of the cluster's DNS cannot be used");
            }
        }
    }
    (opened, port, keep(kept))
}

/// Sees to it that the sockets have a holder.
async fn keep(kept: Vec<(PathBuf, Pair)>) {
    let mut tick = tokio::time::interval(hold::TOUCH_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for (file, pair) in &kept {
            if !hold::touch(file)
                && let Err(error) = hold::start(file, pair)
            {
                tracing::warn!(%error, "queries will be lost while the agent is restarted");
            }
        }
    }
}

/// What an earlier agent has left, if all of it is there and where it should be.
fn adopted(node: &str, addrs: Addrs) -> Option<(Vec<Pair>, u16)> {
    let mut pairs = Vec::new();
    for addr in addrs.iter() {
        let file = hold::file(node, addr.is_ipv4());
        let pair = hold::adopt(&file);
        let pair = pair.inspect_err(|error| tracing::debug!(%error, "no sockets were left"));
        let pair = pair.ok()?;
        pair.address().filter(|at| at.ip() == addr)?;
        pairs.push(pair);
    }
    let ports = pairs.iter().filter_map(Pair::address);
    let ports: Vec<u16> = ports.map(|at| at.port()).collect();
    let first = *ports.first()?;
    ports
        .iter()
        .all(|port| *port == first)
        .then_some((pairs, first))
}

fn fresh(node: &str, addrs: Addrs) -> io::Result<(Vec<Pair>, u16)> {
    // Whoever holds others may let go of them.
    hold::forget(node);
    let mut why = None;
    for port in PORTS {
        let open = |addr| Pair::open(SocketAddr::new(addr, port));
        match addrs.iter().map(open).collect() {
            Ok(pairs) => return Ok((pairs, port)),
            Err(error) => why = Some(error),
        }
    }
    Err(why.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

impl Pair {
    fn clone(&self) -> io::Result<Self> {
        Ok(Self {
            udp: self.udp.try_clone()?,
            tcp: self.tcp.try_clone()?,
        })
    }

    /// For tokio.
    pub fn registered(self) -> io::Result<Sockets> {
        // Without the right to it, the kernel's own size has to do.
        let _ = setsockopt(&self.udp, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        Ok(Sockets {
            udp: UdpSocket::from_std(self.udp)?,
            tcp: TcpListener::from_std(self.tcp)?,
        })
    }
}
