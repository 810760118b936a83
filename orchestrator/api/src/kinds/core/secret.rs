//! v1 Secret.

use base64::Engine as _;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::config_map::{MAX_BYTES, decoded_length, immutable};
use crate::columns::{AGE, Column, NAME, Printer, age, entries, name, text};
use crate::defaults::{drop_nulls, set};
use crate::quota::Usage;
use crate::resource::{Field, Resource};
use crate::validation::{At, Errors, names};

pub fn resource() -> Resource {
    Resource {
        usage: Usage::CountAs("secrets"),
        fields: vec![Field::of("type")],
        default,
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<Secret>("", "core", "secret", "secrets")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type", "What the secret is for"),
        Column::integer("Data", "The number of keys"),
        AGE,
    ],
    cells: |object, now| {
        let kind = text(object, "/type").into();
        vec![
            name(object),
            kind,
            entries(object, "/data").into(),
            age(object, now),
        ]
    },
};

/// `stringData` is merged into `data` and not kept.
fn default(object: &mut Value) {
    set(object, "type", || "Opaque".into());
    let Some(Value::Object(plain)) = object.get_mut("stringData").map(Value::take) else {
        drop_nulls(object);
        return;
    };
    let engine = base64::engine::general_purpose::STANDARD;
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        object["data"][key] = engine.encode(text).into();
    }
    drop_nulls(object);
}

/// What a Secret of a known type must hold.
const REQUIRED_KEYS: [(&str, &[&str]); 4] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

fn validate(object: &At<'_>, errors: &mut Errors) {
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
    if kind == "kubernetes.io/service-account-token" {
        let metadata = object.field("metadata");
        let annotations = metadata.field("annotations");
        let account = annotations.key("kubernetes.io/service-account.name");
        if account.text().is_empty() {
            errors.required(&account, "");
        }
    }
    for key in required.into_iter().flat_map(|(_, keys)| keys.iter()) {
        let at = data.key(key);
        if at.is_null() {
            errors.required(&at, "");
        }
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    errors.immutable(&new.field("type"), &old.field("type"));
    immutable(new, old, &["data"], errors);
}
