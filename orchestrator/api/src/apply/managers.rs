//! `metadata.managedFields`: who owns which fields of an object.
//!
//! An entry stays the JSON object that it is on the wire, so that a write touches only the entries
//! and paths that it changes.

use std::{cmp::Ordering, collections::BTreeMap, sync::LazyLock};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use super::field_set::{self, FieldSet, Nodes};
use crate::meta;

/// Entries of updates beyond this many are put together, the oldest first.
const MAX_UPDATE_ENTRIES: usize = 10;
/// The manager of those that were put together.
const OLD_UPDATES: &str = "ancient-changes";
/// Entries that a client may write.
const MAX_ENTRIES: usize = 1000;

const FIELDS: &str = "fieldsV1";

/// How an entry came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// Whose entry it is. An applier has one entry whatever version it applies in, an updater one for
/// each version.
#[derive(Clone, Copy, Debug)]
pub struct Id<'a> {
    pub manager: &'a str,
    pub operation: Operation,
    pub api_version: &'a str,
    /// Empty: the object itself.
    pub subresource: &'a str,
}

impl PartialEq for Id<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

impl Id<'_> {
    /// The same for what is sorted.
    fn key(&self) -> (Operation, [String; 3]) {
        let version = match self.operation {
            Operation::Apply => "",
            Operation::Update => self.api_version,
        };
        let words = [self.manager, version, self.subresource];
        (self.operation, words.map(str::to_owned))
    }
}

/// The fields of one manager.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry(Map<String, Value>);

/// The entries of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(Vec<Entry>);

impl Managers {
    /// Those of a stored object.
    pub fn of_stored(object: &Value) -> Self {
        Self::stored(object["metadata"]["managedFields"].clone())
    }

    /// The same of the list itself.
    pub fn stored(list: Value) -> Self {
        let Value::Array(list) = list else {
            return Self::default();
        };
        let entries = list.into_iter().filter_map(|entry| match entry {
            Value::Object(entry) => Some(Entry(entry)),
            _ => None,
        });
        Self(entries.collect())
    }

    /// Those that a client wrote.
    ///
    /// # Errors
    /// One of them is malformed, or there are too many.
    pub fn parse(list: &Value) -> Result<Self, String> {
        let Value::Array(list) = list else {
            return Err("managedFields is a list".into());
        };
        if list.len() > MAX_ENTRIES {
            return Err(format!("managedFields has more than {MAX_ENTRIES} entries"));
        }
        // The last one of the same manager is it.
        let mut entries = BTreeMap::new();
        for entry in list {
            let entry = Entry::parse(entry)?;
            entries.insert(entry.id().key(), entry);
        }
        let mut managers = Self(entries.into_values().collect());
        managers.sort();
        Ok(managers)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    pub fn find(&self, id: Id<'_>) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.id() == id)
    }

    /// Removes these paths from every entry but one; entries that have none left go.
    pub fn subtract(&mut self, paths: &Nodes, but: Option<Id<'_>>) {
        if paths.is_empty() {
            return;
        }
        for entry in &mut self.0 {
            if but.is_none_or(|but| entry.id() != but) {
                field_set::subtract(entry.fields_mut(), paths);
            }
        }
        self.0
            .retain(|entry| !entry.fields().is_empty() || but == Some(entry.id()));
    }

    /// Adds the paths to the entry of an update.
    pub fn add(&mut self, id: Id<'_>, paths: Nodes, now: Timestamp) {
        if paths.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|entry| entry.id() == id) {
            Some(entry) => {
                field_set::unite(entry.fields_mut(), paths);
                entry.stamp(now);
            }
            None => self.0.push(Entry::new(id, FieldSet::of(paths), Some(now))),
        }
        self.sort();
    }

    /// Puts an applier's entry in place of the one that it has. Its time is `now`, or stays.
    pub fn set(&mut self, id: Id<'_>, fields: FieldSet, now: Option<Timestamp>) {
        let at = self.0.iter().position(|entry| entry.id() == id);
        let old = at.map(|at| self.0.remove(at));
        if fields.is_empty() {
            return;
        }
        let mut entry = Entry::new(id, fields, now);
        if let (None, Some(time)) = (now, old.and_then(|mut old| old.0.remove("time"))) {
            entry.0.insert("time".into(), time);
        }
        self.0.push(entry);
        self.sort();
    }

