//! Reading headers out of packet bytes: the only place that dereferences them, and pure (it also
//! runs on the host).

use orchestrator_common::{Addr, DropReason, Port, Proto, Rule, Scope, Tuple};

use crate::bytes::load;
use crate::carried;
use crate::tunnel::{self, Ends};

pub const ETHERNET: usize = 14;
pub const IPV4: usize = 20;
pub const IPV6: usize = 40;

/// The offsets of what is rewritten; the destination follows the source.
pub const IPV4_TTL: u32 = 22;
pub const IPV4_CHECK: u32 = 24;
pub const IPV4_SRC: u32 = 26;
pub const IPV6_LENGTH: u32 = 18;
pub const IPV6_NEXT: u32 = 20;
pub const IPV6_HOPS: u32 = 21;
pub const IPV6_SRC: u32 = 22;

pub const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
pub const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// How much of a transport header is read: ports or ICMP's type and identifier, which an ICMP error
/// always quotes, and all of TCP's but its options.
const PORTS: usize = 8;
const TCP: usize = 20;

/// IPv6 extension headers (RFC 8200): more than these, or further than that into the frame, nobody
/// sends in earnest, and a program must end.
const MOST_EXTENSIONS: usize = 6;
const FURTHEST: usize = 1024;
pub const FURTHEST_TRANSPORT: usize = FURTHEST + 8 + 8 * 255;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT_HEADER: u8 = 44;
pub const DESTINATION_OPTIONS: u8 = 60;

const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_UNREACHABLE: u8 = 3;
const ICMP_ECHO: u8 = 8;
const ICMP_TIME_EXCEEDED: u8 = 11;
const ICMP_PARAMETER: u8 = 12;
const ICMPV6_ECHO: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

pub const TCP_FIN: u8 = 1;
pub const TCP_SYN: u8 = 2;
pub const TCP_RST: u8 = 4;
pub const TCP_ACK: u8 = 16;

/// Whether a packet is all of its datagram.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    /// Has the ports; later ones follow.
    First,
    /// Has no ports: what lies there is payload.
    Later,
}

/// What kind of ICMP a packet is, of either family.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp {
    /// Another protocol.
    No,
    Echo,
    EchoReply,
    /// Quotes the packet that it is about.
    Error,
    /// Neighbour discovery and the like.
    Other,
}

/// What the programs know of a packet. It lies in a map, not on the stack: that leaves the stack
/// to what is done to packets, and the verifier, which does not follow a map's content, sees one
/// packet where it would else see one of each family.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// Ports are zero where the protocol has none and in later fragments.
    pub tuple: Tuple,
    /// What the tuple was before the first translation, if `is_translated`.
    pub original: Tuple,
    /// What it is about to become, and by which rule.
    pub becomes: Tuple,
    pub rule: Rule,
    /// Who sent the packet through the overlay, and with which identifier.
    pub vni: u32,
    pub sender: Addr,
    /// Where the transport header begins.
    pub l4: u32,
    /// What the fragments of a datagram share, as it lies in the packet.
    pub fragment_id: u32,
    /// The number of the Service that was asked, 0 if none was.
    pub service: u32,
    pub fragment: Fragment,
    pub icmp: Icmp,
    /// 1 or 0.
    pub v6: u8,
    pub is_translated: u8,
    pub tcp_flags: u8,
    pub ttl: u8,
    /// IPv4's "don't fragment", which IPv6 always means: 1 or 0.
    pub dont_fragment: u8,
    /// It came through the overlay: 1 or 0.
    pub is_tunnelled: u8,
    /// It goes through the overlay to a node on the uplink's own link: 1 or 0.
    pub is_neighbour: u8,
    pub reserved: [u8; 3],
    /// Numbers this processor's packets; stays when the rest is forgotten.
    pub serial: u32,
}

