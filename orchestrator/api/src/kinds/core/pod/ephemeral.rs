//! Ephemeral containers (KEP-277): added to a pod that runs, never changed and never removed.

use std::collections::BTreeSet;

use super::{container, os, volume};
use crate::validation::{At, Errors, names};

/// What a container may not have on which nothing of the pod depends.
const FORBIDDEN: [&str; 7] = [
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "startupProbe",
];
const NOT_HERE: &str = "cannot be set for an Ephemeral Container";

/// Checks a write of `pods/ephemeralcontainers`, which changes nothing else.
pub fn update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    validate(&spec, errors);
    let metadata = new.field("metadata");
    let annotations = metadata.field("annotations");
    if !annotations.field("kubernetes.io/config.mirror").is_null() {
        errors.forbidden(new, "static pods do not support ephemeral containers");
    }
    let (now, before) = (
        spec.field("ephemeralContainers"),
        before.field("ephemeralContainers"),
    );
    for kept in before.items() {
        let name = kept.field("name");
        let same = now
            .items()
            .find(|it| it.field("name").value == name.value)
            .map(|it| it.value == kept.value);
        let done = match same {
            Some(true) => continue,
            Some(false) => "changed",
            None => "removed",
        };
        let detail = format!(
            "existing ephemeral containers {:?} may not be {done}\n",
            name.text()
        );
        errors.forbidden(&now, &detail);
    }
}

fn validate(spec: &At<'_>, errors: &mut Errors) {
    // The volumes were judged with the pod.
    let volumes = spec.field("volumes");
    let volumes = volume::volumes(&volumes, &mut Errors::default());
    os::check(spec, errors);
    let system = spec.field("os");
    let system = system.field("name");
    let context = container::Context {
        volumes: &volumes,
        host_network: spec.field("hostNetwork").is_true(),
        host_users: spec.field("hostUsers").value != false,
        os: system.text(),
    };
    let others: BTreeSet<String> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| names_of(&spec.field(list)))
        .collect();
    let mut seen = others.clone();
    for own in spec.field("ephemeralContainers").items() {
        let name = own.field("name");
        if name.is_empty() {
            errors.required(&name, "");
        } else {
            errors.check(&name, names::label(name.text()));
            if !seen.insert(name.text().to_owned()) {
                errors.duplicate(&name);
            }
        }
        let target = own.field("targetContainerName");
        if !target.is_empty() && !others.contains(target.text()) {
            errors.not_found(&target);
        }
        container::one(&own, &context, false, errors);
        for field in FORBIDDEN {
            let field = own.field(field);
            if !field.is_empty() {
                errors.forbidden(&field, NOT_HERE);
            }
        }
        for mount in own.field("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                let field = mount.field(field);
                if !field.is_empty() {
                    errors.forbidden(&field, NOT_HERE);
                }
            }
        }
    }
}

fn names_of(list: &At<'_>) -> Vec<String> {
    let names = list.items().map(|it| it.field("name").text().to_owned());
    names.collect()
}
