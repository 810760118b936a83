//! The pods of a StatefulSet: their names, and what each of them carries. Pure.

use serde_json::{Value, json};

use super::{View, claims};
use crate::action::{self, Action, Create};
use crate::object::Object;
use crate::revisions::{self, POD_LABEL, RevisionRef};
use client::Kind;

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// `web-0` of the set `web`.
pub fn name(set: &Object, ordinal: i64) -> String {
    format!("{}-{ordinal}", set.key.name)
}

/// The ordinal of a pod of the set, by its name. None: the name is no such pod's.
pub fn ordinal(set: &Object, pod: &str) -> Option<i64> {
    let digits = pod.strip_prefix(set.key.name.as_str())?.strip_prefix('-')?;
    let ordinal: i64 = digits.parse().ok()?;
    (ordinal >= 0 && ordinal.to_string() == digits).then_some(ordinal)
}

/// The revision that a pod was made of.
pub fn revision(pod: &Object) -> &str {
    pod.meta.labels.get(POD_LABEL).map_or("", String::as_str)
}

/// Makes the pod, and tells of it.
pub fn create(view: &View, ordinal: i64, (revision, row): RevisionRef) -> [Action; 2] {
    let set = &view.object.key;
    let name = name(view.object, ordinal);
    let mut template = revisions::template(row);
    let mut metadata = template["metadata"].take();
    metadata["name"] = name.as_str().into();
    metadata["generateName"] = format!("{}-", set.name).into();
    metadata["namespace"] = set.namespace.as_str().into();
    metadata["labels"][POD_LABEL] = revision.key.name.as_str().into();
    for (label, value) in identity(&name, ordinal) {
        metadata["labels"][label] = value.into();
    }
    let owner = action::controller_reference(view.object);
    metadata["ownerReferences"] = action::owners_json(&[owner]);
    let mut spec = template["spec"].take();
    spec["hostname"] = name.as_str().into();
    if !view.row.service.is_empty() {
        spec["subdomain"] = view.row.service.as_str().into();
    }
    if !view.row.claims.is_empty() {
        spec["volumes"] = volumes(view, ordinal, &spec["volumes"]);
    }
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    let create = Action::Create(Create {
        kind: Kind::POD,
        namespace: set.namespace.clone(),
        object,
        if_absent: false,
        about: None,
    });
    [create, told(view, "SuccessfulCreate", "create", &name)]
}

/// Deletes the pod, and tells of it.
pub fn delete(view: &View, pod: &Object) -> [Action; 2] {
    let told = told(view, "SuccessfulDelete", "delete", &pod.key.name);
    [Action::delete(pod), told]
}

/// Gives a pod the labels of its identity, if it lacks them.
pub fn identify(pod: &Object, ordinal: i64) -> Option<Action> {
    let wanted = identity(&pod.key.name, ordinal);
    let has = |(label, value): &(&str, String)| pod.meta.labels.get(*label) == Some(value);
    if wanted.iter().all(has) {
        return None;
    }
    let labels: serde_json::Map<String, Value> = wanted
        .into_iter()
        .map(|(label, value)| (label.to_owned(), value.into()))
        .collect();
    let body = json!({"metadata": {"labels": labels}});
    Some(Action::merge(pod, "", body))
}

fn identity(name: &str, ordinal: i64) -> [(&'static str, String); 2] {
    [
        (NAME_LABEL, name.to_owned()),
        (INDEX_LABEL, ordinal.to_string()),
    ]
}

/// A volume of the template makes way for the claim of its name.
fn volumes(view: &View, ordinal: i64, template: &Value) -> Value {
    let set = &view.object.key.name;
    let mine = view.row.claims.iter().map(|(name, _)| {
        let claim = claims::name(name, set, ordinal);
        json!({"name": name, "persistentVolumeClaim": {"claimName": claim}})
    });
    let is_mine = |volume: &&Value| {
        let mut names = view.row.claims.iter();
        names.any(|(name, _)| volume["name"] == name.as_str())
    };
    let others = template.as_array().into_iter().flatten();
    mine.chain(others.filter(|volume| !is_mine(volume)).cloned())
        .collect()
}

fn told(view: &View, reason: &'static str, verb: &str, pod: &str) -> Action {
    let set = &view.object.key.name;
    let text = format!("{verb} Pod {pod} in StatefulSet {set} successful");
    Action::normal(view.object, reason, text)
}
