//! What an evaluation may cost, and what it has.
//!
//! The units and factors are Kubernetes' (apiserver/pkg/cel/library/cost.go, cel-go's runtimecost.go):
//! a name or a selection is 1, a list that is made 10, a map 30, an object 40, a text a tenth of its
//! characters, a pattern a quarter of its own times that. A call ends at 1,000,000 units, which is
//! about a tenth of a second. Charged beyond Kubernetes: what a function makes, by its size, and the
//! compilation of a pattern that is not a literal.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::{
    functions::{Authorizer, Cost},
    value::{Failure, List, Map, Value, error},
};
use crate::re2::{Finder, Pattern, Scratch};

/// Units of one evaluation.
pub const CALL_LIMIT: u64 = 1_000_000;
/// Units of all rules of an object, or of all expressions of a policy's binding.
pub const OBJECT_LIMIT: u64 = 10_000_000;
/// Units of the match conditions of one webhook or binding.
pub const CONDITIONS_LIMIT: u64 = 2_500_000;

pub const LIST_COST: u64 = 10;
pub const MAP_COST: u64 = 30;
pub const STRUCT_COST: u64 = 40;
/// Bytes of the longest text that an evaluation may make.
pub const MAX_TEXT_BYTES: usize = 10 * 1024 * 1024;
/// Bytes of a pattern's automaton that cost one unit.
const PATTERN_BYTES_PER_UNIT: usize = 64;
/// Patterns that an evaluation keeps; others are compiled anew.
const MAX_PATTERNS: usize = 32;

/// Patterns that are literals of an expression, compiled with it.
pub type Patterns = BTreeMap<Box<str>, Pattern>;

pub struct Meter<'p> {
    spent: u64,
    limit: u64,
    patterns: Option<&'p Patterns>,
    /// By where their pattern is, which outlives the meter.
    scratches: BTreeMap<usize, Scratch>,
    made: BTreeMap<String, Rc<RefCell<(Pattern, Scratch)>>>,
    finders: BTreeMap<String, Rc<Finder>>,
    pub authorizer: Option<&'p dyn Authorizer>,
}

impl<'p> Meter<'p> {
    pub fn new(limit: u64) -> Self {
        Self {
            spent: 0,
            limit,
            patterns: None,
            scratches: BTreeMap::new(),
            made: BTreeMap::new(),
            finders: BTreeMap::new(),
            authorizer: None,
        }
    }

