//! Builds frames, and judges frames that came out: every checksum is computed anew.

mod outer;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{
    Ethernet2Header, Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
    checksum, icmpv6,
};

pub use outer::{Outer, see_outer, with_congestion};

pub const SENDER_MAC: [u8; 6] = [0x02, 0xaa, 0, 0, 0, 1];
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0xaa, 0, 0, 0, 2];

/// An address and a port, written `("10.100.1.5", 40000)` in tests.
pub type End<'a> = (&'a str, u16);

/// A TCP segment's flags, as a test says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    Syn,
    Ack,
    Fin,
    Rst,
}

pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("a test's address")
}

/// Of either family.
pub fn any_ip(text: &str) -> IpAddr {
    text.parse().expect("a test's address")
}

fn is_v6(frame: &[u8]) -> bool {
    frame[12..14] == [0x86, 0xdd]
}

fn builder(from: &str, to: &str) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(SENDER_MAC, GATEWAY_MAC);
    match (any_ip(from), any_ip(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        (from, to) => panic!("{from} and {to} are of two families"),
    }
}

pub fn udp(from: End<'_>, to: End<'_>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = builder(from.0, to.0).udp(from.1, to.1);
    builder
        .write(&mut frame, payload)
        .expect("writing to memory");
    frame
}

pub fn tcp(from: End<'_>, to: End<'_>, flags: Flags, payload: &[u8]) -> Vec<u8> {
    let builder = builder(from.0, to.0).tcp(from.1, to.1, 1000, 64240);
    let builder = match flags {
        Flags::Syn => builder.syn(),
        Flags::Ack => builder.ack(2000),
        Flags::Fin => builder.fin().ack(2000),
        Flags::Rst => builder.rst(),
    };
    let mut frame = Vec::new();
    builder
        .write(&mut frame, payload)
        .expect("writing to memory");
    frame
}

/// A frame in VXLAN, as one node sends it to another.
pub fn vxlan(from: &str, to: &str, vni: u32, inner: &[u8]) -> Vec<u8> {
    let mut payload = vec![8, 0, 0, 0];
    payload.extend((vni << 8).to_be_bytes());
    payload.extend(inner);
    let mut frame = udp((from, 50000), (to, 4789), &payload);
    // RFC 7348, section 4.1: without a checksum.
    let checksum = if is_v6(&frame) { 60 } else { 40 };
    frame[checksum..checksum + 2].fill(0);
    frame
}

/// An IPv4 frame with another type of service.
pub fn with_class(frame: &[u8], class: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[15] = class;
    frame[24..26].fill(0);
    let words = frame[14..34].chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}

/// An echo request, or the reply to one.
pub fn echo(from: &str, to: &str, id: u16, reply: bool) -> Vec<u8> {
    echo_with(from, to, id, reply, b"abcdefgh")
}

/// The same with more content than a link carries whole.
pub fn long_echo(from: &str, to: &str, id: u16, reply: bool) -> Vec<u8> {
    let payload: Vec<u8> = (0..5000).map(|at| (at * 7 + at / 251) as u8).collect();
    echo_with(from, to, id, reply, &payload)
}

fn echo_with(from: &str, to: &str, id: u16, reply: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = builder(from, to);
    let written = match (any_ip(to).is_ipv6(), reply) {
        (false, true) => builder.icmpv4_echo_reply(id, 1).write(&mut frame, payload),
        (false, false) => builder
            .icmpv4_echo_request(id, 1)
            .write(&mut frame, payload),
        (true, true) => builder.icmpv6_echo_reply(id, 1).write(&mut frame, payload),
        (true, false) => builder
            .icmpv6_echo_request(id, 1)
            .write(&mut frame, payload),
    };
    written.expect("writing to memory");
    frame
}

/// An ICMP error of either family, about a frame of which it quotes the IP packet's first bytes.
pub fn icmp_error(
    from: &str,
    to: &str,
    says: (u8, u8, u32),
    about: &[u8],
    quoted: usize,
) -> Vec<u8> {
    let (kind, code, word) = says;
    let quote = &about[14..about.len().min(14 + quoted)];
    let (builder, mut frame) = (builder(from, to), Vec::new());
    let written = if any_ip(to).is_ipv6() {
        let builder = builder.icmpv6_raw(kind, code, word.to_be_bytes());
        builder.write(&mut frame, quote)
    } else {
        let builder = builder.icmpv4_raw(kind, code, word.to_be_bytes());
        builder.write(&mut frame, quote)
    };
    written.expect("writing to memory");
    frame
}

/// Cuts a frame into fragments of at most `size` bytes behind the IP header, a multiple of eight.
pub fn pieces(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let l4 = if is_v6(frame) { 54 } else { 34 };
    let all = frame[l4..].chunks(size);
    let last = all.len() - 1;
    let cut = |(at, piece): (usize, &[u8])| {
        let mut whole = frame[..l4].to_vec();
        whole.extend(piece);
        set_length(&mut whole);
        fragment(whole, (at * size / 8) as u16, at != last)
    };
    all.enumerate().map(cut).collect()
}

