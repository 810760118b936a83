//! Which fields one object has otherwise than another.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map::Entry},
};

use serde_json::{Map, Value};

use super::{
    element,
    field_set::{Nodes, put},
    shape::{Form, Shape, from},
};

/// What was written, that is added or changed, and what was removed; never the same path twice.
#[derive(Debug, Default)]
pub struct Changes {
    pub written: Nodes,
    pub removed: Nodes,
}

/// What became of one value, besides what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Kept,
    Written,
    Removed,
}

/// From `old` to `new`; neither is changed and nothing of them is copied but names.
pub fn compare(shape: Shape<'_>, old: &Value, new: &Value) -> Changes {
    let mut changes = Changes::default();
    value(shape, Some(old), Some(new), &mut changes);
    changes
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.written.is_empty() && self.removed.is_empty()
    }

    fn put(&mut self, element: impl FnOnce() -> String, outcome: Outcome, below: Self) {
        if outcome == Outcome::Kept && below.is_empty() {
            return;
        }
        let element = element();
        let written = outcome == Outcome::Written;
        let removed = outcome == Outcome::Removed;
        if !removed && below.removed.is_empty() {
            put(&mut self.written, element, written, below.written);
            return;
        }
        put(&mut self.written, element.clone(), written, below.written);
        put(&mut self.removed, element, removed, below.removed);
    }
}

fn value(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    below: &mut Changes,
) -> Outcome {
    match shape.form() {
        Form::Leaf => return leaf(old, new),
        Form::Struct { .. } | Form::Map(_) | Form::Free => {
            match sides(old, new, Value::as_object, Map::is_empty) {
                Some((old, new)) => object(shape, old, new, below),
                None => return leaf(old, new),
            }
        }
        Form::Set | Form::List { .. } => match sides(old, new, Value::as_array, Vec::is_empty) {
            Some((old, new)) => list(shape, slice(old), slice(new), below),
            None => return leaf(old, new),
        },
    }
    match (old, new) {
        (None, Some(_)) => Outcome::Written,
        (Some(_), None) => Outcome::Removed,
        _ => Outcome::Kept,
    }
}

/// Both sides of a value that has parts. None: it is compared as a whole, because both are empty
/// (empty and null are not the same) or one is something else.
type Sides<'a, T> = Option<(Option<&'a T>, Option<&'a T>)>;

fn sides<'a, T>(
    old: Option<&'a Value>,
    new: Option<&'a Value>,
    parts: fn(&'a Value) -> Option<&'a T>,
    is_empty: fn(&T) -> bool,
) -> Sides<'a, T> {
    let side = |value: Option<&'a Value>| match value {
        None | Some(Value::Null) => Some(None),
        Some(value) => parts(value).map(Some),
    };
    let (old, new) = (side(old)?, side(new)?);
    let empty = |side: Option<&T>| side.is_none_or(is_empty);
    (!empty(old) || !empty(new)).then_some((old, new))
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Outcome {
    match (old, new) {
        (Some(old), Some(new)) if old == new => Outcome::Kept,
        (Some(_), None) => Outcome::Removed,
        (None, None) => Outcome::Kept,
        _ => Outcome::Written,
    }
}

