//! The schema of a custom kind as OpenAPI publishes it: that of its definition, with the fields that every
//! object has. Version 2 says less, since kubectl trusts what it says
//! (`apiextensions-apiserver/pkg/controller/openapi`).

use serde_json::{Map, Value, json};

use crate::resource::Resource;

/// Which version of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

/// What every object has: the schemas of `apiVersion`, `kind` and `metadata`.
pub struct Meta<'a> {
    pub api_version: &'a Value,
    pub kind: &'a Value,
    pub metadata: &'a Value,
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const EITHER: &str = "x-kubernetes-int-or-string";
const KIND: &str = "x-kubernetes-group-version-kind";

/// The published schema of a version, from `openAPIV3Schema`.
pub fn published(resource: &Resource, schema: Value, dialect: Dialect, meta: &Meta<'_>) -> Value {
    let mut out = match schema {
        // A schema without properties is one that allows no fields, to kubectl.
        Value::Object(schema) if !(dialect == Dialect::V2 && is(&schema, PRESERVE)) => schema,
        _ => Map::from_iter([("type".to_owned(), "object".into())]),
    };
    if out.len() > 1 || dialect == Dialect::V3 {
        match dialect {
            Dialect::V2 => simplify(&mut out),
            Dialect::V3 => spell_out(&mut out),
        }
        embedded(&mut out, dialect, meta);
        add_meta(&mut out, meta);
    }
    let Resource {
        group,
        version,
        kind,
        ..
    } = resource;
    let kind = json!([{"group": group, "kind": kind, "version": version}]);
    out.insert(KIND.into(), kind);
    Value::Object(out)
}

fn is(schema: &Map<String, Value>, word: &str) -> bool {
    schema.get(word) == Some(&Value::Bool(true))
}

fn add_meta(schema: &mut Map<String, Value>, meta: &Meta<'_>) {
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    properties["apiVersion"] = meta.api_version.clone();
    properties["kind"] = meta.kind.clone();
    properties["metadata"] = meta.metadata.clone();
}

/// Objects inside that have a kind of their own.
fn embedded(schema: &mut Map<String, Value>, dialect: Dialect, meta: &Meta<'_>) {
    children(schema, |child| embedded(child, dialect, meta));
    if !is(schema, EMBEDDED) || (dialect == Dialect::V2 && is(schema, PRESERVE)) {
        return;
    }
    add_meta(schema, meta);
    let required = schema.entry("required").or_insert_with(|| json!([]));
    if let Value::Array(required) = required {
        for field in ["kind", "apiVersion"] {
            if !required.iter().any(|name| name == field) {
                required.push(field.into());
            }
        }
    }
}

/// The schemas of what is in a value, not those that narrow it down.
fn children(schema: &mut Map<String, Value>, mut each: impl FnMut(&mut Map<String, Value>)) {
    for keyword in ["items", "additionalProperties"] {
        if let Some(Value::Object(child)) = schema.get_mut(keyword) {
            each(child);
        }
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            if let Value::Object(child) = property {
                each(child);
            }
        }
    }
}

/// Takes out what version 2 does not know or kubectl misreads.
fn simplify(schema: &mut Map<String, Value>) {
    for junctor in ["allOf", "anyOf", "oneOf", "not"] {
        schema.remove(junctor);
    }
    let (nullable, preserve) = (is(schema, "nullable"), is(schema, PRESERVE));
    schema.remove("nullable");
    if nullable || preserve {
        schema.remove("items");
        schema.remove("properties");
    }
    let kind = schema
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let untyped = match kind {
        "array" => !schema.contains_key("items"),
        "object" => preserve,
        _ => false,
    };
    if untyped || nullable {
        schema.remove("type");
    }
    optional_if_nullable(schema);
    children(schema, simplify);
}

/// A field that may be null need not be there.
fn optional_if_nullable(schema: &mut Map<String, Value>) {
    let is_nullable = |schema: &Value| schema["nullable"] == true;
    if schema.get("additionalProperties").is_some_and(is_nullable) {
        schema.remove("required");
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let nullable: Vec<String> = properties
        .into_iter()
        .flatten()
        .filter(|(_, schema)| is_nullable(schema))
        .map(|(name, _)| name.clone())
        .collect();
    let Some(Value::Array(required)) = schema.get_mut("required") else {
        return;
    };
    required.retain(|name| !nullable.iter().any(|nullable| name == nullable));
    if required.is_empty() {
        schema.remove("required");
    }
}

/// A number or a text says so in words of OpenAPI as well.
fn spell_out(schema: &mut Map<String, Value>) {
    if is(schema, EITHER) && !schema.contains_key("anyOf") && !schema.contains_key("allOf") {
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        schema.insert("anyOf".into(), either);
    }
    children(schema, spell_out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: Value, dialect: Dialect) -> Value {
        let text = json!({"type": "string"});
        let meta = Meta {
            api_version: &text,
            kind: &text,
            metadata: &json!({"$ref": "#/x"}),
        };
        let pods = crate::find("", "v1", "pods").unwrap();
        let mut out = published(pods, schema, dialect, &meta);
        let object = out.as_object_mut().unwrap();
        assert!(object.remove(KIND).is_some());
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            for field in ["apiVersion", "kind", "metadata"] {
                assert!(properties.remove(field).is_some(), "{field}");
            }
        }
        out
    }

    #[test]
    fn a_plain_schema_is_published_as_it_is() {
        let schema = json!({"type": "object", "description": "D", "properties": {
            "spec": {"type": "object", "required": ["a"], "properties": {
                "a": {"type": "string", "pattern": "x|y"}}}}});
        assert_eq!(of(schema.clone(), Dialect::V2), schema);
        assert_eq!(of(schema.clone(), Dialect::V3), schema);
    }

    #[test]
    fn version_2_says_nothing_of_what_kubectl_would_misread() {
        let schema = json!({"type": "object", "required": ["n", "m"], "properties": {
            "n": {"type": "object", "nullable": true, "properties": {"a": {"type": "string"}}},
            "m": {"type": "string", "anyOf": [{"pattern": "x"}]},
            "p": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"a": {"type": "string"}}, "description": "P"},
        }});
        assert_eq!(
            of(schema, Dialect::V2),
            json!({"type": "object", "required": ["m"], "properties": {
                "n": {}, "m": {"type": "string"},
                "p": {"x-kubernetes-preserve-unknown-fields": true, "description": "P"},
            }})
        );
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        assert_eq!(of(open.clone(), Dialect::V2), json!({"type": "object"}));
        let mut with_properties = open;
        with_properties["properties"] = json!({});
        assert_eq!(of(with_properties.clone(), Dialect::V3), with_properties);
    }

    #[test]
    fn embedded_objects_have_what_every_object_has() {
        let pod = json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {"spec": {"type": "object"}}});
        let schema = json!({"type": "object", "properties": {"pod": pod}});
        let pod = &of(schema, Dialect::V3)["properties"]["pod"];
        assert_eq!(pod["required"], json!(["kind", "apiVersion"]));
        assert_eq!(pod["properties"]["metadata"], json!({"$ref": "#/x"}));
    }
}
