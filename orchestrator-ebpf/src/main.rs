//! The datapath: one object, one program a hook. Entry, licence and panic handler; no logic.
//!
//! Built for the kernel by `cargo xtask build-ebpf`. On the host only what is pure is compiled, for
//! its tests.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// What only the programs call has no caller on the host but its tests.
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code))]

mod bytes;
mod carried;
mod hash;
mod neighbour;
mod packet;
mod pieces;
mod port;
mod refusal;
mod state;
mod tunnel;

#[cfg(target_arch = "bpf")]
mod affinity;
#[cfg(target_arch = "bpf")]
mod announce;
#[cfg(target_arch = "bpf")]
mod choice;
#[cfg(target_arch = "bpf")]
mod conntrack;
#[cfg(target_arch = "bpf")]
mod drop;
#[cfg(target_arch = "bpf")]
mod dsr;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod fragments;
#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
mod icmp;
#[cfg(target_arch = "bpf")]
mod lb;
#[cfg(all(target_arch = "bpf", feature = "log"))]
mod log;
#[cfg(all(target_arch = "bpf", not(feature = "log")))]
#[path = "log_off.rs"]
mod log;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod nat;
#[cfg(target_arch = "bpf")]
mod path;
#[cfg(target_arch = "bpf")]
mod refuse;
#[cfg(target_arch = "bpf")]
mod skb;

/// The helpers used ask for a licence that the kernel counts as compatible.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this is the datapath: `cargo xtask build-ebpf` builds it for the kernel");
}
