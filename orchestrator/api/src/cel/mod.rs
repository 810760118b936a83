//! CEL, the language of rules and policies (github.com/google/cel-spec), with Kubernetes' libraries,
//! types and costs.
//!
//! ```text
//! source ─▶ lexer ─▶ parser ─▶ check ─▶ Program ─▶ eval ─▶ value
//!                     tree     types,              └── meter: stops at its limit
//!                              worst cost
//! ```
//!
//! Why it is written here: of the crates there are, `cel` 0.15 evaluates without any bound, has no
//! types, and its parser overflows a thread's stack at 90 brackets inside each other; `kube-cel` 0.8 is
//! built on 0.13 of it. Rules come from clients, so each of the three would take the server down.
//! Everything here is bounded: the source by bytes and nodes, the tree by its depth, an evaluation by
//! what it costs, a pattern by `re2`.

mod ast;
mod check;
mod eval;
mod functions;
mod lexer;
mod meter;
mod parser;
pub mod typing;
mod value;

use std::{collections::BTreeSet, sync::Arc};

use ast::Expr;
pub use check::{Env, Variable};
pub use eval::Scope;
pub use functions::{Authorizer, Check, Decision, Question};
use meter::Patterns;
pub use meter::{CALL_LIMIT, CONDITIONS_LIMIT, Meter, OBJECT_LIMIT};
use typing::Type;
pub use value::{Failure, Opaque, Outcome, Value};

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    expr: Expr,
    patterns: Patterns,
    /// Variables that it names.
    names: BTreeSet<Box<str>>,
    ty: Type,
    /// The most that an evaluation can cost.
    pub max_cost: u64,
}

/// What an expression must have as its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Any,
    /// Of a rule of a custom kind.
    Bool,
    String,
    /// Of policies and webhooks, which say it in other words.
    Condition,
    Message,
    /// A text, or null for none.
    StringOrNull,
    Applied,
    JsonPatches,
}

impl Program {
    /// Compiles a source. The error is Kubernetes' detail: `compilation failed: ERROR: …`.
    pub fn compile(source: &str, env: &Env, wanted: Wanted) -> Result<Self, String> {
        let failed = |problems: &[ast::Problem]| {
            let texts: Vec<String> = problems.iter().map(|p| p.shown(source)).collect();
            format!("compilation failed: {}", texts.join("\n"))
        };
        let expr = parser::parse(source).map_err(|problem| failed(&[problem]))?;
        let checked = check::check(&expr, env).map_err(|refusal| match refusal {
            check::Refusal::Problems(problems) => failed(&problems),
            check::Refusal::Pattern(why) => format!("program instantiation failed: {why}"),
        })?;
        if let Some(why) = wanted.refuses(&checked.ty) {
            return Err(why);
        }
        Ok(Self {
            expr,
            patterns: checked.patterns,
            names: checked.names,
            ty: checked.ty,
            max_cost: checked.max_cost,
        })
    }

    pub fn ty(&self) -> &Type {
        &self.ty
    }

    pub fn names(&self, variable: &str) -> bool {
        self.names.contains(variable)
    }

    /// Evaluates it, at the cost of the meter.
    pub fn run<'a>(&'a self, scope: &Scope<'a>, meter: &mut Meter<'a>) -> Outcome<'a> {
        let before = meter.swap_patterns(&self.patterns);
        let outcome = eval::Run::new(scope, meter).eval(&self.expr);
        if let Some(before) = before {
            meter.swap_patterns(before);
        }
        outcome
    }
}

impl Wanted {
    /// What is said of a result of another type.
    fn refuses(self, ty: &Type) -> Option<String> {
        let json_patch = Type::Opaque(typing::Opaque::JsonPatch);
        let (wanted, name) = match self {
            Self::Any => return None,
            Self::Bool => (Type::Bool, "a bool"),
            Self::String => (Type::String, "a string"),
            Self::Condition => (Type::Bool, "bool"),
            Self::Message => (Type::String, "string"),
            Self::StringOrNull if *ty == Type::Null => return None,
            Self::StringOrNull => (Type::String, "one of [string null_type]"),
            Self::Applied => (Type::Opaque(typing::Opaque::Applied), "Object"),
            Self::JsonPatches => (Type::List(Arc::new(json_patch)), "list(JSONPatch)"),
        };
        (*ty == Type::Dyn || !wanted.takes(ty)).then(|| match self {
            Self::Bool | Self::String => format!("cel expression must evaluate to {name}"),
            _ => format!("must evaluate to {name} but got {ty}"),
        })
    }
}

impl Failure {
    /// As Kubernetes has it in its errors.
    pub fn text(&self) -> &str {
        match self {
            Self::Error(why) => why,
            Self::Cost => "operation cancelled: actual cost limit exceeded",
        }
    }
}

#[cfg(test)]
mod tests;
