//! Builds frames, and judges frames that came out: every checksum is computed anew.

use std::net::Ipv4Addr;

use etherparse::{
    Ethernet2Header, Icmpv4Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, checksum,
};

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

fn builder(from: &str, to: &str) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(SENDER_MAC, GATEWAY_MAC).ipv4(ip(from).octets(), ip(to).octets(), 64)
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

/// An echo request, or the reply to one.
pub fn echo(from: &str, to: &str, id: u16, reply: bool) -> Vec<u8> {
    let builder = builder(from, to);
    let builder = if reply {
        builder.icmpv4_echo_reply(id, 1)
    } else {
        builder.icmpv4_echo_request(id, 1)
    };
    let mut frame = Vec::new();
    builder
        .write(&mut frame, b"abcdefgh")
        .expect("writing to memory");
    frame
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
    let field = offset | if more { 0x2000 } else { 0 };
    frame[20..22].copy_from_slice(&field.to_be_bytes());
    renew_ipv4_checksum(&mut frame);
    frame
}

pub fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    frame[22] = ttl;
    renew_ipv4_checksum(&mut frame);
    frame
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
    Other,
}

/// Reads a frame; panics where a checksum is wrong.
pub fn see(frame: &[u8]) -> Seen {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a whole frame");
    let ethernet: Ethernet2Header = match sliced.link {
        Some(etherparse::LinkSlice::Ethernet2(link)) => link.to_header(),
        other => panic!("no Ethernet header: {other:?}"),
    };
    let Some(NetSlice::Ipv4(ipv4)) = &sliced.net else {
        panic!("not IPv4: {frame:x?}")
    };
    let header = ipv4.header().to_header();
    assert_eq!(
        header.header_checksum,
        header.calc_header_checksum(),
        "IPv4 checksum"
    );
    let transport = see_transport(&header, sliced.transport.as_ref());
    Seen {
        macs: (ethernet.destination, ethernet.source),
        src: Ipv4Addr::from(header.source).to_string(),
        dst: Ipv4Addr::from(header.destination).to_string(),
        ttl: header.time_to_live,
        transport,
    }
}

fn see_transport(ip: &etherparse::Ipv4Header, slice: Option<&TransportSlice>) -> Transport {
    match slice {
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let right = header.calc_checksum_ipv4(ip, udp.payload()).expect("short");
            assert_eq!(header.checksum, right, "UDP checksum");
            Transport::Udp(header.source_port, header.destination_port)
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let header = tcp.to_header();
            let right = header.calc_checksum_ipv4(ip, tcp.payload()).expect("short");
            assert_eq!(header.checksum, right, "TCP checksum");
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
            let sum = checksum::Sum16BitWords::new()
                .add_slice(icmp.slice())
                .ones_complement();
            assert_eq!(sum, 0, "ICMP checksum");
            match icmp.icmp_type() {
                Icmpv4Type::EchoRequest(echo) => Transport::Echo {
                    id: echo.id,
                    reply: false,
                },
                Icmpv4Type::EchoReply(echo) => Transport::Echo {
                    id: echo.id,
                    reply: true,
                },
                Icmpv4Type::DestinationUnreachable(
                    etherparse::icmpv4::DestUnreachableHeader::Port,
                ) => Transport::PortUnreachable(icmp.payload().to_vec()),
                other => panic!("an ICMP message that nobody sends: {other:?}"),
            }
        }
        _ => Transport::Other,
    }
}
