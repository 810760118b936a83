//! Admission policies (admissionregistration.k8s.io/v1): what they are for, and what they say. Pure.
//!
//! ```text
//! policy ──▶ matching ──▶ conditions ──▶ validations, or mutations
//!              rules,        CEL            CEL, each binding and its
//!              selectors                    parameters in turn
//! ```
//!
//! A policy is compiled once, when it changes; webhooks' match conditions are compiled here as well.

mod environment;
mod matching;
mod mutating;
mod validating;

use serde_json::Value;

use crate::cel::{Env, Failure, Meter, Program, Scope, Wanted};

pub use environment::Input;
pub use matching::{Constraints, Request, Rule, selector};
pub use mutating::{Mutated, Mutation};
pub use validating::{Decision, Validation, Verdict};

/// A ValidatingAdmissionPolicy or a MutatingAdmissionPolicy, compiled.
#[derive(Debug)]
pub struct Policy {
    pub name: Box<str>,
    pub constraints: Constraints,
    /// What cannot be evaluated counts as allowed.
    pub fails_open: bool,
    /// Its mutations are asked again after others have changed the object.
    pub reinvoked: bool,
    /// Group with version, and kind of its parameters.
    pub param_kind: Option<(Box<str>, Box<str>)>,
    conditions: Conditions,
    variables: Box<[(Box<str>, Program)]>,
    validations: Box<[Validation]>,
    annotations: Box<[(Box<str>, Program)]>,
    mutations: Box<[Mutation]>,
    /// Why it cannot be evaluated: it was written to another server's rules.
    broken: Option<String>,
}

/// A binding of a policy.
#[derive(Debug)]
pub struct Binding {
    pub name: Box<str>,
    pub policy: Box<str>,
    /// None: whatever the policy is for.
    pub constraints: Option<Constraints>,
    pub params: Option<ParamRef>,
    pub denies: bool,
    pub warns: bool,
    /// Refusals are written to the audit log.
    pub audits: bool,
    /// `validationActions`, as they were given.
    pub actions: Value,
}

/// Which objects are the parameters.
#[derive(Debug)]
pub struct ParamRef {
    /// Empty: by the selector.
    pub name: Box<str>,
    pub namespace: Box<str>,
    pub selector: Value,
    /// Whether a request is refused if there are none.
    pub must_exist: bool,
}

