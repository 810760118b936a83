//! The patch of `apply`: what the file says now, and without what it said before and no longer says.
//!
//! Pure. The patch is a strategic merge: a field that left the file becomes null, an item that left
//! a list with a merge key becomes a `$patch: delete`.

use serde_json::{Map, Value, json};

use api::{
    Resource,
    schema::{self, Definition, Field, Strategy, Type},
};

/// The strategic merge patch from `last` (the manifest applied before, null for none) to `new`.
pub fn patch(resource: &Resource, last: &Value, new: &Value) -> Value {
    object(schema::definition(&resource.definition), last, new)
}

fn object(definition: Option<&Definition>, last: &Value, new: &Value) -> Value {
    let mut patch = Map::new();
    for (key, value) in new.as_object().into_iter().flatten() {
        let field = definition.and_then(|d| d.fields.get(key.as_str()));
        patch.insert(key.clone(), member(field, &last[key], value));
    }
    for key in last.as_object().into_iter().flat_map(Map::keys) {
        if new.get(key).is_none() {
            patch.insert(key.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}

fn member(field: Option<&Field>, last: &Value, new: &Value) -> Value {
    match (new, field) {
        (Value::Object(_), field) => object(field.and_then(|f| nested(&f.ty)), last, new),
        (Value::Array(items), Some(field)) if field.strategies.contains(&Strategy::Merge) => {
            list(field, last, items)
        }
        _ => new.clone(),
    }
}

fn list(field: &Field, last: &Value, new: &[Value]) -> Value {
    let before = last.as_array().map_or(&[][..], Vec::as_slice);
    let Some(key) = field.merge_key.as_deref() else {
        return json!(new);
    };
    let item = |items: &[Value], id: &Value| items.iter().find(|i| i[key] == *id).cloned();
    let mut patch: Vec<Value> = new
        .iter()
        .map(|now| {
            let then = item(before, &now[key]).unwrap_or_default();
            object(nested(&field.ty), &then, now)
        })
        .collect();
    let left = before.iter().filter(|then| item(new, &then[key]).is_none());
    patch.extend(left.map(|then| json!({"$patch": "delete", key: then[key]})));
    Value::Array(patch)
}

fn nested(ty: &Type) -> Option<&'static Definition> {
    match ty {
        Type::Ref(name) => schema::definition(name),
        Type::List(item) => nested(item),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_file_is_removed_and_the_rest_is_merged() {
        let deployment = api::find_kind("apps", "v1", "Deployment").unwrap();
        let with = |containers: Value, labels: Value| {
            json!({"metadata": {"labels": labels},
                   "spec": {"template": {"spec": {"containers": containers}}}})
        };
        let last = with(
            json!([{"name": "a", "image": "x", "command": ["run"]}, {"name": "b", "image": "y"}]),
            json!({"old": "1", "kept": "1"}),
        );
        let new = with(json!([{"name": "a", "image": "z"}]), json!({"kept": "1"}));
        let patch = patch(deployment, &last, &new);
        assert_eq!(
            patch["metadata"]["labels"],
            json!({"kept": "1", "old": null})
        );
        assert_eq!(
            patch["spec"]["template"]["spec"]["containers"],
            json!([{"name": "a", "image": "z", "command": null}, {"$patch": "delete", "name": "b"}])
        );
    }

    #[test]
    fn a_first_apply_only_sets() {
        let service = api::find_kind("", "v1", "Service").unwrap();
        let new = json!({"spec": {"ports": [{"port": 80}]}});
        assert_eq!(patch(service, &Value::Null, &new), new);
    }
}
