//! What depends on the pods of other nodes: pod affinity and anti-affinity, both ways, and topology spread.
//! A demand is compiled to counters of the index; a node's answer is a look at its domains' counts. Pure.

use std::borrow::Cow;

use super::demand::{Demand, Scope, Spread, Term};
use super::index::{
    Counter, CounterId, Effect, Eligibility, Holder, HolderId, Index, NO_DOMAIN, NodeId, Selection,
};
use super::plugins::{Plugin, Refusal};
use super::profile::Profile;
use api::selector::LabelSelector;

/// A demand in counters of the index.
#[derive(Default)]
pub struct Compiled {
    epoch: u64,
    news: u64,
    near: Vec<CounterId>,
    /// The pod itself is one of those that it needs.
    near_itself: bool,
    far: Vec<CounterId>,
    hard: Vec<Constraint>,
    soft: Vec<Constraint>,
    soft_weight: i64,
    wishes: Vec<(i64, CounterId)>,
    holders: Vec<(Effect, HolderId)>,
}

struct Constraint {
    counter: CounterId,
    max_skew: i64,
    min_domains: i64,
    /// 1 if the pod itself is counted.
    itself: i64,
    /// Nodes without the label are not rated.
    needs_label: bool,
}

/// The checks of one decision, with all that the nodes have in common computed.
pub struct Checks<'a> {
    hard: Vec<Check<'a>>,
    near: Vec<Check<'a>>,
    /// None of the pods that it needs is anywhere, and it is one itself.
    starts: bool,
    far: Vec<Check<'a>>,
    forbidden: Vec<Check<'a>>,
}

/// Counts by domain, and the domain of each node.
struct Check<'a> {
    domains: &'a [u32],
    counts: &'a [u32],
    /// More than this will not do.
    most: i64,
}

/// Why a node will not do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Conflict {
    SpreadLabel,
    Spread,
    Near,
    Far,
    Forbidden,
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";

impl Conflict {
    pub const ALL: [Conflict; 5] = [
        Conflict::SpreadLabel,
        Conflict::Spread,
        Conflict::Near,
        Conflict::Far,
        Conflict::Forbidden,
    ];

    /// As Kubernetes says it.
    pub fn refusal(self) -> Refusal {
        let (plugin, text, lasting) = match self {
            Conflict::SpreadLabel => (
                Plugin::PodTopologySpread,
                "node(s) didn't match pod topology spread constraints (missing required label)",
                true,
            ),
            Conflict::Spread => (
                Plugin::PodTopologySpread,
                "node(s) didn't match pod topology spread constraints",
                false,
            ),
            Conflict::Near => (
                Plugin::InterPodAffinity,
                "node(s) didn't match pod affinity rules",
                true,
            ),
            Conflict::Far => (
                Plugin::InterPodAffinity,
                "node(s) didn't match pod anti-affinity rules",
                false,
            ),
            Conflict::Forbidden => (
                Plugin::InterPodAffinity,
                "node(s) didn't satisfy existing pods anti-affinity rules",
                false,
            ),
        };
        Refusal::new(plugin, text, lasting)
    }
}

impl Compiled {
    pub fn new(demand: &Demand, profile: &Profile, index: &mut Index) -> Self {
        let filters = |plugin| profile.filters(plugin);
        let mut compiled = Self::default();
        if filters(Plugin::InterPodAffinity) {
            compiled.near(demand, index);
            let far = demand.far.iter();
            compiled.far = far
                .map(|term| counter_of(std::slice::from_ref(term), term, index))
                .collect();
        }
        let spread = own_or_default(demand, profile);
        if filters(Plugin::PodTopologySpread) {
            let hard = spread.iter().filter(|it| it.hard).collect::<Vec<_>>();
            compiled.hard = constraints(demand, &hard, index);
        }
        let soft = spread.iter().filter(|it| !it.hard).collect::<Vec<_>>();
        compiled.soft = constraints(demand, &soft, index);
        compiled.soft_weight = profile.weights.spread;
        if demand.spread.is_empty() && profile.weights.default_spread > 0 {
            compiled.soft = spread_by_default(demand, index);
            compiled.soft_weight = profile.weights.default_spread;
        }
        if profile.weights.pod_affinity > 0 {
            let wishes = demand.wishes.iter();
            compiled.wishes = wishes
                .map(|(weight, term)| {
                    (*weight, counter_of(std::slice::from_ref(term), term, index))
                })
                .collect();
        }
        compiled.look_for_holders(demand, index);
        compiled.epoch = index.epoch();
        compiled
    }

    /// Whether the counters still mean what they did.
    pub fn is_current(&self, index: &Index) -> bool {
        self.epoch == index.epoch()
    }

    /// Finds the holders that have come since.
    pub fn refresh(&mut self, demand: &Demand, index: &Index) {
        if self.news != index.news() {
            self.look_for_holders(demand, index);
        }
    }

