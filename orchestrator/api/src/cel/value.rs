//! Values of expressions. What comes from an object stays where it is and is read when it is asked for.

use std::{cmp::Ordering, collections::BTreeMap, net::IpAddr, rc::Rc};

use jiff::Timestamp;
use serde_json::{Map as JsonMap, Value as Json};

use super::typing::{ATOMIC, DYN, Decl, DeclKind, ListKind, Opaque as OpaqueType};
use crate::quantity::Quantity;

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Rc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    Type(Rc<str>),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Rc<Value<'a>>>),
    Opaque(Rc<Opaque<'a>>),
}

#[derive(Clone, Debug)]
pub enum Text<'a> {
    Of(&'a str),
    Made(Rc<str>),
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Of(&'a [Json], &'a Decl, &'a ListKind),
    Made(Rc<Vec<Value<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    Of(&'a JsonMap<String, Json>, &'a Decl),
    Made(Rc<BTreeMap<Key, Value<'a>>>),
}

/// A key of a map that an expression makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i128),
    String(Rc<str>),
}

#[derive(Debug)]
pub enum Opaque<'a> {
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(ipnetwork::IpNetwork),
    Url(super::functions::Url),
    Semver(super::functions::Semver),
    /// By its name.
    Format(&'static str),
    Authorizer(super::functions::Check),
    Decision(super::functions::Decision),
    /// `JSONPatch{…}`, `Object.spec{…}`: fields by name.
    Struct(Box<str>, Vec<(Box<str>, Value<'a>)>),
}

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error of the language: `no such key: a`.
    Error(String),
    /// The evaluation has cost more than it may.
    Cost,
}

pub type Outcome<'a> = Result<Value<'a>, Failure>;

pub fn error<T>(why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Error(why.into()))
}

/// The text of an operator or function that has no form for its arguments.
pub fn no_overload<T>() -> Result<T, Failure> {
    error("no such overload")
}

impl<'a> Text<'a> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Of(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl<'a> From<String> for Value<'a> {
    fn from(text: String) -> Self {
        Self::String(Text::Made(text.into()))
    }
}

impl<'a> From<&str> for Value<'a> {
    fn from(text: &str) -> Self {
        Self::String(Text::Made(text.into()))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> Value<'a> {
    /// JSON as its declaration reads it.
    pub fn of(json: &'a Json, decl: &'a Decl) -> Outcome<'a> {
        let value = match (json, &decl.kind) {
            (Json::Null, _) => Self::Null,
            (Json::Bool(value), _) => Self::Bool(*value),
            (Json::Number(number), DeclKind::Double) => {
                Self::Double(number.as_f64().unwrap_or_default())
            }
            (Json::Number(number), DeclKind::Int) => match number.as_i64() {
                Some(n) => Self::Int(n),
                None => Self::Int(number.as_f64().unwrap_or_default() as i64),
            },
            (Json::Number(number), _) => match number.as_i64() {
                Some(n) => Self::Int(n),
                None => Self::Double(number.as_f64().unwrap_or_default()),
            },
            (Json::String(text), kind) => return text_of(text, kind),
            (Json::Array(list), DeclKind::List(of, kind)) => Self::List(List::Of(list, of, kind)),
            (Json::Array(list), _) => Self::List(List::Of(list, &DYN, &ATOMIC)),
            (Json::Object(map), _) => Self::Map(Map::Of(map, decl)),
        };
        Ok(value)
    }

    /// JSON of which nothing is known.
    pub fn of_json(json: &'a Json) -> Self {
        Self::of(json, &DYN).unwrap_or(Self::Null)
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Characters, bytes, items or entries; 1 for everything else. What functions cost by.
    pub fn size(&self) -> u64 {
        match self {
            Self::String(text) => text.as_str().chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Optional(Some(value)) => value.size(),
            Self::Opaque(opaque) => match &**opaque {
                Opaque::Ip(IpAddr::V4(_)) => 4,
                Opaque::Ip(IpAddr::V6(_)) => 16,
                Opaque::Cidr(cidr) => u64::from(cidr.prefix().div_ceil(8)),
                _ => 1,
            },
            _ => 1,
        }
    }

    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Opaque(opaque) => opaque.type_name(),
        }
    }

    pub fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(value) => Key::Bool(*value),
            Self::Int(n) => Key::Int(i128::from(*n)),
            Self::Uint(n) => Key::Int(i128::from(*n)),
            Self::Double(n) if n.fract() == 0.0 && n.abs() < 1e18 => Key::Int(*n as i128),
            Self::String(text) => Key::String(text.as_str().into()),
            _ => return None,
        })
    }

    /// The value as JSON; None for what JSON has no form for.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(n) => (*n).into(),
            Self::Uint(n) => (*n).into(),
            Self::Double(n) => serde_json::Number::from_f64(*n)?.into(),
            Self::String(text) => text.as_str().into(),
            Self::Bytes(bytes) => super::functions::encoded(bytes).into(),
            Self::Duration(n) => format!("{}s", *n as f64 / 1e9).into(),
            Self::Timestamp(time) => time.to_string().into(),
            Self::Type(name) => (&**name).into(),
            Self::List(List::Of(list, ..)) => Json::from(list.to_vec()),
            Self::Map(Map::Of(map, _)) => Json::Object((*map).clone()),
            Self::List(List::Made(list)) => {
                let items: Option<Vec<Json>> = list.iter().map(Self::to_json).collect();
                Json::Array(items?)
            }
            Self::Map(Map::Made(map)) => {
                let mut object = JsonMap::new();
                for (key, value) in map.iter() {
                    object.insert(key.to_string(), value.to_json()?);
                }
                Json::Object(object)
            }
            Self::Optional(value) => value.as_ref()?.to_json()?,
            Self::Opaque(opaque) => match &**opaque {
                Opaque::Struct(_, fields) => {
                    let mut object = JsonMap::new();
                    for (name, value) in fields {
                        object.insert(name.to_string(), value.to_json()?);
                    }
                    Json::Object(object)
                }
                Opaque::Quantity(quantity) => quantity.to_string().into(),
                Opaque::Ip(ip) => ip.to_string().into(),
                Opaque::Cidr(cidr) => cidr.to_string().into(),
                _ => return None,
            },
        })
    }
}

