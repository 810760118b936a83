//! Custom kinds: a CustomResourceDefinition makes the same [`Resource`] as a file of `kinds` does.
//!
//! What a file says in code, a version of a definition says as data, compiled here once: the shape of
//! its objects, the rules for their values, columns, paths of the scale.

mod columns;
mod json_path;
pub mod openapi;

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    apply::Shapes,
    decode::{self, structural},
    prepare,
    resource::{Field, Generation, Name, Resource, Scope, Subresource},
    scale,
    schema::{self, Definition},
    served::{Conversion, Served, Webhook},
    version::Priority,
};

/// What objects of a kind that goes can still be asked for: finalizers are taken off by a change.
const LAST_VERBS: &[&str] = &[
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// A version of a custom kind, among its other versions.
#[derive(Clone, Debug)]
pub struct Custom {
    versions: Arc<[Version]>,
    at: usize,
}

/// What a version of a definition says of its objects.
#[derive(Debug)]
struct Version {
    /// `example.com/v1`
    api_version: Box<str>,
    definition: Definition,
    rules: schema::structural::Schema,
    shapes: OnceLock<Shapes>,
    columns: Vec<columns::Column>,
    scale: Option<scale::Paths>,
    /// `openAPIV3Schema` as JSON text: parsed, it would take ten times as much memory, and only OpenAPI
    /// asks for it.
    schema: Box<str>,
}

/// What a CustomResourceDefinition serves.
#[derive(Debug)]
pub struct Kind {
    /// The version that is stored.
    pub storage: Arc<Resource>,
    /// The versions that are served.
    pub served: Vec<Arc<Served>>,
}

impl Kind {
    /// Reads a definition whose names were accepted: those of its status.
    ///
    /// # Errors
    /// A schema breaks a limit.
    pub fn of(definition: &Value) -> Result<Self, String> {
        let spec = &definition["spec"];
        let group = text(&spec["group"]);
        let given: Vec<&Value> = list(&spec["versions"]).collect();
        let versions = given.iter().map(|version| Version::of(group, version));
        let versions: Arc<[Version]> = versions.collect::<Result<Vec<_>, _>>()?.into();
        let of = |at: usize| {
            let custom = Custom {
                versions: versions.clone(),
                at,
            };
            Arc::new(resource(definition, given[at], custom))
        };
        let stored = given.iter().position(|version| version["storage"] == true);
        let mut storage = resource(
            definition,
            given[stored.ok_or("no version is stored")?],
            Custom {
                versions: versions.clone(),
                at: stored.unwrap_or_default(),
            },
        );
        // Each version may select by fields of its own.
        for version in &given {
            for field in selectable_fields(version) {
                if !storage.fields.iter().any(|known| known.name == field.name) {
                    storage.fields.push(Field {
                        is_offered: false,
                        ..field
                    });
                }
            }
        }
        let storage = Arc::new(storage);
        let conversion = conversion(definition);
        let is_served = |at: &usize| given[*at]["served"] == true;
        let served = (0..given.len()).filter(is_served).map(|at| {
            Arc::new(Served {
                resource: match Some(at) == stored {
                    true => storage.clone(),
                    false => of(at),
                },
                storage: storage.clone(),
                conversion: conversion.clone(),
            })
        });
        let served = served.collect();
        Ok(Self { storage, served })
    }

    /// The same kind, which takes no new objects.
    pub fn closing(&self) -> Self {
        let closing = |resource: &Arc<Resource>| {
            Arc::new(Resource {
                verbs: LAST_VERBS,
                ..(**resource).clone()
            })
        };
        let served = self.served.iter().map(|served| {
            Arc::new(Served {
                resource: closing(&served.resource),
                storage: served.storage.clone(),
                conversion: served.conversion.clone(),
            })
        });
        Self {
            storage: self.storage.clone(),
            served: served.collect(),
        }
    }
}

impl Custom {
    /// What shapes its objects.
    pub(crate) fn definition(&self) -> &Definition {
        &self.version().definition
    }

    /// What refuses them.
    pub(crate) fn rules(&self) -> &schema::structural::Schema {
        &self.version().rules
    }

    /// How its objects are merged.
    pub(crate) fn shapes(&self, resource: &Resource) -> &Shapes {
        let version = self.version();
        let shapes = || Shapes::of(std::iter::once((resource, &version.definition)));
        version.shapes.get_or_init(shapes)
    }

    /// Where the replicas of its objects are.
    pub(crate) fn scale(&self) -> Option<&scale::Paths> {
        self.version().scale.as_ref()
    }

    pub(crate) fn column_definitions(&self) -> Vec<Value> {
        columns::definitions(&self.version().columns)
    }

    pub(crate) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        columns::cells(&self.version().columns, object, now)
    }

    /// `openAPIV3Schema` of the version.
    pub(crate) fn schema(&self) -> Value {
        serde_json::from_str(&self.version().schema).unwrap_or_default()
    }

    /// Whether both are the same definition, whichever of its versions.
    pub fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.versions, &other.versions)
    }

    /// A stored object as its definition has it now: fields that it does not know any more are gone,
    /// defaults that it has got since are there. The version is the object's own.
    pub(crate) fn read<'a>(&self, stored: &'a [u8]) -> Cow<'a, [u8]> {
        let as_it_is = Cow::Borrowed(stored);
        let Ok(mut object) = serde_json::from_slice::<Value>(stored) else {
            return as_it_is;
        };
        let api_version = text(&object["apiVersion"]);
        let mut versions = self.versions.iter();
        let Some(version) = versions.find(|version| *version.api_version == *api_version) else {
            return as_it_is;
        };
        match structural::canonicalize(&version.definition, &mut object) {
            Ok(_) => Cow::Owned(decode::to_bytes(&object)),
            Err(_) => as_it_is,
        }
    }

    fn version(&self) -> &Version {
        &self.versions[self.at]
    }
}