impl Headers {
    pub const EMPTY: Headers = Headers {
        tuple: NO_TUPLE,
        original: NO_TUPLE,
        becomes: NO_TUPLE,
        rule: Rule::None,
        vni: 0,
        sender: Addr::UNSPECIFIED,
        l4: 0,
        fragment_id: 0,
        service: 0,
        fragment: Fragment::Whole,
        icmp: Icmp::No,
        v6: 0,
        is_translated: 0,
        tcp_flags: 0,
        ttl: 0,
        dont_fragment: 0,
        is_tunnelled: 0,
        is_neighbour: 0,
        reserved: [0; 3],
        serial: 0,
    };

    /// Forgets the last packet.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.tuple = NO_TUPLE;
        self.rule = Rule::None;
        self.l4 = 0;
        self.fragment_id = 0;
        self.service = 0;
        self.fragment = Fragment::Whole;
        self.icmp = Icmp::No;
        self.v6 = 0;
        self.is_translated = 0;
        self.tcp_flags = 0;
        self.ttl = 0;
        self.dont_fragment = 0;
        self.is_tunnelled = 0;
        self.is_neighbour = 0;
        self.serial = self.serial.wrapping_add(1);
    }

    #[inline(always)]
    pub fn is_v6(&self) -> bool {
        self.v6 != 0
    }

    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.tuple.proto.number == Proto::TCP.number
    }

    #[inline(always)]
    pub fn is_udp(&self) -> bool {
        self.tuple.proto.number == Proto::UDP.number
    }

    #[inline(always)]
    pub fn is_sctp(&self) -> bool {
        self.tuple.proto.number == Proto::SCTP.number
    }

    #[inline(always)]
    pub fn is_icmp(&self) -> bool {
        self.icmp != Icmp::No
    }

    #[inline(always)]
    pub fn is_icmp_error(&self) -> bool {
        self.icmp == Icmp::Error
    }

    /// Each family has its own ICMP, and the other's number in it means nothing.
    #[inline(always)]
    fn has_icmp_protocol(&self) -> bool {
        let own = if self.is_v6() {
            Proto::ICMPV6
        } else {
            Proto::ICMP
        };
        self.tuple.proto.number == own.number
    }

    /// An echo or the reply to one. Of later fragments those of an echo are the only ones of ICMP
    /// whose first left an identifier behind.
    #[inline(always)]
    pub fn is_echo(&self) -> bool {
        match self.fragment {
            Fragment::Later => self.has_icmp_protocol(),
            _ => matches!(self.icmp, Icmp::Echo | Icmp::EchoReply),
        }
    }

    /// Of a protocol with ports: in later fragments they are not in sight.
    #[inline(always)]
    pub fn has_port_protocol(&self) -> bool {
        self.is_tcp() || self.is_udp() || self.is_sctp()
    }

    /// TCP, UDP or SCTP with its ports in sight.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        self.fragment != Fragment::Later && self.has_port_protocol()
    }

    /// Where in the transport header its checksum is, for those that are translated.
    #[inline(always)]
    pub fn checksum_offset(&self) -> u32 {
        if self.is_tcp() {
            16
        } else if self.is_udp() {
            6
        } else {
            2
        }
    }

    /// The length of the IP header, with options and extensions.
    #[inline(always)]
    pub fn l3_length(&self) -> u32 {
        self.l4 - ETHERNET as u32
    }

    /// Options or extension headers stand between the IP header and the transport.
    #[inline(always)]
    pub fn has_options(&self) -> bool {
        let plain = if self.is_v6() { IPV6 } else { IPV4 };
        self.l4 != (ETHERNET + plain) as u32
    }
}

const NO_TUPLE: Tuple = Tuple {
    src: Addr::UNSPECIFIED,
    dst: Addr::UNSPECIFIED,
    src_port: Port::ZERO,
    dst_port: Port::ZERO,
    proto: Proto { number: 0 },
    scope: Scope::PACKET,
    reserved: [0; 2],
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// The bytes seen so far do not reach: there may be more in the packet.
    TooShort,
    Because(DropReason),
}