fn text_of<'a>(text: &'a str, kind: &DeclKind) -> Outcome<'a> {
    use super::functions;
    match kind {
        DeclKind::Bytes => Ok(Value::Bytes(functions::decoded(text)?)),
        DeclKind::Duration => Ok(Value::Duration(functions::duration(text)?)),
        DeclKind::DateTime => Ok(Value::Timestamp(functions::timestamp(text)?)),
        DeclKind::Date => Ok(Value::Timestamp(functions::timestamp(&format!(
            "{text}T00:00:00Z"
        ))?)),
        _ => Ok(Value::String(Text::Of(text))),
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::String(text) => f.write_str(text),
        }
    }
}

impl<'a> Key {
    pub fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(n) => match i64::try_from(*n) {
                Ok(n) => Value::Int(n),
                Err(_) => Value::Uint(*n as u64),
            },
            Self::String(text) => Value::String(Text::Made(text.clone())),
        }
    }
}

impl<'a> List<'a> {
    pub fn made(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(Self::Made(Rc::new(items)))
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Of(list, ..) => list.len(),
            Self::Made(list) => list.len(),
        }
    }

    pub fn get(&self, index: usize) -> Option<Outcome<'a>> {
        match self {
            Self::Of(list, decl, _) => list.get(index).map(|item| Value::of(item, decl)),
            Self::Made(list) => list.get(index).cloned().map(Ok),
        }
    }

    pub fn items(&self) -> impl Iterator<Item = Outcome<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    pub fn made(entries: BTreeMap<Key, Value<'a>>) -> Value<'a> {
        Value::Map(Self::Made(Rc::new(entries)))
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Of(map, _) => map.len(),
            Self::Made(map) => map.len(),
        }
    }

    /// The value of a key, or of a field by the name that expressions have for it.
    pub fn get(&self, key: &Value<'_>) -> Option<Outcome<'a>> {
        match self {
            Self::Of(map, decl) => field_of(map, decl, key.as_str()?),
            Self::Made(map) => map.get(&key.key()?).cloned().map(Ok),
        }
    }

    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Of(map, decl) => {
                let names = map.keys().filter_map(|name| name_of(decl, name));
                names.collect()
            }
            Self::Made(map) => map.keys().map(Key::value).collect(),
        }
    }
}

