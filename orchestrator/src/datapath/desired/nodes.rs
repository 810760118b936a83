//! `config_v2` and `nodes_v1`: this node's facts, and where the other nodes' pods are.

use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::{Addr, Port, Prefix};

use super::Facts;
use crate::datapath::world::{World, range_key};

pub fn config(facts: &Facts) -> Config {
    Config {
        v4: facts.v4,
        v6: facts.v6,
        underlay: facts.underlay,
        uplink: facts.uplink,
        overlay: facts.overlay,
        host: facts.host,
        vni: facts.vni,
        vxlan_port: facts.vxlan_port,
        node_port_first: Port::new(30000),
        node_port_last: Port::new(32767),
        uplink_mac: facts.uplink_mac,
        mtu: facts.mtu,
        ..Config::default()
    }
}

/// No row for this node's own range, nor for one of another size: the programs look a destination up
/// under the cluster's one mask. Nor for a node that has no address of the underlay's family.
pub fn node(range: Addr, world: &World, facts: &Facts) -> Option<Node> {
    let (_, node) = world.node(&range)?;
    let cidr = node
        .pod_cidrs
        .iter()
        .find(|cidr| range_key(cidr) == range)?;
    let family = facts.family(&range);
    let sized = Prefix::new(cidr.ip(), cidr.prefix()).mask == family.node_mask;
    let own = range == family.translation;
    let vtep = node.addrs.like(facts.underlay.into())?;
    (sized && !own).then(|| Node {
        vtep: vtep.into(),
        flags: 0,
        reserved: 0,
    })
}
