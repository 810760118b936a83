//! Where validation stands in an object, and what it has found there.

use std::fmt;

use serde_json::Value;

use crate::{
    resource::Resource,
    status::{ApiError, Cause, CauseKind},
};

/// A place in an object: its value and the way to it. Cheap to make, written out only in errors.
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub value: &'a Value,
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

const NULL: &Value = &Value::Null;

impl<'a> At<'a> {
    pub fn root(value: &'a Value) -> Self {
        Self {
            value,
            parent: None,
            step: Step::Root,
        }
    }

    /// A field; absent is null.
    pub fn field(&'a self, name: &'a str) -> At<'a> {
        let value = self.value.get(name).unwrap_or(NULL);
        At {
            value,
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// An entry of a map, written `map[key]`.
    pub fn key(&'a self, name: &'a str) -> At<'a> {
        let value = self.value.get(name).unwrap_or(NULL);
        At {
            value,
            parent: Some(self),
            step: Step::Key(name),
        }
    }

    /// The same place with another value there.
    pub fn with(&self, value: &'a Value) -> At<'a> {
        At { value, ..*self }
    }

    /// The items of a list.
    pub fn items(&'a self) -> impl Iterator<Item = At<'a>> {
        let items = self.value.as_array().into_iter().flatten().enumerate();
        items.map(|(at, value)| At {
            value,
            parent: Some(self),
            step: Step::Index(at),
        })
    }

    /// The entries of a map.
    pub fn entries(&'a self) -> impl Iterator<Item = (&'a str, At<'a>)> {
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(|(key, value)| {
            (
                key.as_str(),
                At {
                    value,
                    parent: Some(self),
                    step: Step::Key(key),
                },
            )
        })
    }

    /// Whether it is the object itself.
    pub fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }

    /// The same place with another value, for fields that errors know by another name.
    pub fn holding(&self, value: &'a Value) -> At<'a> {
        At { value, ..*self }
    }

    /// The text, or empty.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number, or zero.
    pub fn number(&self) -> i64 {
        self.value.as_i64().unwrap_or_default()
    }

    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    /// Null, or an empty text, list or map.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        }
    }

    pub fn is_null(&self) -> bool {
        self.value.is_null()
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Index(at) => write!(f, "[{at}]"),
            Step::Key(key) => write!(f, "[{key}]"),
            Step::Field(name) if self.parent.is_some_and(|p| matches!(p.step, Step::Root)) => {
                f.write_str(name)
            }
            Step::Field(name) => write!(f, ".{name}"),
        }
    }
}

/// The rules that an object breaks.
#[derive(Default)]
pub struct Errors {
    causes: Vec<Cause>,
}

impl Errors {
    pub fn required(&mut self, at: &At<'_>, detail: &str) {
        self.push(at, CauseKind::Required, String::new(), detail);
    }

    pub fn invalid(&mut self, at: &At<'_>, detail: impl AsRef<str>) {
        self.push(at, CauseKind::Invalid, shown(at.value), detail.as_ref());
    }

    /// Of a value that is not the one at the place, such as a map's key.
    pub fn invalid_value(&mut self, at: &At<'_>, value: &str, detail: impl AsRef<str>) {
        self.push(
            at,
            CauseKind::Invalid,
            format!("{value:?}"),
            detail.as_ref(),
        );
    }

    /// Of another value than the one at the place.
    pub fn invalid_part(&mut self, at: &At<'_>, value: &Value, detail: &str) {
        self.push(at, CauseKind::Invalid, shown(value), detail);
    }

    /// A value that repeats in the part given.
    pub fn duplicate_value(&mut self, at: &At<'_>, part: &Value) {
        self.push(at, CauseKind::Duplicate, shown(part), "");
    }

    pub fn duplicate(&mut self, at: &At<'_>) {
        self.push(at, CauseKind::Duplicate, shown(at.value), "");
    }

    pub fn forbidden(&mut self, at: &At<'_>, detail: &str) {
        self.push(at, CauseKind::Forbidden, String::new(), detail);
    }

    pub fn not_found(&mut self, at: &At<'_>) {
        self.push(at, CauseKind::NotFound, shown(at.value), "");
    }

