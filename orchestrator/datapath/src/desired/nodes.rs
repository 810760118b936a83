//! `config_v3` and `nodes_v1`: this node's facts, and where the other nodes' pods are.

use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::{Addr, Port};

use crate::facts::Facts;
use crate::world::World;

pub fn config(facts: &Facts) -> Config {
    Config {
        v4: facts.v4,
        v6: facts.v6,
        underlay: facts.underlay,
        uplink: facts.uplink,
        overlay: facts.overlay,
        host: facts.host,
        cut: facts.cut,
        vni: facts.vni,
        vxlan_port: facts.vxlan_port,
        node_port_first: Port::new(30000),
        node_port_last: Port::new(32767),
        uplink_mac: facts.uplink_mac,
        mtu: facts.mtu,
        flags: if facts.dsr { Config::DSR } else { 0 },
        ..Config::default()
    }
}

/// A range of pods: no row for this node's own, nor for a node without an address of the underlay's family.
/// The world has shares of the cluster's ranges only, as the programs look a destination up under its one
/// mask. Or, for direct server return, an address of another node: who may send for clients outside, and is
/// none itself.
pub fn node(key: Addr, world: &World, facts: &Facts) -> Option<Node> {
    let other = key != facts.underlay && key != facts.family(&key).node;
    if facts.dsr && other && world.node_at(&key).is_some() {
        return Some(Node {
            vtep: key,
            flags: Node::VTEP,
            reserved: 0,
        });
    }
    let (_, node) = world.node(&key)?;
    let own = key == facts.family(&key).translation;
    let vtep = node.addrs.like(facts.underlay.into())?;
    let vtep = Addr::from(vtep);
    let is_near = facts.neighbourhood.contains(&vtep);
    (!own).then_some(Node {
        vtep,
        flags: if is_near { Node::NEIGHBOUR } else { 0 },
        reserved: 0,
    })
}
