//! Sockets: a TCP connection to a Service is one to a backend from the start, and no packet of it
//! is translated. The node's datagrams to its own addresses would never come by a device of ours,
//! so those for a node port are sent to an address whose do.
//!
//! They run for every socket below the cgroup they are attached to and act only for the node's own
//! network namespaces. An IPv4-mapped peer of an IPv6 socket is an IPv4 one in our tables as well.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::endpoints::Netns;
use orchestrator_common::maps::services::{Backend, Service, ServiceKey};
use orchestrator_common::maps::sockets::SocketService;
use orchestrator_common::maps::statistics::reason_row;
use orchestrator_common::{Addr, DropReason, Port, Proto, Tuple};

use crate::{choice, drop, log, maps};

const ALLOW: i32 = 1;
const REJECT: i32 = 0;
const EADDRINUSE: i32 = 98;
const ECONNREFUSED: i32 = 111;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect::<false>(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect::<true>(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    send::<false>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    send::<true>(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    show_asked::<false>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    show_asked::<true>(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    show_asked::<false>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    show_asked::<true>(&ctx)
}

#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    bind(&ctx, false)
}

#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    bind(&ctx, true)
}

/// The last that a process does with a socket.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    maps::remove_socket_service(cookie(&ctx));
    ALLOW
}

#[inline(always)]
fn connect<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    // SAFETY of this and the following blocks: the context that the kernel called the program with.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    if protocol == u32::from(Proto::UDP.number) {
        return send::<V6>(ctx);
    }
    if protocol != u32::from(Proto::TCP.number) {
        return ALLOW;
    }
    let Some(netns) = netns(ctx) else {
        return ALLOW;
    };
    let (addr, port) = peer::<V6>(ctx.sock_addr);
    let Some(service) = find(ctx, netns, addr, port) else {
        return ALLOW;
    };
    let backend = match choose(&service, netns, &addr) {
        Ok(backend) => backend,
        Err(reason) => {
            maps::count_refused(service.id);
            maps::count(reason_row(reason));
            report::<V6>(ctx.sock_addr, netns, reason);
            log::refused(&asked(netns, addr, port), service.id, reason);
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            return REJECT;
        }
    };
    maps::count_opened(service.id, backend.id);
    log::connected(&asked(netns, addr, port), service.id, &backend);
    set_peer::<V6>(ctx.sock_addr, &backend.addr, backend.port);
    let mut asked = SocketService {
        service: addr,
        backend: backend.addr,
        service_port: port,
        backend_port: backend.port,
    };
    maps::set_socket_service(ctx, cookie(ctx), &mut asked);
    ALLOW
}

/// Tells of a connection that is not to be. Not inlined: the verifier walks it less often.
#[inline(never)]
fn report<const V6: bool>(sock_addr: *const bpf_sock_addr, netns: &Netns, reason: DropReason) {
    drop::tell(Hook::Connect, reason, |event| {
        (event.tuple.dst, event.tuple.dst_port) = peer::<V6>(sock_addr);
        event.tuple.src = *source(netns, &event.tuple.dst);
        event.tuple.proto = Proto::TCP;
    });
}

/// What a connection's first packet would be, for the log: its port is not chosen yet.
#[inline(always)]
fn asked(netns: &Netns, to: Addr, port: Port) -> Tuple {
    Tuple {
        src: *source(netns, &to),
        dst: to,
        dst_port: port,
        proto: Proto::TCP,
        ..Tuple::default()
    }
}

/// The Service that a connection is to be balanced for here.
#[inline(always)]
fn find(ctx: &SockAddrContext, netns: &Netns, addr: Addr, port: Port) -> Option<Service> {
    // A host port on loopback is the node's: each pod has a loopback of its own.
    if addr.is_own() && !netns.is_host() {
        return None;
    }
    let key = ServiceKey::new(addr, port, Proto::TCP);
    let (service, is_seen) = match maps::service(&key) {
        Some(service) => (service, true),
        None if is_node(netns, &addr) => (maps::service(&key.node_port())?, !netns.is_host()),
        None => return None,
    };
    // Two connections from one port to one backend cannot be, but to two Services they can: who
    // holds a port already is translated packet by packet, where its packets come by.
    if is_seen && is_bound(ctx) {
        return None;
    }
    Some(service)
}

#[inline(always)]
fn choose(service: &Service, netns: &Netns, to: &Addr) -> Result<Backend, DropReason> {
    let is_restricted = service.flags & Service::SOURCE_RANGES != 0;
    if is_restricted || service.affinity_s != 0 {
        let client = source(netns, to);
        if is_restricted && !maps::is_admitted(service.id, client) {
            return Err(DropReason::SourceRange);
        }
        if service.affinity_s != 0 {
            return choice::for_client(service, client);
        }
    }
    choice::by_chance(service)
}

/// A socket's source is not chosen yet, but its namespace has only one.
#[inline(always)]
fn source<'a>(netns: &'a Netns, to: &Addr) -> &'a Addr {
    if to.is_v4() { &netns.v4 } else { &netns.v6 }
}

