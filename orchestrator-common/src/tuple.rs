//! The 5-tuple of a packet, its reverse, and the scope that keeps translations of different kinds
//! apart.

use core::fmt;

use crate::addr::{Addr, Port, Proto};
use crate::layout::layout;

layout! {
    /// Who speaks to whom, as the packet on the wire says it. Key of the flow table.
    ///
    /// For ICMP echo the identifier is the source port of a request and the destination port of a
    /// reply, the other port is zero: so the reverse of a request is its reply.
    pub struct Tuple {
        pub src: Addr,
        pub dst: Addr,
        pub src_port: Port,
        pub dst_port: Port,
        pub proto: Proto,
        pub scope: Scope,
        pub reserved: [u8; 2],
    }
}

impl Tuple {
    /// The tuple of the answer.
    #[inline(always)]
    pub const fn reverse(&self) -> Tuple {
        Tuple {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            proto: self.proto,
            scope: self.scope,
            reserved: [0; 2],
        }
    }

    /// Equality of what a packet carries, without the scope.
    #[inline(always)]
    pub const fn same_packet(&self, other: &Tuple) -> bool {
        self.src.same(&other.src)
            && self.dst.same(&other.dst)
            && self.src_port.wire == other.src_port.wire
            && self.dst_port.wire == other.dst_port.wire
            && self.proto.number == other.proto.number
    }

    #[inline(always)]
    pub const fn in_scope(&self, scope: Scope) -> Tuple {
        Tuple { scope, ..*self }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple {
            src,
            dst,
            src_port,
            dst_port,
            proto,
            ..
        } = self;
        if src.is_v4() {
            write!(f, "{proto} {src}:{src_port} -> {dst}:{dst_port}")
        } else {
            write!(f, "{proto} [{src}]:{src_port} -> [{dst}]:{dst_port}")
        }
    }
}

layout! {
    /// Which translation a flow belongs to. The same packet may have one flow of each: a pod that
    /// reaches a backend outside the cluster through a Service is translated twice.
    pub struct Scope {
        pub number: u8,
    }
}

impl Scope {
    /// No translation: the tuple describes a packet.
    pub const PACKET: Scope = Scope { number: 0 };
    /// A Service's address and a backend's.
    pub const SERVICE: Scope = Scope { number: 1 };
    /// A pod's address and the node's, towards outside.
    pub const MASQUERADE: Scope = Scope { number: 2 };
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Scope::PACKET => f.write_str("packet"),
            Scope::SERVICE => f.write_str("service"),
            Scope::MASQUERADE => f.write_str("masquerade"),
            Scope { number } => number.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::net::Ipv4Addr;
    use std::string::ToString;

    use super::*;

    #[test]
    fn the_reverse_of_the_reverse_is_the_tuple() {
        let tuple = Tuple {
            src: Ipv4Addr::new(10, 100, 1, 5).into(),
            dst: Ipv4Addr::new(10, 96, 0, 53).into(),
            src_port: Port::new(40000),
            dst_port: Port::new(53),
            proto: Proto::UDP,
            scope: Scope::SERVICE,
            reserved: [0; 2],
        };
        assert_eq!(tuple.reverse().reverse(), tuple);
        assert_eq!(
            tuple.reverse().to_string(),
            "udp 10.96.0.53:53 -> 10.100.1.5:40000"
        );
    }
}
