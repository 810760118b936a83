//! The types of an expression, and the most that it can cost, before it ever runs.
//!
//! Sizes come from the limits of the schema (`maxItems`, `maxLength` …), else from the largest request;
//! costs are counted as Kubernetes' estimate does (cel-go's `checker/cost.go`): the worst case of every
//! part.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    ast::{Expr, Kind, Literal, Loop, LoopKind, Problem},
    functions::{self, Cost, Overload},
    meter::{LIST_COST, MAP_COST, Patterns, STRUCT_COST},
    typing::{Decl, DeclKind, Opaque, Type},
};
use crate::re2::Pattern;

/// Problems of one expression that are reported.
const MAX_PROBLEMS: usize = 10;

/// What an expression may name.
#[derive(Debug, Default)]
pub struct Env {
    pub variables: BTreeMap<Box<str>, Variable>,
    /// Fields of `variables`, which is itself no value.
    pub composed: BTreeMap<Box<str>, Type>,
    pub has_composed: bool,
    /// Whether `Object{…}` and `JSONPatch{…}` can be made.
    pub mutates: bool,
}

#[derive(Clone, Debug)]
pub struct Variable {
    pub ty: Type,
    /// What the schema says of it.
    pub decl: Option<Arc<Decl>>,
}

impl From<Type> for Variable {
    fn from(ty: Type) -> Self {
        Self { ty, decl: None }
    }
}

impl From<Arc<Decl>> for Variable {
    fn from(decl: Arc<Decl>) -> Self {
        Self {
            ty: decl.ty(),
            decl: Some(decl),
        }
    }
}

/// What is known of a part of an expression.
#[derive(Clone, Debug)]
struct Part {
    ty: Type,
    decl: Option<Arc<Decl>>,
    /// Of a text, list or map: the largest that it can be, if the declaration does not say it.
    size: Option<u64>,
    /// The most that it costs to come to it.
    cost: u64,
}

/// What has been found out about a whole expression.
pub struct Checked {
    pub ty: Type,
    pub max_cost: u64,
    /// Variables of the environment that it names.
    pub names: BTreeSet<Box<str>>,
    pub patterns: Patterns,
}

pub enum Refusal {
    Problems(Vec<Problem>),
    /// A pattern is none.
    Pattern(String),
}

pub fn check(expr: &Expr, env: &Env) -> Result<Checked, Refusal> {
    let mut checker = Checker {
        env,
        locals: Vec::new(),
        problems: Vec::new(),
        names: BTreeSet::new(),
        patterns: Patterns::new(),
        bad_pattern: None,
        mixed: false,
    };
    let part = checker.part(expr);
    if !checker.problems.is_empty() {
        return Err(Refusal::Problems(checker.problems));
    }
    if let Some(why) = checker.bad_pattern {
        return Err(Refusal::Pattern(why));
    }
    Ok(Checked {
        ty: part.ty,
        max_cost: part.cost,
        names: checker.names,
        patterns: checker.patterns,
    })
}

struct Checker<'e> {
    env: &'e Env,
    locals: Vec<(Box<str>, Part)>,
    problems: Vec<Problem>,
    names: BTreeSet<Box<str>>,
    patterns: Patterns,
    bad_pattern: Option<String>,
    /// Whether the next list is that of `format`, whose items may be of any types.
    mixed: bool,
}

/// Types that can be named.
pub const TYPE_NAMES: [&str; 14] = [
    "bool",
    "bytes",
    "double",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
    "optional_type",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
];

impl Part {
    fn of(ty: Type, cost: u64) -> Self {
        Self {
            ty,
            decl: None,
            size: None,
            cost,
        }
    }

    fn of_decl(decl: &Arc<Decl>, cost: u64) -> Self {
        Self {
            ty: decl.ty(),
            decl: Some(decl.clone()),
            size: None,
            cost,
        }
    }

    /// The largest that the value can be, in the units of its size.
    fn size(&self) -> u64 {
        let sized = matches!(
            self.ty,
            Type::String
                | Type::Bytes
                | Type::List(_)
                | Type::Map(..)
                | Type::Dyn
                | Type::Optional(_)
        );
        let declared = self.decl.as_ref().map(|decl| decl.max_elements);
        match sized {
            true => self.size.or(declared).unwrap_or(u64::MAX),
            false => 1,
        }
    }
}

