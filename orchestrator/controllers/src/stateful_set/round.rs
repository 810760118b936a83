//! One round over a StatefulSet's pods. Pure.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::row::{Rolling, StatefulStatus};
use super::{Member, View, claims, pods};
use crate::action::Action;
use crate::object::Phase;
use crate::replication::available_at;
use crate::revisions::RevisionRef;

/// Pods made by one plan, at most.
pub const BURST: usize = 500;

/// What a round asks for.
pub struct Round<'a> {
    view: &'a View<'a>,
    update: RevisionRef<'a>,
    current: RevisionRef<'a>,
    actions: Vec<Action>,
    /// Claims are there before the pods that use them; events are told after the writes.
    claims: Vec<Action>,
    pods: Vec<Action>,
    told: Vec<Action>,
    again: Option<SignedDuration>,
    /// Pods of the current revision that this round deletes to update them.
    leaving: i32,
}

impl<'a> Round<'a> {
    pub fn new(view: &'a View<'a>, update: RevisionRef<'a>, current: RevisionRef<'a>) -> Self {
        Self {
            view,
            update,
            current,
            actions: Vec::new(),
            claims: Vec::new(),
            pods: Vec::new(),
            told: Vec::new(),
            again: None,
            leaving: 0,
        }
    }

    /// Scaling comes before updating.
    pub fn go(&mut self) {
        if self.keep_all() || self.shrink() {
            return;
        }
        if let Some(rolling) = &self.view.row.rolling {
            match &rolling.max_unavailable {
                None => self.roll_one(rolling),
                Some(most) => self.roll_some(rolling, most),
            }
        }
    }

    /// The actions in their order, when to look again, and the status.
    pub fn end(mut self) -> (Vec<Action>, Option<SignedDuration>, StatefulStatus) {
        let status = self.status();
        let mut actions = self.actions;
        actions.extend(self.claims);
        actions.extend(self.pods);
        actions.extend(self.told);
        (actions, self.again, status)
    }

    /// Each ordinal has its pod, and each pod is as it should be. True: the round ends here.
    fn keep_all(&mut self) -> bool {
        let ordered = !self.view.row.parallel;
        for ordinal in self.view.row.ordinals() {
            let blocked = match self.view.members.get(&ordinal) {
                None => {
                    self.create(ordinal);
                    true
                }
                Some(member) => self.keep(ordinal, *member),
            };
            if (blocked && ordered) || self.pods.len() >= BURST {
                return true;
            }
        }
        false
    }

    fn create(&mut self, ordinal: i64) {
        if claims::waits_for_old(self.view, ordinal) {
            return;
        }
        self.claim(ordinal);
        let revision = match &self.view.row.rolling {
            Some(rolling) if self.keeps_revision(rolling, ordinal) => self.current,
            _ => self.update,
        };
        let [create, told] = pods::create(self.view, ordinal, revision);
        self.pods.push(create);
        self.told.push(told);
    }

    fn claim(&mut self, ordinal: i64) {
        for (create, told) in claims::missing(self.view, ordinal) {
            self.claims.push(create);
            self.told.push(told);
        }
    }

    fn keeps_revision(&self, rolling: &Rolling, ordinal: i64) -> bool {
        ordinal < self.first_updated(rolling)
    }

    /// The first ordinal that an update is for.
    fn first_updated(&self, rolling: &Rolling) -> i64 {
        self.view.row.start.saturating_add(rolling.partition)
    }

    /// Sees to a pod that is there. True: it is not available, which ends an ordered round.
    fn keep(&mut self, ordinal: i64, member: Member) -> bool {
        if member.row.finished() {
            self.replace_finished(member);
            return true;
        }
        if member.row.phase == Phase::Pending && !claims::waits_for_old(self.view, ordinal) {
            self.claim(ordinal);
        }
        if !self.view.row.parallel && !self.is_available(member) {
            self.replace_stuck(ordinal, member);
            return true;
        }
        self.actions.extend(pods::identify(member.pod, ordinal));
        let owners = claims::keep_owners(self.view, member.pod, ordinal);
        self.actions.extend(owners);
        false
    }

