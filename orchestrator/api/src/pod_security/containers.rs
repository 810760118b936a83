//! The containers of a pod, and how a violation names them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Violation;

/// What shares a setting: the pod itself, and its containers.
#[derive(Default)]
pub struct Setters<'a> {
    pub pod: bool,
    pub containers: Vec<&'a str>,
}

/// Init containers, containers, then ephemeral ones.
pub fn all(spec: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let lists = lists.map(|list| spec[list].as_array());
    lists.into_iter().flatten().flatten()
}

/// The names of the containers of which something is true.
pub fn where_<'a>(spec: &'a Value, is_so: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
    let found = all(spec).filter(|container| is_so(container));
    found.map(name).collect()
}

pub fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

/// `container "a"`, or `containers "a", "b"`.
pub fn named(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

/// `"a", "b"`
pub fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items = items.into_iter();
    let items: Vec<String> = items.map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

pub fn plural(word: &str, count: usize) -> String {
    match count {
        1 => word.to_owned(),
        _ => format!("{word}s"),
    }
}

impl<'a> Setters<'a> {
    /// Those whose value at a pointer below `securityContext` is forbidden; absent values are never.
    pub fn of(
        spec: &'a Value,
        pointer: &str,
        mut is_forbidden: impl FnMut(&'a Value) -> bool,
    ) -> Self {
        let mut forbidden = |holder: &'a Value| {
            let value = holder["securityContext"].pointer(pointer);
            value.is_some_and(|value| !value.is_null() && is_forbidden(value))
        };
        let pod = forbidden(spec);
        let containers = all(spec).filter(|container| forbidden(container));
        Self {
            pod,
            containers: containers.map(name).collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.pod && self.containers.is_empty()
    }

    /// `pod and containers "a", "b"`, with what else says it.
    pub fn text(&self, also: Option<String>) -> String {
        let pod = self.pod.then(|| "pod".to_owned());
        let containers = (!self.containers.is_empty()).then(|| named(&self.containers));
        let all: Vec<String> = [pod, containers, also].into_iter().flatten().collect();
        all.join(" and ")
    }

    pub fn violation(&self, reason: &'static str, what: &str) -> Option<Violation> {
        (!self.is_empty()).then(|| Violation {
            reason,
            detail: format!("{} {what}", self.text(None)),
        })
    }
}

/// Values that were found wrong, each once, in order.
pub type Values<'a> = BTreeSet<&'a str>;
