//! What each node says to a demand by itself, remembered: a decision looks again only at the nodes that
//! changed since the last decision for such a demand. Pure.

use std::collections::BTreeMap;

use super::demand::Local;
use super::index::NodeId;
use super::plugins::{FILTERS, Refusal, image_locality, node_affinity, resources_fit, taints};
use super::profile::Profile;
use super::snapshot::{NodeView, Snapshot};

/// The answers of all nodes to the demands that were asked lately.
#[derive(Default)]
pub struct Answers {
    ids: BTreeMap<(usize, Local), usize>,
    rows: Vec<Row>,
}

/// The answers to one demand.
pub struct Row {
    pub demand: Local,
    /// By node.
    pub entries: Vec<Entry>,
    generations: Vec<u64>,
    /// Up to where in the log of the snapshot this is true.
    position: Option<u64>,
    refusals: Vec<Refusal>,
    refusal_ids: BTreeMap<Refusal, u16>,
    /// What stopping others would take, by node; kept for `preempt`.
    pub trials: Vec<Option<super::preempt::Trial>>,
}

/// One node's answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// 0: it will do; `ABSENT`; or one more than a refusal's number.
    pub verdict: u16,
    /// Taints that discourage.
    pub taints: u16,
    /// Weights of preferences met.
    pub wish: i32,
    /// Scores that need no other node, with their weights.
    pub base: i32,
}

/// There is no such node.
pub const ABSENT: u16 = u16::MAX;
/// Demands whose answers are remembered.
const REMEMBERED: usize = 128;
/// Refusals of one demand that are told apart.
const REFUSALS: usize = 10_000;

impl Answers {
    /// The number of the demand's row, up to date.
    pub fn refresh(
        &mut self,
        demand: &Local,
        profile: (usize, &Profile),
        snapshot: &Snapshot,
    ) -> usize {
        let key = (profile.0, demand.clone());
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                if self.rows.len() >= REMEMBERED {
                    self.ids.clear();
                    self.rows.clear();
                }
                self.rows.push(Row::new(demand.clone()));
                self.ids.insert(key, self.rows.len() - 1);
                self.rows.len() - 1
            }
        };
        self.rows[id].refresh(profile.1, snapshot);
        id
    }

    pub fn row(&self, id: usize) -> &Row {
        &self.rows[id]
    }

    pub fn row_mut(&mut self, id: usize) -> &mut Row {
        &mut self.rows[id]
    }
}

impl Row {
    fn new(demand: Local) -> Self {
        Self {
            demand,
            entries: Vec::new(),
            generations: Vec::new(),
            position: None,
            refusals: Vec::new(),
            refusal_ids: BTreeMap::new(),
            trials: Vec::new(),
        }
    }

    pub fn refusal(&self, verdict: u16) -> Option<&Refusal> {
        self.refusals.get(usize::from(verdict).checked_sub(1)?)
    }

    /// Whether the node would do with fewer pods on it.
    pub fn may_help(&self, node: NodeId) -> bool {
        let refusal = self.refusal(self.entries[node].verdict);
        refusal.is_some_and(|refusal| !refusal.lasting)
    }

    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    fn refresh(&mut self, profile: &Profile, snapshot: &Snapshot) {
        if self.refusals.len() > REFUSALS {
            *self = Self::new(std::mem::take(&mut self.demand));
        }
        let absent = Entry {
            verdict: ABSENT,
            ..Entry::default()
        };
        self.entries.resize(snapshot.width(), absent);
        self.generations.resize(snapshot.width(), u64::MAX);
        self.trials.resize(snapshot.width(), None);
        let changed = self
            .position
            .and_then(|position| snapshot.changed_since(position));
        match changed {
            Some(changed) => {
                for node in changed {
                    self.ask(*node, profile, snapshot);
                }
            }
            None => {
                for node in 0..snapshot.width() {
                    self.ask(node, profile, snapshot);
                }
            }
        }
        self.position = Some(snapshot.position());
    }

    fn ask(&mut self, node: NodeId, profile: &Profile, snapshot: &Snapshot) {
        let generation = snapshot.generation(node);
        if self.generations[node] == generation {
            return;
        }
        self.generations[node] = generation;
        self.trials[node] = None;
        let Some(view) = snapshot.view(node) else {
            self.entries[node].verdict = ABSENT;
            return;
        };
        let promised = snapshot.promised(node, self.demand.priority);
        let usage = promised.as_ref().unwrap_or(view.usage);
        let refusal = refuse(&self.demand, profile, NodeView { usage, ..view });
        self.entries[node] = match refusal {
            Some(refusal) => Entry {
                verdict: self.number(refusal),
                ..Entry::default()
            },
            None => rate(&self.demand, profile, view, snapshot),
        };
    }

    fn number(&mut self, refusal: Refusal) -> u16 {
        if let Some(id) = self.refusal_ids.get(&refusal) {
            return *id;
        }
        self.refusals.push(refusal.clone());
        let id = u16::try_from(self.refusals.len()).unwrap_or(ABSENT - 1);
        self.refusal_ids.insert(refusal, id);
        id
    }
}

/// Why the node will not do, by itself. What the profile does not count is not asked of it.
pub fn refuse(demand: &Local, profile: &Profile, view: NodeView) -> Option<Refusal> {
    let asked = &demand.requests.other;
    if asked.keys().any(|name| profile.uncounted.has(name)) {
        let mut counted = demand.clone();
        let other = &mut counted.requests.other;
        other.retain(|name, _| !profile.uncounted.has(name));
        return refuse(&counted, profile, view);
    }
    let on = FILTERS
        .iter()
        .filter(|(plugin, _)| profile.filters(*plugin));
    on.into_iter().find_map(|(_, filter)| filter(demand, view))
}

fn rate(demand: &Local, profile: &Profile, view: NodeView, snapshot: &Snapshot) -> Entry {
    let weights = &profile.weights;
    let mut base = 0;
    if weights.fit > 0 {
        base += weights.fit * resources_fit::score(demand, view, &profile.fit);
    }
    if weights.balanced > 0 {
        base += weights.balanced * resources_fit::balanced(demand, view, &profile.balanced);
    }
    if weights.images > 0 && !demand.images.is_empty() && !view.node.images.is_empty() {
        base += weights.images * image_locality::score(demand, view, snapshot);
    }
    Entry {
        verdict: 0,
        taints: u16::try_from(taints::score(demand, view.node)).unwrap_or(u16::MAX),
        wish: i32::try_from(node_affinity::score(demand, view.node)).unwrap_or(i32::MAX),
        base: i32::try_from(base).unwrap_or(i32::MAX),
    }
}
