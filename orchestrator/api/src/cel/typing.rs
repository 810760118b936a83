//! The types of expressions, and what a schema declares.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value as Json;

/// Bytes of the largest request that Kubernetes takes, by which it estimates sizes.
pub const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;

/// The type of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    Type,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    Object(Arc<Object>),
    Opaque(Opaque),
}

/// Types of Kubernetes' libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opaque {
    Quantity,
    Ip,
    Cidr,
    Url,
    Semver,
    Format,
    Authorizer,
    PathCheck,
    GroupCheck,
    ResourceCheck,
    Decision,
    JsonPatch,
    /// A part of an object that a mutation applies.
    Applied,
}

/// An object with fields.
#[derive(Debug, Default)]
pub struct Object {
    pub name: Box<str>,
    /// By the names that expressions have for them.
    pub fields: BTreeMap<Box<str>, Field>,
}

#[derive(Debug)]
pub struct Field {
    /// As JSON has it.
    pub json: Box<str>,
    pub decl: Arc<Decl>,
}

/// What a schema says of a value, as far as expressions see it.
#[derive(Debug)]
pub struct Decl {
    pub kind: DeclKind,
    /// Characters, items or entries at most.
    pub max_elements: u64,
    /// Bytes of the shortest JSON.
    pub min_bytes: u64,
}

#[derive(Debug)]
pub enum DeclKind {
    /// Anything: read as JSON shows it.
    Dyn,
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Duration,
    Date,
    DateTime,
    List(Arc<Decl>, ListKind),
    Map(Arc<Decl>),
    Object(Arc<Object>),
}

/// How lists compare and add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    Set,
    Map(Box<[Box<str>]>),
}

/// Nothing is known.
pub static DYN: Decl = Decl {
    kind: DeclKind::Dyn,
    max_elements: MAX_REQUEST_BYTES,
    min_bytes: 1,
};

/// A list of which nothing is known.
pub static ATOMIC: ListKind = ListKind::Atomic;

/// Objects are the same type if they are the same declaration.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Type {
    pub fn list(of: Type) -> Self {
        Self::List(Arc::new(of))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(of: Type) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// Whether a value of the other type can stand where this one is wanted.
    pub fn takes(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a.takes(b),
            (Self::Map(a, b), Self::Map(c, d)) => a.takes(c) && b.takes(d),
            (Self::Timestamp | Self::Duration | Self::Object(_) | Self::Opaque(_), Self::Null) => {
                true
            }
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::Type => f.write_str("type"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Opaque(opaque) => f.write_str(opaque.name()),
        }
    }
}

impl Opaque {
    pub fn name(self) -> &'static str {
        match self {
            Self::Quantity => "kubernetes.Quantity",
            Self::Ip => "net.IP",
            Self::Cidr => "net.CIDR",
            Self::Url => "kubernetes.URL",
            Self::Semver => "kubernetes.Semver",
            Self::Format => "kubernetes.NamedFormat",
            Self::Authorizer => "kubernetes.authorization.Authorizer",
            Self::PathCheck => "kubernetes.authorization.PathCheck",
            Self::GroupCheck => "kubernetes.authorization.GroupCheck",
            Self::ResourceCheck => "kubernetes.authorization.ResourceCheck",
            Self::Decision => "kubernetes.authorization.Decision",
            Self::JsonPatch => "JSONPatch",
            Self::Applied => "Object",
        }
    }
}

impl Decl {
    pub fn ty(&self) -> Type {
        match &self.kind {
            DeclKind::Dyn => Type::Dyn,
            DeclKind::Bool => Type::Bool,
            DeclKind::Int => Type::Int,
            DeclKind::Double => Type::Double,
            DeclKind::String => Type::String,
            DeclKind::Bytes => Type::Bytes,
            DeclKind::Duration => Type::Duration,
            DeclKind::Date | DeclKind::DateTime => Type::Timestamp,
            DeclKind::List(of, _) => Type::list(of.ty()),
            DeclKind::Map(of) => Type::map(Type::String, of.ty()),
            DeclKind::Object(object) => Type::Object(object.clone()),
        }
    }

    /// What the schema of a custom kind declares; None where expressions see nothing, because nothing
    /// is known of the value. `root`: it has a kind and metadata, said or not.
    pub fn of_schema(schema: &Json, root: bool) -> Option<Self> {
        if schema["x-kubernetes-int-or-string"] == true {
            let max = schema["maxLength"]
                .as_u64()
                .map(|max| max.saturating_mul(4));
            return Some(Self {
                kind: DeclKind::Dyn,
                max_elements: max.unwrap_or(MAX_REQUEST_BYTES - 2),
                min_bytes: 1,
            });
        }
        match schema["type"].as_str()? {
            "array" => list(schema),
            "object" => object(schema, root),
            "string" => Some(text(schema)),
            "boolean" => Some(scalar(DeclKind::Bool, 4)),
            "number" => Some(scalar(DeclKind::Double, 1)),
            "integer" => Some(scalar(DeclKind::Int, 1)),
            _ => None,
        }
    }

    /// How often a value of this declaration can be in an object: by the bytes that it takes.
    pub fn max_cardinality(&self) -> u64 {
        MAX_REQUEST_BYTES / (self.min_bytes + 1)
    }
}

