//! Lists of a strategic merge patch: matched by merge key, or as sets of scalars; and their order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{DIRECTIVE, Rule, merge_map, unknown_directive};
use crate::status::ApiError;

/// `original` with the items of `patch` merged in, in the order that `order` or the patch asks for.
pub fn merge(
    mut original: Vec<Value>,
    patch: &[Value],
    rule: &Rule<'_>,
    order: Option<&Value>,
) -> Result<Vec<Value>, ApiError> {
    let scalars = !original.iter().chain(patch).any(Value::is_object);
    if scalars {
        let before = original.clone();
        let mut known: BTreeSet<String> = original.iter().map(Value::to_string).collect();
        for item in patch {
            if known.insert(item.to_string()) {
                original.push(item.clone());
            }
        }
        let order = ordering(patch, order, None)?;
        return Ok(arrange(original, &order, &before, None));
    }
    let Some(key) = rule.merge_key() else {
        return Err(ApiError::Unprocessable(
            "cannot merge lists without merge key".into(),
        ));
    };
    let (special, patch): (Vec<&Value>, Vec<&Value>) =
        patch.iter().partition(|item| item.get(DIRECTIVE).is_some());
    let patch: Vec<Value> = patch.into_iter().cloned().collect();
    let mut deleted = BTreeSet::new();
    for item in special {
        match item[DIRECTIVE].as_str() {
            Some("delete") => deleted.insert(key_of(item, key)?.to_string()),
            Some("replace") => return Ok(patch),
            _ => return Err(unknown_directive(&item[DIRECTIVE])),
        };
    }
    if !deleted.is_empty() {
        original.retain(|item| !identity(item, Some(key)).is_some_and(|it| deleted.contains(&it)));
    }
    let before = original.clone();
    merge_items(&mut original, &patch, rule, key)?;
    let order = ordering(&patch, order, Some(key))?;
    Ok(arrange(original, &order, &before, Some(key)))
}

/// Merges each item into the one with its key, or appends it.
fn merge_items(
    original: &mut Vec<Value>,
    patch: &[Value],
    rule: &Rule<'_>,
    key: &str,
) -> Result<(), ApiError> {
    let mut places = places(original, Some(key));
    for item in patch {
        let value = key_of(item, key)?;
        let Value::Object(patch) = item else {
            return Err(no_merge_key(item, key));
        };
        let place = *places.entry(value.to_string()).or_insert(original.len());
        if let Some(Value::Object(found)) = original.get_mut(place) {
            merge_map(found, patch, rule.item())?;
        } else {
            let mut new = Map::new();
            merge_map(&mut new, patch, rule.item())?;
            original.push(Value::Object(new));
        }
    }
    Ok(())
}

/// `$deleteFromPrimitiveList/list`: takes the values out of a list of scalars.
pub fn delete_primitives(
    original: &mut Map<String, Value>,
    list: &str,
    values: &Value,
) -> Result<(), ApiError> {
    let Value::Array(values) = values else {
        return Err(ApiError::BadRequest(
            "invalid patch format of primitive list".into(),
        ));
    };
    if let Some(Value::Array(list)) = original.get_mut(list) {
        let values: BTreeSet<String> = values.iter().map(Value::to_string).collect();
        list.retain(|item| !values.contains(&item.to_string()));
    }
    Ok(())
}

/// `$setElementOrder/list` without a change to the items.
pub fn reorder(
    original: &mut Map<String, Value>,
    list: &str,
    order: &Value,
    rule: &Rule<'_>,
) -> Result<(), ApiError> {
    let order = ordering(&[], Some(order), rule.merge_key())?;
    if let Some(Value::Array(items)) = original.get_mut(list) {
        let before = std::mem::take(items);
        *items = arrange(before.clone(), &order, &before, rule.merge_key());
    }
    Ok(())
}

/// The order that the patch asks for: the directive's, which must agree with the patch's items.
fn ordering(
    patch: &[Value],
    order: Option<&Value>,
    key: Option<&str>,
) -> Result<Vec<Value>, ApiError> {
    let Some(order) = order else {
        return Ok(patch.to_vec());
    };
    let order = order.as_array().ok_or_else(|| {
        ApiError::BadRequest("invalid patch format of setElementOrder list".into())
    })?;
    let mut from = 0;
    for item in patch {
        match order[from..].iter().position(|o| same(o, item, key)) {
            Some(at) => from += at + 1,
            None => {
                return Err(ApiError::BadRequest(format!(
                    "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                    Value::from(patch.to_vec()),
                    Value::from(order.clone())
                )));
            }
        }
    }
    Ok(order.clone())
}

/// The items that the patch orders, in its order, among the others in the order of the server:
/// an item of the server's goes first only if it stood before the next ordered one.
fn arrange(items: Vec<Value>, order: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    let (order, before) = (places(order, key), places(before, key));
    let place = |places: &BTreeMap<String, usize>, item: &Value| {
        identity(item, key).and_then(|identity| places.get(&identity).copied())
    };
    let (mut ordered, others): (Vec<Value>, Vec<Value>) = items
        .into_iter()
        .partition(|item| place(&order, item).is_some());
    ordered.sort_by_cached_key(|item| place(&order, item));
    let mut arranged = Vec::with_capacity(ordered.len() + others.len());
    let (mut ordered, mut others) = (
        ordered.into_iter().peekable(),
        others.into_iter().peekable(),
    );
    while let (Some(next), Some(other)) = (ordered.peek(), others.peek()) {
        let server_first = match (place(&before, other), place(&before, next)) {
            (Some(other), Some(next)) => other < next,
            _ => false,
        };
        arranged.extend(if server_first {
            others.next()
        } else {
            ordered.next()
        });
    }
    arranged.extend(ordered);
    arranged.extend(others);
    arranged
}

/// Where each item stands, the first of those that are the same. A list of many items is merged with
/// another one in the time that it takes to read them.
fn places(list: &[Value], key: Option<&str>) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (at, item) in list.iter().enumerate() {
        if let Some(identity) = identity(item, key) {
            places.entry(identity).or_insert(at);
        }
    }
    places
}

/// What makes an item the same as another one: its key, or all of it. Without a key it is like none.
fn identity(item: &Value, key: Option<&str>) -> Option<String> {
    match key {
        Some(key) => item.get(key).map(Value::to_string),
        None => Some(item.to_string()),
    }
}

fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

fn key_of<'a>(item: &'a Value, key: &str) -> Result<&'a Value, ApiError> {
    item.get(key)
        .filter(|v| !v.is_null())
        .ok_or_else(|| no_merge_key(item, key))
}

fn no_merge_key(item: &Value, key: &str) -> ApiError {
    ApiError::Unprocessable(format!(
        "map: {item} does not contain declared merge key: {key}"
    ))
}
