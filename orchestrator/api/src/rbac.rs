//! What the rules of roles allow (rbac.authorization.k8s.io/v1). Pure: who has which role is said by
//! bindings, and who follows those is the API server.

mod cover;
mod rules;

pub use cover::{compact, missing, quoted};
pub use rules::{RuleSet, mask_of};

use serde::{Deserialize, Deserializer, Serialize};

/// What the groups, verbs and resources of a rule call all of them.
pub const ALL: &str = "*";

/// What somebody wants to do: to objects, or, where there is a path, to that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// `get`, `list`, `use`, `impersonate`: any word. Of a path its method in small letters.
    pub verb: &'a str,
    /// Empty: the core group.
    pub group: &'a str,
    pub resource: &'a str,
    /// Empty: the whole object.
    pub subresource: &'a str,
    /// Empty: the cluster, or all namespaces.
    pub namespace: &'a str,
    /// Empty: all objects, or a new one.
    pub name: &'a str,
    /// Of a request for something that is no resource.
    pub path: Option<&'a str>,
}

/// One rule of a role: verbs on resources, or on paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    #[serde(deserialize_with = "list")]
    pub verbs: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// `pods`, `pods/status`, `*/scale`, `*`
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Empty: all objects.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// `/healthz`, `/healthz/*`, `*`
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub paths: Vec<String>,
}

impl Rule {
    /// Whether the rule allows this.
    pub fn allows(&self, wanted: &Attributes<'_>) -> bool {
        match wanted.path {
            Some(path) => {
                has(&self.verbs, wanted.verb)
                    && self.paths.iter().any(|rule| covers_path(rule, path))
            }
            None => {
                let mut resources = self.resources.iter();
                self.allows_some(wanted)
                    && resources
                        .any(|rule| covers_resource(rule, wanted.resource, wanted.subresource))
            }
        }
    }

    /// The same without a look at the resource.
    fn allows_some(&self, wanted: &Attributes<'_>) -> bool {
        let names = &self.resource_names;
        has(&self.verbs, wanted.verb)
            && has(&self.api_groups, wanted.group)
            && (names.is_empty() || names.iter().any(|name| name == wanted.name))
    }
}

/// Whether the words of a rule have this one.
fn has(words: &[String], wanted: &str) -> bool {
    words.iter().any(|word| word == ALL || word == wanted)
}

/// A path of a rule may end with a star, which stands for whatever follows.
fn covers_path(rule: &str, path: &str) -> bool {
    match rule.ends_with('*') {
        true => path.starts_with(rule.trim_end_matches('*')),
        false => rule == path,
    }
}

/// A resource of a rule may be all of them, or a subresource of all of them.
fn covers_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    match rule.split_once('/') {
        Some((of, sub)) => sub == subresource && !sub.is_empty() && (of == ALL || of == resource),
        None => subresource.is_empty() && rule == resource,
    }
}

/// A list that is null is empty.
fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
