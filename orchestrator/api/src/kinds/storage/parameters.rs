//! What classes of volumes have in common: a driver, and parameters for it.

use serde_json::Value;

use crate::columns::text;
use crate::validation::{At, Errors, names};

/// Parameters that one class may have.
const MAX_PARAMETERS: usize = 512;

/// All parameters of a class together.
const MAX_BYTES: usize = 256 << 10;

pub fn driver(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        errors.required(at, "");
    } else {
        errors.check(at, names::label_key(&at.text().to_lowercase()));
    }
}

pub fn parameters(at: &At<'_>, errors: &mut Errors) {
    if at.entries().count() > MAX_PARAMETERS {
        errors.too_long(at, MAX_PARAMETERS);
        return;
    }
    let mut size = 0;
    for (key, value) in at.entries() {
        if key.is_empty() {
            errors.invalid_value(at, key, "field can not be empty.");
        }
        size += key.len() + value.text().len();
    }
    if size > MAX_BYTES {
        errors.too_long(at, MAX_BYTES);
    }
}

/// Of fields at the root that an update may not change.
pub fn unchanged(new: &At<'_>, old: &At<'_>, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        let (now, before) = (new.field(field), old.field(field));
        let both_empty = now.is_empty() && before.is_empty();
        if now.value != before.value && !both_empty {
            errors.forbidden(&now, &format!("updates to {field} are forbidden."));
        }
    }
}

/// The name of a CSI driver.
pub fn csi_driver(at: &At<'_>, errors: &mut Errors) {
    const MAX_NAME: usize = 63;
    if at.is_empty() {
        errors.required(at, "");
    }
    if at.text().len() > MAX_NAME {
        errors.too_long(at, MAX_NAME);
    }
    errors.check(at, names::subdomain(&at.text().to_lowercase()));
}

/// The name, and whether objects get this class that name none.
pub fn name_of_a_class(object: &Value, annotations: &[&str]) -> Value {
    let name = text(object, "/metadata/name");
    let stands = |annotation: &&str| object["metadata"]["annotations"][*annotation] == "true";
    match annotations.iter().any(stands) {
        true => format!("{name} (default)").into(),
        false => name.into(),
    }
}
