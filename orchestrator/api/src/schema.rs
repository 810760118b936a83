//! What the fields of every type are: for decoding, patches and error texts.
//!
//! The definitions of built-in types are distilled from the schemas that k8s-openapi publishes,
//! together with two facts that it leaves out: how lists merge (`data/list-types.json`) and which
//! fields tell zero from absent (`data/pointer-fields.json`, from the Go types of Kubernetes 1.33).
//! Those that a kind reaches are built when one of them is first asked for, then kept, without their
//! descriptions: a server whose clients use some kinds does not hold all of them, and none at its start.
//! Definitions of custom kinds are made of their OpenAPI schemas (`custom`).

mod custom;
pub(crate) mod derived;
pub mod structural;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1 as meta,
    schemars::{
        SchemaGenerator,
        generate::{Contract, SchemaSettings},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::registry;

/// The fields of one type.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Empty for an object inside the schema of a custom kind.
    pub name: Box<str>,
    pub fields: BTreeMap<Box<str>, Field>,
    /// Whoever writes one field of it owns all of it.
    pub atomic: bool,
    pub rules: Rules,
    /// Whether fields that are not in `fields` stay as they are.
    pub keeps_unknown: bool,
    /// Fields that are written even if they were left out, then with their zero value.
    pub always: Box<[Box<str>]>,
}

/// What a missing, empty, null or mistyped value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// What Go's decoder makes of it and what Go's `omitempty` writes again.
    Go,
    /// What a structural schema says: zeros stay, defaults are filled in, a null stays only where
    /// it is allowed. A value of another type stays for validation to refuse.
    Structural,
}

/// One field of a type.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    pub ty: Type,
    /// Whether a zero (`0`, `false`, `""`, `[]`, `{}`) is different from an absent field.
    pub keeps_zero: bool,
    /// What an absent field becomes; for custom kinds, since built-in kinds default in code.
    pub default: Option<Value>,
    /// The patch strategies: `merge`, `retainKeys`, `replace`.
    pub strategies: BTreeSet<Strategy>,
    /// What identifies an item of a list that merges.
    pub merge_key: Option<Box<str>>,
    pub topology: Topology,
}

/// Which parts of a list or map have owners of their own (`x-kubernetes-list-type`, `-map-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// It has one owner, whatever is in it.
    Atomic,
    /// Every key of an object has its owners.
    Granular,
    /// Every item, which is a scalar, has its owners.
    Set,
    /// Items are known by these fields, in order, and every field of an item has its owners.
    Map(Box<[Box<str>]>),
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    Merge,
    RetainKeys,
    Replace,
}

/// What values a field takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    Any,
    Bool,
    Bytes,
    Int32,
    Int64,
    IntOrString,
    Number,
    Quantity,
    String,
    /// A time in whole seconds.
    Time,
    /// A time in microseconds.
    MicroTime,
    List(Box<Type>),
    Map(Box<Type>),
    /// A built-in definition, by name.
    Ref(Reference),
    /// A schema or something simpler: `items` and `additionalProperties` of a JSON schema.
    SchemaOr(Box<SchemaOr>),
    /// An object inside the schema of a custom kind.
    Inline(Arc<Definition>),
    /// Null too, which stays as it is.
    Nullable(Box<Type>),
}

/// What the apiextensions types `JSONSchemaPropsOr…` hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaOr {
    /// The name of the type itself.
    pub name: Box<str>,
    /// A schema.
    pub schema: Type,
    /// What else it may be.
    pub other: Type,
}

/// The name of a built-in definition, which is looked up once.
#[derive(Clone)]
pub struct Reference {
    name: Box<str>,
    found: OnceLock<Option<&'static Definition>>,
}

/// A definition by its full name.
pub fn definition(name: &str) -> Option<&'static Definition> {
    static KNOWN: RwLock<Known> = RwLock::new(Known {
        definitions: BTreeMap::new(),
        is_all: false,
    });
    {
        let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.definitions.get(name).copied();
        if found.is_some() || known.is_all {
            return found;
        }
    }
    let (made, is_all) = distil_for(name);
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    known.is_all |= is_all;
    for (name, definition) in made {
        // Another thread may have been first.
        let definitions = &mut known.definitions;
        definitions
            .entry(name)
            .or_insert_with(|| Box::leak(Box::new(definition)));
    }
    known.definitions.get(name).copied()
}

