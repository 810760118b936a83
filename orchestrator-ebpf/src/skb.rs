//! A packet in the kernel: the wrapper of `__sk_buff` and of every helper that reads or alters one.
//!
//! All alterations keep checksums right for packets whose checksum the hardware (or the receiver's
//! stack) has yet to fill in, and for segmentation-offload packets.

use core::mem::{MaybeUninit, size_of};

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
    BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
    BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_TUNINFO_IPV6,
    bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_tunnel_key,
};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_head,
    bpf_skb_change_tail, bpf_skb_get_tunnel_key, bpf_skb_load_bytes, bpf_skb_pull_data,
    bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
};
use orchestrator_common::maps::endpoints::Endpoint;
use orchestrator_common::{Addr, DropReason, Mac, Scope, Tuple, csum};

use crate::packet::{self, ETHERNET, Fragment, Headers, Icmp, Unparsed};
use crate::tunnel::{self, Ends, OUTER_V4, Passage, Way};
use crate::{bytes, fragments, icmp};

/// What a program reads at most: Ethernet, an IP header with its options or extensions, TCP's flags.
const PULL: u32 = 256;

/// What a tunnel over IPv4 puts before an IP packet: its headers and the inner frame's.
const ROOM: i32 = OUTER_V4 as i32;

const TUNNEL_TTL: u8 = 64;
/// BPF_F_ZERO_CSUM_TX: the inner packet has its own checksum.
const ZERO_CHECKSUM: u64 = 2;
/// BPF_F_IPV6 of bpf_l4_csum_replace (Linux 6.16 and its stable siblings): without it the sum of a
/// whole frame, which the card may have taken, would be altered for IPv6 as it must be for IPv4.
const CHECKSUM_IPV6: u64 = 1 << 7;

/// A pair of pointers, both good until the program ends.
pub struct Packet {
    pub skb: *mut __sk_buff,
    pub headers: &'static mut Headers,
}

impl Packet {
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff, headers: &'static mut Headers) -> Packet {
        headers.clear();
        Packet { skb, headers }
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

    /// Whether the packet would have to be cut for a link of that MTU, and must not be. The IP packet
    /// counts; for segmentation offload, one of the segments does.
    #[inline(always)]
    pub fn exceeds(&self, mtu: u32) -> bool {
        self.length() > mtu + ETHERNET as u32 && self.headers.dont_fragment != 0 && self.is_cut(mtu)
    }

    #[inline(never)]
    fn is_cut(&self, mtu: u32) -> bool {
        mtu != 0 && self.longest() > mtu
    }

    /// The length of the longest IP packet that this is, or will be cut into.
    #[inline(always)]
    pub fn longest(&self) -> u32 {
        let segment = unsafe { (*self.skb).gso_size };
        if segment == 0 {
            return self.length() - ETHERNET as u32;
        }
        // TCP's header length stands where UDP has data already.
        let header = if self.headers.is_tcp() {
            let words = self.load::<u8>(self.headers.l4 + 12).unwrap_or(5 << 4);
            u32::from(words >> 4) * 4
        } else {
            8
        };
        self.headers.l3_length() + header + segment
    }

    /// Whether the packet is one on a link of that MTU, not to be cut nor segmented.
    #[inline(always)]
    pub fn is_single(&self, mtu: u32) -> bool {
        self.length() <= mtu + ETHERNET as u32 && unsafe { (*self.skb).gso_size } == 0
    }

    /// Puts the outer headers of a tunnel over IPv4 around the packet, which becomes the inner frame of
    /// these addresses. `false`: it is as it was.
    #[inline(always)]
    pub fn wrap(&self, ends: &Tuple, vni: u32, macs: &Way) -> bool {
        const FLAGS: u64 = (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
            | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
            | BPF_F_ADJ_ROOM_ENCAP_L2_ETH) as u64
            | (ETHERNET as u64) << 56;
        let length = self.length() as u16;
        if unsafe { bpf_skb_adjust_room(self.skb, ROOM, BPF_ADJ_ROOM_MAC, FLAGS) } != 0 {
            return false;
        }
        let (start, end) = self.linear();
        let inner = start + OUTER_V4;
        if inner + ETHERNET + size_of::<u16>() > end {
            return false;
        }
        unsafe {
            // The way to the next hop is the kernel's to find.
            let passage = Passage {
                way: macs,
                ends,
                vni,
                length,
                class: packet::class(inner + ETHERNET, self.headers.is_v6()),
                id: self.headers.serial as u16,
            };
            tunnel::write_v4(&mut *(start as *mut _), &passage);
            let ethertype = if self.headers.is_v6() {
                packet::ETHERTYPE_IPV6
            } else {
                packet::ETHERTYPE_IPV4
            };
            core::ptr::write_unaligned(inner as *mut Way, *macs);
            core::ptr::write_unaligned((inner + 12) as *mut u16, ethertype);
        }
        true
    }

