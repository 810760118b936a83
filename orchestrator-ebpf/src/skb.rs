//! A packet in the kernel: the wrapper of `__sk_buff` and of every helper that reads or alters one.
//!
//! All alterations keep checksums right for packets whose checksum the hardware (or the receiver's
//! stack) has yet to fill in, and for segmentation-offload packets.

use core::mem::{MaybeUninit, size_of};

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, bpf_tunnel_key};
use aya_ebpf::helpers::generated::{
    bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_get_tunnel_key, bpf_skb_load_bytes,
    bpf_skb_pull_data, bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
};
use orchestrator_common::{Addr, DropReason, Port, Tuple};

use crate::packet::{self, ETHERNET, Headers, Unparsed};

/// What a program reads at most: Ethernet, the longest IPv4 header, TCP's flags.
const PULL: u32 = 14 + 60 + 14;

const TUNNEL_TTL: u8 = 64;
/// BPF_F_ZERO_CSUM_TX: the inner packet has its own checksum.
const ZERO_CHECKSUM: u64 = 2;

pub struct Packet {
    pub skb: *mut __sk_buff,
    pub headers: Headers,
}

impl Packet {
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Packet {
        Packet {
            skb,
            headers: Headers::EMPTY,
        }
    }

    // SAFETY of every block below: `skb` is the context that the kernel called the program with,
    // and buffers are of the sizes that are passed with them; the verifier checks both.

    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    pub fn length(&self) -> u32 {
        unsafe { (*self.skb).len }
    }

    /// Reads the headers; brings them into the linear part first if they are not there.
    #[inline(always)]
    pub fn parse(&mut self) -> Result<(), DropReason> {
        match self.parse_linear() {
            Ok(()) => Ok(()),
            Err(Unparsed::Because(reason)) => Err(reason),
            Err(Unparsed::TooShort) => {
                let length = if self.length() < PULL {
                    self.length()
                } else {
                    PULL
                };
                if unsafe { bpf_skb_pull_data(self.skb, length) } != 0 {
                    return Err(DropReason::Malformed);
                }
                match self.parse_linear() {
                    Ok(()) => Ok(()),
                    Err(Unparsed::Because(reason)) => Err(reason),
                    Err(Unparsed::TooShort) => Err(DropReason::Malformed),
                }
            }
        }
    }

    #[inline(always)]
    fn parse_linear(&mut self) -> Result<(), Unparsed> {
        unsafe {
            let (start, end) = ((*self.skb).data as usize, (*self.skb).data_end as usize);
            packet::parse(start, end, &mut self.headers)
        }
    }

    /// Rewrites addresses and ports to those of `to`, with all checksums. Not for later fragments.
    #[inline(always)]
    pub fn rewrite(&mut self, to: &Tuple) -> Result<(), DropReason> {
        let from = self.headers.tuple;
        if from.src.v4_wire() != to.src.v4_wire() {
            self.replace_address(packet::IPV4_SRC, from.src.v4_wire(), to.src.v4_wire())?;
        }
        if from.dst.v4_wire() != to.dst.v4_wire() {
            self.replace_address(packet::IPV4_DST, from.dst.v4_wire(), to.dst.v4_wire())?;
        }
        if from.src_port.wire != to.src_port.wire {
            self.replace_port(0, from.src_port, to.src_port)?;
        }
        if from.dst_port.wire != to.dst_port.wire {
            self.replace_port(2, from.dst_port, to.dst_port)?;
        }
        self.headers.tuple.src = to.src;
        self.headers.tuple.dst = to.dst;
        self.headers.tuple.src_port = to.src_port;
        self.headers.tuple.dst_port = to.dst_port;
        Ok(())
    }

    #[inline(always)]
    fn replace_address(&self, at: u32, from: u32, to: u32) -> Result<(), DropReason> {
        let (from_sum, to_sum) = (u64::from(from), u64::from(to));
        if self.headers.has_ports() {
            let flags = self.l4_checksum_flags() | u64::from(BPF_F_PSEUDO_HDR) | 4;
            let check = self.l4_checksum();
            done(unsafe { bpf_l4_csum_replace(self.skb, check, from_sum, to_sum, flags) })?;
        }
        done(unsafe { bpf_l3_csum_replace(self.skb, packet::IPV4_CHECK, from_sum, to_sum, 4) })?;
        self.store(at, &to, 0)
    }

    /// `at` is the port's place in a TCP or UDP header; an ICMP echo has its identifier at 4.
    #[inline(always)]
    fn replace_port(&self, at: u32, from: Port, to: Port) -> Result<(), DropReason> {
        let flags = self.l4_checksum_flags() | 2;
        let (from, wire) = (u64::from(from.wire), u64::from(to.wire));
        done(unsafe { bpf_l4_csum_replace(self.skb, self.l4_checksum(), from, wire, flags) })?;
        let at = if self.headers.is_icmp() { 4 } else { at };
        self.store(self.headers.l4 + at, &to, 0)
    }

