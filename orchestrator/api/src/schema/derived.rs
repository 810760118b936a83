//! Types of versions that k8s-openapi does not have, made of those that it has.
//!
//! `data/old-versions.json` says of each package of types which one it is like, and what differs: a
//! field of another name, one that came or went, one that may be left out. Everything that is known of
//! a type (its schema, how its lists merge, its pointers, its numbers in protobuf) follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{FieldFacts, ListFacts, referenced};

/// Types of one package that are made of another's.
#[derive(Debug, Deserialize)]
struct Package {
    /// `io.k8s.api.apps.v1beta2`
    package: String,
    /// `io.k8s.api.apps.v1`
    from: String,
    /// The kinds; the types that they reach within the package follow.
    kinds: Vec<String>,
    /// Whether nothing else is made of the other package, which is not served itself.
    #[serde(default)]
    replaces: bool,
    /// Types that the package has not but uses, by their short names.
    #[serde(default)]
    shared: BTreeSet<String>,
    /// By the short names of the types.
    #[serde(default)]
    changes: BTreeMap<String, Change>,
}

/// What differs in one type.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Change {
    /// The names of fields, and what they are called in the type that this one is made of.
    renamed: BTreeMap<String, String>,
    removed: BTreeSet<String>,
    /// Fields that may be left out here.
    optional: BTreeSet<String>,
    added: BTreeMap<String, Added>,
    /// Protobuf's numbers of fields that have another number here.
    numbers: BTreeMap<String, u32>,
}

/// A field that the other type has not.
#[derive(Debug, Deserialize)]
struct Added {
    schema: Value,
    /// Protobuf's number.
    number: u32,
    #[serde(default)]
    facts: Option<FieldFacts>,
}

/// A type that is made of another.
struct Derived {
    origin: String,
    change: &'static Change,
}

fn packages() -> &'static [Package] {
    static PACKAGES: OnceLock<Vec<Package>> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        serde_json::from_str(include_str!("../data/old-versions.json"))
            .expect("the data file is checked by a test")
    })
}

/// The types that are made of others, by name; in order, those that others are made of first.
fn derived() -> &'static Vec<(String, Derived)> {
    static DERIVED: OnceLock<Vec<(String, Derived)>> = OnceLock::new();
    DERIVED.get_or_init(|| {
        let mut schemas = super::typed();
        packages()
            .iter()
            .flat_map(|package| package.derive(&mut schemas))
            .collect()
    })
}

/// The type that the named one is made of; none for a type of k8s-openapi.
#[cfg(test)]
pub(crate) fn origin(name: &str) -> Option<&'static str> {
    let mut all = derived().iter();
    all.find(|(derived, _)| derived == name)
        .map(|(_, derived)| &*derived.origin)
}

/// Adds the schemas of the derived types.
pub(super) fn add_schemas(schemas: &mut Map<String, Value>) {
    for package in packages() {
        package.derive(schemas);
    }
    schemas.retain(|name, _| is_served(name));
}

/// Whether the type is in a package that another replaces.
fn is_served(name: &str) -> bool {
    let short = |from: &str| name.strip_prefix(from)?.strip_prefix('.');
    let mut replaced = packages().iter().filter(|package| package.replaces);
    !replaced.any(|package| short(&package.from).is_some())
}

/// Adds what is known of the lists of derived types.
pub(super) fn add_list_facts(facts: &mut BTreeMap<String, ListFacts>) {
    for (name, Derived { origin, change }) in derived() {
        let nothing = ListFacts::default();
        let known = facts.get(origin).unwrap_or(&nothing);
        let mut fields: BTreeMap<String, FieldFacts> = BTreeMap::new();
        for (field, added) in &change.added {
            fields.extend(added.facts.clone().map(|facts| (field.clone(), facts)));
        }
        for (field, facts) in &known.fields {
            if let Some(field) = change.here(field) {
                fields.insert(field.to_owned(), facts.clone());
            }
        }
        let map_type = known.map_type.clone();
        facts.insert(name.clone(), ListFacts { fields, map_type });
    }
    facts.retain(|name, _| is_served(name));
}

/// Adds which fields of derived types are pointers.
pub(super) fn add_pointers(pointers: &mut BTreeMap<String, BTreeSet<String>>) {
    for (name, Derived { origin, change }) in derived() {
        let Some(known) = pointers.get(origin) else {
            continue;
        };
        let mut fields: BTreeSet<String> = known
            .iter()
            .filter_map(|field| change.here(field).map(str::to_owned))
            .collect();
        fields.extend(change.optional.iter().cloned());
        pointers.insert(name.clone(), fields);
    }
}

/// Adds protobuf's numbers of derived types.
pub(crate) fn add_numbers(numbers: &mut BTreeMap<Box<str>, BTreeMap<u32, Box<str>>>) {
    for (name, Derived { origin, change }) in derived() {
        let Some(known) = numbers.get(&**origin) else {
            continue;
        };
        let mut fields: BTreeMap<u32, Box<str>> = BTreeMap::new();
        for (number, field) in known {
            let Some(field) = change.here(field) else {
                continue;
            };
            let number = change.numbers.get(field).unwrap_or(number);
            fields.insert(*number, field.into());
        }
        for (field, added) in &change.added {
            fields.insert(added.number, field.as_str().into());
        }
        numbers.insert(name.as_str().into(), fields);
    }
}

