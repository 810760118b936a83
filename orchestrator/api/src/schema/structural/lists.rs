//! Lists whose items are told apart (`x-kubernetes-list-type` set and map) have none twice.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{List, Node, Others, check::MAX_CAUSES};
use crate::{
    status::{Cause, CauseKind},
    validation::At,
};

/// Nothing is said of an update of an object that was wrong before.
pub fn check(node: &Node, new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut found = Vec::new();
    value(node, &At::root(new), &mut found);
    let was_wrong = |old: &Value| {
        let mut before = Vec::new();
        value(node, &At::root(old), &mut before);
        !before.is_empty()
    };
    if !found.is_empty() && !old.is_some_and(was_wrong) {
        causes.append(&mut found);
    }
}

fn value(node: &Node, at: &At<'_>, causes: &mut Vec<Cause>) {
    if causes.len() >= MAX_CAUSES {
        return;
    }
    match at.value {
        Value::Array(list) => {
            match &node.list {
                List::Atomic => {}
                List::Set => repeats(at, list, causes),
                List::Map(keys) => repeats_of_keys(at, list, keys, causes),
            }
            if let Some(items) = &node.items {
                at.items().for_each(|item| value(items, &item, causes));
            }
        }
        Value::Object(_) => {
            for (key, other) in at.entries() {
                match (node.properties.get(key), &node.others) {
                    (Some(inner), _) => value(inner, &at.field(key), causes),
                    (None, Others::Schema(inner)) => value(inner, &other, causes),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn repeats_of_keys(at: &At<'_>, list: &[Value], keys: &[Box<str>], causes: &mut Vec<Cause>) {
    let is_wrong = |item: &At<'_>| !item.value.is_object() && !item.is_null();
    if let Some(item) = at.items().find(is_wrong) {
        causes.push(Cause {
            field: item.to_string(),
            kind: CauseKind::Invalid,
            message: format!(
                "Invalid value: {}: must be an object for an array of list-type map",
                item.value
            ),
        });
        return;
    }
    let of_item = |item: &Value| {
        let given = keys.iter().filter_map(|key| Some((key, item.get(&**key)?)));
        let map: Map<String, Value> = given.map(|(k, v)| (k.to_string(), v.clone())).collect();
        Value::Object(map)
    };
    let keys: Vec<Value> = list.iter().map(of_item).collect();
    repeats(at, &keys, causes);
}

fn repeats(at: &At<'_>, keys: &[Value], causes: &mut Vec<Cause>) {
    for index in repeated(keys).take(MAX_CAUSES) {
        let shown = match &keys[index] {
            Value::String(text) => format!("{text:?}"),
            other => other.to_string(),
        };
        causes.push(Cause {
            field: format!("{at}[{index}]"),
            kind: CauseKind::Duplicate,
            message: format!("Duplicate value: {shown}"),
        });
    }
}

/// The first repetition of each value that is there more than once.
pub fn repeated(list: &[Value]) -> impl Iterator<Item = usize> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    list.iter().enumerate().filter_map(move |(index, value)| {
        let times = times.entry(value.to_string()).or_default();
        *times += 1;
        (*times == 2).then_some(index)
    })
}
