//! One decision: which node for this pod, or why none. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cross::{Compiled, Conflict};
use super::demand::Demand;
use super::extender::{Heard, Said};
use super::index::NodeId;
use super::local::{self, ABSENT, Answers};
use super::plugins::{Plugin, Refusal};
use super::pod::PodRow;
use super::preempt::{self, Budgets, Preemption};
use super::profile::extenders::Extender;
use super::profile::{Config, DEFAULT_SCHEDULER, Profile};
use super::snapshot::{PodId, Snapshot, draw};
use super::volumes::{Needs, Plan, Volumes};

/// The outcome for one pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    Bind {
        node: NodeId,
        /// What is to be written before.
        volumes: Plan,
    },
    /// These nodes would do; extenders are to be heard first.
    Consult { nodes: Vec<NodeId> },
    /// No node will do; the text says why in Kubernetes' words.
    Unschedulable {
        message: String,
        /// The plugins that refused nodes, by their bits.
        by: u32,
        /// Pods to be stopped for it.
        preemption: Option<Preemption>,
        /// The room that is being made for it is still its own.
        keeps_nomination: bool,
    },
}

/// What decisions remember for the next like them.
#[derive(Default)]
pub struct Cycle {
    config: Config,
    answers: Answers,
    compiled: BTreeMap<(usize, Arc<Demand>), Compiled>,
    pub budgets: Budgets,
    pub volumes: Volumes,
}

/// A pod on its way through the cycle.
pub(super) struct Candidate {
    pub id: PodId,
    pub row: PodRow,
    pub profile: usize,
    /// Its row of answers.
    pub answers: usize,
    pub compiled: (usize, Arc<Demand>),
    pub needs: Option<Needs>,
    /// Where room is being made for it.
    pub nomination: Option<NodeId>,
    /// Extenders are to be heard before a node is taken.
    pub consults: bool,
    /// What they have said.
    pub said: Option<Said>,
    /// Nodes on which no pod is to be stopped for it.
    pub spared: BTreeSet<NodeId>,
}

/// The feasible nodes, and how often which refusal was given.
#[derive(Default)]
pub(super) struct Filtered {
    pub feasible: Vec<NodeId>,
    /// By verdict of the row of answers.
    local: Vec<usize>,
    conflicts: [usize; Conflict::ALL.len()],
    other: Vec<Refusal>,
}

/// Demands whose counters are remembered; more of them and all are forgotten.
const COMPILED: usize = 512;

/// However small the share of nodes that are to be rated is, so many are: Kubernetes' `minFeasibleNodesToFind`.
const RATED_LEAST: usize = 100;

impl Filtered {
    /// Takes off the nodes that extenders refuse, and those that they were not asked about.
    fn heed(&mut self, said: &Said, snapshot: &Snapshot) {
        let other = &mut self.other;
        self.feasible.retain(|node| {
            let name = snapshot.node_name(*node);
            let will_do = said.nodes.contains_key(name);
            if !will_do {
                let unasked =
                    || Refusal::new(Plugin::Extender, "node(s) were not known yet", false);
                let refusal = said.failed.get(name).cloned();
                other.push(refusal.unwrap_or_else(unasked));
            }
            will_do
        });
    }
}

impl Decision {
    /// No node will do, whatever is on it.
    fn hopeless(why: &str, by: u32, total: usize) -> Self {
        let available = format!("0/{total} nodes are available:");
        Decision::Unschedulable {
            message: format!(
                "{available} {why}. preemption: {available} {total} Preemption is not helpful for \
                 scheduling."
            ),
            by,
            preemption: None,
            keeps_nomination: false,
        }
    }
}

impl Cycle {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether one of the profiles is the pod's.
    pub fn is_ours(&self, row: &PodRow) -> bool {
        self.profile_of(row).is_some()
    }

    /// Decides without extenders.
    pub fn decide(&mut self, snapshot: &mut Snapshot, id: PodId) -> Decision {
        let Some(pod) = self.prepare(snapshot, id) else {
            return Decision::hopeless("no profile", 0, 0);
        };
        self.decide_for(snapshot, pod)
    }

