//! Sockets: a TCP connection to a Service is one to a backend from the start, and no packet of it
//! is translated.
//!
//! They run for every socket below the cgroup they are attached to and act only for the node's own
//! network namespaces.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use orchestrator_common::maps::services::ServiceKey;
use orchestrator_common::maps::sockets::SocketService;
use orchestrator_common::{Addr, Port, Proto};

use crate::{choice, maps};

const ALLOW: i32 = 1;
const REJECT: i32 = 0;
const ECONNREFUSED: i32 = 111;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY of this and the following blocks: the context that the kernel called the program with.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    if protocol != u32::from(Proto::TCP.number) || !is_ours(&ctx) {
        return ALLOW;
    }
    let (addr, port) = peer(ctx.sock_addr);
    let Some(service) = maps::service(&ServiceKey::new(addr, port, Proto::TCP)) else {
        return ALLOW;
    };
    let Ok(backend) = choice::by_chance(service) else {
        unsafe { bpf_set_retval(-ECONNREFUSED) };
        return REJECT;
    };
    let mut asked = SocketService {
        service: addr,
        backend: backend.addr,
        service_port: port,
        backend_port: backend.port,
    };
    set_peer(ctx.sock_addr, &backend.addr, backend.port);
    // Without room for it the connection works and getpeername says the backend's address.
    unsafe {
        let kept = maps::SOCKET_SERVICES.get_or_insert_ptr_mut(&ctx, Some(&mut asked));
        if !kept.is_null() {
            *kept = asked;
        }
    }
    ALLOW
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    // SAFETY: as above; a row stays readable until the program ends.
    let asked = unsafe { maps::SOCKET_SERVICES.get_ptr_mut(&ctx).as_ref() };
    if let Some(asked) = asked {
        let (addr, port) = peer(ctx.sock_addr);
        if addr.same(&asked.backend) && port.wire == asked.backend_port.wire {
            set_peer(ctx.sock_addr, &asked.service, asked.service_port);
        }
    }
    ALLOW
}

#[inline(always)]
fn is_ours(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    maps::netns(cookie).is_some()
}

#[inline(always)]
fn peer(sock_addr: *const bpf_sock_addr) -> (Addr, Port) {
    // SAFETY: the context.
    let (ip, port) = unsafe { ((*sock_addr).user_ip4, (*sock_addr).user_port) };
    (Addr::from_v4_wire(ip), Port::from_wire(port as u16))
}

#[inline(always)]
fn set_peer(sock_addr: *mut bpf_sock_addr, addr: &Addr, port: Port) {
    // SAFETY: the context.
    unsafe {
        (*sock_addr).user_ip4 = addr.v4_wire();
        (*sock_addr).user_port = u32::from(port.wire);
    }
}
