//! PodSecurity: the labels of a namespace say what its pods may be (`api::pod_security`).
//!
//! Pods are refused; what makes pods later, a Deployment or a CronJob, is only warned of and noted for the
//! audit log. A namespace that demands more than before is told which of its pods would not be let in.

mod existing;

use std::collections::BTreeMap;

use serde_json::Value;

use super::forbidden;
use crate::admission::{Attributes, Operation};
use crate::audit;
use api::pod_security::{
    AUDIT_PREFIX, Level, Mode, Pod, Policy, WrongLabel, details, policy, violations,
};
use api::{ApiError, Behaviour, Cause, CauseKind, meta};

/// Subresources that do not change what a pod may do. Any other one is judged, also one that came later.
const HARMLESS: [&str; 8] = [
    "exec",
    "attach",
    "binding",
    "eviction",
    "log",
    "portforward",
    "proxy",
    "status",
];

pub fn validate(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(object) = object else {
        return Ok(());
    };
    match attributes.resource.behaviour {
        Behaviour::Namespace => namespace(attributes, object),
        Behaviour::Pod => pod(attributes, object),
        _ => template(attributes, object),
    }
}

fn pod(attributes: &Attributes<'_>, pod: &Value) -> Result<(), ApiError> {
    let subresource = attributes.subresource.map_or("", |sub| sub.name());
    if HARMLESS.contains(&subresource) || is_exempt(attributes) {
        return Ok(());
    }
    let (policy, wrong) = policy_of(attributes)?;
    if wrong.is_empty() && policy.is_fully_privileged() {
        annotate(attributes, "enforce-policy", "privileged:latest");
        return Ok(());
    }
    if attributes.operation == Operation::Update
        && attributes.old.is_some_and(|old| !is_significant(pod, old))
    {
        return Ok(());
    }
    judge(attributes, &policy, &wrong, pod, true)
}

fn template(attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiError> {
    let Some(pointer) = attributes.resource.pod_template else {
        return Ok(());
    };
    if attributes.subresource.is_some() || is_exempt(attributes) {
        return Ok(());
    }
    let (policy, wrong) = policy_of(attributes)?;
    let says_nothing = [policy.warn, policy.audit].map(|it| it.level) == [Level::Privileged; 2];
    match object.pointer(pointer) {
        Some(template) if template.is_object() && !(wrong.is_empty() && says_nothing) => {
            judge(attributes, &policy, &wrong, template, false)
        }
        _ => Ok(()),
    }
}

/// What holds in the namespace of the request.
fn policy_of(attributes: &Attributes<'_>) -> Result<(Policy, Vec<WrongLabel>), ApiError> {
    let state = attributes.state;
    let kind = api::find("", "v1", "namespaces").ok_or(ApiError::NoSuchResource)?;
    let found = state.objects.cache.get(kind, "", attributes.namespace);
    let namespace = found.ok_or_else(|| {
        let name = attributes.namespace;
        ApiError::Internal(format!("failed to lookup namespace {name:?}"))
    })?;
    let defaults = &state.plugins.config.pod_security.defaults;
    Ok(policy(namespace.labels(), defaults))
}

/// Refuses, notes or warns of a pod, as the modes of the policy say.
fn judge(
    attributes: &Attributes<'_>,
    policy: &Policy,
    wrong: &[WrongLabel],
    pod: &Value,
    enforce: bool,
) -> Result<(), ApiError> {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    if is_exempt_class(attributes, spec) {
        annotate(attributes, "exempt", "runtimeClass");
        return Ok(());
    }
    if !wrong.is_empty() {
        let causes: Vec<String> = causes(wrong).iter().map(text).collect();
        let why = format!("Failed to parse policy: {}", aggregate(&causes));
        annotate(attributes, "error", &why);
    }
    let found = |mode: Mode| violations(mode.of(policy), Pod { metadata, spec });
    let enforced = match enforce {
        true => {
            annotate(attributes, "enforce-policy", &policy.enforce.to_string());
            found(Mode::Enforce)
        }
        false => Vec::new(),
    };
    let audited = found(Mode::Audit);
    if !audited.is_empty() {
        let (standard, why) = (policy.audit.to_string(), details(&audited));
        let why = format!("would violate PodSecurity {standard:?}: {why}");
        annotate(attributes, "audit-violations", &why);
    }
    if !enforced.is_empty() {
        let (standard, why) = (policy.enforce.to_string(), details(&enforced));
        let why = format!("violates PodSecurity {standard:?}: {why}");
        return Err(forbidden(attributes, why));
    }
    let warned = found(Mode::Warn);
    if !warned.is_empty() {
        let (standard, why) = (policy.warn.to_string(), details(&warned));
        let why = format!("would violate PodSecurity {standard:?}: {why}");
        attributes.warnings.add([why]);
    }
    Ok(())
}

fn annotate(attributes: &Attributes<'_>, key: &str, value: &str) {
    if attributes.trail.is_at(audit::Level::Metadata) {
        let trail = attributes.trail;
        trail.annotate(&format!("{AUDIT_PREFIX}{key}"), value);
    }
}

/// Whether the request's user or namespace is exempt.
fn is_exempt(attributes: &Attributes<'_>) -> bool {
    let config = &attributes.state.plugins.config.pod_security;
    let namespaces = config.namespaces.iter();
    let why = if namespaces.into_iter().any(|it| *it == attributes.namespace) {
        "namespace"
    } else if config
        .usernames
        .iter()
        .any(|it| **it == *attributes.user.name)
    {
        "user"
    } else {
        return false;
    };
    annotate(attributes, "exempt", why);
    true
}

fn is_exempt_class(attributes: &Attributes<'_>, spec: &Value) -> bool {
    let classes = &attributes.state.plugins.config.pod_security.runtime_classes;
    let class = spec["runtimeClassName"].as_str();
    class.is_some_and(|class| classes.iter().any(|exempt| exempt == class))
}

/// Whether an update can change what a pod may do: another image, or another container. What else can
/// be changed of a pod, no control looks at.
fn is_significant(new: &Value, old: &Value) -> bool {
    let list = |pod: &'_ Value, list: &str| -> Vec<Value> {
        pod["spec"][list].as_array().cloned().unwrap_or_default()
    };
    let differs = |new: &Value, old: &Value| new["image"] != old["image"];
    let of_lists = ["containers", "initContainers"].iter().any(|name| {
        let (new, old) = (list(new, name), list(old, name));
        new.len() != old.len() || new.iter().zip(&old).any(|(new, old)| differs(new, old))
    });
    let before = list(old, "ephemeralContainers");
    let of_ephemeral = list(new, "ephemeralContainers").iter().any(|container| {
        let mut before = before.iter();
        let same = before.find(|other| other["name"] == container["name"]);
        same.is_none_or(|same| differs(container, same))
    });
    of_lists || of_ephemeral
}