    /// Whether any node's answer depends on other nodes, or on who else is there.
    pub fn is_plain(&self, index: &Index) -> bool {
        self.near.is_empty()
            && self.far.is_empty()
            && self.hard.is_empty()
            && !self
                .holders
                .iter()
                .any(|(effect, id)| *effect == Effect::Forbids && index.holder_row(*id).total > 0)
    }

    fn look_for_holders(&mut self, demand: &Demand, index: &Index) {
        self.holders = index.holders_of(demand);
        self.news = index.news();
    }

    /// A pod that must be near others is near those for which all of its terms hold.
    fn near(&mut self, demand: &Demand, index: &mut Index) {
        let terms = &demand.near;
        self.near = terms
            .iter()
            .map(|term| counter_of(terms, term, index))
            .collect();
        self.near_itself = index.selects(&selection_of(terms), demand);
    }

    /// The checks as the counts are now.
    pub fn checks<'a>(&self, index: &'a Index) -> Checks<'a> {
        let spread = |constraint: &Constraint| {
            let counter = index.counter_row(constraint.counter);
            let few = counter.domains < constraint.min_domains;
            let least = if few { 0 } else { counter.least() };
            Check::of(
                index,
                counter,
                constraint.max_skew + least - constraint.itself,
            )
        };
        let none = |id: &CounterId| Check::of(index, index.counter_row(*id), 0);
        let anywhere = self.near.iter().any(|id| index.counter_row(*id).total > 0);
        let forbids = self
            .holders
            .iter()
            .filter(|(effect, _)| *effect == Effect::Forbids);
        let forbids = forbids
            .map(|(_, id)| index.holder_row(*id))
            .filter(|it| it.total > 0);
        Checks {
            hard: self.hard.iter().map(spread).collect(),
            near: self.near.iter().map(none).collect(),
            starts: self.near_itself && !anywhere,
            far: self.far.iter().map(none).collect(),
            forbidden: forbids
                .map(|holder| Check::of_holder(index, holder))
                .collect(),
        }
    }

    /// Ratings of `nodes` for spreading, each 0 to 100; none if all are alike.
    pub fn rate_spread(&self, index: &Index, nodes: &[NodeId]) -> Option<(i64, Vec<i64>)> {
        if self.soft.is_empty() || self.soft_weight == 0 {
            return None;
        }
        let mut costs = vec![Some(0.0_f64); nodes.len()];
        let mut any = false;
        for constraint in &self.soft {
            let counter = index.counter_row(constraint.counter);
            if counter.domains == 0 {
                continue;
            }
            let domains = &index.topology_row(counter.topology).of_node;
            let weight = ((counter.domains + 2) as f64).ln();
            any |= counter.total > 0 || constraint.needs_label;
            for (cost, node) in costs.iter_mut().zip(nodes) {
                let domain = domains.get(*node).copied().unwrap_or(NO_DOMAIN);
                if domain == NO_DOMAIN && constraint.needs_label {
                    *cost = None;
                } else if let Some(cost) = cost {
                    let count = counter.in_domain(domain) as f64;
                    *cost += count * weight + (constraint.max_skew - 1) as f64;
                }
            }
        }
        if !any {
            return None;
        }
        let costs: Vec<Option<i64>> = costs
            .into_iter()
            .map(|it| it.map(|it| it.round() as i64))
            .collect();
        let (most, least) = (costs.iter().flatten().max()?, costs.iter().flatten().min()?);
        let rated = costs.iter().map(|cost| match cost {
            None => 0,
            Some(_) if *most == 0 => 100,
            Some(cost) => 100 * (most + least - cost) / most,
        });
        Some((self.soft_weight, rated.collect()))
    }

    /// Ratings of `nodes` by wishes, each 0 to 100; none if all are alike.
    pub fn rate_affinity(
        &self,
        index: &Index,
        profile: &Profile,
        nodes: &[NodeId],
    ) -> Option<Vec<i64>> {
        let mut sums = vec![0_i64; nodes.len()];
        let mut add = |weight: i64, domains: &[u32], counts: &[u32]| {
            for (sum, node) in sums.iter_mut().zip(nodes) {
                let domain = domains.get(*node).copied().unwrap_or(NO_DOMAIN);
                let count = counts.get(domain as usize).copied().unwrap_or(0);
                *sum += weight * i64::from(count);
            }
        };
        for (weight, id) in &self.wishes {
            let counter = index.counter_row(*id);
            if counter.total > 0 {
                add(
                    *weight,
                    &index.topology_row(counter.topology).of_node,
                    &counter.counts,
                );
            }
        }
        for (effect, id) in &self.holders {
            let weight = match effect {
                Effect::Forbids => 0,
                Effect::Wishes(_) if profile.ignores_wishes_of_placed => 0,
                Effect::Wishes(weight) => *weight,
                Effect::Needs => profile.hard_affinity_weight,
            };
            let holder = index.holder_row(*id);
            if weight != 0 && holder.total > 0 {
                add(
                    weight,
                    &index.topology_row(holder.topology).of_node,
                    &holder.counts,
                );
            }
        }
        let (most, least) = (*sums.iter().max()?, *sums.iter().min()?);
        if most == least {
            return None;
        }
        Some(
            sums.iter()
                .map(|sum| 100 * (sum - least) / (most - least))
                .collect(),
        )
    }
}

