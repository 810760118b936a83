//! Which source ports a masqueraded flow may get. Pure.

use orchestrator_common::Port;

/// Below the range that the node's own sockets are given (from 32768 on), so that neither takes the
/// other's replies.
const FIRST: u16 = 1024;
const COUNT: u16 = 32768 - FIRST;

/// Tries at a free port before a packet is given up.
pub const TRIES: u32 = 24;

/// A candidate from a random number; `None` if it is a reserved node port.
#[inline(always)]
pub fn candidate(random: u32, reserved_first: Port, reserved_last: Port) -> Option<Port> {
    let port = FIRST + (random % COUNT as u32) as u16;
    if port >= reserved_first.host() && port <= reserved_last.host() {
        return None;
    }
    Some(Port::new(port))
}

/// Whether a packet to that port can be the reply of a masqueraded flow at all.
#[inline(always)]
pub fn is_candidate(port: Port) -> bool {
    let port = port.host();
    port >= FIRST && port < FIRST + COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_is_in_the_range_and_none_is_reserved() {
        let (first, last) = (Port::new(30000), Port::new(32767));
        for random in 0..70_000 {
            if let Some(port) = candidate(random, first, last) {
                assert!(is_candidate(port));
                assert!((1024..30000).contains(&port.host()));
            }
        }
    }

    #[test]
    fn the_nodes_own_ephemeral_ports_are_never_taken_for_replies() {
        assert!(!is_candidate(Port::new(32768)));
        assert!(!is_candidate(Port::new(65535)));
        assert!(!is_candidate(Port::new(443)));
    }
}