    /// Filters, scores, and takes the best; among equals one that depends on the pod, so that load
    /// spreads. If none will do, looks for pods to stop. `heard` is what extenders have said of this pod.
    pub fn decide_hearing(
        &mut self,
        snapshot: &mut Snapshot,
        id: PodId,
        heard: Option<&Heard>,
    ) -> Decision {
        let Some(mut pod) = self.prepare(snapshot, id) else {
            return Decision::hopeless("no profile", 0, 0);
        };
        pod.consults = heard.is_none()
            && self.asks(&pod.row, |it| {
                !it.filter.is_empty() || !it.prioritize.is_empty()
            });
        if let Some(heard) = heard {
            let spared = heard.spared.iter();
            pod.spared = spared.filter_map(|name| snapshot.node_id(name)).collect();
            pod.said = heard.said.clone();
        }
        self.decide_for(snapshot, pod)
    }

    /// Whether an extender with such verbs has a say about the pod.
    pub fn asks(&self, row: &PodRow, has_verbs: impl Fn(&Extender) -> bool) -> bool {
        let requests = &row.demand.local.requests;
        let mut extenders = self.config.extenders.iter();
        extenders.any(|it| has_verbs(it) && it.concerns(requests))
    }

    fn decide_for(&mut self, snapshot: &mut Snapshot, mut pod: Candidate) -> Decision {
        let id = pod.id;
        let total = snapshot.live_nodes();
        if pod.row.demand.asks_devices {
            return Decision::hopeless("resource claims are not supported", 0, total);
        }
        match self.volumes.needs(&pod.row, snapshot) {
            Ok(needs) => pod.needs = needs,
            Err(why) => return Decision::hopeless(&why, Plugin::VolumeBinding.bit(), total),
        }
        let Some(node) = pod.nomination else {
            return self.choose(snapshot, &pod);
        };
        let name = snapshot.node_name(node);
        let is_said = pod
            .said
            .as_ref()
            .is_none_or(|said| said.nodes.contains_key(name));
        let may = !pod.consults && is_said;
        if may && self.check(snapshot, &pod, node).is_none() {
            return self.bind(snapshot, &pod, node);
        }
        // The room that is being made for the pod itself is nobody's before it.
        snapshot.nominate(id, None);
        self.refresh(snapshot, &pod);
        let decision = self.choose(snapshot, &pod);
        snapshot.nominate(id, Some(node));
        decision
    }

    fn choose(&mut self, snapshot: &mut Snapshot, pod: &Candidate) -> Decision {
        let mut filtered = self.filter(snapshot, pod);
        if let Some(said) = &pod.said {
            filtered.heed(said, snapshot);
        }
        if pod.consults && !filtered.feasible.is_empty() {
            let nodes = filtered.feasible;
            return Decision::Consult { nodes };
        }
        self.spare_ratings(snapshot, pod, &mut filtered.feasible);
        while let Some(at) = self.best(snapshot, pod, &filtered.feasible) {
            let node = filtered.feasible[at];
            match self.refused_beside_nominated(snapshot, pod, node) {
                None => return self.bind(snapshot, pod, node),
                Some(refusal) => {
                    filtered.feasible.swap_remove(at);
                    filtered.other.push(refusal);
                }
            }
        }
        let (message, by) = self.explain(snapshot, pod, &filtered);
        let preempts = self.config.profiles[pod.profile].preempts && snapshot.live_nodes() > 0;
        let found = preempts.then(|| preempt::preempt(self, snapshot, pod));
        let (message, preemption, keeps_nomination) = match found {
            Some(Err(idle)) => {
                let message = format!("{message} preemption: {}", idle.why);
                (message, None, idle.keeps_nomination)
            }
            Some(Ok(preemption)) => (message, Some(preemption), true),
            None => (message, None, false),
        };
        Decision::Unschedulable {
            message,
            by,
            preemption,
            keeps_nomination,
        }
    }

    /// Leaves no more nodes to be rated than the profile says, beginning at one that depends on the pod.
    fn spare_ratings(&self, snapshot: &Snapshot, pod: &Candidate, feasible: &mut Vec<NodeId>) {
        let percent = self.profile(pod).rated_percent;
        if percent == 0 || feasible.is_empty() {
            return;
        }
        let most = RATED_LEAST.max(snapshot.live_nodes() * percent / 100);
        let start = draw(&pod.row.uid) % feasible.len() as u64;
        feasible.rotate_left(usize::try_from(start).unwrap_or(0));
        feasible.truncate(most);
    }

