//! The elements of paths, as FieldsV1 writes them.
//!
//! `f:NAME` is a field, `k:{"name":"web"}` an item of a list by its keys, `v:"x"` an item of a set,
//! `i:3` an item by its place. The text has one form only (keys in order, no space), so elements
//! are compared as texts.

use serde_json::{Map, Value};

use super::shape::Key;

/// An item of a list that is known by keys. None: it has none of them, or they are no scalars.
pub fn of_item(keys: &[Key], item: &Value) -> Option<String> {
    let item = item.as_object()?;
    let mut text = String::from("k:{");
    for key in keys {
        let Some(value) = item.get(&*key.name).or(key.default.as_ref()) else {
            continue;
        };
        if text.len() > "k:{".len() {
            text.push(',');
        }
        quote(&key.name, &mut text);
        text.push(':');
        scalar(value, &mut text)?;
    }
    (text.len() > "k:{".len()).then(|| text + "}")
}

/// An item of a set. None: it is no scalar.
pub fn of_value(value: &Value) -> Option<String> {
    let mut text = String::from("v:");
    scalar(value, &mut text)?;
    Some(text)
}

/// Two items of a list have the same keys, as `of_item` would say them.
pub fn is_same_item(keys: &[Key], left: &Value, right: &Value) -> bool {
    let (Some(left), Some(right)) = (left.as_object(), right.as_object()) else {
        return false;
    };
    keys.iter().all(|key| {
        let left = left.get(&*key.name).or(key.default.as_ref());
        left == right.get(&*key.name).or(key.default.as_ref())
    })
}

/// The one form of an element that a client wrote. None: it is of no known sort, and dropped.
///
/// # Errors
/// It is no element at all.
pub fn normal(element: &str) -> Result<Option<String>, String> {
    let Some((sort, rest)) = element.split_once(':') else {
        return Err(format!("missing colon: {element}"));
    };
    let parsed = || serde_json::from_str(rest).map_err(|e| format!("parsing {element}: {e}"));
    let broken = || format!("parsing {element}: no scalar");
    match sort {
        "f" => Ok(Some(element.to_owned())),
        "v" => of_value(&parsed()?).map(Some).ok_or_else(broken),
        "k" => of_keys(&parsed()?).map(Some).ok_or_else(broken),
        "i" => {
            let place: i64 = rest
                .parse()
                .map_err(|e| format!("parsing {element}: {e}"))?;
            Ok(Some(format!("i:{place}")))
        }
        _ => Ok(None),
    }
}

/// As errors show it: `.spec`, `[name="web"]`, `[="x"]`, `[3]`.
pub fn shown(element: &str) -> String {
    let (sort, rest) = element.split_once(':').unwrap_or(("f", element));
    match sort {
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", keys.join(","))
        }
        "v" => format!("[={rest}]"),
        "i" => format!("[{rest}]"),
        _ => format!(".{rest}"),
    }
}

fn of_keys(keys: &Value) -> Option<String> {
    let mut text = String::from("k:{");
    for (name, value) in keys.as_object()? {
        if text.len() > "k:{".len() {
            text.push(',');
        }
        quote(name, &mut text);
        text.push(':');
        scalar(value, &mut text)?;
    }
    Some(text + "}")
}

fn scalar(value: &Value, into: &mut String) -> Option<()> {
    match value {
        Value::String(text) => quote(text, into),
        Value::Number(number) => into.push_str(&number.to_string()),
        Value::Bool(flag) => into.push_str(if *flag { "true" } else { "false" }),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    }
    Some(())
}

fn quote(text: &str, into: &mut String) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    if text.as_bytes().iter().all(plain) {
        into.push('"');
        into.push_str(text);
        into.push('"');
    } else {
        into.push_str(&Value::from(text).to_string());
    }
}
