//! The checker finds a bug of each kind that is planted into a good history, and nothing in the good one.

use std::collections::BTreeMap;

use libtest_mimic::{Failed, Trial};
use tests::checker;
use tests::checker::history::{
    Action, Event, EventKind, History, Object, Operation, Outcome, Step, Watch,
};

/// Puts a bug into the good history.
type Plant = fn(&mut History);

/// What the bug is, and what the checker has to say of it.
const PLANTED: &[(&str, Plant, &str)] = &[
    ("a_lost_write", lost_write, "no order explains"),
    ("a_stale_read", stale_read, "no order explains"),
    ("a_read_of_what_failed", dirty_read, "no order explains"),
    ("a_swap_that_overwrites", lost_update, "no order explains"),
    (
        "a_create_that_was_done_twice",
        created_twice,
        "no order explains",
    ),
    (
        "a_revision_that_goes_back",
        revision_back,
        "revisions go back",
    ),
    (
        "a_value_with_two_revisions",
        two_revisions,
        "has another revision",
    ),
    ("an_event_that_comes_twice", duplicate, "Duplicate"),
    ("an_event_again_after_a_new_start", told_again, "Duplicate"),
    ("an_event_that_is_missing", gap, "Gap"),
    ("a_deletion_that_is_missing", no_deletion, "Gap"),
    ("an_event_lost_between_two_watches", gap_at_resume, "Gap"),
    ("events_in_another_order", reordered, "Reordered"),
    ("a_bookmark_ahead", early_bookmark, "EarlyBookmark"),
    ("an_event_with_another_state", other_state, "WrongState"),
    ("a_list_that_is_older", older_list, "WrongStart"),
    ("a_watch_that_never_learns_of_the_end", behind, "and a list"),
];

/// Good histories, some of them hard to judge.
const UNPLANTED: &[(&str, fn())] = &[
    ("the_checker_finds_nothing_in_a_good_history", in_a_good_one),
    (
        "a_write_without_an_answer_may_happen_late_or_never",
        without_an_answer,
    ),
    ("many_writes_without_an_answer_are_decided", many_open),
];

pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = PLANTED
        .iter()
        .map(|(name, plant, says)| {
            Trial::test(format!("the_checker_finds_{name}"), move || {
                let mut history = good();
                plant(&mut history);
                let found = checker::faults(&history).join("\n");
                match found.contains(says) {
                    true => Ok(()),
                    false => Err(Failed::from(format!("{says:?} is not in: {found}"))),
                }
            })
        })
        .collect();
    trials.extend(UNPLANTED.iter().map(|(name, test)| {
        Trial::test(*name, move || {
            test();
            Ok(())
        })
    }));
    trials
}

fn in_a_good_one() {
    assert_eq!(checker::faults(&good()), Vec::<String>::new());
}

/// A write that timed out: read as if it were never, then as done, and then it may not be undone.
fn without_an_answer() {
    use Action::{Create, Put, Read};
    let lost = operation(Put(2), Outcome::Unknown, 3, 0);
    let start = [operation(Create(1), Outcome::Applied(10), 1, 2), lost];
    let read = |value, revision, at| operation(Read, seen(value, revision), at, at + 1);
    let judged = |reads: &[Operation]| {
        let operations = [&start, reads].concat();
        let history = History {
            operations,
            ..History::default()
        };
        checker::faults(&history)
    };
    assert_eq!(
        judged(&[read(1, 10, 4), read(2, 11, 6)]),
        Vec::<String>::new()
    );
    assert_eq!(
        judged(&[read(1, 10, 4), read(1, 10, 6)]),
        Vec::<String>::new()
    );
    assert_eq!(judged(&[read(2, 11, 4), read(1, 10, 6)]).len(), 1);
}

/// Each could be anywhere behind its request: not all their orders may be tried.
fn many_open() {
    let mut operations = vec![operation(Action::Create(1), Outcome::Applied(1), 1, 2)];
    for number in 0..60 {
        let at = 10 + 10 * number;
        operations.push(operation(
            Action::Put(1000 + number),
            Outcome::Unknown,
            at,
            0,
        ));
        let put = operation(
            Action::Put(2 + number),
            Outcome::Applied(at),
            at + 2,
            at + 3,
        );
        operations.push(put);
        operations.push(operation(
            Action::Read,
            seen(2 + number, at),
            at + 4,
            at + 5,
        ));
    }
    let history = History {
        operations,
        ..History::default()
    };
    assert_eq!(checker::faults(&history), Vec::<String>::new());
}

fn operation(action: Action, outcome: Outcome, invoked: u64, returned: u64) -> Operation {
    Operation {
        client: "client".to_owned(),
        key: "a".to_owned(),
        action,
        outcome,
        invoked,
        returned,
    }
}

fn seen(value: u64, revision: u64) -> Outcome {
    Outcome::Seen(Some(Object { value, revision }))
}

