//! Which program runs where, and the pinned links that keep it there while no agent runs.
//!
//! A restarted agent recognises an attachment by the name of its pin, and replaces the program behind it
//! by link update: no packet passes without one. A pin whose device is gone is replaced.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::link::batch::Request;
use super::link::filters::{self, Side};
use super::link::{self, CUT, Devices, HOST, NET, PIECES, VXLAN};
use super::object::Programs;
use super::syscall::{self, AttachType, XdpMode};
use super::xdp::{self, Choice};
use super::{DatapathError, NodeConfig};

/// One program at one place. The name is the pin's; bpffs allows no dot in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub name: String,
    program: &'static str,
    to: AttachType,
    target: Target,
    /// Of XDP only.
    mode: Option<XdpMode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Cgroup,
    Device(u32),
}

/// The programs for sockets. What shows an address as it was asked for stands before what replaces it, and
/// before both what forgets it.
const SOCKETS: [(&str, AttachType); 11] = [
    ("sock_release", AttachType::SockRelease),
    ("getpeername4", AttachType::GetPeerName4),
    ("getpeername6", AttachType::GetPeerName6),
    ("recvmsg4", AttachType::RecvMsg4),
    ("recvmsg6", AttachType::RecvMsg6),
    ("connect4", AttachType::Connect4),
    ("connect6", AttachType::Connect6),
    ("sendmsg4", AttachType::SendMsg4),
    ("sendmsg6", AttachType::SendMsg6),
    ("post_bind4", AttachType::PostBind4),
    ("post_bind6", AttachType::PostBind6),
];

/// The attachments that every node has.
pub fn node_attachments(devices: &Devices) -> Vec<Attachment> {
    let sockets = SOCKETS.iter().map(|(program, to)| Attachment {
        name: String::from(*program),
        program,
        to: *to,
        target: Target::Cgroup,
        mode: None,
    });
    let cut = devices.cut.into_iter().flat_map(|pair| {
        [(CUT, pair.cut), (PIECES, pair.pieces)]
            .map(|(name, at)| on_device("from_cut", AttachType::TcxIngress, name, at))
    });
    let devices = [
        on_device(
            "from_overlay",
            AttachType::TcxIngress,
            VXLAN,
            devices.vxlan.ifindex,
        ),
        on_device(
            "from_container",
            AttachType::TcxIngress,
            NET,
            devices.net.ifindex,
        ),
        on_device(
            "to_netdev",
            AttachType::TcxEgress,
            "uplink",
            devices.uplink.ifindex,
        ),
        on_device(
            "from_netdev",
            AttachType::TcxIngress,
            "uplink",
            devices.uplink.ifindex,
        ),
    ];
    sockets.chain(devices).chain(cut).collect()
}

/// The programs through which all packets of pods' links go.
pub struct Guard {
    from_container: OwnedFd,
    to_container: OwnedFd,
}

impl Guard {
    pub fn of(programs: &Programs) -> Result<Guard, DatapathError> {
        let share = |name| {
            let shared = programs.get(name)?.try_clone();
            shared.map_err(|error| DatapathError::io(format!("share program {name}"), error))
        };
        Ok(Guard {
            from_container: share("from_container")?,
            to_container: share("to_container")?,
        })
    }

    /// What has a link guarded, on both sides, from the moment that it is done. Of a link that is not up yet it
    /// waits for nothing.
    pub fn requests(&self, ifindex: u32) -> Vec<Request> {
        filters::requests(ifindex, &self.sides())
    }

    /// The same, done in the calling thread's network namespace.
    pub fn set(&self, ifname: &str, ifindex: u32) -> Result<(), DatapathError> {
        let failed = |error| DatapathError::io(format!("set the filters of {ifname}"), error);
        filters::set(ifindex, &self.sides()).map_err(failed)
    }

    fn sides(&self) -> [(Side, BorrowedFd<'_>); 2] {
        [
            (Side::Ingress, self.from_container.as_fd()),
            (Side::Egress, self.to_container.as_fd()),
        ]
    }
}

/// What spares a pod's packets the way through a filter. The program leaves none to the next one, so none
/// meets it twice; the other side sees no packets but strange ones.
pub fn pod_attachment(ifname: &str, ifindex: u32) -> Attachment {
    on_device("from_container", AttachType::TcxIngress, ifname, ifindex)
}

fn on_device(program: &'static str, to: AttachType, ifname: &str, ifindex: u32) -> Attachment {
    debug_assert!(ifname != HOST, "the node's own end carries no program");
    let ifname: String = ifname
        .chars()
        .map(|c| if c == '.' { '_' } else { c })
        .collect();
    Attachment {
        name: format!("{program}-{ifname}"),
        program,
        to,
        target: Target::Device(ifindex),
        mode: None,
    }
}

/// XDP on the uplink in one of its modes. Each has a name of its own, for a device has one of them at
/// most, and a link keeps the mode that it was made with.
pub fn xdp_attachment(devices: &Devices, mode: XdpMode) -> Attachment {
    Attachment {
        name: String::from(match mode {
            XdpMode::Generic => "xdp_uplink-generic",
            XdpMode::Native => "xdp_uplink-native",
        }),
        program: "xdp_uplink",
        to: AttachType::Xdp,
        target: Target::Device(devices.uplink.ifindex),
        mode: Some(mode),
    }
}

/// The pinned links of one node.
pub struct Links {
    dir: PathBuf,
    cgroup: fs::File,
}

impl Links {
    pub fn open(dir: &Path, cgroup_root: &Path) -> Result<Self, DatapathError> {
        let cgroup = fs::File::open(cgroup_root).map_err(|error| {
            DatapathError::io(format!("open cgroup {}", cgroup_root.display()), error)
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            cgroup,
        })
    }