    fn bind(&self, snapshot: &Snapshot, pod: &Candidate, node: NodeId) -> Decision {
        let row = snapshot.view(node).map(|view| view.node);
        let needs = pod.needs.as_ref();
        let plan = needs
            .zip(row)
            .and_then(|(needs, row)| self.volumes.plan(needs, row));
        Decision::Bind {
            node,
            volumes: plan.unwrap_or_default(),
        }
    }

    /// Whether the pod, which has no place, may have one on one of these nodes now; and so may each that asks
    /// for the same.
    pub fn may_fit(
        &mut self,
        snapshot: &mut Snapshot,
        id: PodId,
        nodes: &BTreeSet<NodeId>,
    ) -> bool {
        let Some(pod) = self.prepare(snapshot, id) else {
            return false;
        };
        let entries = &self.answers.row(pod.answers).entries;
        nodes
            .iter()
            .any(|node| entries.get(*node).is_some_and(|entry| entry.verdict == 0))
    }

    /// Whether the pod may have its place where room is being made for it, or waits there in vain.
    pub fn may_take_its_room(&mut self, snapshot: &mut Snapshot, id: PodId) -> bool {
        let Some(pod) = self.prepare(snapshot, id) else {
            return false;
        };
        let fits = |node| self.check(snapshot, &pod, node).is_none();
        pod.nomination.is_some_and(fits) || !preempt::waits_for_victims(snapshot, &pod)
    }

    /// What each node says, by name.
    pub fn verdicts(
        &mut self,
        snapshot: &mut Snapshot,
        id: PodId,
    ) -> Vec<(String, Option<Refusal>)> {
        let Some(mut pod) = self.prepare(snapshot, id) else {
            return Vec::new();
        };
        let needs = self.volumes.needs(&pod.row, snapshot);
        let hopeless = needs.as_ref().err().cloned();
        let hopeless = hopeless.map(|why| Refusal::new(Plugin::VolumeBinding, &why, true));
        pod.needs = needs.unwrap_or_default();
        let nodes = (0..snapshot.width()).filter(|node| snapshot.view(*node).is_some());
        let nodes: Vec<NodeId> = nodes.collect();
        let said = nodes.into_iter().map(|node| {
            let refusal = hopeless
                .clone()
                .or_else(|| self.check(snapshot, &pod, node));
            (snapshot.node_name(node).to_owned(), refusal)
        });
        let mut said: Vec<_> = said.collect();
        said.sort_by(|a, b| a.0.cmp(&b.0));
        said
    }

    pub(super) fn profile(&self, pod: &Candidate) -> &Profile {
        &self.config.profiles[pod.profile]
    }

    pub(super) fn answers_mut(&mut self) -> &mut Answers {
        &mut self.answers
    }

    pub(super) fn compiled(&self, pod: &Candidate) -> &Compiled {
        &self.compiled[&pod.compiled]
    }

    /// How long the pod's volumes may take, in seconds.
    pub fn volumes_timeout_seconds(&self, row: &PodRow) -> i64 {
        let profile = self.profile_of(row).unwrap_or_default();
        let profile = self.config.profiles.get(profile);
        profile.map_or(0, |profile| profile.volumes_timeout_seconds)
    }

    fn profile_of(&self, row: &PodRow) -> Option<usize> {
        let name = match row.demand.scheduler.as_str() {
            "" => DEFAULT_SCHEDULER,
            name => name,
        };
        self.config
            .profiles
            .iter()
            .position(|profile| profile.name == name)
    }

    /// All that is computed once for a pod, whatever the node.
    fn prepare(&mut self, snapshot: &mut Snapshot, id: PodId) -> Option<Candidate> {
        let row = snapshot.row(id)?.clone();
        let number = self.profile_of(&row)?;
        let profile = &self.config.profiles[number];
        let answers = self
            .answers
            .refresh(&row.demand.local, (number, profile), snapshot);
        if self.compiled.len() > COMPILED {
            self.compiled.clear();
            snapshot.index_mut().forget();
        }
        let key = (number, row.demand.clone());
        let index = snapshot.index_mut();
        match self
            .compiled
            .get_mut(&key)
            .filter(|compiled| compiled.is_current(index))
        {
            Some(compiled) => compiled.refresh(&row.demand, index),
            None => {
                let compiled = Compiled::new(&row.demand, profile, index);
                self.compiled.insert(key.clone(), compiled);
            }
        }
        Some(Candidate {
            id,
            row,
            profile: number,
            answers,
            compiled: key,
            needs: None,
            nomination: snapshot.nomination(id),
            consults: false,
            said: None,
            spared: BTreeSet::new(),
        })
    }

