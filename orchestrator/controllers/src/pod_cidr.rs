//! Each node's share of the pod range of every family: unique, never moved, handed out lowest
//! first. What is taken is kept up to date with every change of a node, so that a node costs what it
//! has. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde_json::json;

use super::action::{Action, Plan};
use super::controller::{Controller, Due, Watches};
use super::object::{Key, NodeRow, Object};
use super::world::{Address, Diff, World};
use client::Kind;

/// The addresses of pods of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub network: IpNetwork,
    /// Prefix length of one node's share.
    pub mask_bits: u8,
}

/// Gives every node its shares of the pod ranges.
pub struct PodCidrController {
    shares: Shares,
    /// The nodes that the last change concerns.
    heard: Vec<String>,
}

impl PodCidrController {
    pub fn new(ranges: &[Range]) -> Self {
        Self {
            shares: Shares::of(ranges),
            heard: Vec::new(),
        }
    }
}

impl Controller for PodCidrController {
    fn name(&self) -> &'static str {
        "pod CIDRs"
    }

    fn account(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::NODE])
    }

    fn hear(&mut self, diff: &Diff, _now: Timestamp) {
        self.heard = self.shares.hear(diff);
    }

    fn due(&self, _world: &World, _diff: &Diff, due: &mut Due) {
        let names = self.heard.iter();
        due.extend(names.map(|name| (Kind::NODE, Key::new("", name))));
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, _now: Timestamp) -> Option<Plan> {
        let node = world.get(*kind, key)?;
        Some(self.shares.plan(node, node.as_node()?))
    }
}

/// Which shares are taken, and by whom.
pub struct Shares {
    /// At most one a family, the primary one first.
    free: Vec<Free>,
    /// By the node's uid: what it says that it has.
    held: BTreeMap<String, Vec<IpNetwork>>,
    /// By the node's uid: what was written, and is not yet seen on it.
    given: BTreeMap<String, Vec<String>>,
    /// The names of the nodes that found none, and have been told so.
    waiting: BTreeSet<String>,
}

impl Shares {
    pub fn of(ranges: &[Range]) -> Self {
        Self {
            free: ranges.iter().map(|range| Free::of(*range)).collect(),
            held: BTreeMap::new(),
            given: BTreeMap::new(),
            waiting: BTreeSet::new(),
        }
    }

    /// Takes in a change of a node; answers the names of those to plan for: itself, if it is new or has
    /// changed in its shares, and for each share that has become free one that waits.
    pub fn hear(&mut self, diff: &Diff) -> Vec<String> {
        let row = |node: Option<&Object>| Some(node?.as_node()?.pod_cidrs.clone());
        let (old, new) = (diff.old.as_deref(), diff.new.as_deref());
        let mut freed = 0;
        if let Some(old) = old.filter(|old| new.is_none_or(|new| new.meta.uid != old.meta.uid)) {
            self.waiting.remove(&old.key.name);
            freed += self.release(&old.meta.uid);
        }
        let mut due = Vec::new();
        if let Some(new) = new {
            let is_changed = row(old) != row(Some(new))
                || old.is_none_or(|old| old.meta.uid != new.meta.uid)
                || old.is_some_and(|old| old.meta.deleting != new.meta.deleting);
            if is_changed {
                freed += self.hold(&new.meta.uid, &row(Some(new)).unwrap_or_default());
                due.push(new.key.name.clone());
            }
        }
        let waiting = self.waiting.iter().filter(|name| !due.contains(name));
        let next: Vec<String> = waiting.take(freed).cloned().collect();
        due.extend(next);
        due
    }

    /// Gives the node a share of each range of which it has none; what was given before, if that is not
    /// seen yet. A node that finds none is told once.
    pub fn plan(&mut self, node: &Object, row: &NodeRow) -> Plan {
        let mut plan = Plan::default();
        if node.meta.deleting.is_some() {
            return plan;
        }
        let before = self.given.get(&node.meta.uid).cloned().unwrap_or_default();
        let mut shares = row.pod_cidrs.clone();
        let mut is_short = false;
        for free in &mut self.free {
            if shares.iter().any(|share| free.is_of_family(share)) {
                continue;
            }
            let again = before.iter().find(|share| free.is_of_family(share));
            match again.cloned().or_else(|| free.next()) {
                Some(share) => shares.push(share),
                None => is_short = true,
            }
        }
        if !is_short {
            self.waiting.remove(&node.key.name);
        } else if self.waiting.insert(node.key.name.clone()) {
            let text = format!("Node {} status is now: CIDRNotAvailable", node.key.name);
            plan.actions
                .push(Action::warning(node, "CIDRNotAvailable", text));
        }
        if shares != row.pod_cidrs {
            let body = json!({"spec": {"podCIDR": shares[0], "podCIDRs": shares}});
            plan.actions.push(Action::merge(node, "", body));
            let new = shares.iter().filter(|share| !row.pod_cidrs.contains(share));
            self.given
                .insert(node.meta.uid.clone(), new.cloned().collect());
        }
        plan
    }

