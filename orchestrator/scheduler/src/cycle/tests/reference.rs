//! The filters once more, as plainly as they can be said, over lists instead of indexes: whatever happens
//! to nodes and pods, the indexed answers are the same.

use proptest::prelude::*;

use super::affinity::labelled;
use super::*;
use crate::demand::{Demand, Spread, Term};

/// What is placed where.
#[derive(Default)]
struct Plain {
    nodes: BTreeMap<String, NodeRow>,
    /// Pods that have a node.
    pods: BTreeMap<String, PodRow>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl Plain {
    fn selects(&self, term: &Term, pod: &PodRow) -> bool {
        let labels = self.namespaces.get(&pod.key.0);
        term.selector.matches(&pod.demand.labels) && term.scope.holds(&pod.key.0, labels)
    }

    /// The value of a label of the node that the pod is on.
    fn value_of(&self, pod: &PodRow, key: &str) -> Option<&String> {
        self.nodes.get(&pod.node)?.labels.get(key)
    }

    fn refuses(&self, pod: &PodRow, node: &NodeRow) -> bool {
        let demand = &pod.demand;
        self.lacks(demand, node)
            || !demand.local.nodes.admits(&node.name, &node.labels)
            || (node.unschedulable)
            || crate::plugins::taints::untolerated(&demand.local.tolerations, node).is_some()
            || demand
                .spread
                .iter()
                .filter(|it| it.hard)
                .any(|it| self.unbalances(demand, it, node))
            || !self.near(pod, node)
            || demand.far.iter().any(|term| self.meets(term, pod, node))
            || self.is_forbidden(pod, node)
    }

    fn lacks(&self, demand: &Demand, node: &NodeRow) -> bool {
        let on_it = || self.pods.values().filter(|pod| pod.node == node.name);
        let cpu: i64 = on_it().map(|pod| pod.demand.local.requests.cpu).sum();
        let wanted = demand.local.requests.cpu;
        let taken = |port| on_it().any(|pod| pod.demand.local.ports.contains(port));
        on_it().count() as i64 >= node.max_pods
            || (wanted > 0 && cpu + wanted > node.allocatable.cpu)
            || demand.local.ports.iter().any(taken)
    }

    fn meets(&self, term: &Term, _: &PodRow, node: &NodeRow) -> bool {
        let Some(own) = node.labels.get(&term.topology_key) else {
            return false;
        };
        self.pods.values().any(|other| {
            self.selects(term, other) && self.value_of(other, &term.topology_key) == Some(own)
        })
    }

    fn near(&self, pod: &PodRow, node: &NodeRow) -> bool {
        let terms = &pod.demand.near;
        let all = |other: &PodRow| terms.iter().all(|term| self.selects(term, other));
        let held = |term: &Term| {
            let own = node.labels.get(&term.topology_key);
            let mut others = self.pods.values().filter(|other| all(other));
            own.is_some() && others.any(|it| self.value_of(it, &term.topology_key) == own)
        };
        let labelled = terms
            .iter()
            .all(|term| node.labels.contains_key(&term.topology_key));
        let anywhere = self.pods.values().filter(|other| all(other)).any(|other| {
            terms
                .iter()
                .any(|term| self.value_of(other, &term.topology_key).is_some())
        });
        terms.iter().all(held) || (labelled && !anywhere && all(pod))
    }

    fn is_forbidden(&self, pod: &PodRow, node: &NodeRow) -> bool {
        self.pods.values().any(|other| {
            other.demand.far.iter().any(|term| {
                let own = node.labels.get(&term.topology_key);
                own.is_some()
                    && self.selects(term, pod)
                    && self.value_of(other, &term.topology_key) == own
            })
        })
    }

    fn unbalances(&self, demand: &Demand, spread: &Spread, node: &NodeRow) -> bool {
        let Some(own) = node.labels.get(&spread.topology_key) else {
            return true;
        };
        let keys: Vec<&String> = demand
            .spread
            .iter()
            .filter(|it| it.hard)
            .map(|it| &it.topology_key)
            .collect();
        let counted = |node: &NodeRow| {
            keys.iter().all(|key| node.labels.contains_key(*key))
                && (!spread.honors_affinity || demand.local.nodes.admits(&node.name, &node.labels))
                && (!spread.honors_taints
                    || crate::plugins::taints::untolerated(&demand.local.tolerations, node)
                        .is_none())
        };
        let mut counts: BTreeMap<&String, i64> = BTreeMap::new();
        for node in self.nodes.values().filter(|node| counted(node)) {
            let count = counts
                .entry(&node.labels[&spread.topology_key])
                .or_insert(0);
            let on_it = self.pods.values().filter(|pod| pod.node == node.name);
            let selected = on_it.filter(|pod| {
                pod.key.0 == demand.namespace
                    && !pod.terminating
                    && spread.selector.matches(&pod.demand.labels)
            });
            *count += selected.count() as i64;
        }
        let few = (counts.len() as i64) < spread.min_domains;
        let least = if few {
            0
        } else {
            counts.values().copied().min().unwrap_or(0)
        };
        let itself = i64::from(spread.selector.matches(&demand.labels));
        let count = counts.get(own).copied().unwrap_or(0);
        count + itself - least > spread.max_skew
    }
}

/// Templates that have all there is in filters, in few variants, so that they meet.
fn spec(which: usize) -> Value {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let term = |key: &str, labels: Value| json!({"topologyKey": key, "labelSelector": {"matchLabels": labels}});
    let spread = |more: Value| {
        let mut it = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "a"}}});
        for (field, value) in more.as_object().unwrap() {
            it[field] = value.clone();
        }
        json!({"topologySpreadConstraints": [it]})
    };
    let mut all = term("zone", json!({"app": "b"}));
    all["namespaceSelector"] = json!({"matchLabels": {"team": "x"}});
    let specs = [
        json!({}),
        json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "700m"}}}]}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
        json!({"affinity": {"podAffinity": {REQUIRED: [term("zone", json!({"app": "a"}))]}}}),
        json!({"affinity": {"podAntiAffinity": {REQUIRED: [term("host", json!({"app": "a"}))]}}}),
        json!({"affinity": {"podAntiAffinity": {REQUIRED: [all]}}}),
        spread(json!({})),
        spread(json!({"minDomains": 3, "nodeTaintsPolicy": "Honor"})),
        json!({"nodeSelector": {"zone": "z1"}, "tolerations": [{"operator": "Exists"}]}),
    ];
    let mut spec = specs[which % specs.len()].clone();
    if which % 4 == 3 {
        spec["nodeSelector"] = json!({"zone": "z1"});
        spec["tolerations"] = json!([{"operator": "Exists"}]);
    }
    spec
}

