//! Which pods to stop so that a more important one has a place: on one node, as few and as unimportant as
//! will do, with regard to disruption budgets. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::cycle::{Candidate, Cycle, message};
use super::index::NodeId;
use super::local;
use super::plugins::{Plugin, Refusal};
use super::pod::{PodKey, PodRow};
use super::profile::{Candidates, Profile};
use super::snapshot::{NodeView, PodId, Snapshot, Usage, draw};
use api::selector::LabelSelector;

/// Pods to be stopped on a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preemption {
    pub node: NodeId,
    pub victims: Vec<PodId>,
    /// Less important pods for which room was being made there: they look for another place.
    pub demoted: Vec<PodId>,
}

/// A disruption budget.
#[derive(Clone, PartialEq, Debug)]
pub struct Budget {
    pub namespace: String,
    pub name: String,
    pub selector: LabelSelector,
    /// How many pods may be stopped now.
    pub allowed: i64,
    /// Pods that are being stopped already and are counted.
    pub disrupted: BTreeSet<String>,
}

/// All budgets.
#[derive(Default)]
pub struct Budgets {
    rows: BTreeMap<PodKey, Budget>,
    /// Changes with what they allow.
    generation: u64,
    /// Changes with whom they are for.
    members: u64,
}

/// What stopping pods of one node would come to.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The cost, or why it would not help.
    outcome: Result<Cost, Refusal>,
    /// The budgets' generation, if any budget is of pods of this node.
    budgets: Option<u64>,
    members: u64,
}

/// The lower, the better: budgets that are violated, then the most important victim, then all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Cost {
    violations: usize,
    highest: i32,
    sum: i64,
    victims: usize,
    /// The later the most important victims started, the better.
    started: Reverse<i64>,
}

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

impl Budgets {
    pub fn set(&mut self, budget: Budget) {
        let key = (budget.namespace.clone(), budget.name.clone());
        let known = self.rows.get(&key);
        if known == Some(&budget) {
            return;
        }
        let same = known.is_some_and(|known| known.selector == budget.selector);
        self.members += u64::from(!same);
        self.generation += 1;
        self.rows.insert(key, budget);
    }

    pub fn remove(&mut self, key: &PodKey) {
        self.members += u64::from(self.rows.remove(key).is_some());
    }

    pub fn replace(&mut self, budgets: Vec<Budget>) {
        let listed = budgets
            .iter()
            .map(|it| (it.namespace.clone(), it.name.clone()));
        let listed: BTreeSet<PodKey> = listed.collect();
        let gone: Vec<_> = self
            .rows
            .keys()
            .filter(|key| !listed.contains(*key))
            .cloned()
            .collect();
        gone.iter().for_each(|key| self.remove(key));
        budgets.into_iter().for_each(|budget| self.set(budget));
    }

    /// How many budgets are violated when these pods are stopped.
    pub fn violations(&self, pods: &[&PodRow]) -> usize {
        let (violating, _) = self.violating(pods);
        violating.into_iter().filter(|violates| *violates).count()
    }

    /// Which of `pods`, in their order, would violate a budget; and whether any has one.
    fn violating(&self, pods: &[&PodRow]) -> (Vec<bool>, bool) {
        if self.rows.is_empty() {
            return (vec![false; pods.len()], false);
        }
        let mut allowed: BTreeMap<&PodKey, i64> = BTreeMap::new();
        let mut any = false;
        let mut violates = Vec::new();
        for pod in pods {
            let mut violated = false;
            let of_namespace = self.rows.iter().filter(|(_, it)| it.namespace == pod.key.0);
            for (key, budget) in of_namespace {
                let counted = !budget.disrupted.contains(&pod.key.1);
                if !budget.selector.matches(&pod.demand.labels) || !counted {
                    continue;
                }
                any = true;
                let left = allowed.entry(key).or_insert(budget.allowed);
                *left -= 1;
                violated |= *left < 0;
            }
            violates.push(violated);
        }
        (violates, any)
    }
}

