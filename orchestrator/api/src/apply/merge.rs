//! An applied configuration merged into the live object, and fields taken out of an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    field_set::{Nodes, is_member},
    of_object::element_of,
    shape::{Form, Shape},
};

/// The live value with everything that `applied` says; only what `applied` names is changed, and a
/// list that merges loses nothing.
pub fn merge(shape: Shape<'_>, live: &Value, applied: &Value) -> Value {
    match (shape.form(), live, applied) {
        (Form::Leaf, ..) => applied.clone(),
        // Null says nothing about what is in a value that has parts.
        (_, Value::Object(parts), Value::Null) if !parts.is_empty() => live.clone(),
        (Form::Set | Form::List { .. }, Value::Array(list), Value::Null) if !list.is_empty() => {
            live.clone()
        }
        (Form::Set | Form::List { .. }, Value::Array(live), Value::Array(applied)) => {
            Value::Array(items(shape, live, applied))
        }
        (
            Form::Struct { .. } | Form::Map(_) | Form::Free,
            Value::Object(live),
            Value::Object(applied),
        ) => Value::Object(keys(shape, live, applied)),
        _ => applied.clone(),
    }
}

/// The value without these paths and what is below them. None: nothing is left. What has lost all
/// its parts is null where it was, because it is not the same as never having been.
pub fn without(shape: Shape<'_>, value: &Value, gone: &Nodes) -> Option<Value> {
    match (shape.form(), value) {
        (Form::Struct { .. } | Form::Map(_) | Form::Free, Value::Object(object)) => {
            let kept = object.iter().filter_map(|(key, value)| {
                let element = format!("f:{key}");
                Some((key.clone(), kept(shape, &element, value, gone)?))
            });
            let kept: Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        (Form::Set | Form::List { .. }, Value::Array(list)) => {
            let kept = list.iter().filter_map(|item| {
                let kept = match element_of(shape.form(), item) {
                    Some(element) => kept(shape, &element, item, gone)?,
                    None => item.clone(),
                };
                (!kept.is_null()).then_some(kept)
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => Some(value.clone()),
    }
}

/// One part of a value. None: it goes.
fn kept(shape: Shape<'_>, element: &str, part: &Value, gone: &Nodes) -> Option<Value> {
    match gone.get(element).and_then(Value::as_object) {
        None => Some(part.clone()),
        Some(node) if is_member(node) => None,
        Some(node) => Some(match shape.below(element) {
            Some(shape) => without(shape, part, node).unwrap_or(Value::Null),
            None => part.clone(),
        }),
    }
}

fn keys(
    shape: Shape<'_>,
    live: &Map<String, Value>,
    applied: &Map<String, Value>,
) -> Map<String, Value> {
    let kept = live.iter().map(|(key, value)| {
        let new = match (applied.get(key), shape.key(key)) {
            (Some(applied), Some(shape)) => merge(shape, value, applied),
            (Some(applied), None) => applied.clone(),
            (None, _) => value.clone(),
        };
        (key.clone(), new)
    });
    let added = applied.iter().filter(|(key, _)| !live.contains_key(*key));
    let added = added.map(|(key, value)| (key.clone(), value.clone()));
    kept.chain(added).collect()
}

/// The items of both lists: those that both have in the order of `applied`, those of `live` alone
/// where they are, between the same neighbours as far as that order allows.
fn items(shape: Shape<'_>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let elements = |list: &[Value]| -> Vec<Option<String>> {
        list.iter()
            .map(|item| element_of(shape.form(), item))
            .collect()
    };
    let (live_elements, elements) = (elements(live), elements(applied));
    let places: BTreeMap<&str, usize> = elements
        .iter()
        .enumerate()
        .filter_map(|(at, element)| Some((element.as_deref()?, at)))
        .collect();
    // Of each live item its place in `applied`, of each applied one its live counterparts.
    let wanted: Vec<Option<usize>> = live_elements
        .iter()
        .map(|element| places.get(element.as_deref()?).copied())
        .collect();
    let mut counterparts: Vec<Vec<usize>> = vec![Vec::new(); applied.len()];
    for (at, place) in wanted.iter().enumerate() {
        if let Some(place) = place {
            counterparts[*place].push(at);
        }
    }
    let merged = |place: usize| match counterparts[place].as_slice() {
        [one] => {
            let element = elements[place].as_deref().unwrap_or_default();
            match shape.below(element) {
                Some(shape) => merge(shape, &live[*one], &applied[place]),
                None => applied[place].clone(),
            }
        }
        // Live items that cannot be told apart are replaced by the one that is applied.
        _ => applied[place].clone(),
    };
    let shared = (0..applied.len()).filter(|place| !counterparts[*place].is_empty());
    order(&wanted, shared, applied.len())
        .into_iter()
        .map(|next| match next {
            Next::Live(at) => live[at].clone(),
            Next::Applied(place) => merged(place),
        })
        .collect()
}

/// Where the next item of a merged list comes from.
#[derive(Clone, Copy)]
enum Next {
    Live(usize),
    Applied(usize),
}

/// The order of a merged list; `wanted` has for each live item its place in the applied list,
/// `shared` the places of applied items that are live.
fn order(
    wanted: &[Option<usize>],
    shared: impl Iterator<Item = usize>,
    applied: usize,
) -> Vec<Next> {
    let mut order = Vec::with_capacity(wanted.len().max(applied));
    let mut shared = shared.peekable();
    let (mut live, mut place) = (0, 0);
    while live < wanted.len() || place < applied {
        match wanted.get(live) {
            Some(None) => {
                order.push(Next::Live(live));
                live += 1;
                continue;
            }
            Some(Some(mine)) if *mine == place => live += 1,
            // Another item that both have comes first; this one comes at its applied place.
            Some(Some(mine)) if shared.peek().is_some_and(|due| due != mine) => {
                live += 1;
                continue;
            }
            // It has come already.
            Some(Some(mine)) if *mine < place => live += 1,
            Some(Some(_)) | None => {}
        }
        if place < applied {
            order.push(Next::Applied(place));
            shared.next_if_eq(&place);
            place += 1;
        }
    }
    order
}
