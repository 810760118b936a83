//! What the OpenAPI v2 document of another server adds to this server's. Pure.
//!
//! ```text
//! its document ─▶ paths of its version, and the definitions that these need ─▶ merged; a definition that
//!                                                     is another one here gets another name
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

const DEFINITION: &str = "#/definitions/";
const PARAMETER: &str = "#/parameters/";

/// The part of a document that is about one version of a group: `paths` and `definitions`, with shared
/// parameters written out.
///
/// # Errors
/// It refers to what it does not have: one such reference makes kubectl refuse the whole document.
pub fn part(mut document: Value, group: &str, version: &str) -> Result<Value, String> {
    let root = format!("/apis/{group}/{version}");
    let is_below = |path: &str| {
        path.strip_prefix(&root)
            .is_some_and(|rest| is_segment(rest))
    };
    let mut paths = taken(&mut document, "paths");
    paths.retain(|path, item| is_below(path) && item.is_object());
    let mut paths = Value::Object(paths);
    let parameters = taken(&mut document, "parameters");
    write_out(&mut paths, &parameters)?;
    let mut all = taken(&mut document, "definitions");
    let mut definitions = Map::new();
    let mut wanted: Vec<String> = names(&paths).into_iter().collect();
    while let Some(name) = wanted.pop() {
        if definitions.contains_key(&name) {
            continue;
        }
        let found = all.remove(&name).filter(Value::is_object);
        let found = found.ok_or_else(|| format!("there is no definition {name:?}"))?;
        wanted.extend(names(&found));
        definitions.insert(name, found);
    }
    Ok(json!({"paths": paths, "definitions": definitions}))
}

/// Adds such a part to a document. What both define alike is shared.
pub fn merge(document: &mut Value, mut part: Value) {
    let none = Map::new();
    let own = document["definitions"].as_object().unwrap_or(&none);
    let mut theirs = taken(&mut part, "definitions");
    let renamed = renamed(own, &theirs);
    theirs.retain(|name, _| renamed.contains_key(name) || !own.contains_key(name));
    let mut paths = part["paths"].take();
    rename(&mut paths, &renamed);
    for (name, mut definition) in theirs {
        rename(&mut definition, &renamed);
        let name = renamed.get(&name).cloned().unwrap_or(name);
        document["definitions"][name] = definition;
    }
    if let (Some(own), Value::Object(paths)) = (document["paths"].as_object_mut(), paths) {
        own.extend(paths);
    }
}

/// New names for definitions that mean something else here, or that refer to such a one.
fn renamed(own: &Map<String, Value>, theirs: &Map<String, Value>) -> BTreeMap<String, String> {
    let both = || theirs.iter().filter(|(name, _)| own.contains_key(*name));
    let differs = |(name, theirs): &(&String, &Value)| meaning(theirs) != meaning(&own[*name]);
    let mut other: BTreeSet<String> = both().filter(differs).map(|it| it.0.clone()).collect();
    loop {
        let refers = |(name, it): &(&String, &Value)| {
            !other.contains(*name) && names(it).iter().any(|name| other.contains(name))
        };
        let more: Vec<String> = both().filter(refers).map(|it| it.0.clone()).collect();
        if more.is_empty() {
            break;
        }
        other.extend(more);
    }
    let mut taken: BTreeSet<String> = own.keys().chain(theirs.keys()).cloned().collect();
    let free = |name: String| {
        let names = (2..).map(|number: u32| format!("{name}_v{number}"));
        let free = names.into_iter().find(|new| taken.insert(new.clone()));
        (name, free.unwrap_or_default())
    };
    other.into_iter().map(free).collect()
}