fn field_of<'a>(map: &'a JsonMap<String, Json>, decl: &'a Decl, name: &str) -> Option<Outcome<'a>> {
    let (json, decl): (&str, &Decl) = match &decl.kind {
        DeclKind::Object(object) => {
            let field = object.fields.get(name)?;
            (&field.json, &field.decl)
        }
        DeclKind::Map(of) => (name, of),
        _ => (name, &DYN),
    };
    map.get(json).map(|value| Value::of(value, decl))
}

fn name_of<'a>(decl: &'a Decl, json: &'a str) -> Option<Value<'a>> {
    match &decl.kind {
        DeclKind::Object(object) => {
            let escaped = super::typing::escape(json)?;
            let (name, _) = object.fields.get_key_value(escaped.as_str())?;
            Some(Value::String(Text::Of(name)))
        }
        _ => Some(Value::String(Text::Of(json))),
    }
}

impl Opaque<'_> {
    pub fn type_name(&self) -> &str {
        self.ty().name()
    }

    pub fn ty(&self) -> OpaqueType {
        match self {
            Self::Quantity(_) => OpaqueType::Quantity,
            Self::Ip(_) => OpaqueType::Ip,
            Self::Cidr(_) => OpaqueType::Cidr,
            Self::Url(_) => OpaqueType::Url,
            Self::Semver(_) => OpaqueType::Semver,
            Self::Format(_) => OpaqueType::Format,
            Self::Authorizer(check) => check.ty(),
            Self::Decision(_) => OpaqueType::Decision,
            Self::Struct(name, _) if &**name == "JSONPatch" => OpaqueType::JsonPatch,
            Self::Struct(..) => OpaqueType::Applied,
        }
    }
}

/// Whether two values are equal; numbers of different types by what they count. None: it would take
/// more steps than `budget` has left.
pub fn equal(a: &Value<'_>, b: &Value<'_>, budget: &mut u64) -> Result<bool, Failure> {
    *budget = budget.checked_sub(1).ok_or(Failure::Cost)?;
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => a.as_str() == b.as_str(),
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::List(a), Value::List(b)) => equal_lists(a, b, budget)?,
        (Value::Map(a), Value::Map(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for key in a.keys() {
                let (Some(left), Some(right)) = (a.get(&key), b.get(&key)) else {
                    return Ok(false);
                };
                if !equal(&left?, &right?, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b, budget)?,
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::Opaque(a), Value::Opaque(b)) => match (&**a, &**b) {
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Semver(a), Opaque::Semver(b)) => a.compare(b) == Ordering::Equal,
            (Opaque::Format(a), Opaque::Format(b)) => a == b,
            _ => false,
        },
        (a, b) => compare_numbers(a, b) == Some(Ordering::Equal),
    })
}

/// Lists that are sets or maps are equal in any order.
fn equal_lists(a: &List<'_>, b: &List<'_>, budget: &mut u64) -> Result<bool, Failure> {
    if a.len() != b.len() {
        return Ok(false);
    }
    if let (List::Of(x, _, kind), List::Of(y, ..)) = (a, b)
        && **kind != ListKind::Atomic
    {
        *budget = budget
            .checked_sub(2 * x.len() as u64)
            .ok_or(Failure::Cost)?;
        let sorted = |list: &[Json]| {
            let mut texts: Vec<String> = list.iter().map(Json::to_string).collect();
            texts.sort_unstable();
            texts
        };
        return Ok(sorted(x) == sorted(y));
    }
    for (left, right) in a.items().zip(b.items()) {
        if !equal(&left?, &right?, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn compare_numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    };
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => compare_double(*a, whole(b)?),
        (a, Value::Double(b)) => compare_double(*b, whole(a)?).map(Ordering::reverse),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

fn compare_double(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    if double.abs() >= 1e20 {
        return Some(if double > 0.0 {
            Ordering::Greater
        } else {
            Ordering::Less
        });
    }
    let floor = double.floor();
    let order = (floor as i128).cmp(&whole);
    Some(match order {
        Ordering::Equal if double > floor => Ordering::Greater,
        order => order,
    })
}

/// The order of two values of types that have one.
pub fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.as_str().cmp(b.as_str())),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (a, b) => compare_numbers(a, b),
    }
}
