//! The packet of a trace: made from a tuple, and read back when a program has rewritten it. Pure.

use std::net::{IpAddr, Ipv6Addr};

use orchestrator_common::{Addr, Mac, Port, Proto, Scope, Tuple};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TTL: u8 = 64;
const TCP_SYN: u8 = 2;

/// The frame from `mac` with the tuple's first packet: a SYN, or a datagram without payload. Checksums are those of
/// the IPv4 header only: a program changes the others by difference.
pub fn frame(mac: Mac, tuple: &Tuple) -> Vec<u8> {
    let mut transport = Vec::new();
    transport.extend(tuple.src_port.host().to_be_bytes());
    transport.extend(tuple.dst_port.host().to_be_bytes());
    if tuple.proto == Proto::TCP {
        transport.extend([
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            5 << 4,
            TCP_SYN,
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ]);
    } else {
        transport.extend([0, 8, 0, 0]);
    }
    let length = transport.len() as u16; // of two constants
    let mut frame = vec![0; 6];
    frame.extend(mac.octets);
    match (IpAddr::from(tuple.src), IpAddr::from(tuple.dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = vec![0x45, 0];
            header.extend((IPV4 as u16 + length).to_be_bytes());
            header.extend([0, 0, 0x40, 0, TTL, tuple.proto.number, 0, 0]);
            header.extend(src.octets());
            header.extend(dst.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(header);
        }
        (src, dst) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([tuple.proto.number, TTL]);
            frame.extend(v6(src).octets());
            frame.extend(v6(dst).octets());
        }
    }
    frame.extend(transport);
    frame
}

/// The tuple of such a frame; `None` if it is none any more.
pub fn tuple(frame: &[u8]) -> Option<Tuple> {
    let ip = frame.get(ETHERNET..)?;
    let (proto, src, dst, transport) = if frame[12..14] == [0x08, 0x00] {
        let addr = |at: usize| -> Option<Addr> {
            Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?).into())
        };
        (*ip.get(9)?, addr(12)?, addr(16)?, ip.get(IPV4..)?)
    } else {
        let addr = |at: usize| -> Option<Addr> {
            Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?).into())
        };
        (*ip.get(6)?, addr(8)?, addr(24)?, ip.get(IPV6..)?)
    };
    let port = |at: usize| -> Option<Port> {
        let bytes = <[u8; 2]>::try_from(transport.get(at..at + 2)?).ok()?;
        Some(Port::new(u16::from_be_bytes(bytes)))
    };
    Some(Tuple {
        src,
        dst,
        src_port: port(0)?,
        dst_port: port(2)?,
        proto: Proto { number: proto },
        scope: Scope::PACKET,
        reserved: [0; 2],
    })
}

fn v6(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_says_the_tuple_that_it_was_made_of() {
        let ends = [("10.100.1.5", "10.96.0.53"), ("fd00::5", "fd00:96::35")];
        for (src, dst) in ends {
            for proto in [Proto::TCP, Proto::UDP] {
                let made = Tuple {
                    src: src.parse::<IpAddr>().unwrap().into(),
                    dst: dst.parse::<IpAddr>().unwrap().into(),
                    src_port: Port::new(40_000),
                    dst_port: Port::new(53),
                    proto,
                    ..Tuple::default()
                };
                assert_eq!(tuple(&frame(Mac::OVERLAY_SENDER, &made)), Some(made));
            }
        }
        assert_eq!(tuple(&[0; 20]), None);
    }

    #[test]
    fn the_header_checksum_adds_up_to_nothing() {
        let made = Tuple {
            src: IpAddr::from([10, 100, 1, 5]).into(),
            dst: IpAddr::from([10, 96, 0, 53]).into(),
            proto: Proto::UDP,
            ..Tuple::default()
        };
        assert_eq!(
            checksum(&frame(Mac::OVERLAY_SENDER, &made)[ETHERNET..ETHERNET + IPV4]),
            0
        );
    }
}