    pub fn too_long(&mut self, at: &At<'_>, max: usize) {
        let detail = format!("may not be more than {max} bytes");
        self.push(at, CauseKind::TooLong, String::new(), &detail);
    }

    pub fn too_many(&mut self, at: &At<'_>, length: usize, max: usize) {
        let detail = format!("must have at most {max} items");
        self.push(at, CauseKind::TooMany, length.to_string(), &detail);
    }

    pub fn not_supported(&mut self, at: &At<'_>, supported: &[&str]) {
        self.part_not_supported(at, at.value, supported);
    }

    /// Of a part of the value at the place, such as one item of a list.
    pub fn part_not_supported(&mut self, at: &At<'_>, part: &Value, supported: &[&str]) {
        let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        self.push(at, CauseKind::NotSupported, shown(part), &detail);
    }

    /// Of a value that is not shown.
    pub fn invalid_whole(&mut self, at: &At<'_>, detail: &str) {
        self.push(at, CauseKind::Invalid, String::new(), detail);
    }

    /// A part of the value at the place is not supported.
    pub fn not_supported_part(&mut self, at: &At<'_>, part: &Value, supported: &[&str]) {
        self.not_supported(&at.holding(part), supported);
    }

    /// One of a few words; the empty word is not one of them.
    pub fn one_of(&mut self, at: &At<'_>, supported: &[&str]) {
        if at.is_empty() {
            self.required(at, "");
        } else if !supported.contains(&at.text()) {
            self.not_supported(at, supported);
        }
    }

    /// The same where nothing need be said.
    pub fn one_of_if_any(&mut self, at: &At<'_>, supported: &[&str]) {
        if !at.is_empty() {
            self.one_of(at, supported);
        }
    }

    /// The outcome of a check of the key at this place.
    pub fn check_key(&mut self, at: &At<'_>, key: &str, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.invalid_value(at, key, why);
        }
    }

    /// The outcome of a check of the value's text.
    pub fn check(&mut self, at: &At<'_>, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.invalid(at, why);
        }
    }

    pub fn in_range(&mut self, at: &At<'_>, min: i64, max: i64) {
        let number = at.number();
        if number < min || number > max {
            self.invalid(at, format!("must be between {min} and {max}, inclusive"));
        }
    }

    pub fn not_negative(&mut self, at: &At<'_>) {
        if at.number() < 0 {
            self.invalid(at, "must be greater than or equal to 0");
        }
    }

    pub fn positive(&mut self, at: &At<'_>) {
        if at.number() <= 0 {
            self.invalid(at, "must be greater than 0");
        }
    }

    /// The value may not have changed.
    pub fn immutable(&mut self, new: &At<'_>, old: &At<'_>) {
        if new.value != old.value {
            self.invalid(new, "field is immutable");
        }
    }

    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    pub fn append(&mut self, mut other: Self) {
        self.causes.append(&mut other.causes);
    }

    /// What has been found.
    pub fn into_causes(self) -> Vec<Cause> {
        self.causes
    }

    /// What another validation has found.
    pub fn extend(&mut self, causes: Vec<Cause>) {
        self.causes.extend(causes);
    }

    /// Puts what has been found in the order of its text.
    pub fn sort(&mut self) {
        let text = |cause: &Cause| format!("{}: {}", cause.field, cause.message);
        self.causes.sort_by_cached_key(text);
    }

    /// 422 if any rule is broken.
    pub fn finish(self, resource: &Resource, name: &str) -> Result<(), ApiError> {
        if self.causes.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid(resource, name, self.causes))
        }
    }

    /// What has been found, one text a rule.
    #[cfg(test)]
    pub fn messages(&self) -> Vec<String> {
        let causes = self.causes.iter();
        causes
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    fn push(&mut self, at: &At<'_>, kind: CauseKind, value: String, detail: &str) {
        let mut message = kind.text().to_owned();
        for part in [value.as_str(), detail] {
            if !part.is_empty() {
                message.push_str(": ");
                message.push_str(part);
            }
        }
        self.causes.push(Cause {
            field: at.to_string(),
            kind,
            message,
        });
    }
}

/// A value as it stands in an error: texts quoted, objects as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}
