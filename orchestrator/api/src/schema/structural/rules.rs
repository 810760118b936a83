//! `x-kubernetes-validations`: rules in CEL, evaluated on values that the rest of the schema takes.
//!
//! Each evaluation and all of an object's together have a budget (`cel::meter`). A rule that names
//! `oldSelf` is asked only where there is an old value to compare with; what has not changed need not
//! fulfil the others (KEP-4008).

use std::{rc::Rc, sync::Arc};

use serde_json::Value;

use super::{Node, Others, check::Correlation};
use crate::{
    cel::{
        self, Env, Failure, Program, Scope, Wanted,
        typing::{Decl, Type},
    },
    status::{Cause, CauseKind},
    validation::At,
};

/// Bytes of a text that an expression makes for an error.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// The rules of one schema, in order, and what they see of its values.
#[derive(Debug)]
pub struct Rules {
    type_name: Box<str>,
    /// None: nothing is known of the value, so no rule can be asked.
    decl: Option<Arc<Decl>>,
    rules: Box<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    program: Result<Program, String>,
    source: Box<str>,
    message: Box<str>,
    message_program: Option<Program>,
    kind: CauseKind,
    /// Where the error is said to be, below the value: `.spec.x`.
    field: Box<str>,
    optional_old: bool,
}

/// What expressions of a schema may name.
pub fn env(decl: &Arc<Decl>, optional_old: bool) -> Env {
    let mut env = Env::default();
    let mut old = cel::Variable::from(decl.clone());
    if optional_old {
        old.ty = Type::optional(old.ty);
    }
    env.variables.insert("self".into(), decl.clone().into());
    env.variables.insert("oldSelf".into(), old);
    env
}

impl Rules {
    pub fn of(schema: &Value, is_object: bool) -> Self {
        let decl = Decl::of_schema(schema, is_object).map(Arc::new);
        let given = schema["x-kubernetes-validations"].as_array();
        let rules = given.into_iter().flatten();
        Self {
            type_name: schema["type"].as_str().unwrap_or_default().into(),
            rules: rules.map(|rule| Rule::of(rule, decl.as_ref())).collect(),
            decl,
        }
    }
}

impl Rule {
    fn of(rule: &Value, decl: Option<&Arc<Decl>>) -> Self {
        let text = |name: &str| rule[name].as_str().unwrap_or_default();
        let optional_old = rule["optionalOldSelf"] == true;
        let program = match decl {
            Some(decl) => Program::compile(text("rule"), &env(decl, optional_old), Wanted::Bool),
            None => Err("no type is known of the value".into()),
        };
        let message_program = decl.filter(|_| !text("messageExpression").is_empty());
        Self {
            program,
            source: text("rule").trim().into(),
            message: text("message").trim().into(),
            message_program: message_program.and_then(|decl| {
                let env = env(decl, optional_old);
                Program::compile(text("messageExpression"), &env, Wanted::String).ok()
            }),
            kind: match text("reason") {
                "FieldValueForbidden" => CauseKind::Forbidden,
                "FieldValueRequired" => CauseKind::Required,
                "FieldValueDuplicate" => CauseKind::Duplicate,
                _ => CauseKind::Invalid,
            },
            field: text("fieldPath").trim().into(),
            optional_old,
        }
    }

    fn uses_old(&self) -> bool {
        self.program
            .as_ref()
            .is_ok_and(|program| program.names("oldSelf"))
    }

    /// As errors name the rule.
    fn shown(&self) -> &str {
        if self.message.is_empty() {
            &self.source
        } else {
            &self.message
        }
    }
}

/// Errors after which rules would only say again what is wrong.
const BLOCKING: [CauseKind; 5] = [
    CauseKind::NotSupported,
    CauseKind::Required,
    CauseKind::TooLong,
    CauseKind::TooMany,
    CauseKind::TypeInvalid,
];

