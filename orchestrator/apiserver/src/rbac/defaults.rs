//! The roles and bindings that every cluster has: made when they are missing, and mended when the server
//! starts, as Kubernetes does. What an administrator has added to them stays.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::objects::{Current, WriteError, put};
use crate::{State, admission, bootstrap};
use api::kinds::rbac::GROUP;
use api::rbac::{Rule, missing};
use api::{ApiError, FieldValidation, Resource, meta};
use store::{Expect, Write};

/// Those of Kubernetes, and those of our own controllers.
const TABLES: [&str; 2] = [include_str!("defaults.txt"), include_str!("extra.txt")];

/// An object with this annotation and the value "false" is left as it is.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// A role gives its rules to the one whose name follows.
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// How often a start tries that meets another server's.
const RETRIES: usize = 5;

/// Makes what is missing of the defaults and mends what lacks something, in as few commits as every store
/// takes.
pub async fn first_objects(state: &State) -> Result<(), ApiError> {
    let mut tries = 0;
    let defaults = defaults();
    while tries < RETRIES {
        let mut writes = Vec::new();
        for wanted in &defaults {
            writes.extend(write(state, wanted)?);
        }
        let is_last = writes.len() <= store::MOST_WRITES;
        writes.truncate(store::MOST_WRITES);
        match state.objects.write_all(writes).await {
            Ok(()) if is_last => return Ok(()),
            Ok(()) => continue,
            // Another server starts beside this one.
            Err(WriteError::Changed) => tries += 1,
            Err(WriteError::Failed(error)) => return Err(error),
        }
    }
    Err(ApiError::ServiceUnavailable(
        "the default roles change all the time".to_owned(),
    ))
}

/// What has to be written for a default to be there and whole.
fn write(state: &State, wanted: &Value) -> Result<Option<Write>, ApiError> {
    let plural = wanted["kind"].as_str().unwrap_or_default().to_lowercase() + "s";
    let resource = bootstrap::find(GROUP, &plural)?;
    let (namespace, name) = (meta::namespace(wanted), meta::name(wanted));
    let Some(found) = state.objects.cache.get(resource, namespace, name) else {
        return made(resource, wanted.clone(), Expect::Absent).map(Some);
    };
    let found = Current::of(&found)?;
    let Some(mended) = mended(&found.value, wanted) else {
        return Ok(None);
    };
    if found.value["roleRef"] != wanted["roleRef"] {
        // A binding of another role is another binding.
        return made(resource, wanted.clone(), Expect::At(found.revision)).map(Some);
    }
    resource.validate(&mended, Some(&found.value), None)?;
    Ok(Some(put(resource, &mended, Expect::At(found.revision))))
}

fn made(resource: &Resource, object: Value, expect: Expect) -> Result<Write, ApiError> {
    let mut object = resource.canonical(object, FieldValidation::Strict)?.object;
    resource.prepare_for_create(&mut object);
    meta::stamp(&mut object, &admission::new_uid(), Timestamp::now());
    resource.validate(&object, None, None)?;
    Ok(put(resource, &object, expect))
}

/// An object that is there with what it lacks of the default; None if it lacks nothing, or is not to be
/// touched.
fn mended(found: &Value, wanted: &Value) -> Option<Value> {
    if found["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut mended = found.clone();
    for map in ["labels", "annotations"] {
        let wanted = wanted["metadata"][map].as_object().into_iter().flatten();
        for (key, value) in wanted {
            let held = &mut mended["metadata"][map][key.as_str()];
            if held.is_null() {
                *held = value.clone();
            }
        }
    }
    for list in ["/aggregationRule/clusterRoleSelectors", "/subjects"] {
        let wanted = wanted.pointer(list).and_then(Value::as_array);
        let held = found.pointer(list).and_then(Value::as_array);
        let lacks = |item: &&Value| !held.is_some_and(|held| held.contains(item));
        let lacking = wanted.into_iter().flatten().filter(lacks).cloned();
        append(&mut mended, list, lacking.collect());
    }
    let rules = |object: &Value| -> Vec<Rule> {
        let rules = object.get("rules").cloned().unwrap_or_default();
        serde_json::from_value(rules).unwrap_or_default()
    };
    let lacking = missing(&rules(found), &rules(wanted)).into_iter();
    append(
        &mut mended,
        "/rules",
        lacking.map(|rule| json!(rule)).collect(),
    );
    (mended != *found || found["roleRef"] != wanted["roleRef"]).then_some(mended)
}

fn append(object: &mut Value, list: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    let words = list.split('/').skip(1);
    let place = words.fold(object, |at, word| &mut at[word]);
    match place {
        Value::Array(held) => held.extend(items),
        place => *place = items.into(),
    }
}

/// The default objects, without what the server adds to any.
fn defaults() -> Vec<Value> {
    TABLES.into_iter().flat_map(read).collect()
}

/// Reads a table, whose form its first lines say.
fn read(table: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), objects.last_mut()) {
            ([], _) => {}
            (words, Some(role)) if line.starts_with(' ') => {
                append(role, "/rules", vec![rule(words)]);
            }
            ([kind, name, more @ ..], _) => objects.push(object(kind, name, more)),
            (words, _) => unreachable!("a line of the table of roles says too little: {words:?}"),
        }
    }
    objects
}

fn rule(words: &[&str]) -> Value {
    let list = |words: &str| -> Vec<String> {
        let words = words.split(',');
        let words = words.map(|word| if word == "core" { "" } else { word });
        words.map(str::to_owned).collect()
    };
    let word = |place: usize| words.get(place).copied().unwrap_or_default();
    let mut rule = Rule {
        verbs: list(word(0)),
        ..Rule::default()
    };
    match word(1).strip_prefix("path:") {
        Some(paths) => rule.paths = list(paths),
        None => {
            rule.api_groups = list(word(1));
            rule.resources = list(word(2));
            if words.len() > 3 {
                rule.resource_names = list(word(3));
            }
        }
    }
    json!(rule)
}

fn object(kind: &str, name: &str, more: &[&str]) -> Value {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, name),
    };
    let kind = match kind {
        "role" => "Role",
        "rolebinding" => "RoleBinding",
        "clusterrole" => "ClusterRole",
        _ => "ClusterRoleBinding",
    };
    let mut labels = Map::new();
    labels.insert(
        "kubernetes.io/bootstrapping".to_owned(),
        "rbac-defaults".into(),
    );
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}},
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    for word in more {
        if let Some(role) = word.strip_prefix("to=") {
            labels.insert(format!("{AGGREGATE}{role}"), "true".into());
        } else if let Some(role) = word.strip_prefix("from=") {
            let selector = json!({"matchLabels": {format!("{AGGREGATE}{role}"): "true"}});
            append(
                &mut object,
                "/aggregationRule/clusterRoleSelectors",
                vec![selector],
            );
        } else if let Some((word, of)) = word.split_once(':') {
            name_subject_or_role(&mut object, word, of);
        }
    }
    object["metadata"]["labels"] = labels.into();
    object
}

fn name_subject_or_role(binding: &mut Value, word: &str, of: &str) {
    let subject = |kind: &str| json!({"kind": kind, "apiGroup": GROUP, "name": of});
    let subject = match word {
        "user" => subject("User"),
        "group" => subject("Group"),
        "account" => {
            let (namespace, name) = of.split_once('/').unwrap_or(("", of));
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
        role => {
            let kind = if role == "role" {
                "Role"
            } else {
                "ClusterRole"
            };
            binding["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": of});
            return;
        }
    };
    append(binding, "/subjects", vec![subject]);
}

#[cfg(test)]
mod tests;
