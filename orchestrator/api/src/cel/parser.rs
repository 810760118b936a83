//! Tokens → tree, by the grammar of CEL, with Kubernetes' macros.
//!
//! What it refuses it refuses with the words of cel-go's parser, whose generator's words are known
//! (`mismatched input`, `extraneous input`): clients and tests look for them.

use super::{
    ast::{Expr, Kind, Literal, Loop, LoopKind, Problem},
    lexer::{self, Token},
};

/// Bytes of a source.
pub const MAX_SOURCE_BYTES: usize = 64 * 1024;
/// Expressions inside each other; both the parser and what walks its tree take stack for each.
const MAX_DEPTH: usize = 100;
/// Nodes of a tree.
const MAX_NODES: usize = 20_000;

const BEGINS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, \
                      NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Functions whose names have a point in them.
const QUALIFIED: [&str; 19] = [
    "ip.isCanonical",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "optional.of",
    "optional.ofNonZeroValue",
    "optional.none",
    "strings.quote",
    "jsonpatch.escapeKey",
    "format.named",
    "format.dns1123Label",
    "format.dns1123Subdomain",
    "format.dns1035Label",
    "format.qualifiedName",
    "format.dns1123LabelPrefix",
    "format.dns1123SubdomainPrefix",
    "format.dns1035LabelPrefix",
    "format.labelValue",
    "format.uri",
];

/// More such functions: formats, which come in a table of their own.
const FORMATS: [&str; 4] = [
    "format.uuid",
    "format.byte",
    "format.date",
    "format.datetime",
];

/// The levels of binary operators, the weakest first.
const LEVELS: [&[(&str, &str)]; 3] = [
    &[
        ("<=", "_<=_"),
        (">=", "_>=_"),
        ("==", "_==_"),
        ("!=", "_!=_"),
        ("<", "_<_"),
        (">", "_>_"),
        ("in", "@in"),
    ],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

pub fn parse(source: &str) -> Result<Expr, Problem> {
    if source.len() > MAX_SOURCE_BYTES {
        let why = format!("expression code point size exceeds limit: {MAX_SOURCE_BYTES}");
        return Err(Problem::new(0, why));
    }
    let mut parser = Parser {
        tokens: lexer::tokens(source)?,
        at: 0,
        depth: 0,
        nodes: 0,
        source,
    };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => {}
        _ => {
            let input = parser.input();
            let why = format!("Syntax error: extraneous input {input} expecting <EOF>");
            return Err(Problem::new(parser.place(), why));
        }
    }
    Ok(expr)
}

struct Parser<'a> {
    tokens: Vec<(Token, u32)>,
    at: usize,
    depth: usize,
    nodes: usize,
    source: &'a str,
}

