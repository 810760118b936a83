//! Who may do what: a short table, no policy objects.
//!
//! Administrators and the control plane do everything. A node reads what it needs to run pods and
//! be the network, and writes about itself and the pods that are bound to it. Whoever has a name may
//! ask what it may do. Nobody else does anything but ask whether the server is well and which
//! version it is.

use super::State;
use super::authn::{MASTERS, NODES, User};
use super::cache::Cached;
use super::request::{Route, Target, Verb};
use crate::api::{ApiError, Subresource};

/// Where a node's lease lives.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// What a request wants, as the table sees it.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    pub verb: Verb,
    pub target: &'a Target,
}

/// Lets a request for objects pass, or says why not.
pub fn objects(state: &State, user: &User, wish: Wish<'_>) -> Result<(), ApiError> {
    let allowed = user.is_in(MASTERS)
        || (is_review(wish) && !user.is_anonymous())
        || (user.is_in(NODES) && user.node().is_some_and(|node| node_may(state, node, wish)));
    if allowed {
        Ok(())
    } else {
        Err(refusal(user, wish))
    }
}

/// A node makes no node but its own: the name is known only after decoding.
pub fn creation(user: &User, target: &Target, name: &str) -> Result<(), ApiError> {
    let own_only = matches!(target.resource.plural, "nodes" | "leases");
    match user.node() {
        Some(node) if own_only && name != node => {
            let why = format!("node \"{node}\" may not make an object of another node");
            Err(ApiError::forbidden(target.resource, name, why))
        }
        _ => Ok(()),
    }
}

/// Lets a request for something else (discovery, schemas) pass, or says why not.
pub fn path(user: &User, path: &str) -> Result<(), ApiError> {
    // Objects are judged with their verb, by `objects`.
    let is_object = matches!(Route::parse(path), Ok(Route::Objects(_)));
    if is_public(path) || !user.is_anonymous() || is_object {
        return Ok(());
    }
    Err(ApiError::Forbidden {
        target: Default::default(),
        message: format!(
            "forbidden: User \"{}\" cannot get path \"{path}\"",
            user.name
        ),
    })
}

/// Paths that everybody may ask for; the join endpoint checks its own token.
fn is_public(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/version" | super::join::PATH)
}

fn is_review(wish: Wish<'_>) -> bool {
    wish.target.resource.kind == "SelfSubjectAccessReview"
}

fn node_may(state: &State, node: &str, wish: Wish<'_>) -> bool {
    let Wish { verb, target } = wish;
    if verb.reads() {
        return true;
    }
    let own_name = target.name.as_deref() == Some(node);
    match (target.resource.plural, target.subresource) {
        ("nodes", None) if verb == Verb::Create => true,
        ("nodes", None | Some(Subresource::Status)) => own_name && !is_delete(verb),
        ("pods", Some(Subresource::Status)) => own_pod(state, node, target),
        ("pods", None) => verb == Verb::Delete && own_pod(state, node, target),
        ("events", None) => !is_delete(verb),
        ("leases", None) => {
            target.namespace.as_deref() == Some(LEASE_NAMESPACE)
                && (verb == Verb::Create || own_name)
                && verb != Verb::DeleteCollection
        }
        _ => false,
    }
}

fn is_delete(verb: Verb) -> bool {
    matches!(verb, Verb::Delete | Verb::DeleteCollection)
}

/// A pod that is gone counts as its own: the answer is 404 then, which the agent waits for.
fn own_pod(state: &State, node: &str, target: &Target) -> bool {
    let (Some(namespace), Some(name)) = (&target.namespace, &target.name) else {
        return false;
    };
    let found = state.objects.cache.get(target.resource, namespace, name);
    found.is_none_or(|pod: std::sync::Arc<Cached>| {
        pod.fields()
            .get("spec.nodeName")
            .is_some_and(|bound| bound == node)
    })
}

fn refusal(user: &User, wish: Wish<'_>) -> ApiError {
    let Wish { verb, target } = wish;
    let place = match &target.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    let why = format!(
        "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
        user.name,
        verb.as_str(),
        target.resource_name(),
        target.resource.group,
    );
    ApiError::forbidden(
        target.resource,
        target.name.as_deref().unwrap_or_default(),
        why,
    )
}