    /// Whose datagram over IPv4 the packet is.
    #[inline(always)]
    pub fn ends(&self) -> Option<Ends> {
        let (start, end) = self.linear();
        unsafe { packet::ends(start, end) }
    }

    /// Whether such a packet is one of the overlay with that identifier, all of it before our eyes, and
    /// carries IPv6.
    #[inline(always)]
    pub fn carries(&self, vni: u32) -> Option<bool> {
        if unsafe { (*self.skb).gso_size } != 0 {
            return None;
        }
        let (start, end) = self.linear();
        unsafe { packet::carries(start, end, vni, self.length()) }
    }

    /// The bytes that can be read and written in place.
    #[inline(always)]
    fn linear(&self) -> (usize, usize) {
        unsafe {
            let start = (&raw const (*self.skb).data).read_volatile() as usize;
            let end = (&raw const (*self.skb).data_end).read_volatile() as usize;
            (start, end)
        }
    }

    /// Takes the outer headers off again; the frame is still the outer one's.
    #[inline(always)]
    pub fn unwrap(&self, v6: bool) -> Result<(), DropReason> {
        let family = if v6 {
            BPF_F_ADJ_ROOM_DECAP_L3_IPV6
        } else {
            BPF_F_ADJ_ROOM_DECAP_L3_IPV4
        };
        done(unsafe { bpf_skb_adjust_room(self.skb, -ROOM, BPF_ADJ_ROOM_MAC, u64::from(family)) })?;
        if v6 {
            self.store(12, &packet::ETHERTYPE_IPV6, 0)?;
        }
        Ok(())
    }

    /// Reads the headers; brings them into the linear part first if they are not there.
    #[inline(always)]
    pub fn parse(&mut self) -> Result<(), DropReason> {
        match self.parse_linear() {
            Ok(()) => Ok(()),
            Err(Unparsed::Because(reason)) => Err(reason),
            Err(Unparsed::TooShort) => {
                self.pull();
                match self.parse_linear() {
                    Ok(()) => Ok(()),
                    Err(Unparsed::Because(reason)) => Err(reason),
                    Err(Unparsed::TooShort) => Err(DropReason::Malformed),
                }
            }
        }
    }

    /// Where it fails, there will be too little to read.
    #[inline(always)]
    fn pull(&self) {
        let length = self.length().min(PULL);
        unsafe { bpf_skb_pull_data(self.skb, length) };
    }

    // Not inlined, like whatever else every program has more than once.
    #[inline(never)]
    fn parse_linear(&mut self) -> Result<(), Unparsed> {
        // Volatile, or LLVM loads both in the caller and passes them on as plain numbers.
        unsafe {
            let start = (&raw const (*self.skb).data).read_volatile() as usize;
            let end = (&raw const (*self.skb).data_end).read_volatile() as usize;
            packet::parse(start, end, self.headers)
        }
    }

    /// Reads the packet that an ICMP error quotes; `at` is where it would have its Ethernet header.
    #[inline(always)]
    pub fn parse_quote(&mut self, at: u32, quote: &mut Headers) -> Result<(), Unparsed> {
        self.pull();
        let at = at as usize;
        if at > PULL as usize {
            return Err(Unparsed::TooShort);
        }
        unsafe {
            let start = (&raw const (*self.skb).data).read_volatile() as usize;
            let end = (&raw const (*self.skb).data_end).read_volatile() as usize;
            packet::parse_quoted(start + at, end, quote, self.headers.is_v6())
        }
    }

    /// Under which key the flow of this packet has a row, if it can have one: its tuple, a later
    /// fragment's with the ports of the first, an ICMP error's as `icmp` says.
    #[inline(always)]
    pub fn key(&mut self, scope: Scope) -> Option<&Tuple> {
        if self.headers.is_icmp_error() {
            return icmp::key(self, scope);
        }
        if self.headers.fragment == Fragment::Later && !fragments::recall(self.headers) {
            return None;
        }
        let headers = &mut self.headers;
        // Nobody asks a Service for an echo.
        let may_be_echo = scope.number == Scope::MASQUERADE.number;
        if !headers.has_port_protocol() && !(may_be_echo && headers.is_echo()) {
            return None;
        }
        headers.tuple.scope = scope;
        Some(&headers.tuple)
    }

