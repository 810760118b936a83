//! Datagrams in pieces: only the first piece has the ports that decide, so it leaves them behind for
//! the others.

use orchestrator_common::maps::fragments::{FragmentKey, FragmentPorts};

use crate::maps;
use crate::packet::{Fragment, Headers};

/// Gives a later fragment its datagram's ports; false if nobody left them.
#[inline(never)]
pub fn recall(headers: &mut Headers) -> bool {
    let Some(ports) = maps::fragment_ports(&key(headers)) else {
        return false;
    };
    headers.tuple.src_port = ports.src_port;
    headers.tuple.dst_port = ports.dst_port;
    true
}

/// Leaves a first fragment's ports behind. To be called before it is translated: the others come
/// with the same addresses.
#[inline(always)]
pub fn remember(headers: &Headers) {
    if headers.fragment == Fragment::First {
        write(headers);
    }
}

#[inline(never)]
fn write(headers: &Headers) {
    let tuple = &headers.tuple;
    let ports = FragmentPorts {
        src_port: tuple.src_port,
        dst_port: tuple.dst_port,
    };
    maps::set_fragment_ports(&key(headers), &ports);
}

#[inline(always)]
fn key(headers: &Headers) -> FragmentKey {
    FragmentKey {
        src: headers.tuple.src,
        dst: headers.tuple.dst,
        id: headers.fragment_id,
        proto: headers.tuple.proto,
        reserved: [0; 3],
    }
}
