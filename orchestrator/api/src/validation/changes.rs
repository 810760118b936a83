//! What differs between an object and its update.

use serde_json::Value;

/// Puts the old value of a field in place of the new one, or takes the field away.
pub fn replace(new: &mut Value, old: &Value, field: &str) {
    let Some(new) = new.as_object_mut() else {
        return;
    };
    match old.get(field) {
        Some(value) => new.insert(field.into(), value.clone()),
        None => new.remove(field),
    };
}

/// The paths at which two values differ; `path` is that of both.
pub fn differences(a: &Value, b: &Value, path: &str) -> Vec<String> {
    match (a, b) {
        _ if a == b => Vec::new(),
        (Value::Object(x), Value::Object(y)) => {
            let mut keys: Vec<&String> = x.keys().chain(y.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter()
                .flat_map(|key| differences(&a[key], &b[key], &format!("{path}.{key}")))
                .collect()
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => (0..x.len())
            .flat_map(|at| differences(&x[at], &y[at], &format!("{path}[{at}]")))
            .collect(),
        _ => vec![path.to_owned()],
    }
}
