//! What the model reads in a frame: slices and checked offsets, nothing of the datapath's parser.

use orchestrator_common::{Addr, DropReason, Mac, Port, Proto, Tuple};

const ETHERNET: usize = 14;

/// IPv6 extension headers that are walked through (RFC 8200), and how many at most.
const EXTENSIONS: [u8; 4] = [0, 43, FRAGMENT_HEADER, 60];
const FRAGMENT_HEADER: u8 = 44;
const MOST_EXTENSIONS: usize = 6;
/// One that begins further in the frame is not.
const FURTHEST: usize = 1024;

/// Whether a packet is all of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Whole,
    First,
    /// Without ports.
    Later,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp {
    Echo,
    EchoReply,
    Error,
    Other,
}

/// A packet as somebody who knows the RFCs reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Whose frame it is.
    pub mac: Mac,
    pub tuple: Tuple,
    pub part: Part,
    pub icmp: Option<Icmp>,
    pub v6: bool,
    pub ttl: u8,
    pub tcp_flags: u8,
    /// Where the transport header begins in the frame.
    pub transport: usize,
    /// Options or extension headers stand before the transport header.
    pub has_options: bool,
    /// Bytes of the frame.
    pub length: usize,
    /// What the fragments of a datagram share.
    pub fragment_id: u32,
    /// The packet that an ICMP error is about, as far as it is quoted.
    pub quoted: Option<Box<Packet>>,
    /// From whom to whom that was, whatever else it is.
    pub about: Option<(Addr, Addr)>,
    /// What an option of IPv6 says that was asked before a Service made this of it.
    pub asked: Option<(Addr, Port)>,
}

impl Packet {
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;

    /// Reads a frame; the error is why a program that needs to understand it drops it.
    pub fn read(frame: &[u8]) -> Result<Packet, DropReason> {
        Packet::read_as(frame, false)
    }

    /// Of a quote no more than 8 bytes of the transport header need be there (RFC 792).
    fn read_as(frame: &[u8], is_quote: bool) -> Result<Packet, DropReason> {
        let mut packet = match frame.get(12..14) {
            None => return Err(DropReason::Malformed),
            Some([0x08, 0x00]) => v4(frame)?,
            Some([0x86, 0xdd]) => v6(frame)?,
            Some(_) => return Err(DropReason::NotIp),
        };
        packet.mac.octets.copy_from_slice(&frame[6..12]);
        if packet.part != Part::Later {
            packet.read_transport(frame, is_quote)?;
        }
        Ok(packet)
    }

    /// Of a protocol whose ports can be translated, and they are in sight.
    pub fn has_ports(&self) -> bool {
        self.part != Part::Later && self.has_port_protocol()
    }

    pub fn has_port_protocol(&self) -> bool {
        matches!(self.tuple.proto, Proto::TCP | Proto::UDP | Proto::SCTP)
    }

    /// What the frame's source says that was asked, on the way between two nodes.
    pub fn asked_by_mac(&self) -> (Addr, Port) {
        let [a, b, c, d, e, f] = self.mac.octets;
        let port = Port::new(u16::from_be_bytes([e, f]));
        (Addr::from_v4([a, b, c, d].into()), port)
    }

    /// Its family's own ICMP.
    pub fn has_icmp_protocol(&self) -> bool {
        self.tuple.proto == if self.v6 { Proto::ICMPV6 } else { Proto::ICMP }
    }

    fn read_transport(&mut self, frame: &[u8], is_quote: bool) -> Result<(), DropReason> {
        let is_icmp = self.has_icmp_protocol();
        let needed = match self.tuple.proto {
            Proto::TCP if !is_quote => 20,
            Proto::TCP => 8,
            Proto::UDP | Proto::SCTP => 8,
            _ if is_icmp => 8,
            _ => return Ok(()),
        };
        let header = frame
            .get(self.transport..self.transport + needed)
            .ok_or(DropReason::Malformed)?;
        let port = |at: usize| Port::new(u16::from_be_bytes([header[at], header[at + 1]]));
        if !is_icmp {
            (self.tuple.src_port, self.tuple.dst_port) = (port(0), port(2));
            self.tcp_flags = match self.tuple.proto {
                Proto::TCP if !is_quote => header[13],
                _ => 0,
            };
            return Ok(());
        }
        let kind = match (self.v6, header[0]) {
            (false, 8) | (true, 128) => Icmp::Echo,
            (false, 0) | (true, 129) => Icmp::EchoReply,
            (false, 3 | 11 | 12) | (true, 1..=4) => Icmp::Error,
            _ => Icmp::Other,
        };
        match kind {
            Icmp::Echo => self.tuple.src_port = port(4),
            Icmp::EchoReply => self.tuple.dst_port = port(4),
            Icmp::Error => {
                let quoted = &frame[self.transport + 8..];
                self.quoted = quote(quoted, self.v6);
                self.about = ends(quoted, self.v6);
            }
            Icmp::Other => {}
        }
        self.icmp = Some(kind);
        Ok(())
    }
}

