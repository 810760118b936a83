//! What a kind does differently on create, update and selection: one constant a kind.

mod metadata;
mod namespace;
mod pod;
mod service;
mod workload;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    defaults,
    scheme::{Resource, Subresource},
    validation::{self, At, Errors},
};

/// What is particular to a kind.
#[derive(Debug)]
pub(super) struct Strategy {
    /// Fills in defaults.
    pub default: fn(&mut Value),
    /// Clears and sets what is not the client's on create.
    pub create: fn(&mut Value),
    /// Keeps what an update of the object itself may not change.
    pub update: fn(&mut Value, &Value),
    /// Keeps what an update of the status may not change.
    pub update_status: fn(&mut Value, &Value),
    pub validate: fn(&At<'_>, &mut Errors),
    pub validate_update: fn(&At<'_>, &At<'_>, &mut Errors),
    /// What is checked when the status is written.
    pub validate_status: fn(&At<'_>, &mut Errors),
    /// Which names objects may have.
    pub name: validation::NameRule,
    /// Whether a client's change counts a generation, and what counts as one.
    pub generation: Generation,
    /// Whether `status` is written only through its subresource.
    pub has_status: bool,
    /// Fields for field selectors besides name and namespace, and where they are.
    pub fields: &'static [(&'static str, &'static str)],
}

/// What counts a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    None,
    Spec,
    SpecAndAnnotations,
}

pub(super) const PLAIN: Strategy = Strategy {
    default: |_| {},
    create: |_| {},
    update: |_, _| {},
    update_status: |_, _| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_status: |_, _| {},
    name: validation::NameRule::Subdomain,
    generation: Generation::None,
    has_status: false,
    fields: &[],
};

pub(super) const SCALE: Strategy = Strategy {
    validate: validation::scale,
    ..PLAIN
};

pub(super) const CONFIG_MAP: Strategy = Strategy {
    validate: validation::config_map,
    validate_update: validation::config_map_update,
    ..PLAIN
};

pub(super) const SECRET: Strategy = Strategy {
    default: defaults::secret,
    validate: validation::secret,
    validate_update: validation::secret_update,
    fields: &[("type", "/type")],
    ..PLAIN
};

pub(super) const ENDPOINTS: Strategy = Strategy {
    default: defaults::endpoints,
    validate: validation::endpoints,
    ..PLAIN
};

pub(super) const ENDPOINT_SLICE: Strategy = Strategy {
    default: defaults::endpoint_slice,
    validate: validation::endpoint_slice,
    validate_update: validation::endpoint_slice_update,
    generation: Generation::Spec,
    ..PLAIN
};

pub(super) const EVENT: Strategy = Strategy {
    default: defaults::event,
    validate: validation::event,
    fields: &[
        ("involvedObject.kind", "/involvedObject/kind"),
        ("involvedObject.namespace", "/involvedObject/namespace"),
        ("involvedObject.name", "/involvedObject/name"),
        ("involvedObject.uid", "/involvedObject/uid"),
        ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
        (
            "involvedObject.resourceVersion",
            "/involvedObject/resourceVersion",
        ),
        ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
        ("reason", "/reason"),
        ("reportingComponent", "/reportingComponent"),
        ("source", "/source/component"),
        ("type", "/type"),
    ],
    ..PLAIN
};

pub(super) const LEASE: Strategy = Strategy {
    validate: validation::lease,
    ..PLAIN
};

pub(super) const NAMESPACE: Strategy = Strategy {
    default: defaults::namespace,
    create: namespace::create,
    update: namespace::update,
    name: validation::NameRule::Label,
    has_status: true,
    fields: &[
        ("name", "/metadata/name"),
        ("status.phase", "/status/phase"),
    ],
    ..PLAIN
};

pub(super) const NODE: Strategy = Strategy {
    default: defaults::node,
    validate: validation::node,
    validate_update: validation::node_update,
    validate_status: validation::node_status,
    has_status: true,
    fields: &[("spec.unschedulable", "/spec/unschedulable")],
    ..PLAIN
};

pub(super) const POD: Strategy = Strategy {
    default: defaults::pod,
    create: pod::create,
    update: pod::update,
    update_status: pod::update_status,
    validate: validation::pod,
    validate_update: validation::pod_update,
    validate_status: validation::pod_status,
    has_status: true,
    fields: &[
        ("spec.nodeName", "/spec/nodeName"),
        ("spec.host", "/spec/nodeName"),
        ("spec.restartPolicy", "/spec/restartPolicy"),
        ("spec.schedulerName", "/spec/schedulerName"),
        ("spec.serviceAccountName", "/spec/serviceAccountName"),
        ("spec.hostNetwork", "/spec/hostNetwork"),
        ("status.phase", "/status/phase"),
        ("status.podIP", "/status/podIP"),
        ("status.podIPs", "/status/podIP"),
        ("status.nominatedNodeName", "/status/nominatedNodeName"),
    ],
    ..PLAIN
};

pub(super) const SERVICE: Strategy = Strategy {
    default: defaults::service,
    create: service::create,
    update: service::update,
    update_status: service::update_status,
    validate: validation::service,
    validate_update: validation::service_update,
    validate_status: validation::service_status,
    name: validation::NameRule::Label1035,
    has_status: true,
    fields: &[
        ("spec.clusterIP", "/spec/clusterIP"),
        ("spec.type", "/spec/type"),
    ],
    ..PLAIN
};

/// What ReplicationController, ReplicaSet and Deployment have in common.
const WORKLOAD: Strategy = Strategy {
    update_status: workload::update_status,
    generation: Generation::Spec,
    has_status: true,
    ..PLAIN
};

pub(super) const REPLICATION_CONTROLLER: Strategy = Strategy {
    default: defaults::replication_controller,
    create: workload::create_replicas,
    validate: validation::replication_controller,
    fields: &[("status.replicas", "/status/replicas")],
    ..WORKLOAD
};

pub(super) const REPLICA_SET: Strategy = Strategy {
    default: defaults::replica_set,
    create: workload::create_replicas,
    validate: validation::replica_set,
    validate_update: validation::selector_is_immutable,
    fields: &[("status.replicas", "/status/replicas")],
    ..WORKLOAD
};

pub(super) const DEPLOYMENT: Strategy = Strategy {
    default: defaults::deployment,
    create: workload::create,
    validate: validation::deployment,
    validate_update: validation::selector_is_immutable,
    generation: Generation::SpecAndAnnotations,
    ..WORKLOAD
};

/// Clears what a client may not set, and sets what the server owns but for time and uid.
pub(super) fn prepare_for_create(resource: &Resource, object: &mut Value) {
    resource.default(object);
    metadata::prepare_for_create(object);
    if resource.strategy.generation != Generation::None {
        object["metadata"]["generation"] = 1.into();
    }
    (resource.strategy.create)(object);
}

/// Keeps of `old` what this path may not touch, and counts the generation.
pub(super) fn prepare_for_update(
    resource: &Resource,
    new: &mut Value,
    old: &Value,
    sub: Option<Subresource>,
) {
    let strategy = resource.strategy;
    // What the client left to a default has not changed.
    resource.default(new);
    metadata::prepare_for_update(new, old);
    match sub {
        Some(Subresource::Status) => {
            keep_all_but_status(new, old);
            keep(new, old, "/metadata", "ownerReferences");
            (strategy.update_status)(new, old);
        }
        Some(Subresource::Finalize) => {
            let finalizers = new["spec"]["finalizers"].take();
            keep(new, old, "", "status");
            keep(new, old, "", "spec");
            if finalizers.is_null() {
                remove(new, "/spec", "finalizers");
            } else {
                new["spec"]["finalizers"] = finalizers;
            }
        }
        Some(Subresource::Binding | Subresource::Eviction) => {}
        None | Some(Subresource::Scale | Subresource::Log) => {
            if strategy.has_status {
                keep(new, old, "", "status");
            }
            (strategy.update)(new, old);
        }
    }
    if sub != Some(Subresource::Status) {
        count_generation(strategy.generation, new, old);
    }
}

/// The fields that a field selector may name, with this object's values.
pub(super) fn selectable_fields(
    resource: &Resource,
    object: &Value,
) -> BTreeMap<&'static str, String> {
    let namespace = resource
        .namespaced()
        .then_some(("metadata.namespace", "/metadata/namespace"));
    let common = [("metadata.name", "/metadata/name")]
        .into_iter()
        .chain(namespace);
    let value = |at: &str| match object.pointer(at) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let mut fields: BTreeMap<_, _> = common
        .chain(resource.strategy.fields.iter().copied())
        .map(|(name, at)| (name, value(at)))
        .collect();
    // Booleans that are left out are false, numbers zero.
    let absent = [
        ("spec.unschedulable", "false"),
        ("spec.hostNetwork", "false"),
        ("status.replicas", "0"),
        (
            "source",
            object["reportingComponent"].as_str().unwrap_or_default(),
        ),
    ];
    for (name, default) in absent {
        if let Some(value) = fields.get_mut(name).filter(|value| value.is_empty()) {
            default.clone_into(value);
        }
    }
    fields
}

