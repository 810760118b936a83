//! The work queue: what is due, what waits until when, what runs, and the back-off of what failed.
//! A task that runs is never handed out a second time; becoming dirty meanwhile, it runs again
//! after. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

/// Tasks in the order they became due.
pub struct Queue<T> {
    due: VecDeque<T>,
    queued: BTreeSet<T>,
    waiting: BTreeSet<(Timestamp, T)>,
    deadline: BTreeMap<T, Timestamp>,
    running: BTreeSet<T>,
    failures: BTreeMap<T, u32>,
    observer: Option<Observer<T>>,
}

/// Is told of each step of a task.
type Observer<T> = Box<dyn Fn(&T, Step) + Send>;

/// What happens to a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Due,
    Taken,
    Failed,
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    /// Try again, later with every failure in a row.
    Failed,
}

impl<T: Ord + Clone> Default for Queue<T> {
    fn default() -> Self {
        Self {
            due: VecDeque::new(),
            queued: BTreeSet::new(),
            waiting: BTreeSet::new(),
            deadline: BTreeMap::new(),
            running: BTreeSet::new(),
            failures: BTreeMap::new(),
            observer: None,
        }
    }
}

impl<T: Ord + Clone> Queue<T> {
    /// Tells of each step from now on.
    pub fn observe(&mut self, observer: impl Fn(&T, Step) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    /// The task is due now.
    pub fn add(&mut self, task: T) {
        if !self.queued.insert(task.clone()) {
            return;
        }
        self.tell(&task, Step::Due);
        if !self.running.contains(&task) {
            self.due.push_back(task);
        }
    }

    fn tell(&self, task: &T, step: Step) {
        if let Some(observer) = &self.observer {
            observer(task, step);
        }
    }

    /// The task is due at `at`, unless it is due earlier.
    pub fn add_at(&mut self, task: T, at: Timestamp) {
        match self.deadline.get(&task) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => {
                self.waiting.remove(&(*later, task.clone()));
            }
            None => {}
        }
        self.deadline.insert(task.clone(), at);
        self.waiting.insert((at, task));
    }

    /// The next task; it counts as running until `finish`.
    pub fn pop(&mut self, now: Timestamp) -> Option<T> {
        while let Some((at, _)) = self.waiting.first() {
            if *at > now {
                break;
            }
            let (_, task) = self.waiting.pop_first()?;
            self.deadline.remove(&task);
            self.add(task);
        }
        let task = self.due.pop_front()?;
        self.queued.remove(&task);
        self.tell(&task, Step::Taken);
        self.running.insert(task.clone());
        Some(task)
    }

    /// The task has ended.
    pub fn finish(&mut self, task: &T, outcome: Outcome, now: Timestamp) {
        self.running.remove(task);
        if self.queued.contains(task) {
            self.due.push_back(task.clone());
        }
        match outcome {
            Outcome::Done => {
                self.failures.remove(task);
            }
            Outcome::Failed => {
                self.tell(task, Step::Failed);
                let failures = self.failures.entry(task.clone()).or_insert(0);
                let pause = FIRST_PAUSE_MS << (*failures).min(LONGEST_SHIFT);
                *failures += 1;
                self.add_at(task.clone(), now + SignedDuration::from_millis(pause));
            }
        }
    }

    /// When the next waiting task falls due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(at, _)| *at)
    }

    pub fn is_idle(&self) -> bool {
        self.due.is_empty() && self.running.is_empty()
    }
}

const FIRST_PAUSE_MS: i64 = 5;
/// 5 ms · 2^14 is 82 s.
const LONGEST_SHIFT: u32 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn a_task_is_queued_once() {
        let mut queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.pop(at(0)), Some("a"));
        assert_eq!(queue.pop(at(0)), None);
    }

    #[test]
    fn a_running_task_that_becomes_dirty_runs_again_only_after_it_ended() {
        let mut queue = Queue::default();
        queue.add("a");
        queue.pop(at(0));
        queue.add("a");
        assert_eq!(queue.pop(at(0)), None);
        queue.finish(&"a", Outcome::Done, at(0));
        assert_eq!(queue.pop(at(0)), Some("a"));
    }

    #[test]
    fn failures_in_a_row_double_the_pause_and_success_resets_it() {
        let mut queue = Queue::default();
        queue.add("a");
        for (now, next) in [(0, 5), (5, 15), (15, 35)] {
            assert_eq!(queue.pop(at(now)), Some("a"));
            queue.finish(&"a", Outcome::Failed, at(now));
            assert_eq!(queue.next_deadline(), Some(at(next)));
        }
        assert_eq!(queue.pop(at(35)), Some("a"));
        queue.finish(&"a", Outcome::Done, at(35));
        queue.add("a");
        queue.pop(at(40));
        queue.finish(&"a", Outcome::Failed, at(40));
        assert_eq!(queue.next_deadline(), Some(at(45)));
    }

    #[test]
    fn the_earliest_of_several_deadlines_counts() {
        let mut queue = Queue::default();
        queue.add_at("a", at(50));
        queue.add_at("a", at(20));
        queue.add_at("a", at(90));
        assert_eq!(queue.next_deadline(), Some(at(20)));
        assert_eq!(queue.pop(at(20)), Some("a"));
        assert_eq!(queue.next_deadline(), None);
    }
}