    #[inline(always)]
    fn l4_checksum(&self) -> u32 {
        self.headers.l4
            + if self.headers.is_tcp() {
                16
            } else if self.headers.is_udp() {
                6
            } else {
                2
            }
    }

    /// UDP over IPv4 may have no checksum, which then must stay so.
    #[inline(always)]
    fn l4_checksum_flags(&self) -> u64 {
        if self.headers.is_udp() {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        }
    }

    /// One hop less to live.
    #[inline(always)]
    pub fn decrement_ttl(&self) -> Result<(), DropReason> {
        let ttl = self.headers.ttl;
        if ttl <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        // The checksum adds words: the time to live is the upper byte of one, on the wire the
        // first.
        let (from, to) = (u64::from(ttl), u64::from(ttl - 1));
        done(unsafe { bpf_l3_csum_replace(self.skb, packet::IPV4_CHECK, from, to, 2) })?;
        self.store(packet::IPV4_TTL, &(ttl - 1), 0)
    }

    /// Writes destination and source of the frame, as `Mac::frame` puts them in words.
    #[inline(always)]
    pub fn set_macs(&self, macs: &[u32; 3]) -> Result<(), DropReason> {
        // Straight into the packet: it is on every packet's way, and a helper would cost as much
        // as all that was parsed.
        unsafe {
            let (start, end) = ((*self.skb).data as usize, (*self.skb).data_end as usize);
            if start + size_of::<[u32; 3]>() <= end {
                let to = start as *mut u32;
                *to = macs[0];
                *to.add(1) = macs[1];
                *to.add(2) = macs[2];
                return Ok(());
            }
        }
        self.store(0, macs, 0)
    }

    /// What the VXLAN device is to put around the packet.
    #[inline(always)]
    pub fn set_tunnel(&self, vni: u32, from: &Addr, to: &Addr) -> Result<(), DropReason> {
        // SAFETY: all zero is a valid key.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        key.tunnel_id = vni;
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(to.v4_wire());
        key.__bindgen_anon_3.local_ipv4 = u32::from_be(from.v4_wire());
        key.tunnel_ttl = TUNNEL_TTL;
        let size = size_of::<bpf_tunnel_key>() as u32;
        done(unsafe { bpf_skb_set_tunnel_key(self.skb, &mut key, size, ZERO_CHECKSUM) })
    }

    /// VNI and sender of the tunnel that the packet came from.
    #[inline(always)]
    pub fn tunnel(&self) -> Option<(u32, Addr)> {
        /// `bpf_tunnel_key` up to its first address: a size that the kernel knows.
        #[repr(C)]
        struct ShortKey {
            vni: u32,
            remote_ipv4: u32,
        }
        let mut key = ShortKey {
            vni: 0,
            remote_ipv4: 0,
        };
        let got = unsafe {
            let at = (&raw mut key).cast::<bpf_tunnel_key>();
            bpf_skb_get_tunnel_key(self.skb, at, size_of::<ShortKey>() as u32, 0)
        };
        (got == 0).then(|| (key.vni, Addr::from_v4_wire(key.remote_ipv4.to_be())))
    }

    #[inline(always)]
    pub fn store<T>(&self, at: u32, value: &T, flags: u64) -> Result<(), DropReason> {
        let (from, size) = (core::ptr::from_ref(value), size_of::<T>() as u32);
        done(unsafe { bpf_skb_store_bytes(self.skb.cast(), at, from.cast(), size, flags) })
    }

    /// For `T` of plain integers.
    #[inline(always)]
    pub fn load<T: Copy>(&self, at: u32) -> Result<T, DropReason> {
        let mut value = MaybeUninit::<T>::uninit();
        let (to, size) = (value.as_mut_ptr().cast(), size_of::<T>() as u32);
        let got = unsafe { bpf_skb_load_bytes(self.skb.cast(), at, to, size) };
        // The helper wrote all of it.
        if got == 0 {
            Ok(unsafe { value.assume_init() })
        } else {
            Err(DropReason::Malformed)
        }
    }

    /// The bytes behind the headers given, as the IPv4 header counts them.
    #[inline(always)]
    pub fn payload_after(&self, l4_header: u32) -> Result<u32, DropReason> {
        let total = u32::from(self.load::<u16>(ETHERNET as u32 + 2)?.to_be());
        // A segmentation-offload packet beyond 64 KiB says 0.
        let total = if total == 0 {
            self.length() - ETHERNET as u32
        } else {
            total
        };
        Ok(total.saturating_sub(self.headers.l4 - ETHERNET as u32 + l4_header))
    }
}

#[inline(always)]
pub fn done(returned: i64) -> Result<(), DropReason> {
    if returned == 0 {
        Ok(())
    } else {
        Err(DropReason::Helper)
    }
}