/// Match conditions: a policy or a webhook is for requests that fulfil all.
#[derive(Debug, Default)]
pub struct Conditions {
    all: Box<[(Box<str>, Program)]>,
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Conditions {
    /// Of a webhook or of a policy, which may have parameters. The error names the condition.
    pub fn compile(conditions: &Value, has_params: bool) -> Result<Self, String> {
        let env = environment::of_conditions(has_params);
        let all = list(conditions).map(|condition| {
            let name = text(&condition["name"]);
            match Program::compile(text(&condition["expression"]), &env, Wanted::Condition) {
                Ok(program) => Ok((name.into(), program)),
                Err(why) => Err(format!("matchConditions {name:?}: {why}")),
            }
        });
        Ok(Self {
            all: all.collect::<Result<_, _>>()?,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether the request fulfils all. An error matters only if none is clearly unfulfilled.
    pub fn matches(&self, input: &Input<'_>) -> Result<bool, String> {
        if self.all.is_empty() {
            return Ok(true);
        }
        let mut meter = Meter::new(crate::cel::CONDITIONS_LIMIT);
        meter.authorizer = input.authorizer;
        let scope = input.scope();
        let mut failed = None;
        for (name, program) in &self.all {
            match program.run(&scope, &mut meter) {
                Ok(value) => match value.as_bool() {
                    Some(true) => {}
                    Some(false) => return Ok(false),
                    None => failed = Some(format!("matchCondition {name:?} is not a bool")),
                },
                Err(failure) => {
                    let why = failure.text();
                    failed.get_or_insert(format!("expression '{name}' resulted in error: {why}"));
                    if failure == Failure::Cost {
                        break;
                    }
                }
            }
        }
        failed.map_or(Ok(true), Err)
    }
}

impl Policy {
    /// Of a stored policy. One that does not compile is kept: its failure policy says what that means.
    pub fn of(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let kind = &spec["paramKind"];
        let mut made = Self {
            name: text(&policy["metadata"]["name"]).into(),
            constraints: Constraints::of(&spec["matchConstraints"]),
            fails_open: spec["failurePolicy"] == "Ignore",
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            param_kind: kind
                .is_object()
                .then(|| (text(&kind["apiVersion"]).into(), text(&kind["kind"]).into())),
            conditions: Conditions::default(),
            variables: Box::default(),
            validations: Box::default(),
            annotations: Box::default(),
            mutations: Box::default(),
            broken: None,
        };
        if let Err(why) = made.compile(spec) {
            made.broken = Some(why);
        }
        made
    }

    fn compile(&mut self, spec: &Value) -> Result<(), String> {
        let has_params = self.param_kind.is_some();
        self.conditions = Conditions::compile(&spec["matchConditions"], has_params)?;
        let mutates = spec["mutations"].is_array();
        let compiled = Variables::compile(&spec["variables"], has_params, mutates);
        let env = compiled.env;
        if let Some((_, why)) = compiled.errors.into_iter().next() {
            return Err(why);
        }
        self.variables = compiled.programs.into();
        let validations = list(&spec["validations"]);
        let all = validations.map(|validation| Validation::of(validation, &env));
        self.validations = all.collect::<Result<_, _>>()?;
        let annotations = list(&spec["auditAnnotations"]).map(|annotation| {
            let source = text(&annotation["valueExpression"]);
            let program = Program::compile(source, &env, Wanted::StringOrNull)?;
            Ok((text(&annotation["key"]).into(), program))
        });
        self.annotations = annotations.collect::<Result<_, String>>()?;
        let mutations = list(&spec["mutations"]).map(|mutation| Mutation::of(mutation, &env));
        self.mutations = mutations.collect::<Result<_, _>>()?;
        Ok(())
    }

    fn scope<'a>(&'a self, input: &Input<'a>) -> Scope<'a> {
        let mut scope = input.scope();
        scope.composed = Some(&self.variables);
        scope
    }
}

/// The variables of a policy: each sees those before it.
pub struct Variables {
    pub programs: Vec<(Box<str>, Program)>,
    /// Of everything that comes after them.
    pub env: Env,
    /// By their place in the list.
    pub errors: Vec<(usize, String)>,
}

impl Variables {
    pub fn compile(variables: &Value, has_params: bool, mutates: bool) -> Self {
        let mut made = Self {
            programs: Vec::new(),
            env: environment::of_policy(has_params, mutates),
            errors: Vec::new(),
        };
        for (index, variable) in list(variables).enumerate() {
            let name = text(&variable["name"]);
            let source = text(&variable["expression"]);
            let ty = match Program::compile(source, &made.env, Wanted::Any) {
                Ok(program) => {
                    let ty = program.ty().clone();
                    made.programs.push((name.into(), program));
                    ty
                }
                Err(why) => {
                    made.errors.push((index, why));
                    crate::cel::typing::Type::Dyn
                }
            };
            made.env.composed.insert(name.into(), ty);
        }
        made
    }
}

/// An expression of a policy that does not compile, and where it stands:
/// `spec.LIST[INDEX].INSIDE.FIELD`.
pub struct Problem {
    pub list: &'static str,
    pub index: usize,
    pub inside: Option<&'static str>,
    pub field: &'static str,
    pub why: String,
}

/// What does not compile of a policy's spec, but for its match conditions.
pub fn check(spec: &Value) -> Vec<Problem> {
    let (has_params, mutates) = (spec["paramKind"].is_object(), spec["mutations"].is_array());
    let variables = Variables::compile(&spec["variables"], has_params, mutates);
    let env = variables.env;
    let silent = environment::without_authorizer(&env);
    let mut problems = Vec::new();
    let mut push = |list, index, inside, field, outcome: Result<Program, String>| {
        if let Err(why) = outcome {
            problems.push(Problem {
                list,
                index,
                inside,
                field,
                why,
            });
        }
    };
    for (index, why) in variables.errors {
        push("variables", index, None, "expression", Err(why));
    }
    let compile = |source: &Value, env: &Env, wanted| {
        let source = text(source);
        // What says nothing is refused elsewhere.
        (!source.trim().is_empty()).then(|| Program::compile(source, env, wanted))
    };
    let tables: [(&str, &str, &Env, Wanted); 3] = [
        ("validations", "expression", &env, Wanted::Condition),
        ("validations", "messageExpression", &silent, Wanted::Message),
        (
            "auditAnnotations",
            "valueExpression",
            &silent,
            Wanted::StringOrNull,
        ),
    ];
    for (list_name, field, env, wanted) in tables {
        for (index, item) in list(&spec[list_name]).enumerate() {
            if let Some(outcome) = compile(&item[field], env, wanted) {
                push(list_name, index, None, field, outcome);
            }
        }
    }
    for (index, item) in list(&spec["mutations"]).enumerate() {
        for (inside, wanted) in [
            ("applyConfiguration", Wanted::Applied),
            ("jsonPatch", Wanted::JsonPatches),
        ] {
            if let Some(outcome) = compile(&item[inside]["expression"], &env, wanted) {
                push("mutations", index, Some(inside), "expression", outcome);
            }
        }
    }
    problems
}

/// Whether an expression can be a match condition.
pub fn check_condition(source: &str, has_params: bool) -> Result<(), String> {
    let env = environment::of_conditions(has_params);
    Program::compile(source, &env, Wanted::Condition).map(|_| ())
}

impl Binding {
    pub fn of(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let has = |action: &str| list(&spec["validationActions"]).any(|given| given == action);
        let given = &spec["paramRef"];
        Self {
            name: text(&binding["metadata"]["name"]).into(),
            policy: text(&spec["policyName"]).into(),
            constraints: spec["matchResources"]
                .is_object()
                .then(|| Constraints::of(&spec["matchResources"])),
            params: given.is_object().then(|| ParamRef {
                name: text(&given["name"]).into(),
                namespace: text(&given["namespace"]).into(),
                selector: given["selector"].clone(),
                must_exist: given["parameterNotFoundAction"] != "Allow",
            }),
            denies: has("Deny"),
            warns: has("Warn"),
            audits: has("Audit"),
            actions: spec["validationActions"].clone(),
        }
    }
}

#[cfg(test)]
mod tests;
