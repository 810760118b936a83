//! Nobody gives more than they have: who writes a role must hold all of its rules, or the right to
//! `escalate`; who writes a binding must hold the rules of its role, or the right to `bind` it (kubernetes
//! 1.33, `pkg/registry/rbac`).

use serde_json::Value;

use crate::State;
use crate::authn::{MASTERS, User};
use crate::authz::{self, Attributes};
use api::kinds::rbac::GROUP;
use api::rbac::{ALL, Rule, compact, missing, quoted};
use api::{ApiError, Behaviour, Resource, meta};

/// Whether a user may write an object of the group like this; `old` is None for a new one.
pub fn check(
    state: &State,
    user: &User,
    resource: &Resource,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let is_role = match resource.behaviour {
        Behaviour::Role => true,
        Behaviour::RoleBinding => false,
        _ => return Ok(()),
    };
    if user.is_in(MASTERS) || old.is_some_and(|old| collects_garbage(new, old)) {
        return Ok(());
    }
    let refused = |why: String| ApiError::forbidden(resource, meta::name(new), why);
    if is_role {
        role(state, user, resource, new, old).map_err(refused)
    } else {
        let rules = match bound_rules(state, user, new)? {
            Some(rules) => rules,
            None => return Ok(()),
        };
        holds(state, user, meta::namespace(new), &rules).map_err(refused)
    }
}

fn role(
    state: &State,
    user: &User,
    resource: &Resource,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), String> {
    let namespace = meta::namespace(new);
    let escalate = Attributes {
        verb: "escalate",
        group: GROUP,
        resource: &resource.plural,
        namespace,
        // One that is not there has no name yet, for a request.
        name: old.map_or("", meta::name),
        ..Attributes::default()
    };
    if authz::allows(state, user, &escalate).is_allowed() {
        return Ok(());
    }
    holds(state, user, namespace, &rules(new))?;
    let aggregates = |role: &Value| {
        let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
        selectors.is_some_and(|selectors| !selectors.is_empty())
    };
    if aggregates(new) || old.is_some_and(aggregates) {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        holds(state, user, namespace, &everything()).map_err(|_| why.to_owned())?;
    }
    Ok(())
}

/// The rules of a binding's role; None if the user may bind that whatever it says.
fn bound_rules(state: &State, user: &User, binding: &Value) -> Result<Option<Vec<Rule>>, ApiError> {
    let role = &binding["roleRef"];
    let word = |field: &str| role[field].as_str().unwrap_or_default();
    let (kind, name, namespace) = (word("kind"), word("name"), meta::namespace(binding));
    let (plural, of) = match kind {
        "Role" => ("roles", namespace),
        "ClusterRole" => ("clusterroles", ""),
        // Validation says what is wrong with it.
        _ => return Ok(Some(Vec::new())),
    };
    let bind = Attributes {
        verb: "bind",
        group: word("apiGroup"),
        resource: plural,
        namespace,
        name,
        ..Attributes::default()
    };
    if authz::allows(state, user, &bind).is_allowed() {
        return Ok(None);
    }
    let resource = crate::bootstrap::find(GROUP, plural)?;
    let found = state.objects.current(resource, of, name)?;
    Ok(Some(rules(&found.value)))
}

fn rules(role: &Value) -> Vec<Rule> {
    let rules = role.get("rules").cloned().unwrap_or_default();
    serde_json::from_value(rules).unwrap_or_default()
}

fn everything() -> [Rule; 2] {
    let all = || vec![ALL.to_owned()];
    let resources = Rule {
        verbs: all(),
        api_groups: all(),
        resources: all(),
        ..Rule::default()
    };
    let paths = Rule {
        verbs: all(),
        paths: all(),
        ..Rule::default()
    };
    [resources, paths]
}

/// Whether a user has all of these rules there; the error says which ones are missing.
fn holds(state: &State, user: &User, namespace: &str, wanted: &[Rule]) -> Result<(), String> {
    let (held, errors) = authz::rules(state, user, namespace);
    let missing = missing(&held, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut shown: Vec<String> = compact(missing).iter().map(Rule::describe).collect();
    shown.sort();
    shown.dedup();
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        &*user.name,
        quoted(&user.all_groups()),
        shown.join("\n")
    );
    if !errors.is_empty() {
        why.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
    }
    Err(why)
}

/// Whether a change is one of owners and finalizers alone: whoever collects garbage need not hold the
/// rights that it throws away.
fn collects_garbage(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in [
                "ownerReferences",
                "finalizers",
                "managedFields",
                "resourceVersion",
            ] {
                metadata.remove(field);
            }
        }
        object
    };
    rest(new) == rest(old)
}
