//! Names of API versions, in the order in which clients prefer them.

use std::cmp::Ordering;
use std::fmt;

use crate::resource::Name;

/// A version's place: `v2`, `v1`, `v2beta1`, `v1beta2`, `v1alpha1`, then all others by the alphabet. The
/// first of these is the greatest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priority(Name);

impl Priority {
    pub fn of(version: impl Into<String>) -> Self {
        Self(version.into().into())
    }

    /// Stage (alpha, beta, stable), major and minor number.
    fn parts(&self) -> Option<(u8, u32, u32)> {
        let number = |text: &str| match text.as_bytes() {
            [b'1'..=b'9', ..] => text.parse::<u32>().ok(),
            _ => None,
        };
        let rest = self.0.strip_prefix('v')?;
        if let Some(major) = number(rest) {
            return Some((2, major, 0));
        }
        let stages = [(1, "beta"), (0, "alpha")];
        stages.iter().find_map(|(stage, word)| {
            let (major, minor) = rest.split_once(word)?;
            Some((*stage, number(major)?, number(minor)?))
        })
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.parts(), other.parts()) {
            (None, None) => other.0.cmp(&self.0),
            (mine, theirs) => mine.cmp(&theirs),
        }
    }
}

impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_stage_then_by_number() {
        let sorted = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo1",
            "foo10",
            "v01",
        ];
        let mut versions: Vec<Priority> = sorted.iter().map(|v| Priority::of(*v)).collect();
        versions.reverse();
        versions.sort_by(|a, b| b.cmp(a));
        let versions: Vec<String> = versions.iter().map(Priority::to_string).collect();
        assert_eq!(versions, sorted);
    }
}
