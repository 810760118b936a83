//! Counts of pods by topology, kept up to date pod by pod: how many of those that a selector selects are in
//! each zone, and where the holders of anti-affinity are. Pure.
//!
//! ```text
//! placed pod ─▶ Class (namespace, labels, owner) ─▶ Selections that select it ─▶ Counters: a count for each domain
//!          └──▶ its own terms ─▶ Holders: a count for each domain of the pods that hold the term
//! ```
//!
//! A domain is the set of nodes that share a value of a label; it is known by a number. What is counted is
//! told when the first decision needs it, and found again by its contents.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::demand::{Demand, NodeFilter, Scope, Term, Toleration};
use super::node::NodeRow;
use api::selector::LabelSelector;

/// A node's place in tables.
pub type NodeId = usize;
pub type ClassId = usize;
pub type CounterId = usize;
pub type HolderId = usize;
pub type TopologyId = usize;
type SelectionId = usize;
type EligibilityId = usize;

/// Stands for "this node has no such label".
pub const NO_DOMAIN: u32 = u32::MAX;

/// The tables.
#[derive(Default)]
pub struct Index {
    topologies: Table<String, Topology>,
    eligibilities: Table<Eligibility, Vec<bool>>,
    selections: Table<Selection, Selected>,
    counters: Table<(SelectionId, TopologyId, EligibilityId), Counter>,
    holders: Table<(Effect, Term), Holder>,
    classes: BTreeMap<Arc<ClassKey>, ClassId>,
    class_rows: Vec<Option<Class>>,
    free_classes: Vec<ClassId>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    nodes: Vec<Option<Arc<NodeRow>>>,
    /// Grows when counters and selections are forgotten: their numbers mean others then.
    epoch: u64,
    /// Grows with each new holder.
    news: u64,
}

/// Rows found by their key and by number.
struct Table<K, T> {
    ids: BTreeMap<K, usize>,
    rows: Vec<T>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self {
            ids: BTreeMap::new(),
            rows: Vec::new(),
        }
    }
}

/// The values of one label of nodes.
#[derive(Default)]
pub struct Topology {
    key: String,
    ids: BTreeMap<String, u32>,
    /// By node.
    pub of_node: Vec<u32>,
    nodes: Vec<u32>,
    free: Vec<u32>,
}

/// Which nodes a counter counts on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Eligibility {
    pub admitted_by: Option<NodeFilter>,
    pub tolerated_by: Option<Vec<Toleration>>,
    /// Labels that the node must have.
    pub keys: Vec<String>,
}

/// Which pods are counted: those for which all of this holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Selection {
    pub terms: Vec<(Scope, LabelSelector)>,
    /// The uid of their controller; empty for any.
    pub owner: String,
    pub skips_terminating: bool,
}

#[derive(Default)]
struct Selected {
    key: Selection,
    /// By node.
    pods: Vec<u32>,
    counters: Vec<CounterId>,
}

/// Pods of one selection in each domain.
#[derive(Default)]
pub struct Counter {
    selection: SelectionId,
    pub topology: TopologyId,
    eligibility: EligibilityId,
    /// By domain.
    pub counts: Vec<u32>,
    /// The nodes that are counted, by domain.
    pub nodes: Vec<u32>,
    /// Domains that have nodes.
    pub domains: i64,
    /// All that are counted.
    pub total: u64,
}

/// What a term of a placed pod does to others that it selects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Effect {
    /// They cannot be in its domain.
    Forbids,
    /// It wishes for them, or less than nothing.
    Wishes(i64),
    /// It needed them; a wish, how strong the profile says.
    Needs,
}

/// The placed pods that hold one term.
#[derive(Default)]
pub struct Holder {
    pub topology: TopologyId,
    on_node: BTreeMap<NodeId, u32>,
    /// By domain.
    pub counts: Vec<u32>,
    pub total: u64,
}

/// What decides by which selections a pod is selected.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ClassKey {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub terminating: bool,
}

struct Class {
    key: Arc<ClassKey>,
    selections: Vec<SelectionId>,
    on_node: BTreeMap<NodeId, u32>,
}

/// A placed pod, as the index remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    pub node: NodeId,
    class: ClassId,
    holders: Vec<HolderId>,
}

impl Index {
    /// A pod is on `node` from now on.
    pub fn place(&mut self, node: NodeId, demand: &Demand, terminating: bool) -> Placed {
        let class = self.class(demand, terminating);
        self.count(class, node, 1);
        let mut holders = Vec::new();
        let far = demand.far.iter().map(|term| (Effect::Forbids, term));
        let near = demand.near.iter().map(|term| (Effect::Needs, term));
        let wishes = demand.wishes.iter();
        let wishes = wishes.map(|(weight, term)| (Effect::Wishes(*weight), term));
        for (effect, term) in far.chain(near).chain(wishes) {
            let holder = self.holder(effect, term);
            self.hold(holder, node, 1);
            holders.push(holder);
        }
        Placed {
            node,
            class,
            holders,
        }
    }

