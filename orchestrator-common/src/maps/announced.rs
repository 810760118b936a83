//! `announced_v1`: addresses of Services that this node answers for on the uplink's link.

use super::{MapSpec, Owner};
use crate::addr::Addr;

pub const ANNOUNCED: MapSpec = MapSpec::hash::<Addr, u32>(
    "announced_v1",
    4096,
    Owner::Agent,
    "load balancer address -> ARP and neighbour solicitations for it are answered here",
);
