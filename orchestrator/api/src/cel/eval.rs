//! The evaluation of a checked expression.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::{
    Program,
    ast::{Expr, Kind, Literal, Loop, LoopKind},
    check::{TYPE_NAMES, base, early_end, overhead},
    functions,
    meter::{LIST_COST, MAP_COST, Meter, STRUCT_COST},
    value::{Failure, Key, List, Map, Opaque, Outcome, Text, Value, error, no_overload},
};

/// What the names of an expression stand for.
#[derive(Default)]
pub struct Scope<'a> {
    pub values: BTreeMap<&'static str, Value<'a>>,
    /// Expressions behind `variables.NAME`: each is evaluated once, when it is first asked for.
    pub composed: Option<&'a [(Box<str>, Program)]>,
    pub known: RefCell<BTreeMap<&'a str, Outcome<'a>>>,
    /// `authorizer.requestResource`.
    pub request_resource: Option<functions::Question>,
}

pub struct Run<'r, 'a> {
    scope: &'r Scope<'a>,
    meter: &'r mut Meter<'a>,
    locals: Vec<(&'a str, Value<'a>)>,
}

impl<'r, 'a> Run<'r, 'a> {
    pub fn new(scope: &'r Scope<'a>, meter: &'r mut Meter<'a>) -> Self {
        Self {
            scope,
            meter,
            locals: Vec::new(),
        }
    }

    pub fn eval(&mut self, expr: &'a Expr) -> Outcome<'a> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(of_literal(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select {
                operand,
                field,
                optional,
            } => self.select(operand, field, *optional),
            Kind::Has { operand, field } => self.has(operand, field),
            Kind::Index {
                operand,
                index,
                optional,
            } => self.index(operand, index, *optional),
            Kind::Call { name, member, args } => self.call(name, *member, args),
            Kind::And(parts) => self.junction(parts, false),
            Kind::Or(parts) => self.junction(parts, true),
            Kind::Conditional(parts) => match self.eval(&parts[0])?.as_bool() {
                Some(true) => self.eval(&parts[1]),
                Some(false) => self.eval(&parts[2]),
                None => no_overload(),
            },
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.structure(name, fields),
            Kind::Loop(details) => self.iteration(details),
        }
    }

    fn ident(&mut self, name: &'a str) -> Outcome<'a> {
        self.meter.charge(1)?;
        if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| *local == name) {
            return Ok(value.clone());
        }
        if let Some(value) = self.scope.values.get(name) {
            return Ok(value.clone());
        }
        // A variable that has no value here, such as the old one of a new object.
        match TYPE_NAMES.contains(&name) || name == "google" {
            true => Ok(Value::Type(name.into())),
            false => error(format!("no such attribute(s): {name}")),
        }
    }

    fn select(&mut self, operand: &'a Expr, field: &'a str, optional: bool) -> Outcome<'a> {
        if let Kind::Ident(name) = &operand.kind {
            if &**name == "variables" && self.scope.composed.is_some() {
                return self.composed(field);
            }
            let whole = format!("{name}.{field}");
            if whole.starts_with("google.") && !self.scope.values.contains_key("google") {
                return Ok(Value::Type(whole.into()));
            }
        }
        let value = match self.eval(operand)? {
            Value::Type(name) => return Ok(Value::Type(format!("{name}.{field}").into())),
            value => value,
        };
        self.meter.charge(1)?;
        let (inner, was_optional) = match &value {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((**inner).clone(), true),
            _ => (value, false),
        };
        let found = match &inner {
            Value::Map(map) => map.get(&Value::String(Text::Of(field))),
            Value::Opaque(opaque) => self.part_of(opaque, field),
            _ => return error(format!("no such key: {field}")),
        };
        self.found(found, optional || was_optional, || field.to_owned())
    }