    /// The pod is there no more.
    pub fn lift(&mut self, placed: &Placed) {
        self.count(placed.class, placed.node, -1);
        for holder in &placed.holders {
            self.hold(*holder, placed.node, -1);
        }
        let empty = self.class_rows[placed.class].as_ref();
        if empty.is_some_and(|class| class.on_node.is_empty())
            && let Some(class) = self.class_rows[placed.class].take()
        {
            self.classes.remove(&class.key);
            self.free_classes.push(placed.class);
        }
    }

    /// The node is as `row` says, or gone.
    pub fn set_node(&mut self, node: NodeId, row: Option<&Arc<NodeRow>>) {
        self.contribute(node, false);
        if self.nodes.len() <= node {
            self.nodes.resize_with(node + 1, || None);
        }
        self.nodes[node] = row.cloned();
        for topology in &mut self.topologies.rows {
            topology.set(node, row.map(Arc::as_ref));
        }
        for (key, id) in &self.eligibilities.ids {
            let bits = &mut self.eligibilities.rows[*id];
            grow(bits, node, false);
            bits[node] = row.is_some_and(|row| key.admits(row));
        }
        self.contribute(node, true);
    }

    /// The labels of a namespace; none for one that is gone. True if they are new.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) -> bool {
        if self.namespaces.get(name) == labels.as_ref() {
            return false;
        }
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        // It is rare: what is counted is counted anew when it is needed.
        self.forget();
        true
    }

    /// Forgets what is counted; numbers of counters that were given out are void. `Placed` stays true.
    pub fn forget(&mut self) {
        self.epoch += 1;
        self.eligibilities = Table::default();
        self.selections = Table::default();
        self.counters = Table::default();
        for class in self.class_rows.iter_mut().flatten() {
            class.selections.clear();
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many kinds of holders there have been.
    pub fn news(&self) -> u64 {
        self.news
    }

    /// How many selections are kept.
    pub fn selections(&self) -> usize {
        self.selections.rows.len()
    }

    pub fn namespace_names(&self) -> Vec<String> {
        self.namespaces.keys().cloned().collect()
    }

    pub fn counter_row(&self, id: CounterId) -> &Counter {
        &self.counters.rows[id]
    }

    pub fn holder_row(&self, id: HolderId) -> &Holder {
        &self.holders.rows[id]
    }

    pub fn topology_row(&self, id: TopologyId) -> &Topology {
        &self.topologies.rows[id]
    }

    /// Whether the selection selects a pod that is not terminating.
    pub fn selects(&self, selection: &Selection, demand: &Demand) -> bool {
        selection.selects(&ClassKey::of(demand, false), &self.namespaces)
    }

    /// The holders whose terms select a pod of this demand.
    pub fn holders_of(&self, demand: &Demand) -> Vec<(Effect, HolderId)> {
        let labels = self.namespaces.get(&demand.namespace);
        let all = self.holders.ids.iter();
        let selecting = all.filter(|((_, term), _)| {
            term.selector.matches(&demand.labels) && term.scope.holds(&demand.namespace, labels)
        });
        selecting.map(|((effect, _), id)| (*effect, *id)).collect()
    }

    /// The counter of `selection` by the label `key`.
    pub fn counter(&mut self, selection: &Selection, key: &str, on: &Eligibility) -> CounterId {
        let selection = self.selection(selection);
        let topology = self.topology(key);
        let eligibility = self.eligibility(on);
        let row_key = (selection, topology, eligibility);
        if let Some(id) = self.counters.ids.get(&row_key) {
            return *id;
        }
        let id = self.counters.rows.len();
        let mut counter = Counter {
            selection,
            topology,
            eligibility,
            ..Counter::default()
        };
        let domains = &self.topologies.rows[topology].of_node;
        let bits = &self.eligibilities.rows[eligibility];
        let pods = &self.selections.rows[selection].pods;
        for (node, domain) in domains.iter().enumerate() {
            if bits.get(node) == Some(&true) {
                counter.contribute(*domain, pods.get(node).copied().unwrap_or(0), true);
            }
        }
        self.counters.ids.insert(row_key, id);
        self.counters.rows.push(counter);
        self.selections.rows[selection].counters.push(id);
        id
    }

    fn topology(&mut self, key: &str) -> TopologyId {
        if let Some(id) = self.topologies.ids.get(key) {
            return *id;
        }
        let id = self.topologies.rows.len();
        let mut topology = Topology {
            key: key.to_owned(),
            ..Topology::default()
        };
        for (node, row) in self.nodes.iter().enumerate() {
            topology.set(node, row.as_deref());
        }
        self.topologies.rows.push(topology);
        self.topologies.ids.insert(key.to_owned(), id);
        id
    }

    fn eligibility(&mut self, key: &Eligibility) -> EligibilityId {
        if let Some(id) = self.eligibilities.ids.get(key) {
            return *id;
        }
        let id = self.eligibilities.rows.len();
        let nodes = self.nodes.iter();
        let bits = nodes.map(|row| row.as_ref().is_some_and(|row| key.admits(row)));
        self.eligibilities.rows.push(bits.collect());
        self.eligibilities.ids.insert(key.clone(), id);
        id
    }

    fn selection(&mut self, key: &Selection) -> SelectionId {
        if let Some(id) = self.selections.ids.get(key) {
            return *id;
        }
        let id = self.selections.rows.len();
        let mut selected = Selected {
            key: key.clone(),
            pods: vec![0; self.nodes.len()],
            counters: Vec::new(),
        };
        for class in self.class_rows.iter_mut().flatten() {
            if key.selects(&class.key, &self.namespaces) {
                class.selections.push(id);
                for (node, count) in &class.on_node {
                    grow(&mut selected.pods, *node, 0);
                    selected.pods[*node] += count;
                }
            }
        }
        self.selections.rows.push(selected);
        self.selections.ids.insert(key.clone(), id);
        id
    }

    fn holder(&mut self, effect: Effect, term: &Term) -> HolderId {
        let key = (effect, term.clone());
        if let Some(id) = self.holders.ids.get(&key) {
            return *id;
        }
        let id = self.holders.rows.len();
        let holder = Holder {
            topology: self.topology(&term.topology_key),
            ..Holder::default()
        };
        self.holders.rows.push(holder);
        self.holders.ids.insert(key, id);
        self.news += 1;
        id
    }

    fn class(&mut self, demand: &Demand, terminating: bool) -> ClassId {
        let key = ClassKey::of(demand, terminating);
        if let Some(id) = self.classes.get(&key) {
            return *id;
        }
        let key = Arc::new(key);
        let selections = self.selections.rows.iter().enumerate();
        let selecting = selections.filter(|(_, it)| it.key.selects(&key, &self.namespaces));
        let class = Class {
            selections: selecting.map(|(id, _)| id).collect(),
            on_node: BTreeMap::new(),
            key: key.clone(),
        };
        let id = self.free_classes.pop().unwrap_or_else(|| {
            self.class_rows.push(None);
            self.class_rows.len() - 1
        });
        self.class_rows[id] = Some(class);
        self.classes.insert(key, id);
        id
    }

    fn count(&mut self, class: ClassId, node: NodeId, sign: i64) {
        let Some(class) = self.class_rows[class].as_mut() else {
            return;
        };
        step(&mut class.on_node, node, sign);
        for selection in &class.selections {
            let selected = &mut self.selections.rows[*selection];
            grow(&mut selected.pods, node, 0);
            selected.pods[node] = selected.pods[node].saturating_add_signed(sign as i32);
            for id in &selected.counters {
                let counter = &mut self.counters.rows[*id];
                let domain = self.topologies.rows[counter.topology].domain(node);
                let counted = self.eligibilities.rows[counter.eligibility].get(node);
                if domain != NO_DOMAIN && counted == Some(&true) {
                    counter.add(domain, sign);
                }
            }
        }
    }

    fn hold(&mut self, id: HolderId, node: NodeId, sign: i64) {
        let holder = &mut self.holders.rows[id];
        step(&mut holder.on_node, node, sign);
        let domain = self.topologies.rows[holder.topology].domain(node);
        holder.add(domain, sign);
    }

    /// Puts what is on `node` into all counts, or takes it out.
    fn contribute(&mut self, node: NodeId, put: bool) {
        for counter in &mut self.counters.rows {
            if self.eligibilities.rows[counter.eligibility].get(node) != Some(&true) {
                continue;
            }
            let domain = self.topologies.rows[counter.topology].domain(node);
            let pods = self.selections.rows[counter.selection].pods.get(node);
            counter.contribute(domain, pods.copied().unwrap_or(0), put);
        }
        for holder in &mut self.holders.rows {
            let Some(count) = holder.on_node.get(&node) else {
                continue;
            };
            let count = i64::from(*count);
            let domain = self.topologies.rows[holder.topology].domain(node);
            holder.add(domain, if put { count } else { -count });
        }
    }
}

impl ClassKey {
    fn of(demand: &Demand, terminating: bool) -> Self {
        Self {
            namespace: demand.namespace.clone(),
            labels: demand.labels.clone(),
            owner: demand.owner.clone(),
            terminating,
        }
    }
}

impl Selection {
    fn selects(
        &self,
        class: &ClassKey,
        namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> bool {
        let labels = namespaces.get(&class.namespace);
        !(self.skips_terminating && class.terminating)
            && (self.owner.is_empty() || self.owner == class.owner)
            && self.terms.iter().all(|(scope, selector)| {
                selector.matches(&class.labels) && scope.holds(&class.namespace, labels)
            })
    }
}

impl Eligibility {
    fn admits(&self, row: &NodeRow) -> bool {
        let filter = self.admitted_by.as_ref();
        let tolerations = self.tolerated_by.as_ref();
        self.keys.iter().all(|key| row.labels.contains_key(key))
            && filter.is_none_or(|it| it.admits(&row.name, &row.labels))
            && tolerations.is_none_or(|it| super::plugins::taints::untolerated(it, row).is_none())
    }
}

impl Topology {
    pub fn domain(&self, node: NodeId) -> u32 {
        self.of_node.get(node).copied().unwrap_or(NO_DOMAIN)
    }

    fn set(&mut self, node: NodeId, row: Option<&NodeRow>) {
        grow(&mut self.of_node, node, NO_DOMAIN);
        let value = row.and_then(|row| row.labels.get(&self.key));
        let old = self.of_node[node];
        let new = value.map_or(NO_DOMAIN, |value| self.number(value));
        self.of_node[node] = new;
        if new != NO_DOMAIN {
            self.nodes[new as usize] += 1;
        }
        if old != NO_DOMAIN {
            self.nodes[old as usize] -= 1;
            if self.nodes[old as usize] == 0 {
                self.ids.retain(|_, id| *id != old);
                self.free.push(old);
            }
        }
    }

    fn number(&mut self, value: &str) -> u32 {
        if let Some(id) = self.ids.get(value) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(0);
            u32::try_from(self.nodes.len() - 1).unwrap_or(NO_DOMAIN - 1)
        });
        self.ids.insert(value.to_owned(), id);
        id
    }
}

