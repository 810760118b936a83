//! What the schema of a custom kind says of values, compiled once for each version of a kind.
//!
//! `custom` reads from the same schema what shapes an object; here is what refuses one. The schema has
//! passed the validation of its CustomResourceDefinition. Kubernetes' validation is that of kube-openapi
//! (1.30 and later), whose texts and paths these are; unchanged parts of an object that is updated
//! need not be valid (KEP-4008).

mod check;
mod embedded;
mod formats;
mod lists;
mod numbers;
mod rules;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{re2::Pattern, status::Cause};

use formats::Format;
pub use formats::go_duration;
pub(crate) use formats::is_of_format;
pub(crate) use numbers::go_double;
pub(crate) use rules::env as rule_env;

/// Schemas inside a schema, and what their patterns take.
const MAX_NODES: usize = 50_000;
const MAX_PATTERNS: usize = 5_000;
const MAX_PATTERN_MEMORY: usize = 16 * 1024 * 1024;

/// A schema that is ready to judge values.
#[derive(Debug)]
pub struct Schema {
    root: Node,
    patterns: usize,
    has_rules: bool,
}

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// The status, through its subresource.
    Status,
}

/// What is said of one value.
#[derive(Debug, Default)]
struct Node {
    /// None: a value of any type.
    types: Box<[&'static str]>,
    nullable: bool,
    format: Option<Format>,
    enumeration: Box<[Value]>,
    pattern: Option<Slot>,
    length: Range,
    number: Option<Box<numbers::Rules>>,
    item_count: Range,
    items_are_unique: bool,
    property_count: Range,
    required: Box<[Box<str>]>,
    properties: BTreeMap<Box<str>, Node>,
    others: Others,
    items: Option<Box<Node>>,
    all_of: Box<[Node]>,
    any_of: Box<[Node]>,
    one_of: Box<[Node]>,
    not: Option<Box<Node>>,
    list: List,
    /// An object with kind and metadata.
    embedded: bool,
    rules: Option<Box<rules::Rules>>,
}

/// A pattern, or why it is none, and its number in the schema.
#[derive(Debug)]
struct Slot {
    text: Box<str>,
    pattern: Result<Pattern, String>,
    number: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Range {
    min: Option<u64>,
    max: Option<u64>,
}

/// What is said of properties without a schema of their own.
#[derive(Debug, Default)]
enum Others {
    #[default]
    Anything,
    Forbidden,
    Schema(Box<Node>),
}

/// How the items of a list are told apart.
#[derive(Debug, Default, PartialEq, Eq)]
enum List {
    #[default]
    Atomic,
    Set,
    Map(Box<[Box<str>]>),
}

impl Schema {
    /// Compiles `openAPIV3Schema` of a version of a CustomResourceDefinition. The error says which of
    /// the limits of this module the schema breaks.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let mut compiler = Compiler::default();
        let mut root = compiler.node(schema)?;
        // The root has a kind and metadata, whatever the schema says.
        if let Some(rules) = &mut root.rules {
            **rules = rules::Rules::of(schema, true);
        }
        Ok(Self {
            root,
            patterns: compiler.patterns,
            has_rules: compiler.has_rules,
        })
    }

    /// What is wrong with an object; `old` is given for updates.
    pub fn validate(&self, new: &Value, old: Option<&Value>, part: Part) -> Vec<Cause> {
        let mut causes = check::object(self, new, old, part);
        embedded::check(&self.root, new, &mut causes);
        lists::check(&self.root, new, old, &mut causes);
        if self.has_rules {
            rules::check(&self.root, new, old, &mut causes);
        }
        causes
    }
}

/// A schema inside of a compiled one.
#[derive(Clone, Copy)]
pub(crate) struct Inner<'a> {
    schema: &'a Schema,
    node: &'a Node,
}

impl<'a> Inner<'a> {
    pub fn root(schema: &'a Schema) -> Self {
        let node = &schema.root;
        Self { schema, node }
    }

    pub fn property(self, name: &str) -> Option<Self> {
        let node = self.node.properties.get(name)?;
        Some(Self { node, ..self })
    }

    /// Of properties that have no schema of their own.
    pub fn others(self) -> Option<Self> {
        match &self.node.others {
            Others::Schema(node) => Some(Self { node, ..self }),
            _ => None,
        }
    }

    pub fn items(self) -> Option<Self> {
        let node = self.node.items.as_deref()?;
        Some(Self { node, ..self })
    }

    /// What is wrong with a value, as if it were an object of its own.
    pub fn validate(self, value: &Value) -> Vec<Cause> {
        let mut causes = check::value(self.node, self.schema.patterns, value, None, "");
        embedded::check(self.node, value, &mut causes);
        lists::check(self.node, value, None, &mut causes);
        if self.schema.has_rules {
            rules::check(self.node, value, None, &mut causes);
        }
        causes
    }
}

