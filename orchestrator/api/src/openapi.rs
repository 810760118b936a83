//! The component schemas that OpenAPI publishes; paths are the API server's.
//!
//! k8s-openapi's schemas, dressed as Kubernetes dresses them: which kind a schema is, how lists
//! merge, numbers that may be strings. Nothing is kept: the caller stores what it serves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Map, Value, json};

use super::{
    custom::{self, openapi::Dialect},
    registry,
    resource::Resource,
    schema::{self, FieldFacts, ListFacts},
};

/// Schemas of the resources of a group and version, by name, for `components.schemas` of an OpenAPI v3
/// document: references begin with `#/components/schemas/`.
pub fn v3_schemas(resources: &[&Resource]) -> Map<String, Value> {
    let published = published();
    let roots = resources.iter().flat_map(|r| {
        let subresources = r.subresources.iter();
        let subresources = subresources.map(|s| s.object(r).definition.to_string());
        [r.definition.to_string()].into_iter().chain(subresources)
    });
    let others = REQUEST_TYPES.into_iter().chain([CONFIG_MAP, LIST_META]);
    let keep = reachable(&published, roots.chain(others.map(str::to_owned)));
    // Only these are copied.
    let kept = keep.iter().filter_map(|name| {
        let schema = published.get(name)?;
        Some((name.clone(), schema.clone()))
    });
    let mut all = dressed(Dialect::V3, resources, kept.collect());
    // It lent custom kinds what all kinds have.
    if !resources.iter().any(|r| r.definition == CONFIG_MAP) {
        all.remove(CONFIG_MAP);
    }
    all
}

/// Schemas of all these resources, by name, for `definitions` of an OpenAPI v2 document: references begin
/// with `#/definitions/`.
pub fn v2_definitions(resources: &[&Resource]) -> Map<String, Value> {
    dressed(Dialect::V2, resources, Map::clone(&published()))
}

