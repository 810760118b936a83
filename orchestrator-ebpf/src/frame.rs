//! A frame in a driver's memory: the wrapper of `xdp_md`, and all that is read, rewritten, put around
//! and taken off there. `skb` is its counterpart behind the stack's door.
//!
//! Nothing here knows of checksums that hardware has yet to fill in: a driver's frames have none.

use core::mem::size_of;

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup, xdp_md};
use aya_ebpf::helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_xdp_adjust_head};
use orchestrator_common::maps::config::Config;
use orchestrator_common::{DropReason, Mac, Tuple, csum};

use crate::bytes::{adjust, load, store};
use crate::icmp::{address_difference, port_difference};
use crate::packet::{
    self, ETHERNET, Fragment, Headers, IPV4, IPV4_CHECK, IPV4_SRC, IPV4_TTL, IPV6, IPV6_HOPS,
    IPV6_SRC,
};
use crate::skb::words_of;
use crate::tunnel::{self, OUTER_V4, OUTER_V6, Passage, Way};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// In the transports' headers.
const TCP_CHECK: usize = 16;
const UDP_CHECK: usize = 6;
/// A datagram without a checksum, and one whose sum happens to be that.
const NO_CHECKSUM: u16 = 0;
const ZERO_CHECKSUM: u16 = 0xffff;

/// Offsets of inner frames are below this, which shows the verifier that they are small.
const MOST: usize = 127;

/// A pair of pointers, both good until the program ends.
pub struct Frame {
    xdp: *mut xdp_md,
    pub headers: &'static mut Headers,
}

// SAFETY of every block below: `xdp` is the context that the kernel called the program with, and
// what is read or written lies between the two ends that were just compared; the verifier checks
// both.

