//! Revisions as clients saw them: a write that began after another was answered has a later one, over all keys,
//! and a value keeps the revision that it was written at.

use std::collections::BTreeMap;

use super::history::{Action, Object, Operation, Outcome};

/// What is wrong, as sentences.
pub fn check(operations: &[Operation]) -> Vec<String> {
    let mut found = of_values(operations);
    found.extend(of_time(operations));
    found
}

fn of_values(operations: &[Operation]) -> Vec<String> {
    let mut revisions: BTreeMap<u64, u64> = BTreeMap::new();
    let mut found = Vec::new();
    for operation in operations {
        let Some(Object { value, revision }) = seen(operation) else {
            continue;
        };
        let first = *revisions.entry(value).or_insert(revision);
        if first != revision {
            found.push(format!(
                "{}: a value that was at {first} has another revision: {operation}",
                operation.key
            ));
        }
    }
    found
}

fn of_time(operations: &[Operation]) -> Vec<String> {
    let written =
        |it: &&Operation| matches!(it.outcome, Outcome::Applied(revision) if revision > 0);
    let mut begun: Vec<&Operation> = operations.iter().filter(written).collect();
    let mut answered = begun.clone();
    begun.sort_by_key(|it| it.invoked);
    answered.sort_by_key(|it| it.returned);
    let mut answered = answered.into_iter().peekable();
    let mut newest: Option<&Operation> = None;
    let mut found = Vec::new();
    for operation in begun {
        while let Some(before) = answered.next_if(|it| it.returned < operation.invoked) {
            if newest.is_none_or(|newest| revision(newest) < revision(before)) {
                newest = Some(before);
            }
        }
        if let Some(newest) = newest.filter(|newest| revision(newest) >= revision(operation)) {
            found.push(format!(
                "revisions go back: {} {operation} began after {} {newest}",
                operation.key, newest.key
            ));
        }
    }
    found
}

fn revision(operation: &Operation) -> u64 {
    match operation.outcome {
        Outcome::Applied(revision) => revision,
        _ => 0,
    }
}

/// The object that an answer shows.
fn seen(operation: &Operation) -> Option<Object> {
    match (operation.action, operation.outcome) {
        (_, Outcome::Seen(object)) => object,
        (
            Action::Create(value) | Action::Put(value) | Action::Swap { value, .. },
            Outcome::Applied(revision),
        ) => Some(Object { value, revision }),
        _ => None,
    }
}