/// Why no pod is stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Idle {
    pub why: String,
    /// What was done for the pod before still holds.
    pub keeps_nomination: bool,
}

/// The pods to stop, or why stopping any would not help. Nodes that an extender has spared are not looked at.
pub(super) fn preempt(
    cycle: &mut Cycle,
    snapshot: &mut Snapshot,
    pod: &Candidate,
) -> Result<Preemption, Idle> {
    let idle = |why: &str, keeps_nomination| {
        let why = why.to_owned();
        Err(Idle {
            why,
            keeps_nomination,
        })
    };
    if pod.row.demand.never_preempts {
        return idle("not eligible due to preemptionPolicy=Never.", false);
    }
    if waits_for_victims(snapshot, pod) {
        return idle(
            "not eligible due to a terminating pod on the nominated node.",
            true,
        );
    }
    let plain = cycle.compiled(pod).is_plain(snapshot.index()) && pod.needs.is_none();
    let found = if plain {
        cheapest(cycle, snapshot, pod)
    } else {
        cheapest_of_some(cycle, snapshot, pod)
    };
    let (node, victims) = found.map_err(|given| Idle {
        why: message(snapshot.live_nodes(), &given),
        keeps_nomination: false,
    })?;
    let demoted = snapshot.nominated_on(node).filter(|other| {
        let row = snapshot.row(*other);
        *other != pod.id && row.is_some_and(|row| row.priority() < pod.row.priority())
    });
    Ok(Preemption {
        node,
        demoted: demoted.collect(),
        victims,
    })
}

/// The refusals with their counts, where there is no node.
type Given = Vec<(Refusal, usize)>;

/// Pods that were stopped for this one are still on their way out.
pub(super) fn waits_for_victims(snapshot: &Snapshot, pod: &Candidate) -> bool {
    let node = pod.nomination.and_then(|node| snapshot.view(node));
    node.is_some_and(|view| {
        view.usage.pods.iter().any(|id| {
            let row = snapshot.row(*id);
            row.is_some_and(|row| row.priority() < pod.row.priority()) && snapshot.is_leaving(*id)
        })
    })
}

