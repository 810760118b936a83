//! POST of a review: who the caller is, what it or somebody else may do. Nothing is kept.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Call, token};
use crate::State;
use crate::authn::User;
use crate::authz::{self, Attributes, Decision};
use crate::reply;
use api::{Behaviour, Question};

/// What the call asks, if it is a question.
pub fn question(call: &Call) -> Option<Question> {
    match call.resource().behaviour {
        Behaviour::Review(question) if call.target.name.is_none() => Some(question),
        _ => None,
    }
}

/// Answers the question with itself and the status.
pub async fn review(call: &Call, question: Question) -> Answer {
    let kind = call.resource();
    let mut review = call.decode(kind)?;
    call.check_namespace(&mut review)?;
    kind.validate(&review, None, None)?;
    let (state, spec) = (&call.state, &review["spec"]);
    let status = match question {
        Question::OwnName => json!({"userInfo": call.user.info()}),
        Question::OwnAccess => status(&authz::allows(state, &call.user, &attributes(spec))),
        Question::OwnRules => rules(call, text(spec, "namespace")),
        Question::Token => token::review(call, spec).await?,
        Question::Access | Question::LocalAccess => status(&authz::allows_exactly(
            state,
            &somebody(spec),
            &attributes(spec),
        )),
    };
    review["status"] = status;
    reply::made(&call.wanted, kind, StatusCode::CREATED, &review)
}

fn status(decision: &Decision) -> Value {
    let mut status = json!({"allowed": decision.is_allowed()});
    let reason = decision.reason();
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

fn somebody(spec: &Value) -> User {
    let groups = spec["groups"].as_array().into_iter().flatten();
    let groups = groups.filter_map(|group| group.as_str().map(str::to_owned));
    User::named(text(spec, "user"), groups.collect())
}

/// Whether a user may do what a review asks about.
pub fn may(state: &State, user: &User, spec: &Value) -> bool {
    authz::allows(state, user, &attributes(spec)).is_allowed()
}

/// What a question about access is about.
fn attributes(spec: &Value) -> Attributes<'_> {
    let (path, object) = (&spec["nonResourceAttributes"], &spec["resourceAttributes"]);
    if path.is_object() {
        return Attributes {
            verb: text(path, "verb"),
            path: Some(text(path, "path")),
            ..Attributes::default()
        };
    }
    Attributes {
        verb: text(object, "verb"),
        group: text(object, "group"),
        resource: text(object, "resource"),
        subresource: text(object, "subresource"),
        namespace: text(object, "namespace"),
        name: text(object, "name"),
        path: None,
    }
}

/// What the caller may do in a namespace, by its roles.
fn rules(call: &Call, namespace: &str) -> Value {
    let (rules, mut errors) = authz::rules(&call.state, &call.user, namespace);
    let incomplete = call.user.node().is_some();
    if incomplete {
        errors.insert(
            0,
            "node authorizer does not support user rule resolution".to_owned(),
        );
    }
    let of_objects = rules.iter().filter(|rule| !rule.resources.is_empty());
    let of_paths = rules.iter().filter(|rule| !rule.paths.is_empty());
    let of_paths = of_paths.map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
    let mut status = json!({
        "resourceRules": of_objects.map(|rule| json!(rule)).collect::<Vec<_>>(),
        "nonResourceRules": of_paths.collect::<Vec<_>>(),
        "incomplete": incomplete,
    });
    match errors.as_slice() {
        [] => {}
        [one] => status["evaluationError"] = one.as_str().into(),
        more => status["evaluationError"] = format!("[{}]", more.join(", ")).into(),
    }
    status
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}
