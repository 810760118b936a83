//! Frames as they are: every one that crosses the switch since a capture began, and one's own.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, recv,
    recvfrom, sendto, setsockopt, socket, sockopt,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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

/// What the sender's stack gave to its link in one piece: a TCP segment, or several that the link was
/// to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub syn: bool,
    pub seq: u32,
    /// Payload of all of it.
    pub bytes: u32,
    /// The IP packet that the wire has to carry: of the largest, if it was to be cut.
    pub size: u32,
}

/// Has frames begin with what their sender leaves to the link: how they are to be cut.
#[derive(Clone)]
struct VnetHeader;

nix::setsockopt_impl!(
    VnetHeader,
    libc::SOL_PACKET,
    libc::PACKET_VNET_HDR,
    bool,
    sockopt::SetBool
);

/// Its length, and where it has the payload of a segment.
const VNET_HEADER: usize = 10;
const VNET_GSO_SIZE: usize = 4;

impl Capture {
    /// For [`Capture::sent`].
    pub fn of_segments(netns: &Netns) -> Result<Self> {
        let capture = Self::start(netns)?;
        setsockopt(&capture.0, VnetHeader, &true)?;
        Ok(capture)
    }

    /// The TCP segments that sockets of the namespace have sent since the last call.
    pub fn sent(&self) -> Result<Vec<Segment>> {
        let mut segments = Vec::new();
        let mut frame = vec![0; 65_536 + 64];
        loop {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut frame) {
                Ok((length, Some(link))) if link.pkttype() == libc::PACKET_OUTGOING => {
                    segments.extend(segment(&frame[..length]));
                }
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(segments),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

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

fn segment(captured: &[u8]) -> Option<Segment> {
    let (header, frame) = captured.split_at_checked(VNET_HEADER)?;
    let [low, high] = header[VNET_GSO_SIZE..][..2] else {
        return None;
    };
    let cut = u32::from(u16::from_ne_bytes([low, high]));
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        _ => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
        return None;
    };
    let bytes = u32::try_from(tcp.payload().len()).ok()?;
    let ip = if source.is_ipv4() { 20 } else { 40 };
    let headers = ip + u32::try_from(tcp.header_slice().len()).ok()?;
    let largest = if cut == 0 { bytes } else { cut.min(bytes) };
    Some(Segment {
        from: SocketAddr::new(source, tcp.source_port()),
        to: SocketAddr::new(destination, tcp.destination_port()),
        syn: tcp.syn(),
        seq: tcp.sequence_number(),
        bytes,
        size: headers + largest,
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