pub fn check(node: &Node, new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if causes.iter().any(|cause| BLOCKING.contains(&cause.kind)) {
        causes.push(Cause {
            field: "<nil>".into(),
            kind: CauseKind::Invalid,
            message: "Invalid value: null: some validation rules were not checked because the \
                      object was invalid; correct the existing errors to complete validation"
                .into(),
        });
        return;
    }
    let mut walk = Walk {
        left: cel::OBJECT_LIMIT,
        causes,
    };
    let at = Place {
        at: At::root(new),
        old,
        changed: old.map(|old| (old, new)),
    };
    // The error says why it ended early.
    let _ = walk.value(node, &at);
}

struct Walk<'c> {
    /// Units that all rules together may still cost.
    left: u64,
    causes: &'c mut Vec<Cause>,
}

/// A value, the one that it replaces, and the nearest pair around it that is known to belong together.
struct Place<'a> {
    at: At<'a>,
    old: Option<&'a Value>,
    changed: Option<(&'a Value, &'a Value)>,
}

impl<'a> Place<'a> {
    fn inner(&self, at: At<'a>, old: Option<&'a Value>) -> Self {
        let changed = match old {
            Some(old) => Some((old, at.value)),
            None => self.changed,
        };
        Self { at, old, changed }
    }

    fn is_unchanged(&self) -> bool {
        self.changed.is_some_and(|(old, new)| old == new)
    }
}

/// No more rules are asked.
struct Over;