    /// The program runs at its place, this very version of it.
    pub fn attach(&self, programs: &Programs, what: &Attachment) -> Result<(), DatapathError> {
        match self.update(programs, what)? {
            true => Ok(()),
            false => self.prepare(programs, what)?.attach(),
        }
    }

    /// All that it takes to attach what is not attached yet.
    pub fn prepare(
        &self,
        programs: &Programs,
        what: &Attachment,
    ) -> Result<Prepared, DatapathError> {
        let failed = |error| DatapathError::io(format!("attach {}", what.name), error);
        Ok(Prepared {
            program: programs.get(what.program)?.try_clone().map_err(failed)?,
            cgroup: self.cgroup.try_clone().map_err(failed)?,
            path: self.dir.join(&what.name),
            what: what.clone(),
        })
    }

    /// Has XDP run on the uplink, or not, as the node was told. The name of its pin, if it does.
    pub fn attach_xdp(
        &self,
        programs: &Programs,
        config: &NodeConfig,
        devices: &Devices,
    ) -> Result<Option<String>, DatapathError> {
        let Choice {
            mode,
            because,
            is_optional,
        } = xdp::choose(config.xdp, devices.driver);
        for other in [XdpMode::Native, XdpMode::Generic] {
            if mode != Some(other) {
                self.detach_at_once(&xdp_attachment(devices, other).name)?;
            }
        }
        let uplink = &config.uplink;
        let Some(mode) = mode else {
            tracing::info!(uplink, because, "XDP is off");
            return Ok(None);
        };
        let what = xdp_attachment(devices, mode);
        match link::let_xdp_route(config).and_then(|()| self.attach(programs, &what)) {
            Ok(()) => {
                tracing::info!(uplink, ?mode, because, "XDP is on");
                Ok(Some(what.name))
            }
            Err(error) if is_optional => {
                tracing::warn!(uplink, %error, "XDP is off: the uplink does not take it");
                Ok(None)
            }
            Err(error) => Err(xdp::refused(uplink, mode, &error)),
        }
    }

    /// The same where it is attached already, which takes no time. `false`: it is not.
    pub fn update(&self, programs: &Programs, what: &Attachment) -> Result<bool, DatapathError> {
        let program = programs.get(what.program)?;
        let adopted = self.adopt(&self.dir.join(&what.name), what, program.as_fd());
        adopted.map_err(|error| DatapathError::io(format!("attach {}", what.name), error))
    }

    /// Detaches; what is not attached is fine.
    pub fn detach(&self, name: &str) -> Result<(), DatapathError> {
        unpin(&self.dir.join(name))
    }

    /// The same, and its place is free when this returns.
    fn detach_at_once(&self, name: &str) -> Result<(), DatapathError> {
        match syscall::pinned(&self.dir.join(name)) {
            Ok(link) => {
                // Fails only for a link whose device is gone.
                let _ = syscall::link_detach(link.as_fd());
                self.detach(name)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(DatapathError::io(format!("open the pin {name}"), error)),
        }
    }

    /// The names of all pinned links.
    pub fn names(&self) -> Result<Vec<String>, DatapathError> {
        names(&self.dir)
    }

    /// Puts the program behind an existing link. `false`: there is none that serves.
    fn adopt(&self, path: &Path, what: &Attachment, program: BorrowedFd<'_>) -> io::Result<bool> {
        let link = match syscall::pinned(path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let at_place = match what.target {
            Target::Cgroup => true,
            Target::Device(ifindex) => syscall::link_info(link.as_fd())?.ifindex == Some(ifindex),
        };
        // ENOLINK: the cgroup or device went between; the pin holds a dead link.
        if at_place && syscall::link_update(link.as_fd(), program).is_ok() {
            return Ok(true);
        }
        fs::remove_file(path)?;
        Ok(false)
    }
}

/// A program on its way to its place.
pub struct Prepared {
    program: OwnedFd,
    cgroup: fs::File,
    path: PathBuf,
    what: Attachment,
}

impl Prepared {
    /// Waits for an RCU grace period where the place is the first of a device.
    pub fn attach(self) -> Result<(), DatapathError> {
        let target = match self.what.target {
            Target::Cgroup => self.cgroup.as_raw_fd() as u32,
            Target::Device(ifindex) => ifindex,
        };
        let (to, mode) = (self.what.to, self.what.mode);
        let link = syscall::link_create(self.program.as_fd(), target, to, mode);
        let pinned = link.and_then(|link| syscall::pin(link.as_fd(), &self.path));
        pinned.map_err(|error| DatapathError::io(format!("attach {}", self.what.name), error))
    }
}

/// The entries of a pin directory; an absent one has none.
pub fn names(dir: &Path) -> Result<Vec<String>, DatapathError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries,
    };
    let failed = |error| DatapathError::io(format!("read {}", dir.display()), error);
    let mut names = BTreeMap::new();
    for entry in entries.map_err(failed)? {
        let name = entry
            .map_err(failed)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        names.insert(name, ());
    }
    Ok(names.into_keys().collect())
}

/// Removes a pin; an absent one is fine.
pub fn unpin(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|error| DatapathError::io(format!("unpin {}", path.display()), error)),
    }
}