fn tenth(size: u64) -> u64 {
    size.div_ceil(10)
}

impl Checker<'_> {
    fn problem(&mut self, at: u32, what: impl Into<String>) -> Part {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem::new(at, what));
        }
        Part::of(Type::Dyn, 0)
    }

    fn undeclared(&mut self, at: u32, name: &str) -> Part {
        self.problem(
            at,
            format!("undeclared reference to '{name}' (in container '')"),
        )
    }

    fn no_overload(&mut self, at: u32, name: &str, member: bool, args: &[&Type]) -> Part {
        let mut texts: Vec<String> = args.iter().map(|ty| ty.to_string()).collect();
        let applied = match member && !texts.is_empty() {
            true => format!("{}.({})", texts.remove(0), texts.join(", ")),
            false => format!("({})", texts.join(", ")),
        };
        self.problem(
            at,
            format!("found no matching overload for '{name}' applied to '{applied}'"),
        )
    }

    fn part(&mut self, expr: &Expr) -> Part {
        match &expr.kind {
            Kind::Literal(literal) => of_literal(literal),
            Kind::Ident(name) => self.ident(expr.at, name),
            Kind::Select {
                operand,
                field,
                optional,
            } => self.select(expr.at, operand, field, *optional, 1),
            Kind::Has { operand, field } => {
                let found = self.select(expr.at, operand, field, false, 0);
                Part::of(Type::Bool, found.cost)
            }
            Kind::Index {
                operand,
                index,
                optional,
            } => self.index(expr.at, operand, index, *optional),
            Kind::Call { name, member, args } => self.call(expr.at, name, *member, args),
            Kind::And(parts) => self.junction(expr.at, "_&&_", parts),
            Kind::Or(parts) => self.junction(expr.at, "_||_", parts),
            Kind::Conditional(parts) => self.conditional(expr.at, parts),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.structure(expr.at, name, fields),
            Kind::Loop(details) => self.iteration(expr.at, details),
        }
    }

    fn ident(&mut self, at: u32, name: &str) -> Part {
        if let Some((_, part)) = self.locals.iter().rev().find(|(local, _)| &**local == name) {
            return Part {
                cost: 1,
                ..part.clone()
            };
        }
        if let Some(variable) = self.env.variables.get(name) {
            self.names.insert(name.into());
            return Part {
                ty: variable.ty.clone(),
                decl: variable.decl.clone(),
                size: None,
                cost: 1,
            };
        }
        match TYPE_NAMES.contains(&name) {
            true => Part::of(Type::Type, 0),
            false => self.undeclared(at, name),
        }
    }

    fn select(&mut self, at: u32, operand: &Expr, field: &str, optional: bool, cost: u64) -> Part {
        if let Kind::Ident(name) = &operand.kind
            && &**name == "variables"
            && self.env.has_composed
        {
            self.names.insert(format!("variables.{field}").into());
            return match self.env.composed.get(field) {
                Some(ty) => Part::of(ty.clone(), 2),
                None => self.problem(at, format!("undefined field '{field}'")),
            };
        }
        if let Some(name) = dotted(operand)
            && TYPE_NAMES.contains(&format!("{name}.{field}").as_str())
            && !self.env.variables.contains_key("google")
        {
            return Part::of(Type::Type, 0);
        }
        let operand = self.part(operand);
        let (inner, was_optional) = match &operand.ty {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let cost = operand.cost.saturating_add(cost);
        let mut found = match &inner {
            Type::Dyn => Part::of(Type::Dyn, cost),
            Type::Map(_, value) => match operand.decl.as_deref().map(|decl| &decl.kind) {
                Some(DeclKind::Map(of)) => Part::of_decl(of, cost),
                _ => Part::of((**value).clone(), cost),
            },
            Type::Object(object) => match object.fields.get(field) {
                Some(field) => Part::of_decl(&field.decl, cost),
                None => return self.problem(at, format!("undefined field '{field}'")),
            },
            Type::Opaque(Opaque::Authorizer) if field == "requestResource" => {
                Part::of(Type::Opaque(Opaque::ResourceCheck), cost)
            }
            other => {
                let why = format!("type '{other}' does not support field selection");
                return self.problem(at, why);
            }
        };
        if optional || was_optional {
            found.ty = Type::optional(found.ty);
        }
        found
    }

    fn index(&mut self, at: u32, operand: &Expr, index: &Expr, optional: bool) -> Part {
        let (operand, index) = (self.part(operand), self.part(index));
        let (inner, was_optional) = match &operand.ty {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let cost = operand.cost.saturating_add(index.cost).saturating_add(1);
        let decl = operand.decl.as_deref().map(|decl| &decl.kind);
        let mut found = match (&inner, decl) {
            (Type::Dyn, _) => Part::of(Type::Dyn, cost),
            (Type::List(_), Some(DeclKind::List(of, _))) if Type::Int.takes(&index.ty) => {
                Part::of_decl(of, cost)
            }
            (Type::List(of), _) if Type::Int.takes(&index.ty) => Part::of((**of).clone(), cost),
            (Type::Map(key, _), Some(DeclKind::Map(of))) if key.takes(&index.ty) => {
                Part::of_decl(of, cost)
            }
            (Type::Map(key, of), _) if key.takes(&index.ty) => Part::of((**of).clone(), cost),
            _ => {
                let name = if optional { "_[?_]" } else { "_[_]" };
                return self.no_overload(at, name, false, &[&operand.ty, &index.ty]);
            }
        };
        if optional || was_optional {
            found.ty = Type::optional(found.ty);
        }
        found
    }

    fn junction(&mut self, at: u32, name: &str, parts: &[Expr]) -> Part {
        let mut cost = 0u64;
        let mut types = Vec::new();
        for part in parts {
            let part = self.part(part);
            cost = cost.saturating_add(part.cost);
            types.push(part.ty);
        }
        let wrong = types.iter().position(|ty| !Type::Bool.takes(ty));
        if let Some(wrong) = wrong {
            let other = if wrong == 0 {
                types.get(1)
            } else {
                Some(&types[wrong])
            };
            let first = if wrong == 0 { &types[0] } else { &Type::Bool };
            let pair = [first, other.unwrap_or(&Type::Bool)];
            return self.no_overload(at, name, false, &pair);
        }
        Part::of(Type::Bool, cost)
    }

    fn conditional(&mut self, at: u32, parts: &[Expr; 3]) -> Part {
        let [condition, yes, no] = parts.each_ref().map(|part| self.part(part));
        let cost = condition.cost.saturating_add(yes.cost.max(no.cost));
        let joined = joined(&yes.ty, &no.ty);
        match joined.filter(|_| Type::Bool.takes(&condition.ty)) {
            Some(ty) => Part {
                ty,
                decl: None,
                size: Some(yes.size().max(no.size())),
                cost,
            },
            None => {
                let types = [&condition.ty, &yes.ty, &no.ty];
                self.no_overload(at, "_?_:_", false, &types)
            }
        }
    }

    /// The type of items that stand beside each other.
    fn element(&mut self, so_far: Option<Type>, at: u32, next: Type) -> Type {
        let Some(so_far) = so_far else {
            return next;
        };
        match joined(&so_far, &next) {
            Some(ty) => ty,
            None => {
                let why = format!("expected type '{so_far}' but found '{next}'");
                self.problem(at, why);
                so_far
            }
        }
    }

    fn list(&mut self, items: &[(Expr, bool)]) -> Part {
        let mixed = std::mem::take(&mut self.mixed);
        let (mut of, mut cost) = (mixed.then_some(Type::Dyn), LIST_COST);
        for (item, optional) in items {
            let part = self.part(item);
            cost = cost.saturating_add(part.cost);
            let ty = self.entry(item.at, part.ty, *optional);
            of = Some(self.element(of, item.at, ty));
        }
        Part {
            ty: Type::list(of.unwrap_or(Type::Dyn)),
            decl: None,
            size: Some(items.len() as u64),
            cost,
        }
    }

    /// The type of an entry; one that may be missing is an optional.
    fn entry(&mut self, at: u32, ty: Type, optional: bool) -> Type {
        match (optional, ty) {
            (false, ty) | (true, ty @ Type::Dyn) => ty,
            (true, Type::Optional(inner)) => (*inner).clone(),
            (true, other) => {
                let why = format!("expected type 'optional_type({other})' but found '{other}'");
                self.problem(at, why).ty
            }
        }
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Part {
        let (mut keys, mut values, mut cost) = (None, None, MAP_COST);
        for (key, value, optional) in entries {
            let (k, v) = (self.part(key), self.part(value));
            cost = cost.saturating_add(k.cost).saturating_add(v.cost);
            let ty = self.entry(value.at, v.ty, *optional);
            keys = Some(self.element(keys, key.at, k.ty));
            values = Some(self.element(values, value.at, ty));
        }
        Part {
            ty: Type::map(keys.unwrap_or(Type::Dyn), values.unwrap_or(Type::Dyn)),
            decl: None,
            size: Some(entries.len() as u64),
            cost,
        }
    }

    fn structure(&mut self, at: u32, name: &str, fields: &[(Box<str>, Expr, bool)]) -> Part {
        let of_object = name == "Object" || name.starts_with("Object.");
        if !self.env.mutates || (!of_object && name != "JSONPatch") {
            return self.undeclared(at, name);
        }
        let mut cost = STRUCT_COST;
        for (field, value, optional) in fields {
            if !of_object && !["op", "path", "from", "value"].contains(&&**field) {
                self.problem(value.at, format!("undefined field '{field}'"));
            }
            if of_object {
                self.nested(&format!("{name}.{field}"), value);
            }
            let part = self.part(value);
            cost = cost.saturating_add(part.cost);
            self.entry(value.at, part.ty, *optional);
        }
        let opaque = if of_object {
            Opaque::Applied
        } else {
            Opaque::JsonPatch
        };
        Part::of(Type::Opaque(opaque), cost)
    }

    /// An object in the field of another is named by the way to it.
    fn nested(&mut self, expected: &str, value: &Expr) {
        match &value.kind {
            Kind::Struct { name, .. } if name.starts_with("Object") && &**name != expected => {
                self.problem(
                    value.at,
                    format!(
                        "unexpected type name \"{name}\", expected \"{expected}\", which matches \
                         field name path from root Object type"
                    ),
                );
            }
            Kind::List(items) => items
                .iter()
                .for_each(|(item, _)| self.nested(expected, item)),
            _ => {}
        }
    }

    fn call(&mut self, at: u32, name: &str, member: bool, args: &[Expr]) -> Part {
        let mut parts = Vec::with_capacity(args.len());
        for (index, arg) in args.iter().enumerate() {
            let is_list = matches!(arg.kind, Kind::List(_));
            self.mixed = name == "format" && index == 1 && is_list;
            parts.push(self.part(arg));
        }
        let forms = functions::named(name);
        if !forms.iter().any(|form| form.member == member) {
            return self.undeclared(at, name);
        }
        let types: Vec<Type> = parts.iter().map(|part| part.ty.clone()).collect();
        let fitting = forms
            .iter()
            .filter_map(|form| Some((*form, form.applies(member, &types)?)));
        let fitting: Vec<(&Overload, Type)> = fitting.collect();
        let Some((first, ty)) = fitting.first() else {
            let types: Vec<&Type> = types.iter().collect();
            return self.no_overload(at, name, member, &types);
        };
        let same = fitting.iter().all(|(_, other)| other == ty);
        let paid = parts
            .iter()
            .fold(0u64, |sum, part| sum.saturating_add(part.cost));
        let worst = fitting
            .iter()
            .map(|(form, _)| call_cost(form.cost, &parts))
            .max();
        if ["matches", "find", "findAll"].contains(&name)
            && let Some(Kind::Literal(Literal::String(pattern))) = args.get(1).map(|arg| &arg.kind)
        {
            self.pattern(pattern);
        }
        Part {
            ty: if same { ty.clone() } else { Type::Dyn },
            decl: None,
            size: result_size(first, &parts),
            cost: paid.saturating_add(worst.unwrap_or(1)),
        }
    }

    fn pattern(&mut self, text: &str) {
        match Pattern::new(text) {
            Ok(pattern) => {
                self.patterns.insert(text.into(), pattern);
            }
            Err(why) => self.bad_pattern = Some(why),
        }
    }

    fn iteration(&mut self, at: u32, details: &Loop) -> Part {
        let range = self.part(&details.range);
        let (key, value) = match self.variables(details, &range) {
            Some(both) => both,
            None => {
                let ty = &range.ty;
                let why = match details.kind {
                    LoopKind::OptMap | LoopKind::OptFlatMap => {
                        format!("expression of type '{ty}' is not an optional")
                    }
                    _ => format!(
                        "expression of type '{ty}' cannot be range of a comprehension (must be \
                         list, map, or dynamic)"
                    ),
                };
                return self.problem(details.range.at, why);
            }
        };
        let before = self.locals.len();
        self.locals.push((details.variable.clone(), key.clone()));
        if let Some(second) = &details.second {
            self.locals.push((second.clone(), value.clone()));
        }
        let filter = details.filter.as_ref().map(|filter| self.part(filter));
        let body = self.part(&details.body);
        self.locals.truncate(before);
        let test = filter.as_ref().map(|filter| filter.ty.clone());
        let is_test = matches!(
            details.kind,
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne | LoopKind::Filter
        );
        let tests = [test, is_test.then(|| body.ty.clone())];
        if let Some(wrong) = tests.into_iter().flatten().find(|ty| !Type::Bool.takes(ty)) {
            return self.no_overload(
                at,
                test_operator(details.kind),
                false,
                &[&Type::Bool, &wrong],
            );
        }
        let once = filter.map_or(0, |part| part.cost).saturating_add(body.cost);
        let times = match details.kind {
            LoopKind::OptMap | LoopKind::OptFlatMap => 1,
            _ => range.size(),
        };
        let each = once.saturating_add(overhead(details.kind));
        Part {
            ty: result_of(details, &key, body.ty),
            decl: None,
            size: Some(range.size()),
            cost: range
                .cost
                .saturating_add(base(details.kind))
                .saturating_add(each.saturating_mul(times)),
        }
    }

    /// What the variables of a loop stand for: both, or the first alone.
    fn variables(&mut self, details: &Loop, range: &Part) -> Option<(Part, Part)> {
        let decl = range.decl.as_deref().map(|decl| &decl.kind);
        let is_optional = matches!(details.kind, LoopKind::OptMap | LoopKind::OptFlatMap);
        let index = Part::of(Type::Int, 1);
        Some(match (&range.ty, decl) {
            (Type::Dyn, _) => (Part::of(Type::Dyn, 1), Part::of(Type::Dyn, 1)),
            (Type::Optional(of), _) if is_optional => {
                let inner = match &range.decl {
                    Some(decl) if decl.ty() == **of => Part::of_decl(decl, 1),
                    _ => Part::of((**of).clone(), 1),
                };
                (inner.clone(), inner)
            }
            _ if is_optional => return None,
            (Type::List(of), decl) => {
                let item = match decl {
                    Some(DeclKind::List(of, _)) => Part::of_decl(of, 1),
                    _ => Part::of((**of).clone(), 1),
                };
                match details.second {
                    Some(_) => (index, item),
                    None => (item.clone(), item),
                }
            }
            (Type::Map(key, of), decl) => {
                let item = match decl {
                    Some(DeclKind::Map(of)) => Part::of_decl(of, 1),
                    _ => Part::of((**of).clone(), 1),
                };
                (Part::of((**key).clone(), 1), item)
            }
            _ => return None,
        })
    }
}

fn dotted(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select { operand, field, .. } => Some(format!("{}.{field}", dotted(operand)?)),
        _ => None,
    }
}

fn of_literal(literal: &Literal) -> Part {
    let (ty, size) = match literal {
        Literal::Null => (Type::Null, None),
        Literal::Bool(_) => (Type::Bool, None),
        Literal::Int(_) => (Type::Int, None),
        Literal::Uint(_) => (Type::Uint, None),
        Literal::Double(_) => (Type::Double, None),
        Literal::String(text) => (Type::String, Some(text.chars().count() as u64)),
        Literal::Bytes(bytes) => (Type::Bytes, Some(bytes.len() as u64)),
    };
    Part {
        ty,
        decl: None,
        size,
        cost: 0,
    }
}

/// The type that takes both.
fn joined(a: &Type, b: &Type) -> Option<Type> {
    match (a, b) {
        (Type::Dyn, _) | (_, Type::Dyn) => Some(Type::Dyn),
        (a, b) if a == b => Some(a.clone()),
        // The items of an empty list are of any type.
        (Type::List(x), Type::List(y)) => Some(Type::list(known(x, y)?)),
        (Type::Map(k, v), Type::Map(l, w)) => Some(Type::map(known(k, l)?, known(v, w)?)),
        (Type::Optional(x), Type::Optional(y)) => Some(Type::optional(known(x, y)?)),
        (a, b) if a.takes(b) => Some(a.clone()),
        (a, b) if b.takes(a) => Some(b.clone()),
        _ => None,
    }
}

fn known(a: &Type, b: &Type) -> Option<Type> {
    match (a, b) {
        (Type::Dyn, other) | (other, Type::Dyn) => Some(other.clone()),
        (a, b) => joined(a, b),
    }
}

fn test_operator(kind: LoopKind) -> &'static str {
    match kind {
        LoopKind::All => "_&&_",
        LoopKind::Exists => "_||_",
        _ => "_?_:_",
    }
}