impl Walk<'_> {
    fn value(&mut self, node: &Node, place: &Place<'_>) -> Result<(), Over> {
        if place.at.is_null() {
            return Ok(());
        }
        if let Some(rules) = &node.rules {
            self.rules(rules, place)?;
        }
        match place.at.value {
            Value::Object(_) => self.object(node, place),
            Value::Array(_) => {
                let Some(items) = &node.items else {
                    return Ok(());
                };
                let old = Correlation::of(&node.list, place.old);
                let mut all = place.at.items();
                all.try_for_each(|item| {
                    let found = old.find(item.value);
                    self.value(items, &place.inner(item, found))
                })
            }
            _ => Ok(()),
        }
    }

    fn object(&mut self, node: &Node, place: &Place<'_>) -> Result<(), Over> {
        let is_root = place.at.is_root();
        for (key, entry) in place.at.entries() {
            let old = place.old.and_then(|old| old.get(key));
            match (node.properties.get(key), &node.others) {
                (Some(inner), _) => {
                    let mut below = place.inner(place.at.field(key), old);
                    if is_root && ["apiVersion", "kind"].contains(&key) {
                        below.changed = None;
                    }
                    self.value(inner, &below)?;
                }
                (None, Others::Schema(inner)) => self.value(inner, &place.inner(entry, old))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn rules(&mut self, rules: &Rules, place: &Place<'_>) -> Result<(), Over> {
        let old = place.old.filter(|old| !old.is_null());
        for rule in &rules.rules {
            let program = match &rule.program {
                Ok(program) => program,
                Err(why) => {
                    let why = format!("rule compile error: {why}");
                    self.refuse(rules, place, why);
                    continue;
                }
            };
            if rule.uses_old() && old.is_none() && !rule.optional_old {
                continue;
            }
            let Some(decl) = &rules.decl else {
                continue;
            };
            let mut scope = Scope::default();
            if let Err(failure) = bind(&mut scope, decl, place.at.value, old, rule.optional_old) {
                let why = format!("{} evaluating rule: {}", failure.text(), rule.shown());
                self.refuse(rules, place, why);
                continue;
            }
            match self.run(program, &scope) {
                Ok(cel::Value::Bool(true)) => {}
                Ok(cel::Value::Bool(false)) => {
                    if rule.uses_old() || !place.is_unchanged() {
                        self.broken(rules, rule, place, &scope)?;
                    }
                }
                Ok(_) => self.failed(rules, rule, place, "no such overload"),
                Err(Failure::Error(why)) => self.failed(rules, rule, place, &why),
                Err(Failure::Cost) => return self.over(rules, rule, place),
            }
        }
        Ok(())
    }

    /// An evaluation within what is left for all.
    fn run<'a>(&mut self, program: &'a Program, scope: &Scope<'a>) -> cel::Outcome<'a> {
        let mut meter = cel::Meter::new(cel::CALL_LIMIT.min(self.left));
        let outcome = program.run(scope, &mut meter);
        self.left = self.left.saturating_sub(meter.spent());
        outcome
    }

    fn over(&mut self, rules: &Rules, rule: &Rule, place: &Place<'_>) -> Result<(), Over> {
        let why = match self.left {
            0 => "validation failed due to running out of cost budget, no further validation \
                  rules will be run"
                .to_owned(),
            _ => format!(
                "'{}': no further validation rules will be run due to call cost exceeds limit for \
                 rule: {}",
                Failure::Cost.text(),
                rule.shown()
            ),
        };
        self.refuse(rules, place, why);
        Err(Over)
    }

    fn failed(&mut self, rules: &Rules, rule: &Rule, place: &Place<'_>, why: &str) {
        let text = match why.starts_with("no such overload") {
            true => format!(
                "'{why}': call arguments did not match a supported operator, function or macro \
                 signature for rule: {}",
                rule.shown()
            ),
            false => format!("{why} evaluating rule: {}", rule.shown()),
        };
        self.refuse(rules, place, text);
    }

    fn refuse(&mut self, rules: &Rules, place: &Place<'_>, why: String) {
        self.push(rules, CauseKind::Invalid, field(&place.at, ""), &why);
    }

    fn push(&mut self, rules: &Rules, kind: CauseKind, field: String, detail: &str) {
        if self.causes.len() >= super::check::MAX_CAUSES {
            return;
        }
        let shown = format!("{:?}", rules.type_name);
        let parts = match kind {
            CauseKind::Forbidden | CauseKind::Required => [kind.text(), "", detail],
            CauseKind::Duplicate => [kind.text(), &shown, ""],
            _ => [kind.text(), &shown, detail],
        };
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let message = parts.join(": ");
        self.causes.push(Cause {
            field,
            kind,
            message,
        });
    }

    /// The rule does not hold: its message, which may be an expression of its own.
    fn broken<'a>(
        &mut self,
        rules: &Rules,
        rule: &'a Rule,
        place: &Place<'_>,
        scope: &Scope<'a>,
    ) -> Result<(), Over> {
        let at = field(&place.at, &rule.field);
        let made = rule
            .message_program
            .as_ref()
            .map(|program| self.run(program, scope));
        let text = match made {
            Some(Err(Failure::Cost)) => {
                let why = "messageExpression evaluation failed due to running out of cost budget, \
                           no further validation rules will be run";
                self.push(rules, CauseKind::Invalid, at, why);
                return Err(Over);
            }
            Some(Ok(value)) => value.as_str().map(|text| text.trim().to_owned()),
            _ => None,
        };
        let fits = |text: &String| {
            !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n')
        };
        let text = text
            .filter(fits)
            .unwrap_or_else(|| match rule.message.is_empty() {
                true => format!("failed rule: {}", rule.source),
                false => rule.message.to_string(),
            });
        self.push(rules, rule.kind, at, &text);
        Ok(())
    }
}

fn field(at: &At<'_>, below: &str) -> String {
    let place = at.to_string();
    match (place.is_empty(), below.is_empty()) {
        (true, true) => "<nil>".into(),
        (true, false) => below.trim_start_matches('.').into(),
        _ => format!("{place}{below}"),
    }
}

fn bind<'a>(
    scope: &mut Scope<'a>,
    decl: &'a Decl,
    new: &'a Value,
    old: Option<&'a Value>,
    optional: bool,
) -> Result<(), Failure> {
    scope.values.insert("self", cel::Value::of(new, decl)?);
    let old = old.map(|old| cel::Value::of(old, decl)).transpose()?;
    let old = match (optional, old) {
        (true, old) => Some(cel::Value::Optional(old.map(Rc::new))),
        (false, old) => old,
    };
    if let Some(old) = old {
        scope.values.insert("oldSelf", old);
    }
    Ok(())
}