impl Counter {
    fn add(&mut self, domain: u32, difference: i64) {
        let domain = domain as usize;
        grow(&mut self.counts, domain, 0);
        self.counts[domain] = self.counts[domain].saturating_add_signed(difference as i32);
        self.total = self.total.saturating_add_signed(difference);
    }

    /// A node with `pods` is counted in its domain, or no more.
    fn contribute(&mut self, domain: u32, pods: u32, put: bool) {
        if domain == NO_DOMAIN {
            return;
        }
        let sign = if put { 1 } else { -1 };
        self.add(domain, sign * i64::from(pods));
        let domain = domain as usize;
        grow(&mut self.nodes, domain, 0);
        let before = self.nodes[domain];
        self.nodes[domain] = before.saturating_add_signed(sign as i32);
        self.domains += i64::from(self.nodes[domain] > 0) - i64::from(before > 0);
    }

    /// The fewest pods that a domain with nodes has.
    pub fn least(&self) -> i64 {
        let domains = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, nodes)| **nodes > 0);
        let counts = domains.map(|(domain, _)| self.counts.get(domain).copied().unwrap_or(0));
        counts.min().map_or(0, i64::from)
    }

    /// The pods in a domain; none where there is no such label.
    pub fn in_domain(&self, domain: u32) -> i64 {
        self.counts
            .get(domain as usize)
            .copied()
            .map_or(0, i64::from)
    }
}

impl Holder {
    fn add(&mut self, domain: u32, difference: i64) {
        if domain == NO_DOMAIN {
            return;
        }
        let domain = domain as usize;
        grow(&mut self.counts, domain, 0);
        self.counts[domain] = self.counts[domain].saturating_add_signed(difference as i32);
        self.total = self.total.saturating_add_signed(difference);
    }

    pub fn in_domain(&self, domain: u32) -> i64 {
        self.counts
            .get(domain as usize)
            .copied()
            .map_or(0, i64::from)
    }
}

fn grow<T: Clone>(list: &mut Vec<T>, index: usize, with: T) {
    if list.len() <= index {
        list.resize(index + 1, with);
    }
}

fn step(counts: &mut BTreeMap<NodeId, u32>, node: NodeId, sign: i64) {
    let count = counts.entry(node).or_insert(0);
    *count = count.saturating_add_signed(sign as i32);
    if *count == 0 {
        counts.remove(&node);
    }
}