    fn found(
        &mut self,
        found: Option<Outcome<'a>>,
        optional: bool,
        key: impl Fn() -> String,
    ) -> Outcome<'a> {
        match (found, optional) {
            (Some(value), false) => value,
            (Some(value), true) => Ok(Value::Optional(Some(Rc::new(value?)))),
            (None, true) => Ok(Value::Optional(None)),
            (None, false) => error(format!("no such key: {}", key())),
        }
    }

    fn part_of(&self, opaque: &Opaque<'a>, field: &str) -> Option<Outcome<'a>> {
        match opaque {
            Opaque::Authorizer(_) if field == "requestResource" => {
                let question = self.scope.request_resource.clone()?;
                Some(Ok(functions::Check::resource(question)))
            }
            Opaque::Struct(_, fields) => {
                let mut fields = fields.iter();
                let (_, value) = fields.find(|(name, _)| &**name == field)?;
                Some(Ok(value.clone()))
            }
            _ => None,
        }
    }

    /// `variables.NAME`. A variable sees those before it only, so none waits for itself.
    fn composed(&mut self, name: &'a str) -> Outcome<'a> {
        self.meter.charge(2)?;
        if let Some(known) = self.scope.known.borrow().get(name) {
            return known.clone();
        }
        let all = self.scope.composed.unwrap_or_default();
        let Some((_, program)) = all.iter().find(|(known, _)| &**known == name) else {
            return error(format!("no such key: {name}"));
        };
        let outcome = program.run(self.scope, self.meter);
        let mut known = self.scope.known.borrow_mut();
        known.insert(name, outcome.clone());
        outcome
    }

    fn has(&mut self, operand: &'a Expr, field: &'a str) -> Outcome<'a> {
        if let Kind::Ident(name) = &operand.kind
            && &**name == "variables"
            && let Some(composed) = self.scope.composed
        {
            let is = composed.iter().any(|(known, _)| &**known == field);
            return Ok(is.into());
        }
        let value = match self.eval(operand)? {
            Value::Optional(Some(inner)) => (*inner).clone(),
            value => value,
        };
        match &value {
            Value::Map(map) => match map.get(&Value::String(Text::Of(field))) {
                Some(value) => value.map(|_| true.into()),
                None => Ok(false.into()),
            },
            Value::Opaque(opaque) => Ok(self.part_of(opaque, field).is_some().into()),
            Value::Optional(None) => Ok(false.into()),
            _ => no_overload(),
        }
    }

    fn index(&mut self, operand: &'a Expr, index: &'a Expr, optional: bool) -> Outcome<'a> {
        let (value, index) = (self.eval(operand)?, self.eval(index)?);
        self.meter.charge(1)?;
        let (inner, was_optional) = match &value {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((**inner).clone(), true),
            _ => (value, false),
        };
        let optional = optional || was_optional;
        match &inner {
            Value::Map(map) => {
                let found = map.get(&index);
                self.found(found, optional, || written(&index))
            }
            Value::List(list) => {
                let at = match &index {
                    Value::Int(n) => Some(*n),
                    Value::Uint(n) => i64::try_from(*n).ok(),
                    Value::Double(n) if n.fract() == 0.0 => Some(*n as i64),
                    _ => return no_overload(),
                };
                let found = at
                    .and_then(|at| usize::try_from(at).ok())
                    .and_then(|at| list.get(at));
                match (found, optional) {
                    (None, false) => error(format!("index out of bounds: {}", written(&index))),
                    (found, optional) => self.found(found, optional, String::new),
                }
            }
            _ => no_overload(),
        }
    }

    fn call(&mut self, name: &str, member: bool, args: &'a [Expr]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.eval(arg)?);
        }
        let forms = functions::named(name);
        let Some(form) = forms.iter().find(|form| form.takes(member, &values)) else {
            return no_overload();
        };
        self.meter.charge_call(form.cost, &values)?;
        let result = (form.run)(self.meter, &values)?;
        self.meter.charge_result(form.cost, &result)?;
        Ok(result)
    }

    /// `&&` and `||`: the part that decides makes errors of the others be forgotten.
    fn junction(&mut self, parts: &'a [Expr], decides: bool) -> Outcome<'a> {
        let mut failed = None;
        for part in parts {
            match self.eval(part) {
                Ok(Value::Bool(value)) if value == decides => return Ok(value.into()),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(Failure::Error("no such overload".into()))),
                Err(Failure::Cost) => return Err(Failure::Cost),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok((!decides).into()),
        }
    }

    /// The value of an entry; None if it may be missing and is.
    fn entry(&mut self, expr: &'a Expr, optional: bool) -> Result<Option<Value<'a>>, Failure> {
        let value = self.eval(expr)?;
        match (optional, value) {
            (false, value) => Ok(Some(value)),
            (true, Value::Optional(value)) => Ok(value.map(|value| (*value).clone())),
            (true, _) => no_overload(),
        }
    }

    fn list(&mut self, items: &'a [(Expr, bool)]) -> Outcome<'a> {
        self.meter.charge(LIST_COST)?;
        let mut all = Vec::with_capacity(items.len());
        for (item, optional) in items {
            all.extend(self.entry(item, *optional)?);
        }
        Ok(List::made(all))
    }

    fn map(&mut self, entries: &'a [(Expr, Expr, bool)]) -> Outcome<'a> {
        self.meter.charge(MAP_COST)?;
        let mut all = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let Some(key) = key.key() else {
                return error(format!("unsupported key type: {}", key.type_name()));
            };
            if all.contains_key(&key) {
                return error(format!("duplicate map key: {key}"));
            }
            if let Some(value) = self.entry(value, *optional)? {
                all.insert(key, value);
            }
        }
        Ok(Map::made(all))
    }

    fn structure(&mut self, name: &str, fields: &'a [(Box<str>, Expr, bool)]) -> Outcome<'a> {
        self.meter.charge(STRUCT_COST)?;
        let mut all = Vec::with_capacity(fields.len());
        for (field, value, optional) in fields {
            if let Some(value) = self.entry(value, *optional)? {
                all.push((field.clone(), value));
            }
        }
        Ok(Value::Opaque(Rc::new(Opaque::Struct(name.into(), all))))
    }

    fn iteration(&mut self, details: &'a Loop) -> Outcome<'a> {
        let range = self.eval(&details.range)?;
        self.meter.charge(base(details.kind))?;
        let before = self.locals.len();
        let outcome = match (details.kind, range) {
            (LoopKind::OptMap | LoopKind::OptFlatMap, range) => self.optional(details, range),
            (_, Value::List(list)) => self.over_list(details, &list),
            (_, Value::Map(map)) => self.over_map(details, &map),
            _ => no_overload(),
        };
        self.locals.truncate(before);
        outcome
    }

    fn optional(&mut self, details: &'a Loop, range: Value<'a>) -> Outcome<'a> {
        let inner = match range {
            Value::Optional(Some(inner)) => (*inner).clone(),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            _ => return no_overload(),
        };
        self.locals.push((&details.variable, inner));
        let value = self.eval(&details.body)?;
        match (details.kind, value) {
            (LoopKind::OptMap, value) => Ok(Value::Optional(Some(Rc::new(value)))),
            (_, value @ Value::Optional(_)) => Ok(value),
            _ => no_overload(),
        }
    }

    fn over_list(&mut self, details: &'a Loop, list: &List<'a>) -> Outcome<'a> {
        let mut made = Made::new(details.kind);
        for (at, item) in list.items().enumerate() {
            let (first, second) = match details.second {
                Some(_) => (Value::Int(at as i64), Some(item?)),
                None => (item?, None),
            };
            if self.turn(details, first, second, &mut made)? {
                self.meter.charge(early_end(details.kind))?;
                break;
            }
        }
        made.finish()
    }

    fn over_map(&mut self, details: &'a Loop, map: &Map<'a>) -> Outcome<'a> {
        let mut made = Made::new(details.kind);
        for key in map.keys() {
            let second = match details.second {
                Some(_) => match map.get(&key) {
                    Some(value) => Some(value?),
                    None => continue,
                },
                None => None,
            };
            if self.turn(details, key, second, &mut made)? {
                self.meter.charge(early_end(details.kind))?;
                break;
            }
        }
        made.finish()
    }

    /// One turn of a loop; true if it was the last.
    fn turn(
        &mut self,
        details: &'a Loop,
        first: Value<'a>,
        second: Option<Value<'a>>,
        made: &mut Made<'a>,
    ) -> Result<bool, Failure> {
        self.meter.charge(overhead(details.kind))?;
        let before = self.locals.len();
        self.locals.push((&details.variable, first.clone()));
        if let (Some(name), Some(value)) = (&details.second, second) {
            self.locals.push((name, value));
        }
        let passes = match &details.filter {
            Some(filter) => self.eval(filter)?.as_bool(),
            None => Some(true),
        };
        let last = match passes {
            Some(true) => {
                let outcome = self.eval(&details.body);
                made.take(first, outcome)?
            }
            Some(false) => false,
            None => return no_overload(),
        };
        self.locals.truncate(before);
        Ok(last)
    }
}

/// What a loop has made so far.
struct Made<'a> {
    kind: LoopKind,
    items: Vec<Value<'a>>,
    entries: BTreeMap<Key, Value<'a>>,
    count: usize,
    decided: bool,
    failed: Option<Failure>,
}

