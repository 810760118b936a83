//! The rules of one role, arranged by resource: a decision looks only at the rules that name what is
//! wanted.

use std::collections::BTreeMap;

use super::{ALL, Attributes, Rule, covers_path, has};

/// The rules of a role. Made once, when the role changes.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    /// By the resource before the slash: what follows it, and the number of the rule.
    by_resource: BTreeMap<Box<str>, Vec<(Box<str>, usize)>>,
    /// The numbers of those for paths.
    of_paths: Vec<usize>,
    mask: u64,
}

/// The bit of paths in a mask; the others are of resources.
const PATHS: u64 = 1 << 63;

impl RuleSet {
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut set = Self::default();
        for (number, rule) in rules.iter().enumerate() {
            if !rule.paths.is_empty() {
                set.of_paths.push(number);
                set.mask |= PATHS;
            }
            for resource in &rule.resources {
                let (of, sub) = resource.split_once('/').unwrap_or((resource, ""));
                // `pods/` is nothing's name.
                if resource.ends_with('/') {
                    continue;
                }
                set.mask |= if of == ALL { !PATHS } else { bit(of) };
                let entries = set.by_resource.entry(of.into()).or_default();
                entries.push((sub.into(), number));
            }
        }
        set.rules = rules;
        set
    }

    /// As they were given.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What the rules may be about: one that shares no bit with [`mask_of`] the wanted is about something
    /// else.
    pub fn mask(&self) -> u64 {
        self.mask
    }

    /// Whether any rule allows this.
    pub fn allows(&self, wanted: &Attributes<'_>) -> bool {
        if let Some(path) = wanted.path {
            let mut rules = self.of_paths.iter().map(|number| &self.rules[*number]);
            return rules.any(|rule| {
                has(&rule.verbs, wanted.verb)
                    && rule.paths.iter().any(|covered| covers_path(covered, path))
            });
        }
        let sub = wanted.subresource;
        let of = |resource: &str| self.by_resource.get(resource).into_iter().flatten();
        let named = of(wanted.resource).filter(|(of, _)| **of == *sub);
        let of_all = of(ALL).filter(|(of, _)| of.is_empty() || **of == *sub);
        let mut numbers = named.chain(of_all).map(|(_, number)| *number);
        numbers.any(|number| self.rules[number].allows_some(wanted))
    }
}

/// The bit of what is wanted.
pub fn mask_of(wanted: &Attributes<'_>) -> u64 {
    match wanted.path {
        Some(_) => PATHS,
        None => bit(wanted.resource),
    }
}

/// One of 63 bits (FNV-1a of the name).
fn bit(resource: &str) -> u64 {
    let hash = resource
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    1 << ((hash >> 32) % 63)
}
