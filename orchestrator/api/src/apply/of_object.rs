//! The paths that an applied configuration names, and whether it can be applied at all.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    element,
    field_set::{FieldSet, Nodes, put},
    shape::{Form, Shape},
};

/// Every field that the object has: what its author owns by applying it.
pub fn of_object(shape: Shape<'_>, object: &Value) -> FieldSet {
    let mut nodes = Nodes::new();
    visit(shape, object, &mut nodes);
    FieldSet::of(nodes)
}

/// Checks that every field is known, and every item of a list can be told from the others.
///
/// # Errors
/// The path that is wrong, and why.
pub fn check(shape: Shape<'_>, object: &Value) -> Result<(), String> {
    walk(shape, object, &mut Vec::new())
}

/// The element of an item, as the list knows it. None: the list cannot know it.
pub fn element_of(form: &Form, item: &Value) -> Option<String> {
    match form {
        Form::List { keys, .. } => element::of_item(keys, item),
        Form::Set => element::of_value(item),
        _ => None,
    }
}

/// Puts what is in the value into `below`; true if the value is a path itself.
fn visit(shape: Shape<'_>, value: &Value, below: &mut Nodes) -> bool {
    match (shape.form(), value) {
        (Form::Struct { .. }, Value::Object(object)) => {
            for (key, value) in object {
                let Some(shape) = shape.key(key) else {
                    continue;
                };
                let mut inner = Nodes::new();
                let member = visit(shape, value, &mut inner);
                put(below, format!("f:{key}"), member, inner);
            }
            object.is_empty()
        }
        (Form::Map(_) | Form::Free, Value::Object(object)) => {
            for (key, value) in object {
                let mut inner = Nodes::new();
                if let Some(shape) = shape.key(key) {
                    visit(shape, value, &mut inner);
                }
                put(below, format!("f:{key}"), true, inner);
            }
            object.is_empty()
        }
        (Form::Set | Form::List { .. }, Value::Array(list)) => {
            items(shape, list, below);
            false
        }
        _ => true,
    }
}

fn items(shape: Shape<'_>, list: &[Value], below: &mut Nodes) {
    let mut seen = BTreeSet::new();
    for item in list {
        let Some(element) = element_of(shape.form(), item) else {
            continue;
        };
        let mut inner = Nodes::new();
        // Items that cannot be told apart are one path, and nothing in them is.
        if seen.insert(element.clone())
            && let Some(shape) = shape.below(&element)
        {
            visit(shape, item, &mut inner);
        }
        put(below, element, true, inner);
    }
}

fn walk(shape: Shape<'_>, value: &Value, path: &mut Vec<String>) -> Result<(), String> {
    match (shape.form(), value) {
        (Form::Struct { .. } | Form::Map(_), Value::Object(object)) => {
            for (key, value) in object {
                path.push(format!(".{key}"));
                let below = shape
                    .key(key)
                    .ok_or_else(|| format!("{}: field not declared in schema", path.concat()))?;
                walk(below, value, path)?;
                path.pop();
            }
            Ok(())
        }
        (Form::Set | Form::List { .. }, Value::Array(list)) => {
            let mut seen = BTreeSet::new();
            for (at, item) in list.iter().enumerate() {
                let refuse = |why: &str| Err(format!("{}: {why}", path.concat()));
                let Some(element) = element_of(shape.form(), item) else {
                    return refuse(&unknowable(shape.form(), at, item));
                };
                let shown = element::shown(&element);
                let below = shape.below(&element);
                if !seen.insert(element) {
                    return refuse(&format!("duplicate entries for key {shown}"));
                }
                if let Some(below) = below {
                    path.push(shown);
                    walk(below, item, path)?;
                    path.pop();
                }
            }
            Ok(())
        }
        (_, Value::Null) | (Form::Leaf | Form::Free, _) => Ok(()),
        (Form::Struct { .. } | Form::Map(_), _) => {
            Err(format!("{}: expected map, got {value}", path.concat()))
        }
        (Form::Set | Form::List { .. }, _) => {
            Err(format!("{}: expected list, got {value}", path.concat()))
        }
    }
}

fn unknowable(form: &Form, at: usize, item: &Value) -> String {
    let why = match (form, item) {
        (Form::List { .. }, Value::Null) => {
            "associative list with keys may not have a null element".to_owned()
        }
        (Form::List { keys, .. }, Value::Object(_)) => {
            let names: Vec<String> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
            format!(
                "associative list with keys has an element that omits all key fields [{}] (and \
                 doesn't have default values for any key fields)",
                names.join(" ")
            )
        }
        (Form::List { .. }, _) => {
            "associative list with keys may not have non-map elements".to_owned()
        }
        _ => "associative list without keys has an element that is no scalar".to_owned(),
    };
    format!("element {at}: {why}")
}