/// A datagram, or a socket that will send some. Only the node's own to its own addresses: all
/// others come by `from_container`, which balances them.
#[inline(always)]
fn send<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    let Some(netns) = netns(ctx) else {
        return ALLOW;
    };
    let (addr, port) = peer::<V6>(ctx.sock_addr);
    if !netns.is_host() || !is_node(netns, &addr) {
        return ALLOW;
    }
    let Some((by, by_port)) = receiver(addr, port) else {
        return ALLOW;
    };
    set_peer::<V6>(ctx.sock_addr, &by, by_port);
    let mut asked = SocketService {
        service: addr,
        backend: by,
        service_port: port,
        backend_port: by_port,
    };
    // Who sends datagrams sends many.
    let cookie = cookie(ctx);
    if !maps::socket_service(ctx, cookie).is_some_and(|had| had.same(&asked)) {
        maps::set_socket_service(ctx, cookie, &mut asked);
    }
    ALLOW
}

/// Who is given a datagram for a port of the node. A host port of one address has one pod, which is sent
/// to directly. A port of every address may have many backends: the datagram goes to the address of the
/// Services, where each flow gets one.
#[inline(always)]
fn receiver(addr: Addr, port: Port) -> Option<(Addr, Port)> {
    let key = ServiceKey::new(addr, port, Proto::UDP);
    if let Some(service) = maps::service(&key) {
        let is_plain = service.count == 1 && service.flags & Service::SOURCE_RANGES == 0;
        let pod = maps::backend(service.id, 0).filter(|_| is_plain)?;
        return Some((pod.addr, pod.port));
    }
    maps::service(&key.node_port())?;
    let config = maps::config().ok()?;
    Some((config.family(&addr).services.addr, port))
}

/// Shows what was asked for in the place of what was given, while that is still the peer.
#[inline(always)]
fn show_asked<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    if let Some(asked) = maps::socket_service(ctx, cookie(ctx)) {
        let (addr, port) = peer::<V6>(ctx.sock_addr);
        if addr.same(&asked.backend) && port.wire == asked.backend_port.wire {
            set_peer::<V6>(ctx.sock_addr, &asked.service, asked.service_port);
        }
    }
    ALLOW
}

/// The socket's number, which no other has until the machine starts again.
#[inline(always)]
fn cookie(ctx: &impl EbpfContext) -> u64 {
    // SAFETY: the context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// A port that Services have on the node is nobody else's. An IPv6 socket may take the port of both
/// families.
#[inline(always)]
fn bind(ctx: &SockContext, is_v6: bool) -> i32 {
    // SAFETY: the context; the kernel has this port in host order.
    let (port, protocol) = unsafe { ((*ctx.sock).src_port, (*ctx.sock).protocol) };
    let port = Port::new(port as u16);
    let proto = Proto {
        number: protocol as u8,
    };
    if !maps::config().is_ok_and(|config| config.is_node_port(port)) {
        return ALLOW;
    }
    // SAFETY: the context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if !maps::netns(cookie).is_some_and(Netns::is_host) {
        return ALLOW;
    }
    let taken = |any| maps::service(&ServiceKey::new(any, port, proto)).is_some();
    if taken(Addr::UNSPECIFIED_V4) || is_v6 && taken(Addr::UNSPECIFIED) {
        // SAFETY: a number.
        unsafe { bpf_set_retval(-EADDRINUSE) };
        return REJECT;
    }
    ALLOW
}

/// The row of the socket's namespace, if it is ours.
#[inline(always)]
fn netns(ctx: &SockAddrContext) -> Option<&'static Netns> {
    // SAFETY: the context.
    maps::netns(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) })
}

/// Whether an address is the node's for a socket of that namespace.
#[inline(always)]
fn is_node(netns: &Netns, addr: &Addr) -> bool {
    netns.is_host() && addr.is_own() || maps::endpoint(addr).is_some_and(|here| here.is_host())
}

#[inline(always)]
fn is_bound(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context, whose socket is there as long as it is.
    unsafe {
        let socket: *mut bpf_sock = (*ctx.sock_addr).__bindgen_anon_1.sk;
        !socket.is_null() && (*socket).src_port != 0
    }
}

#[inline(always)]
fn peer<const V6: bool>(sock_addr: *const bpf_sock_addr) -> (Addr, Port) {
    // SAFETY: the context.
    unsafe {
        let addr = if V6 {
            let [a, b, c, d] = (*sock_addr).user_ip6;
            Addr {
                words: [a, b, c, d],
            }
        } else {
            Addr::from_v4_wire((*sock_addr).user_ip4)
        };
        (addr, Port::from_wire((*sock_addr).user_port as u16))
    }
}

#[inline(always)]
fn set_peer<const V6: bool>(sock_addr: *mut bpf_sock_addr, addr: &Addr, port: Port) {
    // SAFETY: the context.
    unsafe {
        if V6 {
            let [a, b, c, d] = addr.words;
            (*sock_addr).user_ip6 = [a, b, c, d];
        } else {
            (*sock_addr).user_ip4 = addr.v4_wire();
        }
        (*sock_addr).user_port = u32::from(port.wire);
    }
}
