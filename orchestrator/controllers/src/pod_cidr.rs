//! Each node's share of the pod range of every family: unique, never moved, handed out lowest
//! first. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde_json::json;

use super::action::{Action, Plan};
use super::controller::{Controller, Due, Watches, all_of};
use super::object::{NodeRow, Object};
use super::world::{Address, Diff, World};
use client::Kind;

/// The addresses of pods of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub network: IpNetwork,
    /// Prefix length of one node's share.
    pub mask_bits: u8,
}

/// Gives every node its shares of the pod ranges. Its work is about all nodes.
pub struct PodCidrController {
    ranges: Vec<Range>,
    /// By node uid: the shares that were written.
    given: BTreeMap<String, Vec<String>>,
}

impl PodCidrController {
    pub fn new(ranges: Vec<Range>) -> Self {
        Self {
            ranges,
            given: BTreeMap::new(),
        }
    }
}

impl Controller for PodCidrController {
    fn name(&self) -> &'static str {
        "pod CIDRs"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::NODE])
    }

    fn due(&self, _world: &World, diff: &Diff, due: &mut Due) {
        if diff.old.is_none() || diff.new.is_none() || shares_differ(diff) {
            due.insert(all_of(Kind::NODE));
        }
    }

    fn due_at_start(&self, _world: &World, due: &mut Due) {
        due.insert(all_of(Kind::NODE));
    }

    fn plan(&mut self, world: &World, _about: &Address, _now: Timestamp) -> Option<Plan> {
        let nodes = world.all(Kind::NODE);
        let view = View {
            nodes: nodes
                .filter_map(|node| Some((node.as_ref(), node.as_node()?)))
                .collect(),
            ranges: &self.ranges,
            given: &self.given,
        };
        let (plan, given) = plan(&view);
        self.given = given;
        Some(plan)
    }
}

fn shares_differ(diff: &Diff) -> bool {
    let shares = |node: Option<&Object>| Some(node?.as_node()?.pod_cidrs.clone());
    let new = shares(diff.new.as_deref());
    new != shares(diff.old.as_deref()) || new.is_some_and(|shares| shares.is_empty())
}

/// What the plan is made from.
pub struct View<'a> {
    pub nodes: Vec<(&'a Object, &'a NodeRow)>,
    /// At most one a family, the primary one first.
    pub ranges: &'a [Range],
    /// Shares that were given by a write whose outcome is not seen yet, by the node's uid.
    pub given: &'a BTreeMap<String, Vec<String>>,
}

/// Gives every node a share of each range that it has none of. Also the shares given, by uid, to be
/// remembered.
pub fn plan(view: &View) -> (Plan, BTreeMap<String, Vec<String>>) {
    let held = view.nodes.iter().flat_map(|(_, row)| row.pod_cidrs.iter());
    let given = view.given.values().flatten();
    let mut free: Vec<Free> = view.ranges.iter().map(|range| Free::of(*range)).collect();
    for share in held.chain(given).filter_map(|text| text.parse().ok()) {
        free.iter_mut().for_each(|free| free.take(share));
    }
    let mut actions = Vec::new();
    let mut given = BTreeMap::new();
    for (node, row) in &view.nodes {
        if node.meta.deleting.is_some() {
            continue;
        }
        let before = view.given.get(&node.meta.uid).cloned().unwrap_or_default();
        let mut shares = row.pod_cidrs.clone();
        for free in &mut free {
            if shares.iter().any(|share| free.is_of_family(share)) {
                continue;
            }
            let again = before.iter().find(|share| free.is_of_family(share));
            let share = again.cloned().or_else(|| free.next());
            shares.extend(share.or_else(|| {
                let text = format!("Node {} status is now: CIDRNotAvailable", node.key.name);
                actions.push(Action::warning(node, "CIDRNotAvailable", text));
                None
            }));
        }
        if shares == row.pod_cidrs {
            continue;
        }
        let body = json!({"spec": {"podCIDR": shares[0], "podCIDRs": shares}});
        actions.push(Action::merge(node, "", body));
        given.insert(node.meta.uid.clone(), shares);
    }
    (
        Plan {
            actions,
            again: None,
        },
        given,
    )
}

/// What is left of a range.
struct Free {
    range: Range,
    used: BTreeSet<IpNetwork>,
    /// Shares of another size.
    odd: BTreeSet<IpNetwork>,
    candidates: Box<dyn Iterator<Item = IpNetwork>>,
}

impl Free {
    fn of(range: Range) -> Self {
        Self {
            range,
            used: BTreeSet::new(),
            odd: BTreeSet::new(),
            candidates: Box::new(shares(range.network, range.mask_bits)),
        }
    }

    fn is_of_family(&self, share: &str) -> bool {
        share.contains(':') == self.range.network.is_ipv6()
    }

    fn take(&mut self, share: IpNetwork) {
        if share.prefix() == self.range.mask_bits {
            self.used.insert(share);
        } else {
            self.odd.insert(share);
        }
    }

    fn next(&mut self) -> Option<String> {
        let (used, odd) = (&self.used, &self.odd);
        let share = self.candidates.find(|share| {
            !used.contains(share) && !odd.iter().any(|other| overlap(*share, *other))
        });
        share.map(|share| share.to_string())
    }
}

/// Every share of the range, lowest first.
fn shares(range: IpNetwork, bits: u8) -> impl Iterator<Item = IpNetwork> + use<> {
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
