//! Masquerade: a pod's address becomes the node's towards outside, and back. Nobody else chooses
//! source ports.

use core::mem::size_of;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::{DropReason, Rule, Scope, Tuple};

use crate::conntrack;
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
    match maps::flow(&headers.tuple) {
        // The node's address may have changed since.
        Some(flow) if flow.translated.src.same(&config.v4.node) => {
            conntrack::touch(flow, headers)?;
            packet.rewrite(&flow.translated)?;
        }
        _ => {
            let translated = open(packet, config)?;
            packet.rewrite(&translated)?;
        }
    }
    Ok(Rule::Masquerade)
}

/// Gives a flow a source port that is free towards its destination.
#[inline(always)]
fn open(packet: &Packet, config: &Config) -> Result<Tuple, DropReason> {
    let key = &packet.headers.tuple;
    let mut translated = *key;
    translated.src = config.v4.node;
    for _ in 0..port::TRIES {
        let random = maps::random();
        let (first, last) = (config.node_port_first, config.node_port_last);
        let Some(candidate) = port::candidate(random, first, last) else {
            continue;
        };
        translated.src_port = candidate;
        if held_by_socket(packet, &translated) {
            continue;
        }
        match conntrack::open(key, &translated, 0, 0) {
            Err(DropReason::NoFreePort) => {}
            ended => return ended.map(|()| translated),
        }
    }
    Err(DropReason::NoFreePort)
}

/// Whether a socket of the node would take the answers.
#[inline(always)]
fn held_by_socket(packet: &Packet, translated: &Tuple) -> bool {
    if packet.headers.is_icmp() {
        return false;
    }
    // SAFETY: all zero is a valid tuple; the one written is the IPv4 member, whose size is passed.
    let mut answer: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    answer.__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
        saddr: translated.dst.v4_wire(),
        daddr: translated.src.v4_wire(),
        sport: translated.dst_port.wire,
        dport: translated.src_port.wire,
    };
    let size = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>() as u32;
    let skb = packet.skb.cast();
    // SAFETY: the context and a tuple of the size given; the socket is released.
    unsafe {
        let socket: *mut bpf_sock = if packet.headers.is_tcp() {
            bpf_sk_lookup_tcp(skb, &mut answer, size, THIS_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(skb, &mut answer, size, THIS_NETNS, 0)
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
    }
    true
}

/// Makes an answer to the node a pod's again, if it is the answer to a masqueraded flow.
#[inline(always)]
pub fn unmasquerade(packet: &mut Packet) -> Result<Option<Rule>, DropReason> {
    if packet.headers.fragment != Fragment::Whole
        || !port::is_candidate(packet.headers.tuple.dst_port)
    {
        return Ok(None);
    }
    packet.headers.tuple.scope = Scope::MASQUERADE;
    let Some(flow) = maps::flow(&packet.headers.tuple) else {
        return Ok(None);
    };
    if flow.direction != Flow::REPLY {
        return Ok(None);
    }
    conntrack::touch(flow, &packet.headers)?;
    packet.rewrite(&flow.translated)?;
    Ok(Some(Rule::MasqueradeReply))
}
