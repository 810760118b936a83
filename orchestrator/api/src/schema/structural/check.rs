//! The walk of a value by its schema.
//!
//! Both are from clients, and alternatives (`anyOf` in `anyOf` …) multiply: a walk has a budget of
//! steps, and so many errors of one object are reported.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{List, Node, Others, Part, Schema, Slot, formats::Format, numbers};
use crate::{
    re2::Scratch,
    status::{Cause, CauseKind},
    validation::At,
};

/// Values that are held against a schema, each as often as there are alternatives.
const MAX_STEPS: usize = 3_000_000;
/// Errors of one object.
pub const MAX_CAUSES: usize = 100;
/// Bytes of a pattern's text that count as a step.
const BYTES_PER_STEP: usize = 16;

/// What is wrong with the part that is written.
pub fn object(schema: &Schema, new: &Value, old: Option<&Value>, part: Part) -> Vec<Cause> {
    match part {
        Part::Whole => value(&schema.root, schema.patterns, new, old, ""),
        Part::Status => match (schema.root.properties.get("status"), new.get("status")) {
            (Some(node), Some(new)) => {
                let old = old.and_then(|old| old.get("status"));
                value(node, schema.patterns, new, old, "status")
            }
            _ => Vec::new(),
        },
    }
}

/// What is wrong with a value of a schema with so many patterns; `prefix` is where the value stands.
pub fn value(
    node: &Node,
    patterns: usize,
    new: &Value,
    old: Option<&Value>,
    prefix: &'static str,
) -> Vec<Cause> {
    let mut walk = Walk {
        scratches: (0..patterns).map(|_| None).collect(),
        steps: 0,
        prefix,
    };
    let mut outcome = walk.value(node, &At::root(new), old);
    if walk.steps > MAX_STEPS {
        outcome.causes.truncate(MAX_CAUSES - 1);
        let why = format!("the object takes more than {MAX_STEPS} steps to validate");
        outcome.push(whole(why));
    }
    outcome.causes
}

/// An error that belongs to no field, which Kubernetes names so.
fn whole(why: String) -> Cause {
    Cause {
        field: "<nil>".into(),
        kind: CauseKind::Invalid,
        message: format!("Invalid value: \"\": {why}"),
    }
}

/// Errors, and how much fits: of alternatives that all fail, the one that fits most explains why.
#[derive(Default)]
struct Outcome {
    causes: Vec<Cause>,
    fits: usize,
}

impl Outcome {
    fn push(&mut self, cause: Cause) {
        if self.causes.len() < MAX_CAUSES {
            self.causes.push(cause);
        }
    }

    fn merge(&mut self, other: Self) {
        self.fits += other.fits;
        let room = MAX_CAUSES.saturating_sub(self.causes.len());
        self.causes.extend(other.causes.into_iter().take(room));
    }

    fn is_valid(&self) -> bool {
        self.causes.is_empty()
    }
}

struct Walk {
    scratches: Vec<Option<Scratch>>,
    steps: usize,
    prefix: &'static str,
}

impl Walk {
    /// `old` is the value that this one replaces, if that is known: an error of what has not changed
    /// is none.
    fn value(&mut self, node: &Node, at: &At<'_>, old: Option<&Value>) -> Outcome {
        let mut outcome = self.judge(node, at, old);
        if !outcome.is_valid() && old == Some(at.value) {
            outcome.causes.clear();
        }
        outcome
    }

