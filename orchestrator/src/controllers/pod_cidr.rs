//! Each node's share of the pod range: unique, never moved, handed out lowest first. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde_json::json;

use super::action::{Action, Plan};
use super::object::{NodeRow, Object};

/// What the plan is made from.
pub struct View<'a> {
    pub nodes: Vec<(&'a Object, &'a NodeRow)>,
    pub range: IpNetwork,
    pub node_mask_bits: u8,
    /// Shares that were given by a write whose outcome is not seen yet, by the node's uid.
    pub given: &'a BTreeMap<String, String>,
}

/// Gives a share to every node without one. Also the shares given, by uid, to be remembered.
pub fn plan(view: &View) -> (Plan, BTreeMap<String, String>) {
    let held = view.nodes.iter().flat_map(|(_, row)| row.pod_cidrs.iter());
    let held = held
        .chain(view.given.values())
        .filter_map(|text| text.parse::<IpNetwork>().ok());
    let (mut used, odd): (BTreeSet<IpNetwork>, BTreeSet<IpNetwork>) =
        held.partition(|share| share.prefix() == view.node_mask_bits);
    let mut candidates = shares(view.range, view.node_mask_bits);
    let mut actions = Vec::new();
    let mut given = BTreeMap::new();
    for (node, row) in &view.nodes {
        if !row.pod_cidrs.is_empty() || node.meta.deleting.is_some() {
            continue;
        }
        let share = match view.given.get(&node.meta.uid) {
            Some(share) => Some(share.clone()),
            None => candidates
                .find(|share| {
                    !used.contains(share) && !odd.iter().any(|other| overlap(*share, *other))
                })
                .map(|share| share.to_string()),
        };
        let Some(share) = share else {
            let text = format!("Node {} status is now: CIDRNotAvailable", node.key.name);
            actions.push(Action::warning(node, "CIDRNotAvailable", text));
            continue;
        };
        used.extend(share.parse::<IpNetwork>());
        given.insert(node.meta.uid.clone(), share.clone());
        let body = json!({"spec": {"podCIDR": share, "podCIDRs": [share]}});
        actions.push(Action::merge(node, "", body));
    }
    (
        Plan {
            actions,
            again: None,
        },
        given,
    )
}

/// Every share of the range, lowest first.
fn shares(range: IpNetwork, bits: u8) -> impl Iterator<Item = IpNetwork> {
    let (base, width) = match range.network() {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let extra = u32::from(bits.saturating_sub(range.prefix())).min(MAX_SHARE_BITS);
    let step = width - u32::from(bits);
    (0..(1_u128 << extra)).filter_map(move |index| {
        let number = base | (index << step);
        let ip = match range {
            IpNetwork::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).ok()?)),
            IpNetwork::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        };
        IpNetwork::new(ip, bits).ok()
    })
}

/// More shares than any cluster has nodes are not searched.
const MAX_SHARE_BITS: u32 = 16;

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

#[cfg(test)]
mod tests;
