//! Sets of completion indexes, kept and written as ranges: `0,2-4`. Pure.

use std::fmt;

/// Indexes as disjoint ranges, ascending, none of them next to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(u32, u32)>);

impl Indexes {
    /// Reads `text`, in which parts that are no range say nothing. Only indexes below `below` are kept.
    pub fn parse(text: &str, below: u32) -> Self {
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            let last = last.min(below.checked_sub(1)?);
            (first <= last).then_some((first, last))
        };
        let mut ranges: Vec<(u32, u32)> = text.split(',').filter_map(range).collect();
        ranges.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    pub fn insert(&mut self, index: u32) {
        let at = self.0.partition_point(|(_, last)| *last < index);
        if self.0.get(at).is_some_and(|(first, _)| *first <= index) {
            return;
        }
        let joins_before = at > 0 && self.0[at - 1].1 + 1 == index;
        let joins_after = self
            .0
            .get(at)
            .is_some_and(|(first, _)| *first == index.saturating_add(1));
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = index,
            (false, true) => self.0[at].0 = index,
            (false, false) => self.0.insert(at, (index, index)),
        }
    }

    /// The last index of the range that holds `index`.
    pub fn end_of(&self, index: u32) -> Option<u32> {
        let at = self.0.partition_point(|(_, last)| *last < index);
        let (first, last) = self.0.get(at)?;
        (*first <= index).then_some(*last)
    }

    pub fn contains(&self, index: u32) -> bool {
        self.end_of(index).is_some()
    }

    pub fn len(&self) -> u64 {
        let length = |(first, last): &(u32, u32)| u64::from(last - first) + 1;
        self.0.iter().map(length).sum()
    }

    /// How many indexes are in both.
    pub fn common(&self, other: &Self) -> u64 {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut count = 0;
        while let (Some((a, b)), Some((c, d))) = (mine.peek(), theirs.peek()) {
            let (first, last) = (a.max(c), b.min(d));
            if first <= last {
                count += u64::from(last - first) + 1;
            }
            if b < d {
                mine.next();
            } else {
                theirs.next();
            }
        }
        count
    }
}

/// As Kubernetes writes them: from three in a row on with a hyphen.
impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_and_written_as_kubernetes_does() {
        let read = |text: &str| Indexes::parse(text, 10).to_string();
        assert_eq!(read("0,2,3,5,6,7"), "0,2,3,5-7");
        assert_eq!(read("7-20,1"), "1,7-9", "cut at the number of completions");
        assert_eq!(read("3-1,x,-,4-4"), "4");
        assert_eq!(read(""), "");
        assert_eq!(Indexes::parse("0-4294967295", 0).len(), 0);
        assert_eq!(
            Indexes::parse("0-4294967295", u32::MAX).len(),
            u64::from(u32::MAX)
        );
    }

    proptest! {
        #[test]
        fn ranges_hold_what_was_put_in(a in prop::collection::vec(0_u32..40, 0..30), b in prop::collection::vec(0_u32..40, 0..30)) {
            let ranges = |all: &[u32]| {
                let mut ranges = Indexes::default();
                all.iter().for_each(|index| ranges.insert(*index));
                ranges
            };
            let (first, second) = (ranges(&a), ranges(&b));
            let (a, b): (BTreeSet<u32>, BTreeSet<u32>) = (a.into_iter().collect(), b.into_iter().collect());
            prop_assert_eq!(first.len(), a.len() as u64);
            prop_assert!((0..40).all(|index| first.contains(index) == a.contains(&index)));
            prop_assert_eq!(first.common(&second), a.intersection(&b).count() as u64);
            prop_assert_eq!(Indexes::parse(&first.to_string(), 40), first);
        }
    }
}