impl Checks<'_> {
    /// Why the node will not do.
    pub fn conflict(&self, node: NodeId) -> Option<Conflict> {
        for check in &self.hard {
            match check.count(node) {
                None => return Some(Conflict::SpreadLabel),
                Some(count) if count > check.most => return Some(Conflict::Spread),
                Some(_) => {}
            }
        }
        for check in &self.near {
            let near = check
                .count(node)
                .is_some_and(|count| count > 0 || self.starts);
            if !near {
                return Some(Conflict::Near);
            }
        }
        let taken = |check: &Check| check.count(node).is_some_and(|count| count > 0);
        if self.far.iter().any(taken) {
            return Some(Conflict::Far);
        }
        self.forbidden
            .iter()
            .any(taken)
            .then_some(Conflict::Forbidden)
    }
}

impl<'a> Check<'a> {
    fn of(index: &'a Index, counter: &'a Counter, most: i64) -> Self {
        Self {
            domains: &index.topology_row(counter.topology).of_node,
            counts: &counter.counts,
            most,
        }
    }

    fn of_holder(index: &'a Index, holder: &'a Holder) -> Self {
        Self {
            domains: &index.topology_row(holder.topology).of_node,
            counts: &holder.counts,
            most: 0,
        }
    }

    /// The count in the node's domain; none without the label.
    fn count(&self, node: NodeId) -> Option<i64> {
        let domain = self
            .domains
            .get(node)
            .copied()
            .filter(|domain| *domain != NO_DOMAIN)?;
        Some(
            self.counts
                .get(domain as usize)
                .copied()
                .map_or(0, i64::from),
        )
    }
}

fn selection_of(terms: &[Term]) -> Selection {
    let terms = terms
        .iter()
        .map(|term| (term.scope.clone(), term.selector.clone()));
    Selection {
        terms: terms.collect(),
        ..Selection::default()
    }
}

fn counter_of(terms: &[Term], by: &Term, index: &mut Index) -> CounterId {
    index.counter(
        &selection_of(terms),
        &by.topology_key,
        &Eligibility::default(),
    )
}

/// What the pod asks for; else what its profile says for such pods, for those that are like it.
fn own_or_default<'a>(demand: &'a Demand, profile: &'a Profile) -> Cow<'a, [Spread]> {
    let is_alone = demand.owner.is_empty() && demand.labels.is_empty();
    if !demand.spread.is_empty() || profile.constraints.is_empty() || is_alone {
        return Cow::Borrowed(&demand.spread);
    }
    let defaults = profile.constraints.iter().cloned();
    let defaults = defaults.map(|it| Spread {
        selector: siblings(demand),
        ..it
    });
    Cow::Owned(defaults.collect())
}

/// Selects pods of the same controller, together with its uid, or else of the same labels.
fn siblings(demand: &Demand) -> LabelSelector {
    if demand.owner.is_empty() {
        LabelSelector::from_map(&demand.labels)
    } else {
        LabelSelector::everything()
    }
}

fn constraints(demand: &Demand, spread: &[&Spread], index: &mut Index) -> Vec<Constraint> {
    let keys: Vec<String> = spread.iter().map(|it| it.topology_key.clone()).collect();
    let made = spread.iter().map(|it| {
        let on = Eligibility {
            admitted_by: it.honors_affinity.then(|| demand.local.nodes.clone()),
            tolerated_by: it.honors_taints.then(|| demand.local.tolerations.clone()),
            keys: keys.clone(),
        };
        // Of defaults, which select whatever the controller has.
        let owner = match demand.spread.is_empty() {
            true => demand.owner.clone(),
            false => String::new(),
        };
        let selection = own_namespace(demand, it.selector.clone(), owner);
        Constraint {
            counter: index.counter(&selection, &it.topology_key, &on),
            max_skew: it.max_skew,
            min_domains: it.min_domains,
            itself: i64::from(it.selector.matches(&demand.labels)),
            needs_label: true,
        }
    });
    made.collect()
}

/// Pods of one controller, or else of the same labels, over hosts and zones.
fn spread_by_default(demand: &Demand, index: &mut Index) -> Vec<Constraint> {
    if demand.owner.is_empty() && demand.labels.is_empty() {
        return Vec::new();
    }
    let selection = own_namespace(demand, siblings(demand), demand.owner.clone());
    let on = Eligibility {
        admitted_by: Some(demand.local.nodes.clone()),
        ..Eligibility::default()
    };
    let made = [HOSTNAME, ZONE].map(|key| Constraint {
        counter: index.counter(&selection, key, &on),
        max_skew: 1,
        min_domains: 1,
        itself: 1,
        needs_label: false,
    });
    made.into()
}

fn own_namespace(demand: &Demand, selector: LabelSelector, owner: String) -> Selection {
    let scope = Scope {
        names: vec![demand.namespace.clone()],
        selector: None,
    };
    Selection {
        terms: vec![(scope, selector)],
        owner,
        skips_terminating: true,
    }
}