/// The definitions that were asked for until now, with what they refer to.
struct Known {
    definitions: BTreeMap<Box<str>, &'static Definition>,
    /// Whether there are no others.
    is_all: bool,
}

/// The facts about lists and maps of one type, as Kubernetes' OpenAPI carries them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListFacts {
    pub fields: BTreeMap<String, FieldFacts>,
    pub map_type: Option<String>,
}

/// The same of one field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldFacts {
    pub list_type: Option<String>,
    pub list_map_keys: Vec<String>,
    pub map_type: Option<String>,
    pub patch_merge_key: Option<String>,
    pub patch_strategy: Option<String>,
}

const LIST_FACTS: &str = include_str!("data/list-types.json");
const POINTER_FIELDS: &str = include_str!("data/pointer-fields.json");

/// What a data file has of one type: a line of it.
fn fact<T: DeserializeOwned + Default>(file: &str, name: &str) -> T {
    let key = format!("\n  \"{name}\":");
    let Some(at) = file.find(&key) else {
        return T::default();
    };
    let mut rest = serde_json::Deserializer::from_str(&file[at + key.len()..]);
    T::deserialize(&mut rest).expect("the data file is checked by a test")
}

/// The fields by type for which the Go type is a pointer, or is written without `omitempty`
/// although the field is optional. Structs are left out: their `{}` is always written.
fn pointer_fields() -> BTreeMap<String, BTreeSet<String>> {
    let mut pointers =
        serde_json::from_str(POINTER_FIELDS).expect("the data file is checked by a test");
    derived::add_pointers(&mut pointers);
    pointers
}

/// The facts by type. Parsed anew each time: both callers keep what they make of it.
pub fn list_facts() -> BTreeMap<String, ListFacts> {
    let mut facts = serde_json::from_str(LIST_FACTS).expect("the data file is checked by a test");
    derived::add_list_facts(&mut facts);
    facts
}

/// The published schemas of every type that is reachable from a served kind, by name.
/// References begin with `#/$defs/`.
pub fn published() -> Map<String, Value> {
    let mut schemas = typed();
    derived::add_schemas(&mut schemas);
    schemas
}

/// Those of the types of k8s-openapi.
fn typed() -> Map<String, Value> {
    let mut generator = generator();
    for resource in registry::with_schema() {
        (resource.codec.schema)(&mut generator);
    }
    request_types(&mut generator);
    generator.take_definitions(false)
}

fn generator() -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12();
    settings.contract = Contract::Deserialize;
    settings.into_generator()
}

/// Types of requests and answers that belong to no kind.
fn request_types(generator: &mut SchemaGenerator) {
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::Patch>();
    generator.subschema_for::<meta::APIResourceList>();
    generator.subschema_for::<meta::APIGroupList>();
    generator.subschema_for::<meta::ListMeta>();
    generator.subschema_for::<meta::ObjectMeta>();
}

/// The name at the end of a reference.
pub fn referenced(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

impl Definition {
    /// `PodSpec` of `io.k8s.api.core.v1.PodSpec`.
    pub fn short_name(&self) -> &str {
        short_name(&self.name)
    }
}

impl Reference {
    /// None if no served kind reaches a definition of this name.
    pub fn definition(&self) -> Option<&'static Definition> {
        *self.found.get_or_init(|| definition(&self.name))
    }
}

impl From<&str> for Reference {
    fn from(name: &str) -> Self {
        Self {
            name: name.into(),
            found: OnceLock::new(),
        }
    }
}