/// Reads the bytes from `start` up to `end`, which are an Ethernet frame, into `headers`.
///
/// # Safety
/// Both are ends of one readable range.
#[inline(always)]
pub unsafe fn parse(start: usize, end: usize, headers: &mut Headers) -> Result<(), Unparsed> {
    if start + ETHERNET + IPV4 > end {
        return Err(unsafe { too_short(start, end) });
    }
    // SAFETY: here and below the bytes were just compared with the end.
    let v6 = match unsafe { load::<u16>(start + 12) } {
        ETHERTYPE_IPV4 => false,
        ETHERTYPE_IPV6 => true,
        _ => return Err(Unparsed::Because(DropReason::NotIp)),
    };
    unsafe { parse_ip(start, end, headers, v6, TCP) }
}

/// Whose datagram over IPv4 a frame from `start` up to `end` is, where there is room in it for an inner
/// frame's beginning.
///
/// # Safety
/// As [`parse`].
#[inline(always)]
pub unsafe fn ends(start: usize, end: usize) -> Option<Ends> {
    if start + tunnel::OUTER_V4 + ETHERNET > end {
        return None;
    }
    // SAFETY: the bytes were just compared with the end.
    if unsafe { load::<u16>(start + 12) } != ETHERTYPE_IPV4 {
        return None;
    }
    tunnel::ends_v4(&unsafe { load(start + ETHERNET) })
}

/// The type of service of an IPv4 header, the traffic class of an IPv6 one.
///
/// # Safety
/// The first two bytes of the header are readable.
#[inline(always)]
pub unsafe fn class(at: usize, v6: bool) -> u8 {
    let word = u16::from_be(unsafe { load::<u16>(at) });
    (if v6 { word >> 4 } else { word }) as u8
}

/// Whether such a frame, of `length` bytes in all, is one of the overlay with that identifier, and the
/// packet in it IPv6's.
///
/// # Safety
/// As [`parse`].
#[inline(always)]
pub unsafe fn carries(start: usize, end: usize, vni: u32, length: u32) -> Option<bool> {
    if start + tunnel::OUTER_V4 + ETHERNET > end {
        return None;
    }
    // SAFETY: the bytes were just compared with the end.
    let (words, inner) = unsafe {
        let inner = start + tunnel::OUTER_V4 + 12;
        (load(start + ETHERNET), load::<u16>(inner))
    };
    let is_ip = inner == ETHERTYPE_IPV4 || inner == ETHERTYPE_IPV6;
    let sound = is_ip && tunnel::is_sound_v4(&words, length as usize - ETHERNET, vni);
    sound.then_some(inner == ETHERTYPE_IPV6)
}

/// Reads the packet that an ICMP error quotes, as if an Ethernet header were before it at `start`.
/// The quote may end behind the ports.
///
/// # Safety
/// As [`parse`].
#[inline(always)]
pub unsafe fn parse_quoted(
    start: usize,
    end: usize,
    headers: &mut Headers,
    v6: bool,
) -> Result<(), Unparsed> {
    if start + ETHERNET + IPV4 > end {
        return Err(Unparsed::TooShort);
    }
    // SAFETY: the caller's.
    unsafe { parse_ip(start, end, headers, v6, PORTS) }
}

/// `tcp` bytes of a TCP header must be there.
///
/// # Safety
/// The bytes from `start` on hold Ethernet's header and IPv4's or as much of IPv6's.
#[inline(always)]
unsafe fn parse_ip(
    start: usize,
    end: usize,
    headers: &mut Headers,
    v6: bool,
    tcp: usize,
) -> Result<(), Unparsed> {
    // SAFETY: the caller's.
    unsafe {
        if v6 {
            parse_v6(start, end, headers)?;
        } else {
            parse_v4(start, headers)?;
        }
        if headers.fragment == Fragment::Later {
            return Ok(());
        }
        parse_transport(start, end, headers, tcp)
    }
}

/// What is too short for an IP header may still be no IP.
///
/// # Safety
/// As [`parse`].
#[inline(always)]
unsafe fn too_short(start: usize, end: usize) -> Unparsed {
    if start + ETHERNET <= end {
        let ethertype = unsafe { load::<u16>(start + 12) };
        if ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_IPV6 {
            return Unparsed::Because(DropReason::NotIp);
        }
    }
    Unparsed::TooShort
}

