//! What a policy says of a request.

use serde_json::Value;

use super::{Input, Policy, environment, text};
use crate::cel::{Env, Failure, Meter, OBJECT_LIMIT, Program, Wanted};

/// Bytes of a message that an expression makes.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// One validation of a policy.
#[derive(Debug)]
pub struct Validation {
    source: Box<str>,
    program: Program,
    message: Box<str>,
    message_program: Option<Program>,
    reason: Box<str>,
}

/// What one validation has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which of the policy's validations it is.
    pub index: usize,
    pub message: String,
    /// A reason of a Status: `Invalid`.
    pub reason: String,
}

/// What a policy has found for one set of parameters.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Refusals, in order; none if the request is allowed.
    pub refusals: Vec<Decision>,
    /// For the audit log.
    pub annotations: Vec<(String, String)>,
}

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl Validation {
    pub fn of(validation: &Value, env: &Env) -> Result<Self, String> {
        let source = text(&validation["expression"]);
        let message = text(&validation["messageExpression"]);
        let of_message = environment::without_authorizer(env);
        let message_program = match message.is_empty() {
            true => None,
            false => Some(Program::compile(message, &of_message, Wanted::Message)?),
        };
        Ok(Self {
            source: source.trim().into(),
            program: Program::compile(source, env, Wanted::Condition)?,
            message: text(&validation["message"]).trim().into(),
            message_program,
            reason: text(&validation["reason"]).into(),
        })
    }

    fn refusal(&self, index: usize, message: String) -> Decision {
        let reason = match self.reason.is_empty() {
            true => "Invalid".into(),
            false => self.reason.to_string(),
        };
        Decision {
            index,
            message,
            reason,
        }
    }
}

impl Policy {
    /// Asks all validations of a policy that is for the request.
    pub fn validate(&self, input: &Input<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        if let Some(why) = &self.broken {
            self.fail(0, why, &mut verdict);
            return verdict;
        }
        match self.conditions.matches(input) {
            Ok(true) => {}
            Ok(false) => return verdict,
            Err(why) => {
                self.fail(0, &why, &mut verdict);
                return verdict;
            }
        }
        let scope = self.scope(input);
        let mut left = OBJECT_LIMIT;
        for (index, validation) in self.validations.iter().enumerate() {
            let mut meter = self.meter(input, left);
            let outcome = validation.program.run(&scope, &mut meter);
            left = left.saturating_sub(meter.spent());
            match outcome.map(|value| value.as_bool()) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => {
                    let message = self.message(validation, input, &mut left);
                    verdict.refusals.push(validation.refusal(index, message));
                }
                Ok(None) => self.fail(index, &failed(validation, "no such overload"), &mut verdict),
                Err(Failure::Cost) if left == 0 => {
                    self.fail(index, OUT_OF_BUDGET, &mut verdict);
                    return verdict;
                }
                Err(failure) => {
                    self.fail(index, &failed(validation, failure.text()), &mut verdict);
                }
            }
        }
        self.annotate(input, &mut verdict);
        verdict
    }

    fn meter<'a>(&self, input: &Input<'a>, left: u64) -> Meter<'a> {
        let mut meter = Meter::new(crate::cel::CALL_LIMIT.min(left));
        meter.authorizer = input.authorizer;
        meter
    }

    /// An error refuses the request unless the policy fails open.
    fn fail(&self, index: usize, why: &str, verdict: &mut Verdict) {
        if !self.fails_open {
            verdict.refusals.push(Decision {
                index,
                message: why.to_owned(),
                reason: String::new(),
            });
        }
    }

    fn message(&self, validation: &Validation, input: &Input<'_>, left: &mut u64) -> String {
        let made = validation.message_program.as_ref().and_then(|program| {
            let scope = self.scope(input);
            let mut meter = self.meter(input, *left);
            let outcome = program.run(&scope, &mut meter);
            *left = left.saturating_sub(meter.spent());
            outcome.ok()?.as_str().map(|text| text.trim().to_owned())
        });
        let fits = |text: &String| {
            !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n')
        };
        made.filter(fits)
            .unwrap_or_else(|| match validation.message.is_empty() {
                true => format!("failed expression: {}", validation.source),
                false => validation.message.to_string(),
            })
    }

    fn annotate(&self, input: &Input<'_>, verdict: &mut Verdict) {
        let scope = self.scope(input);
        let mut left = OBJECT_LIMIT;
        for (index, (key, program)) in self.annotations.iter().enumerate() {
            let mut meter = self.meter(input, left);
            let outcome = program.run(&scope, &mut meter);
            left = left.saturating_sub(meter.spent());
            match outcome {
                Ok(value) => {
                    let text = value
                        .as_str()
                        .map(str::trim)
                        .filter(|text| !text.is_empty());
                    let pair = text.map(|text| (key.to_string(), text.to_owned()));
                    verdict.annotations.extend(pair);
                }
                Err(failure) => self.fail(index, failure.text(), verdict),
            }
        }
    }
}

fn failed(validation: &Validation, why: &str) -> String {
    format!(
        "expression '{}' resulted in error: {why}",
        validation.source
    )
}
