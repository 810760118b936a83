//! Reading headers out of packet bytes: the only place that dereferences them, and pure (it also
//! runs on the host).

use orchestrator_common::{Addr, DropReason, Port, Proto, Scope, Tuple};

pub const ETHERNET: usize = 14;
pub const IPV4: usize = 20;

/// The offsets of what translations rewrite.
pub const IPV4_CHECK: u32 = 24;
pub const IPV4_SRC: u32 = 26;
pub const IPV4_DST: u32 = 30;
pub const IPV4_TTL: u32 = 22;

const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

pub const ICMP_ECHO_REPLY: u8 = 0;
pub const ICMP_ECHO: u8 = 8;

pub const TCP_FIN: u8 = 1;
pub const TCP_SYN: u8 = 2;
pub const TCP_RST: u8 = 4;
pub const TCP_ACK: u8 = 16;

/// Whether a packet is all of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    /// Has the ports; later ones follow.
    First,
    /// Has no ports: what lies there is payload.
    Later,
}

/// What the programs know of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// Ports are zero where the protocol has none and in later fragments.
    pub tuple: Tuple,
    pub fragment: Fragment,
    /// Where the transport header begins.
    pub l4: u32,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub ttl: u8,
}

impl Headers {
    pub const EMPTY: Headers = Headers {
        tuple: Tuple {
            src: Addr::UNSPECIFIED,
            dst: Addr::UNSPECIFIED,
            src_port: Port::ZERO,
            dst_port: Port::ZERO,
            proto: Proto { number: 0 },
            scope: Scope::PACKET,
            reserved: [0; 2],
        },
        fragment: Fragment::Whole,
        l4: 0,
        tcp_flags: 0,
        icmp_type: 0,
        ttl: 0,
    };

    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.tuple.proto.number == Proto::TCP.number
    }

    #[inline(always)]
    pub fn is_udp(&self) -> bool {
        self.tuple.proto.number == Proto::UDP.number
    }

    #[inline(always)]
    pub fn is_icmp(&self) -> bool {
        self.tuple.proto.number == Proto::ICMP.number
    }

    /// TCP or UDP with its ports in sight.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        self.fragment != Fragment::Later && (self.is_tcp() || self.is_udp())
    }

    /// Options stand between the IPv4 header and the transport.
    #[inline(always)]
    pub fn has_options(&self) -> bool {
        self.l4 != (ETHERNET + IPV4) as u32
    }
}

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
    if start + ETHERNET > end {
        return Err(Unparsed::TooShort);
    }
    // SAFETY: here and below the bytes were just compared with the end.
    if unsafe { load::<u16>(start + 12) } != ETHERTYPE_IPV4 {
        return Err(Unparsed::Because(DropReason::NotIp));
    }
    if start + ETHERNET + IPV4 > end {
        return Err(Unparsed::TooShort);
    }
    let version_and_length = unsafe { load::<u8>(start + ETHERNET) };
    if version_and_length >> 4 != 4 || version_and_length & 0xf < 5 {
        return Err(Unparsed::Because(DropReason::Malformed));
    }
    let l4 = ETHERNET + ((version_and_length as usize & 0xf) << 2);
    let fragment = u16::from_be(unsafe { load::<u16>(start + 20) });
    headers.ttl = unsafe { load::<u8>(start + 22) };
    headers.tuple.proto = Proto {
        number: unsafe { load::<u8>(start + 23) },
    };
    headers.tuple.src = Addr::from_v4_wire(unsafe { load::<u32>(start + 26) });
    headers.tuple.dst = Addr::from_v4_wire(unsafe { load::<u32>(start + 30) });
    headers.l4 = l4 as u32;
    headers.fragment = match (fragment & FRAGMENT_OFFSET, fragment & MORE_FRAGMENTS) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => {
            return {
                headers.fragment = Fragment::Later;
                Ok(())
            };
        }
    };
    unsafe { parse_transport(start + l4, end, headers) }
}

/// # Safety
/// As [`parse`].
#[inline(always)]
unsafe fn parse_transport(at: usize, end: usize, headers: &mut Headers) -> Result<(), Unparsed> {
    if headers.is_tcp() {
        if at + 14 > end {
            return Err(Unparsed::TooShort);
        }
        headers.tcp_flags = unsafe { load::<u8>(at + 13) };
    } else if headers.is_udp() || headers.is_icmp() {
        if at + 8 > end {
            return Err(Unparsed::TooShort);
        }
    } else {
        return Ok(());
    }
    if headers.is_icmp() {
        headers.icmp_type = unsafe { load::<u8>(at) };
        let id = Port::from_wire(unsafe { load::<u16>(at + 4) });
        match headers.icmp_type {
            ICMP_ECHO => headers.tuple.src_port = id,
            ICMP_ECHO_REPLY => headers.tuple.dst_port = id,
            _ => {}
        }
    } else {
        headers.tuple.src_port = Port::from_wire(unsafe { load::<u16>(at) });
        headers.tuple.dst_port = Port::from_wire(unsafe { load::<u16>(at + 2) });
    }
    Ok(())
}

/// Reads from an address of any alignment. BPF's loads have none to keep; telling LLVM otherwise
/// would make four loads of one.
///
/// # Safety
/// `size_of::<T>()` bytes at `at` are readable.
#[inline(always)]
unsafe fn load<T: Copy>(at: usize) -> T {
    #[cfg(target_arch = "bpf")]
    unsafe {
        *(at as *const T)
    }
    #[cfg(not(target_arch = "bpf"))]
    unsafe {
        (at as *const T).read_unaligned()
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
        for length in 0..(ETHERNET + IPV4 + 14) {
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
}
