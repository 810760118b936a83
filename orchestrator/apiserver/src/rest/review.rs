//! POST of a SelfSubjectAccessReview: whether the caller may do something. Nothing is kept.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::authn::MASTERS;
use crate::registry::Snapshot;
use crate::request::{Target, Verb};
use crate::{authz, reply};
use api::{ApiError, Behaviour};

/// Whether the call asks for a review.
pub fn is_of(call: &Call) -> bool {
    call.resource().behaviour == Behaviour::AccessReview && call.target.name.is_none()
}

/// Answers the question with itself and the status.
pub fn review(call: &Call) -> Answer {
    let mut review = call.decode(call.resource())?.object;
    let spec = &review["spec"];
    let (path, object) = (&spec["nonResourceAttributes"], &spec["resourceAttributes"]);
    if path.is_object() == object.is_object() {
        return Err(ApiError::BadRequest(
            "spec: exactly one of nonResourceAttributes or resourceAttributes must be specified"
                .to_owned(),
        ));
    }
    let allowed = if path.is_object() {
        authz::path(&call.state, &call.user, word(path, "path")).is_ok()
    } else {
        may(call, object)
    };
    review["status"] = json!({"allowed": allowed});
    reply::value_as(&call.wanted, StatusCode::CREATED, &review)
}

/// Who may do everything may do what this server does not know as well.
fn may(call: &Call, object: &Value) -> bool {
    if call.user.is_in(MASTERS) {
        return true;
    }
    let snapshot = call.state.registry.snapshot();
    let (Some(target), Some(verb)) = (target(&snapshot, object), Verb::of(word(object, "verb")))
    else {
        return false;
    };
    let target = &target;
    let wish = authz::Wish {
        verb,
        target,
        query: None,
    };
    authz::objects(&call.state, &call.user, wish).is_ok()
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
        watch: false,
    })
}

fn word<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}
