//! The built-in plugins: which there are, in which order they are asked, and which of them are on.
//!
//! ```text
//! --enable-admission-plugins ┐
//! --disable-admission-plugins├─▶ config ─▶ Plugins ─▶ mutate: rows that change, in order
//! --admission-control-config-file ┘                └─▶ validate: rows that refuse, in order
//! ```
//!
//! A row is asked for its operations only, and looks at the kind first: most have nothing to do with most
//! writes.

mod classes;
pub mod config;
mod events;
mod external_ips;
mod in_use;
mod node_selector;
mod owners;
mod pod_security;
mod pods;
mod resize;
mod runtime_class;
mod service_account;
mod toleration_limits;
mod tolerations;

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::Value;

use super::{Attributes, Operation, certificates, limit_range, priority};
use api::{ApiError, Behaviour};

pub use config::{AdmissionConfig, AdmissionConfigError};
pub use service_account::VOLUME as TOKEN_VOLUME;
pub use tolerations::Seconds as TolerationSeconds;

type Mutate = fn(&Attributes<'_>, &mut Value) -> Result<(), ApiError>;
type Validate = fn(&Attributes<'_>, Option<&Value>) -> Result<(), ApiError>;

/// A plugin of Kubernetes, by its name there.
pub struct Plugin {
    pub name: &'static str,
    pub standing: Standing,
    operations: &'static [Operation],
    mutate: Option<Mutate>,
    validate: Option<Validate>,
}

/// Whether a plugin is on if nobody says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    On,
    Off,
    /// What other parts of this server rely on: it cannot be turned off.
    Always,
}

use Standing::{Always, Off, On};

const CREATE: &[Operation] = &[Operation::Create];
const UPDATE: &[Operation] = &[Operation::Update];
const WRITES: &[Operation] = &[Operation::Create, Operation::Update];
const CHANGES: &[Operation] = &[Operation::Create, Operation::Update, Operation::Delete];

/// In the order of Kubernetes (`AllOrderedPlugins` of its kube-apiserver). Rows without a function are
/// done elsewhere: the parts that do it ask [`Plugins::is_on`], but for those that are always on.
pub const PLUGINS: &[Plugin] = &[
    Plugin::elsewhere("NamespaceLifecycle", Always),
    Plugin::validating(
        "LimitPodHardAntiAffinityTopology",
        Off,
        WRITES,
        pods::check_topology,
    ),
    Plugin::validating(LIMIT_RANGER, On, WRITES, limit_range::validate)
        .and_mutating(limit_range::mutate),
    Plugin::validating("ServiceAccount", On, CREATE, service_account::validate)
        .and_mutating(service_account::mutate),
    Plugin::elsewhere("NodeRestriction", Always),
    Plugin::mutating("TaintNodesByCondition", On, CREATE, taint_node),
    Plugin::validating("AlwaysPullImages", Off, WRITES, pods::check_pull)
        .and_mutating(pods::always_pull),
    Plugin::validating("PodSecurity", On, WRITES, pod_security::validate),
    Plugin::validating("PodNodeSelector", Off, CREATE, node_selector::validate)
        .and_mutating(node_selector::mutate),
    Plugin::validating("Priority", On, CHANGES, priority::validate).and_mutating(priority::give),
    Plugin::mutating(
        "DefaultTolerationSeconds",
        On,
        WRITES,
        tolerations::give_default,
    ),
    Plugin::validating(
        "PodTolerationRestriction",
        Off,
        WRITES,
        toleration_limits::validate,
    )
    .and_mutating(toleration_limits::mutate),
    Plugin::validating("EventRateLimit", Off, WRITES, events::validate),
    Plugin::mutating(
        "ExtendedResourceToleration",
        Off,
        WRITES,
        tolerations::give_extended,
    ),
    Plugin::mutating("DefaultStorageClass", On, CREATE, classes::give_storage),
    Plugin::mutating("StorageObjectInUseProtection", On, CREATE, in_use::protect),
    Plugin::validating(
        "OwnerReferencesPermissionEnforcement",
        Off,
        WRITES,
        owners::validate,
    ),
    Plugin::validating("PersistentVolumeClaimResize", On, UPDATE, resize::validate),
    Plugin::validating("RuntimeClass", On, CREATE, runtime_class::validate)
        .and_mutating(runtime_class::mutate),
    // What the next two refuse is in it as well.
    Plugin::validating(
        "CertificateApproval",
        Always,
        WRITES,
        certificates::validate,
    ),
    Plugin::elsewhere("CertificateSigning", Always),
    Plugin::elsewhere("CertificateSubjectRestriction", Always),
    Plugin::mutating("DefaultIngressClass", On, CREATE, classes::give_ingress),
    Plugin::validating(
        "DenyServiceExternalIPs",
        Off,
        WRITES,
        external_ips::validate,
    ),
    Plugin::elsewhere(MUTATING_POLICIES, On),
    Plugin::elsewhere(MUTATING_WEBHOOKS, On),
    Plugin::elsewhere(VALIDATING_POLICIES, On),
    Plugin::elsewhere(VALIDATING_WEBHOOKS, On),
    Plugin::elsewhere(QUOTA, On),
];

const LIMIT_RANGER: &str = "LimitRanger";
pub const MUTATING_POLICIES: &str = "MutatingAdmissionPolicy";
pub const MUTATING_WEBHOOKS: &str = "MutatingAdmissionWebhook";
pub const VALIDATING_POLICIES: &str = "ValidatingAdmissionPolicy";
pub const VALIDATING_WEBHOOKS: &str = "ValidatingAdmissionWebhook";
pub const QUOTA: &str = "ResourceQuota";

impl Plugin {
    const fn elsewhere(name: &'static str, standing: Standing) -> Self {
        Self {
            name,
            standing,
            operations: &[],
            mutate: None,
            validate: None,
        }
    }

    const fn mutating(
        name: &'static str,
        standing: Standing,
        operations: &'static [Operation],
        mutate: Mutate,
    ) -> Self {
        Self {
            operations,
            mutate: Some(mutate),
            ..Self::elsewhere(name, standing)
        }
    }

    const fn validating(
        name: &'static str,
        standing: Standing,
        operations: &'static [Operation],
        validate: Validate,
    ) -> Self {
        Self {
            operations,
            validate: Some(validate),
            ..Self::elsewhere(name, standing)
        }
    }

    const fn and_mutating(self, mutate: Mutate) -> Self {
        Self {
            mutate: Some(mutate),
            ..self
        }
    }
}

/// The plugins of a server that are on.
pub struct Plugins {
    config: AdmissionConfig,
    on: BTreeSet<&'static str>,
    mutating: Vec<(&'static Plugin, Mutate)>,
    validating: Vec<(&'static Plugin, Validate)>,
    event_limits: Mutex<events::Limits>,
}

impl Plugins {
    pub fn new(config: &AdmissionConfig) -> Self {
        let on = || PLUGINS.iter().filter(|plugin| config.is_on(plugin.name));
        Self {
            mutating: on().filter_map(|it| Some((it, it.mutate?))).collect(),
            validating: on().filter_map(|it| Some((it, it.validate?))).collect(),
            event_limits: Mutex::new(events::Limits::new(&config.event_limits)),
            on: on().map(|plugin| plugin.name).collect(),
            config: config.clone(),
        }
    }

    /// Whether a plugin that is done elsewhere is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.on.contains(name)
    }

    /// Lets the plugins change a new or changed object.
    pub fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        for (plugin, mutate) in &self.mutating {
            if plugin.operations.contains(&attributes.operation) {
                mutate(attributes, object)?;
            }
        }
        Ok(())
    }

    /// Asks the plugins that may refuse; `object` is None for a deletion.
    pub fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        for (plugin, validate) in &self.validating {
            if plugin.operations.contains(&attributes.operation) {
                validate(attributes, object)?;
            }
        }
        Ok(())
    }
}

/// Whether an object of such a kind is written as a whole, not through a subresource.
fn is_whole(attributes: &Attributes<'_>, behaviour: Behaviour) -> bool {
    attributes.resource.behaviour == behaviour && attributes.subresource.is_none()
}

/// The same of pods.
fn is_pod(attributes: &Attributes<'_>) -> bool {
    is_whole(attributes, Behaviour::Pod)
}

fn forbidden(attributes: &Attributes<'_>, why: impl std::fmt::Display) -> ApiError {
    ApiError::forbidden(attributes.resource, attributes.name, why)
}

/// A node takes no pods before it has said that it is ready: its taint is there from the beginning, and
/// goes when the node's controller sees it ready.
fn taint_node(attributes: &Attributes<'_>, node: &mut Value) -> Result<(), ApiError> {
    if !is_whole(attributes, Behaviour::Node) {
        return Ok(());
    }
    let taint = serde_json::json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    let same = |other: &Value| other["key"] == taint["key"] && other["effect"] == taint["effect"];
    match node["spec"]["taints"].as_array_mut() {
        Some(taints) if taints.iter().any(same) => {}
        Some(taints) => taints.push(taint),
        None => node["spec"]["taints"] = vec![taint].into(),
    }
    Ok(())
}