#[derive(Default)]
struct Compiler {
    nodes: usize,
    patterns: usize,
    pattern_memory: usize,
    has_rules: bool,
}

impl Compiler {
    /// As deep as the schema, which was decoded from a document of bounded depth.
    fn node(&mut self, schema: &Value) -> Result<Node, String> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("the schema has more than {MAX_NODES} parts"));
        }
        let either = schema["x-kubernetes-int-or-string"] == true;
        let types: Box<[_]> = match type_name(schema["type"].as_str()) {
            _ if either => Box::new(["integer", "string"]),
            Some(name) => Box::new([name]),
            None => Box::default(),
        };
        Ok(Node {
            format: Format::of(schema["format"].as_str(), &types),
            number: numbers::Rules::of(schema, &types),
            types,
            nullable: schema["nullable"] == true,
            enumeration: list(&schema["enum"]).cloned().collect(),
            pattern: self.pattern(&schema["pattern"])?,
            length: range(schema, "minLength", "maxLength"),
            item_count: range(schema, "minItems", "maxItems"),
            items_are_unique: schema["uniqueItems"] == true,
            property_count: range(schema, "minProperties", "maxProperties"),
            required: texts(&schema["required"]),
            properties: self.properties(&schema["properties"])?,
            others: self.others(&schema["additionalProperties"])?,
            items: self.inner(&schema["items"])?,
            all_of: self.nodes(&schema["allOf"])?,
            any_of: self.nodes(&schema["anyOf"])?,
            one_of: self.nodes(&schema["oneOf"])?,
            not: self.inner(&schema["not"])?,
            list: match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => List::Set,
                Some("map") => List::Map(texts(&schema["x-kubernetes-list-map-keys"])),
                _ => List::Atomic,
            },
            embedded: schema["x-kubernetes-embedded-resource"] == true,
            rules: self.rules(schema),
        })
    }

    fn rules(&mut self, schema: &Value) -> Option<Box<rules::Rules>> {
        let given = schema["x-kubernetes-validations"].as_array();
        given.filter(|given| !given.is_empty())?;
        self.has_rules = true;
        let embedded = schema["x-kubernetes-embedded-resource"] == true;
        Some(Box::new(rules::Rules::of(schema, embedded)))
    }

    fn inner(&mut self, schema: &Value) -> Result<Option<Box<Node>>, String> {
        match schema.is_object() {
            true => Ok(Some(Box::new(self.node(schema)?))),
            false => Ok(None),
        }
    }

    fn nodes(&mut self, schemas: &Value) -> Result<Box<[Node]>, String> {
        list(schemas).map(|schema| self.node(schema)).collect()
    }

    fn properties(&mut self, schemas: &Value) -> Result<BTreeMap<Box<str>, Node>, String> {
        let all = schemas.as_object().into_iter().flatten();
        all.map(|(name, schema)| Ok((name.as_str().into(), self.node(schema)?)))
            .collect()
    }

    fn others(&mut self, schema: &Value) -> Result<Others, String> {
        match schema {
            Value::Bool(false) => Ok(Others::Forbidden),
            Value::Object(_) => Ok(Others::Schema(Box::new(self.node(schema)?))),
            _ => Ok(Others::Anything),
        }
    }

    fn pattern(&mut self, text: &Value) -> Result<Option<Slot>, String> {
        let Some(text) = text.as_str().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let pattern = Pattern::new(text);
        self.pattern_memory += pattern.as_ref().map_or(0, Pattern::memory);
        let number = self.patterns;
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS || self.pattern_memory > MAX_PATTERN_MEMORY {
            return Err(format!(
                "the patterns of the schema are too many or too large: at most {MAX_PATTERNS} of \
                 {MAX_PATTERN_MEMORY} bytes compiled"
            ));
        }
        Ok(Some(Slot {
            text: text.into(),
            pattern,
            number,
        }))
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Box<[Box<str>]> {
    list(value)
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect()
}

/// A negative limit is none that counts: nothing is shorter.
fn range(schema: &Value, min: &str, max: &str) -> Range {
    let limit = |name: &str| {
        let value = &schema[name];
        let whole = value.as_f64().map(|n| n.max(0.0) as u64);
        value.as_u64().or(whole)
    };
    Range {
        min: limit(min),
        max: limit(max),
    }
}

fn type_name(name: Option<&str>) -> Option<&'static str> {
    let known = ["array", "boolean", "integer", "number", "object", "string"];
    known.into_iter().find(|known| Some(*known) == name)
}

#[cfg(test)]
mod tests;