/// Puts fragments in order together again.
pub fn reassembled(pieces: &[Vec<u8>]) -> Vec<u8> {
    let v6 = is_v6(&pieces[0]);
    let mut frame = pieces[0][..if v6 { 54 } else { 34 }].to_vec();
    for piece in pieces {
        frame.extend(&piece[if v6 { 62 } else { 34 }..]);
    }
    set_length(&mut frame);
    if v6 {
        frame[20] = pieces[0][54];
        return frame;
    }
    frame[20..22].fill(0);
    renew_ipv4_checksum(&mut frame);
    frame
}

fn set_length(frame: &mut [u8]) {
    let length = frame.len() - 14;
    if is_v6(frame) {
        frame[18..20].copy_from_slice(&((length - 40) as u16).to_be_bytes());
    } else {
        frame[16..18].copy_from_slice(&(length as u16).to_be_bytes());
    }
}

/// Any other protocol of IPv4, without content.
pub fn of_protocol(from: &str, to: &str, protocol: u8) -> Vec<u8> {
    let mut frame = udp((from, 1), (to, 1), b"");
    frame[23] = protocol;
    renew_ipv4_checksum(&mut frame);
    frame
}

/// Makes a fragment of a frame: at `offset` times eight bytes, with or without more to come.
pub fn fragment(mut frame: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    if is_v6(&frame) {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        return extend(frame, 44, &[0, 0, high, low, 0, 0, 0x12, 0x34]);
    }
    let field = offset | if more { 0x2000 } else { 0 };
    frame[20..22].copy_from_slice(&field.to_be_bytes());
    renew_ipv4_checksum(&mut frame);
    frame
}

/// Puts an extension header behind an IPv6 header; the header's first byte is filled in.
pub fn extend(mut frame: Vec<u8>, kind: u8, header: &[u8]) -> Vec<u8> {
    let next = std::mem::replace(&mut frame[20], kind);
    let length = u16::from_be_bytes([frame[18], frame[19]]) + header.len() as u16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    let mut header = header.to_vec();
    header[0] = next;
    frame.splice(54..54, header);
    frame
}

pub fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    if is_v6(&frame) {
        frame[21] = ttl;
        return frame;
    }
    frame[22] = ttl;
    renew_ipv4_checksum(&mut frame);
    frame
}

/// The common header of SCTP: ports, tag, and a checksum that is nobody's here.
pub fn sctp(from: End<'_>, to: End<'_>) -> Vec<u8> {
    let mut frame = udp(from, to, b"check");
    let at = if is_v6(&frame) { 54 } else { 34 };
    frame.truncate(at + 4);
    frame.extend([0, 0, 0, 7, 0xde, 0xad, 0xbe, 0xef]);
    set_length(&mut frame);
    if is_v6(&frame) {
        frame[20] = 132;
    } else {
        frame[23] = 132;
        renew_ipv4_checksum(&mut frame);
    }
    frame
}

/// Who has `target`? Tell `from`.
pub fn arp_request(from: &str, target: &str) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(SENDER_MAC);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(SENDER_MAC);
    frame.extend(ip(from).octets());
    frame.extend([0; 6]);
    frame.extend(ip(target).octets());
    frame
}

/// The same in IPv6, with the sender's link address if it `has_address` already.
pub fn solicitation(from: &str, target: &str, has_address: bool) -> Vec<u8> {
    let mut payload = v6(any_ip(target)).octets().to_vec();
    if has_address {
        payload.extend([1, 1]);
        payload.extend(SENDER_MAC);
    }
    let (builder, mut frame) = (builder(from, "ff02::1:ff00:1"), Vec::new());
    builder
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut frame, &payload)
        .expect("writing to memory");
    with_ttl(frame, 255)
}

pub fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(SENDER_MAC);
    frame.extend([0x08, 0x06]);
    frame.extend([0; 46]);
    frame
}

fn renew_ipv4_checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = checksum::Sum16BitWords::new()
        .add_slice(&frame[14..34])
        .ones_complement();
    frame[24..26].copy_from_slice(&sum.to_ne_bytes());
}

/// What a frame says, once all its checksums were found right.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub macs: ([u8; 6], [u8; 6]),
    pub src: String,
    pub dst: String,
    pub ttl: u8,
    pub transport: Transport,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Transport {
    Udp(u16, u16),
    Tcp(u16, u16),
    Reset {
        from: u16,
        to: u16,
        sequence: u32,
        acknowledges: Option<u32>,
    },
    Echo {
        id: u16,
        reply: bool,
    },
    /// With the frame's quote of what was refused.
    PortUnreachable(Vec<u8>),
    /// Of either family, with the quote.
    TooBig {
        mtu: u32,
        quote: Vec<u8>,
    },
    /// Any other error: type, code and quote.
    Error(u8, u8, Vec<u8>),
    Other,
}

