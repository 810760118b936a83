//! What makes a schema structural: every value has one type, said outside of `allOf`, `anyOf`, `oneOf`
//! and `not`, which only narrow it down.

use serde_json::{Value, json};

use super::schema::is_given;
use crate::validation::{At, Errors};

/// Keywords that a structural schema cannot have, and what Kubernetes calls them.
const UNSUPPORTED: [(&str, &str); 7] = [
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
];

const JUNCTORS: [&str; 3] = ["anyOf", "allOf", "oneOf"];

const METADATA: [&str; 2] = ["generateName", "name"];

/// How deep a schema is, as far as the texts of errors tell.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// The first keyword for which there is no structural schema.
pub fn unsupported(schema: &Value) -> Option<String> {
    let map = schema.as_object()?;
    if let Some((_, name)) = UNSUPPORTED.iter().find(|(key, name)| {
        map.get(*key)
            .is_some_and(|value| is_given(value) || *name == "additionalItems")
    }) {
        return Some(format!("OpenAPIV3Schema '{name}' is not supported"));
    }
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let keyword = "x-kubernetes-preserve-unknown-fields";
        return Some(format!(
            "internal error: '{keyword}' must be true or undefined"
        ));
    }
    if map
        .get("items")
        .is_some_and(|items| items.is_array() && is_given(items))
    {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
    }
    let lists = JUNCTORS
        .iter()
        .filter_map(|junctor| map.get(*junctor)?.as_array());
    let single = ["not", "items", "additionalProperties"].iter();
    let single = single.filter_map(|keyword| map.get(*keyword));
    let properties = map.get("properties").and_then(Value::as_object);
    let properties = properties.into_iter().flatten().map(|(_, schema)| schema);
    let mut all = lists.flatten().chain(single).chain(properties);
    all.find_map(unsupported)
}

/// Errors come in the order of their texts, as Kubernetes gives them.
pub fn validate(schema: &At<'_>, errors: &mut Errors) {
    let mut found = Errors::default();
    invariants(schema, Level::Root, &mut found);
    completeness(schema, schema, &mut found);
    found.sort();
    errors.append(found);
}

fn invariants(schema: &At<'_>, level: Level, errors: &mut Errors) {
    if !schema.value.is_object() {
        return;
    }
    let [kind, items, properties, more] =
        ["type", "items", "properties", "additionalProperties"].map(|field| schema.field(field));
    if kind.text() == "array" && items.is_null() {
        errors.required(&items, "must be specified");
    }
    invariants(&items, Level::Item, errors);
    for (_, property) in properties.entries() {
        invariants(&property, Level::Field, errors);
    }
    if !more.is_null() && level == Level::Root {
        errors.forbidden(&more, "must not be used at the root");
    }
    invariants(&more, Level::Field, errors);
    contradictions(schema, errors);
    let any_of = is_int_or_string(&schema.value["anyOf"]);
    let first_all_of = is_int_or_string(&schema.value["allOf"][0]["anyOf"]);
    value_validation(schema, any_of, first_all_of, errors);
    type_of_a_schema(schema, level, errors);
    metadata(schema, level, errors);
}

fn contradictions(schema: &At<'_>, errors: &mut Errors) {
    let [either, preserve, embedded] = [
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
    ]
    .map(|field| schema.field(field));
    for at in [&preserve, &embedded] {
        if either.is_true() && at.is_true() {
            errors.invalid(at, "must be false if x-kubernetes-int-or-string is true");
        }
    }
    let more = schema.field("additionalProperties");
    if embedded.is_true() && !more.is_null() {
        errors.forbidden(
            &more,
            "must not be used if x-kubernetes-embedded-resource is set",
        );
    }
    let properties = schema.field("properties");
    if embedded.is_true() && !preserve.is_true() && properties.is_empty() {
        errors.required(
            &properties,
            "must not be empty if x-kubernetes-embedded-resource is true without \
             x-kubernetes-preserve-unknown-fields",
        );
    }
}

fn type_of_a_schema(schema: &At<'_>, level: Level, errors: &mut Errors) {
    let kind = schema.field("type");
    let is = |extension: &str| schema.value[extension] == true;
    let why = "must be object if x-kubernetes-embedded-resource is true";
    if is("x-kubernetes-embedded-resource") && kind.text() != "object" {
        match kind.is_empty() {
            true => errors.required(&kind, why),
            false => errors.invalid(&kind, why),
        }
    } else if kind.is_empty()
        && !is("x-kubernetes-int-or-string")
        && !is("x-kubernetes-preserve-unknown-fields")
    {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.required(&kind, why);
    }
    if level == Level::Root && !kind.is_empty() && kind.text() != "object" {
        errors.invalid(&kind, "must be object at the root");
    }
}

