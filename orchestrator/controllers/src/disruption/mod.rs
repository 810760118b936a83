//! PodDisruptionBudgets: how many of their pods are healthy, and how many may be evicted. Pure.
//!
//! The status is written only over the one that was read: an eviction that takes one from it meanwhile makes the
//! plan anew, so that nothing is given twice.

mod scale;
mod stale;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::action::{Action, Ask, Plan, Reply};
use crate::controller::{Controller, Due, Watches};
use crate::object::{Body, Object, PodRow};
use crate::world::{Address, Diff, World};
use client::Kind;
use scale::Scales;
pub use stale::announced;

/// Keeps the status of budgets, and takes back what was said of pods that were not ended. Its work is about a budget
/// or a pod.
#[derive(Default)]
pub struct DisruptionController {
    /// How many pods those want of which no row says it, by uid.
    scales: Scales,
}

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        "disruption budgets"
    }

    fn account(&self) -> &'static str {
        "disruption-controller"
    }

    /// Pods may be controlled by objects of any kind.
    fn watches(&self) -> Watches {
        Watches::All
    }

    fn hear(&mut self, diff: &Diff, _now: Timestamp) {
        if scale::has_changed(diff) {
            self.scales.remove(&diff.object().meta.uid);
        }
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        match object.kind {
            Kind::DISRUPTION_BUDGET => drop(due.insert((object.kind, object.key.clone()))),
            Kind::POD => {
                for pod in diff.versions() {
                    due.extend(world.selecting(pod));
                }
                due.retain(|(kind, _)| *kind == Kind::DISRUPTION_BUDGET);
                let new = diff.new.as_deref().and_then(Object::as_pod);
                if new.is_some_and(|row| row.disrupted.is_some()) {
                    due.insert((object.kind, object.key.clone()));
                }
                return;
            }
            _ if scale::has_changed(diff) => {
                let own = world.dependents(&object.meta.uid);
                for dependent in own {
                    let below = world.dependents(&dependent.meta.uid);
                    let pods = below.chain([dependent]).filter(|it| it.kind == Kind::POD);
                    pods.for_each(|pod| due.extend(world.selecting(pod)));
                }
            }
            _ => {}
        }
        due.retain(|(kind, _)| *kind == Kind::DISRUPTION_BUDGET);
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, now: Timestamp) -> Option<Plan> {
        if *kind == Kind::POD {
            return stale::plan(world.get(*kind, key)?, now);
        }
        let budget = world.get(*kind, key)?;
        let typed = budget.as_budget()?;
        let pods: Vec<_> = world
            .selected(*kind, key)
            .filter_map(|pod| Some((pod.as_ref(), pod.as_pod()?)))
            .collect();
        let count = match scale::needs_it(typed) {
            true => scale::expected(world, &pods, &self.scales, now),
            false => scale::Count::Known {
                pods: pods.len() as u64,
                unmanaged: false,
            },
        };
        if let scale::Count::Unknown(paths) = count {
            let ask = |path: String| Action::Ask(Ask { path });
            return Some(Plan {
                actions: paths.into_iter().map(ask).collect(),
                again: None,
            });
        }
        let view = View {
            budget,
            typed,
            pods,
            count,
            now,
        };
        Some(status::plan(&view))
    }

    fn told(&mut self, _about: &Address, ask: &Ask, reply: &Reply, now: Timestamp) {
        self.scales.take_in(ask, reply, now);
    }
}

/// What a plan for one budget is made from.
pub struct View<'a> {
    pub budget: &'a Object,
    pub typed: &'a PodDisruptionBudget,
    pub pods: Vec<(&'a Object, &'a PodRow)>,
    pub count: scale::Count,
    pub now: Timestamp,
}

/// A pod that was evicted and is not gone after this counts again.
pub const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

impl From<PodDisruptionBudget> for Object {
    fn from(mut budget: PodDisruptionBudget) -> Self {
        let metadata = crate::object::slim(&mut budget.metadata);
        let body = Body::Budget(Arc::new(budget));
        Self::new(Kind::DISRUPTION_BUDGET, metadata, body)
    }
}

/// Times by the name of a pod.
type Noted = BTreeMap<String, Timestamp>;

impl Object {
    pub fn as_budget(&self) -> Option<&Arc<PodDisruptionBudget>> {
        match &self.body {
            Body::Budget(row) => Some(row),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
