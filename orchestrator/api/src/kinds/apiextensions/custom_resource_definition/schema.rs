//! Each JSON schema of a definition: keywords that are not supported, and those that go together.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{expressions, paths, structural};
use crate::re2;
use crate::validation::{At, Errors};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

const UNSUPPORTED: [&str; 6] = [
    "id",
    "additionalItems",
    "patternProperties",
    "definitions",
    "dependencies",
    "$ref",
];

/// What an object has besides what its schema says.
const META: [(&str, &str); 3] = [
    ("apiVersion", "in top-level apiVersion"),
    ("kind", "in top-level kind"),
    ("metadata", "in top-level metadata"),
];

/// Keywords of a root whose status is checked alone, and what Kubernetes calls them.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    (
        "x-kubernetes-preserve-unknown-fields",
        "XPreserveUnknownFields",
    ),
    ("x-kubernetes-validations", "XValidations"),
];

const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];

/// The schema of a version, with or without a status of its own.
pub fn validate(schema: &At<'_>, has_status: bool, errors: &mut Errors) {
    if schema.is_null() {
        return;
    }
    let mut found = Errors::default();
    if has_status {
        keywords_at_root(schema, &mut found);
    }
    let nullable = schema.field("nullable");
    if nullable.is_true() {
        found.forbidden(&nullable, "nullable cannot be true at the root");
    }
    let unsupported = structural::unsupported(schema.value);
    if unsupported.is_none() {
        structural::validate(schema, &mut found);
    }
    open_api(schema, Place::Root, &mut found);
    match unsupported {
        Some(why) if found.is_empty() => found.invalid_value(schema, "", why),
        None if found.is_empty() => expressions::validate(schema, &mut found),
        _ => {}
    }
    errors.append(found);
}