/// The schemas of all types. Whoever makes several documents holds them meanwhile, so that they are made once.
pub fn published() -> Arc<Map<String, Value>> {
    static HELD: Mutex<Weak<Map<String, Value>>> = Mutex::new(Weak::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.upgrade().unwrap_or_else(|| {
        let made = Arc::new(schema::published());
        *held = Arc::downgrade(&made);
        made
    })
}

const REQUEST_TYPES: [&str; 4] = [
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList",
];

const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn dressed(
    dialect: Dialect,
    resources: &[&Resource],
    mut all: Map<String, Value>,
) -> Map<String, Value> {
    let facts = schema::list_facts();
    let built_in: Vec<_> = resources.iter().filter(|r| r.custom.is_none()).collect();
    all.extend(built_in.iter().map(|r| (r.list_definition(), list_of(r))));
    // Several versions may have one schema.
    let mut kinds: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for r in built_in.into_iter().copied().chain(registry::bodies()) {
        let kind = |kind: &str| json!({"group": r.group, "kind": kind, "version": r.version});
        let mut add = |name, kind| kinds.entry(name).or_default().push(kind);
        add(r.definition.to_string(), kind(&r.kind));
        add(r.list_definition(), kind(&r.list_kind));
    }
    for (name, schema) in &mut all {
        if let Some(leaf) = leaf(name, dialect) {
            let description = schema.get("description").cloned();
            *schema = leaf;
            if let (Some(text), Some(object)) = (description, schema.as_object_mut()) {
                object.insert("description".into(), text);
            }
            continue;
        }
        list_facts(schema, facts.get(name));
        if let Some(kind) = kinds.remove(name) {
            identify(schema, kind.into());
        } else if name.ends_with(".DeleteOptions") || name.ends_with(".Status") {
            let kind = name.rsplit('.').next().unwrap_or_default();
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": "", "kind": kind, "version": "v1"}]);
        }
        references(schema, dialect);
    }
    for r in resources {
        if let Some(custom) = &r.custom {
            add_custom(&mut all, r, custom.schema(), dialect);
        }
    }
    all
}

/// The schemas of a custom kind and of its list. What its author wrote is nothing to rewrite.
fn add_custom(all: &mut Map<String, Value>, of: &Resource, schema: Value, dialect: Dialect) {
    let mut list = list_of(of);
    references(&mut list, dialect);
    let kind = json!([{"group": of.group, "kind": of.list_kind, "version": of.version}]);
    identify(&mut list, kind);
    let mut metadata = json!({
        "description": "Standard object's metadata. More info: https://git.k8s.io/community/\
                        contributors/devel/sig-architecture/api-conventions.md#metadata",
        "$ref": format!("#/$defs/{OBJECT_META}"),
    });
    references(&mut metadata, dialect);
    let of_every_object = &all[CONFIG_MAP]["properties"];
    let meta = custom::openapi::Meta {
        api_version: &of_every_object["apiVersion"],
        kind: &of_every_object["kind"],
        metadata: &metadata,
    };
    let schema = custom::openapi::published(of, schema, dialect, &meta);
    all.insert(of.list_definition(), list);
    all.insert(of.definition.to_string(), schema);
}

/// The list of a kind, which k8s-openapi has no schema for.
fn list_of(resource: &Resource) -> Value {
    let text = |description: &str| json!({"description": description, "type": "string"});
    json!({
        "description": format!("{} is a list of {}.", resource.list_kind, resource.kind),
        "type": "object",
        "properties": {
            "apiVersion": text("APIVersion defines the versioned schema of this representation."),
            "items": {
                "description": "Items is the list of objects.",
                "type": "array",
                "items": {"$ref": format!("#/$defs/{}", resource.definition)},
            },
            "kind": text("Kind is a string value representing the REST resource."),
            "metadata": {
                "description": "Standard list metadata.",
                "$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
            },
        },
        "required": ["items"],
    })
}

/// Says which kind the schema is; metadata is not required of an object.
fn identify(schema: &mut Value, kind: Value) {
    schema["x-kubernetes-group-version-kind"] = kind;
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| field != "metadata");
        if required.is_empty() {
            schema
                .as_object_mut()
                .map(|object| object.remove("required"));
        }
    }
}

/// Adds the `x-kubernetes-` words for lists, maps and patches.
fn list_facts(schema: &mut Value, facts: Option<&ListFacts>) {
    let Some(facts) = facts else { return };
    if let Some(map_type) = &facts.map_type {
        schema["x-kubernetes-map-type"] = map_type.as_str().into();
    }
    for (field, facts) in &facts.fields {
        if let Some(property) = schema["properties"].get_mut(field) {
            field_facts(property, facts);
        }
    }
}

fn field_facts(property: &mut Value, facts: &FieldFacts) {
    let words = [
        ("x-kubernetes-list-type", &facts.list_type),
        ("x-kubernetes-map-type", &facts.map_type),
        ("x-kubernetes-patch-merge-key", &facts.patch_merge_key),
        ("x-kubernetes-patch-strategy", &facts.patch_strategy),
    ];
    for (word, value) in words {
        if let Some(value) = value {
            property[word] = value.as_str().into();
        }
    }
    if !facts.list_map_keys.is_empty() {
        property["x-kubernetes-list-map-keys"] = json!(facts.list_map_keys);
    }
}

/// Rewrites references. Beside words of its own a reference of version 3 goes into `allOf`.
fn references(schema: &mut Value, dialect: Dialect) {
    let name = schema::referenced(schema).map(str::to_owned);
    match schema {
        Value::Object(object) => {
            if let Some(name) = name {
                match dialect {
                    Dialect::V2 => {
                        object.insert("$ref".into(), format!("#/definitions/{name}").into());
                    }
                    Dialect::V3 => {
                        let target = json!(format!("#/components/schemas/{name}"));
                        if object.len() == 1 {
                            object.insert("$ref".into(), target);
                        } else {
                            object.remove("$ref");
                            object.insert("allOf".into(), json!([{"$ref": target}]));
                        }
                    }
                }
                return;
            }
            object
                .values_mut()
                .for_each(|value| references(value, dialect));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| references(value, dialect)),
        _ => {}
    }
}

