//! Objects inside of an object (`x-kubernetes-embedded-resource`): they have a kind and metadata.

use serde_json::Value;

use super::{Node, Others};
use crate::{
    status::Cause,
    validation::{At, Errors, names, object},
};

pub fn check(node: &Node, new: &Value, causes: &mut Vec<Cause>) {
    let mut errors = Errors::default();
    // The object itself is validated as every object is.
    inside(node, &At::root(new), &mut errors);
    causes.extend(errors.into_causes());
}

fn value(node: &Node, at: &At<'_>, errors: &mut Errors) {
    if node.embedded && at.value.is_object() {
        resource(at, errors);
    }
    inside(node, at, errors);
}

fn inside(node: &Node, at: &At<'_>, errors: &mut Errors) {
    match at.value {
        Value::Object(_) => {
            for (key, other) in at.entries() {
                match (node.properties.get(key), &node.others) {
                    (Some(inner), _) => value(inner, &at.field(key), errors),
                    (None, Others::Schema(inner)) => value(inner, &other, errors),
                    _ => {}
                }
            }
        }
        Value::Array(_) => {
            if let Some(items) = &node.items {
                at.items().for_each(|item| value(items, &item, errors));
            }
        }
        _ => {}
    }
}

fn resource(at: &At<'_>, errors: &mut Errors) {
    let (version, kind) = (at.field("apiVersion"), at.field("kind"));
    for field in [&version, &kind] {
        if field.is_null() {
            errors.required(field, "");
        } else if !field.value.is_string() {
            errors.invalid(field, "must be a string");
        } else if field.is_empty() {
            errors.invalid(field, "must not be empty");
        }
    }
    if version.text().matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {}", version.text());
        errors.invalid(&version, why);
    }
    if let Err(why) = names::label_1035(&kind.text().to_lowercase())
        && !kind.is_empty()
    {
        let why = format!("may have mixed case, but should otherwise match: {why}");
        errors.invalid(&kind, why);
    }
    let metadata = at.field("metadata");
    let name = metadata.field("name");
    if !name.is_empty() {
        errors.check(&name, names::path_segment(name.text()));
    }
    object::labels(&metadata.field("labels"), errors);
    object::annotations(&metadata.field("annotations"), errors);
}