impl Version {
    fn of(group: &str, version: &Value) -> Result<Self, String> {
        let schema = &version["schema"]["openAPIV3Schema"];
        Ok(Self {
            api_version: format!("{group}/{}", text(&version["name"])).into(),
            definition: Definition::from_openapi(schema),
            rules: schema::structural::Schema::compile(schema)?,
            shapes: OnceLock::new(),
            columns: columns::of_version(version),
            scale: scale::Paths::of(&version["subresources"]["scale"]),
            schema: schema.to_string().into(),
        })
    }
}

fn resource(definition: &Value, version: &Value, custom: Custom) -> Resource {
    let (spec, names) = (&definition["spec"], &definition["status"]["acceptedNames"]);
    let name = |field: &str| Name::from(text(&names[field]).to_owned());
    let all = |field: &str| -> Vec<Name> {
        let names = list(&names[field]).map(|name| text(name).to_owned().into());
        names.collect()
    };
    let given = &version["subresources"];
    let has_status = !given["status"].is_null();
    let scale = (!given["scale"].is_null()).then_some(Subresource::Scale);
    let status = has_status.then_some(Subresource::Status);
    let group = text(&spec["group"]);
    Resource {
        list_kind: name("listKind"),
        singular: name("singular"),
        short_names: all("shortNames"),
        categories: all("categories"),
        scope: match spec["scope"] == "Cluster" {
            true => Scope::Cluster,
            false => Scope::Namespaced,
        },
        subresources: status.into_iter().chain(scale).collect(),
        definition: published_name(group, text(&version["name"]), text(&names["kind"])).into(),
        deprecation: deprecation(spec, version, text(&names["kind"])).map(Into::into),
        create: match has_status {
            true => |object| prepare::remove(object, "", "status"),
            false => |_| {},
        },
        // Nothing but the status is written through it.
        update_status: |new, old| prepare::keep_metadata(new, old),
        generation: Generation::Content,
        has_status,
        fields: selectable_fields(version),
        custom: Some(custom),
        ..Resource::bare(
            group.to_owned().into(),
            text(&version["name"]).to_owned().into(),
            name("kind"),
            name("plural"),
        )
    }
}

/// `com.example.v1.CronTab` of `example.com/v1`.
fn published_name(group: &str, version: &str, kind: &str) -> String {
    let mut words: Vec<&str> = group.split('.').rev().collect();
    words.extend([version, kind]);
    words.join(".")
}

/// What every answer in a deprecated version says.
fn deprecation(spec: &Value, version: &Value, kind: &str) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    if let Some(warning) = version["deprecationWarning"].as_str() {
        return Some(warning.to_owned());
    }
    let (group, name) = (text(&spec["group"]), text(&version["name"]));
    let own = Priority::of(name);
    let newer = list(&spec["versions"])
        .filter(|version| version["served"] == true && version["deprecated"] != true)
        .map(|version| Priority::of(text(&version["name"])))
        .filter(|other| *other > own)
        .max();
    let instead = newer.map_or(String::new(), |newer| {
        format!("; use {group}/{newer} {kind}")
    });
    Some(format!("{group}/{name} {kind} is deprecated{instead}"))
}

/// `spec.color` of `.spec.color`.
fn selectable_fields(version: &Value) -> Vec<Field> {
    let paths = list(&version["selectableFields"]).map(|field| text(&field["jsonPath"]));
    let fields = paths.map(|path| {
        let name = path.trim_start_matches('.').to_owned();
        let at = format!("/{}", name.replace('.', "/"));
        Field::at(name, at)
    });
    fields.collect()
}

/// How objects get from version to version. Those of a definition that never had another version are as
/// they are.
fn conversion(definition: &Value) -> Conversion {
    let (spec, status) = (&definition["spec"], &definition["status"]);
    if list(&spec["versions"]).count() == 1 && list(&status["storedVersions"]).count() <= 1 {
        return Conversion::Same;
    }
    let conversion = &spec["conversion"];
    if conversion["strategy"] != "Webhook" {
        return Conversion::Renamed;
    }
    let webhook = &conversion["webhook"];
    let reviews = list(&webhook["conversionReviewVersions"]).map(|version| text(version).into());
    Conversion::Webhook(Arc::new(Webhook {
        definition: text(&definition["metadata"]["name"]).into(),
        client: webhook["clientConfig"].clone(),
        reviews: reviews.collect(),
    }))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests;
