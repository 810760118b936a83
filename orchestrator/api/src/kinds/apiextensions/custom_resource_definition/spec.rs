//! The spec of a definition: names, versions, conversion, columns, subresources.
//!
//! Kubernetes reports what all versions have in common at the root of the spec, as the older form of
//! the type had it: `spec.validation` is the schema of every version.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{paths, schema};
use crate::validation::{At, Errors, names, webhooks};

const MAX_SELECTABLE_FIELDS: usize = 8;

const MAX_WARNING_CHARS: usize = 256;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];

const COLUMN_FORMATS: [&str; 8] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];

pub fn validate(spec: &At<'_>, errors: &mut Errors) {
    group(&spec.field("group"), errors);
    errors.one_of(&spec.field("scope"), &["Cluster", "Namespaced"]);
    let all = spec.field("versions");
    for version in all.items() {
        let part = version.field("schema");
        let schema = part.field("openAPIV3Schema");
        if schema.is_null() {
            errors.required(&schema, "");
        }
    }
    versions(spec, &all, errors);
    let given = spec.field("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = given.field(field);
        if name.is_empty() {
            errors.required(&name, "");
        }
    }
    names(&given, errors);
    common(spec, &all, errors);
    conversion(&spec.field("conversion"), errors);
}

/// The names of a kind, as far as they are given.
pub fn names(given: &At<'_>, errors: &mut Errors) {
    for field in ["plural", "singular"] {
        let name = given.field(field);
        if !name.is_empty() {
            errors.check(&name, names::label_1035(name.text()));
        }
    }
    let (kind, list) = (given.field("kind"), given.field("listKind"));
    for name in [&kind, &list] {
        let lower = name.text().to_lowercase();
        if let Err(why) = names::label_1035(&lower)
            && !name.is_empty()
        {
            let why = format!("may have mixed case, but should otherwise match: {why}");
            errors.invalid(name, why);
        }
    }
    let short = given.field("shortNames");
    for name in short.items() {
        errors.check(&name, names::label_1035(name.text()));
    }
    if !kind.is_empty() && kind.value == list.value {
        errors.invalid(&list, "kind and listKind may not be the same");
    }
    let categories = given.field("categories");
    for name in categories.items() {
        errors.check(&name, names::label_1035(name.text()));
    }
}

fn group(group: &At<'_>, errors: &mut Errors) {
    if group.is_empty() {
        errors.required(group, "");
    } else if let Err(why) = names::subdomain(group.text()) {
        errors.invalid(group, why);
    } else if !group.text().contains('.') {
        errors.invalid(group, "should be a domain with at least one dot");
    }
}

fn versions(spec: &At<'_>, all: &At<'_>, errors: &mut Errors) {
    let (mut seen, mut unique) = (BTreeSet::new(), true);
    for version in all.items() {
        let name = version.field("name");
        unique &= seen.insert(name.text().to_owned());
        if let Err(why) = names::label_1035(name.text()) {
            errors.invalid_value(&name, name.text(), why);
        }
        deprecation(&version, errors);
        for part in Part::ALL {
            if !part.is_common(spec) {
                part.validate(&version.field(part.field()), &version, errors);
            }
        }
    }
    if !unique {
        errors.invalid(all, "must contain unique version names");
    }
    let stored = all
        .items()
        .filter(|version| version.field("storage").is_true());
    if stored.count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.invalid(all, why);
    }
}

/// What all versions have in common, once.
fn common(spec: &At<'_>, all: &At<'_>, errors: &mut Errors) {
    let Some(first) = all.items().next() else {
        return;
    };
    for part in Part::ALL.into_iter().filter(|part| part.is_common(spec)) {
        let value = first.field(part.field()).value;
        part.validate(
            &spec.field(part.common_field()).holding(value),
            &first,
            errors,
        );
    }
}

/// A part of a version that Kubernetes reports at the root if it is the same in all.
#[derive(Clone, Copy)]
enum Part {
    Schema,
    Subresources,
    Columns,
    SelectableFields,
}

impl Part {
    const ALL: [Self; 4] = [
        Self::Schema,
        Self::Subresources,
        Self::Columns,
        Self::SelectableFields,
    ];

    fn field(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Subresources => "subresources",
            Self::Columns => "additionalPrinterColumns",
            Self::SelectableFields => "selectableFields",
        }
    }

    fn common_field(self) -> &'static str {
        match self {
            Self::Schema => "validation",
            other => other.field(),
        }
    }

    fn is_common(self, spec: &At<'_>) -> bool {
        let versions = spec.value["versions"].as_array().into_iter().flatten();
        let mut all = versions.map(|version| {
            let schema = matches!(self, Self::SelectableFields).then(|| version.get("schema"));
            (version.get(self.field()), schema)
        });
        let first = all.next();
        all.all(|other| Some(other) == first)
    }

    fn validate(self, at: &At<'_>, version: &At<'_>, errors: &mut Errors) {
        match self {
            Self::Schema => {
                let status = !version.value["subresources"]["status"].is_null();
                schema::validate(&at.field("openAPIV3Schema"), status, errors);
            }
            Self::Subresources => scale(&at.field("scale"), errors),
            Self::Columns => at
                .items()
                .for_each(|column| printer_column(&column, errors)),
            Self::SelectableFields => {
                let schema = &version.value["schema"]["openAPIV3Schema"];
                selectable_fields(at, schema, errors);
            }
        }
    }
}