/// Types that Kubernetes publishes otherwise than schemars does.
fn leaf(name: &str, dialect: Dialect) -> Option<Value> {
    let schema = match (name.rsplit('.').next()?, dialect) {
        ("Quantity", Dialect::V2) => json!({"type": "string"}),
        ("Quantity", Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ("IntOrString", Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
        ("IntOrString", Dialect::V3) => json!({
            "format": "int-or-string",
            "oneOf": [{"type": "integer"}, {"type": "string"}],
        }),
        ("Time" | "MicroTime", _) => json!({"type": "string", "format": "date-time"}),
        ("Patch" | "FieldsV1" | "RawExtension", _) => json!({"type": "object"}),
        (name, _) if name == "JSON" || name.starts_with("JSONSchemaPropsOr") => json!({}),
        _ => return None,
    };
    Some(schema)
}

/// The names and all that they refer to.
fn reachable(all: &Map<String, Value>, roots: impl Iterator<Item = String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next: Vec<String> = roots.collect();
    while let Some(name) = next.pop() {
        if let Some(schema) = all.get(&name)
            && found.insert(name)
        {
            mentioned(schema, &mut next);
        }
    }
    found
}

fn mentioned(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            names.extend(schema::referenced(schema).map(str::to_owned));
            object.values().for_each(|value| mentioned(value, names));
        }
        Value::Array(list) => list.iter().for_each(|value| mentioned(value, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(group: &str) -> Vec<&'static Resource> {
        let all = registry::resources().iter().map(|r| &**r);
        all.filter(|r| r.group == group).collect()
    }

    #[test]
    fn a_kind_says_what_it_is_and_refers_within_its_document() {
        let schemas = v3_schemas(&of("apps"));
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(
            deployment["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "kind": "Deployment", "version": "v1"}])
        );
        assert_eq!(deployment.get("required"), None);
        assert_eq!(
            deployment["properties"]["spec"]["allOf"],
            json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}])
        );
        assert!(schemas.contains_key("io.k8s.api.apps.v1.DeploymentList"));
        assert!(schemas.contains_key("io.k8s.api.autoscaling.v1.Scale"));
        assert!(schemas.contains_key("io.k8s.api.core.v1.PodSpec"));
        assert!(!schemas.contains_key("io.k8s.api.core.v1.Service"));
        let text = serde_json::to_string(&schemas).unwrap();
        assert!(!text.contains("#/$defs/"));
    }

    #[test]
    fn lists_and_loose_types_look_as_kubernetes_publishes_them() {
        let v3 = v3_schemas(&of(""));
        let ports = &v3["io.k8s.api.core.v1.Container"]["properties"]["ports"];
        assert_eq!(
            ports["x-kubernetes-list-map-keys"],
            json!(["containerPort", "protocol"])
        );
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
        let quantity = &v3["io.k8s.apimachinery.pkg.api.resource.Quantity"];
        assert_eq!(
            quantity["oneOf"],
            json!([{"type": "string"}, {"type": "number"}])
        );
        let v2 = v2_definitions(&of(""));
        let port = &v2["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
        assert_eq!(
            (&port["type"], &port["format"]),
            (&json!("string"), &json!("int-or-string"))
        );
        assert_eq!(
            v2["io.k8s.api.core.v1.Secret"]["properties"]["data"]["additionalProperties"],
            json!({"type": "string", "format": "byte"})
        );
        assert_eq!(
            v2["io.k8s.api.core.v1.PodList"]["x-kubernetes-group-version-kind"][0]["kind"],
            "PodList"
        );
    }
}
