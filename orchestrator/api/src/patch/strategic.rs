//! Strategic merge: lists merge by key as the schema says, `$patch` and its kin direct it.
//!
//! A patch is walked together with the type that it patches; where no type is known (a map of
//! strings, free-form data) objects merge and lists are replaced.

mod list;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    resource::Resource,
    schema::{Definition, Field, Strategy, Type},
    status::ApiError,
};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// The patched object; `patch` is the parsed body.
pub fn apply(resource: &Resource, original: &Value, patch: &Value) -> Result<Value, ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::BadRequest(
            "error decoding patch: a strategic merge patch is an object".into(),
        ));
    };
    let mut patched = original.as_object().cloned().unwrap_or_default();
    let ty = Type::Ref((&*resource.definition).into());
    merge_map(&mut patched, patch, &ty)?;
    Ok(Value::Object(patched))
}

/// How the value of one key is patched.
struct Rule<'a> {
    ty: &'a Type,
    field: Option<&'a Field>,
}

impl Rule<'_> {
    fn has(&self, strategy: Strategy) -> bool {
        self.field
            .is_some_and(|field| field.strategies.contains(&strategy))
    }

    fn merge_key(&self) -> Option<&str> {
        self.field.and_then(|field| field.merge_key.as_deref())
    }

    /// The type of the items of a list.
    fn item(&self) -> &Type {
        match self.ty {
            Type::List(item) => item,
            _ => &Type::Any,
        }
    }
}

/// The keys of an object of this type.
fn rule<'a>(ty: &'a Type, definition: Option<&'a Definition>, key: &str) -> Rule<'a> {
    match (ty, definition.and_then(|d| d.fields.get(key))) {
        (_, Some(field)) => Rule {
            ty: &field.ty,
            field: Some(field),
        },
        (Type::Map(item), None) => Rule {
            ty: item,
            field: None,
        },
        _ => Rule {
            ty: &Type::Any,
            field: None,
        },
    }
}

/// Merges the patch into the object.
fn merge_map(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    ty: &Type,
) -> Result<(), ApiError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return direct_map(original, patch, directive);
    }
    retain_keys(original, patch)?;
    let definition = ty.definition();
    for (key, value) in patch {
        if key == RETAIN_KEYS {
            continue;
        }
        if let Some(list) = key.strip_prefix(DELETE_PRIMITIVES) {
            list::delete_primitives(original, list, value)?;
        } else if let Some(list) = key.strip_prefix(ELEMENT_ORDER) {
            // With a patch of the list the order is applied there.
            if !patch.get(list).is_some_and(Value::is_array) {
                list::reorder(original, list, value, &rule(ty, definition, list))?;
            }
        } else {
            let order = patch.get(&format!("{ELEMENT_ORDER}{key}"));
            merge_field(original, key, value, &rule(ty, definition, key), order)?;
        }
    }
    Ok(())
}

fn merge_field(
    original: &mut Map<String, Value>,
    key: &str,
    patch: &Value,
    rule: &Rule<'_>,
    order: Option<&Value>,
) -> Result<(), ApiError> {
    match patch {
        Value::Null => {
            original.remove(key);
        }
        Value::Object(patch) if !rule.has(Strategy::Replace) => {
            if !original.get(key).is_some_and(Value::is_object) {
                original.insert(key.into(), Value::Object(Map::new()));
            }
            if let Some(Value::Object(original)) = original.get_mut(key) {
                merge_map(original, patch, rule.ty)?;
            }
        }
        Value::Array(patch) if rule.has(Strategy::Merge) => {
            let before = match original.remove(key) {
                Some(Value::Array(list)) => list,
                _ => Vec::new(),
            };
            let merged = list::merge(before, patch, rule, order)?;
            original.insert(key.into(), Value::Array(merged));
        }
        other => {
            original.insert(key.into(), without_nulls(other));
        }
    }
    Ok(())
}

/// `$patch: replace` and `$patch: delete` of an object.
fn direct_map(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    directive: &Value,
) -> Result<(), ApiError> {
    match directive.as_str() {
        Some("replace") => {
            *original = patch.clone();
            original.remove(DIRECTIVE);
            Ok(())
        }
        Some("delete") => {
            original.clear();
            Ok(())
        }
        _ => Err(unknown_directive(directive)),
    }
}

fn unknown_directive(directive: &Value) -> ApiError {
    ApiError::BadRequest(format!(
        "unknown patch type found: {}, expected one of: replace, delete",
        directive
            .as_str()
            .map_or_else(|| directive.to_string(), str::to_owned)
    ))
}

/// `$retainKeys`: of the object only these keys stay, and the patch may name no other.
fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), ApiError> {
    const BAD: &str = "invalid patch format of retainKeys";
    let Some(keys) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let keys = keys
        .as_array()
        .ok_or_else(|| ApiError::BadRequest(BAD.into()))?;
    let keys: BTreeSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let kept = |key: &str| keys.contains(key);
    for (key, value) in patch {
        if !key.starts_with('$') && !value.is_null() && !kept(key) {
            return Err(ApiError::BadRequest(BAD.into()));
        }
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// A value that is new: a null in it deletes what is not there.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, v)| !v.is_null());
            kept.map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
