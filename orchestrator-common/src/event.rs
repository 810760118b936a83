//! Records that the datapath writes to its ring buffer. A full buffer loses records, never packets:
//! that is its rate limit.

use crate::layout::layout;
use crate::tuple::Tuple;

layout! {
    /// One dropped or refused packet, or a connection that was refused before it sent one. Written by
    /// every tcx program and `xdp` at its exit and by the connect programs, read by the agent.
    pub struct DropEvent {
        /// CLOCK_MONOTONIC.
        pub time_ns: u64,
        /// As far as it was parsed; zero where it was not.
        pub tuple: Tuple,
        /// A [`crate::DropReason`].
        pub reason: u32,
        /// A [`Hook`].
        pub hook: u32,
        pub ifindex: u32,
        pub length: u32,
        /// The number of the Service that was asked, 0 if none.
        pub service: u32,
        pub reserved: u32,
    }
}

/// The programs, by number: which one wrote an event.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    FromContainer = 1,
    ToContainer = 2,
    FromOverlay = 3,
    FromNetdev = 4,
    ToNetdev = 5,
    Xdp = 6,
    /// `connect4` and `connect6`: the packet that they keep from being sent.
    Connect = 7,
    FromCut = 8,
}

impl Hook {
    pub const ALL: &'static [Hook] = &[
        Hook::FromContainer,
        Hook::ToContainer,
        Hook::FromOverlay,
        Hook::FromNetdev,
        Hook::ToNetdev,
        Hook::Xdp,
        Hook::Connect,
        Hook::FromCut,
    ];

    /// Those that see every packet of their place and leave a trace.
    pub const TCX: &'static [Hook] = &[
        Hook::FromContainer,
        Hook::ToContainer,
        Hook::FromOverlay,
        Hook::FromNetdev,
        Hook::ToNetdev,
    ];

    /// The name of the program in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Hook::FromContainer => "from_container",
            Hook::ToContainer => "to_container",
            Hook::FromOverlay => "from_overlay",
            Hook::FromNetdev => "from_netdev",
            Hook::ToNetdev => "to_netdev",
            Hook::Xdp => "xdp_uplink",
            Hook::Connect => "connect",
            Hook::FromCut => "from_cut",
        }
    }

    pub fn from_number(number: u32) -> Option<Hook> {
        Hook::ALL
            .iter()
            .copied()
            .find(|hook| *hook as u32 == number)
    }
}
