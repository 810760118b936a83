//! The node's network: API objects in, kernel maps, links and programs out.
//!
//! The agent opens one [`Datapath`], hands every watch event to [`Datapath::change`] and says once that
//! its view is complete ([`Datapath::in_sync`]). Everything between is `view` → `desired` → `delta` →
//! `maps`. This module never watches the API itself and knows no pod but by its address.

pub mod link;
pub mod mount;
pub mod syscall;
pub mod view;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;

pub use view::{LocalPod, NodeView, ObjectKey, ServiceView, SliceView};

/// What the datapath must know before the first packet.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub node_name: String,
    /// The node's address on the uplink: the VXLAN endpoint and the source of masqueraded packets.
    pub node_ip: IpAddr,
    /// This node's own pod range; its first address is the node's inside the overlay.
    pub pod_cidr: IpNetwork,
    /// The range that all pods of the cluster share.
    pub cluster_cidr: IpNetwork,
    pub service_cidr: IpNetwork,
    /// The prefix length of every node's pod range.
    pub pod_mask_bits: u8,
    /// The link that carries `node_ip`.
    pub uplink: String,
    /// The uplink's; everything inside the overlay has 50 less.
    pub mtu: u32,
    pub vni: u32,
    pub vxlan_port: u16,
    /// Usually `/sys/fs/bpf/orchestrator`; maps and links go to `<node_name>/{maps,links}` below it.
    pub pin_root: PathBuf,
    /// The mount of cgroup v2, see [`mount::cgroup_root`].
    pub cgroup_root: PathBuf,
}

/// One watch event, or one pod wired or gone. `None` is a deletion.
#[derive(Clone, Debug)]
pub enum Change {
    Service(ObjectKey, Option<ServiceView>),
    Slice(ObjectKey, Option<SliceView>),
    Node(String, Option<NodeView>),
    /// By pod UID.
    Pod(String, Option<LocalPod>),
}

/// What can go wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    #[error("this binary holds no datapath: run `cargo xtask build-ebpf` and build again")]
    NoObject,
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    #[error("{what}: {source}")]
    Netlink {
        what: String,
        source: Box<rtnetlink::Error>,
    },
    #[error("{0}")]
    Invalid(String),
}

impl DatapathError {
    fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}

/// The running datapath of one node. Dropping it leaves everything in the kernel at work.
pub struct Datapath {
    config: NodeConfig,
}

impl Datapath {
    /// Adopts what an earlier agent left pinned, or creates it: maps, links, programs, attachments. Needs
    /// root, the node's network namespace and the root mount namespace.
    pub async fn open(config: NodeConfig) -> Result<Self, DatapathError> {
        Ok(Self { config })
    }

    /// Takes one change into the maps. Nodes and pods act at once; Services wait for
    /// [`Datapath::in_sync`] the first time. A failed change stays due and is retried by the next one.
    pub fn change(&mut self, change: Change) -> Result<(), DatapathError> {
        let _ = change;
        todo!("datapath::change for {}", self.config.node_name)
    }

    /// Every watch has delivered its snapshot and every running pod was handed over: from now on what
    /// nobody asked for is removed. Idempotent.
    pub fn in_sync(&mut self) -> Result<(), DatapathError> {
        todo!()
    }

    /// The maps in the golden text form.
    pub fn dump(&self) -> Result<String, DatapathError> {
        todo!()
    }

    /// Removes flows that are closed or idle. `now` is the monotonic clock.
    pub fn sweep(&mut self, now: Duration) -> Result<usize, DatapathError> {
        let _ = now;
        todo!()
    }

    /// Detaches and removes everything of this node: pins, programs, links.
    pub async fn remove_all(self) -> Result<(), DatapathError> {
        todo!()
    }
}