    /// A pod that has ended is deleted, however it ended; its successor comes when it is gone.
    fn replace_finished(&mut self, member: Member) {
        if member.pod.meta.deleting.is_some() {
            return;
        }
        let set = &self.view.object;
        let (uid, created) = (&set.meta.uid, member.pod.meta.created);
        let name = &member.pod.key.name;
        let failed = member.row.phase == Phase::Failed;
        let failures = self.view.failures.filter(|_| failed);
        let wait = failures.and_then(|it| it.wait(uid, name, created, self.view.now));
        if let Some(wait) = wait {
            return self.look_again(wait);
        }
        let (namespace, set_name) = (&set.key.namespace, &set.key.name);
        let told = if failed {
            let text =
                format!("StatefulSet {namespace}/{set_name} is recreating failed Pod {name}");
            Action::warning(set, "RecreatingFailedPod", text)
        } else {
            let text =
                format!("StatefulSet {namespace}/{set_name} is recreating terminated Pod {name}");
            Action::normal(set, "RecreatingTerminatedPod", text)
        };
        self.actions.push(told);
        self.actions.extend(pods::delete(self.view, member.pod));
    }

    /// A pod that a wrong template keeps from starting is in the way of the right one: Kubernetes leaves it to
    /// somebody who deletes it by hand. Here it goes at once if it has not started, or if it is of a revision
    /// between the current one and the one that is wanted.
    fn replace_stuck(&mut self, ordinal: i64, member: Member) {
        let Some(rolling) = &self.view.row.rolling else {
            return;
        };
        let revision = pods::revision(member.pod);
        let is_old = revision != self.update.0.key.name && !self.keeps_revision(rolling, ordinal);
        let is_between = revision != self.current.0.key.name;
        let never_ran = member.row.phase == Phase::Pending || is_between;
        let healthy = member.row.ready || member.pod.meta.deleting.is_some();
        if is_old && never_ran && !healthy {
            self.update_pod(member);
        }
    }

    /// Ends what is too many, the highest first. True: the round ends here.
    fn shrink(&mut self) -> bool {
        let ordered = !self.view.row.parallel;
        let ordinals = self.view.row.ordinals();
        let condemned: Vec<(i64, Member)> = self
            .view
            .members
            .iter()
            .filter(|(ordinal, _)| !ordinals.contains(ordinal))
            .map(|(ordinal, member)| (*ordinal, *member))
            .collect();
        for (ordinal, member) in &condemned {
            let owners = claims::keep_owners(self.view, member.pod, *ordinal);
            self.actions.extend(owners);
        }
        let unavailable = condemned
            .iter()
            .find(|(_, member)| !self.sees_available(*member));
        let first_unavailable = unavailable.map(|(ordinal, _)| *ordinal);
        for (ordinal, member) in condemned.iter().rev() {
            let ends = member.pod.meta.deleting.is_some();
            if ordered
                && (ends
                    || first_unavailable
                        .is_some_and(|first| first < *ordinal && !self.is_available(*member)))
            {
                return true;
            }
            if !ends {
                let [delete, told] = pods::delete(self.view, member.pod);
                self.actions.push(delete);
                self.told.push(told);
            }
            if ordered {
                return true;
            }
        }
        false
    }

    /// Updates the highest pod that is not yet, once all above it are available.
    fn roll_one(&mut self, rolling: &Rolling) {
        let first = self.first_updated(rolling);
        for ordinal in (first..self.view.row.ordinals().end).rev() {
            let Some(member) = self.view.members.get(&ordinal).copied() else {
                return;
            };
            if self.is_outdated(member) {
                return self.update_pod(member);
            }
            if !self.is_available(member) {
                return;
            }
        }
    }