fn keep_all_but_status(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    for part in ["metadata", "status"] {
        match new.get_mut(part).map(Value::take) {
            Some(value) => kept[part] = value,
            None => remove(&mut kept, "", part),
        }
    }
    *new = kept;
}

/// Puts the old value of a field in place of the new one.
fn keep(new: &mut Value, old: &Value, at: &str, field: &str) {
    match old.pointer(at).and_then(|parent| parent.get(field)) {
        Some(value) => {
            if let Some(Value::Object(parent)) = new.pointer_mut(at) {
                parent.insert(field.into(), value.clone());
            }
        }
        None => remove(new, at, field),
    }
}

fn remove(object: &mut Value, at: &str, field: &str) {
    if let Some(Value::Object(parent)) = object.pointer_mut(at) {
        parent.remove(field);
    }
}

fn count_generation(rule: Generation, new: &mut Value, old: &Value) {
    if rule == Generation::None {
        return;
    }
    let metadata = |object: &Value| object["metadata"]["annotations"].clone();
    let changed = if new.get("spec").is_some() {
        new["spec"] != old["spec"]
            || (rule == Generation::SpecAndAnnotations && metadata(new) != metadata(old))
    } else {
        // A kind without a spec: everything but metadata is what it says.
        let mut before = old.clone();
        before["metadata"] = new["metadata"].clone();
        before != *new
    };
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
    new["metadata"]["generation"] = json!(generation + i64::from(changed));
}

#[cfg(test)]
mod tests;
