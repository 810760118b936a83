//! `endpoints_v1`: who can be reached on this node. `netns_v2`: whose sockets the socket programs
//! act for.

use super::{MapSpec, Owner};
use crate::addr::{Addr, Mac};
use crate::layout::layout;

pub const ENDPOINTS: MapSpec = MapSpec::hash::<Addr, Endpoint>(
    "endpoints_v1",
    4096,
    Owner::Agent,
    "address -> local endpoint: the node's pods, and the node under each of its addresses",
);

pub const NETNS: MapSpec = MapSpec::hash::<u64, Netns>(
    "netns_v2",
    4096,
    Owner::Agent,
    "network namespace cookie -> whose sockets are balanced: the node's and its pods'",
);

layout! {
    /// A local endpoint. The source check of `from_container` is the same row: a packet's source
    /// address must be an endpoint of the interface that it came from.
    pub struct Endpoint {
        /// The pod's veth on the host's side; `orch-net` for the node.
        pub ifindex: u32,
        /// `Endpoint::HOST`, `Endpoint::QUEUED`.
        pub flags: u32,
        /// Destination of delivered frames: the pod's `eth0`; `orch-host` for the node.
        pub mac: Mac,
        /// Source of delivered frames: the pod's gateway, which is the host's side of its veth;
        /// `orch-net` for the node.
        pub gateway_mac: Mac,
        /// The security identity, once there is policy.
        pub identity: u32,
    }
}

impl Endpoint {
    /// The endpoint is the node itself: delivery is a plain redirect to `orch-net`.
    pub const HOST: u32 = 1;
    /// What is delivered goes through the queue of the host's end of its link, which holds it to its rate.
    pub const QUEUED: u32 = 2;
    /// On a packet that was redirected to that queue: the hook behind it has nothing to do. The link's other end
    /// is in another namespace, where the kernel takes it off.
    pub const QUEUED_MARK: u32 = 0x6f72_6371;

    #[inline(always)]
    pub const fn is_host(&self) -> bool {
        self.flags & Endpoint::HOST != 0
    }

    #[inline(always)]
    pub const fn is_queued(&self) -> bool {
        self.flags & Endpoint::QUEUED != 0
    }

    /// Whether delivery is a plain redirect, and not one past the link to its peer.
    #[inline(always)]
    pub const fn is_redirected(&self) -> bool {
        self.flags & (Endpoint::HOST | Endpoint::QUEUED) != 0
    }

    /// The addresses of frames delivered to it.
    #[inline(always)]
    pub const fn frame(&self) -> [u32; 3] {
        Mac::frame(self.mac, self.gateway_mac)
    }
}

layout! {
    /// A network namespace of this node. The addresses are the endpoint's, unspecified where it has
    /// none of the family: connect comes before source selection, and session affinity needs a key.
    pub struct Netns {
        pub v4: Addr,
        pub v6: Addr,
        /// `Netns::HOST`.
        pub flags: u32,
        pub reserved: u32,
    }
}

impl Netns {
    /// The node's own namespace (also that of hostNetwork pods).
    pub const HOST: u32 = 1;

    #[inline(always)]
    pub const fn is_host(&self) -> bool {
        self.flags & Netns::HOST != 0
    }
}