fn namespace(attributes: &Attributes<'_>, namespace: &Value) -> Result<(), ApiError> {
    if attributes.subresource.is_some() {
        return Ok(());
    }
    let config = &attributes.state.plugins.config.pod_security;
    let defaults = &config.defaults;
    let labels = meta::labels(namespace);
    let (new, wrong) = policy(&labels, defaults);
    let (old, wrong_before) = match attributes.old {
        Some(old) => policy(&meta::labels(old), defaults),
        None => (new, Vec::new()),
    };
    if !wrong.is_empty() && wrong != wrong_before {
        let causes = causes(&wrong);
        return Err(ApiError::invalid(
            attributes.resource,
            attributes.name,
            causes,
        ));
    }
    let is_exempt = config.namespaces.iter().any(|name| name == attributes.name);
    let is_stricter = new.enforce != old.enforce
        && new.enforce.level != Level::Privileged
        && !(new.enforce.version == old.enforce.version && new.enforce.level <= old.enforce.level);
    let is_new = attributes.old.is_none();
    if is_exempt && (is_new || is_stricter) {
        let ignored = ignored(attributes.name, &new, defaults, &labels);
        attributes.warnings.add(ignored);
    } else if is_stricter {
        let warnings = existing::warnings(attributes, new.enforce);
        attributes.warnings.add(warnings);
    }
    Ok(())
}

/// What the labels of an exempt namespace say in vain.
fn ignored(
    name: &str,
    policy: &Policy,
    defaults: &Policy,
    labels: &BTreeMap<String, String>,
) -> Option<String> {
    if policy.is_fully_privileged() || policy.is_equivalent(defaults) {
        return None;
    }
    let said = Mode::ALL.into_iter().filter_map(|mode| {
        let (level, version) = mode.labels();
        let is_said = labels.contains_key(level) || labels.contains_key(version);
        let standard = mode.of(policy);
        let is_shown = is_said && standard.level != Level::Privileged;
        is_shown.then(|| format!("{}={standard}", mode.name()))
    });
    let said: Vec<String> = said.collect();
    Some(format!(
        "namespace {name:?} is exempt from Pod Security, and the policy ({}) will be ignored",
        said.join(", ")
    ))
}

fn causes(wrong: &[WrongLabel]) -> Vec<Cause> {
    let cause = |WrongLabel { label, value, rule }: &WrongLabel| Cause {
        field: format!("metadata.labels[{label}]"),
        kind: CauseKind::Invalid,
        message: format!("Invalid value: {value:?}: {rule}"),
    };
    wrong.iter().map(cause).collect()
}

fn text(cause: &Cause) -> String {
    format!("{}: {}", cause.field, cause.message)
}

fn aggregate(texts: &[String]) -> String {
    match texts {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}