/// What a loop costs besides its turns: where it begins, and what is made of its outcome.
pub fn base(kind: LoopKind) -> u64 {
    match kind {
        LoopKind::All | LoopKind::Exists => 1,
        LoopKind::ExistsOne => 2,
        LoopKind::Map | LoopKind::Filter => 1 + LIST_COST,
        LoopKind::TransformMap => 1 + MAP_COST,
        LoopKind::OptMap | LoopKind::OptFlatMap => 1,
    }
}

/// What it costs to see that a loop need not go on.
pub fn early_end(kind: LoopKind) -> u64 {
    match kind {
        LoopKind::All => 2,
        LoopKind::Exists => 3,
        _ => 0,
    }
}

/// What a turn of a loop costs besides its expressions: what its macro stands for.
pub fn overhead(kind: LoopKind) -> u64 {
    match kind {
        LoopKind::All => 3,
        LoopKind::Exists => 4,
        LoopKind::ExistsOne => 2,
        LoopKind::Map => 2 + LIST_COST,
        LoopKind::Filter => 3 + LIST_COST,
        LoopKind::TransformMap => 3,
        LoopKind::OptMap | LoopKind::OptFlatMap => 1,
    }
}

fn result_of(details: &Loop, variable: &Part, body: Type) -> Type {
    match details.kind {
        LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Type::Bool,
        LoopKind::Filter => Type::list(variable.ty.clone()),
        LoopKind::Map => Type::list(body),
        LoopKind::TransformMap => Type::map(variable.ty.clone(), body),
        LoopKind::OptMap => Type::optional(body),
        LoopKind::OptFlatMap => body,
    }
}

