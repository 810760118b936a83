//! bpf(2) for links: what holds a program at its place.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{bpf, bpf_fd};

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;

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
    SockRelease = 34,
    Xdp = 37,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// Where in a device's way XDP runs: XDP_FLAGS_SKB_MODE and XDP_FLAGS_DRV_MODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum XdpMode {
    Generic = 2,
    Native = 4,
}

/// What a link is attached to, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    pub program_id: u32,
    /// For tcx and XDP: the device, 0 when it is gone.
    pub ifindex: Option<u32>,
}

/// Attaches `program` by a link that lives as long as its descriptor or pin. `target` is a device index
/// for tcx and XDP and a cgroup's descriptor otherwise; only XDP has a mode.
pub fn link_create(
    program: BorrowedFd<'_>,
    target: u32,
    to: AttachType,
    mode: Option<XdpMode>,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target,
        attach_type: to as u32,
        flags: mode.map_or(0, |mode| mode as u32),
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

/// Takes a link's program from its place at once: what the last pin or descriptor leaves behind when
/// it goes is done later.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetach {
        link_fd: link.as_raw_fd() as u32,
    };
    bpf(BPF_LINK_DETACH, &mut attr).map(drop)
}

pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::default();
    let mut attr = InfoByFd {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<RawLinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let on_device = [BPF_LINK_TYPE_TCX, BPF_LINK_TYPE_XDP].contains(&info.kind);
    let ifindex = on_device.then_some(info.target);
    Ok(LinkInfo {
        program_id: info.prog_id,
        ifindex,
    })
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
struct LinkDetach {
    link_fd: u32,
}

#[repr(C)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_link_info`: for tcx and XDP the union begins with the device index.
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
