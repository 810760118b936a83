//! Claims of pods and the volumes behind them: where bound ones are, which volumes an unbound one may
//! have on a node, and what has to be written before the pod is bound. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::demand::NodeTerm;
use super::engine::StorageChange;
use super::hints::Event;
use super::index::NodeId;
use super::node::NodeRow;
use super::plugins::{Plugin, Refusal};
use super::pod::{PodKey, PodRow};
use super::snapshot::{PodId, Snapshot};
use api::quantity::Quantity;
use api::selector::LabelSelector;

pub mod objects;

/// All that is known of storage.
#[derive(Default)]
pub struct Volumes {
    pub claims: BTreeMap<PodKey, ClaimRow>,
    pub volumes: BTreeMap<String, VolumeRow>,
    pub classes: BTreeMap<String, ClassRow>,
    /// How many volumes of each CSI driver a node can have, by node.
    pub limits: BTreeMap<String, BTreeMap<String, i64>>,
    /// Volumes that were decided on for a claim, until the claim is seen bound.
    assumed: BTreeMap<String, PodKey>,
}

/// A PersistentVolumeClaim.
#[derive(Clone, PartialEq, Debug)]
pub struct ClaimRow {
    pub key: PodKey,
    pub uid: String,
    /// The uid of the pod that it was made for; empty for others.
    pub owner: String,
    pub terminating: bool,
    /// Its volume is gone for good.
    pub lost: bool,
    /// The volume that it names or has; empty for none.
    pub volume: String,
    pub bound: bool,
    pub class: String,
    pub modes: Vec<String>,
    pub volume_mode: String,
    pub size: Quantity,
    pub selector: LabelSelector,
    pub selected_node: String,
}

/// A PersistentVolume.
#[derive(Clone, PartialEq, Debug)]
pub struct VolumeRow {
    pub name: String,
    pub revision: String,
    /// The claim that it is for, with its uid; the uid is empty where only the name is said.
    pub claim: Option<(PodKey, String)>,
    pub available: bool,
    pub class: String,
    pub modes: Vec<String>,
    pub volume_mode: String,
    pub size: Quantity,
    pub labels: BTreeMap<String, String>,
    /// It can be used only from nodes that one of these matches.
    pub nodes: Option<Vec<NodeTerm>>,
    /// Its CSI driver and its handle there.
    pub csi: Option<(String, String)>,
}

/// A StorageClass.
#[derive(Clone, PartialEq, Debug)]
pub struct ClassRow {
    pub name: String,
    /// Claims are bound once a pod has a node.
    pub waits: bool,
    /// Volumes are made for claims.
    pub provisions: bool,
    /// Volumes can be made for nodes that one of these matches.
    pub nodes: Option<Vec<NodeTerm>>,
}

/// What a pod needs of storage, the same on every node.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Names of the volumes of bound claims.
    bound: Vec<String>,
    unbound: Vec<PodKey>,
    /// Claims for one pod only that another pod has.
    taken: bool,
}

/// What is written before the pod is bound.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    pub bind: Vec<Gift>,
    /// Claims for which volumes are made for the node.
    pub provision: Vec<PodKey>,
}

/// A volume that is given to a claim.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gift {
    pub volume: String,
    pub revision: String,
    pub claim: PodKey,
    pub claim_uid: String,
}

const EXCLUSIVE: &str = "ReadWriteOncePod";
/// Labels of volumes that say where they are; several values are joined by two underscores.
const ZONES: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

impl Volumes {
    /// Takes in a change; says what pods that wait may hope for.
    pub fn apply(&mut self, change: StorageChange) -> Event {
        match change {
            StorageChange::Claims(all) => {
                self.claims = all.into_iter().map(|it| (it.key.clone(), it)).collect();
                Event::Claims
            }
            StorageChange::Claim(it) => {
                self.claims.insert(it.key.clone(), it);
                Event::Claims
            }
            StorageChange::ClaimGone(key) => {
                self.claims.remove(&key);
                Event::Claims
            }
            StorageChange::Volumes(all) => {
                self.volumes = all.into_iter().map(|it| (it.name.clone(), it)).collect();
                Event::Volumes
            }
            StorageChange::Volume(it) => {
                self.volumes.insert(it.name.clone(), it);
                Event::Volumes
            }
            StorageChange::VolumeGone(name) => {
                self.volumes.remove(&name);
                Event::Volumes
            }
            StorageChange::Classes(all) => {
                self.classes = all.into_iter().map(|it| (it.name.clone(), it)).collect();
                Event::StorageClasses
            }
            StorageChange::Class(it) => {
                self.classes.insert(it.name.clone(), it);
                Event::StorageClasses
            }
            StorageChange::ClassGone(name) => {
                self.classes.remove(&name);
                Event::StorageClasses
            }
            StorageChange::AllLimits(all) => {
                self.limits = all;
                Event::VolumeLimits
            }
            StorageChange::Limits(node, limits) => {
                self.limits.insert(node, limits);
                Event::VolumeLimits
            }
            StorageChange::LimitsGone(node) => {
                self.limits.remove(&node);
                Event::VolumeLimits
            }
        }
    }