    /// The patterns of the program that runs now, for those of the one that ran before.
    pub fn swap_patterns(&mut self, patterns: &'p Patterns) -> Option<&'p Patterns> {
        self.patterns.replace(patterns)
    }

    pub fn spent(&self) -> u64 {
        self.spent
    }

    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.spent)
    }

    pub fn charge(&mut self, units: u64) -> Result<(), Failure> {
        self.spent = self.spent.saturating_add(units);
        match self.spent > self.limit {
            true => Err(Failure::Cost),
            false => Ok(()),
        }
    }

    /// What a call costs before it runs.
    pub fn charge_call(&mut self, cost: Cost, args: &[Value<'_>]) -> Result<(), Failure> {
        let size = |index: usize| args.get(index).map_or(0, Value::size);
        let units = match cost {
            Cost::Fixed(units) => units,
            Cost::Text(times) => tenth(size(0).saturating_mul(times)),
            Cost::Result(_) => 0,
            Cost::Sum => tenth(size(0).saturating_add(size(1))),
            Cost::Compare => tenth(size(0).min(size(1))),
            Cost::Regex => tenth(size(0) + 1).saturating_mul(size(1).div_ceil(4)),
            Cost::Contains => tenth(size(0)).saturating_mul(tenth(size(1))),
            Cost::In => size(1),
            Cost::Traversal => traversal(&args[0], self.left())?,
            Cost::Network => 3 * tenth(16) + tenth(size(1)),
            Cost::NamedFormat => tenth(size(1) + 1).saturating_mul(32),
            Cost::Selector => 10 + tenth(size(1)) + size(1).div_ceil(2).saturating_mul(50),
        };
        self.charge(units)
    }

    /// What it costs by what has come of it.
    pub fn charge_result(&mut self, cost: Cost, result: &Value<'_>) -> Result<(), Failure> {
        match (cost, result) {
            (Cost::Result(times), result) => self.charge(tenth(result.size() * times)),
            (Cost::Text(_), Value::String(text)) => {
                // A replacement may be longer than what it replaces.
                let grown = tenth(text.as_str().len() as u64) / 8;
                self.charge(grown)
            }
            _ => Ok(()),
        }
    }

    /// Whether a text may become so long.
    pub fn check_text(&self, bytes: usize) -> Result<(), Failure> {
        match bytes > MAX_TEXT_BYTES || bytes as u64 / 10 > self.left() {
            true => Err(Failure::Cost),
            false => Ok(()),
        }
    }

    pub fn matches(&mut self, text: &str, pattern: &str) -> Result<bool, Failure> {
        let why = |e: crate::re2::TooCostly| Failure::Error(e.to_string());
        if let Some(known) = self.patterns.and_then(|all| all.get(pattern)) {
            let scratch = self.scratches.entry(std::ptr::from_ref(known).addr());
            let scratch = scratch.or_insert_with(|| known.scratch());
            return known.is_match(text, scratch).map_err(why);
        }
        let made = match self.made.get(pattern) {
            Some(made) => made.clone(),
            None => self.compile(pattern)?,
        };
        let (compiled, scratch) = &mut *made.borrow_mut();
        compiled.is_match(text, scratch).map_err(why)
    }

    fn compile(&mut self, text: &str) -> Result<Rc<RefCell<(Pattern, Scratch)>>, Failure> {
        let pattern = Pattern::new(text).map_err(Failure::Error)?;
        self.charge((pattern.memory() / PATTERN_BYTES_PER_UNIT) as u64)?;
        let scratch = pattern.scratch();
        let made = Rc::new(RefCell::new((pattern, scratch)));
        if self.made.len() < MAX_PATTERNS {
            self.made.insert(text.to_owned(), made.clone());
        }
        Ok(made)
    }

    /// Where a pattern matches, in order.
    pub fn find<'t>(
        &mut self,
        text: &'t str,
        pattern: &str,
        limit: usize,
    ) -> Result<Vec<&'t str>, Failure> {
        let finder = match self.finders.get(pattern) {
            Some(finder) => finder.clone(),
            None => self.compile_finder(pattern)?,
        };
        match finder.find_all(text, limit) {
            Ok(found) => Ok(found),
            Err(why) => error(why.to_string()),
        }
    }

    /// A literal is compiled once, as part of its expression; others are charged for.
    fn compile_finder(&mut self, text: &str) -> Result<Rc<Finder>, Failure> {
        let finder = Rc::new(Finder::new(text).map_err(Failure::Error)?);
        let is_literal = self.patterns.is_some_and(|all| all.contains_key(text));
        let is_kept = self.finders.len() < MAX_PATTERNS;
        if !(is_literal && is_kept) {
            self.charge((finder.memory() / PATTERN_BYTES_PER_UNIT) as u64)?;
        }
        if is_kept {
            self.finders.insert(text.to_owned(), finder.clone());
        }
        Ok(finder)
    }
}

/// A tenth, rounded up: what a text costs to read.
pub fn tenth(size: u64) -> u64 {
    size.div_ceil(10)
}

/// What a function costs that reads every part of a value.
fn traversal(value: &Value<'_>, limit: u64) -> Result<u64, Failure> {
    let mut units = 0u64;
    let mut add = |part: u64| {
        units += part;
        if units > limit {
            Err(Failure::Cost)
        } else {
            Ok(())
        }
    };
    match value {
        Value::String(text) => add(text.as_str().len() as u64 / 10)?,
        Value::Bytes(bytes) => add(bytes.len() as u64 / 10)?,
        Value::List(list) => walk_list(list, limit, &mut add)?,
        Value::Map(map) => walk_map(map, limit, &mut add)?,
        _ => add(1)?,
    }
    Ok(units)
}

type Add<'a> = &'a mut dyn FnMut(u64) -> Result<(), Failure>;

fn walk_list(list: &List<'_>, limit: u64, add: Add<'_>) -> Result<(), Failure> {
    for item in list.items() {
        add(traversal(&item?, limit)?)?;
    }
    Ok(())
}

fn walk_map(map: &Map<'_>, limit: u64, add: Add<'_>) -> Result<(), Failure> {
    for key in map.keys() {
        add(traversal(&key, limit)?)?;
        if let Some(value) = map.get(&key) {
            add(traversal(&value?, limit)?)?;
        }
    }
    Ok(())
}
