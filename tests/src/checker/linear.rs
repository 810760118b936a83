//! Whether one object's operations could have happened one after the other, each at a moment between its request
//! and its answer: the search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993), with Lowe's
//! memory of what has been tried ("Testing for Linearizability", 2017).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::history::{Action, Object, Operation, Outcome};

/// The value that is there; `None`: no object.
type State = Option<u64>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// No order explains the answers; the text says how far one goes.
    Violated(String),
    /// The search was given up: the history is too long and too concurrent.
    Undecided,
}

/// Tried steps before the search is given up: some seconds.
const MOST_STEPS: usize = 1_000_000;
/// Operations around the fault that its text shows.
const SHOWN: usize = 16;

/// Judges the operations of one key.
pub fn check(operations: &[Operation]) -> Verdict {
    let (mut open, mut answered): (Vec<&Operation>, Vec<&Operation>) =
        operations.iter().partition(|it| it.is_open());
    // A read without an answer says nothing.
    open.retain(|it| it.action != Action::Read);
    answered.sort_by_key(|it| it.invoked);
    Search::new(answered, open).run()
}

/// What an operation makes of a state if it happens there; `None`: its answer says otherwise. One whose outcome
/// is unknown either did what it was asked for, or nothing, and then it needs no place in the order.
fn step(state: State, operation: &Operation) -> Option<State> {
    use Outcome::{Absent, Applied, Conflict, Seen, Unknown};
    let done = |is: bool, next: State| is.then_some(next);
    match (operation.action, operation.outcome) {
        (Action::Read, Seen(object)) => done(state == object.map(|it: Object| it.value), state),
        (Action::Create(value), Applied(_) | Unknown) => done(state.is_none(), Some(value)),
        (Action::Create(_), Conflict) => done(state.is_some(), state),
        (Action::Put(value), Applied(_) | Unknown) => done(state.is_some(), Some(value)),
        // A server gives up after some others have been quicker.
        (Action::Put(_), Conflict) => done(state.is_some(), state),
        (Action::Swap { expected, value }, Applied(_) | Unknown) => {
            done(state == Some(expected), Some(value))
        }
        (Action::Swap { expected, .. }, Conflict) => {
            done(state.is_some_and(|is| is != expected), state)
        }
        (Action::Delete, Applied(_) | Unknown) => done(state.is_some(), None),
        (Action::Put(_) | Action::Swap { .. } | Action::Delete, Absent) => {
            done(state.is_none(), state)
        }
        _ => None,
    }
}

/// A search in depth. Operations are known by their index: those with an answer by the time of their request,
/// then the open ones.
struct Search<'a> {
    operations: Vec<&'a Operation>,
    answered: usize,
    /// A bit for each operation that has a place in the order.
    placed: Vec<u64>,
    levels: Vec<Level>,
    /// What has been placed, and the state it led to: nothing new comes of it a second time.
    tried: BTreeSet<(Vec<u64>, State)>,
    /// The longest order that was found.
    furthest: Vec<usize>,
}

/// What may come next behind one order.
struct Level {
    state: State,
    candidates: Vec<usize>,
    /// How many of them have been looked at; the last one is in the order.
    looked_at: usize,
}

impl<'a> Search<'a> {
    fn new(answered: Vec<&'a Operation>, open: Vec<&'a Operation>) -> Self {
        let count = answered.len();
        let operations: Vec<_> = answered.into_iter().chain(open).collect();
        Self {
            placed: vec![0; operations.len().div_ceil(64)],
            operations,
            answered: count,
            levels: Vec::new(),
            tried: BTreeSet::new(),
            furthest: Vec::new(),
        }
    }

    fn run(mut self) -> Verdict {
        if self.answered == 0 {
            return Verdict::Linearizable;
        }
        self.descend(None);
        for _ in 0..MOST_STEPS {
            let Some(level) = self.levels.last_mut() else {
                return Verdict::Violated(self.explain());
            };
            let (state, candidate) = (level.state, level.candidates.get(level.looked_at).copied());
            level.looked_at += 1;
            let Some(candidate) = candidate else {
                self.ascend();
                continue;
            };
            let Some(next) = step(state, self.operations[candidate]) else {
                continue;
            };
            self.placed[candidate / 64] |= 1 << (candidate % 64);
            if !self.tried.insert((self.placed.clone(), next)) {
                self.placed[candidate / 64] &= !(1 << (candidate % 64));
                continue;
            }
            if (0..self.answered).all(|it| self.is_placed(it)) {
                return Verdict::Linearizable;
            }
            self.descend(next);
        }
        Verdict::Undecided
    }

    fn is_placed(&self, operation: usize) -> bool {
        self.placed[operation / 64] & (1 << (operation % 64)) != 0
    }

    /// What was asked for before the first answer among the operations without a place may come next. Open
    /// operations come last: they are needed only where nothing else explains an answer.
    fn descend(&mut self, state: State) {
        let waiting = |it: &usize| !self.is_placed(*it);
        let answers = (0..self.answered).filter(waiting);
        let first = answers.map(|it| self.operations[it].returned).min();
        let candidates = (0..self.operations.len()).filter(waiting);
        let begun = |it: &usize| first.is_some_and(|at| self.operations[*it].invoked < at);
        let candidates = candidates.filter(begun).collect();
        self.levels.push(Level {
            state,
            candidates,
            looked_at: 0,
        });
        if self.levels.len() > self.furthest.len() + 1 {
            self.furthest = self.order();
        }
    }

    /// Nothing fits behind this order: its last operation was wrong.
    fn ascend(&mut self) {
        self.levels.pop();
        if let Some(level) = self.levels.last() {
            let last = level.candidates[level.looked_at - 1];
            self.placed[last / 64] &= !(1 << (last % 64));
        }
    }

    fn order(&self) -> Vec<usize> {
        let above = &self.levels[..self.levels.len() - 1];
        let last = above.iter().map(|it| it.candidates[it.looked_at - 1]);
        last.collect()
    }

    fn explain(&self) -> String {
        let order = &self.furthest;
        let others = (0..self.operations.len()).filter(|it| !order.contains(it));
        let text = format!(
            "no order explains all answers; the longest one has {}",
            order.len()
        );
        let mut text = format!("{text} operations and ends:");
        let end = order.iter().skip(order.len().saturating_sub(SHOWN));
        let lines = end.map(|it| ("", *it));
        let lines = lines.chain(others.take(SHOWN).map(|it| ("without a place: ", it)));
        for (mark, operation) in lines {
            // Writing to a string does not fail.
            let _ = write!(text, "\n  {mark}{}", self.operations[operation]);
        }
        text
    }
}
