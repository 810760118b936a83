//! HorizontalPodAutoscalers (autoscaling/v2): as many replicas as metrics ask for. Pure.
//!
//! ```text
//! every 15 s: read the scale ─▶ read each metric for its selector ─▶ proposals ─▶ windows, policies ─▶ scale, status
//!             └────── the shell reads what plans ask for ──────┘      └──────────── one plan ────────────┘
//! ```

mod behavior;
mod proposal;
mod round;
pub mod row;
mod samples;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use crate::action::{Action, Ask, Plan, Reply};
use crate::controller::{Controller, Due, Ending, Watches};
use crate::object::{Body, Key, Object};
use crate::world::{Address, Diff, World};
use behavior::History;
use client::Kind;

/// Between two rounds of an autoscaler.
const PERIOD: SignedDuration = SignedDuration::from_secs(15);

/// Scales what can be scaled. Its work is about an autoscaler.
#[derive(Default)]
pub struct AutoscalingController {
    memories: BTreeMap<Key, Memory>,
}

/// What is known of one autoscaler that no object carries.
#[derive(Default)]
pub struct Memory {
    history: History,
    /// What was read in this round, by path.
    read: BTreeMap<String, Reply>,
    /// When the next round begins.
    next: Option<Timestamp>,
    /// The change that is being written: from, to, and when.
    writing: Option<(i64, i64, Timestamp)>,
    /// Why the last change was refused: the number, its reason, and the error.
    refused: Option<String>,
}

impl Controller for AutoscalingController {
    fn name(&self) -> &'static str {
        "autoscalers"
    }

    fn account(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::AUTOSCALER])
    }

    fn hear(&mut self, diff: &Diff, _now: Timestamp) {
        if diff.new.is_none() {
            self.memories.remove(&diff.object().key);
        }
    }

    fn due(&self, _world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        due.insert((object.kind, object.key.clone()));
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, now: Timestamp) -> Option<Plan> {
        let object = world.get(*kind, key)?;
        let typed = object.as_autoscaler()?;
        let memory = self.memories.entry(key.clone()).or_default();
        if let Some(wait) = memory.next.map(|next| now.duration_until(next))
            && wait > SignedDuration::ZERO
        {
            return Some(Plan {
                actions: Vec::new(),
                again: Some(wait),
            });
        }
        let view = round::View {
            object,
            spec: typed.spec.as_ref()?,
            old: typed.status.clone().unwrap_or_default(),
            world,
            now,
        };
        let plan = match round::missing(&view, &memory.read) {
            missing if missing.is_empty() => {
                memory.next = Some(now + PERIOD);
                let read = std::mem::take(&mut memory.read);
                let actions = round::finish(&view, &read, memory);
                Plan {
                    actions,
                    again: Some(PERIOD),
                }
            }
            missing => Plan {
                actions: missing
                    .into_iter()
                    .map(|path| Action::Ask(Ask { path }))
                    .collect(),
                again: None,
            },
        };
        Some(plan)
    }

    fn told(&mut self, (_, key): &Address, ask: &Ask, reply: &Reply, _now: Timestamp) {
        if let Some(memory) = self.memories.get_mut(key) {
            memory.read.insert(ask.path.clone(), reply.clone());
        }
    }

    fn ended(&mut self, (_, key): &Address, ending: &Ending) {
        let Some(memory) = self.memories.get_mut(key) else {
            return;
        };
        let Some((from, to, at)) = memory.writing.take() else {
            return;
        };
        match ending {
            Ending::Done => memory.history.note(from, to, at),
            // What is scaled has changed since it was read, be it only in its status: nothing was refused, and
            // the round is made anew at once.
            Ending::Failed { conflict: true, .. } => memory.next = None,
            Ending::Failed { message, .. } => memory.refused = Some(message.clone()),
        }
    }
}

impl From<HorizontalPodAutoscaler> for Object {
    fn from(mut autoscaler: HorizontalPodAutoscaler) -> Self {
        let metadata = crate::object::slim(&mut autoscaler.metadata);
        let body = Body::Autoscaler(Arc::new(autoscaler));
        Self::new(Kind::AUTOSCALER, metadata, body)
    }
}

impl Object {
    pub fn as_autoscaler(&self) -> Option<&Arc<HorizontalPodAutoscaler>> {
        match &self.body {
            Body::Autoscaler(row) => Some(row),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