    /// What a node says that it has takes the place of what it was given; answers how many shares have
    /// become free.
    fn hold(&mut self, uid: &str, shares: &[String]) -> usize {
        let new: Vec<IpNetwork> = shares.iter().filter_map(|it| it.parse().ok()).collect();
        new.iter().for_each(|share| self.take(*share));
        let old = self.held.insert(uid.to_owned(), new).unwrap_or_default();
        let mut freed: usize = old.iter().map(|share| self.drop(*share)).sum();
        if let Some(given) = self.given.get_mut(uid) {
            let families: Vec<bool> = shares.iter().map(|share| share.contains(':')).collect();
            let seen = |share: &mut String| families.contains(&share.contains(':'));
            let seen: Vec<String> = given.extract_if(.., seen).collect();
            if given.is_empty() {
                self.given.remove(uid);
            }
            freed += self.drop_all(&seen);
        }
        freed
    }

    fn release(&mut self, uid: &str) -> usize {
        let held = self.held.remove(uid).unwrap_or_default();
        let given = self.given.remove(uid).unwrap_or_default();
        let freed: usize = held.into_iter().map(|share| self.drop(share)).sum();
        freed + self.drop_all(&given)
    }

    fn take(&mut self, share: IpNetwork) {
        self.free.iter_mut().for_each(|free| free.take(share));
    }

    fn drop_all(&mut self, shares: &[String]) -> usize {
        let shares = shares.iter().filter_map(|share| share.parse().ok());
        shares.map(|share| self.drop(share)).sum()
    }

    fn drop(&mut self, share: IpNetwork) -> usize {
        let dropped = self.free.iter_mut().map(|free| free.drop(share));
        usize::from(dropped.fold(false, |any, dropped| any | dropped))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, mask_bits } = self;
        let nodes = count(*self);
        write!(
            f,
            "{network} has a share (/{mask_bits}) for each of {nodes} nodes"
        )
    }
}

/// What is left of a range.
struct Free {
    range: Range,
    /// How many say that they have a share; of the usual size …
    used: BTreeMap<IpNetwork, u32>,
    /// … and of other sizes.
    odd: BTreeMap<IpNetwork, u32>,
    /// Every share below this one is taken.
    lowest: u128,
}

impl Free {
    fn of(range: Range) -> Self {
        Self {
            range,
            used: BTreeMap::new(),
            odd: BTreeMap::new(),
            lowest: 0,
        }
    }

    fn is_of_family(&self, share: &str) -> bool {
        share.contains(':') == self.range.network.is_ipv6()
    }

    fn is_own(&self, share: IpNetwork) -> bool {
        share.is_ipv6() == self.range.network.is_ipv6()
    }

    fn taken(&mut self, share: IpNetwork) -> &mut BTreeMap<IpNetwork, u32> {
        match share.prefix() == self.range.mask_bits {
            true => &mut self.used,
            false => &mut self.odd,
        }
    }

    fn take(&mut self, share: IpNetwork) {
        if self.is_own(share) {
            *self.taken(share).entry(share).or_default() += 1;
        }
    }

    /// Whether nobody has the share any more.
    fn drop(&mut self, share: IpNetwork) -> bool {
        if !self.is_own(share) {
            return false;
        }
        let taken = self.taken(share);
        let Some(count) = taken.get_mut(&share) else {
            return false;
        };
        *count -= 1;
        let is_free = *count == 0;
        if is_free {
            taken.remove(&share);
            // Shares come and go: those that are lower are tried again.
            self.lowest = self.lowest.min(index(self.range, share));
        }
        is_free
    }

    /// Takes the lowest share that is free.
    fn next(&mut self) -> Option<String> {
        loop {
            let share = share(self.range, self.lowest)?;
            let is_taken = self.used.contains_key(&share)
                || self.odd.keys().any(|other| overlap(share, *other));
            self.lowest += 1;
            if !is_taken {
                self.take(share);
                return Some(share.to_string());
            }
        }
    }
}

/// How many shares are given.
fn count(range: Range) -> u128 {
    let bits = range.mask_bits.saturating_sub(range.network.prefix());
    1 << u32::from(bits).min(MAX_SHARE_BITS)
}

/// More shares than any cluster has nodes are not searched.
const MAX_SHARE_BITS: u32 = 16;

/// The share of that number.
fn share(range: Range, index: u128) -> Option<IpNetwork> {
    if index >= count(range) {
        return None;
    }
    let base = number(range.network.network());
    let step = index.checked_shl(width(range.network) - u32::from(range.mask_bits))?;
    let ip = match range.network {
        IpNetwork::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(base + step).ok()?)),
        IpNetwork::V6(_) => IpAddr::V6(Ipv6Addr::from(base + step)),
    };
    IpNetwork::new(ip, range.mask_bits).ok()
}

/// The number of the first share that the network has a part in; 0, if it lies below the range.
fn index(range: Range, network: IpNetwork) -> u128 {
    let offset = number(network.network()).saturating_sub(number(range.network.network()));
    let shift = width(range.network) - u32::from(range.mask_bits);
    offset.checked_shr(shift).unwrap_or_default()
}

fn width(network: IpNetwork) -> u32 {
    if network.is_ipv4() { 32 } else { 128 }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

#[cfg(test)]
mod tests;
