//! Maglev hashing: which backend a client from outside gets, the same on every node and nearly the same
//! when backends come and go (Eisenbud et al., "Maglev", NSDI 2016, section 3.4).
//!
//! Positions of a table are filled in turns: each backend walks its own permutation of them and takes the
//! first that is free. A backend's permutation depends on its address and port alone. Unlike the paper's, a
//! turn gives up after a few positions: with exact turns one backend of a hundred that goes moves 1.5 % of
//! the others' flows, so 0.5 %, at the price of shares that differ by 7 % instead of 1.

use crate::addr::{Addr, Port};

/// The longest table: a prime.
pub const MAX_LENGTH: u16 = 16_381;

/// Positions for each backend.
const SHARE: u32 = 100;

/// How many positions a backend looks at in a turn: one is rendezvous hashing (nothing moves, shares
/// differ by 14 %), without a limit it is the paper's.
const TRIES: u32 = 8;

/// The length of the table for so many backends: a prime; 0, no table, where there is no choice or
/// more backends than positions. Another length is another table altogether, so it grows in steps:
/// with the next power of two.
pub fn length(backends: u32) -> u16 {
    if backends < 2 || backends > MAX_LENGTH as u32 {
        return 0;
    }
    let room = backends.next_power_of_two();
    let mut length = room.saturating_mul(SHARE).min(MAX_LENGTH as u32);
    while !is_prime(length) {
        length += 1;
    }
    length as u16
}

/// Where a backend is in its permutation of the positions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    position: u32,
    skip: u32,
}

/// Fills `table`, whose length is a prime, with indices of `backends`, whose order must be the same
/// everywhere. `walks` is scratch space, as long as `backends`.
///
/// # Panics
///
/// When `walks` is shorter than `backends`.
pub fn fill(table: &mut [u16], backends: &[(Addr, Port)], walks: &mut [Walk]) {
    const FREE: u16 = u16::MAX;
    table.fill(FREE);
    let length = table.len() as u32;
    if length < 2 || backends.is_empty() {
        return;
    }
    let walks = &mut walks[..backends.len()];
    for (walk, backend) in walks.iter_mut().zip(backends) {
        walk.position = (hash(1, backend) % u64::from(length)) as u32;
        walk.skip = (hash(2, backend) % u64::from(length - 1)) as u32 + 1;
    }
    let mut left = table.len();
    loop {
        for (number, walk) in walks.iter_mut().enumerate() {
            for _ in 0..TRIES {
                let position = &mut table[walk.position as usize];
                walk.position = (walk.position + walk.skip) % length;
                if *position == FREE {
                    *position = number as u16;
                    left -= 1;
                    break;
                }
            }
            if left == 0 {
                return;
            }
        }
    }
}

fn hash(seed: u64, (addr, port): &(Addr, Port)) -> u64 {
    mix(mix(seed, &addr.octets()), &port.wire.to_ne_bytes())
}

/// A hash of bytes that is the same on every machine: FNV-1a, stirred by the finaliser of MurmurHash3.
pub fn mix(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

const fn is_prime(number: u32) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= number {
        if number % divisor == 0 {
            return false;
        }
        divisor += 1;
    }
    number > 1
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::net::Ipv4Addr;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn backends(count: u32) -> Vec<(Addr, Port)> {
        let addr = |n| Addr::from(Ipv4Addr::from_bits(0x0a64_0102 + n * 7));
        (0..count).map(|n| (addr(n), Port::new(8080))).collect()
    }

    fn table(length: u16, backends: &[(Addr, Port)]) -> Vec<u16> {
        let mut table = vec![0; length.into()];
        fill(
            &mut table,
            backends,
            &mut vec![Walk::default(); backends.len()],
        );
        table
    }

    #[test]
    fn lengths_are_primes_with_a_hundred_positions_for_each_backend() {
        assert_eq!([0, 1, 2, 10, 100].map(length), [0, 0, 211, 1601, 12_809]);
        for backends in [2, 3, 99, 163, 164, 1000, 16_381] {
            let length = u32::from(length(backends));
            assert!(is_prime(length), "{length}");
            assert!(length >= (backends * 100).min(16_381), "{length}");
        }
        assert_eq!(length(16_382), 0);
    }

    #[test]
    fn the_shares_of_the_backends_are_even() {
        for count in [2, 3, 10, 100, 163] {
            let table = table(length(count), &backends(count));
            let share = |n| table.iter().filter(|slot| **slot == n).count();
            for n in 0..count as u16 {
                let percent = share(n) * count as usize * 100 / table.len();
                assert!((88..=112).contains(&percent), "{n} of {count}: {percent} %");
            }
        }
    }

    #[test]
    fn one_of_a_hundred_backends_goes_and_less_than_one_percent_of_other_flows_move() {
        let before = backends(100);
        let length = length(100);
        let old = table(length, &before);
        for gone in [0, 17, 50, 99] {
            let mut after = before.clone();
            after.remove(gone);
            let new = table(length, &after);
            let stayed = old.iter().zip(&new).filter(|(old, _)| **old != gone as u16);
            let total = stayed.clone().count();
            let moved =
                stayed.filter(|(old, new)| before[usize::from(**old)] != after[usize::from(**new)]);
            let moved = moved.count();
            assert!(moved * 100 <= total, "{moved} of {total} without {gone}");
            assert!(
                moved * 1000 <= total * 8,
                "{moved} of {total} without {gone}"
            );
        }
    }

    #[test]
    fn every_machine_hashes_alike() {
        assert_eq!(mix(0, b"node-1"), 0x91dd_3f4c_04e1_eb05);
    }
}
