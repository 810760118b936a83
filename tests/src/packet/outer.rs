//! The overlay's outer headers, as a node sends them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{is_v6, renew_ipv4_checksum};

/// Sets the two bits of explicit congestion notification in an IP header.
pub fn with_congestion(mut frame: Vec<u8>, bits: u8) -> Vec<u8> {
    if is_v6(&frame) {
        frame[15] = frame[15] & !0x30 | bits << 4;
    } else {
        frame[15] = frame[15] & !3 | bits;
        renew_ipv4_checksum(&mut frame);
    }
    frame
}

/// What the outer headers say, once they were found consistent, and what is in the tunnel.
#[derive(Debug, PartialEq, Eq)]
pub struct Outer {
    pub macs: ([u8; 6], [u8; 6]),
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    /// Type of service or traffic class.
    pub class: u8,
    pub src_port: u16,
    pub dst_port: u16,
    pub vni: u32,
    pub inner: Vec<u8>,
}

/// Reads a frame of the overlay; panics where a VXLAN device would not take it.
pub fn see_outer(frame: &[u8]) -> Outer {
    let number = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let ip = frame.len() - 14;
    let (src, dst, ttl, class, proto, rest): (IpAddr, IpAddr, _, _, _, _) = if is_v6(frame) {
        assert_eq!(frame[14] >> 4, 6, "version");
        assert_eq!(usize::from(number(18)), ip - 40, "IPv6 length");
        let addr = |at: usize| <[u8; 16]>::try_from(&frame[at..at + 16]).expect("its length");
        let (src, dst) = (Ipv6Addr::from(addr(22)), Ipv6Addr::from(addr(38)));
        let class = frame[14] << 4 | frame[15] >> 4;
        (src.into(), dst.into(), frame[21], class, frame[20], 54)
    } else {
        assert_eq!(frame[14], 0x45, "version and length of the header");
        assert_eq!(usize::from(number(16)), ip, "IPv4 length");
        let mut again = frame.to_vec();
        renew_ipv4_checksum(&mut again);
        assert_eq!(frame, again, "IPv4 checksum");
        assert_eq!(number(20), 0, "no fragment, and one may be made of it");
        let addr = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).expect("its length");
        let (src, dst) = (Ipv4Addr::from(addr(26)), Ipv4Addr::from(addr(30)));
        (src.into(), dst.into(), frame[22], frame[15], frame[23], 34)
    };
    assert_eq!(proto, 17, "UDP");
    assert_eq!(
        usize::from(number(rest + 4)),
        frame.len() - rest,
        "UDP length"
    );
    assert_eq!(number(rest + 6), 0, "no UDP checksum");
    assert_eq!(frame[rest + 8..rest + 12], [8, 0, 0, 0], "VXLAN flags");
    assert_eq!(frame[rest + 15], 0, "VXLAN's reserved byte");
    let mac = |at: usize| <[u8; 6]>::try_from(&frame[at..at + 6]).expect("its length");
    Outer {
        macs: (mac(0), mac(6)),
        src,
        dst,
        ttl,
        class,
        src_port: number(rest),
        dst_port: number(rest + 2),
        vni: u32::from_be_bytes([0, frame[rest + 12], frame[rest + 13], frame[rest + 14]]),
        inner: frame[rest + 16..].to_vec(),
    }
}