/// The most that a call costs.
fn call_cost(cost: Cost, args: &[Part]) -> u64 {
    let size = |index: usize| args.get(index).map_or(0, Part::size);
    match cost {
        Cost::Fixed(units) => units,
        Cost::Text(times) => tenth(size(0).saturating_mul(times)),
        Cost::Result(times) => tenth(size(0).saturating_mul(times)),
        Cost::Sum => tenth(size(0).saturating_add(size(1))),
        Cost::Compare => tenth(size(0).min(size(1))),
        Cost::Regex => tenth(size(0).saturating_add(1)).saturating_mul(size(1).div_ceil(4)),
        Cost::Contains => tenth(size(0)).saturating_mul(tenth(size(1))),
        Cost::In => size(1),
        Cost::Traversal => size(0),
        Cost::Network => 6 + tenth(size(1)),
        Cost::NamedFormat => tenth(size(1).saturating_add(1)).saturating_mul(32),
        Cost::Selector => 10u64.saturating_add(tenth(size(1)).saturating_mul(251)),
    }
}

/// The largest that the result of a call can be.
fn result_size(form: &Overload, args: &[Part]) -> Option<u64> {
    let size = |index: usize| args.get(index).map_or(0, Part::size);
    match (form.cost, form.name) {
        (Cost::Sum, _) => Some(size(0).saturating_add(size(1))),
        (_, "_+_") => Some(size(0).saturating_add(size(1))),
        (_, "replace") => Some(size(0).saturating_add(1).saturating_mul(size(2).max(1))),
        (Cost::Text(_) | Cost::Regex, _) => Some(size(0)),
        (Cost::Result(_), _) => {
            let item = args.first().and_then(|part| part.decl.as_deref());
            let of = match item.map(|decl| &decl.kind) {
                Some(DeclKind::List(of, _)) => of.max_elements,
                _ => return None,
            };
            Some(size(0).saturating_mul(of.saturating_add(size(1))))
        }
        _ => None,
    }
}