/// Reads a frame; panics where a checksum is wrong.
pub fn see(frame: &[u8]) -> Seen {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a whole frame");
    let ethernet: Ethernet2Header = match sliced.link {
        Some(etherparse::LinkSlice::Ethernet2(link)) => link.to_header(),
        other => panic!("no Ethernet header: {other:?}"),
    };
    let (src, dst, ttl): (IpAddr, IpAddr, u8) = match &sliced.net {
        Some(NetSlice::Ipv4(ipv4)) => {
            let header = ipv4.header().to_header();
            assert_eq!(
                header.header_checksum,
                header.calc_header_checksum(),
                "IPv4 checksum"
            );
            let (src, dst) = (Ipv4Addr::from(header.source), header.destination.into());
            (src.into(), IpAddr::V4(dst), header.time_to_live)
        }
        Some(NetSlice::Ipv6(ipv6)) => {
            let header = ipv6.header();
            let (src, dst) = (header.source_addr(), header.destination_addr());
            (src.into(), dst.into(), header.hop_limit())
        }
        _ => panic!("not IP: {frame:x?}"),
    };
    Seen {
        macs: (ethernet.destination, ethernet.source),
        src: src.to_string(),
        dst: dst.to_string(),
        ttl,
        transport: see_transport((src, dst), sliced.transport.as_ref()),
    }
}

/// The Internet checksum over a transport's bytes behind its pseudo header; 0 where it is right.
fn sum_of(ends: (IpAddr, IpAddr), protocol: u8, bytes: &[u8]) -> u16 {
    let sum = checksum::Sum16BitWords::new().add_slice(bytes);
    let sum = match ends {
        (IpAddr::V4(src), IpAddr::V4(dst)) => sum.add_slice(&src.octets()).add_slice(&dst.octets()),
        (src, dst) => sum
            .add_slice(&v6(src).octets())
            .add_slice(&v6(dst).octets()),
    };
    let length = (bytes.len() as u16).to_be_bytes();
    sum.add_2bytes([0, protocol])
        .add_2bytes(length)
        .ones_complement()
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) => panic!("{ip} in an IPv6 packet"),
    }
}

fn see_transport(ends: (IpAddr, IpAddr), slice: Option<&TransportSlice>) -> Transport {
    match slice {
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let sum = sum_of(ends, 17, udp.slice());
            assert!(sum == 0 && header.checksum != 0, "UDP checksum");
            Transport::Udp(header.source_port, header.destination_port)
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let header = tcp.to_header();
            assert_eq!(sum_of(ends, 6, tcp.slice()), 0, "TCP checksum");
            let (from, to) = (header.source_port, header.destination_port);
            if header.rst {
                let acknowledges = header.ack.then_some(header.acknowledgment_number);
                Transport::Reset {
                    from,
                    to,
                    sequence: header.sequence_number,
                    acknowledges,
                }
            } else {
                Transport::Tcp(from, to)
            }
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            let sum = checksum::Sum16BitWords::new().add_slice(icmp.slice());
            assert_eq!(sum.ones_complement(), 0, "ICMP checksum");
            see_icmp(&icmp.icmp_type(), icmp.slice())
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            assert_eq!(sum_of(ends, 58, icmp.slice()), 0, "ICMPv6 checksum");
            see_icmpv6(&icmp.icmp_type(), icmp.slice())
        }
        _ => Transport::Other,
    }
}

fn see_icmp(message: &Icmpv4Type, bytes: &[u8]) -> Transport {
    let quote = bytes[8..].to_vec();
    match message {
        Icmpv4Type::EchoRequest(echo) => Transport::Echo {
            id: echo.id,
            reply: false,
        },
        Icmpv4Type::EchoReply(echo) => Transport::Echo {
            id: echo.id,
            reply: true,
        },
        Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port) => {
            Transport::PortUnreachable(quote)
        }
        Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
            next_hop_mtu,
        }) => Transport::TooBig {
            mtu: u32::from(*next_hop_mtu),
            quote,
        },
        _ => Transport::Error(bytes[0], bytes[1], quote),
    }
}

fn see_icmpv6(message: &Icmpv6Type, bytes: &[u8]) -> Transport {
    let quote = bytes[8..].to_vec();
    match message {
        Icmpv6Type::EchoRequest(echo) => Transport::Echo {
            id: echo.id,
            reply: false,
        },
        Icmpv6Type::EchoReply(echo) => Transport::Echo {
            id: echo.id,
            reply: true,
        },
        Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port) => {
            Transport::PortUnreachable(quote)
        }
        Icmpv6Type::PacketTooBig { mtu } => Transport::TooBig { mtu: *mtu, quote },
        _ => Transport::Error(bytes[0], bytes[1], quote),
    }
}
