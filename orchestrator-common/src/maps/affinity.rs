//! `affinity_v1`: which backend a client had last (`sessionAffinity: ClientIP`).

use super::services::Backend;
use super::{MapSpec, Owner};
use crate::addr::Addr;
use crate::layout::layout;

pub const AFFINITY: MapSpec = MapSpec::hash::<AffinityKey, Affinity>(
    "affinity_v1",
    65_536,
    Owner::Datapath,
    "client, Service number -> the backend that it had last",
);

layout! {
    pub struct AffinityKey {
        pub client: Addr,
        pub service: u32,
        pub reserved: u32,
    }
}

layout! {
    /// Holds while the backend's generation is still this one, and for `Service::affinity_s` after
    /// the last connection.
    pub struct Affinity {
        pub backend: Backend,
        pub generation: u32,
        pub reserved: u32,
        /// CLOCK_MONOTONIC_COARSE.
        pub last_ns: u64,
    }
}
