//! The paths of printer columns: `.status.conditions[?(@.type=="Ready")].status`, as kubectl reads them
//! (`client-go/util/jsonpath`) without its `range` and `end`. Missing parts lead to nothing.

use std::{iter::Peekable, str::Chars};

use serde_json::Value;

/// Values that one step may lead to.
const MAX_VALUES: usize = 10_000;
/// Steps of a path, those of its filters too.
const MAX_STEPS: usize = 100;

/// A path, parsed.
#[derive(Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, PartialEq)]
enum Step {
    /// `.name`, `['name']`, `['a','b']`
    Names(Vec<String>),
    /// `*`, `[*]`
    All,
    /// `..`: the value and everything in it.
    Descend,
    /// `[3]`, `[-1]`
    Index(i64),
    /// `[1:3]`, `[::2]`
    Slice(Option<i64>, Option<i64>, usize),
    /// `[?(@.a==1)]`
    Filter(Filter),
}

/// The items of a list that are kept.
#[derive(Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// None: there must be something at the left.
    compare: Option<(Operator, Operand)>,
}

#[derive(Debug, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// # Errors
    /// What is wrong with the path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser {
            chars: text.chars().peekable(),
            steps: 0,
        };
        let path = parser.path(&[])?;
        match parser.chars.next() {
            None => Ok(path),
            Some(c) => Err(format!("unexpected {c:?} in {text:?}")),
        }
    }

    /// The first value that the path leads to.
    pub fn first<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.find(root).first().copied()
    }

    fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut values = vec![root];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in values {
                step.take(value, &mut next);
            }
            next.truncate(MAX_VALUES);
            values = next;
        }
        values
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value, into: &mut Vec<&'a Value>) {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        match self {
            Self::Names(names) => into.extend(names.iter().filter_map(|name| value.get(name))),
            Self::All => children(value, into),
            Self::Descend => descend(value, into),
            Self::Index(at) => {
                let at = place(*at, list.len());
                into.extend(at.and_then(|at| list.get(at)));
            }
            Self::Slice(from, to, step) => {
                let end = |at: Option<i64>, or: usize| match at {
                    Some(at) => place(at, list.len()).unwrap_or(0).min(list.len()),
                    None => or,
                };
                let (from, to) = (end(*from, 0), end(*to, list.len()));
                into.extend(list.get(from..to).into_iter().flatten().step_by(*step));
            }
            Self::Filter(filter) => into.extend(list.iter().filter(|item| filter.keeps(item))),
        }
    }
}

/// Counted from the end where negative.
fn place(at: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if at < 0 { length + at } else { at }).ok()
}

fn children<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(list) => into.extend(list),
        Value::Object(fields) => into.extend(fields.values()),
        _ => {}
    }
}

/// As deep as the object, which is bounded where it was decoded.
fn descend<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    if into.len() >= MAX_VALUES {
        return;
    }
    into.push(value);
    let mut below = Vec::new();
    children(value, &mut below);
    for child in below {
        descend(child, into);
    }
}

impl Filter {
    fn keeps(&self, item: &Value) -> bool {
        let Some((operator, right)) = &self.compare else {
            return self.left.value(item).is_some();
        };
        let (Some(left), Some(right)) = (self.left.value(item), right.value(item)) else {
            return false;
        };
        operator.holds(left, right)
    }
}

impl Operand {
    fn value<'a>(&'a self, item: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.first(item),
            Self::Literal(value) => Some(value),
        }
    }
}

impl Operator {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => {
                left.as_f64().partial_cmp(&right.as_f64())
            }
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            _ => None,
        };
        let Some(order) = order else {
            return self == Self::NotEqual;
        };
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
    steps: usize,
}