/// What every object has is known: a schema says at most which names there are.
fn metadata(schema: &At<'_>, level: Level, errors: &mut Errors) {
    let embedded = schema.value["x-kubernetes-embedded-resource"] == true;
    let is_an_object = level == Level::Root || embedded;
    let properties = schema.field("properties");
    for name in ["kind", "apiVersion"] {
        let property = properties.key(name);
        let kind = property.field("type");
        if is_an_object && !property.is_null() && kind.text() != "string" {
            errors.invalid_value(&kind, kind.text(), "must be string");
        }
    }
    let metadata = properties.key("metadata");
    if metadata.is_null() {
        return;
    }
    let kind = metadata.field("type");
    if is_an_object && kind.text() != "object" {
        errors.invalid_value(&kind, kind.text(), "must be object");
    }
    let says_more = metadata.entries().any(|(keyword, at)| match keyword {
        "type" | "default" => false,
        "properties" => at.entries().any(|(name, _)| !METADATA.contains(&name)),
        _ => is_given(at.value),
    });
    if level == Level::Root && says_more {
        errors.forbidden(
            &metadata,
            "must not specify anything other than name and generateName, but metadata is \
             implicitly specified",
        );
    }
}

/// The two ways to say that a value is a number or a text.
fn is_int_or_string(any_of: &Value) -> bool {
    *any_of == json!([{"type": "integer"}, {"type": "string"}])
}

fn value_validation(
    schema: &At<'_>,
    skip_any_of: bool,
    skip_any_of_in_first: bool,
    errors: &mut Errors,
) {
    for junctor in JUNCTORS {
        if junctor == "anyOf" && skip_any_of {
            continue;
        }
        let all = schema.field(junctor);
        for (at, item) in all.items().enumerate() {
            let skip = junctor == "allOf" && at == 0 && skip_any_of_in_first;
            nested(&item, skip, errors);
        }
    }
    nested(&schema.field("not"), false, errors);
}

/// Keywords that have no place below a junctor.
const FORBIDDEN: [(&str, &str); 12] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    (
        "x-kubernetes-preserve-unknown-fields",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-embedded-resource",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-int-or-string",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-list-map-keys",
        "must be empty to be structural",
    ),
    (
        "x-kubernetes-list-type",
        "must be undefined to be structural",
    ),
    (
        "x-kubernetes-map-type",
        "must be undefined to be structural",
    ),
];

fn nested(schema: &At<'_>, skip_any_of: bool, errors: &mut Errors) {
    if !schema.value.is_object() {
        return;
    }
    value_validation(schema, skip_any_of, false, errors);
    nested(&schema.field("items"), false, errors);
    let properties = schema.field("properties");
    for (_, property) in properties.entries() {
        nested(&property, false, errors);
    }
    for (keyword, why) in FORBIDDEN {
        let at = schema.field(keyword);
        let whatever = keyword == "default" || at.value.is_object();
        if is_given(at.value) || (whatever && !at.is_null()) {
            errors.forbidden(&at, why);
        }
    }
    let rules = schema.field("x-kubernetes-validations");
    if !rules.is_empty() {
        errors.forbidden(&rules, "must be empty to be structural");
    }
    let metadata = properties.key("metadata");
    if !metadata.is_null() {
        errors.forbidden(&metadata, "must not be specified in a nested context");
    }
}

/// What a junctor narrows down must be there: `structure` is the place outside of all junctors.
fn completeness(narrowing: &At<'_>, structure: &At<'_>, errors: &mut Errors) {
    narrowed(&narrowing.field("not"), structure, errors);
    for junctor in JUNCTORS {
        let all = narrowing.field(junctor);
        all.items()
            .for_each(|item| narrowed(&item, structure, errors));
    }
}

fn narrowed(narrowing: &At<'_>, structure: &At<'_>, errors: &mut Errors) {
    if narrowing.is_null() {
        return;
    }
    if structure.is_null() {
        errors.required(structure, &format!("because it is defined in {narrowing}"));
        return;
    }
    completeness(narrowing, structure, errors);
    narrowed(&narrowing.field("items"), &structure.field("items"), errors);
    let (properties, known) = (narrowing.field("properties"), structure.field("properties"));
    for (name, property) in properties.entries() {
        narrowed(&property, &known.key(name), errors);
    }
}