/// A quote is a packet that may be cut off anywhere.
fn quote(bytes: &[u8], v6: bool) -> Option<Box<Packet>> {
    let ethertype = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    let mut frame = vec![0; 12];
    frame.extend(ethertype);
    frame.extend(bytes);
    let quoted = Packet::read_as(&frame, true).ok()?;
    (quoted.icmp != Some(Icmp::Error)).then(|| Box::new(quoted))
}

/// The addresses in a header.
fn ends(header: &[u8], v6: bool) -> Option<(Addr, Addr)> {
    let v4 = |at: usize| {
        let octets: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
        Some(Addr::from_v4(octets.into()))
    };
    let v16 = |at: usize| {
        let octets = header.get(at..at + 16)?.try_into().ok()?;
        Some(Addr::from_octets(octets))
    };
    match v6 {
        true => Some((v16(8)?, v16(24)?)),
        false => Some((v4(12)?, v4(16)?)),
    }
}

fn v4(frame: &[u8]) -> Result<Packet, DropReason> {
    let header = frame
        .get(ETHERNET..ETHERNET + 20)
        .ok_or(DropReason::Malformed)?;
    let words = usize::from(header[0] & 0xf);
    if header[0] >> 4 != 4 || words < 5 {
        return Err(DropReason::Malformed);
    }
    let addr = |at: usize| {
        Addr::from_v4([header[at], header[at + 1], header[at + 2], header[at + 3]].into())
    };
    let field = u16::from_be_bytes([header[6], header[7]]);
    Ok(Packet {
        mac: Mac::default(),
        tuple: tuple(addr(12), addr(16), header[9]),
        part: part(field & 0x1fff, field & 0x2000),
        icmp: None,
        v6: false,
        ttl: header[8],
        tcp_flags: 0,
        transport: ETHERNET + 4 * words,
        has_options: words > 5,
        length: frame.len(),
        fragment_id: u16::from_be_bytes([header[4], header[5]]).into(),
        quoted: None,
        about: None,
        asked: None,
    })
}

fn v6(frame: &[u8]) -> Result<Packet, DropReason> {
    let header = frame
        .get(ETHERNET..ETHERNET + 40)
        .ok_or(DropReason::Malformed)?;
    let addr = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        Addr::from_octets(octets)
    };
    let (src, dst) = (addr(8), addr(24));
    // An IPv4-mapped address is never on the wire; its row is an IPv4 host's.
    if header[0] >> 4 != 6 || src.is_v4() || dst.is_v4() {
        return Err(DropReason::Malformed);
    }
    let mut packet = Packet {
        mac: Mac::default(),
        tuple: tuple(src, dst, header[6]),
        part: Part::Whole,
        icmp: None,
        v6: true,
        ttl: header[7],
        tcp_flags: 0,
        transport: ETHERNET + 40,
        has_options: false,
        length: frame.len(),
        fragment_id: 0,
        quoted: None,
        about: None,
        asked: None,
    };
    packet.asked = (header[6] == 60)
        .then(|| asked(&frame[ETHERNET + 40..]))
        .flatten();
    // What a node put there on the way does not count.
    let most = MOST_EXTENSIONS + usize::from(packet.asked.is_some());
    let mut steps = 0;
    while packet.part != Part::Later && EXTENSIONS.contains(&packet.tuple.proto.number) {
        steps += 1;
        if steps > most || packet.transport > FURTHEST {
            return Err(DropReason::Malformed);
        }
        packet.step_over_extension(frame)?;
    }
    Ok(packet)
}

impl Packet {
    fn step_over_extension(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        let at = self.transport;
        let header = frame.get(at..at + 8).ok_or(DropReason::Malformed)?;
        let mut length = 8;
        if self.tuple.proto.number == FRAGMENT_HEADER {
            let field = u16::from_be_bytes([header[2], header[3]]);
            self.part = part(field >> 3, field & 1);
            self.fragment_id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        } else {
            // On its way along a list of hops it has not its last destination yet.
            if self.tuple.proto.number == 43 && header[3] != 0 {
                return Err(DropReason::UnsupportedProtocol);
            }
            length += 8 * usize::from(header[1]);
        }
        self.tuple.proto.number = header[0];
        self.transport += length;
        self.has_options = true;
        Ok(())
    }
}

/// The option of an experiment (RFC 4727) that carries an address and a port.
fn asked(options: &[u8]) -> Option<(Addr, Port)> {
    let [_, 2, 0x1e, 20, rest @ ..] = options else {
        return None;
    };
    let addr: [u8; 16] = rest.get(..16)?.try_into().ok()?;
    let port: [u8; 2] = rest.get(16..18)?.try_into().ok()?;
    rest.get(18..20)?;
    Some((Addr::from_octets(addr), Port::new(u16::from_be_bytes(port))))
}

fn part(offset: u16, more: u16) -> Part {
    match (offset, more) {
        (0, 0) => Part::Whole,
        (0, _) => Part::First,
        _ => Part::Later,
    }
}

fn tuple(src: Addr, dst: Addr, proto: u8) -> Tuple {
    Tuple {
        src,
        dst,
        proto: Proto { number: proto },
        ..Tuple::default()
    }
}