impl Deref for Reference {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

/// By name: what it refers to may refer back.
impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Reference {}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl Type {
    /// The fields of a value of this type, if it is an object with fields.
    pub fn definition(&self) -> Option<&Definition> {
        match self {
            Self::Ref(reference) => reference.definition(),
            Self::Inline(definition) => Some(definition),
            Self::SchemaOr(either) => either.schema.definition(),
            Self::Nullable(ty) => ty.definition(),
            _ => None,
        }
    }

    /// The type without null.
    pub fn not_null(&self) -> &Self {
        match self {
            Self::Nullable(ty) => ty.not_null(),
            ty => ty,
        }
    }

    /// The type as Kubernetes' decoder names it in errors.
    pub fn go_name(&self) -> String {
        match self {
            Self::Any => "interface {}".into(),
            Self::Bool => "bool".into(),
            Self::Bytes => "[]uint8".into(),
            Self::Int32 | Self::IntOrString => "int32".into(),
            Self::Int64 => "int64".into(),
            Self::Number => "float64".into(),
            Self::Quantity => "resource.Quantity".into(),
            Self::String => "string".into(),
            Self::Time => "v1.Time".into(),
            Self::MicroTime => "v1.MicroTime".into(),
            Self::List(item) => format!("[]{}", item.go_name()),
            Self::Map(item) => format!("map[string]{}", item.go_name()),
            Self::Ref(name) => format!("v1.{}", short_name(name)),
            Self::SchemaOr(either) => format!("v1.{}", short_name(&either.name)),
            Self::Inline(_) => "map[string]interface {}".into(),
            Self::Nullable(ty) => format!("*{}", ty.go_name()),
        }
    }
}

impl SchemaOr {
    fn named(name: &str) -> Option<Self> {
        let (schema, _) = name.split_once("Or")?;
        let other = match &name[schema.len()..] {
            "OrArray" => Type::List(Box::new(Type::Ref(schema.into()))),
            "OrBool" => Type::Bool,
            "OrStringArray" => Type::List(Box::new(Type::String)),
            _ => return None,
        };
        Some(Self {
            name: name.into(),
            schema: Type::Ref(schema.into()),
            other,
        })
    }
}

fn short_name(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Those that the kind of a definition reaches, or those of requests; all, where neither has it (its version is made of
/// another one's types). Also whether it is all.
fn distil_for(name: &str) -> (BTreeMap<Box<str>, Definition>, bool) {
    let kind = registry::with_schema().find(|kind| kind.definition == name);
    let of_kind = kind.map(|kind| kind.codec.schema);
    for make in of_kind.into_iter().chain([request_types as fn(&mut _)]) {
        let reached = reached(make);
        if reached.contains_key(name) {
            return (reached, false);
        }
    }
    (distil(), true)
}

/// Those that some types of k8s-openapi reach.
fn reached(make: fn(&mut SchemaGenerator)) -> BTreeMap<Box<str>, Definition> {
    let mut generator = generator();
    make(&mut generator);
    let schemas = generator.take_definitions(false);
    let schemas = schemas.iter().filter(|(name, _)| leaf(name).is_none());
    let definitions = schemas.map(|(name, schema)| {
        let (facts, pointers) = (fact(LIST_FACTS, name), fact(POINTER_FIELDS, name));
        let definition = built_in(name, schema, &facts, &pointers);
        (definition.name.clone(), definition)
    });
    definitions.collect()
}

fn distil() -> BTreeMap<Box<str>, Definition> {
    let (facts, pointers) = (list_facts(), pointer_fields());
    let (no_facts, no_pointers) = (ListFacts::default(), BTreeSet::new());
    published()
        .iter()
        .filter(|(name, _)| leaf(name).is_none())
        .map(|(name, schema)| {
            let facts = facts.get(name).unwrap_or(&no_facts);
            let pointers = pointers.get(name).unwrap_or(&no_pointers);
            let definition = built_in(name, schema, facts, pointers);
            (definition.name.clone(), definition)
        })
        .collect()
}

fn built_in(
    name: &str,
    schema: &Value,
    facts: &ListFacts,
    pointers: &BTreeSet<String>,
) -> Definition {
    let required = schema["required"].as_array().into_iter().flatten();
    let required: BTreeSet<&str> = required.filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let fields: BTreeMap<Box<str>, Field> = properties
        .map(|(key, schema)| {
            let mut field = field(facts.fields.get(key), type_of(schema));
            field.keeps_zero = required.contains(key.as_str()) || pointers.contains(key);
            (key.as_str().into(), field)
        })
        .collect();
    let always = fields
        .iter()
        .filter(|(name, field)| required.contains(&***name) && field.ty != Type::Any);
    Definition {
        name: name.into(),
        atomic: facts.map_type.as_deref() == Some("atomic"),
        rules: Rules::Go,
        // A struct of Go that is written by hand has no properties here.
        keeps_unknown: schema.get("properties").is_none(),
        always: always.map(|(name, _)| name.clone()).collect(),
        fields,
    }
}

fn field(facts: Option<&FieldFacts>, ty: Type) -> Field {
    let strategies = facts
        .and_then(|f| f.patch_strategy.as_deref())
        .unwrap_or_default();
    Field {
        topology: topology(&ty, facts),
        ty,
        keeps_zero: true,
        default: None,
        strategies: strategies.split(',').filter_map(Strategy::named).collect(),
        merge_key: facts
            .and_then(|f| f.patch_merge_key.as_deref())
            .map(Into::into),
    }
}

/// What is not said is Kubernetes' rule: lists have one owner, the keys of an object each their own.
fn topology(ty: &Type, facts: Option<&FieldFacts>) -> Topology {
    let word = |fact: fn(&FieldFacts) -> &Option<String>| facts.and_then(|f| fact(f).as_deref());
    let is_list = matches!(ty.not_null(), Type::List(_));
    match (is_list, word(|f| &f.list_type), word(|f| &f.map_type)) {
        (true, Some("set"), _) => Topology::Set,
        (true, Some("map"), _) => {
            let mut keys: Vec<Box<str>> = facts
                .into_iter()
                .flat_map(|f| f.list_map_keys.iter().map(|key| key.as_str().into()))
                .collect();
            keys.sort();
            Topology::Map(keys.into())
        }
        (true, ..) | (false, _, Some("atomic")) => Topology::Atomic,
        (false, ..) => Topology::Granular,
    }
}

impl Strategy {
    fn named(word: &str) -> Option<Self> {
        match word {
            "merge" => Some(Self::Merge),
            "retainKeys" => Some(Self::RetainKeys),
            "replace" => Some(Self::Replace),
            _ => None,
        }
    }
}

fn type_of(schema: &Value) -> Type {
    if let Some(name) = referenced(schema) {
        return leaf(name).unwrap_or_else(|| Type::Ref(name.into()));
    }
    let format = schema["format"].as_str();
    match (schema["type"].as_str(), format) {
        (Some("boolean"), _) => Type::Bool,
        (Some("integer"), Some("int64")) => Type::Int64,
        (Some("integer"), _) => Type::Int32,
        (Some("number"), _) => Type::Number,
        (Some("string"), Some("byte")) => Type::Bytes,
        (Some("string"), _) => Type::String,
        (Some("array"), _) => Type::List(Box::new(type_of(&schema["items"]))),
        (Some("object"), _) if schema["additionalProperties"].is_object() => {
            Type::Map(Box::new(type_of(&schema["additionalProperties"])))
        }
        _ => Type::Any,
    }
}

/// Definitions that are no structs on the wire.
fn leaf(name: &str) -> Option<Type> {
    match short_name(name) {
        "Quantity" => Some(Type::Quantity),
        "IntOrString" => Some(Type::IntOrString),
        "Time" => Some(Type::Time),
        "MicroTime" => Some(Type::MicroTime),
        "FieldsV1" | "JSON" | "RawExtension" | "Patch" => Some(Type::Any),
        short if short.starts_with("JSONSchemaPropsOr") => {
            SchemaOr::named(name).map(|either| Type::SchemaOr(Box::new(either)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kind_reaches_is_the_same_whether_it_is_made_alone_or_with_all() {
        let all = distil();
        let mut alone = BTreeSet::new();
        for kind in registry::with_schema() {
            let made = reached(kind.codec.schema);
            // A kind that is made of another version's types is made with all.
            if !made.contains_key(&*kind.definition) {
                continue;
            }
            for (name, definition) in made {
                assert_eq!(all.get(&name), Some(&definition), "{name}");
                alone.insert(name);
            }
        }
        // The rest are of versions that are made of others, and of requests.
        let (pods, is_all) = distil_for("io.k8s.api.core.v1.Pod");
        assert!(!is_all && pods.contains_key("io.k8s.api.core.v1.PodSpec"));
        assert!(!pods.contains_key("io.k8s.api.core.v1.ServiceSpec"));
        for (name, is_of_all) in [
            ("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", false),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", false),
            ("io.k8s.api.extensions.v1beta1.Ingress", true),
        ] {
            let (made, is_all) = distil_for(name);
            assert_eq!(
                (made.contains_key(name), is_all),
                (true, is_of_all),
                "{name}"
            );
        }
        assert!(
            alone.len() > all.len() / 2,
            "{} of {}",
            alone.len(),
            all.len()
        );
    }

    #[test]
    fn lists_know_how_they_merge() {
        let pod_spec = definition("io.k8s.api.core.v1.PodSpec").unwrap();
        let volumes = &pod_spec.fields["volumes"];
        assert_eq!(volumes.merge_key.as_deref(), Some("name"));
        assert!(volumes.strategies.contains(&Strategy::RetainKeys));
        assert_eq!(
            pod_spec.fields["containers"].ty,
            Type::List(Box::new(Type::Ref("io.k8s.api.core.v1.Container".into())))
        );
    }

    #[test]
    fn scalars_keep_their_width_and_format() {
        let secret = definition("io.k8s.api.core.v1.Secret").unwrap();
        assert_eq!(secret.fields["data"].ty, Type::Map(Box::new(Type::Bytes)));
        let probe = definition("io.k8s.api.core.v1.Probe").unwrap();
        assert_eq!(probe.fields["periodSeconds"].ty, Type::Int32);
        assert_eq!(
            probe.fields["terminationGracePeriodSeconds"].ty,
            Type::Int64
        );
        let resources = definition("io.k8s.api.core.v1.ResourceRequirements").unwrap();
        assert_eq!(
            resources.fields["limits"].ty,
            Type::Map(Box::new(Type::Quantity))
        );
    }

    #[test]
    fn pointers_and_required_fields_tell_zero_from_absent() {
        let keeps = |name: &str, field: &str| {
            let name = format!("io.k8s.{name}");
            definition(&name).unwrap().fields[field].keeps_zero
        };
        assert!(keeps("api.apps.v1.DeploymentSpec", "replicas"));
        assert!(keeps("api.apps.v1.RollingUpdateDeployment", "maxSurge"));
        assert!(keeps("api.apps.v1.ReplicaSetStatus", "replicas"));
        assert!(keeps("api.core.v1.PodSpec", "containers"));
        assert!(!keeps("api.apps.v1.DeploymentStatus", "replicas"));
        assert!(!keeps("api.core.v1.PodSpec", "nodeSelector"));
        assert!(!keeps("api.core.v1.PodSpec", "hostNetwork"));
        assert!(!keeps("apimachinery.pkg.apis.meta.v1.ObjectMeta", "labels"));
    }

    #[test]
    fn every_pointer_of_a_served_type_is_a_field() {
        let pointers = pointer_fields();
        for (name, schema) in published() {
            for field in pointers.get(&name).into_iter().flatten() {
                assert!(schema["properties"].get(field).is_some(), "{name}.{field}");
            }
        }
    }

    #[test]
    fn lists_and_maps_know_who_may_own_their_parts() {
        let topology = |name: &str, field: &str| {
            let definition = definition(&format!("io.k8s.api.core.v1.{name}")).unwrap();
            definition.fields[field].topology.clone()
        };
        let map = |keys: &[&str]| Topology::Map(keys.iter().map(|k| (*k).into()).collect());
        assert_eq!(topology("ServiceSpec", "ports"), map(&["port", "protocol"]));
        assert_eq!(topology("NodeSpec", "podCIDRs"), Topology::Set);
        assert_eq!(topology("Container", "args"), Topology::Atomic);
        assert_eq!(topology("PodSpec", "nodeSelector"), Topology::Atomic);
        assert_eq!(topology("ConfigMap", "data"), Topology::Granular);
        assert_eq!(topology("Pod", "spec"), Topology::Granular);
        let reference = definition("io.k8s.api.core.v1.LocalObjectReference").unwrap();
        assert!(reference.atomic);
    }

    #[test]
    fn every_list_of_a_served_kind_says_how_it_merges() {
        let facts = list_facts();
        let mut silent = Vec::new();
        for (name, schema) in &published() {
            for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
                let said = facts
                    .get(name)
                    .and_then(|facts| facts.fields.get(field))
                    .is_some_and(|facts| facts.list_type.is_some());
                if matches!(type_of(schema), Type::List(_)) && !said {
                    silent.push(format!("{}.{field}", short_name(name)));
                }
            }
        }
        // Kubernetes says nothing of this one; no object has it.
        assert_eq!(silent, ["APIResource.verbs"]);
    }

    #[test]
    fn every_fact_about_a_list_belongs_to_a_served_type_and_field() {
        let published = published();
        for (name, facts) in list_facts() {
            let schema = published
                .get(&name)
                .unwrap_or_else(|| panic!("{name} is not served"));
            for field in facts.fields.keys() {
                assert!(
                    schema["properties"].get(field).is_some(),
                    "{name} has no {field}"
                );
            }
        }
    }
}
