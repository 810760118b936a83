//! VXLAN (RFC 7348) as the model reads it: slices and checked offsets.

use orchestrator_common::Addr;

/// Ethernet, IPv4, UDP, VXLAN: what stands before the inner frame over an IPv4 underlay.
const OUTER: usize = 14 + 20 + 8 + 8;

/// An outer packet over IPv4 that is whole and as nodes of the overlay write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrapped<'a> {
    pub from: Addr,
    pub to: Addr,
    pub port: u16,
    pub vni: u32,
    /// The frame inside.
    pub inner: &'a [u8],
}

impl Wrapped<'_> {
    pub fn read(frame: &[u8]) -> Option<Wrapped<'_>> {
        let (outer, inner) = frame.split_at_checked(OUTER)?;
        let half = |at: usize| u16::from_be_bytes([outer[at], outer[at + 1]]);
        let addr = |at: usize| {
            let octets = [outer[at], outer[at + 1], outer[at + 2], outer[at + 3]];
            Addr::from_v4(octets.into())
        };
        let is_plain = half(12) == 0x0800 && outer[14] == 0x45 && outer[23] == 17;
        // What met congestion on its way has to say so inside (RFC 6040).
        let is_easy = outer[15] & 3 != 3;
        let lengths = [frame.len() - 14, frame.len() - 34];
        let is_all = lengths == [half(16), half(38)].map(usize::from);
        let is_whole = half(20) & 0x3fff == 0;
        let sum: u32 = (14..34).step_by(2).map(|at| u32::from(half(at))).sum();
        let is_sound = (sum & 0xffff) + (sum >> 16) == 0xffff;
        // No checksum, the identifier is valid, and nothing in what is reserved.
        let is_vxlan = half(40) == 0 && outer[42..46] == [8, 0, 0, 0] && outer[49] == 0;
        let carries_ip = matches!(inner.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]));
        let as_nodes_do =
            is_plain && is_easy && is_all && is_whole && is_sound && is_vxlan && carries_ip;
        as_nodes_do.then_some(Wrapped {
            from: addr(26),
            to: addr(30),
            port: half(36),
            vni: u32::from_be_bytes([0, outer[46], outer[47], outer[48]]),
            inner,
        })
    }
}