    /// What the pod needs, or why no node will do, in Kubernetes' words.
    pub fn needs(&self, pod: &PodRow, snapshot: &Snapshot) -> Result<Option<Needs>, String> {
        if pod.demand.claims.is_empty() {
            return Ok(None);
        }
        let mut needs = Needs::default();
        for reference in &pod.demand.claims {
            let name = &reference.name;
            let key = (pod.key.0.clone(), name.clone());
            let claim = match self.claims.get(&key) {
                Some(claim) => claim,
                None if reference.ephemeral => {
                    return Err(format!(
                        "waiting for ephemeral volume controller to create the \
                         persistentvolumeclaim \"{name}\""
                    ));
                }
                None => return Err(format!("persistentvolumeclaim \"{name}\" not found")),
            };
            if claim.terminating {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            if claim.lost {
                return Err(format!(
                    "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{}\"",
                    claim.volume
                ));
            }
            if reference.ephemeral && claim.owner != pod.uid {
                let (namespace, pod) = &pod.key;
                return Err(format!(
                    "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not \
                     owner)"
                ));
            }
            let exclusive = claim.modes.iter().any(|mode| mode == EXCLUSIVE);
            needs.taken |= exclusive && snapshot.uses_claim(&key);
            if claim.bound {
                needs.bound.push(claim.volume.clone());
            } else if self.waits(claim) && claim.volume.is_empty() {
                needs.unbound.push(key);
            } else {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
        }
        Ok(Some(needs))
    }

    /// Why the node will not do.
    pub fn refuse(&self, needs: &Needs, node: NodeId, snapshot: &Snapshot) -> Option<Refusal> {
        let row = snapshot.view(node)?.node;
        let refuse = |plugin, text, lasting| Some(Refusal::new(plugin, text, lasting));
        if needs.taken {
            let text = "node has pod using PersistentVolumeClaim with the same name and \
                        ReadWriteOncePod access mode";
            return refuse(Plugin::VolumeRestrictions, text, false);
        }
        if self.exceeds_limits(needs, node, snapshot) {
            let text = "node(s) exceed max volume count";
            return refuse(Plugin::NodeVolumeLimits, text, false);
        }
        for name in &needs.bound {
            let Some(volume) = self.volumes.get(name) else {
                let text =
                    "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
                return refuse(Plugin::VolumeBinding, text, true);
            };
            if !admits(volume.nodes.as_ref(), row) {
                let text = "node(s) had volume node affinity conflict";
                return refuse(Plugin::VolumeBinding, text, true);
            }
            if !in_zone(volume, row) {
                let text = "node(s) had no available volume zone";
                return refuse(Plugin::VolumeZone, text, true);
            }
        }
        if self.plan(needs, row).is_none() {
            let text = "node(s) didn't find available persistent volumes to bind";
            return refuse(Plugin::VolumeBinding, text, true);
        }
        None
    }

    /// What is to be written so that the pod has its volumes on the node; none if they cannot be had.
    pub fn plan(&self, needs: &Needs, node: &NodeRow) -> Option<Plan> {
        let mut plan = Plan::default();
        for key in &needs.unbound {
            let claim = self.claims.get(key)?;
            if !claim.selected_node.is_empty() {
                // It was decided before.
                if claim.selected_node != node.name {
                    return None;
                }
                plan.provision.push(key.clone());
                continue;
            }
            let chosen: BTreeSet<&String> = plan.bind.iter().map(|gift| &gift.volume).collect();
            let free = self
                .volumes
                .values()
                .filter(|it| !chosen.contains(&it.name));
            let fits =
                free.filter(|it| self.is_free_for(it, claim) && admits(it.nodes.as_ref(), node));
            // One that is meant for the claim, or else the smallest.
            let best = fits.min_by_key(|it| (it.claim.is_none(), it.size));
            if let Some(volume) = best {
                plan.bind.push(Gift {
                    volume: volume.name.clone(),
                    revision: volume.revision.clone(),
                    claim: key.clone(),
                    claim_uid: claim.uid.clone(),
                });
                continue;
            }
            let class = self.classes.get(&claim.class)?;
            if !class.provisions || !admits(class.nodes.as_ref(), node) {
                return None;
            }
            plan.provision.push(key.clone());
        }
        Some(plan)
    }

    /// The volumes of the plan are the claims' from now on.
    pub fn assume(&mut self, plan: &Plan) {
        for gift in &plan.bind {
            self.assumed.insert(gift.volume.clone(), gift.claim.clone());
        }
    }

    /// Nothing is decided for these claims any more.
    pub fn forget(&mut self, pod: &PodRow) {
        let namespace = &pod.key.0;
        let of_pod = |key: &PodKey| {
            key.0 == *namespace && pod.demand.claims.iter().any(|it| it.name == key.1)
        };
        self.assumed.retain(|_, claim| !of_pod(claim));
    }

    /// Whether all claims of the pod are bound.
    pub fn all_bound(&self, pod: &PodRow) -> bool {
        pod.demand.claims.iter().all(|it| {
            let claim = self.claims.get(&(pod.key.0.clone(), it.name.clone()));
            claim.is_some_and(|claim| claim.bound)
        })
    }

    /// Whether the claim is selected for the node; none if it is not there.
    pub fn is_selected(&self, claim: &PodKey, node: &str) -> Option<bool> {
        self.claims
            .get(claim)
            .map(|claim| claim.bound || claim.selected_node == node)
    }

    fn waits(&self, claim: &ClaimRow) -> bool {
        self.classes
            .get(&claim.class)
            .is_some_and(|class| class.waits)
    }

    fn is_free_for(&self, volume: &VolumeRow, claim: &ClaimRow) -> bool {
        let meant = volume
            .claim
            .as_ref()
            .map(|(key, uid)| *key == claim.key && (uid.is_empty() || *uid == claim.uid));
        let assumed = self
            .assumed
            .get(&volume.name)
            .is_some_and(|it| *it != claim.key);
        !assumed
            && (meant == Some(true) || meant.is_none() && volume.available)
            && volume.size >= claim.size
            && volume.class == claim.class
            && volume.volume_mode == claim.volume_mode
            && claim.modes.iter().all(|mode| volume.modes.contains(mode))
            && claim.selector.matches(&volume.labels)
    }

    fn exceeds_limits(&self, needs: &Needs, node: NodeId, snapshot: &Snapshot) -> bool {
        let Some(limits) = self.limits.get(snapshot.node_name(node)) else {
            return false;
        };
        let Some(view) = snapshot.view(node) else {
            return false;
        };
        let of_pod = |id: &PodId| {
            let row = snapshot.row(*id);
            let claims = row.into_iter().flat_map(|row| {
                let names = row.demand.claims.iter();
                names.map(|it| (row.key.0.clone(), it.name.clone()))
            });
            let claims = claims.filter_map(|key| self.claims.get(&key));
            claims.map(|claim| &claim.volume).collect::<Vec<_>>()
        };
        let held: BTreeSet<&(String, String)> = view
            .usage
            .pods
            .iter()
            .flat_map(of_pod)
            .filter_map(|name| self.volumes.get(name)?.csi.as_ref())
            .collect();
        let wanted = needs
            .bound
            .iter()
            .filter_map(|name| self.volumes.get(name)?.csi.as_ref());
        let mut new: BTreeMap<&String, i64> = BTreeMap::new();
        for csi in wanted.filter(|csi| !held.contains(csi)) {
            *new.entry(&csi.0).or_insert(0) += 1;
        }
        new.into_iter().any(|(driver, more)| {
            let has = held.iter().filter(|csi| csi.0 == *driver).count();
            let has = i64::try_from(has).unwrap_or(i64::MAX);
            limits.get(driver).is_some_and(|most| has + more > *most)
        })
    }
}

fn admits(terms: Option<&Vec<NodeTerm>>, node: &NodeRow) -> bool {
    terms.is_none_or(|terms| {
        terms
            .iter()
            .any(|term| term.matches(&node.name, &node.labels))
    })
}

fn in_zone(volume: &VolumeRow, node: &NodeRow) -> bool {
    ZONES.iter().all(|key| {
        let Some(values) = volume.labels.get(*key) else {
            return true;
        };
        let own = node.labels.get(*key);
        own.is_some_and(|own| values.split("__").any(|value| value == own))
    })
}

#[cfg(test)]
mod tests;