    /// Rewrites a packet to what `headers.becomes` says. An ICMP error becomes one about the packet
    /// whose answer becomes that.
    #[inline(always)]
    pub fn rewrite(&mut self) -> Result<(), DropReason> {
        if self.headers.is_icmp_error() {
            return icmp::rewrite(self);
        }
        self.rewrite_own()
    }

    /// Its own addresses and ports, with all checksums; of a later fragment the addresses only, for
    /// there is no more in it.
    #[inline(never)]
    pub fn rewrite_own(&mut self) -> Result<(), DropReason> {
        // SAFETY: of the same row, but nothing below writes this part of it.
        let to = unsafe { &*(&raw const self.headers.becomes) };
        if self.headers.is_translated == 0 {
            self.headers.is_translated = 1;
            self.headers.original = self.headers.tuple;
        }
        self.replace_addresses(to)?;
        self.replace_ports(to)?;
        self.headers.tuple.src = to.src;
        self.headers.tuple.dst = to.dst;
        self.headers.tuple.src_port = to.src_port;
        self.headers.tuple.dst_port = to.dst_port;
        Ok(())
    }

    /// Both addresses of the IP header, with every checksum that has them in it.
    #[inline(always)]
    pub fn replace_addresses(&self, to: &Tuple) -> Result<(), DropReason> {
        let own = &self.headers.tuple;
        if own.src.same(&to.src) && own.dst.same(&to.dst) {
            return Ok(());
        }
        let difference = icmp::address_difference(own, to);
        if self.has_pseudo_header() {
            let family = if self.headers.is_v6() {
                CHECKSUM_IPV6
            } else {
                0
            };
            let flags = self.l4_checksum_flags() | u64::from(BPF_F_PSEUDO_HDR) | family;
            let check = self.l4_checksum();
            done(unsafe { bpf_l4_csum_replace(self.skb, check, 0, difference.into(), flags) })?;
        }
        if self.headers.is_v6() {
            return self.put(packet::IPV6_SRC, &[to.src, to.dst]);
        }
        self.adjust_ipv4_check(difference)?;
        let words = [to.src.v4_wire(), to.dst.v4_wire()];
        self.put(packet::IPV4_SRC, &words)
    }

    /// Has IPv4's header checksum follow what was added to the header.
    #[inline(always)]
    fn adjust_ipv4_check(&self, added: u32) -> Result<(), DropReason> {
        let at = self.bytes(packet::IPV4_CHECK, size_of::<u16>())?;
        unsafe { bytes::adjust(at, added) };
        Ok(())
    }

    /// TCP and UDP have both ports at the start of their header, an ICMP echo its identifier at 4.
    #[inline(always)]
    fn replace_ports(&self, to: &Tuple) -> Result<(), DropReason> {
        let own = &self.headers.tuple;
        let (from, wanted) = ([own.src_port, own.dst_port], [to.src_port, to.dst_port]);
        let (from_word, word) = (words_of(from), words_of(wanted));
        if from_word == word || !self.has_checksum() && !self.headers.is_sctp() {
            return Ok(());
        }
        if self.headers.is_sctp() {
            return Err(DropReason::SctpPort);
        }
        let (skb, check) = (self.skb, self.l4_checksum());
        let flags = self.l4_checksum_flags();
        if self.headers.is_icmp() {
            // One of the two is the identifier, the other is zero.
            let (from, id) = (
                (from_word | from_word >> 16) as u16,
                (word | word >> 16) as u16,
            );
            done(unsafe { bpf_l4_csum_replace(skb, check, from.into(), id.into(), flags | 2) })?;
            return self.put(self.headers.l4 + 4, &id);
        }
        done(unsafe { bpf_l4_csum_replace(skb, check, from_word.into(), word.into(), flags | 4) })?;
        self.put(self.headers.l4, &word)
    }

    /// Whether the transport's checksum is in this packet and covers the addresses too: ICMP's of
    /// IPv4 and SCTP's do not.
    #[inline(always)]
    fn has_pseudo_header(&self) -> bool {
        self.has_checksum() && (self.headers.is_v6() || !self.headers.is_icmp())
    }

