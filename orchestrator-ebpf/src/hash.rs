//! Which position of a Maglev table a client has: the same on every node, whichever the packets of
//! one client reach. Pure.

use orchestrator_common::Tuple;

const SEED: u32 = 0x6f72_6368;

#[inline(always)]
pub fn client(tuple: &Tuple) -> u32 {
    let mut hash = SEED;
    let mut at = 0;
    while at < 4 {
        hash = mix(hash, tuple.src.words[at].to_be());
        at += 1;
    }
    let mut at = 0;
    while at < 4 {
        hash = mix(hash, tuple.dst.words[at].to_be());
        at += 1;
    }
    let ports = u32::from(tuple.src_port.host()) << 16 | u32::from(tuple.dst_port.host());
    hash = mix(hash, ports);
    hash = mix(hash, u32::from(tuple.proto.number));
    finish(hash)
}

/// A round of Austin Appleby's MurmurHash3 (public domain).
#[inline(always)]
fn mix(hash: u32, word: u32) -> u32 {
    let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15);
    let hash = (hash ^ word.wrapping_mul(0x1b87_3593)).rotate_left(13);
    hash.wrapping_mul(5).wrapping_add(0xe654_6b64)
}

#[inline(always)]
fn finish(hash: u32) -> u32 {
    let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use orchestrator_common::{Addr, Port, Proto};

    use super::*;

    fn tuple(last: u8, port: u16) -> Tuple {
        Tuple {
            src: Addr::from(Ipv4Addr::new(192, 0, 2, last)),
            dst: Addr::from(Ipv4Addr::new(172, 31, 0, 11)),
            src_port: Port::new(port),
            dst_port: Port::new(30080),
            proto: Proto::TCP,
            ..Tuple::default()
        }
    }

    #[test]
    fn connections_spread_evenly() {
        let mut uses = [0u32; 101];
        for port in 1024..65000 {
            uses[(client(&tuple(7, port)) % 101) as usize] += 1;
        }
        let mean = (65000 - 1024) / 101;
        for uses in uses {
            assert!(uses.abs_diff(mean) < mean / 4, "{uses} of {mean}");
        }
        let places: std::collections::BTreeSet<u32> =
            (0..200).map(|last| client(&tuple(last, 1))).collect();
        assert_eq!(places.len(), 200);
    }
}