/// Of all nodes: what each would cost is remembered until something changes on it.
fn cheapest(
    cycle: &mut Cycle,
    snapshot: &Snapshot,
    pod: &Candidate,
) -> Result<(NodeId, Vec<PodId>), Given> {
    let profile = cycle.profile(pod).clone();
    let budgets = std::mem::take(&mut cycle.budgets);
    let own = draw(&pod.row.uid);
    let row = cycle.answers_mut().row_mut(pod.answers);
    let mut best: Option<((Cost, u64), NodeId)> = None;
    for node in 0..row.entries.len() {
        if snapshot.view(node).is_none() || pod.spared.contains(&node) || !row.may_help(node) {
            continue;
        }
        let current = |trial: &&Trial| {
            trial.members == budgets.members
                && trial.budgets.is_none_or(|at| at == budgets.generation)
        };
        if row.trials[node].as_ref().filter(current).is_none() {
            row.trials[node] = Some(try_node(&row.demand, &profile, snapshot, &budgets, node).0);
        }
        if let Some(Ok(cost)) = row.trials[node].as_ref().map(|trial| &trial.outcome) {
            let tie = (own ^ snapshot.draw(node)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if best.is_none_or(|(least, _)| (*cost, tie) < least) {
                best = Some(((*cost, tie), node));
            }
        }
    }
    let found = match best {
        Some((_, node)) => {
            let (_, victims) = try_node(&row.demand, &profile, snapshot, &budgets, node);
            Ok((node, victims))
        }
        None => Err(why_none(row, snapshot, &pod.spared)),
    };
    cycle.budgets = budgets;
    found
}

/// What the nodes say, none of which is helped by stopping pods.
fn why_none(row: &local::Row, snapshot: &Snapshot, spared: &BTreeSet<NodeId>) -> Given {
    let mut given: BTreeMap<Refusal, usize> = BTreeMap::new();
    let nodes = (0..row.entries.len()).filter(|node| snapshot.view(*node).is_some());
    for node in nodes.filter(|node| !spared.contains(node)) {
        let trial = row.trials[node].as_ref().filter(|_| row.may_help(node));
        let refusal = match trial.map(|trial| &trial.outcome) {
            Some(Err(refusal)) => refusal.clone(),
            _ => not_helpful(),
        };
        *given.entry(refusal).or_insert(0) += 1;
    }
    given.into_iter().collect()
}

/// What stopping pods of this node would cost, and which; by what the node says for itself.
fn try_node(
    demand: &super::demand::Local,
    profile: &Profile,
    snapshot: &Snapshot,
    budgets: &Budgets,
    node: NodeId,
) -> (Trial, Vec<PodId>) {
    let Some(view) = snapshot.view(node) else {
        return (refused(not_helpful(), budgets), Vec::new());
    };
    let victims = less_important(snapshot, view.usage, demand.priority);
    let promised = snapshot.promised(node, demand.priority);
    let mut usage = promised.unwrap_or_else(|| view.usage.clone());
    let fits = |usage: &Usage| local::refuse(demand, profile, NodeView { usage, ..view });
    for (id, row) in &victims {
        usage.remove(*id, &row.demand);
    }
    if victims.is_empty() {
        return (refused(no_victims(), budgets), Vec::new());
    }
    if let Some(refusal) = fits(&usage) {
        return (refused(refusal, budgets), Vec::new());
    }
    let mut keep = |id: PodId, row: &PodRow| {
        usage.add(id, &row.demand);
        let stays = fits(&usage).is_none();
        if !stays {
            usage.remove(id, &row.demand);
        }
        stays
    };
    let (chosen, violations, any) = reprieve(&victims, budgets, &mut keep);
    let trial = Trial {
        outcome: Ok(cost(snapshot, &chosen, violations)),
        budgets: any.then_some(budgets.generation),
        members: budgets.members,
    };
    (trial, chosen)
}

/// Of some nodes, where the answer depends on other nodes: each trial takes pods off and puts them back.
fn cheapest_of_some(
    cycle: &mut Cycle,
    snapshot: &mut Snapshot,
    pod: &Candidate,
) -> Result<(NodeId, Vec<PodId>), Given> {
    let width = snapshot.width();
    let Candidates { percent, least } = cycle.profile(pod).candidates;
    let most = least.max(snapshot.live_nodes() * percent / 100);
    let start = usize::try_from(draw(&pod.row.uid) % width.max(1) as u64).unwrap_or(0);
    let mut best: Option<(Cost, NodeId, Vec<PodId>)> = None;
    let mut given: BTreeMap<Refusal, usize> = BTreeMap::new();
    let mut found = 0;
    for node in (start..width).chain(0..start) {
        if snapshot.view(node).is_none() || pod.spared.contains(&node) {
            continue;
        }
        if found >= most {
            break;
        }
        let refusal = cycle.check(snapshot, pod, node);
        if refusal.is_none_or(|refusal| refusal.lasting) {
            *given.entry(not_helpful()).or_insert(0) += 1;
            continue;
        }
        match try_by_moving(cycle, snapshot, pod, node) {
            Ok((cost, victims)) => {
                found += 1;
                if best.as_ref().is_none_or(|(least, _, _)| cost < *least) {
                    best = Some((cost, node, victims));
                }
            }
            Err(refusal) => *given.entry(refusal).or_insert(0) += 1,
        }
    }
    let found = best.map(|(_, node, victims)| (node, victims));
    found.ok_or_else(|| given.into_iter().collect())
}

fn try_by_moving(
    cycle: &Cycle,
    snapshot: &mut Snapshot,
    pod: &Candidate,
    node: NodeId,
) -> Result<(Cost, Vec<PodId>), Refusal> {
    let Some(view) = snapshot.view(node) else {
        return Err(not_helpful());
    };
    let victims = less_important(snapshot, view.usage, pod.row.priority());
    let victims: Vec<(PodId, PodRow)> = victims
        .into_iter()
        .map(|(id, row)| (id, row.clone()))
        .collect();
    if victims.is_empty() {
        return Err(no_victims());
    }
    for (id, _) in &victims {
        snapshot.take_off(*id);
    }
    let refusal = cycle.check(snapshot, pod, node);
    let rows: Vec<(PodId, &PodRow)> = victims.iter().map(|(id, row)| (*id, row)).collect();
    let mut outcome = None;
    if refusal.is_none() {
        let mut keep = |id: PodId, _: &PodRow| {
            snapshot.put_on(id, node);
            let stays = cycle.check(snapshot, pod, node).is_none();
            if !stays {
                snapshot.take_off(id);
            }
            stays
        };
        outcome = Some(reprieve(&rows, &cycle.budgets, &mut keep));
    }
    for (id, _) in &victims {
        if snapshot.placed(*id).is_none() {
            snapshot.put_on(*id, node);
        }
    }
    match (refusal, outcome) {
        (None, Some((chosen, violations, _))) => Ok((cost(snapshot, &chosen, violations), chosen)),
        (refusal, _) => Err(refusal.unwrap_or_else(not_helpful)),
    }
}

/// The pods on the node that are less important, the most important of them first.
fn less_important<'a>(
    snapshot: &'a Snapshot,
    usage: &Usage,
    priority: i32,
) -> Vec<(PodId, &'a PodRow)> {
    let rows = usage
        .pods
        .iter()
        .filter_map(|id| Some((*id, snapshot.row(*id)?)));
    let mut lower: Vec<_> = rows.filter(|(_, row)| row.priority() < priority).collect();
    lower.sort_by(|(_, a), (_, b)| {
        (Reverse(a.priority()), a.started, &a.key).cmp(&(Reverse(b.priority()), b.started, &b.key))
    });
    lower
}