impl Frame {
    #[inline(always)]
    pub fn new(xdp: *mut xdp_md, headers: &'static mut Headers) -> Frame {
        Frame { xdp, headers }
    }

    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        unsafe { (*self.xdp).ingress_ifindex }
    }

    /// Volatile, or LLVM loads both in the caller and passes them on as plain numbers.
    #[inline(always)]
    fn bytes(&self) -> (usize, usize) {
        unsafe {
            let start = (&raw const (*self.xdp).data).read_volatile() as usize;
            let end = (&raw const (*self.xdp).data_end).read_volatile() as usize;
            (start, end)
        }
    }

    #[inline(always)]
    pub fn length(&self) -> u32 {
        let (start, end) = self.bytes();
        (end - start) as u32
    }

    /// Whether the link delivers the frame to that address.
    #[inline(always)]
    pub fn is_for(&self, mac: &Mac) -> bool {
        let (start, end) = self.bytes();
        start + ETHERNET <= end && unsafe { load::<Mac>(start) }.same(mac)
    }

    /// Reads the headers of the Ethernet frame at an offset, 0 or that of what is in the tunnel;
    /// `false` if it is not one that is whole, with nothing between IP and TCP or UDP.
    #[inline(never)]
    pub fn parse(&mut self, at: usize) -> bool {
        let (start, end) = self.bytes();
        self.headers.clear();
        // SAFETY: as above; no more than is in the frame is read.
        let parsed = unsafe { packet::parse(start + (at & MOST), end, self.headers) };
        let headers = &self.headers;
        parsed.is_ok()
            && headers.fragment == Fragment::Whole
            && (headers.is_tcp() || headers.is_udp())
            && !headers.has_options()
    }

    /// How much stands before the inner frame of a packet of the overlay; `None` if the packet is
    /// not one that a VXLAN device takes.
    #[inline(never)]
    pub fn outer(&self, config: &Config) -> Option<usize> {
        let (start, end) = self.bytes();
        let (length, vni) = (end - start, config.vni);
        let ip = start + ETHERNET;
        if config.underlay.is_v4() {
            if start + OUTER_V4 > end {
                return None;
            }
            let words = unsafe { &*(ip as *const [u16; (OUTER_V4 - ETHERNET) / 2]) };
            return tunnel::is_sound_v4(words, length - ETHERNET, vni).then_some(OUTER_V4);
        }
        if start + OUTER_V6 > end {
            return None;
        }
        let words = unsafe { &*(ip as *const [u16; (OUTER_V6 - ETHERNET) / 2]) };
        tunnel::is_sound_v6(words, length - ETHERNET, vni).then_some(OUTER_V6)
    }

    /// Whether the Ethernet frame at an offset has these addresses.
    #[inline(always)]
    pub fn has_macs(&self, at: usize, macs: &Way) -> bool {
        let (start, end) = self.bytes();
        let at = start + at;
        at + ETHERNET <= end && {
            let [a, b, c] = unsafe { load::<[u32; 3]>(at) };
            (a ^ macs[0]) | (b ^ macs[1]) | (c ^ macs[2]) == 0
        }
    }

    /// Makes room before the frame. The packet may still go on as it was if there is none.
    #[inline(always)]
    pub fn grow(&self, by: usize) -> bool {
        unsafe { bpf_xdp_adjust_head(self.xdp, -(by as i32)) == 0 }
    }

    /// Takes off what is before the frame.
    #[inline(always)]
    pub fn shrink(&self, by: usize) -> Result<(), DropReason> {
        match unsafe { bpf_xdp_adjust_head(self.xdp, by as i32) } {
            0 => Ok(()),
            _ => Err(DropReason::Helper),
        }
    }

    /// Writes destination and source of the Ethernet frame at an offset.
    #[inline(always)]
    pub fn set_macs(&self, at: usize, macs: &Way) -> Result<(), DropReason> {
        let (start, end) = self.bytes();
        let at = start + at;
        if at + ETHERNET > end {
            return Err(DropReason::Malformed);
        }
        unsafe { store(at, *macs) };
        Ok(())
    }

    /// Rewrites addresses and ports of the packet in the Ethernet frame at an offset to those of
    /// `headers.becomes`, with all checksums, and takes hops off.
    #[inline(never)]
    pub fn rewrite(&self, at: usize, hops: u8) -> Result<(), DropReason> {
        let (start, end) = self.bytes();
        let frame = start + (at & MOST);
        let headers = &*self.headers;
        let (own, to) = (&headers.tuple, &headers.becomes);
        let addresses = address_difference(own, to);
        let left = headers.ttl - hops;
        let l3 = if headers.is_v6() {
            if frame + ETHERNET + IPV6 > end {
                return Err(DropReason::Malformed);
            }
            unsafe {
                store(frame + IPV6_SRC as usize, [to.src, to.dst]);
                store(frame + IPV6_HOPS as usize, left);
            }
            IPV6
        } else {
            if frame + ETHERNET + IPV4 > end {
                return Err(DropReason::Malformed);
            }
            // The time to live is the first byte of a word.
            let word = |ttl| [u16::from_ne_bytes([ttl, 0]), 0];
            let added = addresses + csum::difference(&word(headers.ttl), &word(left));
            unsafe {
                let words = [to.src.v4_wire(), to.dst.v4_wire()];
                store(frame + IPV4_SRC as usize, words);
                store(frame + IPV4_TTL as usize, left);
                adjust(frame + IPV4_CHECK as usize, added);
            }
            IPV4
        };
        self.rewrite_transport(frame + ETHERNET + l3, end, addresses)
    }

    #[inline(always)]
    fn rewrite_transport(&self, l4: usize, end: usize, added: u32) -> Result<(), DropReason> {
        let headers = &*self.headers;
        let (own, to) = (&headers.tuple, &headers.becomes);
        let added = added + port_difference(own, to);
        let ports = words_of([to.src_port, to.dst_port]);
        if headers.is_tcp() {
            if l4 + TCP_CHECK + 2 > end {
                return Err(DropReason::Malformed);
            }
            unsafe {
                store(l4, ports);
                adjust(l4 + TCP_CHECK, added);
            }
            return Ok(());
        }
        if l4 + UDP_CHECK + 2 > end {
            return Err(DropReason::Malformed);
        }
        unsafe {
            store(l4, ports);
            if load::<u16>(l4 + UDP_CHECK) != NO_CHECKSUM {
                adjust(l4 + UDP_CHECK, added);
                if load::<u16>(l4 + UDP_CHECK) == NO_CHECKSUM {
                    store(l4 + UDP_CHECK, ZERO_CHECKSUM);
                }
            }
        }
        Ok(())
    }

    /// Writes the overlay's outer headers, of these ends, into the room before the inner frame. Its
    /// headers are those that were parsed last.
    #[inline(never)]
    pub fn wrap(&self, config: &Config, ends: &Tuple, way: &Way) -> Result<(), DropReason> {
        let (start, end) = self.bytes();
        let outer = tunnel::outer(&config.underlay);
        let inner = start + outer;
        if inner + ETHERNET + size_of::<u16>() > end {
            return Err(DropReason::Malformed);
        }
        let passage = Passage {
            way,
            ends,
            vni: config.vni,
            length: (end - inner) as u16,
            class: unsafe { packet::class(inner + ETHERNET, self.headers.is_v6()) },
            id: self.headers.serial as u16,
        };
        if config.underlay.is_v4() {
            tunnel::write_v4(unsafe { &mut *(start as *mut _) }, &passage);
        } else {
            tunnel::write_v6(unsafe { &mut *(start as *mut _) }, &passage);
        }
        Ok(())
    }

    /// Where a packet of `length` with the ends of a tuple goes next; `None` if that is not over the
    /// uplink, not known yet, or only in pieces.
    #[inline(never)]
    pub fn way(&self, config: &Config, ends: &Tuple, length: u16) -> Option<Way> {
        // SAFETY: all zero is a valid question; either family may be written.
        let mut fib: bpf_fib_lookup = unsafe { core::mem::zeroed() };
        fib.l4_protocol = ends.proto.number;
        (fib.sport, fib.dport) = (ends.src_port.wire, ends.dst_port.wire);
        fib.__bindgen_anon_1.tot_len = length;
        // The kernel answers only for an interface that forwards. Whether the uplink does is the
        // user's to say; `orch-net` may for this, for nothing gets from there to the stack.
        fib.ifindex = config.host;
        if ends.src.is_v4() {
            fib.family = AF_INET;
            fib.__bindgen_anon_3.ipv4_src = ends.src.v4_wire();
            fib.__bindgen_anon_4.ipv4_dst = ends.dst.v4_wire();
        } else {
            fib.family = AF_INET6;
            fib.__bindgen_anon_3.ipv6_src = ends.src.words;
            fib.__bindgen_anon_4.ipv6_dst = ends.dst.words;
        }
        let size = size_of::<bpf_fib_lookup>() as i32;
        let found = unsafe { fib_lookup(self.xdp.cast(), &mut fib, size, 0) };
        let by_uplink =
            found == i64::from(BPF_FIB_LKUP_RET_SUCCESS) && fib.ifindex == config.uplink;
        by_uplink.then(|| Mac::frame(Mac::new(fib.dmac), Mac::new(fib.smac)))
    }
}