    fn judge(&mut self, node: &Node, at: &At<'_>, old: Option<&Value>) -> Outcome {
        let mut outcome = Outcome::default();
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return outcome;
        }
        if !node.types.is_empty() || node.format.is_some() {
            outcome.fits += 1;
            match mismatch(node, at.value) {
                Some((wanted, found)) => self.mistyped(at, &wanted, found, &mut outcome),
                None => outcome.fits += 1,
            }
        }
        if !at.is_null() {
            outcome.merge(self.junctors(node, at, old));
            match at.value {
                Value::String(text) => self.text(node, text, at, &mut outcome),
                Value::Number(number) => self.number(node, number, at, &mut outcome),
                Value::Array(list) => self.list(node, list, at, old, &mut outcome),
                Value::Object(object) => self.object(node, object, at, old, &mut outcome),
                Value::Null | Value::Bool(_) => {}
            }
            outcome.fits += 2;
        }
        if !node.enumeration.is_empty() && !is_one_of(at.value, &node.enumeration) {
            let supported: Vec<String> = node.enumeration.iter().map(quoted).collect();
            let detail = format!("supported values: {}", supported.join(", "));
            self.refuse(
                at,
                CauseKind::NotSupported,
                shown(at.value),
                &detail,
                &mut outcome,
            );
        }
        outcome
    }

    fn mistyped(&self, at: &At<'_>, wanted: &str, found: &str, outcome: &mut Outcome) {
        let why = format!(
            "{} in body must be of type {wanted}: {found:?}",
            self.name(at)
        );
        self.refuse(
            at,
            CauseKind::TypeInvalid,
            format!("{found:?}"),
            &why,
            outcome,
        );
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`. Alternatives are judged as if they were new; what is in
    /// them may be old.
    fn junctors(&mut self, node: &Node, at: &At<'_>, old: Option<&Value>) -> Outcome {
        let mut outcome = Outcome {
            fits: 2,
            ..Outcome::default()
        };
        if !node.any_of.is_empty() {
            let (valid, best) = self.alternatives(&node.any_of, at, old, 1);
            if valid == 0 {
                let name = self.name(at);
                outcome.push(whole(format!(
                    "{name:?} must validate at least one schema (anyOf)"
                )));
            }
            outcome.merge(best);
        }
        if !node.one_of.is_empty() {
            let (valid, best) = self.alternatives(&node.one_of, at, old, usize::MAX);
            if valid != 1 {
                let found = match valid {
                    0 => "Found none valid".to_owned(),
                    _ => format!("Found {valid} valid alternatives"),
                };
                let name = self.name(at);
                outcome.push(whole(format!(
                    "{name:?} must validate one and only one schema (oneOf). {found}"
                )));
            }
            if valid <= 1 {
                outcome.merge(best);
            }
        }
        if !node.all_of.is_empty() {
            let all: Vec<Outcome> = node.all_of.iter().map(|n| self.judge(n, at, old)).collect();
            let valid = all.iter().filter(|outcome| outcome.is_valid()).count();
            all.into_iter().for_each(|one| outcome.merge(one));
            if valid != node.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                let name = self.name(at);
                outcome.push(whole(format!(
                    "{name:?} must validate all the schemas (allOf){none}"
                )));
            }
        }
        if let Some(not) = &node.not
            && self.judge(not, at, old).is_valid()
        {
            let name = self.name(at);
            outcome.push(whole(format!(
                "{name:?} must not validate the schema (not)"
            )));
        }
        outcome
    }

    /// How many of the alternatives are valid, up to a number at which the search ends, and the first
    /// valid one; if none is, the one that fits most.
    fn alternatives(
        &mut self,
        nodes: &[Node],
        at: &At<'_>,
        old: Option<&Value>,
        enough: usize,
    ) -> (usize, Outcome) {
        let (mut valid, mut best) = (0, None::<Outcome>);
        for node in nodes {
            let outcome = self.judge(node, at, old);
            if outcome.is_valid() {
                valid += 1;
                if valid == 1 {
                    best = Some(outcome);
                }
                if valid >= enough {
                    break;
                }
            } else if valid == 0 && best.as_ref().is_none_or(|best| outcome.fits > best.fits) {
                best = Some(outcome);
            }
        }
        (valid, best.unwrap_or_default())
    }

    /// The first thing that is wrong with a text, and its format.
    fn text(&mut self, node: &Node, text: &str, at: &At<'_>, outcome: &mut Outcome) {
        let name = |walk: &Self| walk.name(at);
        let limits = (node.length.min, node.length.max);
        let chars = match limits {
            (None, None) => 0,
            _ => text.chars().count() as u64,
        };
        if let Some(max) = limits.1.filter(|max| chars > *max) {
            let detail = format!("may not be more than {max} bytes");
            self.refuse(at, CauseKind::TooLong, String::new(), &detail, outcome);
        } else if let Some(min) = limits.0.filter(|min| chars < *min) {
            let why = format!("{} in body should be at least {min} chars long", name(self));
            self.refuse(at, CauseKind::Invalid, shown(at.value), &why, outcome);
        } else if let Some(slot) = &node.pattern
            && let Some(wanted) = self.unmatched(slot, text)
        {
            let why = format!("{} in body should match '{wanted}'", name(self));
            self.refuse(at, CauseKind::Invalid, shown(at.value), &why, outcome);
        }
        outcome.fits += 1;
        if let Some(format) = node.format.as_ref().filter(|format| format.is_of_texts()) {
            outcome.fits += 1;
            if !format.accepts(text) {
                self.mistyped(at, &format.name, text, outcome);
            }
        }
    }

    /// What a text should match, if it does not.
    fn unmatched(&mut self, slot: &Slot, text: &str) -> Option<String> {
        self.steps += text.len() / BYTES_PER_STEP;
        let pattern = match &slot.pattern {
            Ok(pattern) => pattern,
            Err(why) => return Some(format!("{}, but pattern is invalid: {why}", slot.text)),
        };
        let scratch = self.scratches[slot.number].get_or_insert_with(|| pattern.scratch());
        match pattern.is_match(text, scratch) {
            Ok(true) => None,
            Ok(false) => Some(slot.text.to_string()),
            Err(why) => Some(format!("{}, but {why}", slot.text)),
        }
    }

    fn number(
        &mut self,
        node: &Node,
        number: &serde_json::Number,
        at: &At<'_>,
        outcome: &mut Outcome,
    ) {
        outcome.fits += 2;
        let Some(rules) = &node.number else {
            return;
        };
        for wrong in rules.check(number) {
            match wrong {
                numbers::Wrong::Own(why) => outcome.push(whole(format!("{why} in {at}"))),
                numbers::Wrong::Field(why) => {
                    let why = format!("{at} in body {why}");
                    self.refuse(at, CauseKind::Invalid, shown(at.value), &why, outcome);
                }
            }
        }
    }

    fn list(
        &mut self,
        node: &Node,
        list: &[Value],
        at: &At<'_>,
        old: Option<&Value>,
        outcome: &mut Outcome,
    ) {
        outcome.fits += 2;
        if let Some(items) = &node.items {
            let old = Correlation::of(&node.list, old);
            for item in at.items() {
                let found = self.value(items, &item, old.find(item.value));
                outcome.merge(found);
            }
        }
        let count = list.len() as u64;
        if let Some(min) = node.item_count.min.filter(|min| count < *min) {
            let why = format!("{} in body should have at least {min} items", self.name(at));
            self.refuse(at, CauseKind::Invalid, count.to_string(), &why, outcome);
        }
        if let Some(max) = node.item_count.max.filter(|max| count > *max) {
            self.too_many(at, count, max, outcome);
        }
        if node.items_are_unique && super::lists::repeated(list).next().is_some() {
            let why = format!("{} in body shouldn't contain duplicates", self.name(at));
            self.refuse(at, CauseKind::Invalid, "\"\"".into(), &why, outcome);
        }
    }

    fn object(
        &mut self,
        node: &Node,
        object: &Map<String, Value>,
        at: &At<'_>,
        old: Option<&Value>,
        outcome: &mut Outcome,
    ) {
        outcome.fits += 1;
        let count = object.len() as u64;
        if let Some(min) = node.property_count.min.filter(|min| count < *min) {
            let why = format!(
                "{} in body should have at least {min} properties",
                self.name(at)
            );
            self.refuse(at, CauseKind::Invalid, count.to_string(), &why, outcome);
        }
        if let Some(max) = node.property_count.max.filter(|max| count > *max) {
            self.too_many(at, count, max, outcome);
        }
        let is_root = self.prefix.is_empty() && at.is_root();
        for key in object.keys() {
            let inner = match (node.properties.get(&**key), &node.others) {
                (Some(inner), _) => inner,
                (None, Others::Schema(inner)) => inner,
                (None, Others::Anything) => continue,
                (None, Others::Forbidden) => {
                    let why = format!("{}.{key} in body is a forbidden property", self.name(at));
                    self.refuse(at, CauseKind::Invalid, format!("{key:?}"), &why, outcome);
                    continue;
                }
            };
            // What the two say of their version is not what was written.
            let is_head = is_root && ["apiVersion", "kind"].contains(&key.as_str());
            let old = old.filter(|_| !is_head).and_then(|old| old.get(key));
            let found = self.value(inner, &at.field(key), old);
            outcome.merge(found);
        }
        for key in node
            .required
            .iter()
            .filter(|key| !object.contains_key(&***key))
        {
            self.refuse(
                &at.field(key),
                CauseKind::Required,
                String::new(),
                "",
                outcome,
            );
        }
    }

    fn too_many(&self, at: &At<'_>, count: u64, max: u64, outcome: &mut Outcome) {
        let detail = format!("must have at most {max} items");
        self.refuse(at, CauseKind::TooMany, count.to_string(), &detail, outcome);
    }

    /// The place as the text of an error has it.
    fn name(&self, at: &At<'_>) -> String {
        at.to_string()
    }

    fn refuse(
        &self,
        at: &At<'_>,
        kind: CauseKind,
        value: String,
        detail: &str,
        outcome: &mut Outcome,
    ) {
        let place = at.to_string();
        let field = match (self.prefix, place.as_str()) {
            ("", "") => "<nil>".to_owned(),
            ("", place) => place.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, place) if place.starts_with('[') => format!("{prefix}{place}"),
            (prefix, place) => format!("{prefix}.{place}"),
        };
        let parts = [kind.text(), value.as_str(), detail];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        outcome.push(Cause {
            field,
            kind,
            message: parts.join(": "),
        });
    }
}

/// The items of an old list by what tells them apart; only lists that are maps have that.
pub struct Correlation<'a> {
    keys: &'a [Box<str>],
    items: BTreeMap<String, &'a Value>,
}

impl<'a> Correlation<'a> {
    pub(super) fn of(list: &'a List, old: Option<&'a Value>) -> Self {
        let List::Map(keys) = list else {
            return Self {
                keys: &[],
                items: BTreeMap::new(),
            };
        };
        let old = old.and_then(Value::as_array).into_iter().flatten();
        Self {
            keys,
            items: old.map(|item| (key_of(keys, item), item)).collect(),
        }
    }

    pub fn find(&self, item: &Value) -> Option<&'a Value> {
        match self.keys.is_empty() {
            true => None,
            false => self.items.get(&key_of(self.keys, item)).copied(),
        }
    }
}

fn key_of(keys: &[Box<str>], item: &Value) -> String {
    let parts = keys
        .iter()
        .map(|key| item.get(&**key).map_or(String::new(), Value::to_string));
    parts.collect::<Vec<_>>().join(",")
}

/// The type that is wanted and the one that is there, in the words of an error.
fn mismatch(node: &Node, value: &Value) -> Option<(String, &'static str)> {
    let found = type_name(value);
    if found == "null" {
        let wrong = !node.types.is_empty() && !node.nullable;
        return wrong.then(|| (node.types.join(","), found));
    }
    let wants = |name: &str| node.types.contains(&name);
    let is_whole = found == "number" && value.as_f64().is_some_and(numbers::is_integer);
    let fits = wants(found)
        || (found == "number" && wants("integer") && is_whole)
        || (found == "integer" && wants("number"));
    if fits || node.types.is_empty() {
        return None;
    }
    // With a format it is that which is missed, and the format of what is there that is named.
    let format = node
        .format
        .as_ref()
        .filter(|_| !["string", "array"].contains(&found));
    match format {
        Some(Format { name, .. }) => Some((name.to_string(), format_name(found))),
        None => Some((node.types.join(","), found)),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn format_name(type_name: &str) -> &'static str {
    match type_name {
        "integer" => "int64",
        "number" => "float64",
        _ => "",
    }
}

fn is_one_of(value: &Value, all: &[Value]) -> bool {
    let same_number = |other: &Value| match (value.as_f64(), other.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    };
    all.iter().any(|other| other == value || same_number(other))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

/// A value of an enum: texts as they are, everything else as JSON, in quotes.
fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => format!("{:?}", other.to_string()),
    }
}