fn some_pod(which: usize) -> PodRow {
    let app = ["a", "b"][which % 2];
    let mut row = labelled("p", json!({"app": app}), spec(which / 2));
    let namespace = ["ns", "other"][which % 3 % 2];
    let mut demand = (*row.demand).clone();
    for term in demand.far.iter_mut().chain(&mut demand.near) {
        for name in &mut term.scope.names {
            *name = namespace.to_owned();
        }
    }
    demand.namespace = namespace.to_owned();
    row.demand = Arc::new(demand);
    row.key.0 = namespace.to_owned();
    row
}

fn some_node(name: &str, which: usize) -> NodeRow {
    node(name, |node| {
        let mut labels = json!({"host": name});
        if which % 5 > 0 {
            labels["zone"] = json!(format!("z{}", which % 3));
        }
        node["metadata"]["labels"] = labels;
        if which % 7 == 6 {
            node["spec"]["taints"] = json!([{"key": "t", "effect": "NoSchedule"}]);
        }
        node["spec"]["unschedulable"] = json!(which % 11 == 10);
    })
}

proptest! {
    #[test]
    fn the_indexed_answers_are_the_plain_ones_whatever_changes(
        steps in proptest::collection::vec((0..10_u8, 0..6_usize, 0..120_usize), 1..70),
    ) {
        let (mut plain, mut snapshot, mut cycle) = (Plain::default(), Snapshot::default(), Cycle::default());
        for (turn, (what, place, which)) in steps.into_iter().enumerate() {
            let node_name = format!("n{}", place % 4);
            let name = format!("p{}", which % 14);
            match what {
                0 | 1 => {
                    let row = some_node(&node_name, which);
                    snapshot.upsert_node(row.clone());
                    plain.nodes.insert(node_name, row);
                }
                2 if which % 3 == 0 => {
                    snapshot.remove_node(&node_name);
                    plain.nodes.remove(&node_name);
                }
                3..=6 => {
                    let mut row = on(&node_name, some_pod(which));
                    row.key.1 = name.clone();
                    row.revision = turn as u64 + 1;
                    row.terminating = which % 9 == 8;
                    row.uid = format!("{}/{name}", row.key.0);
                    let key = format!("{}/{name}", row.key.0);
                    plain.pods.insert(key, row.clone());
                    snapshot.upsert_pod(row);
                }
                7 => {
                    let namespace = ["ns", "other"][which % 2];
                    snapshot.remove_pod(&(namespace.to_owned(), name.clone()));
                    plain.pods.remove(&format!("{namespace}/{name}"));
                }
                8 => {
                    let namespace = ["ns", "other"][which % 2];
                    let labels = BTreeMap::from([("team".to_owned(), ["x", "y"][which % 4 / 2].to_owned())]);
                    snapshot.index_mut().set_namespace(namespace, Some(labels.clone()));
                    plain.namespaces.insert(namespace.to_owned(), labels);
                }
                _ => {}
            }
            let mut asked = some_pod(which * 7 + place);
            asked.key.1 = "asked".to_owned();
            snapshot.upsert_pod(asked.clone());
            let id = snapshot.pod_id(&asked.key).unwrap();
            let candidate = cycle.prepare(&mut snapshot, id).unwrap();
            let filtered = cycle.filter(&snapshot, &candidate);
            for node in plain.nodes.values() {
                let id = snapshot.node_id(&node.name).unwrap();
                let plainly = plain.refuses(&asked, node) && !plain_tolerates(&asked, node, &plain);
                prop_assert_eq!(
                    !filtered.feasible.contains(&id), plainly,
                    "{} for {:?}", node.name, asked.demand
                );
                prop_assert_eq!(cycle.check(&mut snapshot, &candidate, id).is_some(), plainly);
            }
            snapshot.remove_pod(&asked.key);
        }
    }
}

/// A cordoned node takes a pod that tolerates everything; all else is as it is.
fn plain_tolerates(pod: &PodRow, node: &NodeRow, plain: &Plain) -> bool {
    let everything = pod
        .demand
        .local
        .tolerations
        .iter()
        .any(|it| it.key.is_empty());
    let open = NodeRow {
        unschedulable: false,
        ..node.clone()
    };
    node.unschedulable && everything && !plain.refuses(pod, &open)
}