/// All are off the node, and the pod fits. Puts back whom it can, those first whose budgets would be
/// violated; says who is left, how many violations that is, and whether budgets had a say.
fn reprieve(
    victims: &[(PodId, &PodRow)],
    budgets: &Budgets,
    keep: &mut dyn FnMut(PodId, &PodRow) -> bool,
) -> (Vec<PodId>, usize, bool) {
    let rows: Vec<&PodRow> = victims.iter().map(|(_, row)| *row).collect();
    let (violating, any) = budgets.violating(&rows);
    let mut chosen = Vec::new();
    let mut violations = 0;
    for turn in [true, false] {
        let of_turn = victims
            .iter()
            .zip(&violating)
            .filter(|(_, violates)| **violates == turn);
        for ((id, row), _) in of_turn {
            if !keep(*id, row) {
                chosen.push(*id);
                violations += usize::from(turn);
            }
        }
    }
    (chosen, violations, any)
}

fn cost(snapshot: &Snapshot, victims: &[PodId], violations: usize) -> Cost {
    let rows = || victims.iter().filter_map(|id| snapshot.row(*id));
    let highest = rows().map(PodRow::priority).max().unwrap_or(i32::MIN);
    let most_important = rows().filter(|row| row.priority() == highest);
    let started = most_important
        .map(|row| row.started)
        .min()
        .unwrap_or(i64::MAX);
    Cost {
        violations,
        highest,
        // Each counts for itself, also those of negative priority.
        sum: rows()
            .map(|row| i64::from(row.priority()) - i64::from(i32::MIN))
            .sum(),
        victims: victims.len(),
        started: Reverse(started),
    }
}

fn refused(refusal: Refusal, budgets: &Budgets) -> Trial {
    Trial {
        outcome: Err(refusal),
        budgets: None,
        members: budgets.members,
    }
}

fn no_victims() -> Refusal {
    Refusal::new(Plugin::NodeResourcesFit, NO_VICTIMS, true)
}

fn not_helpful() -> Refusal {
    Refusal::new(Plugin::NodeResourcesFit, NOT_HELPFUL, true)
}
