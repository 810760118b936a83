//! The numbers of Services and backends.
//!
//! Pure. A number is read back from the maps, never kept elsewhere: a restarted agent hands out none
//! that a live connection holds. Backends are numbered per Service row, so that one which leaves a
//! Service has its flows there, and only there, choose again.

use std::collections::BTreeSet;

use orchestrator_common::maps::services::MAX_BACKENDS;

use super::table::Tables;

/// What is free. 0 is no number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    pub services: Numbers,
    pub backends: Numbers,
}

impl Ids {
    /// Everything but what the rows hold. Rows under a number that no Service has hold theirs too,
    /// until they are pruned.
    pub fn read(actual: &Tables) -> Self {
        let backends = actual.backends.values().map(|backend| backend.id);
        Self {
            services: Numbers::without(actual.numbers(), u32::MAX),
            backends: Numbers::without(backends.collect(), MAX_BACKENDS),
        }
    }
}

/// Hands out the lowest free number, from 1 to a limit (exclusive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Free ones below `next`.
    holes: BTreeSet<u32>,
    next: u32,
    limit: u32,
    /// Handed out, and perhaps in no row yet.
    taken: Vec<u32>,
}

impl Numbers {
    fn without(used: BTreeSet<u32>, limit: u32) -> Self {
        let next = used.last().map_or(1, |last| last.saturating_add(1));
        let holes = (1..next).filter(|number| !used.contains(number)).collect();
        Self {
            holes,
            next,
            limit,
            taken: Vec::new(),
        }
    }

    /// `None`: all are taken.
    pub fn take(&mut self) -> Option<u32> {
        let number = match self.holes.pop_first() {
            Some(hole) => hole,
            None if self.next >= self.limit => return None,
            None => {
                self.next += 1;
                self.next - 1
            }
        };
        self.taken.push(number);
        Some(number)
    }

    pub fn give_back(&mut self, number: u32) {
        if number != 0 && number < self.next {
            self.holes.insert(number);
        }
    }

    /// What was taken since the last call.
    pub fn taken(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_comes_first() {
        let mut numbers = Numbers::without([2, 5].into(), 10);
        let taken: Vec<_> = std::iter::from_fn(|| numbers.take()).collect();
        assert_eq!(taken, [1, 3, 4, 6, 7, 8, 9]);
        numbers.give_back(4);
        assert_eq!(numbers.take(), Some(4));
        assert_eq!(numbers.take(), None);
    }
}