impl Parser<'_> {
    /// Steps up to the end or one of these characters.
    fn path(&mut self, ends: &[char]) -> Result<JsonPath, String> {
        let mut steps = Vec::new();
        self.chars.next_if(|c| ['$', '@'].contains(c));
        while let Some(c) = self.chars.peek().copied().filter(|c| !ends.contains(c)) {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(format!("more than {MAX_STEPS} steps"));
            }
            self.chars.next();
            match c {
                '[' => steps.push(self.bracket()?),
                '.' if self.chars.next_if_eq(&'.').is_some() => {
                    steps.push(Step::Descend);
                    if self.chars.peek().is_some_and(|c| *c != '[') {
                        steps.push(self.name(ends)?);
                    }
                }
                // `.` alone is the whole, and `.[0]` is `[0]`.
                '.' if self
                    .chars
                    .peek()
                    .is_none_or(|c| *c == '[' || ends.contains(c)) => {}
                '.' => steps.push(self.name(ends)?),
                other => return Err(format!("unexpected {other:?}")),
            }
        }
        Ok(JsonPath(steps))
    }

    fn name(&mut self, ends: &[char]) -> Result<Step, String> {
        let mut name = String::new();
        while let Some(c) = self.chars.peek().copied() {
            if ['.', '['].contains(&c) || ends.contains(&c) {
                break;
            }
            self.chars.next();
            match c {
                '\\' => name.extend(self.chars.next()),
                c => name.push(c),
            }
        }
        match name.as_str() {
            "" => Err("a name is missing".into()),
            "*" => Ok(Step::All),
            _ => Ok(Step::Names(vec![name])),
        }
    }

    /// What stands behind a `[`, with the `]`.
    fn bracket(&mut self) -> Result<Step, String> {
        let step = match self.chars.peek() {
            Some('?') => return self.filter(),
            Some('\'' | '"') => {
                let mut names = vec![self.quoted()?];
                while self.chars.next_if_eq(&',').is_some() {
                    self.spaces();
                    names.push(self.quoted()?);
                }
                Step::Names(names)
            }
            _ => {
                let mut text = String::new();
                while let Some(c) = self.chars.next_if(|c| *c != ']') {
                    text.push(c);
                }
                numbers(text.trim())?
            }
        };
        self.expect(']')?;
        Ok(step)
    }

    fn filter(&mut self) -> Result<Step, String> {
        self.expect('?')?;
        self.expect('(')?;
        let left = self.operand()?;
        self.spaces();
        let mut word = String::new();
        while let Some(c) = self.chars.next_if(|c| "=!<>".contains(*c)) {
            word.push(c);
        }
        let operator = match word.as_str() {
            "" => None,
            "==" => Some(Operator::Equal),
            "!=" => Some(Operator::NotEqual),
            "<" => Some(Operator::Less),
            "<=" => Some(Operator::LessOrEqual),
            ">" => Some(Operator::Greater),
            ">=" => Some(Operator::GreaterOrEqual),
            _ => return Err(format!("unrecognized operator {word:?}")),
        };
        let compare = match operator {
            None => None,
            Some(operator) => Some((operator, self.operand()?)),
        };
        self.spaces();
        self.expect(')')?;
        self.expect(']')?;
        Ok(Step::Filter(Filter { left, compare }))
    }

    fn operand(&mut self) -> Result<Operand, String> {
        const ENDS: [char; 6] = [' ', '=', '!', '<', '>', ')'];
        self.spaces();
        match self.chars.peek() {
            Some('@' | '.' | '$') => Ok(Operand::Path(self.path(&ENDS)?)),
            Some('\'' | '"') => Ok(Operand::Literal(self.quoted()?.into())),
            _ => {
                let mut word = String::new();
                while let Some(c) = self.chars.next_if(|c| !ENDS.contains(c)) {
                    word.push(c);
                }
                let literal = serde_json::from_str::<Value>(&word).ok();
                let literal = literal.filter(|value| value.is_number() || value.is_boolean());
                let literal = literal.ok_or_else(|| format!("unrecognized literal {word:?}"))?;
                Ok(Operand::Literal(literal))
            }
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let quote = self.chars.next_if(|c| ['\'', '"'].contains(c));
        let quote = quote.ok_or("a quote is missing")?;
        let mut text = String::new();
        loop {
            match self.chars.next() {
                None => return Err("unterminated quoted string".into()),
                Some('\\') => text.extend(self.chars.next()),
                Some(c) if c == quote => return Ok(text),
                Some(c) => text.push(c),
            }
        }
    }

    fn spaces(&mut self) {
        while self.chars.next_if_eq(&' ').is_some() {}
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.chars.next() {
            Some(c) if c == wanted => Ok(()),
            Some(c) => Err(format!("{wanted:?} is missing before {c:?}")),
            None => Err(format!("{wanted:?} is missing at the end")),
        }
    }
}

/// `*`, `3`, `1:3`, `::2`
fn numbers(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::All);
    }
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some),
    };
    let parts: Result<Vec<Option<i64>>, _> = text.split(':').map(number).collect();
    let parts = parts.map_err(|_| format!("invalid array index {text}"))?;
    let step = |step: Option<i64>| match step.unwrap_or(1) {
        step @ 1.. => usize::try_from(step).map_err(|e| e.to_string()),
        _ => Err("a step must be positive".to_owned()),
    };
    match parts.as_slice() {
        [Some(index)] => Ok(Step::Index(*index)),
        [from, to] => Ok(Step::Slice(*from, *to, 1)),
        [from, to, by] => Ok(Step::Slice(*from, *to, step(*by)?)),
        _ => Err(format!("invalid array index {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_to_its_first_value() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "spec": {"replicas": 3, "list": [{"n": 1, "s": "one"}, {"n": 2, "s": "two"}]},
            "status": {"conditions": [
                {"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        let found = |path: &str| {
            let path = JsonPath::parse(path).unwrap_or_else(|why| panic!("{path}: {why}"));
            path.first(&object).cloned()
        };
        for (path, expected) in [
            (".spec.replicas", json!(3)),
            (r".metadata.labels.a\.b/c", json!("x")),
            (".metadata.labels['a.b/c']", json!("x")),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                json!("True"),
            ),
            (
                ".status.conditions[?(@.type == 'Ready')].status",
                json!("True"),
            ),
            (".spec.list[?(@.n>1)].s", json!("two")),
            (".spec.list[?(@.n)].s", json!("one")),
            (".spec.list[-1].s", json!("two")),
            (".spec.list[1:2].n", json!(2)),
            (".spec.list[*].n", json!(1)),
            (
                ".spec.*",
                json!([{"n": 1, "s": "one"}, {"n": 2, "s": "two"}]),
            ),
            ("..s", json!("one")),
            (".spec['list','replicas'][0].n", json!(1)),
        ] {
            assert_eq!(found(path), Some(expected), "{path}");
        }
        for path in [
            ".spec.x.y",
            ".spec.list[7]",
            ".spec.list[?(@.n==9)]",
            ".spec.list.n",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
        assert_eq!(found("."), Some(object.clone()));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [
            ".spec[",
            ".spec[?(@.a==)]",
            ".spec['a",
            ".spec[a]",
            "spec",
            ".a[1:2:3:4]",
            ".a[::0]",
            ".a[?(@.b=~1)]",
        ] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
        assert!(JsonPath::parse(&"[0]".repeat(MAX_STEPS + 1)).is_err());
    }
}