/// A definition without its texts for people and the kinds that it is the schema of: servers of other
/// releases have others.
fn meaning(definition: &Value) -> Value {
    match definition {
        Value::Object(fields) => {
            // A property may be called `description`: then it is a schema.
            let is_text = |(name, value): &(&String, &Value)| match name.as_str() {
                "description" => value.is_string(),
                "x-kubernetes-group-version-kind" => true,
                _ => false,
            };
            let kept = fields.iter().filter(|field| !is_text(field));
            kept.map(|(name, value)| (name.clone(), meaning(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(meaning).collect(),
        other => other.clone(),
    }
}

/// Puts the shared parameters into the places that refer to them.
fn write_out(paths: &mut Value, parameters: &Map<String, Value>) -> Result<(), String> {
    let items = paths.as_object_mut().into_iter().flatten();
    for (_, item) in items {
        let operations = item.as_object_mut().into_iter().flatten();
        let lists = operations.filter_map(|(name, value)| match name.as_str() {
            "parameters" => Some(value),
            _ => value.get_mut("parameters"),
        });
        for parameter in lists.filter_map(Value::as_array_mut).flatten() {
            let Some(name) = parameter["$ref"].as_str() else {
                continue;
            };
            let Some(found) = name
                .strip_prefix(PARAMETER)
                .and_then(|it| parameters.get(it))
            else {
                return Err(format!("there is no parameter {name:?}"));
            };
            *parameter = found.clone();
        }
    }
    Ok(())
}

/// The definition of a reference; what is none stays as it is, and is found nowhere.
fn definition(reference: &str) -> &str {
    reference.strip_prefix(DEFINITION).unwrap_or(reference)
}

/// The definitions that a value refers to.
pub fn names(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                let reference = fields.get("$ref").and_then(Value::as_str);
                found.extend(reference.map(|it| definition(it).to_owned()));
                fields.values().for_each(|field| walk(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(value, &mut found);
    found
}

fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some(new) = names.get(definition(reference))
            {
                *reference = format!("{DEFINITION}{new}");
            }
            fields.values_mut().for_each(|field| rename(field, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        _ => {}
    }
}

/// Whether this may stand behind a path so that it is the path or below it.
fn is_segment(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

fn taken(document: &mut Value, field: &str) -> Map<String, Value> {
    match document.get_mut(field).map(Value::take) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theirs() -> Value {
        let reference = |name: &str| json!({"$ref": format!("{DEFINITION}{name}")});
        json!({
            "swagger": "2.0",
            "parameters": {"pretty-1": {"name": "pretty", "in": "query", "type": "string"}},
            "paths": {
                "/apis/example.com/v1/trees": {
                    "get": {"parameters": [{"$ref": "#/parameters/pretty-1"}],
                        "responses": {"200": {"description": "OK", "schema": reference("Tree")}}},
                },
                "/apis/example.com/v12/trees": {"get": {}},
                "/apis/apps/v1/deployments": {"get": {}},
            },
            "definitions": {
                "Tree": {"type": "object", "properties": {"metadata": reference("Meta"),
                    "description": reference("Time")}},
                "Meta": {"type": "object", "properties": {"owner": reference("Owner"),
                    "at": reference("Time")}},
                "Owner": {"type": "object", "properties": {"uid": {"type": "string"}}},
                "Time": {"type": "string", "description": "in other words"},
                "Unused": {"type": "object"},
            },
        })
    }

    #[test]
    fn a_part_is_what_the_paths_of_a_version_need() {
        let part = part(theirs(), "example.com", "v1").expect("whole");
        let keys = |field: &str| -> Vec<String> {
            let fields = part[field].as_object().expect("fields");
            fields.keys().cloned().collect()
        };
        assert_eq!(keys("paths"), ["/apis/example.com/v1/trees"]);
        assert_eq!(keys("definitions").len(), 4, "{part}");
        let get = &part["paths"]["/apis/example.com/v1/trees"]["get"];
        assert_eq!(get["parameters"][0]["name"], "pretty");
    }

    #[test]
    fn a_definition_that_is_another_one_here_gets_another_name_with_all_that_refer_to_it() {
        let mut own = json!({"paths": {"/api": {}}, "definitions": {
            "Meta": {"type": "object", "properties": {"owner": {"$ref": "#/definitions/Owner"},
                "at": {"$ref": "#/definitions/Time"}}},
            "Owner": {"type": "object", "properties": {"uid": {"type": "integer"}}},
            "Time": {"type": "string", "description": "in our words"},
        }});
        let before = own.clone();
        merge(
            &mut own,
            part(theirs(), "example.com", "v1").expect("whole"),
        );
        let definitions = &own["definitions"];
        for name in ["Meta", "Owner", "Time"] {
            assert_eq!(definitions[name], before["definitions"][name], "{name}");
        }
        assert_eq!(
            definitions["Owner_v2"]["properties"]["uid"]["type"],
            "string"
        );
        let meta = &definitions["Meta_v2"]["properties"];
        assert_eq!(meta["owner"]["$ref"], "#/definitions/Owner_v2");
        assert_eq!(meta["at"]["$ref"], "#/definitions/Time");
        let tree = &definitions["Tree"]["properties"];
        assert_eq!(tree["metadata"]["$ref"], "#/definitions/Meta_v2");
        assert!(own["paths"]["/apis/example.com/v1/trees"].is_object());
        assert!(own["paths"]["/api"].is_object());
    }

    #[test]
    fn a_document_that_refers_to_nothing_is_refused() {
        for (field, name) in [("definitions", "Owner"), ("parameters", "pretty-1")] {
            let mut document = theirs();
            document[field]
                .as_object_mut()
                .expect("fields")
                .remove(name);
            let why = part(document, "example.com", "v1").expect_err(name);
            assert!(why.contains(name), "{why}");
        }
        for document in [
            json!([]),
            json!({"paths": [], "definitions": 3}),
            Value::Null,
        ] {
            assert!(part(document, "example.com", "v1").is_ok());
        }
    }
}