/// Whether a keyword says anything: JSON can say false and nothing where Go's types cannot.
pub fn is_given(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

fn keywords_at_root(schema: &At<'_>, errors: &mut Errors) {
    let kind = schema.field("type");
    if !kind.is_empty() && kind.text() != "object" {
        errors.invalid(
            &kind,
            "only \"object\" is allowed as the type at the root of the schema if the status \
             subresource is enabled",
        );
        return;
    }
    let allowed = |keyword: &str| AT_ROOT.iter().any(|(name, _)| *name == keyword);
    if schema
        .entries()
        .any(|(keyword, at)| is_given(at.value) && !allowed(keyword))
    {
        let names = AT_ROOT.map(|(_, name)| name).join(" ");
        errors.invalid(
            schema,
            format!(
                "only [{names}] fields are allowed at the root of the schema if the status \
                 subresource is enabled"
            ),
        );
    }
}

/// Where a schema stands, as far as that forbids something.
#[derive(Clone, Copy)]
enum Place {
    Root,
    Inner,
    /// Below `metadata` and its like; a default is forbidden if a reason is given.
    Meta(Option<&'static str>),
}

impl Place {
    fn of_a_child(self) -> Self {
        match self {
            Self::Root => Self::Inner,
            other => other,
        }
    }

    fn of_a_property(self, schema: &Value, name: &str) -> Self {
        let meta = META.iter().find(|(meta, _)| *meta == name);
        let embedded = schema["x-kubernetes-embedded-resource"] == true;
        match (self, meta) {
            (Self::Root, Some((_, why))) => Self::Meta(Some(why)),
            (Self::Inner, Some(_)) if embedded => Self::Meta(None),
            (place, _) => place.of_a_child(),
        }
    }

    fn of_values(self) -> Self {
        match self {
            Self::Meta(_) => Self::Meta(Some(
                "inside additionalProperties applying to object metadata",
            )),
            other => other.of_a_child(),
        }
    }
}

fn open_api(schema: &At<'_>, place: Place, errors: &mut Errors) {
    if !schema.value.is_object() {
        return;
    }
    keywords(schema, place, errors);
    let more = schema.field("additionalProperties");
    let properties = schema.field("properties");
    if !properties.is_empty() && (more.value.is_object() || more.value == false) {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.forbidden(&more, why);
    }
    open_api(&more, place.of_values(), errors);
    for (name, property) in properties.entries() {
        open_api(&property, place.of_a_property(schema.value, name), errors);
    }
    let child = place.of_a_child();
    open_api(&schema.field("not"), child, errors);
    for junctor in ["allOf", "oneOf", "anyOf"] {
        let all = schema.field(junctor);
        all.items().for_each(|at| open_api(&at, child, errors));
    }
    let items = schema.field("items");
    open_api(&items, child, errors);
    items.items().for_each(|at| open_api(&at, child, errors));
    for map in ["definitions", "dependencies"] {
        let all = schema.field(map);
        all.entries()
            .for_each(|(_, at)| open_api(&at, child, errors));
    }
    extensions(schema, errors);
    map_keys(schema, errors);
    items_of_a_set(schema, errors);
    rules(schema, errors);
}

/// Keywords of OpenAPI, each for itself.
fn keywords(schema: &At<'_>, place: Place, errors: &mut Errors) {
    let kind = schema.field("type");
    if !kind.is_empty() && !TYPES.contains(&kind.text()) {
        errors.not_supported(&kind, &TYPES);
    }
    let default = schema.field("default");
    if let Place::Meta(Some(why)) = place
        && !default.is_null()
    {
        errors.forbidden(&default, &format!("must not be set {why}"));
    }
    for keyword in UNSUPPORTED {
        let at = schema.field(keyword);
        // A false says something here, and so does an empty reference.
        let pointer = ["additionalItems", "$ref"].contains(&keyword);
        if is_given(at.value) || (pointer && !at.is_null()) {
            errors.forbidden(&at, &format!("{keyword} is not supported"));
        }
    }
    if kind.text() == "null" {
        errors.forbidden(
            &kind,
            "type cannot be set to null, use nullable as an alternative",
        );
    }
    let pattern = schema.field("pattern");
    if let Err(why) = re2::Pattern::new(pattern.text()) {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        errors.invalid(&pattern, why);
    }
    let items = schema.field("items");
    if items.value.is_array() && !items.is_empty() {
        errors.forbidden(&items, "items must be a schema object and not an array");
    }
    let embedded = schema.field("x-kubernetes-embedded-resource");
    if embedded.is_true() && matches!(place, Place::Meta(_)) {
        errors.forbidden(&embedded, "must not be used inside of resource meta");
    }
    let unique = schema.field("uniqueItems");
    if unique.is_true() {
        errors.forbidden(
            &unique,
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
}

/// Kubernetes' own keywords.
fn extensions(schema: &At<'_>, errors: &mut Errors) {
    let preserve = schema.field("x-kubernetes-preserve-unknown-fields");
    if preserve.value == false {
        errors.invalid(&preserve, "must be true or undefined");
    }
    let words: [(&str, &str, &[&str]); 2] = [
        ("x-kubernetes-map-type", "object", &["atomic", "granular"]),
        ("x-kubernetes-list-type", "array", &["atomic", "set", "map"]),
    ];
    let kind = schema.field("type");
    for (keyword, wanted, values) in words {
        let at = schema.field(keyword);
        if at.is_null() {
            continue;
        }
        let why = format!("must be {wanted} if {keyword} is specified");
        if kind.is_empty() {
            errors.required(&kind, &why);
        } else if kind.text() != wanted {
            errors.invalid(&kind, why);
        }
        if !values.contains(&at.text()) {
            errors.not_supported(&at, values);
        }
    }
}

/// The keys of a list that is a map.
fn map_keys(schema: &At<'_>, errors: &mut Errors) {
    let [kind, keys, items] = [
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "items",
    ]
    .map(|field| schema.field(field));
    if !keys.is_empty() {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        if kind.is_null() {
            errors.required(&kind, why);
        } else if kind.text() != "map" {
            errors.invalid(&kind, why);
        }
    }
    if kind.text() != "map" {
        return;
    }
    if keys.is_empty() {
        errors.required(&keys, "must not be empty if x-kubernetes-list-type is map");
    }
    if items.is_null() {
        let why = "must have a schema if x-kubernetes-list-type is map";
        errors.required(&items, why);
        return;
    }
    let (of_item, properties) = (items.field("type"), items.field("properties"));
    if of_item.text() != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.invalid_value(&of_item, of_item.text(), why);
        return;
    }
    let mut seen = BTreeSet::new();
    for key in keys.items() {
        let property = properties.key(key.text());
        let of_key = property.field("type");
        if property.is_null() {
            errors.invalid(&keys, "entries must all be names of item properties");
        } else if ["array", "object"].contains(&of_key.text()) {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid_part(&of_key, of_item.value, why);
        }
        if !seen.insert(key.text().to_owned()) {
            errors.invalid(&keys, "must not contain duplicate entries");
        }
    }
    keys_are_always_there(&keys, &items, errors);
}

fn keys_are_always_there(keys: &At<'_>, items: &At<'_>, errors: &mut Errors) {
    let (required, properties) = (items.field("required"), items.field("properties"));
    for key in keys.items() {
        let property = properties.key(key.text());
        if property.is_null() {
            continue;
        }
        let (default, nullable) = (property.field("default"), property.field("nullable"));
        if default.is_null() && !required.items().any(|name| name.value == key.value) {
            errors.required(
                &default,
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                 required property",
            );
        }
        if nullable.is_true() {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&nullable, why);
        }
    }
}

/// Items that are told apart must be whole and there.
fn items_of_a_set(schema: &At<'_>, errors: &mut Errors) {
    let (kind, items) = (
        schema.field("x-kubernetes-list-type"),
        schema.field("items"),
    );
    if !["map", "set"].contains(&kind.text()) || !items.value.is_object() {
        return;
    }
    let nullable = items.field("nullable");
    if nullable.is_true() {
        let why = format!(
            "cannot be nullable when x-kubernetes-list-type is {}",
            kind.text()
        );
        errors.forbidden(&nullable, &why);
    }
    if kind.text() != "set" {
        return;
    }
    let keyword = match items.field("type").text() {
        "array" if !items.field("x-kubernetes-list-type").is_null() => "x-kubernetes-list-type",
        "object" => "x-kubernetes-map-type",
        _ => return,
    };
    let at = items.field(keyword);
    if at.text() != "atomic" {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        errors.invalid(&at, why);
    }
}

/// The words around expressions.
fn rules(schema: &At<'_>, errors: &mut Errors) {
    let rules = schema.field("x-kubernetes-validations");
    let has_newlines = |text: &str| text.contains(['\n', '\r']);
    for item in rules.items() {
        let [rule, message, other, reason, path] = [
            "rule",
            "message",
            "messageExpression",
            "reason",
            "fieldPath",
        ]
        .map(|f| item.field(f));
        let (text, said) = (rule.text().trim(), message.text().trim());
        if text.is_empty() {
            errors.required(&rule, "rule is not specified");
        } else if !message.is_empty() && said.is_empty() {
            errors.invalid(&message, "must be non-empty if specified");
        } else if has_newlines(said) {
            errors.invalid(&message, "must not contain line breaks");
        } else if has_newlines(text) && said.is_empty() {
            let why = "message must be specified if rule contains line breaks";
            errors.required(&message, why);
        }
        if !other.is_empty() && other.text().trim().is_empty() {
            errors.required(&other, "messageExpression must be non-empty if specified");
        }
        errors.one_of_if_any(&reason, &REASONS);
        if path.is_empty() {
            continue;
        }
        if path.text().trim().is_empty() {
            errors.invalid(&path, "must be non-empty if specified");
        }
        if has_newlines(path.text()) {
            errors.invalid(&path, "must not contain line breaks");
        }
        if paths::resolve(schema.value, path.text(), true).is_err() {
            errors.invalid(&path, "must be a valid path");
        }
    }
}
