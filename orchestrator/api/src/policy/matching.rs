//! Which requests a policy, a binding or a webhook is for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{list, text};
use crate::{meta, selector::LabelSelector};

/// `matchConstraints` of a policy, `matchResources` of a binding.
#[derive(Debug)]
pub struct Constraints {
    rules: Box<[Rule]>,
    excluded: Box<[Rule]>,
    namespaces: LabelSelector,
    objects: LabelSelector,
    /// Other versions of the same objects match too.
    pub equivalents: bool,
}

/// A rule of a policy or a webhook (`RuleWithOperations` of admissionregistration.k8s.io/v1).
#[derive(Debug)]
pub struct Rule {
    operations: Box<[Box<str>]>,
    groups: Box<[Box<str>]>,
    versions: Box<[Box<str>]>,
    resources: Box<[Box<str>]>,
    /// Webhooks' rules have none.
    names: Box<[Box<str>]>,
    /// Whether it is for cluster-scoped objects; None: for all.
    scope: Option<bool>,
}

/// What a rule is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `CREATE` and the like.
    pub operation: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub plural: &'a str,
    /// Empty for the whole object.
    pub subresource: &'a str,
    pub name: &'a str,
    /// The object is a namespace, or lives in none.
    pub cluster_scoped: bool,
}

impl Constraints {
    pub fn of(given: &Value) -> Self {
        let rules = |field: &str| list(&given[field]).map(Rule::of).collect();
        Self {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            namespaces: selector(&given["namespaceSelector"]),
            objects: selector(&given["objectSelector"]),
            equivalents: given["matchPolicy"] != "Exact",
        }
    }

    /// The plurals that rules name; None: there is a rule for all.
    pub fn plurals(&self) -> Option<BTreeSet<&str>> {
        let resources = self.rules.iter().flat_map(|rule| &rule.resources);
        let plurals = resources.map(|resource| resource.split('/').next().unwrap_or_default());
        let plurals: BTreeSet<&str> = plurals.collect();
        (!plurals.is_empty() && !plurals.contains("*")).then_some(plurals)
    }

    /// Whether a rule names one of the forms in which the request can be seen. No rules are for all.
    pub fn match_rules<'a>(&self, forms: impl Iterator<Item = Request<'a>> + Clone) -> bool {
        let any = |rules: &[Rule]| {
            let mut forms = forms.clone();
            forms.any(|form| rules.iter().any(|rule| rule.matches(&form)))
        };
        !any(&self.excluded) && (self.rules.is_empty() || any(&self.rules))
    }

    /// Whether an object is selected by the labels that it has or had.
    pub fn select_object(&self, new: Option<&Value>, old: Option<&Value>) -> bool {
        if self.objects.is_everything() {
            return true;
        }
        let fits = |object: &Value| {
            object["metadata"].is_object() && self.objects.matches(&meta::labels(object))
        };
        new.is_some_and(fits) || old.is_some_and(fits)
    }

    pub fn selects_all_namespaces(&self) -> bool {
        self.namespaces.is_everything()
    }

    pub fn select_namespace(&self, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.matches(labels)
    }
}

impl Rule {
    pub fn of(rule: &Value) -> Self {
        let texts = |field: &str| -> Box<[Box<str>]> {
            let texts = list(&rule[field]).filter_map(Value::as_str);
            texts.map(Into::into).collect()
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            scope: match text(&rule["scope"]) {
                "Cluster" => Some(true),
                "Namespaced" => Some(false),
                _ => None,
            },
        }
    }

    pub fn matches(&self, request: &Request<'_>) -> bool {
        let any = |words: &[Box<str>], word: &str| {
            words
                .iter()
                .any(|allowed| &**allowed == "*" || &**allowed == word)
        };
        let is = |allowed: &str, word: &str| allowed == "*" || allowed == word;
        let named = |resource: &str| {
            let (plural, sub) = resource.split_once('/').unwrap_or((resource, ""));
            is(plural, request.plural) && is(sub, request.subresource)
        };
        self.scope
            .is_none_or(|cluster| cluster == request.cluster_scoped)
            && any(&self.operations, request.operation)
            && any(&self.groups, request.group)
            && any(&self.versions, request.version)
            && self.resources.iter().any(|resource| named(resource))
            && (self.names.is_empty() || self.names.iter().any(|name| &**name == request.name))
    }
}

/// Selectors were checked when they were written; one that cannot be read selects everything, so that a
/// policy or webhook is rather asked too often than passed by.
pub fn selector(value: &Value) -> LabelSelector {
    let parsed = serde_json::from_value(value.clone()).ok();
    let selector = parsed.and_then(|parsed: Option<_>| {
        parsed.and_then(|selector| LabelSelector::from_object(Some(&selector)).ok())
    });
    selector.unwrap_or_else(LabelSelector::everything)
}