fn scalar(kind: DeclKind, min_bytes: u64) -> Decl {
    Decl {
        kind,
        max_elements: 1,
        min_bytes,
    }
}

fn is_embedded(schema: &Json) -> bool {
    schema["x-kubernetes-embedded-resource"] == true
}

fn list(schema: &Json) -> Option<Decl> {
    let items = &schema["items"];
    let of = Decl::of_schema(items, is_embedded(items))?;
    let fitting = (MAX_REQUEST_BYTES - 2) / (of.min_bytes + 1);
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    let keys = keys.into_iter().flatten().filter_map(Json::as_str);
    let kind = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(keys.map(Into::into).collect()),
        _ => ListKind::Atomic,
    };
    Some(Decl {
        max_elements: schema["maxItems"].as_u64().unwrap_or(fitting),
        kind: DeclKind::List(Arc::new(of), kind),
        min_bytes: 2,
    })
}

fn object(schema: &Json, root: bool) -> Option<Decl> {
    let values = &schema["additionalProperties"];
    if values.is_object() {
        let of = Decl::of_schema(values, is_embedded(values))?;
        let fitting = (MAX_REQUEST_BYTES - 2) / (of.min_bytes + 6);
        return Some(Decl {
            max_elements: schema["maxProperties"].as_u64().unwrap_or(fitting),
            kind: DeclKind::Map(Arc::new(of)),
            min_bytes: 2,
        });
    }
    let required = schema["required"].as_array();
    let required: Vec<&str> = required
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    let mut min_bytes = 2;
    let mut fields = BTreeMap::new();
    let properties = schema["properties"].as_object();
    for (name, property) in properties.into_iter().flatten() {
        let Some(decl) = Decl::of_schema(property, is_embedded(property)) else {
            continue;
        };
        if required.contains(&name.as_str()) && property.get("default").is_none() {
            min_bytes += name.len() as u64 + decl.min_bytes + 4;
        }
        insert(&mut fields, name, decl);
    }
    if root {
        for name in ["apiVersion", "kind"] {
            insert(&mut fields, name, text(&Json::Null));
        }
        let mut metadata = BTreeMap::new();
        for name in ["name", "generateName"] {
            insert(&mut metadata, name, text(&Json::Null));
        }
        insert(&mut fields, "metadata", of_fields(metadata, 2));
    }
    Some(of_fields(fields, min_bytes))
}

fn of_fields(fields: BTreeMap<Box<str>, Field>, min_bytes: u64) -> Decl {
    let object = Object {
        name: "object".into(),
        fields,
    };
    Decl {
        kind: DeclKind::Object(Arc::new(object)),
        max_elements: MAX_REQUEST_BYTES,
        min_bytes,
    }
}

fn insert(fields: &mut BTreeMap<Box<str>, Field>, name: &str, decl: Decl) {
    if let Some(escaped) = escape(name) {
        let field = Field {
            json: name.into(),
            decl: Arc::new(decl),
        };
        fields.insert(escaped.into(), field);
    }
}

fn text(schema: &Json) -> Decl {
    let (kind, min_bytes, fitting) = match schema["format"].as_str() {
        Some("byte") => (DeclKind::Bytes, 2, MAX_REQUEST_BYTES - 2),
        Some("duration") => (DeclKind::Duration, 3, 32),
        Some("date") => (DeclKind::Date, 12, 12),
        Some("date-time") => (DeclKind::DateTime, 21, 32),
        _ => (DeclKind::String, 2, MAX_REQUEST_BYTES - 2),
    };
    let max = schema["maxLength"].as_u64();
    let words = schema["enum"].as_array().into_iter().flatten();
    let longest = words
        .filter_map(Json::as_str)
        .map(|word| word.len() as u64)
        .max();
    let max_elements = match (&kind, max, longest) {
        (DeclKind::String, Some(max), _) => max.saturating_mul(4),
        (DeclKind::Bytes, Some(max), _) => max,
        (DeclKind::String, None, Some(longest)) => longest,
        _ => fitting,
    };
    Decl {
        kind,
        max_elements,
        min_bytes,
    }
}

/// What expressions write for signs that a name cannot have, and words that it cannot be.
const ESCAPES: [(&str, &str); 4] = [
    ("__", "__underscores__"),
    (".", "__dot__"),
    ("-", "__dash__"),
    ("/", "__slash__"),
];

const WORDS: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name of a property as expressions write it; None for one that they cannot.
pub fn escape(name: &str) -> Option<String> {
    let first = name.chars().next()?;
    if first.is_ascii_digit() || WORDS.contains(&name) {
        return WORDS.contains(&name).then(|| format!("__{name}__"));
    }
    let (mut out, mut rest) = (String::with_capacity(name.len()), name);
    while let Some(c) = rest.chars().next() {
        if let Some((sign, escaped)) = ESCAPES.iter().find(|(sign, _)| rest.starts_with(sign)) {
            out.push_str(escaped);
            rest = &rest[sign.len()..];
        } else if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c);
            rest = &rest[1..];
        } else {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_kubernetes_does() {
        for (name, expected) in [
            ("foo", Some("foo")),
            ("foo.bar", Some("foo__dot__bar")),
            ("a-b/c", Some("a__dash__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("a___b", Some("a__underscores___b")),
            ("namespace", Some("__namespace__")),
            ("1a", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(escape(name).as_deref(), expected, "{name}");
        }
    }
}
