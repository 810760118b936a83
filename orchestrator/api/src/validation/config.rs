//! ConfigMaps and Secrets.

use super::{At, Errors, names};

/// All values together.
const MAX_BYTES: usize = 1 << 20;

/// What a Secret of a known type must hold.
const REQUIRED_KEYS: [(&str, &[&str]); 4] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

pub fn config_map(object: &At<'_>, errors: &mut Errors) {
    let (data, binary) = (object.field("data"), object.field("binaryData"));
    let mut size = 0;
    for (key, value) in data.entries() {
        errors.check_key(&value, key, names::config_key(key));
        if !binary.key(key).is_null() {
            errors.invalid_value(&value, key, "duplicate of key present in binaryData");
        }
        size += value.text().len();
    }
    for (key, value) in binary.entries() {
        errors.check_key(&value, key, names::config_key(key));
        size += decoded_length(value.text());
    }
    if size > MAX_BYTES {
        errors.too_long(object, MAX_BYTES);
    }
}

pub fn config_map_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    immutable(new, old, &["data", "binaryData"], errors);
}

pub fn secret(object: &At<'_>, errors: &mut Errors) {
    let data = object.field("data");
    let mut size = 0;
    for (key, value) in data.entries() {
        errors.check_key(&value, key, names::config_key(key));
        size += decoded_length(value.text());
    }
    if size > MAX_BYTES {
        errors.too_long(&data, MAX_BYTES);
    }
    let kind = object.field("type").text().to_owned();
    let required = REQUIRED_KEYS.iter().find(|(name, _)| *name == kind);
    for key in required.into_iter().flat_map(|(_, keys)| keys.iter()) {
        let at = data.key(key);
        if at.is_null() {
            errors.required(&at, "");
        }
    }
}

pub fn secret_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    errors.immutable(&new.field("type"), &old.field("type"));
    immutable(new, old, &["data"], errors);
}

fn immutable(new: &At<'_>, old: &At<'_>, fields: &[&str], errors: &mut Errors) {
    if !old.field("immutable").is_true() {
        return;
    }
    let why = "field is immutable when `immutable` is set";
    let at = new.field("immutable");
    if !at.is_true() {
        errors.forbidden(&at, why);
    }
    for field in fields {
        let now = new.field(field);
        if now.value != old.field(field).value {
            errors.forbidden(&now, why);
        }
    }
}

/// The bytes that a base64 text stands for.
fn decoded_length(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}
