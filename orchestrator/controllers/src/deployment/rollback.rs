//! Going back to an earlier template: where the old annotation asks for it, and by itself where a rollout has
//! missed its deadline and the Deployment says that it wants that. Pure.
//!
//! ```text
//! rollback.to: N ───────────────────────────────▶ the set of revision N ─┐
//! ProgressDeadlineExceeded ─▶ the newest older set with available pods ──┴▶ its template becomes the Deployment's
//!                              (the set that failed is marked, and is never gone back to)
//! ```

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::revision::{self, HASH_LABEL, ROLLBACK_TO, is_inherited};
use super::status::TIMED_OUT;
use super::{SetRef, View};
use crate::action::Action;

/// On a Deployment, ours: `true` has a rollout that misses its deadline rolled back.
pub const ON_DEADLINE: &str = "orchestrator.io/rollback-on-deadline";
/// On a set whose rollout has missed its deadline.
const FAILED: &str = "orchestrator.io/rollout-failed";

/// The actions of a rollback that is due.
pub fn due(view: &View, new: Option<SetRef>) -> Option<Vec<Action>> {
    let annotations = view.deployment.metadata.annotations.as_ref()?;
    match annotations.get(ROLLBACK_TO) {
        Some(revision) => Some(asked(view, revision.parse().unwrap_or(-1))),
        None => missed(view, new?, annotations),
    }
}

/// A user wrote the annotation, which extensions/v1beta1 has as `rollbackTo`. Zero is the last revision.
fn asked(view: &View, wanted: i64) -> Vec<Action> {
    let mut revisions: Vec<i64> = view.sets.iter().map(number).collect();
    revisions.sort_unstable();
    let wanted = match wanted {
        0 => revisions.iter().rev().nth(1).copied().unwrap_or(-1),
        other => other,
    };
    let is_it = |set: &&SetRef| wanted > 0 && number(set) == wanted;
    let mut done = json!({"metadata": {"annotations": {ROLLBACK_TO: null}}});
    let Some(target) = view.sets.iter().find(is_it) else {
        let text = "Unable to find the revision to rollback to.".to_owned();
        let told = Action::warning(view.object, "DeploymentRollbackRevisionNotFound", text);
        return vec![told, Action::merge(view.object, "", done)];
    };
    let name = &view.object.key.name;
    if revision::find_new(&view.spec().template, &[*target]).is_some() {
        let text = format!(
            "The rollback revision contains the same template as current deployment \"{name}\""
        );
        let told = Action::warning(view.object, "DeploymentRollbackTemplateUnchanged", text);
        return vec![told, Action::merge(view.object, "", done)];
    }
    take_template(view, *target, &mut done);
    let text = format!("Rolled back deployment \"{name}\" to revision {wanted}");
    vec![
        Action::strategic(view.object, "", done),
        Action::normal(view.object, "DeploymentRollback", text),
    ]
}

/// The rollout of the new set has missed its deadline: the newest set before it that still serves takes over.
fn missed(view: &View, new: SetRef, annotations: &BTreeMap<String, String>) -> Option<Vec<Action>> {
    if annotations.get(ON_DEADLINE).map(String::as_str) != Some("true") {
        return None;
    }
    let status = view.deployment.status.as_ref()?;
    let observed = status.observed_generation == Some(view.object.meta.generation);
    let mut conditions = status.conditions.iter().flatten();
    let named = format!("\"{}\"", new.0.key.name);
    // The condition may still be about the set before.
    conditions.find(|it| {
        observed
            && it.reason.as_deref() == Some(TIMED_OUT)
            && it
                .message
                .as_deref()
                .is_some_and(|text| text.contains(&named))
    })?;
    let serves = |(_, row): &&SetRef| {
        let unmarked = !row.annotations.contains_key(FAILED);
        row.status.available > 0 && row.replicas > 0 && unmarked
    };
    let older = view.sets.iter().filter(|set| number(set) < number(&new));
    let target = older.filter(serves).max_by_key(|set| number(set))?;
    let (from, to) = (number(&new), number(target));
    let mut body = json!({});
    take_template(view, *target, &mut body);
    let mark = json!({"metadata": {"annotations": {FAILED: "true"}}});
    let name = &view.object.key.name;
    let text = format!(
        "Rolled back deployment \"{name}\" to revision {to}: revision {from} has missed its deadline"
    );
    Some(vec![
        Action::merge(new.0, "", mark),
        Action::strategic(view.object, "", body),
        Action::warning(view.object, "DeploymentRollback", text),
    ])
}

/// The mark comes off a set whose rollout was completed after all.
pub fn forgive(new: SetRef) -> Option<Action> {
    let body = json!({"metadata": {"annotations": {FAILED: null}}});
    let marked = new.1.annotations.contains_key(FAILED);
    marked.then(|| Action::merge(new.0, "", body))
}

/// Puts the set's template, and what it noted of its cause, in the patch of the Deployment.
fn take_template(view: &View, (_, row): SetRef, body: &mut Value) {
    let mut template = json!(row.template);
    if let Some(labels) = template
        .pointer_mut("/metadata/labels")
        .and_then(Value::as_object_mut)
    {
        labels.remove(HASH_LABEL);
    }
    template["$patch"] = "replace".into();
    body["spec"]["template"] = template;
    let own = view.deployment.metadata.annotations.iter().flatten();
    let mut annotations: Map<String, Value> = own
        .filter(|(key, _)| is_inherited(key))
        .map(|(key, _)| (key.clone(), Value::Null))
        .collect();
    let of_set = row.annotations.iter().filter(|(key, _)| is_inherited(key));
    annotations.extend(of_set.map(|(key, value)| (key.clone(), value.as_str().into())));
    for (key, value) in annotations {
        body["metadata"]["annotations"][&key] = value;
    }
}

fn number((_, row): &SetRef) -> i64 {
    revision::revision(&row.annotations)
}
