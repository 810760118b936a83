//! OpenAPI v3 schema of a custom kind → definition, for the same engine as the built-in kinds.
//!
//! Read here is what shapes an object: properties, defaults, null, `x-kubernetes-` words. What
//! refuses a value (`type` itself, `pattern`, `enum`, `minimum`, `required`, CEL rules …) is
//! validation's, which reads the schema for itself.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Definition, Field, FieldFacts, Rules, Type, field};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl Definition {
    /// The definition of a kind from its structural schema (`spec.versions[].schema.openAPIV3Schema`
    /// of a CustomResourceDefinition). `apiVersion`, `kind` and `metadata` are always known. The
    /// schema was decoded from a document, so that its depth is bounded.
    pub fn from_openapi(schema: &Value) -> Self {
        object(schema, true)
    }
}

/// An object with properties. An embedded one is a whole object with kind and metadata.
fn object(schema: &Value, embedded: bool) -> Definition {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let mut fields: BTreeMap<Box<str>, Field> = properties
        .map(|(name, schema)| (name.as_str().into(), property(schema)))
        .collect();
    if embedded {
        let known = [
            ("apiVersion", Type::String),
            ("kind", Type::String),
            ("metadata", Type::Ref(OBJECT_META.into())),
        ];
        for (name, ty) in known {
            fields.insert(name.into(), field(None, ty));
        }
    }
    Definition {
        name: "".into(),
        fields,
        atomic: schema["x-kubernetes-map-type"] == "atomic",
        rules: Rules::Structural,
        keeps_unknown: is(schema, "x-kubernetes-preserve-unknown-fields"),
        always: Box::default(),
    }
}

fn property(schema: &Value) -> Field {
    Field {
        default: schema.get("default").cloned(),
        ..field(Some(&facts(schema)), type_of(schema))
    }
}

/// How a list or map merges, in the form in which the facts about built-in types come.
fn facts(schema: &Value) -> FieldFacts {
    let word = |key: &str| schema[key].as_str().map(str::to_owned);
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    let keys = keys.into_iter().flatten().filter_map(Value::as_str);
    FieldFacts {
        list_type: word("x-kubernetes-list-type"),
        list_map_keys: keys.map(str::to_owned).collect(),
        map_type: word("x-kubernetes-map-type"),
        ..FieldFacts::default()
    }
}

fn type_of(schema: &Value) -> Type {
    let ty = not_null(schema);
    if is(schema, "nullable") {
        Type::Nullable(Box::new(ty))
    } else {
        ty
    }
}

fn not_null(schema: &Value) -> Type {
    if is(schema, "x-kubernetes-int-or-string") {
        return Type::IntOrString;
    }
    match schema["type"].as_str() {
        Some("boolean") => Type::Bool,
        Some("integer") if schema["format"] == "int32" => Type::Int32,
        Some("integer") => Type::Int64,
        Some("number") => Type::Number,
        Some("string") => Type::String,
        Some("array") => Type::List(Box::new(type_of(&schema["items"]))),
        Some("object") => map_or_object(schema),
        _ => Type::Any,
    }
}

fn map_or_object(schema: &Value) -> Type {
    let embedded = is(schema, "x-kubernetes-embedded-resource");
    match &schema["additionalProperties"] {
        values @ Value::Object(_) => Type::Map(Box::new(type_of(values))),
        Value::Bool(true) => Type::Map(Box::new(Type::Any)),
        _ => Type::Inline(Arc::new(object(schema, embedded))),
    }
}

fn is(schema: &Value, word: &str) -> bool {
    schema[word] == true
}

#[cfg(test)]
mod tests;
