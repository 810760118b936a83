//! Which set belongs to a template, and the annotations that carry revisions. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::SetRef;
use crate::revisions;

pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
pub const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// What begins so is for this orchestrator and about the Deployment.
const OURS: &str = "orchestrator.io/";
/// Of a revision's history so much is kept.
const LONGEST_HISTORY_CHARS: usize = 2000;

/// Annotations of the Deployment that its sets do not inherit.
const NOT_INHERITED: [&str; 6] = [
    LAST_APPLIED,
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    ROLLBACK_TO,
];

/// The hash that names a template's set; `collisions` makes it another one.
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    revisions::hash(
        &serde_json::to_value(template).unwrap_or(Value::Null),
        collisions,
    )
}

/// The set whose template is the Deployment's; the oldest, if several.
pub fn find_new<'a>(template: &PodTemplateSpec, sets: &[SetRef<'a>]) -> Option<SetRef<'a>> {
    let wanted = without_hash(template);
    let same = sets.iter().filter(|(_, row)| {
        row.template
            .as_ref()
            .is_some_and(|template| without_hash(template) == wanted)
    });
    same.min_by_key(|(set, _)| (set.meta.created, set.key.clone()))
        .copied()
}

/// The revision that a set's annotation tells; 0 without one.
pub fn revision(annotations: &BTreeMap<String, String>) -> i64 {
    annotations
        .get(REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The annotations that the new set should have, given what it has: the Deployment's, and the
/// revision, which only rises; a revision that it had before goes to its history.
pub fn new_set_annotations(
    deployment: &Deployment,
    current: &BTreeMap<String, String>,
    next_revision: i64,
) -> BTreeMap<String, String> {
    let mut wanted = current.clone();
    let inherited = deployment.metadata.annotations.iter().flatten();
    for (key, value) in inherited.filter(|(key, _)| is_inherited(key)) {
        wanted.insert(key.clone(), value.clone());
    }
    let old = revision(current);
    if old < next_revision {
        wanted.insert(REVISION.to_owned(), next_revision.to_string());
        if old > 0 {
            let history = wanted.entry(REVISION_HISTORY.to_owned()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&old.to_string());
            while history.len() > LONGEST_HISTORY_CHARS {
                let rest = history.split_once(',').map(|(_, rest)| rest.to_owned());
                *history = rest.unwrap_or_default();
            }
        }
    }
    wanted
}

/// Whether a set gets this annotation of its Deployment.
pub fn is_inherited(key: &str) -> bool {
    !NOT_INHERITED.contains(&key) && !key.starts_with(OURS)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template
        .metadata
        .as_mut()
        .and_then(|meta| meta.labels.as_mut())
    {
        labels.remove(HASH_LABEL);
        if labels.is_empty()
            && let Some(meta) = template.metadata.as_mut()
        {
            meta.labels = None;
        }
    }
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_hash_depends_on_the_template_and_on_collisions_only() {
        let template = PodTemplateSpec::default();
        assert_eq!(
            template_hash(&template, 0),
            template_hash(&template.clone(), 0)
        );
        assert_ne!(template_hash(&template, 0), template_hash(&template, 1));
    }

    #[test]
    fn a_set_that_becomes_new_again_gets_the_next_revision_and_keeps_its_history() {
        let deployment = Deployment::default();
        let first = new_set_annotations(&deployment, &annotations(&[(REVISION, "1")]), 3);
        assert_eq!(
            first,
            annotations(&[(REVISION, "3"), (REVISION_HISTORY, "1")])
        );
        let second = new_set_annotations(&deployment, &first, 5);
        assert_eq!(
            second,
            annotations(&[(REVISION, "5"), (REVISION_HISTORY, "1,3")])
        );
        assert_eq!(new_set_annotations(&deployment, &second, 5), second);
    }

    #[test]
    fn the_change_cause_is_inherited_and_the_applied_configuration_is_not() {
        let mut deployment = Deployment::default();
        let cause = ("kubernetes.io/change-cause", "because");
        deployment.metadata.annotations = Some(annotations(&[cause, (LAST_APPLIED, "{}")]));
        let wanted = new_set_annotations(&deployment, &BTreeMap::new(), 1);
        assert_eq!(wanted, annotations(&[cause, (REVISION, "1")]));
    }
}
