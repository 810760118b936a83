//! The calls that neither aya nor nix wraps, behind a safe API: bpf(2) for links, getsockopt.
//!
//! The only file of this crate with `unsafe`, kept below 200 lines; links and batches of rows are next
//! door, in `links` and `rows`. It decides nothing: what is attached where is `attach`.
#![allow(
    unsafe_code,
    reason = "raw system calls; every block says why it is sound"
)]

mod links;
pub mod rows;

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use links::{AttachType, LinkInfo, XdpMode, link_create, link_detach, link_info, link_update};

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;

/// Linux 5.14, commit e8b9eab99232; not in libc.
const SO_NETNS_COOKIE: libc::c_int = 71;

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

/// Has the stack finish the checksums of what it sends by a link of the calling thread's network namespace,
/// with nothing left to do for a card; segmentation offload ends with that.
pub fn finish_checksums(link: &str) -> io::Result<()> {
    /// `struct ethtool_value`.
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    const ETHTOOL_STXCSUM: u32 = 0x17;
    let mut value = Value {
        command: ETHTOOL_STXCSUM,
        data: 0,
    };
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut value).cast(),
        },
    };
    let name = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    name.zip(link.bytes())
        .for_each(|(to, from)| *to = from as libc::c_char);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the kernel reads `request`, whose name ends in a zero, and reads and writes `value`.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[repr(C)]
struct ObjectPath {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Private, and called with the `repr(C)` structs above and of `links` and `rows` only.
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
