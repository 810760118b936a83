//! Names of pods whose creation is under way. Pure.
//!
//! A create whose answer is lost may have happened. It is therefore asked for again by the same name, which the
//! server refuses if the pod is there: one pod too many cannot come of it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

/// The names that one Job or one set has drawn and of which no pod has been seen yet.
#[derive(Debug)]
pub struct Names {
    since: Timestamp,
    drawn: u64,
    open: BTreeMap<Option<u32>, Vec<String>>,
}

impl Names {
    /// `since` tells the names of this process from those of one before it.
    pub fn new(since: Timestamp) -> Self {
        Self {
            since,
            drawn: 0,
            open: BTreeMap::new(),
        }
    }

    /// Forgets names that are taken, by whatever pod.
    pub fn settle(&mut self, is_taken: impl Fn(&str) -> bool) {
        for names in self.open.values_mut() {
            names.retain(|name| !is_taken(name));
        }
        self.open.retain(|_, names| !names.is_empty());
    }

    /// Names for the next pods of an owner (its name and uid), one for each of `indexes`: those asked for before
    /// come first.
    pub fn draw(
        &mut self,
        owner: (&str, &str),
        indexes: &[Option<u32>],
        is_taken: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut used: BTreeMap<Option<u32>, usize> = BTreeMap::new();
        let mut names = Vec::with_capacity(indexes.len());
        for index in indexes {
            let place = used.entry(*index).or_insert(0);
            let open = self.open.entry(*index).or_default();
            while open.len() <= *place {
                self.drawn += 1;
                let name = name(owner, *index, self.since, self.drawn);
                if !is_taken(&name) && !open.contains(&name) {
                    open.push(name);
                }
            }
            names.push(open[*place].clone());
            *place += 1;
        }
        names
    }
}

fn name((owner, uid): (&str, &str), index: Option<u32>, since: Timestamp, drawn: u64) -> String {
    let mut hasher = DefaultHasher::new();
    (uid, since.as_nanosecond(), drawn).hash(&mut hasher);
    let prefix = match index {
        None => format!("{owner}-"),
        Some(index) => format!("{owner}-{index}-"),
    };
    api::meta::generated_name(&prefix, hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_drawn_again_until_its_pod_is_seen() {
        let mut names = Names::new(Timestamp::UNIX_EPOCH);
        let free = |_: &str| false;
        let first = names.draw(("a", "u"), &[None, None], free);
        assert_ne!(first[0], first[1]);
        assert!(
            first[0].starts_with("a-") && first[0].len() == 7,
            "{first:?}"
        );
        assert_eq!(
            names.draw(("a", "u"), &[None, None, None], free)[..2],
            first
        );
        names.settle(|name| name == first[0]);
        assert_eq!(names.draw(("a", "u"), &[None], free)[0], first[1]);
        names.settle(|_| true);
        assert!(!first.contains(&names.draw(("a", "u"), &[None], free)[0]));
    }

    #[test]
    fn names_of_indexes_hold_the_index_and_are_their_own() {
        let mut names = Names::new(Timestamp::UNIX_EPOCH);
        let free = |_: &str| false;
        let drawn = names.draw(("a", "u"), &[Some(3), Some(12)], free);
        assert!(drawn[0].starts_with("a-3-") && drawn[1].starts_with("a-12-"));
        assert_eq!(names.draw(("a", "u"), &[Some(12)], free)[0], drawn[1]);
    }
}
