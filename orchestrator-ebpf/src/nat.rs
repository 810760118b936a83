//! Masquerade: a pod's address becomes the node's towards outside, and back.

use core::mem::size_of;

use aya_ebpf::bindings::{
    __sk_buff, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as Ipv4,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as Ipv6,
};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::{DropReason, Proto, Rule, Scope, Tuple};

use crate::conntrack::{self, Ports};
use crate::forward;
use crate::fragments;
use crate::maps;
use crate::packet::{Fragment, Headers, Icmp};
use crate::port;
use crate::skb::Packet;

/// BPF_F_CURRENT_NETNS.
const THIS_NETNS: u64 = u64::MAX;

/// Makes a pod's packet the node's.
#[inline(always)]
pub fn masquerade(packet: &mut Packet, config: &Config) -> Result<Rule, DropReason> {
    let Some(key) = packet.key(Scope::MASQUERADE) else {
        return Err(untranslatable(packet));
    };
    let flow = maps::flow(key);
    let headers = &packet.headers;
    let node = &forward::family(packet, config).node;
    let translated = match flow {
        Some(flow) if headers.is_icmp_error() => &flow.translated,
        // The node's address may have changed since.
        Some(flow) if flow.translated.src.same(node) => {
            conntrack::touch(flow, headers);
            &flow.translated
        }
        _ if headers.fragment == Fragment::Later => return Err(DropReason::Fragment),
        _ if headers.is_icmp_error() => return Err(DropReason::NoFlow),
        // Who answers an echo was asked for it, and that had a flow.
        _ if headers.icmp == Icmp::EchoReply => return Err(DropReason::UnsupportedProtocol),
        _ => open(packet, config)?,
    };
    fragments::remember(packet.headers);
    packet.headers.becomes = *translated;
    packet.rewrite()?;
    Ok(if packet.headers.is_icmp_error() {
        Rule::IcmpError
    } else {
        Rule::Masquerade
    })
}

/// Why a packet can have no flow.
#[inline(always)]
fn untranslatable(packet: &Packet) -> DropReason {
    if packet.headers.is_icmp_error() {
        DropReason::NoFlow
    } else if packet.headers.fragment == Fragment::Later {
        DropReason::Fragment
    } else {
        DropReason::UnsupportedProtocol
    }
}

/// Gives a flow a source port that is free towards its destination.
#[inline(always)]
fn open(packet: &Packet, config: &Config) -> Result<&'static Tuple, DropReason> {
    let opening = conntrack::begin(packet.headers)?;
    opening.translated.src = forward::family(packet, config).node;
    // SCTP's checksum covers its ports: a flow keeps its own, if that is free.
    if packet.headers.is_sctp() {
        conntrack::open(opening)?;
        return Ok(&opening.translated);
    }
    let ports = NodePorts {
        skb: packet.skb,
        config,
    };
    conntrack::open_with_port(opening, &ports)?;
    Ok(&opening.translated)
}

/// The ports of the node's own address.
struct NodePorts<'a> {
    skb: *mut __sk_buff,
    config: &'a Config,
}

impl Ports for NodePorts<'_> {
    #[inline(always)]
    fn last(attempt: u32) -> u16 {
        port::last_of_node(attempt)
    }

    /// Neither a Service's node port nor one whose answers a socket of the node would take.
    #[inline(always)]
    fn may_be_given(&self, translated: &Tuple) -> bool {
        !self.config.is_node_port(translated.src_port) && !held_by_socket(self.skb, translated)
    }
}

#[inline(always)]
fn held_by_socket(skb: *mut __sk_buff, translated: &Tuple) -> bool {
    let is_tcp = translated.proto.number == Proto::TCP.number;
    if !is_tcp && translated.proto.number != Proto::UDP.number {
        return false;
    }
    // SAFETY: all zero is a valid tuple; the size says which member was written.
    let mut answer: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let (client, node) = (&translated.dst, &translated.src);
    let (sport, dport) = (translated.dst_port.wire, translated.src_port.wire);
    let size = if translated.src.is_v4() {
        answer.__bindgen_anon_1.ipv4 = Ipv4 {
            saddr: client.v4_wire(),
            daddr: node.v4_wire(),
            sport,
            dport,
        };
        size_of::<Ipv4>()
    } else {
        answer.__bindgen_anon_1.ipv6 = Ipv6 {
            saddr: client.words,
            daddr: node.words,
            sport,
            dport,
        };
        size_of::<Ipv6>()
    } as u32;
    // SAFETY: the context and a tuple of the size given; the socket is released.
    unsafe {
        let socket: *mut bpf_sock = if is_tcp {
            bpf_sk_lookup_tcp(skb.cast(), &mut answer, size, THIS_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(skb.cast(), &mut answer, size, THIS_NETNS, 0)
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
    }
    true
}

/// Whether a packet to the node is the answer to a masqueraded flow; it then becomes the pod's.
#[inline(always)]
pub fn unmasquerade(packet: &mut Packet) -> bool {
    let Some(key) = packet.key(Scope::MASQUERADE) else {
        return false;
    };
    // SCTP keeps its ports.
    if key.proto.number != Proto::SCTP.number && !port::is_masqueraded(key.dst_port) {
        return false;
    }
    let Some(flow) = maps::flow(key) else {
        return false;
    };
    if flow.direction != Flow::REPLY {
        return false;
    }
    conntrack::take(packet.headers, flow, Rule::MasqueradeReply);
    true
}

/// Whether a packet of TCP or UDP may be such an answer, without a look at what its row says.
#[inline(always)]
pub fn may_unmasquerade(headers: &mut Headers) -> bool {
    headers.tuple.scope = Scope::MASQUERADE;
    port::is_masqueraded(headers.tuple.dst_port) && maps::flow(&headers.tuple).is_some()
}