/// Places of operations in the good history.
const CREATED: usize = 0;
const PUT: usize = 1;
const READ: usize = 2;
const SWAPPED: usize = 3;
const REFUSED: usize = 4;
const SECOND_READ: usize = 5;

/// One object that is created at 10, written at 11, swapped at 12, deleted at 13 and made again at 14.
fn good() -> History {
    use Action::{Create, Delete, Put, Read, Swap};
    use Outcome::{Applied, Conflict, Seen};
    let swap = |value| Swap { expected: 2, value };
    let operations = vec![
        operation(Create(1), Applied(10), 1, 2),
        operation(Put(2), Applied(11), 3, 6),
        operation(Read, seen(2, 11), 4, 7),
        operation(swap(3), Applied(12), 8, 10),
        operation(swap(4), Conflict, 9, 11),
        operation(Read, seen(3, 12), 12, 13),
        operation(Delete, Applied(0), 14, 15),
        operation(Read, Seen(None), 16, 17),
        operation(Create(5), Applied(14), 18, 19),
    ];
    let steps = vec![
        Step::Listed {
            revision: 9,
            objects: BTreeMap::new(),
        },
        Step::Began(9),
        event(EventKind::Added, 1, 10),
        event(EventKind::Modified, 2, 11),
        Step::Began(11),
        event(EventKind::Modified, 3, 12),
        event(EventKind::Bookmark, 0, 12),
        Step::Began(12),
        event(EventKind::Deleted, 3, 13),
        event(EventKind::Added, 5, 14),
        event(EventKind::Bookmark, 0, 20),
        // Another one goes on writing after the last list.
        event(EventKind::Modified, 6, 21),
    ];
    let watch = Watch {
        name: "watch".to_owned(),
        steps,
    };
    let last = Object {
        value: 5,
        revision: 14,
    };
    History {
        operations,
        watches: vec![watch],
        at_end: BTreeMap::from([("a".to_owned(), last)]),
        ended_at: 20,
    }
}

fn event(kind: EventKind, value: u64, revision: u64) -> Step {
    let key = if kind == EventKind::Bookmark { "" } else { "a" };
    let object = Object { value, revision };
    Step::Event(Event {
        kind,
        key: key.to_owned(),
        object,
    })
}

/// Places of steps in the good watch.
const MODIFIED: usize = 3;
const AFTER_RESUME: usize = 5;
const BOOKMARK: usize = 6;
const DELETED: usize = 8;
const LAST_ADDED: usize = 9;

fn steps(history: &mut History) -> &mut Vec<Step> {
    &mut history.watches[0].steps
}

fn lost_write(history: &mut History) {
    history.operations[READ].outcome = seen(1, 10);
    history.operations[READ].invoked = 7;
    history.operations[READ].returned = 8;
}

fn stale_read(history: &mut History) {
    history.operations[SECOND_READ].outcome = seen(2, 11);
}

fn dirty_read(history: &mut History) {
    history.operations[SECOND_READ].outcome = seen(4, 12);
}

fn lost_update(history: &mut History) {
    history.operations[REFUSED].outcome = Outcome::Applied(12);
}

fn created_twice(history: &mut History) {
    let again = operation(Action::Create(9), Outcome::Applied(11), 2, 3);
    history.operations.insert(CREATED + 1, again);
}

fn revision_back(history: &mut History) {
    history.operations[SWAPPED].outcome = Outcome::Applied(9);
    history.operations[SECOND_READ].outcome = seen(3, 9);
    history.watches.clear();
}

fn two_revisions(history: &mut History) {
    history.operations[PUT].outcome = Outcome::Applied(12);
}

fn duplicate(history: &mut History) {
    let again = steps(history)[MODIFIED].clone();
    steps(history).insert(MODIFIED + 1, again);
}

fn told_again(history: &mut History) {
    let again = steps(history)[MODIFIED].clone();
    steps(history).insert(AFTER_RESUME, again);
}

fn gap(history: &mut History) {
    steps(history).remove(MODIFIED);
}

fn no_deletion(history: &mut History) {
    steps(history).remove(DELETED);
}

fn gap_at_resume(history: &mut History) {
    steps(history).remove(AFTER_RESUME);
}

fn reordered(history: &mut History) {
    steps(history).swap(MODIFIED, AFTER_RESUME);
}

fn early_bookmark(history: &mut History) {
    steps(history)[BOOKMARK] = event(EventKind::Bookmark, 0, 13);
    steps(history)[BOOKMARK + 1] = Step::Began(13);
}

fn other_state(history: &mut History) {
    steps(history)[AFTER_RESUME] = event(EventKind::Modified, 4, 12);
}

fn older_list(history: &mut History) {
    let objects = BTreeMap::from([(
        "a".to_owned(),
        Object {
            value: 2,
            revision: 11,
        },
    )]);
    steps(history).insert(
        DELETED,
        Step::Listed {
            revision: 11,
            objects,
        },
    );
}

fn behind(history: &mut History) {
    steps(history).truncate(LAST_ADDED);
}
