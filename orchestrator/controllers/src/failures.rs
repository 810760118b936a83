//! How often pods of one place have failed in a row, for controllers that delete a failed pod before they make
//! its successor: an agent that refuses one refuses the next one too. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::object::Phase;
use super::world::Diff;

/// The failures of the pods of one kind's objects.
#[derive(Default)]
pub struct Failures {
    /// By the owner's uid and the pod's place.
    places: BTreeMap<(String, String), Streak>,
}

struct Streak {
    count: u32,
    last: Timestamp,
}

const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// 1 s · 2^9 is more than the longest pause.
const LONGEST_SHIFT: u32 = 9;
/// A streak ends when nothing has failed for so long.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(10);

impl Failures {
    /// Counts a pod that has failed, by its place.
    pub fn hear(&mut self, diff: &Diff, place: &str, now: Timestamp) {
        let failed = |phase: Option<Phase>| phase == Some(Phase::Failed);
        let phase = |object: Option<&super::object::Object>| {
            object
                .and_then(|object| object.as_pod())
                .map(|row| row.phase)
        };
        let (before, after) = (phase(diff.old.as_deref()), phase(diff.new.as_deref()));
        let owner = diff.new.as_deref().and_then(|pod| pod.controller());
        let Some(owner) = owner.filter(|_| failed(after) && !failed(before)) else {
            return;
        };
        let place = (owner.uid.clone(), place.to_owned());
        let streak = self.places.entry(place).or_insert(Streak {
            count: 0,
            last: now,
        });
        if streak.last.duration_until(now) > FORGOTTEN_AFTER {
            streak.count = 0;
        }
        *streak = Streak {
            count: streak.count.saturating_add(1),
            last: now,
        };
    }

    /// Forgets the places of an owner that is gone.
    pub fn forget(&mut self, owner: &str) {
        self.places.retain(|(uid, _), _| uid != owner);
    }

    /// How long to wait before a pod that was made at `created` and failed is deleted. The pause doubles with
    /// every failure in a row and begins when the pod was made, so that one that fails late is replaced at once.
    pub fn wait(
        &self,
        owner: &str,
        place: &str,
        created: Timestamp,
        now: Timestamp,
    ) -> Option<SignedDuration> {
        let streak = self.places.get(&(owner.to_owned(), place.to_owned()));
        let count = streak.map_or(1, |streak| streak.count.max(1));
        let shift = (count - 1).min(LONGEST_SHIFT);
        let pause = (FIRST_PAUSE * (1 << shift)).min(LONGEST_PAUSE);
        let wait = now.duration_until(created + pause);
        (wait > SignedDuration::ZERO).then_some(wait)
    }
}