    fn refresh(&mut self, snapshot: &Snapshot, pod: &Candidate) {
        let profile = (pod.profile, &self.config.profiles[pod.profile]);
        self.answers
            .refresh(&pod.row.demand.local, profile, snapshot);
    }

    fn filter(&self, snapshot: &Snapshot, pod: &Candidate) -> Filtered {
        let row = self.answers.row(pod.answers);
        let compiled = self.compiled(pod);
        let plain = compiled.is_plain(snapshot.index());
        let checks = compiled.checks(snapshot.index());
        let mut filtered = Filtered {
            local: vec![0; row.refusals().len() + 1],
            ..Filtered::default()
        };
        for (node, entry) in row.entries.iter().enumerate() {
            match entry.verdict {
                ABSENT => {}
                0 => {
                    let needs = pod.needs.as_ref();
                    let refusal = needs.and_then(|it| self.volumes.refuse(it, node, snapshot));
                    if let Some(refusal) = refusal {
                        filtered.other.push(refusal);
                    } else if plain {
                        filtered.feasible.push(node);
                    } else if let Some(conflict) = checks.conflict(node) {
                        filtered.conflicts[conflict as usize] += 1;
                    } else {
                        filtered.feasible.push(node);
                    }
                }
                verdict => filtered.local[usize::from(verdict)] += 1,
            }
        }
        filtered
    }

    /// What this node says, asked for itself: what is promised to others on it counts.
    pub(super) fn check(
        &self,
        snapshot: &mut Snapshot,
        pod: &Candidate,
        node: NodeId,
    ) -> Option<Refusal> {
        let others = promised_to(snapshot, pod, node);
        for other in &others {
            snapshot.put_on(*other, node);
        }
        let refusal = self.check_as_it_is(snapshot, pod, node);
        for other in &others {
            snapshot.take_off(*other);
        }
        if refusal.is_some() || others.is_empty() {
            return refusal;
        }
        self.check_as_it_is(snapshot, pod, node)
    }

    /// What this node says with the pods that are on it.
    pub(super) fn check_as_it_is(
        &self,
        snapshot: &Snapshot,
        pod: &Candidate,
        node: NodeId,
    ) -> Option<Refusal> {
        let view = snapshot.view(node)?;
        let local = local::refuse(&pod.row.demand.local, self.profile(pod), view);
        let needs = pod.needs.as_ref();
        let volumes = || needs.and_then(|needs| self.volumes.refuse(needs, node, snapshot));
        local.or_else(volumes).or_else(|| {
            let checks = self.compiled(pod).checks(snapshot.index());
            checks.conflict(node).map(Conflict::refusal)
        })
    }

    /// Pods for which room is being made may forbid the pod, or take its room. The node's own part of that
    /// is in its answer; the rest is asked only of the node that would be taken.
    fn refused_beside_nominated(
        &self,
        snapshot: &mut Snapshot,
        pod: &Candidate,
        node: NodeId,
    ) -> Option<Refusal> {
        if promised_to(snapshot, pod, node).is_empty() {
            return None;
        }
        self.check(snapshot, pod, node)
    }

