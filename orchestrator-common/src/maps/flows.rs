//! `flows_v1`: packets that are translated, one pair of rows a flow.
//!
//! A flow that a packet (k) opened towards k' has the rows `k -> k'` (forward) and `reverse(k') ->
//! reverse(k)` (reply), both in the scope of their translation. Each carries all that is needed to
//! write the other. The reply row goes in first; only the agent's sweeper removes, both together.

use super::{MapSpec, Owner};
use crate::addr::{Addr, Port};
use crate::layout::layout;
use crate::tuple::Tuple;

pub const FLOWS: MapSpec = MapSpec::hash::<Tuple, Flow>(
    "flows_v1",
    262_144,
    Owner::Datapath,
    "a packet's tuple -> what it becomes",
);

/// A filter before `flows_v1`: who reaches a pod without a Service, which is nearly everybody, is not
/// looked up there. It says "may be" too often where two hash alike, and never "no" in vain. Notes are
/// only made: a reboot ends them, and one that is needless costs a lookup.
pub const REPLIERS: MapSpec = MapSpec::array::<[u8; REPLIERS_ROW as usize]>(
    "repliers_v1",
    (1 << REPLIERS_BITS) / REPLIERS_ROW,
    Owner::Datapath,
    "address and port, hashed -> not 0 if a Service's flow may have its answers from there",
);

const REPLIERS_BITS: u32 = 16;
/// Bytes: a cache line, as what an array of the kernel's holds is 8 at least.
const REPLIERS_ROW: u32 = 64;

/// The row and the byte in it of an address and port.
#[inline(always)]
pub const fn replier(addr: &Addr, port: Port) -> (u32, u32) {
    let mixed = (addr.low_word() ^ (port.wire as u32) << 16).wrapping_mul(0x9e37_79b1);
    let position = mixed >> (32 - REPLIERS_BITS);
    (position / REPLIERS_ROW, position % REPLIERS_ROW)
}

layout! {
    pub struct Flow {
        /// What the packet's addresses and ports become.
        pub translated: Tuple,
        /// CLOCK_MONOTONIC_COARSE of the last packet that used this row, to about a second.
        pub last_seen_ns: u64,
        /// The backend's number and its generation when it was chosen; 0 without backend.
        pub backend: u32,
        pub generation: u32,
        /// `Flow::FORWARD` or `Flow::REPLY`.
        pub direction: u16,
        /// What was seen in the row's direction: `Flow::FIN`, `RST`, `USED`, `SYN`.
        pub seen: u16,
        pub reserved: u32,
    }
}

impl Flow {
    pub const FORWARD: u16 = 1;
    pub const REPLY: u16 = 2;

    pub const FIN: u16 = 1;
    pub const RST: u16 = 2;
    /// A packet used this row: a reply row without it belongs to a half-open flow.
    pub const USED: u16 = 4;
    /// Only SYNs were seen: in a forward row, of a client that has not proved to be there.
    pub const SYN: u16 = 8;

    /// The key of the other row of this flow.
    #[inline(always)]
    pub const fn other_key(&self) -> Tuple {
        self.translated.reverse()
    }

    /// The other row of the flow, given this row's key.
    #[inline(always)]
    pub const fn other(&self, key: &Tuple) -> Flow {
        Flow {
            translated: key.reverse(),
            direction: if self.direction == Flow::FORWARD {
                Flow::REPLY
            } else {
                Flow::FORWARD
            },
            seen: 0,
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{Addr, Port, Proto, Scope};

    #[test]
    fn each_row_of_a_flow_rebuilds_the_other() {
        let key = Tuple {
            src: Addr::from(Ipv4Addr::new(10, 100, 1, 5)),
            dst: Addr::from(Ipv4Addr::new(10, 96, 0, 53)),
            src_port: Port::new(40000),
            dst_port: Port::new(53),
            proto: Proto::UDP,
            scope: Scope::SERVICE,
            reserved: [0; 2],
        };
        let backend = Addr::from(Ipv4Addr::new(10, 100, 2, 7));
        let forward = Flow {
            translated: Tuple {
                dst: backend,
                dst_port: Port::new(5353),
                ..key
            },
            backend: 3,
            generation: 9,
            direction: Flow::FORWARD,
            ..Flow::default()
        };
        let reply = forward.other(&key);
        assert_eq!(reply.direction, Flow::REPLY);
        assert_eq!(reply.other_key(), key);
        assert_eq!(reply.other(&forward.other_key()), forward);
    }
}
