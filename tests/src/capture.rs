//! Frames as they are: every one that crosses the switch since a capture began, and one's own.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, recv, sendto,
    setsockopt, socket, sockopt,
};
use std::net::Ipv4Addr;

use crate::netns::Netns;

/// A running capture; the kernel's buffer holds the frames until they are read.
pub struct Capture(OwnedFd);

/// Who speaks to whom in an IPv4 packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    /// The packet inside, if this is VXLAN.
    pub inner: Option<Box<Packet>>,
}

impl Capture {
    pub fn start(netns: &Netns) -> Result<Self> {
        let open = || {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
        };
        let socket = netns.enter(open)?;
        setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20))?;
        Ok(Self(socket))
    }

    /// The IPv4 packets seen; ARP and the like are left out.
    pub fn packets(self) -> Result<Vec<Packet>> {
        let mut packets = Vec::new();
        let mut frame = vec![0; 65_536];
        loop {
            match recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => packets.extend(packet(&frame[..length])),
                Err(Errno::EAGAIN) => return Ok(packets),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Sends a frame from a link of the namespace, whatever the frame says.
pub fn inject(netns: &Netns, link: &str, frame: &[u8]) -> Result<()> {
    netns.enter(|| {
        let of_link = getifaddrs()?
            .filter(|entry| entry.interface_name == link)
            .filter_map(|entry| Some(*entry.address?.as_link_addr()?))
            .find(|addr| addr.family() == Some(AddressFamily::Packet));
        let to = of_link.context("no such link")?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        let sent = sendto(socket.as_raw_fd(), frame, &to, MsgFlags::empty())?;
        ensure!(sent == frame.len(), "{sent} bytes left");
        Ok(())
    })
}

fn packet(frame: &[u8]) -> Option<Packet> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
        return None;
    };
    let inner = match &sliced.transport {
        Some(TransportSlice::Udp(udp)) if udp.destination_port() == 4789 => {
            packet(udp.payload().get(8..)?).map(Box::new)
        }
        _ => None,
    };
    let header = ip.header();
    Some(Packet {
        from: header.source_addr(),
        to: header.destination_addr(),
        inner,
    })
}
