//! Which source ports a translated flow may get, and in which order they are tried. Pure.

use orchestrator_common::Port;

/// What is below belongs to well-known servers.
const FIRST: u16 = 1024;

/// Masqueraded flows share the node's address with its own sockets: they stay below the range that
/// those are given (from 32768 on), so that neither takes the other's replies, as long as there is room.
const BELOW_SOCKETS: u16 = 0x7fff;

/// No socket holds the translation address, so all of its ports are free to give.
const ALL: u16 = 0xffff;

/// Tries at a free port before a packet is given up, and how many of them a masqueraded flow has below
/// the sockets' range. With 60,000 of a destination's ports taken, one flow in a hundred thousand fails.
pub const TRIES: u32 = 512;
const BELOW: u32 = 64;

/// Up to where the port of a masqueraded flow may be.
#[inline(always)]
pub fn last_of_node(attempt: u32) -> u16 {
    if attempt < BELOW { BELOW_SOCKETS } else { ALL }
}

/// The same for the translation address.
#[inline(always)]
pub fn last_of_translation(_attempt: u32) -> u16 {
    ALL
}

/// The port to try next among those up to `last`, which is one less than a power of two; `None` if
/// that number is not for translated flows. Tries are as good as independent: a sequence with a
/// stride meets, for some start, nothing but numbers that are not for them.
#[inline(always)]
pub fn candidate(random: u32, attempt: u32, last: u16) -> Option<Port> {
    let mixed = random.wrapping_add(attempt.wrapping_mul(0x9e37_79b1));
    let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b);
    let port = (mixed >> 16) as u16 & last;
    (port >= FIRST).then_some(Port::new(port))
}

/// Whether a packet to that port can be the reply of a masqueraded flow at all.
#[inline(always)]
pub fn is_masqueraded(port: Port) -> bool {
    port.host() >= FIRST
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_port_of_the_range_is_tried_and_no_other() {
        for last in [BELOW_SOCKETS, ALL] {
            let mut met = BTreeSet::new();
            for random in 0..20_000u32 {
                let random = random.wrapping_mul(0x2545_f491);
                let tries = (0..64).filter_map(|attempt| candidate(random, attempt, last));
                met.extend(tries.map(|port| port.host()));
            }
            assert_eq!(met, (FIRST..=last).collect());
        }
    }

    #[test]
    fn no_start_leads_through_unusable_numbers_only() {
        for random in 0..500_000u32 {
            let random = random.wrapping_mul(0x9e37_79b1);
            let usable =
                (0..16).filter(|attempt| candidate(random, *attempt, BELOW_SOCKETS).is_some());
            assert!(usable.count() > 8, "{random:x}");
        }
    }

    /// Opens 60,000 flows and returns their ports in order; 30000 to 32767 are not for masqueraded flows.
    fn sixty_thousand(last: fn(u32) -> u16, usable: fn(u16) -> bool) -> Vec<u16> {
        let mut taken = BTreeSet::new();
        let mut random = 1u32;
        let mut most = 0;
        let given = (0..60_000).map(|flow| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut tries = (0..TRIES).filter_map(|attempt| {
                let port = candidate(random, attempt, last(attempt))?.host();
                (usable(port) && taken.insert(port)).then_some((attempt, port))
            });
            let found = tries.next();
            let (attempt, port) = found.unwrap_or_else(|| panic!("flow {flow} found none"));
            most = most.max(attempt);
            port
        });
        let given = given.collect();
        assert!(most > 10, "the table was never full enough to tell: {most}");
        given
    }

    #[test]
    fn sixty_thousand_flows_towards_one_destination_all_find_a_port() {
        sixty_thousand(last_of_translation, |_| true);
        let is_no_node_port = |port| !(30_000..32_768).contains(&port);
        let given = sixty_thousand(last_of_node, is_no_node_port);
        assert!(given[..20_000].iter().all(|port| *port <= BELOW_SOCKETS));
    }

    #[test]
    fn well_known_ports_are_never_taken_for_replies() {
        assert!(!is_masqueraded(Port::new(443)));
        assert!(is_masqueraded(Port::new(1024)));
        assert!(is_masqueraded(Port::new(65535)));
    }
}
