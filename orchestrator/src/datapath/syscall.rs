//! The calls that neither aya nor nix wraps, behind a safe API: bpf(2) for links, getsockopt, the heap.
//!
//! The only file of this crate with `unsafe`, kept short; batches of rows are next door, in `rows`. It
//! decides nothing: what is attached where is `attach`.
#![allow(
    unsafe_code,
    reason = "raw system calls; every block says why it is sound"
)]

pub mod rows;

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_TYPE_TCX: u32 = 11;

/// Linux 5.14, commit e8b9eab99232; not in libc.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Where a program runs. The numbers are the kernel's `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    Connect4 = 10,
    Connect6 = 11,
    PostBind4 = 12,
    PostBind6 = 13,
    SendMsg4 = 14,
    SendMsg6 = 15,
    RecvMsg4 = 19,
    RecvMsg6 = 20,
    GetPeerName4 = 29,
    GetPeerName6 = 30,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// What a link is attached to, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    pub program_id: u32,
    /// For tcx: the device, 0 when it is gone.
    pub ifindex: Option<u32>,
}

/// Attaches `program` by a link that lives as long as its descriptor or pin. `target` is a device index
/// for tcx and a cgroup's descriptor otherwise.
pub fn link_create(program: BorrowedFd<'_>, target: u32, to: AttachType) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target,
        attach_type: to as u32,
        flags: 0,
    };
    bpf_fd(BPF_LINK_CREATE, &mut attr)
}

/// Replaces the program behind a link; no packet sees a moment without one.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
    };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::default();
    let mut attr = InfoByFd {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<RawLinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let ifindex = (info.kind == BPF_LINK_TYPE_TCX).then_some(info.target);
    Ok(LinkInfo {
        program_id: info.prog_id,
        ifindex,
    })
}

/// Pins `object` at `path`, which must not exist.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectPath {
        pathname: path.as_ptr() as u64,
        bpf_fd: object.as_raw_fd() as u32,
        file_flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens what is pinned at `path`.
pub fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjectPath {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    bpf_fd(BPF_OBJ_GET, &mut attr)
}

/// The cookie of the network namespace that `socket` was made in.
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `cookie`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The cookie of the calling thread's network namespace.
pub fn own_netns_cookie() -> io::Result<u64> {
    netns_cookie(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?)
}

/// Gives the kernel back what the process has freed: the heap keeps it as long as anything above it lives.
pub fn trim_heap() {
    // SAFETY: it touches no memory that is in use, and the heap has its own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
}

#[repr(C)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
struct ObjectPath {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The head of `struct bpf_link_info`: for tcx the union begins with the device index.
#[repr(C, align(8))]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    target: u32,
    rest: [u32; 11],
}

/// Private, and called with the `repr(C)` structs above and of `rows` only.
fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<RawFd> {
    let (at, size) = (std::ptr::from_mut(attr), size_of::<A>());
    // SAFETY: `attr` is one of the structs above: plain integers laid out as the beginning of
    // `union bpf_attr` for `command` (the kernel takes what is missing as zero); no more than the
    // size given is read or written. Pointers inside are to live memory of the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, at, size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as RawFd)
    }
}

fn bpf_fd<A>(command: libc::c_long, attr: &mut A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: both commands that come here return a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
