//! The pods of a DaemonSet, each led to one node by its affinity. Pure.

use serde_json::{Value, json};

use super::View;
use crate::action::{self, Action, Create, Delete};
use crate::object::Object;
use crate::revisions::{self, POD_LABEL};
use client::Kind;

const GENERATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

/// Makes the pod of a node.
pub fn create(view: &View, node: &str) -> Action {
    let set = &view.object.key;
    let (revision, row) = view.revision;
    let mut template = revisions::template(row);
    let mut metadata = template["metadata"].take();
    metadata["generateName"] = format!("{}-", set.name).into();
    metadata["namespace"] = set.namespace.as_str().into();
    metadata["labels"][POD_LABEL] = hash(revision).into();
    if let Some(generation) = view.row.annotations.get(GENERATION) {
        metadata["labels"][GENERATION_LABEL] = generation.as_str().into();
    }
    let owner = action::controller_reference(view.object);
    metadata["ownerReferences"] = action::owners_json(&[owner]);
    let mut spec = template["spec"].take();
    spec["tolerations"] = json!(view.row.placement.tolerations);
    lead(&mut spec, node);
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    Action::Create(Create {
        kind: Kind::POD,
        namespace: set.namespace.clone(),
        object,
        if_absent: false,
        about: Some(action::about(view.object)),
    })
}

pub fn delete(view: &View, pod: &Object) -> Action {
    Action::Delete(Delete {
        about: Some(action::about(view.object)),
        ..Delete::of(pod)
    })
}

/// The hash that a revision's pods carry.
pub fn hash(revision: &Object) -> &str {
    let label = revision.meta.labels.get(POD_LABEL);
    label.map_or(revision.key.name.as_str(), String::as_str)
}

/// The scheduler binds the pod, and to this node only: each term of the affinity demands its name.
fn lead(spec: &mut Value, node: &str) {
    let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let affinity = &mut spec["affinity"]["nodeAffinity"];
    let required = &mut affinity["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"].as_array_mut() {
        Some(terms) if !terms.is_empty() => {
            terms
                .iter_mut()
                .for_each(|term| term["matchFields"] = field.clone());
        }
        _ => required["nodeSelectorTerms"] = json!([{"matchFields": field}]),
    }
}