fn deprecation(version: &At<'_>, errors: &mut Errors) {
    let warning = version.field("deprecationWarning");
    if warning.is_null() {
        return;
    }
    if !version.field("deprecated").is_true() {
        errors.invalid(&warning, "can only be set for deprecated versions");
        return;
    }
    let text = warning.text();
    if text.len() > MAX_WARNING_CHARS {
        let why = format!("must be <= {MAX_WARNING_CHARS} characters long");
        errors.invalid(&warning, why);
    }
    if text.is_empty() {
        errors.invalid(&warning, "must not be an empty string");
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index \
             {at}"
        );
        errors.invalid(&warning, why);
    }
}

fn scale(scale: &At<'_>, errors: &mut Errors) {
    if scale.is_null() {
        return;
    }
    for (field, root) in [
        ("specReplicasPath", ".spec."),
        ("statusReplicasPath", ".status."),
    ] {
        let path = scale.field(field);
        if path.is_empty() {
            errors.required(&path, "");
        } else if simple_path(&path, errors) && !path.text().starts_with(root) {
            let root = root.trim_end_matches('.');
            errors.invalid(&path, format!("should be a json path under {root}"));
        }
    }
    let path = scale.field("labelSelectorPath");
    let roots = [".spec.", ".status."];
    let fits = roots.iter().any(|root| path.text().starts_with(root));
    if !path.is_empty() && simple_path(&path, errors) && !fits {
        errors.invalid(&path, "should be a json path under either .spec or .status");
    }
}

fn printer_column(column: &At<'_>, errors: &mut Errors) {
    let [name, kind, format] = ["name", "type", "format"].map(|field| column.field(field));
    if name.is_empty() {
        errors.required(&name, "");
    }
    let types = format!("must be one of {}", COLUMN_TYPES.join(","));
    if kind.is_empty() {
        errors.required(&kind, &types);
    } else if !COLUMN_TYPES.contains(&kind.text()) {
        errors.invalid(&kind, types);
    }
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format.text()) {
        let formats = COLUMN_FORMATS.join(",");
        errors.invalid(&format, format!("must be one of {formats}"));
    }
    // The name is that of the older form of the type.
    let path = column.field("jsonPath").value;
    let path = column.field("JSONPath").holding(path);
    if path.is_empty() {
        errors.required(&path, "");
    } else {
        simple_path(&path, errors);
    }
}

fn simple_path(path: &At<'_>, errors: &mut Errors) -> bool {
    let fits = path.text().starts_with('.');
    if !fits {
        errors.invalid(path, "must be a simple json path starting with .");
    }
    fits
}

fn selectable_fields(fields: &At<'_>, schema: &Value, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for field in fields.items() {
        let path = field.field("jsonPath");
        if path.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let (names, found) = match paths::resolve(schema, path.text(), false) {
            Ok(found) => found,
            Err(why) => {
                errors.invalid(&path, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if names.first().is_some_and(|name| name == "metadata") {
            errors.invalid(&path, "must not point to fields in metadata");
        }
        let kind = found["type"].as_str().unwrap_or_default();
        if !["string", "boolean", "integer"].contains(&kind) {
            errors.invalid(
                &path,
                "must point to a field of type string, boolean or integer. Enum string fields and \
                 strings with formats are allowed.",
            );
        }
        if !seen.insert(names) {
            errors.duplicate(&path);
        }
    }
    if seen.len() > MAX_SELECTABLE_FIELDS {
        errors.too_many(fields, seen.len(), MAX_SELECTABLE_FIELDS);
    }
}

fn conversion(conversion: &At<'_>, errors: &mut Errors) {
    if conversion.is_null() {
        return;
    }
    let strategy = conversion.field("strategy");
    errors.one_of(&strategy, &["None", "Webhook"]);
    // The names are those of the older form of the type.
    let webhook = conversion.field("webhook");
    let client = conversion.field("webhookClientConfig");
    let client = client.holding(webhook.field("clientConfig").value);
    let versions = conversion.field("conversionReviewVersions");
    let versions = versions.holding(webhook.field("conversionReviewVersions").value);
    if strategy.text() == "Webhook" {
        if client.is_null() {
            errors.required(&client, "required when strategy is set to Webhook");
        } else {
            webhooks::client(&client, errors);
        }
        webhooks::review_versions(&versions, "", errors);
        return;
    }
    let why = "should not be set when strategy is not set to Webhook";
    if !client.is_null() {
        errors.forbidden(&client, why);
    }
    if !versions.is_empty() {
        errors.forbidden(&versions, why);
    }
}