    #[inline(always)]
    fn has_checksum(&self) -> bool {
        let headers = &self.headers;
        headers.fragment != Fragment::Later
            && (headers.is_tcp() || headers.is_udp() || headers.icmp != Icmp::No)
    }

    #[inline(always)]
    fn l4_checksum(&self) -> u32 {
        self.headers.l4 + self.headers.checksum_offset()
    }

    /// A datagram may have no checksum, which then must stay so.
    #[inline(always)]
    fn l4_checksum_flags(&self) -> u64 {
        if self.headers.is_udp() {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        }
    }

    /// One hop less to live, of more than one.
    #[inline(always)]
    pub fn decrement_ttl(&self) -> Result<(), DropReason> {
        let ttl = self.headers.ttl;
        if self.headers.is_v6() {
            return self.put(packet::IPV6_HOPS, &(ttl - 1));
        }
        // The checksum adds words: the time to live is the upper byte of one, on the wire the
        // first.
        let (from, to) = (u16::from(ttl), u16::from(ttl - 1));
        self.adjust_ipv4_check(csum::difference(&[from, 0], &[to, 0]))?;
        self.put(packet::IPV4_TTL, &(ttl - 1))
    }

    /// Whether the frame is from that address.
    #[inline(always)]
    pub fn is_from(&self, mac: &Mac) -> bool {
        let mac = core::ptr::from_ref(mac) as usize;
        unsafe {
            let (start, end) = ((*self.skb).data as usize, (*self.skb).data_end as usize);
            if start + ETHERNET > end {
                return false;
            }
            let first = bytes::load::<u32>(start + 6) ^ bytes::load::<u32>(mac);
            let rest = bytes::load::<u16>(start + 10) ^ bytes::load::<u16>(mac + 4);
            first | u32::from(rest) == 0
        }
    }

    /// Says to the hook behind the queue of a limited endpoint that the packet was delivered.
    #[inline(always)]
    pub fn mark_queued(&self) {
        // SAFETY: the context that the kernel called the program with.
        unsafe { (*self.skb).mark = Endpoint::QUEUED_MARK };
    }

