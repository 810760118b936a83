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
use crate::lb::Translation;
use crate::maps;
use crate::packet::{Fragment, Icmp};
use crate::port;
use crate::skb::Packet;

/// BPF_F_CURRENT_NETNS.
const THIS_NETNS: u64 = u64::MAX;

/// Makes a pod's packet the node's.
#[inline(always)]
pub fn masquerade(packet: &mut Packet, config: &Config) -> Result<Rule, DropReason> {
    let headers = &packet.headers;
    if headers.fragment != Fragment::Whole {
        return Err(DropReason::Fragment);
    }
    let has_ports = headers.is_tcp() || headers.is_udp();
    if !has_ports && headers.icmp != Icmp::Echo {
        return Err(DropReason::UnsupportedProtocol);
    }
    packet.headers.tuple.scope = Scope::MASQUERADE;
    let headers = &packet.headers;
    let node = &config.family(&headers.tuple.src).node;
    let translated = match maps::flow(&headers.tuple) {
        // The node's address may have changed since.
        Some(flow) if flow.translated.src.same(node) => {
            conntrack::touch(flow, headers);
            &flow.translated
        }
        _ => open(packet, config)?,
    };
    packet.rewrite(translated)?;
    Ok(Rule::Masquerade)
}

/// Gives a flow a source port that is free towards its destination.
#[inline(always)]
fn open(packet: &Packet, config: &Config) -> Result<&'static Tuple, DropReason> {
    let key = &packet.headers.tuple;
    let opening = conntrack::begin(key)?;
    opening.translated.src = config.family(&key.src).node;
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
    const LAST: u16 = port::MASQUERADE;

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

/// What an answer to the node becomes, if it is the answer to a masqueraded flow.
#[inline(always)]
pub fn unmasquerade(packet: &mut Packet) -> Option<Translation> {
    if packet.headers.fragment != Fragment::Whole
        || !port::is_masqueraded(packet.headers.tuple.dst_port)
    {
        return None;
    }
    packet.headers.tuple.scope = Scope::MASQUERADE;
    let flow = maps::flow(&packet.headers.tuple)?;
    if flow.direction != Flow::REPLY {
        return None;
    }
    conntrack::touch(flow, &packet.headers);
    Some((&flow.translated, Rule::MasqueradeReply))
}
