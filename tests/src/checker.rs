//! Judges what clients of one or several servers saw: `linear` their reads and writes, `revisions` the numbers
//! that writes were given, `watches` the events that they were sent. Pure: a history goes in, faults come out.
//!
//! ```text
//! nemesis/clients ──▶ History ──▶ linear ────▶ is there an order of all operations that explains every answer?
//!                        │   └──▶ revisions ─▶ do revisions grow with time, one for each write?
//!                        └──────▶ watches ───▶ is every event there once, in order, before its bookmark?
//! ```
//!
//! It shares no code with the product that it judges.

pub mod history;
pub mod linear;
pub mod revisions;
pub mod watches;

use std::collections::BTreeMap;

use history::{Action, History, Object, Operation, Outcome};

/// What is wrong with a history, as sentences; empty: nothing.
pub fn faults(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for (key, operations) in by_key(&history.operations) {
        match linear::check(&operations) {
            linear::Verdict::Linearizable => {}
            linear::Verdict::Violated(why) => found.push(format!("{key}: {why}")),
            linear::Verdict::Undecided => found.push(format!(
                "{key}: {} operations are too many to decide",
                operations.len()
            )),
        }
    }
    found.extend(revisions::check(&history.operations));
    let facts = facts(history);
    for watch in &history.watches {
        let faults = watches::check(watch, &facts);
        found.extend(faults.iter().map(|it| format!("{}: {it}", watch.name)));
        if let Some(why) = watches::behind(watch, history) {
            found.push(format!("{}: {why}", watch.name));
        }
    }
    found
}

fn by_key(operations: &[Operation]) -> BTreeMap<&str, Vec<Operation>> {
    let mut keys: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        let of_key = keys.entry(&operation.key).or_default();
        of_key.push(operation.clone());
    }
    keys
}

/// Every change that somebody knows of, by its revision: from the answers to writes, from reads, and from the
/// events of all watches.
fn facts(history: &History) -> BTreeMap<u64, watches::Change> {
    let mut facts = BTreeMap::new();
    let mut put = |key: &str, object: Object| {
        let change = watches::Change {
            key: key.to_owned(),
            value: Some(object.value),
        };
        facts.entry(object.revision).or_insert(change);
    };
    for operation in &history.operations {
        match (&operation.outcome, operation.action) {
            (Outcome::Seen(Some(object)), _) => put(&operation.key, *object),
            (
                Outcome::Applied(revision),
                Action::Create(value) | Action::Put(value) | Action::Swap { value, .. },
            ) => {
                let revision = *revision;
                put(&operation.key, Object { value, revision });
            }
            _ => {}
        }
    }
    for watch in &history.watches {
        for (revision, change) in watches::changes(watch) {
            facts.entry(revision).or_insert(change);
        }
    }
    facts
}
