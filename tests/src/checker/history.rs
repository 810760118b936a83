//! What clients asked, when, and what they were answered.

use std::collections::BTreeMap;
use std::fmt;

/// An object as somebody saw it. A value is written once in a history, so it names its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    pub value: u64,
    pub revision: u64,
}

/// What was asked of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The newest state: a GET or a LIST without a resourceVersion.
    Read,
    Create(u64),
    /// A write that names no revision; the object has to be there.
    Put(u64),
    /// A write at the revision at which `expected` was read.
    Swap {
        expected: u64,
        value: u64,
    },
    Delete,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A read's answer; `None`: there is no such object.
    Seen(Option<Object>),
    /// The write is done; 0: the answer names no revision.
    Applied(u64),
    /// There is no such object (404).
    Absent,
    /// The object is there already, or at another revision (409).
    Conflict,
    /// The write may happen at any time after it was asked for, or never.
    Unknown,
}

/// `invoked` and `returned` are places in one order of all that happened at the clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// For the reader of a fault: which client, through which server.
    pub client: String,
    pub key: String,
    pub action: Action,
    pub outcome: Outcome,
    pub invoked: u64,
    pub returned: u64,
}

/// What one client that watches was told, over all its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    pub name: String,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything as of a revision: a list, or a watch's initial events with their bookmark.
    Listed {
        revision: u64,
        objects: BTreeMap<String, Object>,
    },
    /// A watch began behind that revision.
    Began(u64),
    Event(Event),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

/// One line of a watch; a bookmark has no key and no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub key: String,
    pub object: Object,
}

/// Everything of one round.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    pub watches: Vec<Watch>,
    /// What is there after the last write of the load, by a list; watches have had the time to learn of it.
    pub at_end: BTreeMap<String, Object>,
    /// The revision of that list: others may go on writing.
    pub ended_at: u64,
}

impl Operation {
    /// Whether it can end after any other one.
    pub fn is_open(&self) -> bool {
        self.outcome == Outcome::Unknown
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            action,
            outcome,
            invoked,
            returned,
            ..
        } = self;
        write!(out, "{client} {action:?} → {outcome:?} ({invoked}")?;
        match self.is_open() {
            true => write!(out, "–)"),
            false => write!(out, "–{returned})"),
        }
    }
}
