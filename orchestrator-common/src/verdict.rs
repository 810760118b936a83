//! What a program may decide about a packet, why it may drop one, and the trace it leaves of the
//! decision.

use core::fmt;

/// Declares a fieldless enum of numbers that never change their meaning, with its names for people
/// and metrics.
macro_rules! numbered {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $number:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant = $number,)+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            pub const fn from_number(number: u32) -> Option<$name> {
                match number { $($number => Some($name::$variant),)+ _ => None }
            }

            #[inline(always)]
            pub const fn number(self) -> u32 { self as u32 }

            /// The name in metrics and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.name()) }
        }
    };
}

numbered! {
    /// Where a packet goes. Numbers below 16: they are also rows of the counters.
    pub enum Verdict {
        /// Nowhere; the trace has the reason.
        Drop = 0, "drop";
        /// On through the node's own stack, unaltered or translated.
        Pass = 1, "pass";
        /// To the pod behind a host veth, by `bpf_redirect_peer`.
        Peer = 2, "peer";
        /// To the node itself, by `bpf_redirect` to `orch-net`.
        Node = 3, "node";
        /// To another node through the VXLAN device.
        Overlay = 4, "overlay";
        /// Out of the uplink with the kernel's neighbour lookup.
        Outside = 5, "outside";
        /// Back to its sender, as the refusal that the program made of it.
        Refuse = 6, "refuse";
        /// Back to its sender, as the answer that the program made of it.
        Reply = 7, "reply";
        /// To another node, encapsulated by the program itself, out of the uplink with the kernel's
        /// neighbour lookup.
        Tunnel = 8, "tunnel";
    }
}

numbered! {
    /// Why a packet was dropped or refused. One list for datapath, metrics and command line.
    pub enum DropReason {
        None = 0, "none";
        /// Too short, or a header that contradicts itself.
        Malformed = 1, "malformed";
        /// Not IPv4 (nor ARP, where a program lets that pass).
        NotIp = 2, "not_ip";
        /// The agent has not written the configuration row.
        NoConfig = 3, "no_config";
        /// A pod used a source address that is not its own.
        SourceSpoofed = 4, "source_spoofed";
        /// A Service's address without such a port.
        NoService = 5, "no_service";
        /// A Service without endpoints.
        NoBackend = 6, "no_backend";
        /// No such pod on this node.
        NoEndpoint = 7, "no_endpoint";
        /// An address of the pod range that belongs to no node.
        NoNode = 8, "no_node";
        /// A later fragment of a packet that would need its ports.
        Fragment = 9, "fragment";
        /// A protocol that cannot be translated where it would have to be.
        UnsupportedProtocol = 10, "unsupported_protocol";
        /// A frame without tunnel key on the overlay device, or with a foreign VNI.
        NotOurTunnel = 11, "not_our_tunnel";
        /// The tunnel's source is not the node that owns the inner source.
        TunnelSpoofed = 12, "tunnel_spoofed";
        /// A pod's address seen on the uplink outside the overlay.
        PodRangeOutside = 13, "pod_range_outside";
        /// No source port towards that destination would keep the answers of two flows apart.
        NoFreePort = 14, "no_free_port";
        /// The flow table is full.
        FlowTableFull = 15, "flow_table_full";
        /// A Service picked the sender itself.
        Hairpin = 16, "hairpin";
        /// Time to live ran out.
        TtlExceeded = 17, "ttl_exceeded";
        /// A helper of the kernel refused to alter the packet.
        Helper = 18, "helper";
        /// Multicast or broadcast, which the overlay does not carry.
        NotUnicast = 19, "not_unicast";
        /// `externalTrafficPolicy: Local`, and no endpoint here.
        NoLocalEndpoint = 20, "no_local_endpoint";
        /// Not in the Service's `loadBalancerSourceRanges`.
        SourceRange = 21, "source_range";
        /// SCTP's checksum covers its ports: only the address can be translated.
        SctpPort = 22, "sctp_port";
        /// An ICMP error whose quoted packet belongs to no flow.
        NoFlow = 23, "no_flow";
        /// Larger than the overlay carries, and not to be fragmented: the sender is told.
        TooBig = 24, "too_big";
    }
}

numbered! {
    /// The rule that decided, for tests and `trace`.
    pub enum Rule {
        None = 0, "none";
        /// The destination is an endpoint of this node.
        LocalEndpoint = 1, "local_endpoint";
        /// The destination is in another node's share of the pod range.
        RemotePod = 2, "remote_pod";
        /// The destination is outside the cluster.
        Default = 3, "default";
        /// A Service's address was replaced by a backend's.
        Service = 4, "service";
        /// A backend's address was replaced by the Service's.
        ServiceReply = 5, "service_reply";
        /// A pod's address was replaced by the node's.
        Masquerade = 6, "masquerade";
        /// The node's address was replaced by a pod's.
        MasqueradeReply = 7, "masquerade_reply";
        /// Not a packet that the program is there for.
        NotOurs = 8, "not_ours";
        /// An ICMP error, translated as the flow that it quotes.
        IcmpError = 9, "icmp_error";
        /// A Service's external address that this node answers for.
        Announced = 10, "announced";
        /// A backend answers an external client from its own node.
        DirectReturn = 11, "direct_return";
    }
}

/// What the one exit of a program leaves in `skb->cb`; BPF_PROG_TEST_RUN hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub verdict: Verdict,
    /// Index of the interface that the packet was sent to, 0 if none.
    pub target: u32,
    /// The low word of the other node's address, 0 without encapsulation.
    pub vtep: u32,
    pub reason: DropReason,
    pub rule: Rule,
}

impl Trace {
    #[inline(always)]
    pub const fn to_cb(&self) -> [u32; 5] {
        let (verdict, reason) = (self.verdict.number(), self.reason.number());
        [verdict, self.target, self.vtep, reason, self.rule.number()]
    }

    pub const fn from_cb(cb: [u32; 5]) -> Option<Trace> {
        let [verdict, target, vtep, reason, rule] = cb;
        match (
            Verdict::from_number(verdict),
            DropReason::from_number(reason),
            Rule::from_number(rule),
        ) {
            (Some(verdict), Some(reason), Some(rule)) => Some(Trace {
                verdict,
                target,
                vtep,
                reason,
                rule,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_survives_the_control_buffer() {
        let trace = Trace {
            verdict: Verdict::Overlay,
            target: 7,
            vtep: 0xac1f_000b,
            reason: DropReason::None,
            rule: Rule::RemotePod,
        };
        assert_eq!(Trace::from_cb(trace.to_cb()), Some(trace));
        assert_eq!(Trace::from_cb([99, 0, 0, 0, 0]), None);
    }

    #[test]
    fn every_number_finds_its_reason() {
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(reason.number()), Some(*reason));
        }
    }
}
