//! `authorizer.group("apps").resource("deployments").check("create").allowed()`: what the client may do
//! is asked of the API server, through a trait, because this crate cannot know.

use super::{Cost, ONE, Overload, T, m, net::opaque, strings::text};
use crate::cel::{
    meter::Meter,
    typing::Opaque as O,
    value::{Failure, Opaque, Outcome, Value, error, no_overload},
};

const AUTHORIZER: T = T::Of(O::Authorizer);
const PATH: T = T::Of(O::PathCheck);
const GROUP: T = T::Of(O::GroupCheck);
const RESOURCE: T = T::Of(O::ResourceCheck);
const DECISION: T = T::Of(O::Decision);
/// Two of them fit in one evaluation.
const CHECK: Cost = Cost::Fixed(350_000);

pub const TABLE: &[Overload] = &[
    m("path", &[AUTHORIZER, T::Str], PATH, ONE, path),
    m("group", &[AUTHORIZER, T::Str], GROUP, ONE, |_, a| {
        with(a, |q, text| q.group = text)
    }),
    m(
        "serviceAccount",
        &[AUTHORIZER, T::Str, T::Str],
        AUTHORIZER,
        ONE,
        service_account,
    ),
    m("resource", &[GROUP, T::Str], RESOURCE, ONE, |_, a| {
        with(a, |q, text| q.resource = text)
    }),
    m("subresource", &[RESOURCE, T::Str], RESOURCE, ONE, |_, a| {
        with(a, |q, text| q.subresource = text)
    }),
    m("namespace", &[RESOURCE, T::Str], RESOURCE, ONE, |_, a| {
        with(a, |q, text| q.namespace = text)
    }),
    m("name", &[RESOURCE, T::Str], RESOURCE, ONE, |_, a| {
        with(a, |q, text| q.name = text)
    }),
    m(
        "fieldSelector",
        &[RESOURCE, T::Str],
        RESOURCE,
        Cost::Selector,
        same,
    ),
    m(
        "labelSelector",
        &[RESOURCE, T::Str],
        RESOURCE,
        Cost::Selector,
        same,
    ),
    m("check", &[RESOURCE, T::Str], DECISION, CHECK, check),
    m("check", &[PATH, T::Str], DECISION, CHECK, check),
    m("allowed", &[DECISION], T::Bool, ONE, |_, a| {
        Ok(decision(a)?.allowed.into())
    }),
    m("reason", &[DECISION], T::Str, ONE, |_, a| {
        Ok(decision(a)?.reason.as_str().into())
    }),
    m("errored", &[DECISION], T::Bool, ONE, |_, a| {
        Ok((!decision(a)?.error.is_empty()).into())
    }),
    m("error", &[DECISION], T::Str, ONE, |_, a| {
        Ok(decision(a)?.error.as_str().into())
    }),
];

/// Who answers what a client may do.
pub trait Authorizer {
    fn check(&self, question: &Question) -> Decision;
}

/// What is asked: of a path or of a resource, for the client or for a service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name; none: the client of the request.
    pub service_account: Option<(String, String)>,
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub verb: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: String,
}

/// A question that is being put together, and which of the types it has by now.
#[derive(Clone, Debug)]
pub struct Check {
    question: Question,
    ty: O,
}

impl Check {
    /// `authorizer`.
    pub fn authorizer<'a>() -> Value<'a> {
        opaque(Opaque::Authorizer(Self {
            question: Question::default(),
            ty: O::Authorizer,
        }))
    }

    /// `authorizer.requestResource`.
    pub fn resource<'a>(question: Question) -> Value<'a> {
        opaque(Opaque::Authorizer(Self {
            question,
            ty: O::ResourceCheck,
        }))
    }

    pub fn ty(&self) -> O {
        self.ty
    }
}

fn asked<'v>(args: &'v [Value<'_>]) -> Result<&'v Check, Failure> {
    match &args[0] {
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Authorizer(check) => Ok(check),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decision, Failure> {
    match &args[0] {
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Decision(decision) => Ok(decision),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn same<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(args[0].clone())
}

fn with<'a>(args: &[Value<'a>], set: fn(&mut Question, String)) -> Outcome<'a> {
    let check = asked(args)?;
    let mut question = check.question.clone();
    set(&mut question, text(args, 1)?.to_owned());
    let ty = match check.ty {
        O::Authorizer => O::GroupCheck,
        _ => O::ResourceCheck,
    };
    Ok(opaque(Opaque::Authorizer(Check { question, ty })))
}

fn path<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut question = asked(args)?.question.clone();
    question.path = text(args, 1)?.to_owned();
    let ty = O::PathCheck;
    Ok(opaque(Opaque::Authorizer(Check { question, ty })))
}

fn service_account<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut question = asked(args)?.question.clone();
    question.service_account = Some((text(args, 1)?.to_owned(), text(args, 2)?.to_owned()));
    let ty = O::Authorizer;
    Ok(opaque(Opaque::Authorizer(Check { question, ty })))
}

fn check<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut question = asked(args)?.question.clone();
    question.verb = text(args, 1)?.to_owned();
    match meter.authorizer {
        Some(authorizer) => Ok(opaque(Opaque::Decision(authorizer.check(&question)))),
        None => error("there is no authorizer here"),
    }
}
