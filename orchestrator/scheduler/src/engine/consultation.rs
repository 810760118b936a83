//! Pods about which extenders are asked: what was heard, and what is done with it. While it is asked about, a pod is
//! in no queue. Pure.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::{Engine, Explanation, Order};
use crate::extender::{Heard, Said};
use crate::pod::{PodKey, PodRow};
use crate::preempt::Preemption;
use crate::snapshot::PodId;

/// So many nodes are offered for preemption in one round, at most.
const OFFERS: usize = 16;

/// What is known of consultations.
#[derive(Default)]
pub struct Consultations {
    heard: BTreeMap<PodKey, (String, Heard)>,
    proposals: BTreeMap<PodKey, Proposal>,
    /// What came of answers, to be told.
    pub told: VecDeque<Explanation>,
}

/// Pods that were chosen to be stopped, if extenders agree.
pub struct Proposal {
    pub uid: String,
    pub message: String,
    pub by: u32,
    pub preemption: Preemption,
}

impl Consultations {
    pub fn heard(&self, key: &PodKey, uid: &str) -> Option<&Heard> {
        let heard = self.heard.get(key).filter(|(own, _)| own == uid);
        heard.map(|(_, heard)| heard)
    }

    /// A decision was made: the next one hears anew.
    pub fn end(&mut self, key: &PodKey) {
        self.heard.remove(key);
        self.proposals.remove(key);
    }

    pub fn propose(&mut self, key: PodKey, proposal: Proposal) {
        self.proposals.insert(key, proposal);
    }
}

impl Engine {
    /// The order by which extenders are asked whether these pods may be stopped; none of them wants to know.
    pub(super) fn ask_before(
        &self,
        key: &PodKey,
        uid: &str,
        preemption: &Preemption,
    ) -> Option<Order> {
        let row = self.snapshot.pod(key)?;
        if !self.cycle.asks(row, |it| !it.preempt.is_empty()) {
            return None;
        }
        let ids = preemption.victims.iter();
        let rows: Vec<&PodRow> = ids.filter_map(|id| self.snapshot.row(*id)).collect();
        let victims = rows.iter().map(|row| (row.key.clone(), row.uid.clone()));
        Some(Order::ConsultPreemption {
            key: key.clone(),
            uid: uid.to_owned(),
            node: self.snapshot.node_name(preemption.node).to_owned(),
            victims: victims.collect(),
            violations: self.cycle.budgets.violations(&rows),
        })
    }

    /// Takes in what extenders say of the nodes for a pod, or why they could not be asked.
    pub fn consulted(
        &mut self,
        key: &PodKey,
        uid: &str,
        outcome: Result<Said, String>,
        now: Timestamp,
    ) {
        if !self.is_asked_about(key, uid) {
            return;
        }
        match outcome {
            Ok(said) => {
                let heard = Heard {
                    said: Some(said),
                    ..Heard::default()
                };
                let heard = (uid.to_owned(), heard);
                self.consultations.heard.insert(key.clone(), heard);
                self.queue.again(key);
            }
            Err(why) => self.not_asked(key, why, now),
        }
    }

    /// Takes in which pods may be stopped, by their uids; none: not on that node.
    pub fn agreed(
        &mut self,
        key: &PodKey,
        uid: &str,
        outcome: Result<Option<Vec<String>>, String>,
        now: Timestamp,
    ) {
        let proposal = self.consultations.proposals.remove(key);
        let Some(proposal) = proposal.filter(|it| it.uid == uid && self.is_asked_about(key, uid))
        else {
            return;
        };
        let victims = match outcome {
            Err(why) => return self.not_asked(key, why, now),
            Ok(agreed) => agreed.map(|uids| self.on_node(&proposal, &uids)),
        };
        let victims = victims.filter(|victims| !victims.is_empty());
        let (by, message) = (proposal.by, proposal.message);
        let Some(victims) = victims else {
            let node = self.snapshot.node_name(proposal.preemption.node).to_owned();
            let unheard = || (uid.to_owned(), Heard::default());
            let (_, heard) = self
                .consultations
                .heard
                .entry(key.clone())
                .or_insert_with(unheard);
            heard.spared.insert(node);
            if heard.spared.len() < OFFERS {
                return self.queue.again(key);
            }
            self.consultations.end(key);
            self.refused(key, by, now);
            let explanation = self.explain(key.clone(), message, None, false, now);
            return self.consultations.told.push_back(explanation);
        };
        let preemption = Preemption {
            victims,
            ..proposal.preemption
        };
        self.consultations.end(key);
        self.refused(key, by, now);
        let explanation = self.explain(key.clone(), message, Some(preemption), true, now);
        self.consultations.told.push_back(explanation);
    }

    /// Those of the pods that are on the node of the proposal and less important.
    fn on_node(&self, proposal: &Proposal, uids: &[String]) -> Vec<PodId> {
        let ids = proposal.preemption.victims.iter().copied();
        let is_named = |id: &PodId| {
            let row = self.snapshot.row(*id);
            row.is_some_and(|row| uids.contains(&row.uid))
        };
        ids.filter(is_named).collect()
    }

    fn is_asked_about(&self, key: &PodKey, uid: &str) -> bool {
        let row = self.snapshot.pod(key).filter(|row| row.uid == uid);
        row.is_some() && self.snapshot.is_waiting(key)
    }

    /// The pod is decided about again after its pause.
    fn not_asked(&mut self, key: &PodKey, why: String, now: Timestamp) {
        self.consultations.end(key);
        self.queue.failed(key, now);
        let explanation = self.explain(key.clone(), why, None, true, now);
        self.consultations.told.push_back(Explanation {
            is_error: true,
            ..explanation
        });
    }
}

#[cfg(test)]
#[path = "consultation_tests.rs"]
mod tests;
