//! v1 ConfigMap.

use crate::columns::{AGE, Column, NAME, Printer, age, entries, name};
use crate::quota::Usage;
use crate::resource::Resource;
use crate::validation::{At, Errors, names};
use k8s_openapi::api::core::v1::ConfigMap;

pub fn resource() -> Resource {
    Resource {
        usage: Usage::CountAs("configmaps"),
        short_names: vec!["cm".into()],
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<ConfigMap>("", "core", "configmap", "configmaps")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[NAME, Column::integer("Data", "The number of keys"), AGE],
    cells: |object, now| {
        let keys = entries(object, "/data") + entries(object, "/binaryData");
        vec![name(object), keys.into(), age(object, now)]
    },
};

/// All values together.
pub(super) const MAX_BYTES: usize = 1 << 20;

fn validate(object: &At<'_>, errors: &mut Errors) {
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

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    immutable(new, old, &["data", "binaryData"], errors);
}

pub(super) fn immutable(new: &At<'_>, old: &At<'_>, fields: &[&str], errors: &mut Errors) {
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
pub(crate) fn decoded_length(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}