/// # Safety
/// The bytes from `start` on hold Ethernet's and IPv4's headers.
#[inline(always)]
unsafe fn parse_v4(start: usize, headers: &mut Headers) -> Result<(), Unparsed> {
    let version_and_length = unsafe { load::<u8>(start + ETHERNET) };
    if version_and_length >> 4 != 4 || version_and_length & 0xf < 5 {
        return Err(Unparsed::Because(DropReason::Malformed));
    }
    let fragment = u16::from_be(unsafe { load::<u16>(start + 20) });
    headers.l4 = ETHERNET as u32 + ((u32::from(version_and_length) & 0xf) << 2);
    headers.v6 = 0;
    headers.ttl = unsafe { load::<u8>(start + 22) };
    headers.tuple.proto.number = unsafe { load::<u8>(start + 23) };
    headers.tuple.src = Addr::from_v4_wire(unsafe { load::<u32>(start + 26) });
    headers.tuple.dst = Addr::from_v4_wire(unsafe { load::<u32>(start + 30) });
    headers.dont_fragment = (fragment >> 14) as u8 & 1;
    set_fragment(
        headers,
        fragment & FRAGMENT_OFFSET,
        fragment & MORE_FRAGMENTS,
    );
    if headers.fragment != Fragment::Whole {
        headers.fragment_id = u32::from(unsafe { load::<u16>(start + 18) });
    }
    Ok(())
}

/// # Safety
/// As [`parse`].
#[inline(always)]
unsafe fn parse_v6(start: usize, end: usize, headers: &mut Headers) -> Result<(), Unparsed> {
    if start + ETHERNET + IPV6 > end {
        return Err(Unparsed::TooShort);
    }
    if unsafe { load::<u8>(start + ETHERNET) } >> 4 != 6 {
        return Err(Unparsed::Because(DropReason::Malformed));
    }
    let next = unsafe { load::<u8>(start + ETHERNET + 6) };
    headers.l4 = (ETHERNET + IPV6) as u32;
    headers.v6 = 1;
    headers.ttl = unsafe { load::<u8>(start + IPV6_HOPS as usize) };
    headers.tuple.proto.number = next;
    headers.tuple.src = unsafe { load::<Addr>(start + IPV6_SRC as usize) };
    headers.tuple.dst = unsafe { load::<Addr>(start + IPV6_SRC as usize + 16) };
    headers.dont_fragment = 1;
    headers.fragment = Fragment::Whole;
    // On the wire nobody has an IPv4-mapped address (RFC 4942, section 2.2): its rows are those of an
    // IPv4 host.
    if headers.tuple.src.is_v4() || headers.tuple.dst.is_v4() {
        return Err(Unparsed::Because(DropReason::Malformed));
    }
    if is_extension(next) {
        return unsafe { parse_extensions(start, end, headers) };
    }
    Ok(())
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT_HEADER | DESTINATION_OPTIONS
    )
}

#[inline(always)]
fn set_fragment(headers: &mut Headers, offset: u16, more: u16) {
    headers.fragment = match (offset, more) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
}

/// Walks from header to header. What a header says is kept in `headers` only, see there.
///
/// # Safety
/// As [`parse`].
#[inline(never)]
unsafe fn parse_extensions(
    start: usize,
    end: usize,
    headers: &mut Headers,
) -> Result<(), Unparsed> {
    // What a node put there on the way does not count.
    unsafe { carried::step_over(start, end, headers) };
    if !is_extension(headers.tuple.proto.number) {
        return Ok(());
    }
    for _ in 0..MOST_EXTENSIONS {
        // SAFETY: a field of `headers`; volatile, so that the verifier forgets how it came about.
        let at = unsafe { (&raw const headers.l4).read_volatile() } as usize;
        if at > FURTHEST {
            break;
        }
        // Kept from LLVM, which would compute with the end, and that the verifier forbids.
        if start + at + 8 > core::hint::black_box(end) {
            return Err(Unparsed::TooShort);
        }
        let kind = headers.tuple.proto.number;
        let mut length = 8;
        if kind == FRAGMENT_HEADER {
            let field = u16::from_be(unsafe { load::<u16>(start + at + 2) });
            headers.fragment_id = unsafe { load::<u32>(start + at + 4) };
            set_fragment(headers, field & !7, field & 1);
        } else {
            // A packet on its way through a list of hops has not its last destination yet.
            if kind == ROUTING && unsafe { load::<u8>(start + at + 3) } != 0 {
                return Err(Unparsed::Because(DropReason::UnsupportedProtocol));
            }
            length += u32::from(unsafe { load::<u8>(start + at + 1) }) << 3;
        }
        headers.tuple.proto.number = unsafe { load::<u8>(start + at) };
        headers.l4 = at as u32 + length;
        if headers.fragment == Fragment::Later || !is_extension(headers.tuple.proto.number) {
            return Ok(());
        }
    }
    Err(Unparsed::Because(DropReason::Malformed))
}