    /// Puts the oldest updates of one version together until there are few enough.
    pub fn cap(&mut self) {
        let is_update = |entry: &&Entry| entry.id().operation == Operation::Update;
        let mut excess = self
            .0
            .iter()
            .filter(is_update)
            .count()
            .saturating_sub(MAX_UPDATE_ENTRIES);
        // Updates come after applies, the oldest first: so is the order of the entries.
        let mut at = self.0.iter().filter(|entry| !is_update(entry)).count();
        let mut first: Vec<(String, usize)> = Vec::new();
        while excess > 0 && at < self.0.len() {
            let version = self.0[at].id().api_version.to_owned();
            match first.iter().find(|(known, _)| *known == version) {
                None => {
                    first.push((version, at));
                    at += 1;
                }
                Some((_, first)) => {
                    let first = *first;
                    let newer = self.0.remove(at);
                    let bucket = Id {
                        manager: OLD_UPDATES,
                        operation: Operation::Update,
                        api_version: &version,
                        subresource: "",
                    };
                    let bucket = self.0.iter().position(|entry| entry.id() == bucket);
                    self.0[bucket.unwrap_or(first)].absorb(newer);
                    excess -= 1;
                }
            }
        }
        self.sort();
    }

    /// Writes them into the object.
    pub fn write(self, object: &mut Value) {
        let Some(Value::Object(metadata)) = object.get_mut("metadata") else {
            return;
        };
        if self.0.is_empty() {
            metadata.remove("managedFields");
            return;
        }
        let entries = self.0.into_iter().map(|entry| Value::Object(entry.0));
        metadata.insert("managedFields".into(), entries.collect());
    }

    fn sort(&mut self) {
        self.0.sort_by(Entry::order);
    }
}

impl Entry {
    fn new(id: Id<'_>, fields: FieldSet, time: Option<Timestamp>) -> Self {
        let mut entry = Self(Map::new());
        let mut put = |key: &str, value: Value| entry.0.insert(key.into(), value);
        put("apiVersion", id.api_version.into());
        put("fieldsType", "FieldsV1".into());
        put(FIELDS, fields.into_value());
        put("manager", id.manager.into());
        put("operation", id.operation.name().into());
        if !id.subresource.is_empty() {
            put("subresource", id.subresource.into());
        }
        if let Some(time) = time {
            put("time", meta::timestamp(time).into());
        }
        entry
    }

    fn parse(value: &Value) -> Result<Self, String> {
        let text = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(""),
            Some(value) => value.as_str().ok_or_else(|| format!("{key} is a text")),
        };
        let operation = match text("operation")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".into()),
        };
        if text("fieldsType")? != "FieldsV1" {
            return Err("fieldsType must be `FieldsV1`".into());
        }
        let id = Id {
            manager: text("manager")?,
            operation,
            api_version: text("apiVersion")?,
            subresource: text("subresource")?,
        };
        if id.api_version.is_empty() {
            return Err("apiVersion must not be empty".into());
        }
        super::check_name(id.manager)?;
        super::check_name(id.subresource)?;
        let time = match text("time")? {
            "" => None,
            time => Some(time.parse().map_err(|e| format!("time: {e}"))?),
        };
        let fields = match value.get(FIELDS) {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => FieldSet::parse(fields)?,
        };
        Ok(Self::new(id, fields, time))
    }

    pub fn id(&self) -> Id<'_> {
        let operation = match self.text("operation") {
            "Apply" => Operation::Apply,
            _ => Operation::Update,
        };
        Id {
            manager: self.text("manager"),
            operation,
            api_version: self.text("apiVersion"),
            subresource: self.text("subresource"),
        }
    }

    pub fn fields(&self) -> &Nodes {
        static NONE: LazyLock<Nodes> = LazyLock::new(Nodes::new);
        self.0
            .get(FIELDS)
            .and_then(Value::as_object)
            .unwrap_or(&NONE)
    }

    fn fields_mut(&mut self) -> &mut Nodes {
        let fields = self
            .0
            .entry(FIELDS)
            .or_insert_with(|| Value::Object(Nodes::new()));
        if !fields.is_object() {
            *fields = Value::Object(Nodes::new());
        }
        fields.as_object_mut().expect("it was made one")
    }

    fn stamp(&mut self, now: Timestamp) {
        self.0.insert("time".into(), meta::timestamp(now).into());
    }

    /// Takes the fields and the time of a newer update of the same version.
    fn absorb(&mut self, mut newer: Self) {
        if let Value::Object(fields) = newer.0.remove(FIELDS).unwrap_or_default() {
            field_set::unite(self.fields_mut(), fields);
        }
        self.0.insert("manager".into(), OLD_UPDATES.into());
        self.0.remove("subresource");
        match newer.0.remove("time") {
            Some(time) => self.0.insert("time".into(), time),
            None => self.0.remove("time"),
        };
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Applies first, then by age, then by name. Times are of one form, so texts are compared.
    fn order(&self, other: &Self) -> Ordering {
        let (a, b) = (self.id(), other.id());
        a.operation
            .cmp(&b.operation)
            .then_with(|| self.text("time").cmp(other.text("time")))
            .then_with(|| a.manager.cmp(b.manager))
            .then_with(|| a.api_version.cmp(b.api_version))
            .then_with(|| a.subresource.cmp(b.subresource))
    }
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}