    /// Whether that was said.
    #[inline(always)]
    pub fn is_queued(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.skb).mark == Endpoint::QUEUED_MARK }
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
        // SAFETY: all zero is a valid key; either family may be written.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        key.tunnel_id = vni;
        key.tunnel_ttl = TUNNEL_TTL;
        let mut flags = ZERO_CHECKSUM;
        if to.is_v4() {
            key.__bindgen_anon_1.remote_ipv4 = u32::from_be(to.v4_wire());
            key.__bindgen_anon_3.local_ipv4 = u32::from_be(from.v4_wire());
        } else {
            key.__bindgen_anon_1.remote_ipv6 = to.words;
            key.__bindgen_anon_3.local_ipv6 = from.words;
            flags |= u64::from(BPF_F_TUNINFO_IPV6);
        }
        let size = size_of::<bpf_tunnel_key>() as u32;
        done(unsafe { bpf_skb_set_tunnel_key(self.skb, &mut key, size, flags) })
    }

    /// VNI and sender of the tunnel that the packet came from, of the underlay's family.
    #[inline(always)]
    pub fn tunnel(&self, underlay: &Addr) -> Option<(u32, Addr)> {
        /// `bpf_tunnel_key` up to its local address: a size that the kernel knows.
        #[repr(C)]
        struct ShortKey {
            vni: u32,
            remote: [u32; 4],
            rest: [u32; 2],
        }
        let mut key = ShortKey {
            vni: 0,
            remote: [0; 4],
            rest: [0; 2],
        };
        let v4 = underlay.is_v4();
        let flags = if v4 { 0 } else { BPF_F_TUNINFO_IPV6 };
        let got = unsafe {
            let at = (&raw mut key).cast::<bpf_tunnel_key>();
            bpf_skb_get_tunnel_key(self.skb, at, size_of::<ShortKey>() as u32, flags.into())
        };
        let remote = if v4 {
            Addr::from_v4_wire(key.remote[0].to_be())
        } else {
            Addr { words: key.remote }
        };
        (got == 0).then_some((key.vni, remote))
    }

    /// Writes into the headers that were parsed, which are linear since. A helper would cost as much as
    /// all that was parsed.
    #[inline(always)]
    fn put<T: Copy>(&self, at: u32, value: &T) -> Result<(), DropReason> {
        let at = self.bytes(at, size_of::<T>())?;
        unsafe { bytes::store(at, *value) };
        Ok(())
    }

    /// Where the bytes of such a header are.
    #[inline(always)]
    fn bytes(&self, at: u32, size: usize) -> Result<usize, DropReason> {
        let (start, end) = self.linear();
        let at = at as usize;
        // Kept from LLVM as in `packet`.
        if at > packet::FURTHEST_TRANSPORT || start + at + size > core::hint::black_box(end) {
            return Err(DropReason::Helper);
        }
        Ok(start + at)
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

    /// The same to where it is wanted.
    #[inline(always)]
    pub fn load_into<T: Copy>(&self, at: u32, to: &mut T) -> Result<(), DropReason> {
        let (to, size) = (core::ptr::from_mut(to).cast(), size_of::<T>() as u32);
        match unsafe { bpf_skb_load_bytes(self.skb.cast(), at, to, size) } {
            0 => Ok(()),
            _ => Err(DropReason::Malformed),
        }
    }

    /// Gives the packet another length, at its end; that also makes an ordinary one of a
    /// segmentation-offload packet.
    #[inline(always)]
    pub fn resize(&self, length: u32) -> Result<(), DropReason> {
        done(unsafe { bpf_skb_change_tail(self.skb, length, 0) })
    }

    /// Puts other headers before a whole frame.
    #[inline(always)]
    pub fn prepend<T>(&self, headers: &T) -> Result<(), DropReason> {
        done(unsafe { bpf_skb_change_head(self.skb, size_of::<T>() as u32, 0) })?;
        self.store(0, headers, 0)
    }

    /// Sends the packet as it is out of an interface, and keeps it.
    #[inline(always)]
    pub fn send_copy(&self, ifindex: u32) -> Result<(), DropReason> {
        done(unsafe { bpf_clone_redirect(self.skb, ifindex, 0) })
    }

    /// Everything from `at` on, and how much that is.
    #[inline(always)]
    pub fn load_rest<const N: usize>(&self, at: u32, to: &mut [u8; N]) -> Result<u32, DropReason> {
        let rest = part::<N>(self.length().wrapping_sub(at))?;
        let got = unsafe { bpf_skb_load_bytes(self.skb.cast(), at, to.as_mut_ptr().cast(), rest) };
        done(got)?;
        Ok(rest)
    }

    /// Writes so much of it.
    #[inline(always)]
    pub fn store_part<const N: usize>(
        &self,
        at: u32,
        from: &[u8; N],
        size: u32,
    ) -> Result<(), DropReason> {
        let (size, from) = (part::<N>(size)?, from.as_ptr().cast());
        done(unsafe { bpf_skb_store_bytes(self.skb.cast(), at, from, size, 0) })
    }

    /// The bytes behind the headers given, as the IP header counts them.
    #[inline(always)]
    pub fn payload_after(&self, l4_header: u32) -> Result<u32, DropReason> {
        let (field, more) = if self.headers.is_v6() {
            (4, packet::IPV6 as u32)
        } else {
            (2, 0)
        };
        let counted = u32::from(self.load::<u16>(ETHERNET as u32 + field)?.to_be());
        // A segmentation-offload packet beyond 64 KiB says 0.
        let total = if counted == 0 {
            self.length() - ETHERNET as u32
        } else {
            counted + more
        };
        Ok(total.saturating_sub(self.headers.l3_length() + l4_header))
    }
}

/// A size of something, and of no more than `N` bytes; LLVM must not know what the verifier has yet to
/// be shown.
#[inline(always)]
fn part<const N: usize>(size: u32) -> Result<u32, DropReason> {
    let size = core::hint::black_box(size);
    if size == 0 || size > N as u32 {
        return Err(DropReason::TooBig);
    }
    Ok(size)
}

/// Two ports as they lie beside each other.
#[inline(always)]
pub fn words_of(ports: [orchestrator_common::Port; 2]) -> u32 {
    u32::from_ne_bytes({
        let ([a, b], [c, d]) = (ports[0].wire.to_ne_bytes(), ports[1].wire.to_ne_bytes());
        [a, b, c, d]
    })
}

#[inline(always)]
pub fn done(returned: i64) -> Result<(), DropReason> {
    if returned == 0 {
        Ok(())
    } else {
        Err(DropReason::Helper)
    }
}
