//! What a packet of IPv6 says on its way between two nodes that its client asked (`dsr`): destination
//! options (RFC 8200, section 4.6) right behind the IPv6 header. Pure.

use core::mem::size_of;

use orchestrator_common::{Addr, Port};

use crate::bytes::load;
use crate::packet::{DESTINATION_OPTIONS, ETHERNET, Headers, IPV6};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Carried {
    pub next: u8,
    /// In units of eight bytes, less one.
    length: u8,
    kind: u8,
    size: u8,
    pub addr: Addr,
    pub port: Port,
    reserved: u16,
}

pub const ROOM: u32 = size_of::<Carried>() as u32;
const _: () = assert!(ROOM == 24);
const LENGTH: u8 = (ROOM / 8 - 1) as u8;
/// For experiments (RFC 4727); who does not know it skips it.
const KIND: u8 = 0x1e;
const SIZE: u8 = (ROOM - 4) as u8;

impl Carried {
    #[inline(always)]
    pub fn new(next: u8, addr: Addr, port: Port) -> Carried {
        Carried {
            next,
            length: LENGTH,
            kind: KIND,
            size: SIZE,
            addr,
            port,
            reserved: 0,
        }
    }

    /// Whether these are such options, behind a header that names `kind` as what comes next.
    #[inline(always)]
    pub fn is_sound(&self, kind: u8) -> bool {
        kind == DESTINATION_OPTIONS
            && self.length == LENGTH
            && self.kind == KIND
            && self.size == SIZE
    }
}

/// Goes on behind them, if they are the first of a packet's extension headers.
///
/// # Safety
/// The bytes from `start` on, an Ethernet frame, are readable up to `end`.
#[inline(always)]
pub unsafe fn step_over(start: usize, end: usize, headers: &mut Headers) {
    let at = start + ETHERNET + IPV6;
    if at + size_of::<Carried>() > core::hint::black_box(end) {
        return;
    }
    // SAFETY: the bytes were just compared with the end.
    let carried = unsafe { load::<Carried>(at) };
    if carried.is_sound(headers.tuple.proto.number) {
        headers.tuple.proto.number = carried.next;
        headers.l4 += ROOM;
    }
}