type Parsed = Result<Expr, Problem>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn place(&self) -> u32 {
        self.tokens[self.at].1
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(s) if *s == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let is = self.is(sign);
        if is {
            self.at += 1;
        }
        is
    }

    /// The token as errors show it.
    fn input(&self) -> String {
        let start = self.place() as usize;
        let end = match self.tokens.get(self.at + 1) {
            Some((_, next)) => *next as usize,
            None => return "'<EOF>'".into(),
        };
        format!("'{}'", self.source[start..end].trim_end())
    }

    fn mismatch(&self, expected: &str) -> Problem {
        let input = self.input();
        let why = format!("Syntax error: mismatched input {input} expecting {expected}");
        Problem::new(self.place(), why)
    }

    fn expect(&mut self, sign: &str) -> Result<(), Problem> {
        if self.take(sign) {
            return Ok(());
        }
        let input = self.input();
        let why = match sign {
            ")" => format!("Syntax error: missing ')' at {input}"),
            "]" | "}" => {
                return Err(self.mismatch(&format!("{{'{sign}', ','}}")));
            }
            sign => format!("Syntax error: mismatched input {input} expecting '{sign}'"),
        };
        Err(Problem::new(self.place(), why))
    }

    fn node(&mut self, at: u32, kind: Kind) -> Parsed {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let why = format!("expression has more than {MAX_NODES} parts");
            return Err(Problem::new(at, why));
        }
        let mut expr = Expr { at, depth: 1, kind };
        let below = children(&expr).into_iter().map(|child| child.depth).max();
        expr.depth += below.unwrap_or_default();
        if usize::from(expr.depth) > MAX_DEPTH {
            return Err(too_deep(at));
        }
        Ok(expr)
    }

    fn call(&mut self, at: u32, name: &str, args: Vec<Expr>) -> Parsed {
        let (name, args) = (name.into(), args.into());
        let member = false;
        self.node(at, Kind::Call { name, member, args })
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(too_deep(self.place()));
        }
        let condition = self.or()?;
        let at = self.place();
        let result = if self.take("?") {
            let yes = self.or()?;
            if !self.is(":") {
                return Err(self.mismatch("':'"));
            }
            self.at += 1;
            let no = self.expression()?;
            self.node(at, Kind::Conditional(Box::new([condition, yes, no])))
        } else {
            Ok(condition)
        };
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Parsed {
        let first = self.and()?;
        let (mut all, at) = (vec![first], self.place());
        while self.take("||") {
            all.push(self.and()?);
        }
        self.junction(all, at, Kind::Or)
    }

    fn and(&mut self) -> Parsed {
        let first = self.binary(0)?;
        let (mut all, at) = (vec![first], self.place());
        while self.take("&&") {
            all.push(self.binary(0)?);
        }
        self.junction(all, at, Kind::And)
    }

    fn junction(&mut self, mut all: Vec<Expr>, at: u32, kind: fn(Box<[Expr]>) -> Kind) -> Parsed {
        match all.len() {
            1 => Ok(all.remove(0)),
            _ => self.node(at, kind(all.into())),
        }
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        loop {
            let at = self.place();
            let Some((_, name)) = operators.iter().find(|(sign, _)| self.is(sign)) else {
                return Ok(left);
            };
            self.at += 1;
            let right = self.binary(level + 1)?;
            left = self.call(at, name, vec![left, right])?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let mut signs = Vec::new();
        while self.is("!") || self.is("-") {
            let name = if self.is("!") { "!_" } else { "-_" };
            // A sign is of one kind: `!-a` is none.
            if signs.last().is_some_and(|(last, _)| *last != name) {
                break;
            }
            signs.push((name, self.place()));
            self.at += 1;
            if signs.len() > MAX_DEPTH {
                return Err(too_deep(self.place()));
            }
        }
        let minus = signs.last().is_some_and(|(name, _)| *name == "-_");
        if let (true, Token::Literal(literal)) = (minus, self.peek())
            && let Some(negative) = negated(literal)
        {
            let (_, at) = signs.pop().unwrap_or(("", 0));
            self.at += 1;
            let literal = self.node(at, Kind::Literal(negative))?;
            let member = self.members(literal)?;
            return self.signed(member, signs);
        }
        let primary = self.primary()?;
        let member = self.members(primary)?;
        self.signed(member, signs)
    }

    /// Two signs of a kind are none.
    fn signed(&mut self, expr: Expr, signs: Vec<(&str, u32)>) -> Parsed {
        match signs.first() {
            Some((name, at)) if signs.len() % 2 == 1 => self.call(*at, name, vec![expr]),
            _ => Ok(expr),
        }
    }

    fn members(&mut self, mut operand: Expr) -> Parsed {
        loop {
            let at = self.place();
            if self.take(".") {
                let optional = self.take("?");
                operand = self.member(operand, at, optional)?;
            } else if self.take("[") {
                let optional = self.take("?");
                let index = Box::new(self.expression()?);
                if !self.take("]") {
                    return Err(self.mismatch("']'"));
                }
                let operand_ = Box::new(operand);
                operand = self.node(
                    at,
                    Kind::Index {
                        operand: operand_,
                        index,
                        optional,
                    },
                )?;
            } else if self.is("{") && type_name(&operand).is_some() {
                let name = type_name(&operand).unwrap_or_default();
                self.at += 1;
                operand = self.structure(at, name)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn member(&mut self, operand: Expr, at: u32, optional: bool) -> Parsed {
        let (name, place) = match self.peek() {
            Token::Ident(name) | Token::Quoted(name) => (name.clone(), self.place()),
            _ => {
                let input = format!(".{}", self.input().trim_matches('\''));
                let why = format!("Syntax error: no viable alternative at input '{input}'");
                return Err(Problem::new(at, why));
            }
        };
        let quoted = matches!(self.peek(), Token::Quoted(_));
        self.at += 1;
        let open = self.place();
        if !quoted && !optional && self.take("(") {
            let args = self.arguments(")")?;
            return self.method(operand, &name, args, open);
        }
        let _ = place;
        let kind = Kind::Select {
            operand: Box::new(operand),
            field: name,
            optional,
        };
        self.node(at, kind)
    }

    fn arguments(&mut self, end: &'static str) -> Result<Vec<Expr>, Problem> {
        let mut all = Vec::new();
        if self.take(end) {
            return Ok(all);
        }
        loop {
            all.push(self.expression()?);
            if !self.take(",") {
                break;
            }
        }
        self.expect(end)?;
        Ok(all)
    }

    fn method(&mut self, target: Expr, name: &str, args: Vec<Expr>, at: u32) -> Parsed {
        if let Kind::Ident(space) = &target.kind {
            let whole = format!("{space}.{name}");
            let known = |all: &[&str]| all.contains(&whole.as_str());
            if known(&QUALIFIED) || known(&FORMATS) {
                return self.call(at, &whole, args);
            }
        }
        if let Some(kind) = loop_kind(name, args.len()) {
            return self.expanded(kind, name, target, args, at);
        }
        let mut all = vec![target];
        all.extend(args);
        let kind = Kind::Call {
            name: name.into(),
            member: true,
            args: all.into(),
        };
        self.node(at, kind)
    }

    fn expanded(
        &mut self,
        kind: LoopKind,
        name: &str,
        range: Expr,
        args: Vec<Expr>,
        at: u32,
    ) -> Parsed {
        let has_two = has_two_variables(name, args.len());
        let mut args = args.into_iter();
        let variable = simple_name(args.next())?;
        let second = match has_two {
            true => Some(simple_name(args.next())?),
            false => None,
        };
        let mut rest: Vec<Expr> = args.collect();
        let Some(body) = rest.pop() else {
            return Err(Problem::new(at, "a macro needs an expression"));
        };
        let filter = rest.pop();
        let details = Loop {
            kind,
            range,
            variable,
            second,
            filter,
            body,
        };
        self.node(at, Kind::Loop(Box::new(details)))
    }

    fn primary(&mut self) -> Parsed {
        let at = self.place();
        if self.take("(") {
            let inner = self.expression()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.take("[") {
            return self.list(at);
        }
        if self.take("{") {
            return self.map(at);
        }
        let rooted = self.take(".");
        match self.peek() {
            Token::Ident(name) => {
                let name = name.clone();
                self.at += 1;
                self.identifier(name, at)
            }
            Token::Literal(_) if !rooted => {
                let token = std::mem::replace(&mut self.tokens[self.at].0, Token::End);
                self.at += 1;
                let Token::Literal(literal) = token else {
                    return Err(self.mismatch(BEGINS));
                };
                if matches!(literal, Literal::Int(i64::MIN)) {
                    return Err(Problem::new(at, "invalid int literal"));
                }
                self.node(at, Kind::Literal(literal))
            }
            _ => Err(self.mismatch(if rooted { "IDENTIFIER" } else { BEGINS })),
        }
    }

    fn identifier(&mut self, name: Box<str>, at: u32) -> Parsed {
        let open = self.place();
        if !self.take("(") {
            if lexer::is_reserved(&name) {
                return Err(Problem::new(at, format!("reserved identifier: {name}")));
            }
            return self.node(at, Kind::Ident(name));
        }
        let mut args = self.arguments(")")?;
        if &*name != "has" || args.len() != 1 {
            return self.call(open, &name, args);
        }
        let argument = args.remove(0);
        match argument.kind {
            Kind::Select {
                operand,
                field,
                optional: false,
            } => self.node(argument.at, Kind::Has { operand, field }),
            _ => Err(Problem::new(argument.at, "invalid argument to has() macro")),
        }
    }

    fn list(&mut self, at: u32) -> Parsed {
        let mut items = Vec::new();
        while !self.is("]") {
            let optional = self.take("?");
            items.push((self.expression()?, optional));
            if !self.take(",") {
                break;
            }
        }
        self.expect("]")?;
        self.node(at, Kind::List(items.into()))
    }

    fn map(&mut self, at: u32) -> Parsed {
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.take("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !self.take(",") {
                break;
            }
        }
        self.expect("}")?;
        self.node(at, Kind::Map(entries.into()))
    }

    fn structure(&mut self, at: u32, name: String) -> Parsed {
        let mut fields = Vec::new();
        while !self.is("}") {
            let optional = self.take("?");
            let field = match self.peek() {
                Token::Ident(name) | Token::Quoted(name) => name.clone(),
                _ => return Err(self.mismatch("{'}', ',', IDENTIFIER, ESC_IDENTIFIER}")),
            };
            self.at += 1;
            self.expect(":")?;
            fields.push((field, self.expression()?, optional));
            if !self.take(",") {
                break;
            }
        }
        self.expect("}")?;
        let (name, fields) = (name.into(), fields.into());
        self.node(at, Kind::Struct { name, fields })
    }
}

fn too_deep(at: u32) -> Problem {
    Problem::new(
        at,
        format!("expression recursion limit exceeded: {MAX_DEPTH}"),
    )
}

fn negated(literal: &Literal) -> Option<Literal> {
    match literal {
        Literal::Int(n) => Some(Literal::Int(n.wrapping_neg())),
        Literal::Double(n) => Some(Literal::Double(-n)),
        _ => None,
    }
}

fn simple_name(expr: Option<Expr>) -> Result<Box<str>, Problem> {
    match expr {
        Some(Expr {
            kind: Kind::Ident(name),
            ..
        }) => Ok(name),
        Some(Expr { at, .. }) => Err(Problem::new(at, "argument must be a simple name")),
        None => Err(Problem::new(0, "argument must be a simple name")),
    }
}

/// `a.b.C`, if the expression is nothing but names.
fn type_name(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select {
            operand,
            field,
            optional: false,
        } => Some(format!("{}.{field}", type_name(operand)?)),
        _ => None,
    }
}

fn loop_kind(name: &str, args: usize) -> Option<LoopKind> {
    match (name, args) {
        ("all", 2 | 3) => Some(LoopKind::All),
        ("exists", 2 | 3) => Some(LoopKind::Exists),
        ("exists_one" | "existsOne", 2 | 3) => Some(LoopKind::ExistsOne),
        ("filter", 2) => Some(LoopKind::Filter),
        ("map", 2 | 3) | ("transformList", 3 | 4) => Some(LoopKind::Map),
        ("transformMap", 3 | 4) => Some(LoopKind::TransformMap),
        ("optMap", 2) => Some(LoopKind::OptMap),
        ("optFlatMap", 2) => Some(LoopKind::OptFlatMap),
        _ => None,
    }
}

fn has_two_variables(name: &str, args: usize) -> bool {
    let tests = ["all", "exists", "exists_one", "existsOne"];
    name.starts_with("transform") || (args == 3 && tests.contains(&name))
}

/// The expressions right below.
pub fn children(expr: &Expr) -> Vec<&Expr> {
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => Vec::new(),
        Kind::Select { operand, .. } | Kind::Has { operand, .. } => vec![operand],
        Kind::Index { operand, index, .. } => vec![operand, index],
        Kind::Call { args, .. } | Kind::And(args) | Kind::Or(args) => args.iter().collect(),
        Kind::Conditional(parts) => parts.iter().collect(),
        Kind::List(items) => items.iter().map(|(item, _)| item).collect(),
        Kind::Map(entries) => entries
            .iter()
            .flat_map(|(key, value, _)| [key, value])
            .collect(),
        Kind::Struct { fields, .. } => fields.iter().map(|(_, value, _)| value).collect(),
        Kind::Loop(details) => {
            let mut all = vec![&details.range, &details.body];
            all.extend(&details.filter);
            all
        }
    }
}
