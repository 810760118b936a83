//! POST of a review: who the caller is, what it or somebody else may do. Nothing is kept.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Call, token};
use crate::State;
use crate::authn::{MASTERS, User};
use crate::registry::Snapshot;
use crate::request::{Target, Verb};
use crate::{authz, reply};
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
    let spec = &review["spec"];
    let status = match question {
        Question::OwnName => json!({"userInfo": call.user.info()}),
        Question::OwnAccess => json!({"allowed": may(&call.state, &call.user, spec)}),
        Question::OwnRules => rules(&call.user),
        Question::Token => token::review(call, spec).await?,
        Question::Access | Question::LocalAccess => {
            json!({"allowed": may(&call.state, &somebody(spec), spec)})
        }
    };
    review["status"] = status;
    reply::made(&call.wanted, kind, StatusCode::CREATED, &review)
}

fn somebody(spec: &Value) -> User {
    let groups = spec["groups"].as_array().into_iter().flatten();
    let groups = groups.filter_map(|group| group.as_str().map(str::to_owned));
    User::named(word(spec, "user"), groups.collect())
}

/// Whether a user may do what a review asks about.
pub fn may(state: &State, user: &User, spec: &Value) -> bool {
    let (path, object) = (&spec["nonResourceAttributes"], &spec["resourceAttributes"]);
    if path.is_object() {
        return authz::path(state, user, word(path, "path")).is_ok();
    }
    // Who may do everything may do what this server does not know as well.
    if user.is_in(MASTERS) {
        return true;
    }
    let snapshot = state.registry.snapshot();
    let (Some(target), Some(verb)) = (target(&snapshot, object), Verb::of(word(object, "verb")))
    else {
        return false;
    };
    let wish = authz::Wish {
        verb,
        target: &target,
        query: None,
    };
    authz::objects(state, user, wish).is_ok()
}

fn rules(user: &User) -> Value {
    let (rules, complete) = authz::rules(user);
    let paths = match user.is_in(MASTERS) {
        true => json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]),
        false => json!([{"verbs": ["get"], "nonResourceURLs": ["/livez", "/readyz", "/version"]}]),
    };
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|rule| {
            json!({"verbs": rule.verbs, "apiGroups": [rule.group], "resources": [rule.resource]})
        })
        .collect();
    let mut status = json!({
        "resourceRules": rules,
        "nonResourceRules": paths,
        "incomplete": !complete,
    });
    if !complete {
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    status
}

fn target(snapshot: &Snapshot, object: &Value) -> Option<Target> {
    let given = |field: &str| Some(word(object, field).to_owned()).filter(|text| !text.is_empty());
    let (group, plural) = (word(object, "group"), word(object, "resource"));
    let served = snapshot.find_any(group, plural)?;
    let resource = &served.resource;
    let subresource = match given("subresource") {
        None => None,
        Some(name) => {
            let mut all = resource.subresources.iter();
            Some(*all.find(|sub| sub.name() == name)?)
        }
    };
    Some(Target {
        served: served.clone(),
        namespace: given("namespace").filter(|_| resource.namespaced()),
        name: given("name"),
        subresource,
        rest: String::new(),
        watch: false,
    })
}

fn word<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}
