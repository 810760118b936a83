//! Whether rules give no more than other rules do: nobody may hand on what they do not have.

use std::collections::BTreeMap;

use super::{ALL, Rule, covers_path};

/// What of `wanted` is not in `held`, in pieces: a verb of a resource of a group, or of a path.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let pieces = wanted.iter().flat_map(pieces);
    pieces
        .filter(|piece| !held.iter().any(|rule| rule.covers(piece)))
        .collect()
}

/// The same pieces, with the verbs of one thing in one rule, in order.
pub fn compact(pieces: Vec<Rule>) -> Vec<Rule> {
    let mut by_thing: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    for piece in pieces {
        let mut thing = piece;
        let more = std::mem::take(&mut thing.verbs);
        let verbs = by_thing.entry(thing).or_default();
        for verb in more {
            if !verbs.contains(&verb) {
                verbs.push(verb);
            }
        }
    }
    let rules = by_thing.into_iter();
    rules
        .map(|(thing, verbs)| Rule { verbs, ..thing })
        .collect()
}

/// A rule broken down to what cannot be divided.
fn pieces(rule: &Rule) -> Vec<Rule> {
    let one = |word: &String| vec![word.clone()];
    let mut pieces = Vec::new();
    let names: Vec<Vec<String>> = match rule.resource_names.as_slice() {
        [] => vec![Vec::new()],
        names => names.iter().map(one).collect(),
    };
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                pieces.extend(names.iter().map(|names| Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: names.clone(),
                    paths: Vec::new(),
                }));
            }
        }
    }
    for path in &rule.paths {
        pieces.extend(rule.verbs.iter().map(|verb| Rule {
            verbs: one(verb),
            paths: one(path),
            ..Rule::default()
        }));
    }
    pieces
}

impl Rule {
    /// Whether this rule gives all that the other does.
    fn covers(&self, other: &Self) -> bool {
        let all = |held: &[String], wanted: &[String]| {
            held.iter().any(|word| word == ALL) || wanted.iter().all(|word| held.contains(word))
        };
        let names = self.resource_names.is_empty()
            || !other.resource_names.is_empty()
                && other
                    .resource_names
                    .iter()
                    .all(|name| self.resource_names.contains(name));
        let resource = |wanted: &String| {
            let (_, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
            let of_all = format!("{ALL}/{sub}");
            let covers = |held: &String| held == wanted || !sub.is_empty() && *held == of_all;
            self.resources.iter().any(covers)
        };
        let resources =
            self.resources.iter().any(|held| held == ALL) || other.resources.iter().all(resource);
        let path = |wanted: &String| self.paths.iter().any(|held| covers_path(held, wanted));
        all(&self.verbs, &other.verbs)
            && all(&self.api_groups, &other.api_groups)
            && resources
            && names
            && other.paths.iter().all(path)
    }

    /// As a message shows it.
    pub fn describe(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.paths),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let given = parts.iter().filter(|(_, words)| !words.is_empty());
        let shown = given.map(|(what, words)| format!("{what}:{}", quoted(words)));
        format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

/// `["a" "b"]`, as Kubernetes shows lists of words.
pub fn quoted(words: &[impl AsRef<str>]) -> String {
    let words = words.iter().map(|word| format!("{:?}", word.as_ref()));
    format!("[{}]", words.collect::<Vec<_>>().join(" "))
}
