//! Pods and pod templates: everything but the containers themselves.

use std::collections::BTreeSet;

use super::{At, Errors, container, names, object};
use crate::api::quantity::Quantity;

/// What a text must look like.
type Rule = fn(&str) -> Result<(), String>;

/// The longest that a pod may run: 2³¹−1 seconds.
const MAX_SECONDS: i64 = i32::MAX as i64;

/// The sources of a volume that hold references which must be named.
const NAMED_SOURCES: [(&str, &str); 3] = [
    ("secret", "secretName"),
    ("configMap", "name"),
    ("persistentVolumeClaim", "claimName"),
];

pub fn pod(pod: &At<'_>, errors: &mut Errors) {
    pod_spec(&pod.field("spec"), errors);
}

/// A template, whose pods must have labels that its owner selects.
pub fn template(template: &At<'_>, errors: &mut Errors) {
    let metadata = template.field("metadata");
    object::labels(&metadata.field("labels"), errors);
    object::annotations(&metadata.field("annotations"), errors);
    pod_spec(&template.field("spec"), errors);
}

fn pod_spec(spec: &At<'_>, errors: &mut Errors) {
    let volumes = volumes(&spec.field("volumes"), errors);
    let os = spec.field("os");
    let os = os.field("name");
    let context = container::Context {
        volumes: &volumes,
        host_network: spec.field("hostNetwork").is_true(),
        os: os.text(),
    };
    container::containers(spec, &context, errors);
    errors.one_of(
        &spec.field("restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    errors.one_of(
        &spec.field("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    seconds(spec, errors);
    object::labels(&spec.field("nodeSelector"), errors);
    tolerations(&spec.field("tolerations"), errors);
    affinity(spec, errors);
    named_fields(spec, errors);
    host_aliases(&spec.field("hostAliases"), errors);
    container::amounts(&spec.field("overhead"), errors);
}

fn seconds(spec: &At<'_>, errors: &mut Errors) {
    let grace = spec.field("terminationGracePeriodSeconds");
    errors.not_negative(&grace);
    let deadline = spec.field("activeDeadlineSeconds");
    if !deadline.is_null() {
        errors.in_range(&deadline, 1, MAX_SECONDS);
    }
}

fn named_fields(spec: &At<'_>, errors: &mut Errors) {
    let rules: [(&str, Rule); 6] = [
        ("nodeName", names::subdomain),
        ("serviceAccountName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
    ];
    for (field, rule) in rules {
        let at = spec.field(field);
        if !at.is_empty() {
            errors.check(&at, rule(at.text()));
        }
    }
    let os = spec.field("os");
    if !os.is_null() {
        errors.one_of(&os.field("name"), &["linux", "windows"]);
    }
}

/// The volumes' names.
fn volumes<'a>(volumes: &At<'a>, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let list = volumes.value.as_array().into_iter().flatten();
    for (volume, value) in volumes.items().zip(list) {
        let name = volume.field("name");
        if name.is_empty() {
            errors.required(&name, "");
        } else {
            errors.check(&name, names::label(name.text()));
            if !seen.insert(value["name"].as_str().unwrap_or_default()) {
                errors.duplicate(&name);
            }
        }
        source(&volume, errors);
    }
    seen
}

fn source(volume: &At<'_>, errors: &mut Errors) {
    let sources: Vec<&str> = volume
        .entries()
        .map(|(key, _)| key)
        .filter(|key| *key != "name")
        .collect();
    match sources.as_slice() {
        [] => errors.required(volume, "must specify a volume type"),
        [_] => {}
        [_, more @ ..] => {
            for source in more {
                errors.forbidden(
                    &volume.field(source),
                    "may not specify more than 1 volume type",
                );
            }
        }
    }
    for (source, field) in NAMED_SOURCES {
        let source = volume.field(source);
        let name = source.field(field);
        if !source.is_null() && name.is_empty() {
            errors.required(&name, "");
        }
    }
    let host = volume.field("hostPath");
    if !host.is_null() {
        host_path(&host, errors);
    }
    let empty = volume.field("emptyDir");
    let limit = empty.field("sizeLimit");
    if Quantity::parse(limit.text()).is_ok_and(Quantity::is_negative) {
        errors.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
    }
}

fn host_path(host: &At<'_>, errors: &mut Errors) {
    let path = host.field("path");
    if path.is_empty() {
        errors.required(&path, "");
    } else if path.text().split('/').any(|part| part == "..") {
        errors.invalid(&path, "must not contain '..'");
    }
    errors.one_of_if_any(
        &host.field("type"),
        &[
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ],
    );
}

fn tolerations(tolerations: &At<'_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|name| toleration.value[name].as_str());
        let key_at = toleration.field("key");
        let operator_at = toleration.field("operator");
        if let Some(text) = key.filter(|key| !key.is_empty()) {
            errors.check(&key_at, names::label_key(text));
        } else if operator != Some("Exists") {
            errors.invalid(
                &operator_at,
                "operator must be Exists when `key` is empty, which means \"match all values and \
                 all keys\"",
            );
        }
        let seconds = toleration.field("tolerationSeconds");
        let effect_at = toleration.field("effect");
        if !seconds.is_null() && effect != Some("NoExecute") {
            errors.invalid(
                &effect_at,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator.unwrap_or_default() {
            "" | "Equal" => errors.check(&toleration.field("value"), {
                names::label_value(value.unwrap_or_default())
            }),
            "Exists" if value.is_some_and(|value| !value.is_empty()) => {
                errors.invalid(
                    &operator_at,
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            _ => errors.not_supported(&operator_at, &["Equal", "Exists"]),
        }
        errors.one_of_if_any(&effect_at, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
    }
}

fn affinity(spec: &At<'_>, errors: &mut Errors) {
    let affinity = spec.field("affinity");
    let node = affinity.field("nodeAffinity");
    let required = node.field("requiredDuringSchedulingIgnoredDuringExecution");
    if !required.is_null() {
        let terms = required.field("nodeSelectorTerms");
        if terms.is_empty() {
            errors.required(&terms, "must have at least one node selector term");
        }
        terms.items().for_each(|term| node_term(&term, errors));
    }
    let preferred = node.field("preferredDuringSchedulingIgnoredDuringExecution");
    for term in preferred.items() {
        let weight = term.field("weight");
        if !(1..=100).contains(&weight.number()) {
            errors.invalid(&weight, "must be in the range 1-100");
        }
        node_term(&term.field("preference"), errors);
    }
}

fn node_term(term: &At<'_>, errors: &mut Errors) {
    let expressions = term.field("matchExpressions");
    for expression in expressions.items() {
        let key = expression.field("key");
        errors.check(&key, names::label_key(key.text()));
        let values = expression.field("values");
        let operator = expression.field("operator");
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(
                    &values,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                &values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Gt" | "Lt" if values.value.as_array().map_or(0, Vec::len) != 1 => errors.required(
                &values,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
    }
}

fn host_aliases(aliases: &At<'_>, errors: &mut Errors) {
    for alias in aliases.items() {
        super::network::ip(&alias.field("ip"), errors);
        let names = alias.field("hostnames");
        for name in names.items() {
            errors.check(&name, names::subdomain(name.text()));
        }
    }
}