    /// The place in `feasible` of the node with the highest sum of scores.
    fn best(&self, snapshot: &Snapshot, pod: &Candidate, feasible: &[NodeId]) -> Option<usize> {
        if feasible.len() < 2 {
            return (!feasible.is_empty()).then_some(0);
        }
        let sums = self.rate(snapshot, pod, feasible);
        let own = draw(&pod.row.uid);
        let ranked = feasible.iter().zip(&sums).enumerate();
        let mut best: Option<(i64, u64, usize)> = None;
        for (at, (node, sum)) in ranked {
            if best.is_some_and(|(most, _, _)| *sum < most) {
                continue;
            }
            let draw = (own ^ snapshot.draw(*node)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if best.is_none_or(|(most, drawn, _)| (*sum, draw) > (most, drawn)) {
                best = Some((*sum, draw, at));
            }
        }
        best.map(|(_, _, at)| at)
    }

    /// The weighted sums of all scores, each brought to 0 to 100 over these nodes.
    fn rate(&self, snapshot: &Snapshot, pod: &Candidate, nodes: &[NodeId]) -> Vec<i64> {
        let row = self.answers.row(pod.answers);
        let (profile, compiled) = (self.profile(pod), self.compiled(pod));
        let weights = &profile.weights;
        let entries = || nodes.iter().map(|node| row.entries[*node]);
        let mut sums: Vec<i64> = entries().map(|entry| i64::from(entry.base)).collect();
        let mut add = |weight: i64, ratings: &mut dyn Iterator<Item = i64>| {
            sums.iter_mut()
                .zip(ratings)
                .for_each(|(sum, rating)| *sum += weight * rating);
        };
        let taints = entries()
            .map(|entry| i64::from(entry.taints))
            .max()
            .unwrap_or(0);
        if taints > 0 {
            let rated = entries().map(|entry| 100 - 100 * i64::from(entry.taints) / taints);
            add(weights.taints, &mut rated.into_iter());
        }
        let wishes = entries()
            .map(|entry| i64::from(entry.wish))
            .max()
            .unwrap_or(0);
        if wishes > 0 {
            let rated = entries().map(|entry| 100 * i64::from(entry.wish) / wishes);
            add(weights.node_affinity, &mut rated.into_iter());
        }
        if let Some((weight, rated)) = compiled.rate_spread(snapshot.index(), nodes) {
            add(weight, &mut rated.into_iter());
        }
        if let Some(rated) = compiled.rate_affinity(snapshot.index(), profile, nodes) {
            add(weights.pod_affinity, &mut rated.into_iter());
        }
        if let Some(said) = &pod.said {
            let name = |node: &NodeId| snapshot.node_name(*node);
            let rated = nodes
                .iter()
                .map(|node| said.nodes.get(name(node)).copied().unwrap_or(0));
            add(1, &mut rated.into_iter());
        }
        sums
    }

    /// The message of the event, and the bits of the plugins that refused.
    fn explain(&self, snapshot: &Snapshot, pod: &Candidate, filtered: &Filtered) -> (String, u32) {
        let total = snapshot.live_nodes();
        if total == 0 {
            return ("no nodes available to schedule pods".to_owned(), u32::MAX);
        }
        let row = self.answers.row(pod.answers);
        let local = row.refusals().iter().zip(&filtered.local[1..]);
        let local = local.map(|(refusal, count)| (refusal.clone(), *count));
        let conflicts = Conflict::ALL.iter().zip(&filtered.conflicts);
        let conflicts = conflicts.map(|(conflict, count)| (conflict.refusal(), *count));
        let other = filtered.other.iter().map(|refusal| (refusal.clone(), 1));
        let given = local
            .chain(conflicts)
            .chain(other)
            .filter(|(_, count)| *count > 0);
        let given: Vec<_> = given.collect();
        let by = given
            .iter()
            .fold(0, |by, (refusal, _)| by | refusal.plugin.bit());
        (message(total, &given), by)
    }
}

/// The pods at least as important for which room is being made on the node, without the pod itself.
fn promised_to(snapshot: &Snapshot, pod: &Candidate, node: NodeId) -> Vec<PodId> {
    let nominated = snapshot.nominated_on(node).filter(|other| *other != pod.id);
    let important = nominated.filter(|other| {
        let row = snapshot.row(*other);
        row.is_some_and(|row| row.priority() >= pod.row.priority())
    });
    important.collect()
}

/// `0/3 nodes are available: 1 …, 2 ….`
pub(super) fn message(total: usize, given: &[(Refusal, usize)]) -> String {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (refusal, count) in given {
        for text in &refusal.texts {
            *reasons.entry(text).or_insert(0) += count;
        }
    }
    let texts = reasons
        .into_iter()
        .map(|(text, count)| format!("{count} {text}"));
    let mut texts: Vec<String> = texts.collect();
    texts.sort();
    if texts.is_empty() {
        return format!("0/{total} nodes are available:");
    }
    format!("0/{total} nodes are available: {}.", texts.join(", "))
}

#[cfg(test)]
mod tests;
