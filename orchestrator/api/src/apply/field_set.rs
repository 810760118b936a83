//! A set of paths, in the form that Kubernetes publishes: FieldsV1 is its own tree.
//!
//! Every object is a node, its keys are the elements below it. A node without keys, or with the
//! key `.`, is in the set itself. Since this is also what is stored, a set is read and written
//! without being built anew, and a change touches only the nodes that it is about.
//!
//! INVARIANT: every node but the root is in the set or has one below it that is.

use serde_json::{Map, Value, map::Entry};

use super::{element, shape::Shape};

/// The node itself is in the set.
const SELF: &str = ".";
/// Elements of a path that a client may write: objects are not nested deeper.
const MAX_LEVELS: usize = 100;
/// Nodes of a set that a client may write, as many as the parts of a document.
const MAX_NODES: usize = 100_000;

/// The nodes below one.
pub type Nodes = Map<String, Value>;

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSet(Nodes);

impl FieldSet {
    pub fn of(nodes: Nodes) -> Self {
        Self(nodes)
    }

    /// A set that a client wrote: limited, and every element in its one form.
    ///
    /// # Errors
    /// It is no set, or larger than an object can be.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let mut nodes = 0;
        parse(value, 0, &mut nodes).map(Self)
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub fn nodes(&self) -> &Nodes {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this very path is in the set.
    #[cfg(test)]
    pub fn contains<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> bool {
        let mut at = &self.0;
        let mut found = false;
        for element in path {
            match at.get(element).and_then(Value::as_object) {
                Some(node) => at = node,
                None => return false,
            }
            found = is_member(at);
        }
        found
    }

    /// Every path, those of one level before those below them.
    pub fn paths(&self) -> Vec<Vec<&str>> {
        let mut all = Vec::new();
        list(&self.0, &mut Vec::new(), &mut all);
        all
    }
}

/// Adds a path below `into`: `element`, if it is in the set itself, and what is below it.
pub fn put(into: &mut Nodes, element: String, member: bool, mut below: Nodes) {
    if !member && below.is_empty() {
        return;
    }
    if member && !below.is_empty() {
        below.insert(SELF.into(), leaf());
    }
    into.insert(element, Value::Object(below));
}

/// Adds every path of `other`.
pub fn unite(into: &mut Nodes, other: Nodes) {
    for (element, more) in other {
        let Value::Object(more) = more else { continue };
        match into.entry(element) {
            Entry::Vacant(free) => {
                free.insert(Value::Object(more));
            }
            Entry::Occupied(mut taken) => {
                if let Value::Object(node) = taken.get_mut() {
                    let member = is_member(node) || is_member(&more);
                    unite(node, more);
                    set_member(node, member);
                }
            }
        }
    }
}

/// Removes every path of `other`, not what is below them.
pub fn subtract(from: &mut Nodes, other: &Nodes) {
    for (element, less) in other {
        let Some(less) = less.as_object() else {
            continue;
        };
        let Some(Value::Object(node)) = from.get_mut(element) else {
            continue;
        };
        let member = is_member(node) && !is_member(less);
        subtract(node, less);
        set_member(node, member);
        if node.is_empty() && !member {
            from.remove(element);
        }
    }
}

/// The paths that are in both.
pub fn intersection(left: &Nodes, right: &Nodes) -> Nodes {
    let mut both = Nodes::new();
    for (element, node) in left {
        let nodes = node
            .as_object()
            .zip(right.get(element).and_then(Value::as_object));
        if let Some((node, other)) = nodes {
            let member = is_member(node) && is_member(other);
            put(
                &mut both,
                element.clone(),
                member,
                intersection(node, other),
            );
        }
    }
    both
}

/// The same set with every field of a struct on the way to a path.
pub fn with_structs(nodes: &Nodes, shape: Shape<'_>) -> Nodes {
    let mut all = Nodes::new();
    for (element, node) in nodes.iter().filter(|(element, _)| *element != SELF) {
        let Some(node) = node.as_object() else {
            continue;
        };
        let below = shape.below(element);
        let nodes = below.map_or_else(|| bare(node), |shape| with_structs(node, shape));
        let field = shape.is_struct() && below.is_some();
        put(&mut all, element.clone(), field || is_member(node), nodes);
    }
    all
}

/// A node is in the set itself.
pub fn is_member(node: &Nodes) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

fn bare(node: &Nodes) -> Nodes {
    let mut node = node.clone();
    node.remove(SELF);
    node
}

fn set_member(node: &mut Nodes, member: bool) {
    let alone = node.is_empty() || (node.len() == 1 && node.contains_key(SELF));
    if member && !alone {
        node.insert(SELF.into(), leaf());
    } else {
        node.remove(SELF);
    }
}

fn leaf() -> Value {
    Value::Object(Nodes::new())
}

fn parse(value: &Value, level: usize, count: &mut usize) -> Result<Nodes, String> {
    let Value::Object(object) = value else {
        return Err("a node of a field set is an object".into());
    };
    if level > MAX_LEVELS {
        return Err(format!("a path has more than {MAX_LEVELS} elements"));
    }
    let mut nodes = Nodes::new();
    for (element, node) in object.iter().filter(|(element, _)| *element != SELF) {
        *count += 1;
        if *count > MAX_NODES {
            return Err(format!("a set has more than {MAX_NODES} elements"));
        }
        let Some(element) = element::normal(element)? else {
            continue;
        };
        let member = node.as_object().is_some_and(is_member);
        let below = parse(node, level + 1, count)?;
        // What is below was of no known sort: nothing but its way is left, and that goes too.
        let mut one = Nodes::new();
        put(&mut one, element, member, below);
        unite(&mut nodes, one);
    }
    Ok(nodes)
}

fn list<'a>(nodes: &'a Nodes, path: &mut Vec<&'a str>, all: &mut Vec<Vec<&'a str>>) {
    let below = || {
        let named = nodes.iter().filter(|(element, _)| *element != SELF);
        named.filter_map(|(element, node)| Some((element, node.as_object()?)))
    };
    for (element, _) in below().filter(|(_, node)| is_member(node)) {
        all.push([path.as_slice(), &[element]].concat());
    }
    for (element, node) in below() {
        path.push(element);
        list(node, path, all);
        path.pop();
    }
}