impl<'a> Made<'a> {
    fn new(kind: LoopKind) -> Self {
        Self {
            kind,
            items: Vec::new(),
            entries: BTreeMap::new(),
            count: 0,
            decided: false,
            failed: None,
        }
    }

    /// The outcome of a turn; true if nothing can change the result any more.
    fn take(&mut self, variable: Value<'a>, outcome: Outcome<'a>) -> Result<bool, Failure> {
        let tolerant = matches!(self.kind, LoopKind::All | LoopKind::Exists);
        let value = match outcome {
            Err(failure @ Failure::Error(_)) if tolerant => {
                self.failed.get_or_insert(failure);
                return Ok(false);
            }
            outcome => outcome?,
        };
        match (self.kind, value) {
            (LoopKind::All, Value::Bool(value)) => self.decided = !value,
            (LoopKind::Exists, Value::Bool(value)) => self.decided = value,
            (LoopKind::ExistsOne, Value::Bool(value)) => self.count += usize::from(value),
            (LoopKind::Filter, Value::Bool(true)) => self.items.push(variable),
            (LoopKind::Filter, Value::Bool(false)) => {}
            (LoopKind::Map, value) => self.items.push(value),
            (LoopKind::TransformMap, value) => match variable.key() {
                Some(key) => {
                    self.entries.insert(key, value);
                }
                None => return no_overload(),
            },
            _ => return no_overload(),
        }
        Ok(self.decided)
    }

    fn finish(self) -> Outcome<'a> {
        match (self.kind, self.decided, self.failed) {
            (LoopKind::All, true, _) => Ok(false.into()),
            (LoopKind::Exists, true, _) => Ok(true.into()),
            (_, false, Some(failure)) => Err(failure),
            (LoopKind::All, ..) => Ok(true.into()),
            (LoopKind::Exists, ..) => Ok(false.into()),
            (LoopKind::ExistsOne, ..) => Ok((self.count == 1).into()),
            (LoopKind::TransformMap, ..) => Ok(Map::made(self.entries)),
            _ => Ok(List::made(self.items)),
        }
    }
}

fn of_literal(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(n) => Value::Double(*n),
        Literal::String(text) => Value::String(Text::Of(text)),
        Literal::Bytes(bytes) => Value::Bytes((&**bytes).into()),
    }
}

fn written(value: &Value<'_>) -> String {
    let text = value.to_json().map(|json| match json {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    });
    let text = text.unwrap_or_default();
    text[..text.floor_char_boundary(100)].to_owned()
}