fn object(
    shape: Shape<'_>,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    below: &mut Changes,
) {
    let mut lefts = old.into_iter().flatten().peekable();
    let mut rights = new.into_iter().flatten().peekable();
    // Keys and members are in order, so a member is looked for behind the last one.
    let mut members = match shape.form() {
        Form::Struct { members, .. } => members.as_slice(),
        _ => &[],
    };
    loop {
        let order = match (lefts.peek(), rights.peek()) {
            (Some((left, _)), Some((right, _))) => left.cmp(right),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let left = if order.is_le() { lefts.next() } else { None };
        let right = if order.is_ge() { rights.next() } else { None };
        let Some((key, _)) = left.or(right) else {
            return;
        };
        let sides = (left.map(|(_, value)| value), right.map(|(_, value)| value));
        let named = || format!("f:{key}");
        match shape.form() {
            Form::Struct { open, .. } => {
                members = from(members, key);
                let member = members.first().filter(|member| member.is(key));
                if member.is_none() && *open {
                    part(shape.free(), named, sides, below);
                }
                if let Some(member) = member {
                    let absent = |object: bool| member.absent.filter(|_| object);
                    let left = sides.0.or(absent(old.is_some()));
                    let right = sides.1.or(absent(new.is_some()));
                    let named = || member.element.to_string();
                    part(member.shape(shape), named, (left, right), below);
                }
            }
            Form::Map(item) => part(shape.at(*item), named, sides, below),
            _ => part(shape, named, sides, below),
        }
    }
}

/// One key of an object.
fn part(
    shape: Shape<'_>,
    element: impl FnOnce() -> String,
    (left, right): (Option<&Value>, Option<&Value>),
    below: &mut Changes,
) {
    let mut inner = Changes::default();
    let outcome = value(shape, left, right, &mut inner);
    below.put(element, outcome, inner);
}

/// Lists up to this length are looked through for equal keys; longer ones are sorted.
const SHORT: usize = 16;

fn list(shape: Shape<'_>, old: &[Value], new: &[Value], below: &mut Changes) {
    match shape.form() {
        Form::List { keys, item } => {
            let item = shape.at(*item);
            let one = |left: Option<&Value>, right: Option<&Value>, inner: &mut Changes| {
                value(item, left, right, inner)
            };
            let same = |left: &Value, right: &Value| element::is_same_item(keys, left, right);
            let name = |value: &Value| element::of_item(keys, value);
            items((old, new), same, name, one, below);
        }
        _ => {
            let one =
                |left: Option<&Value>, right: Option<&Value>, _: &mut Changes| leaf(left, right);
            items((old, new), Value::eq, element::of_value, one, below);
        }
    }
}

fn slice(list: Option<&Vec<Value>>) -> &[Value] {
    list.map_or(&[], Vec::as_slice)
}

/// The items of two lists, by their elements.
fn items(
    (old, new): (&[Value], &[Value]),
    is_same: impl Fn(&Value, &Value) -> bool,
    name: impl Fn(&Value) -> Option<String>,
    item: impl Fn(Option<&Value>, Option<&Value>, &mut Changes) -> Outcome,
    below: &mut Changes,
) {
    let distinct = |list: &[Value]| {
        let again = |(at, one): (usize, &Value)| list[..at].iter().any(|two| is_same(one, two));
        !list.iter().enumerate().any(again)
    };
    let aligned = || {
        let mut pairs = old.iter().zip(new);
        old.len() == new.len() && pairs.all(|(left, right)| is_same(left, right))
    };
    let length = old.len().max(new.len());
    let one_by_one = length <= SHORT
        && (old.is_empty() || new.is_empty() || aligned())
        && distinct(if old.is_empty() { new } else { old });
    if !one_by_one {
        return matched(index(old, &name), index(new, &name), item, below);
    }
    for (left, right) in (0..length).map(|at| (old.get(at), new.get(at))) {
        let mut inner = Changes::default();
        let outcome = item(left, right, &mut inner);
        if outcome == Outcome::Kept && inner.is_empty() {
            continue;
        }
        if let Some(element) = left.or(right).and_then(&name) {
            below.put(|| element, outcome, inner);
        }
    }
}

/// The same for lists in any order. An element that a list has several times is compared as a
/// whole, since its items cannot be told apart.
fn matched(
    mut old: BTreeMap<String, Vec<&Value>>,
    new: BTreeMap<String, Vec<&Value>>,
    item: impl Fn(Option<&Value>, Option<&Value>, &mut Changes) -> Outcome,
    below: &mut Changes,
) {
    let mut one = |element: String, left: &[&Value], right: &[&Value]| {
        let mut inner = Changes::default();
        let outcome = match (left, right) {
            ([] | [_], [] | [_]) => item(left.first().copied(), right.first().copied(), &mut inner),
            (_, []) => Outcome::Removed,
            (_, [right]) => item(None, Some(right), &mut inner),
            (left, _) => {
                if let [left] = left {
                    item(Some(left), None, &mut inner);
                }
                if left == right {
                    Outcome::Kept
                } else {
                    Outcome::Written
                }
            }
        };
        below.put(|| element, outcome, inner);
    };
    for (element, right) in new {
        let left = old.remove(&element).unwrap_or_default();
        one(element, &left, &right);
    }
    for (element, left) in old {
        one(element, &left, &[]);
    }
}

/// The items by their elements; items without one are nobody's.
fn index(
    list: &[Value],
    element: impl Fn(&Value) -> Option<String>,
) -> BTreeMap<String, Vec<&Value>> {
    let mut all: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for item in list {
        let Some(element) = element(item) else {
            continue;
        };
        match all.entry(element) {
            Entry::Vacant(free) => {
                free.insert(vec![item]);
            }
            Entry::Occupied(mut taken) => taken.get_mut().push(item),
        }
    }
    all
}