/// # Safety
/// As [`parse`].
#[inline(always)]
unsafe fn parse_transport(
    start: usize,
    end: usize,
    headers: &mut Headers,
    tcp: usize,
) -> Result<(), Unparsed> {
    if !headers.has_port_protocol() && !headers.has_icmp_protocol() {
        return Ok(());
    }
    // SAFETY: a field of `headers`; volatile as in `parse_extensions`.
    let at = unsafe { (&raw const headers.l4).read_volatile() } as usize;
    if at > FURTHEST_TRANSPORT {
        return Err(Unparsed::Because(DropReason::Malformed));
    }
    let at = start + at;
    if at + PORTS > end {
        return Err(Unparsed::TooShort);
    }
    if tcp == TCP && headers.is_tcp() {
        if at + TCP > end {
            return Err(Unparsed::TooShort);
        }
        headers.tcp_flags = unsafe { load::<u8>(at + 13) };
    }
    if headers.has_icmp_protocol() {
        headers.icmp = icmp_kind(unsafe { load::<u8>(at) }, headers.is_v6());
        let id = Port::from_wire(unsafe { load::<u16>(at + 4) });
        match headers.icmp {
            Icmp::Echo => headers.tuple.src_port = id,
            Icmp::EchoReply => headers.tuple.dst_port = id,
            _ => {}
        }
    } else {
        headers.tuple.src_port = Port::from_wire(unsafe { load::<u16>(at) });
        headers.tuple.dst_port = Port::from_wire(unsafe { load::<u16>(at + 2) });
    }
    Ok(())
}