impl Package {
    /// Adds the schemas of the package's types that are not there yet; their names and what they are.
    fn derive(&'static self, schemas: &mut Map<String, Value>) -> Vec<(String, Derived)> {
        static NOTHING: Change = Change {
            renamed: BTreeMap::new(),
            removed: BTreeSet::new(),
            optional: BTreeSet::new(),
            added: BTreeMap::new(),
            numbers: BTreeMap::new(),
        };
        let mut made = Vec::new();
        let mut next = self.kinds.clone();
        while let Some(short) = next.pop() {
            let name = format!("{}.{short}", self.package);
            let origin = format!("{}.{short}", self.from);
            if schemas.contains_key(&name) {
                continue;
            }
            let Some(mut schema) = schemas.get(&origin).cloned() else {
                continue;
            };
            let change = self.changes.get(&short).unwrap_or(&NOTHING);
            change.apply(&mut schema);
            self.refer(&mut schema, &mut next);
            schemas.insert(name.clone(), schema);
            made.push((name, Derived { origin, change }));
        }
        made
    }

    /// References within the package that the schema is from lead into this one.
    fn refer(&self, schema: &mut Value, names: &mut Vec<String>) {
        let prefix = format!("{}.", self.from);
        let short = referenced(schema).and_then(|name| name.strip_prefix(&prefix));
        if let Some(short) = short.filter(|short| !self.shared.contains(*short)) {
            let short = short.to_owned();
            schema["$ref"] = format!("#/$defs/{}.{short}", self.package).into();
            names.push(short);
        }
        match schema {
            Value::Object(object) => object.values_mut().for_each(|v| self.refer(v, names)),
            Value::Array(list) => list.iter_mut().for_each(|v| self.refer(v, names)),
            _ => {}
        }
    }
}

impl Change {
    /// What a field of the other type is called here; none if it is not here.
    fn here<'a>(&'a self, field: &'a str) -> Option<&'a str> {
        if self.removed.contains(field) {
            return None;
        }
        let mut renamed = self.renamed.iter();
        Some(
            renamed
                .find(|(_, there)| *there == field)
                .map_or(field, |(here, _)| here),
        )
    }

    fn apply(&self, schema: &mut Value) {
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            for (name, property) in std::mem::take(properties) {
                if let Some(here) = self.here(&name) {
                    properties.insert(here.to_owned(), property);
                }
            }
            let added = self.added.iter();
            properties.extend(added.map(|(name, added)| (name.clone(), added.schema.clone())));
        }
        if let Some(Value::Array(required)) = schema.get_mut("required") {
            let here = |field: &Value| {
                let here = self.here(field.as_str()?)?;
                (!self.optional.contains(here)).then(|| Value::from(here))
            };
            *required = required.iter().filter_map(here).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Type, definition};
    use super::*;

    #[test]
    fn every_kind_that_is_derived_has_a_schema_and_every_change_a_place() {
        let all = super::super::published();
        for package in packages() {
            for kind in &package.kinds {
                let name = format!("{}.{kind}", package.package);
                assert!(all.contains_key(&name), "{name}");
            }
            for (short, change) in &package.changes {
                let name = format!("{}.{short}", package.package);
                let properties = &all[&name]["properties"];
                let origin = all.get(&format!("{}.{short}", package.from));
                let there =
                    |field: &str| origin.is_none_or(|o| o["properties"].get(field).is_some());
                for field in change.renamed.keys().chain(change.added.keys()) {
                    assert!(properties.get(field).is_some(), "{name}.{field}");
                }
                for field in change.renamed.values().chain(&change.removed) {
                    assert!(there(field), "{name} has no {field} to change");
                    let again = change.added.contains_key(field);
                    assert!(again || properties.get(field).is_none(), "{name}.{field}");
                }
                for field in change.optional.iter().chain(change.numbers.keys()) {
                    assert!(properties.get(field).is_some(), "{name}.{field}");
                }
            }
        }
    }

    #[test]
    fn an_old_backend_names_its_service_in_two_fields() {
        let backend = definition("io.k8s.api.extensions.v1beta1.IngressBackend").unwrap();
        assert_eq!(backend.fields["servicePort"].ty, Type::IntOrString);
        assert!(!backend.fields.contains_key("service"));
        let spec = definition("io.k8s.api.extensions.v1beta1.IngressSpec").unwrap();
        assert_eq!(
            spec.fields["backend"].ty,
            Type::Ref("io.k8s.api.extensions.v1beta1.IngressBackend".into())
        );
    }

    #[test]
    fn an_old_deployment_may_leave_out_its_selector_and_keeps_the_facts_of_its_lists() {
        let spec = definition("io.k8s.api.extensions.v1beta1.DeploymentSpec").unwrap();
        assert!(!spec.always.contains(&"selector".into()));
        assert!(spec.always.contains(&"template".into()));
        assert!(spec.fields["replicas"].keeps_zero);
        let status = definition("io.k8s.api.extensions.v1beta1.DeploymentStatus").unwrap();
        assert_eq!(
            status.fields["conditions"].merge_key.as_deref(),
            Some("type")
        );
        let job = definition("io.k8s.api.batch.v1beta1.JobTemplateSpec").unwrap();
        assert_eq!(
            job.fields["spec"].ty,
            Type::Ref("io.k8s.api.batch.v1.JobSpec".into())
        );
    }
}
