//! The tree of an expression. Macros are nodes of their own, so that a loop is a loop.

/// An expression, and where it stands in its source: a byte offset, which is that of an operator or an
/// opening bracket where there is one.
#[derive(Debug)]
pub struct Expr {
    pub at: u32,
    /// Levels of expressions, itself included.
    pub depth: u16,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    Literal(Literal),
    Ident(Box<str>),
    /// `operand.field`, `operand.?field`.
    Select {
        operand: Box<Expr>,
        field: Box<str>,
        optional: bool,
    },
    /// `has(operand.field)`.
    Has {
        operand: Box<Expr>,
        field: Box<str>,
    },
    /// `operand[index]`, `operand[?index]`.
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// A function or an operator; a target is the first argument.
    Call {
        name: Box<str>,
        member: bool,
        args: Box<[Expr]>,
    },
    And(Box<[Expr]>),
    Or(Box<[Expr]>),
    Conditional(Box<[Expr; 3]>),
    List(Box<[(Expr, bool)]>),
    /// Keys and values; the third says whether the entry is there only if its value is.
    Map(Box<[(Expr, Expr, bool)]>),
    /// `Object.spec{field: value}`.
    Struct {
        name: Box<str>,
        fields: Box<[(Box<str>, Expr, bool)]>,
    },
    Loop(Box<Loop>),
}

#[derive(Debug)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Box<str>),
    Bytes(Box<[u8]>),
}

/// A macro over a list, a map or an optional value.
#[derive(Debug)]
pub struct Loop {
    pub kind: LoopKind,
    pub range: Expr,
    pub variable: Box<str>,
    /// Of the forms with an index or a key and a value.
    pub second: Option<Box<str>>,
    /// What an element must fulfil for the body to be asked.
    pub filter: Option<Expr>,
    pub body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    TransformMap,
    OptMap,
    OptFlatMap,
}

/// What is wrong at a place of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub at: u32,
    pub what: String,
}

impl Problem {
    pub fn new(at: u32, what: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
        }
    }

    /// As cel-go shows it: with the line and a mark below the place.
    pub fn shown(&self, source: &str) -> String {
        let at = source.floor_char_boundary(self.at as usize);
        let start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let line_number = source[..start].matches('\n').count() + 1;
        let line = source[start..].lines().next().unwrap_or_default();
        let column = source[start..at].chars().count();
        let mut text = format!("ERROR: <input>:{line_number}:{}: {}", column + 1, self.what);
        if line.len() <= MAX_LINE_BYTES {
            let line = line.replace('\t', " ");
            text.push_str(&format!("\n | {line}\n | {}^", ".".repeat(column)));
        }
        text
    }
}

/// Longer lines are not repeated in an error.
const MAX_LINE_BYTES: usize = 1024;