    /// Updates from the highest down while no more than `most` pods are unavailable (KEP-961). A pod that is
    /// unavailable anyway costs nothing.
    fn roll_some(&mut self, rolling: &Rolling, most: &IntOrString) {
        let first = self.first_updated(rolling);
        let members: Vec<Member> = self
            .view
            .members
            .range(self.view.row.ordinals())
            .map(|(_, member)| *member)
            .collect();
        let available = members
            .iter()
            .filter(|member| self.is_available(**member))
            .count();
        let available = i64::try_from(available).unwrap_or(i64::MAX);
        let mut room = resolve(most, self.view.row.replicas) - (self.view.row.replicas - available);
        for (_, member) in self.view.members.range(first..).rev() {
            if !self.view.row.ordinals().contains(&self.ordinal(*member))
                || !self.is_outdated(*member)
            {
                continue;
            }
            if !self.sees_available(*member) {
                self.update_pod(*member);
            } else if room > 0 {
                self.update_pod(*member);
                room -= 1;
            }
        }
    }

    fn ordinal(&self, member: Member) -> i64 {
        pods::ordinal(self.view.object, &member.pod.key.name).unwrap_or(-1)
    }

    fn is_outdated(&self, member: Member) -> bool {
        member.pod.meta.deleting.is_none() && pods::revision(member.pod) != self.update.0.key.name
    }

    fn update_pod(&mut self, member: Member) {
        let [delete, told] = pods::delete(self.view, member.pod);
        self.actions.push(delete);
        self.told.push(told);
        if pods::revision(member.pod) == self.current.0.key.name {
            self.leaving += 1;
        }
    }

    /// Running, ready for long enough, and not on its way out. Looks again when it will be.
    fn is_available(&mut self, member: Member) -> bool {
        let at = available_at(member.row, self.view.row.min_ready_seconds);
        if let Some(at) = at.filter(|at| *at > self.view.now) {
            self.look_again(self.view.now.duration_until(at));
        }
        self.sees_available(member)
    }

    fn sees_available(&self, member: Member) -> bool {
        let at = available_at(member.row, self.view.row.min_ready_seconds);
        member.row.phase == Phase::Running
            && member.pod.meta.deleting.is_none()
            && at.is_some_and(|at| at <= self.view.now)
    }

    fn look_again(&mut self, wait: SignedDuration) {
        self.again = Some(self.again.map_or(wait, |other| other.min(wait)));
    }

    /// Counts as Kubernetes does: a pod that ends is still ready until it is not.
    fn status(&mut self) -> StatefulStatus {
        let name = |revision: RevisionRef| revision.0.key.name.clone();
        let mut status = StatefulStatus {
            observed_generation: self.view.object.meta.generation,
            current_revision: name(self.current),
            update_revision: name(self.update),
            collisions: self.view.row.status.collisions,
            ..StatefulStatus::default()
        };
        let members: Vec<Member> = self.view.members.values().copied().collect();
        for member in members {
            status.replicas += 1;
            let running = member.row.phase == Phase::Running && member.row.ready;
            status.ready += i32::from(running);
            let at = available_at(member.row, self.view.row.min_ready_seconds);
            status.available += i32::from(running && at.is_some_and(|at| at <= self.view.now));
            self.is_available(member);
            if member.pod.meta.deleting.is_none() {
                let revision = pods::revision(member.pod);
                status.current += i32::from(revision == status.current_revision);
                status.updated += i32::from(revision == status.update_revision);
            }
        }
        status.current -= self.leaving;
        let all = self.view.row.replicas;
        let complete = [status.updated, status.ready, status.replicas];
        if self.view.row.rolling.is_some() && complete.iter().all(|count| i64::from(*count) == all)
        {
            status.current = status.updated;
            status.current_revision = status.update_revision.clone();
        }
        status
    }
}

/// How many pods may be unavailable: percentages round down, and it is at least one.
fn resolve(most: &IntOrString, replicas: i64) -> i64 {
    let count = match most {
        IntOrString::Int(count) => i64::from(*count),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            percent.clamp(0, 100) * replicas / 100
        }
    };
    count.max(1)
}