#[inline(always)]
pub fn icmp_kind(message: u8, v6: bool) -> Icmp {
    match (v6, message) {
        (false, ICMP_ECHO) | (true, ICMPV6_ECHO) => Icmp::Echo,
        (false, ICMP_ECHO_REPLY) | (true, ICMPV6_ECHO_REPLY) => Icmp::EchoReply,
        (false, ICMP_UNREACHABLE | ICMP_TIME_EXCEEDED | ICMP_PARAMETER) => Icmp::Error,
        // RFC 4443, section 2.1: errors have the upper bit clear.
        (true, 1..=4) => Icmp::Error,
        _ => Icmp::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(frame: &[u8]) -> Result<Headers, Unparsed> {
        let mut headers = Headers::EMPTY;
        let range = frame.as_ptr_range();
        // SAFETY: the range of one slice.
        unsafe { parse(range.start as usize, range.end as usize, &mut headers) }?;
        Ok(headers)
    }

    fn frame(proto: u8, fragment: u16, options: usize, transport: &[u8]) -> Vec<u8> {
        let mut frame = vec![0u8; 12];
        frame.extend([0x08, 0x00]);
        frame.extend([0x45 + (options / 4) as u8, 0, 0, 0, 0, 0]);
        frame.extend(fragment.to_be_bytes());
        frame.extend([64, proto, 0, 0, 10, 100, 1, 5, 10, 100, 2, 7]);
        frame.extend(vec![1u8; options]);
        frame.extend(transport);
        frame
    }

    #[test]
    fn a_udp_packet_gives_its_tuple() {
        let headers = parsed(&frame(17, 0, 0, &[0x9c, 0x40, 0, 53, 0, 8, 0, 0])).unwrap();
        assert_eq!(
            headers.tuple.to_string(),
            "udp 10.100.1.5:40000 -> 10.100.2.7:53"
        );
        assert!(headers.has_ports());
        assert!(!headers.has_options());
        assert_eq!(headers.ttl, 64);
    }

    #[test]
    fn ports_stand_behind_options() {
        let headers = parsed(&frame(17, 0, 8, &[0, 1, 0, 2, 0, 8, 0, 0])).unwrap();
        assert_eq!(
            (headers.tuple.src_port.host(), headers.tuple.dst_port.host()),
            (1, 2)
        );
        assert!(headers.has_options());
    }

    #[test]
    fn a_later_fragment_has_no_ports_to_misread() {
        let headers = parsed(&frame(17, 0x2005, 0, &[1; 8])).unwrap();
        assert_eq!(headers.fragment, Fragment::Later);
        assert_eq!(headers.tuple.src_port, Port::ZERO);
        assert!(!headers.has_ports());
        let first = parsed(&frame(17, 0x2000, 0, &[1; 8])).unwrap();
        assert_eq!(first.fragment, Fragment::First);
        assert!(first.has_ports());
    }

    #[test]
    fn dont_fragment_is_no_fragment() {
        assert_eq!(
            parsed(&frame(17, 0x4000, 0, &[1; 8])).unwrap().fragment,
            Fragment::Whole
        );
    }

    #[test]
    fn an_echo_and_its_reply_are_reverses() {
        let request = parsed(&frame(1, 0, 0, &[8, 0, 0, 0, 0x12, 0x34, 0, 1])).unwrap();
        let reply = parsed(&frame(1, 0, 0, &[0, 0, 0, 0, 0x12, 0x34, 0, 1])).unwrap();
        assert_eq!(request.tuple.src_port.host(), 0x1234);
        assert_eq!(reply.tuple.dst_port.host(), 0x1234);
        assert_eq!(request.tuple.dst_port, reply.tuple.src_port);
    }

    #[test]
    fn what_is_cut_off_asks_for_more_and_what_is_wrong_is_refused() {
        let whole = frame(6, 0, 0, &[0; 20]);
        for length in 0..(ETHERNET + IPV4 + TCP) {
            assert_eq!(
                parsed(&whole[..length]).unwrap_err(),
                Unparsed::TooShort,
                "{length}"
            );
        }
        assert_eq!(parsed(&whole).unwrap().tcp_flags, 0);
        let mut arp = whole.clone();
        arp[13] = 6;
        assert_eq!(
            parsed(&arp).unwrap_err(),
            Unparsed::Because(DropReason::NotIp)
        );
        let mut short = whole;
        short[14] = 0x44;
        assert_eq!(
            parsed(&short).unwrap_err(),
            Unparsed::Because(DropReason::Malformed)
        );
    }

    fn frame_v6(next: u8, rest: &[&[u8]]) -> Vec<u8> {
        let mut frame = vec![0u8; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, next, 64]);
        let mut addr = [0u8; 16];
        addr[0] = 0xfd;
        for last in [5, 7] {
            addr[15] = last;
            frame.extend(addr);
        }
        rest.iter().for_each(|part| frame.extend(*part));
        frame
    }

    const UDP: &[u8] = &[0x9c, 0x40, 0, 53, 0, 8, 0, 0];

    #[test]
    fn an_ipv6_packet_gives_its_tuple() {
        let headers = parsed(&frame_v6(17, &[UDP])).unwrap();
        assert_eq!(
            headers.tuple.to_string(),
            "udp [fd00::5]:40000 -> [fd00::7]:53"
        );
        assert!(headers.is_v6() && headers.has_ports() && !headers.has_options());
        assert_eq!((headers.ttl, headers.dont_fragment), (64, 1));
    }

    #[test]
    fn an_ipv6_packet_of_an_ipv4_host_is_refused() {
        for at in [22, 38] {
            let mut frame = frame_v6(17, &[UDP]);
            let mapped = Addr::from_v4_wire(0x0501_640a).octets();
            frame[at..at + 16].copy_from_slice(&mapped);
            assert_eq!(
                parsed(&frame).unwrap_err(),
                Unparsed::Because(DropReason::Malformed)
            );
        }
    }

    #[test]
    fn ports_stand_behind_extension_headers() {
        let hop_by_hop: &[u8] = &[43, 0, 0, 0, 0, 0, 0, 0];
        let routing: &[u8] = &[60, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let options: &[u8] = &[17, 0, 0, 0, 0, 0, 0, 0];
        let headers = parsed(&frame_v6(0, &[hop_by_hop, routing, options, UDP])).unwrap();
        assert_eq!(headers.tuple.dst_port.host(), 53);
        assert_eq!(headers.l4, 54 + 8 + 16 + 8);
        assert!(headers.has_options());
        let mut on_its_way = routing.to_vec();
        (on_its_way[0], on_its_way[3]) = (17, 1);
        assert_eq!(
            parsed(&frame_v6(43, &[&on_its_way, UDP])).unwrap_err(),
            Unparsed::Because(DropReason::UnsupportedProtocol)
        );
    }

    #[test]
    fn a_chain_of_extension_headers_has_an_end() {
        let options: &[u8] = &[60, 0, 0, 0, 0, 0, 0, 0];
        let last: &[u8] = &[17, 0, 0, 0, 0, 0, 0, 0];
        let mut chain = vec![options; MOST_EXTENSIONS - 1];
        chain.extend([last, UDP]);
        assert!(parsed(&frame_v6(60, &chain)).unwrap().has_ports());
        chain.insert(0, options);
        assert_eq!(
            parsed(&frame_v6(60, &chain)).unwrap_err(),
            Unparsed::Because(DropReason::Malformed)
        );
    }

    #[test]
    fn only_the_first_fragment_of_an_ipv6_datagram_has_ports() {
        let piece = |field: u16| {
            let [a, b] = field.to_be_bytes();
            parsed(&frame_v6(44, &[&[17, 0, a, b, 1, 2, 3, 4], UDP])).unwrap()
        };
        let first = piece(1);
        assert_eq!(first.fragment, Fragment::First);
        assert_eq!(first.tuple.dst_port.host(), 53);
        assert_eq!(first.fragment_id.to_ne_bytes(), [1, 2, 3, 4]);
        for field in [1448, 1449] {
            let later = piece(field);
            assert_eq!(later.fragment, Fragment::Later);
            assert_eq!(later.tuple.src_port, Port::ZERO);
            assert_eq!(later.fragment_id, first.fragment_id);
        }
        // Of one piece: RFC 6946.
        assert_eq!(piece(0).fragment, Fragment::Whole);
    }

    #[test]
    fn each_family_has_its_own_icmp() {
        let message = |kind| parsed(&frame_v6(58, &[&[kind, 0, 0, 0, 0x12, 0x34, 0, 1]])).unwrap();
        assert_eq!(message(128).tuple.src_port.host(), 0x1234);
        assert_eq!(message(129).tuple.dst_port.host(), 0x1234);
        assert!(message(1).is_icmp_error() && message(2).is_icmp_error());
        assert_eq!(message(135).icmp, Icmp::Other);
        let foreign = parsed(&frame(58, 0, 0, &[128, 0, 0, 0, 0x12, 0x34, 0, 1])).unwrap();
        assert!(!foreign.is_icmp());
        let error = parsed(&frame(1, 0, 0, &[3, 4, 0, 0, 0, 0, 5, 0])).unwrap();
        assert!(error.is_icmp_error());
    }

    #[test]
    fn an_ipv6_packet_that_is_cut_off_asks_for_more() {
        let whole = frame_v6(44, &[&[6, 0, 0, 0, 0, 0, 0, 0], &[0; 20]]);
        for length in 0..(ETHERNET + IPV6 + 8 + TCP) {
            assert_eq!(
                parsed(&whole[..length]).unwrap_err(),
                Unparsed::TooShort,
                "{length}"
            );
        }
        assert!(parsed(&whole).is_ok());
    }
}
