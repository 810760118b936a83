//! Whether one client's watch told everything once, in order, whatever it was interrupted by: against the changes
//! that are known from all clients together.

use std::collections::BTreeMap;
use std::fmt;

use super::history::{Event, EventKind, History, Object, Step, Watch};

/// One change of one key; `None`: deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub value: Option<u64>,
}

/// A kind of fault, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub revision: u64,
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An event came twice.
    Duplicate,
    /// An event came behind a later one.
    Reordered,
    /// An event is missing.
    Gap,
    /// A bookmark came before an event that it covers.
    EarlyBookmark,
    /// An event shows another state than its revision has.
    WrongState,
    /// A list is older than what the client knew already, or a watch began elsewhere.
    WrongStart,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} at {}: {}", self.kind, self.revision, self.why)
    }
}

/// Judges a watch by the known changes, which are keyed by their revisions.
pub fn check(watch: &Watch, facts: &BTreeMap<u64, Change>) -> Vec<Fault> {
    let mut judge = Judge::default();
    for step in &watch.steps {
        match step {
            Step::Listed { revision, objects } => judge.list(*revision, objects, facts),
            Step::Began(revision) => judge.begin(*revision),
            Step::Event(event) => judge.event(event),
        }
    }
    judge.close(facts);
    judge.faults
}

/// What a watch that has had the time shows otherwise than the last list, as of that list's revision.
pub fn behind(watch: &Watch, history: &History) -> Option<String> {
    let (at_end, ended_at) = (&history.at_end, history.ended_at);
    let mut judge = Judge::default();
    for step in &watch.steps {
        match step {
            // It says nothing of what was before.
            Step::Listed { revision, .. } if *revision > ended_at => return None,
            Step::Listed { objects, .. } => judge.objects = objects.clone(),
            Step::Event(event) if event.object.revision <= ended_at => judge.change(event),
            _ => {}
        }
    }
    let keys = judge.objects.keys().chain(at_end.keys());
    let differs = |key: &&String| judge.objects.get(*key) != at_end.get(*key);
    let key = { keys }.find(differs)?;
    Some(format!(
        "it shows {:?} of {key}, and a list {:?}",
        judge.objects.get(key),
        at_end.get(key)
    ))
}

/// The changes that a watch tells of.
pub fn changes(watch: &Watch) -> impl Iterator<Item = (u64, Change)> {
    watch.steps.iter().filter_map(|step| match step {
        Step::Event(event) if event.kind != EventKind::Bookmark => {
            let value = (event.kind != EventKind::Deleted).then_some(event.object.value);
            let key = event.key.clone();
            Some((event.object.revision, Change { key, value }))
        }
        _ => None,
    })
}

/// Follows one watch.
#[derive(Default)]
struct Judge {
    /// What the client knows to be there.
    objects: BTreeMap<String, Object>,
    /// Since the last list: its revision, and the events.
    from: Option<u64>,
    events: BTreeMap<u64, Change>,
    newest_event: u64,
    newest_bookmark: u64,
    faults: Vec<Fault>,
}

impl Judge {
    fn fault(&mut self, kind: FaultKind, revision: u64, why: impl Into<String>) {
        let why = why.into();
        self.faults.push(Fault {
            kind,
            revision,
            why,
        });
    }

    /// Up to where the client has been told everything.
    fn position(&self) -> u64 {
        let from = self.from.unwrap_or_default();
        from.max(self.newest_event).max(self.newest_bookmark)
    }

    fn list(
        &mut self,
        revision: u64,
        objects: &BTreeMap<String, Object>,
        facts: &BTreeMap<u64, Change>,
    ) {
        if revision < self.position() {
            let why = format!("the list is older than {}", self.position());
            self.fault(FaultKind::WrongStart, revision, why);
        }
        self.close(facts);
        for (key, object) in objects {
            if object.revision > revision {
                let why = format!("the list shows {key} at {}", object.revision);
                self.fault(FaultKind::WrongState, revision, why);
            }
        }
        *self = Self {
            objects: objects.clone(),
            from: Some(revision),
            faults: std::mem::take(&mut self.faults),
            ..Self::default()
        };
    }

    fn begin(&mut self, revision: u64) {
        if revision != self.position() {
            let why = format!("the client had been told everything to {}", self.position());
            self.fault(FaultKind::WrongStart, revision, why);
        }
    }

    fn event(&mut self, event: &Event) {
        let revision = event.object.revision;
        if event.kind == EventKind::Bookmark {
            if revision < self.newest_event {
                let why = format!("a bookmark behind the event {}", self.newest_event);
                self.fault(FaultKind::Reordered, revision, why);
            }
            self.newest_bookmark = self.newest_bookmark.max(revision);
            return;
        }
        let known = self.events.contains_key(&revision);
        let late = [
            (known, FaultKind::Duplicate, 0),
            (
                revision < self.newest_event,
                FaultKind::Reordered,
                self.newest_event,
            ),
            (
                revision <= self.newest_bookmark,
                FaultKind::EarlyBookmark,
                self.newest_bookmark,
            ),
            (
                revision <= self.from.unwrap_or_default(),
                FaultKind::Duplicate,
                self.from.unwrap_or_default(),
            ),
        ];
        if let Some((_, kind, told)) = late.into_iter().find(|(is, ..)| *is) {
            self.fault(kind, revision, format!("{event:?} came behind {told}"));
            return;
        }
        let missing = match (event.kind, self.objects.contains_key(&event.key)) {
            (EventKind::Added, true) => "the object was there: its deletion is missing",
            (EventKind::Modified | EventKind::Deleted, false) => {
                "the object was not there: its creation is missing"
            }
            _ => "",
        };
        if !missing.is_empty() {
            self.fault(
                FaultKind::Gap,
                revision,
                format!("{}: {missing}", event.key),
            );
        }
        self.newest_event = revision;
        self.change(event);
        let value = (event.kind != EventKind::Deleted).then_some(event.object.value);
        let key = event.key.clone();
        self.events.insert(revision, Change { key, value });
    }

    fn change(&mut self, event: &Event) {
        match event.kind {
            EventKind::Added | EventKind::Modified => {
                self.objects.insert(event.key.clone(), event.object);
            }
            EventKind::Deleted => {
                self.objects.remove(&event.key);
            }
            EventKind::Bookmark => {}
        }
    }

    /// Compares the events since the last list with what is known to have happened up to the client's position.
    fn close(&mut self, facts: &BTreeMap<u64, Change>) {
        let Some(from) = self.from else { return };
        let mut found = Vec::new();
        for (revision, fact) in facts.range(from + 1..) {
            if *revision > self.position() {
                break;
            }
            let kind = match self.events.get(revision) {
                None => FaultKind::Gap,
                Some(told) if told != fact => FaultKind::WrongState,
                Some(_) => continue,
            };
            let told = self.events.get(revision);
            found.push((kind, *revision, format!("{fact:?} was told as {told:?}")));
        }
        for (kind, revision, why) in found {
            self.fault(kind, revision, why);
        }
    }
}
