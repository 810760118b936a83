//! Which events are worth a write, as Kubernetes' recorder decides it (client-go, events_cache.go, 1.33):
//! one that repeats counts up, ten alike in ten minutes become one, and an object that is spoken of
//! without end is spoken of less and less. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::events::{About, Note};

/// Events about one object that are written at once …
const BURST: u32 = 25;
/// … and after that one in this time.
const REFILL: SignedDuration = SignedDuration::from_mins(5);
/// From so many messages of one reason about one object on, they are combined …
const ALIKE: usize = 10;
/// … unless this time passes without one.
const ALIKE_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// What is remembered of objects, reasons and events, each.
const REMEMBERED: usize = 4096;
/// What a combined event begins with.
const COMBINED: &str = "(combined from similar events): ";

/// What has been written, and how often.
#[derive(Default)]
pub(super) struct Correlator {
    budgets: BTreeMap<About, Budget>,
    groups: BTreeMap<Group, Alike>,
    written: BTreeMap<Note, Written>,
}

/// What is to be done with an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Drop,
    /// It is written; `key` is what it is remembered by.
    Create {
        key: Note,
        message: String,
    },
    /// It has been written under this name and has now happened so often.
    Count {
        key: Note,
        message: String,
        name: String,
        count: u32,
    },
}

/// How much may still be said of an object.
struct Budget {
    left: u32,
    /// Since when one more is saved up for.
    since: Timestamp,
    used: Timestamp,
}

/// Events that differ in their message only.
type Group = (&'static str, About, String);

struct Alike {
    messages: BTreeSet<String>,
    used: Timestamp,
}

struct Written {
    name: String,
    count: u32,
    used: Timestamp,
}

impl Correlator {
    /// Decides about an event that has just happened.
    pub fn decide(&mut self, note: Note, now: Timestamp) -> Verdict {
        if !self.has_budget(&note.about, now) {
            return Verdict::Drop;
        }
        let (key, message) = self.combine(note, now);
        match self.written.get_mut(&key) {
            Some(written) => {
                written.count += 1;
                written.used = now;
                let (name, count) = (written.name.clone(), written.count);
                Verdict::Count {
                    key,
                    message,
                    name,
                    count,
                }
            }
            None => Verdict::Create { key, message },
        }
    }

    /// An event was written under this name.
    pub fn written(&mut self, key: Note, name: String, now: Timestamp) {
        make_room(&mut self.written, |written| written.used);
        let count = 1;
        let used = now;
        self.written.insert(key, Written { name, count, used });
    }

    /// What was written is no longer there.
    pub fn lost(&mut self, key: &Note) {
        self.written.remove(key);
    }

    fn has_budget(&mut self, about: &About, now: Timestamp) -> bool {
        if !self.budgets.contains_key(about) {
            make_room(&mut self.budgets, |budget| budget.used);
        }
        let budget = self.budgets.entry(about.clone()).or_insert(Budget {
            left: BURST,
            since: now,
            used: now,
        });
        while budget.left < BURST && now.duration_since(budget.since) >= REFILL {
            budget.left += 1;
            budget.since += REFILL;
        }
        if budget.left == BURST {
            budget.since = now;
        }
        budget.used = now;
        let is_left = budget.left > 0;
        budget.left = budget.left.saturating_sub(1);
        is_left
    }

    /// What an event is remembered by, and what it says.
    fn combine(&mut self, note: Note, now: Timestamp) -> (Note, String) {
        let group = (note.severity, note.about.clone(), note.reason.clone());
        if !self.groups.contains_key(&group) {
            make_room(&mut self.groups, |alike| alike.used);
        }
        let alike = self.groups.entry(group).or_insert_with(|| Alike {
            messages: BTreeSet::new(),
            used: now,
        });
        if now.duration_since(alike.used) > ALIKE_WITHIN {
            alike.messages.clear();
        }
        alike.used = now;
        alike.messages.insert(note.message.clone());
        if alike.messages.len() < ALIKE {
            let message = note.message.clone();
            return (note, message);
        }
        alike.messages.pop_last();
        let message = format!("{COMBINED}{}", note.message);
        let key = Note {
            message: COMBINED.to_owned(),
            ..note
        };
        (key, message)
    }
}

/// Forgets the quarter that was not used for longest, if the map is full.
fn make_room<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, used: impl Fn(&V) -> Timestamp) {
    if map.len() < REMEMBERED {
        return;
    }
    let mut times: Vec<Timestamp> = map.values().map(&used).collect();
    let (_, limit, _) = times.select_nth_unstable(REMEMBERED / 4);
    let limit = *limit;
    map.retain(|_, value| used(value) > limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn note(object: &str, message: &str) -> Note {
        Note {
            severity: "Warning",
            about: About {
                kind: Kind::NODE,
                namespace: String::new(),
                name: object.to_owned(),
                uid: format!("uid-{object}"),
                field_path: String::new(),
            },
            reason: "CIDRNotAvailable".to_owned(),
            message: message.to_owned(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("in range")
    }

    /// What an event was taken for: `create`, `count N` or `drop`.
    fn decide(correlator: &mut Correlator, note: Note, seconds: i64) -> String {
        match correlator.decide(note, at(seconds)) {
            Verdict::Drop => "drop".to_owned(),
            Verdict::Create { key, message } => {
                correlator.written(key, "event".to_owned(), at(seconds));
                format!("create {message}")
            }
            Verdict::Count { count, message, .. } => format!("count {count} {message}"),
        }
    }

    #[test]
    fn an_event_that_repeats_counts_up_and_one_that_is_lost_is_written_again() {
        let mut correlator = Correlator::default();
        assert_eq!(decide(&mut correlator, note("a", "m"), 0), "create m");
        assert_eq!(decide(&mut correlator, note("a", "m"), 1), "count 2 m");
        assert_eq!(decide(&mut correlator, note("b", "m"), 1), "create m");
        correlator.lost(&note("a", "m"));
        assert_eq!(decide(&mut correlator, note("a", "m"), 2), "create m");
    }

    #[test]
    fn ten_messages_of_one_reason_become_one_event() {
        let mut correlator = Correlator::default();
        for number in 0..9 {
            let message = format!("m{number}");
            let said = decide(&mut correlator, note("a", &message), number);
            assert_eq!(said, format!("create {message}"));
        }
        let said = decide(&mut correlator, note("a", "m9"), 9);
        assert_eq!(said, "create (combined from similar events): m9");
        let said = decide(&mut correlator, note("a", "m10"), 10);
        assert_eq!(said, "count 2 (combined from similar events): m10");
        // After a quiet time they are told one by one again.
        assert_eq!(decide(&mut correlator, note("a", "m11"), 700), "create m11");
    }

    #[test]
    fn an_object_that_is_spoken_of_without_end_is_spoken_of_once_in_five_minutes() {
        let mut correlator = Correlator::default();
        let mut writes = 0;
        // An hour, ten times a second.
        for tenth in 0..36_000 {
            let said = decide(&mut correlator, note("a", "m"), tenth / 10);
            writes += i32::from(said != "drop");
        }
        assert_eq!(writes, 25 + 11);
        assert_eq!(decide(&mut correlator, note("b", "m"), 3600), "create m");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut correlator = Correlator::default();
        for number in 0..3 * REMEMBERED {
            let object = format!("n{number}");
            let seconds = i64::try_from(number).expect("few");
            decide(&mut correlator, note(&object, "m"), seconds);
        }
        assert!(correlator.budgets.len() <= REMEMBERED);
        assert!(correlator.groups.len() <= REMEMBERED);
        assert!(correlator.written.len() <= REMEMBERED);
    }
}
