//! `announced_v1`: which load balancer addresses this node answers for.
//!
//! One node for each address: the one that draws the highest number among those that may (rendezvous
//! hashing), so that a node that comes or goes moves no address but its own share.

use std::collections::BTreeSet;

use orchestrator_common::{Addr, maglev};

use crate::view::{EndpointView, NodeView, ObjectKey, ServiceView};
use crate::world::World;

/// Whether this node answers for an address. A node that says that it is at that address changes nothing:
/// no Service has an address that is a node's, and any node can say so.
pub fn announced(addr: Addr, world: &World) -> bool {
    let Some((key, service)) = world.announced(&addr) else {
        return false;
    };
    speaker(addr, key, service, world) == Some(world.own_name())
}

/// The node that answers. With `externalTrafficPolicy: Local` one that has an endpoint, if any has.
fn speaker<'a>(
    addr: Addr,
    key: &ObjectKey,
    service: &ServiceView,
    world: &'a World,
) -> Option<&'a str> {
    let able = world.nodes().filter(|(_, node)| node.announces);
    let seed = maglev::mix(0, &addr.octets());
    let draw = |(name, _): &(&'a str, &'a NodeView)| (maglev::mix(seed, name.as_bytes()), *name);
    let name = |(name, _): (&'a str, &'a NodeView)| name;
    if service.external.as_ref().is_some_and(|it| it.local) {
        let endpoints = || {
            world
                .slices_of(key)
                .flat_map(|slice| slice.endpoints.iter())
        };
        let pools: [fn(&EndpointView) -> bool; 2] =
            [|it| it.ready(), |it| it.serving() && it.terminating()];
        for usable in pools {
            let usable = endpoints().filter(|it| usable(it));
            let holders: BTreeSet<&str> = usable.filter_map(|it| world.holder(it.addr)).collect();
            let holds = |(name, _): &(&str, &NodeView)| holders.contains(name);
            if let Some(winner) = able.clone().filter(holds).max_by_key(draw) {
                return Some(name(winner));
            }
        }
    }
    able.max_by_key(draw).map(name)
}
