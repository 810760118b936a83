//! Which numbers of a range are taken, and which is the next free one: for addresses and ports. Pure.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Numbers of a range, each of which is taken or free. A freed number rests: the search for the next goes on
/// behind the last that was found, and comes round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocator {
    first: u128,
    last: u128,
    /// Numbers below are found only when no other is left.
    spared_below: u128,
    taken: BTreeSet<u128>,
    /// Where the search goes on.
    next: u128,
}

impl Allocator {
    pub fn new(range: RangeInclusive<u128>) -> Self {
        let (first, last) = range.into_inner();
        Self {
            first,
            last,
            spared_below: first,
            taken: BTreeSet::new(),
            next: first,
        }
    }

    /// Leaves the numbers below this one for those that are asked for by number, while there are others.
    pub fn sparing_below(mut self, number: u128) -> Self {
        self.spared_below = number;
        self.next = self.next.max(number);
        self
    }

    pub fn contains(&self, number: u128) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// Whether the number is in the range and free.
    pub fn is_free(&self, number: u128) -> bool {
        self.contains(number) && !self.taken.contains(&number)
    }

    /// Takes a number; `false` if it is taken or not in the range.
    pub fn take(&mut self, number: u128) -> bool {
        self.contains(number) && self.taken.insert(number)
    }

    /// Takes the next free number; `None` if all are taken.
    pub fn take_next(&mut self) -> Option<u128> {
        let middle = self
            .next
            .clamp(self.spared_below, self.last.max(self.spared_below));
        let found = self
            .lowest_free(middle, self.last)
            .or_else(|| self.lowest_free(self.spared_below, middle))
            .or_else(|| self.lowest_free(self.first, self.last))?;
        self.taken.insert(found);
        self.next = found.saturating_add(1);
        Some(found)
    }

    /// Has the search go on behind a number, if it has not come further yet.
    pub fn go_on_after(&mut self, number: u128) {
        self.next = self.next.max(number.saturating_add(1));
    }

    /// Frees a number; one that is free is fine.
    pub fn free(&mut self, number: u128) {
        self.taken.remove(&number);
    }

    /// The numbers that are taken, lowest first.
    pub fn taken(&self) -> impl Iterator<Item = u128> {
        self.taken.iter().copied()
    }

    fn lowest_free(&self, from: u128, to: u128) -> Option<u128> {
        let to = to.min(self.last);
        if from > to {
            return None;
        }
        let mut free = from;
        for taken in self.taken.range(from..=to) {
            if *taken != free {
                break;
            }
            // The last of all numbers has none behind it.
            free = taken.checked_add(1)?;
        }
        (free <= to).then_some(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(allocator: &mut Allocator, times: usize) -> Vec<Option<u128>> {
        (0..times).map(|_| allocator.take_next()).collect()
    }

    #[test]
    fn a_freed_number_rests_until_the_search_comes_round() {
        let mut allocator = Allocator::new(2..=5);
        assert_eq!(found(&mut allocator, 2), [Some(2), Some(3)]);
        allocator.free(2);
        let rest = [Some(4), Some(5), Some(2), None];
        assert_eq!(found(&mut allocator, 4), rest);
        allocator.free(4);
        assert_eq!(found(&mut allocator, 2), [Some(4), None]);
    }

    #[test]
    fn low_numbers_are_spared_while_there_are_others() {
        let mut allocator = Allocator::new(1..=6).sparing_below(4);
        assert!(allocator.take(5));
        let all = [Some(4), Some(6), Some(1), Some(2), Some(3), None];
        assert_eq!(found(&mut allocator, 6), all);
        allocator.free(6);
        allocator.free(1);
        assert_eq!(found(&mut allocator, 3), [Some(6), Some(1), None]);
    }

    #[test]
    fn a_number_is_taken_once_and_only_in_the_range() {
        let mut allocator = Allocator::new(10..=12);
        for (number, expected) in [(11, true), (11, false), (9, false), (13, false)] {
            assert_eq!(allocator.is_free(number), expected, "{number}");
            assert_eq!(allocator.take(number), expected, "{number}");
        }
        assert_eq!(allocator.taken().collect::<Vec<_>>(), [11]);
        allocator.free(11);
        allocator.free(99);
        assert!(allocator.is_free(11));
    }

    #[test]
    fn the_search_goes_on_where_it_is_told() {
        let mut allocator = Allocator::new(2..=9);
        allocator.go_on_after(7);
        assert_eq!(found(&mut allocator, 3), [Some(8), Some(9), Some(2)]);
    }

    #[test]
    fn the_ends_of_all_numbers_are_numbers() {
        let mut whole = Allocator::new(0..=u128::MAX);
        whole.go_on_after(u128::MAX);
        assert_eq!(found(&mut whole, 2), [Some(u128::MAX), Some(0)]);
        #[expect(clippy::reversed_empty_ranges, reason = "a range of nothing")]
        let mut empty = Allocator::new(2..=1);
        assert_eq!(empty.take_next(), None);
        assert!(!empty.take(1));
    }
}
