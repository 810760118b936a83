//! What this agent does not do, said before a pod starts: nothing that a pod asks for is ignored in
//! silence. Pure.
//!
//! [`fields`] has a row for every field that a pod can have; a test fails when Kubernetes' schema has one
//! more. The walk goes through what a pod sets: the first field that this node does not honour refuses
//! the pod, fields that are only wished for are named in an event.

mod checks;
mod fields;
mod mount_points;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Volume};
use serde_json::Value;

pub use mount_points::{led_to, works_in};

use checks::{Check, Finding};
use fields::{POD_SPEC, Rows, Rule};

/// Kubernetes has no reason of its own for most of what a node cannot do.
const UNSUPPORTED: &str = "Unsupported";

/// What this node can do that another node may not be able to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Abilities {
    /// The kernel enforces AppArmor profiles.
    pub app_armor: bool,
    /// The kernel enforces SELinux labels.
    pub selinux: bool,
    /// Sysctls that pods may set besides the safe ones; a `*` at the end stands for any text.
    pub unsafe_sysctls: Vec<String>,
    /// Pods are told of a DNS server of the cluster.
    pub cluster_dns: bool,
    /// The Engine gives containers users of their own.
    pub user_namespaces: bool,
    /// The Engine puts a pod's containers into the cgroup that it is told.
    pub pod_cgroups: bool,
    /// The kernel limits huge pages by cgroup.
    pub huge_pages: bool,
}

/// Why this node does not run a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A kubelet's reason where it has one.
    pub reason: &'static str,
    pub message: String,
}

/// What the agent says to a pod before it does anything for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    pub refusal: Option<Refusal>,
    /// What the pod runs without, each with the field's path.
    pub unmet: Vec<String>,
}

/// Whether this node runs the pod as it is written.
pub fn admit(pod: &Pod, node: &Abilities) -> Admission {
    let mut walk = Walk {
        node,
        host_network: super::shape::host_network(pod),
        host_ipc: pod.spec.as_ref().and_then(|spec| spec.host_ipc) == Some(true),
        host_paths: host_paths(pod),
        admission: Admission::default(),
    };
    let names: [(_, _, fn(&str) -> bool); 2] = [
        ("metadata.name", &pod.metadata.name, checks::is_subdomain),
        (
            "metadata.namespace",
            &pod.metadata.namespace,
            checks::is_label,
        ),
    ];
    for (field, name, is_good) in names {
        let name = name.as_deref().unwrap_or_default();
        if !is_good(name) {
            walk.refuse(field, UNSUPPORTED, format!("{name:?} is not a DNS name"));
        }
    }
    for (key, value) in pod.metadata.annotations.iter().flatten() {
        if key.starts_with(checks::APP_ARMOR_ANNOTATION) {
            let finding = checks::app_armor_annotation(value, &walk);
            walk.take(&format!("metadata.annotations[{key}]"), finding);
        }
    }
    let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
    walk.object(POD_SPEC, &spec, "spec");
    walk.admission
}

/// A walk through one pod, and what of the pod its checks depend on.
struct Walk<'a> {
    node: &'a Abilities,
    host_network: bool,
    host_ipc: bool,
    /// Paths of the node, by the volume's name.
    host_paths: BTreeMap<String, String>,
    admission: Admission,
}

impl Walk<'_> {
    fn object(&mut self, rows: Rows, object: &Value, path: &str) {
        for (field, value) in object.as_object().into_iter().flatten() {
            let at = format!("{path}.{field}");
            match rows.iter().find(|(name, _)| name == field) {
                Some((_, rule)) => self.field(rule, value, object, &at),
                None => self.refuse(
                    &at,
                    UNSUPPORTED,
                    "this agent does not know the field".into(),
                ),
            }
        }
    }

    fn field(&mut self, rule: &Rule, value: &Value, object: &Value, at: &str) {
        match rule {
            Rule::Done(_) | Rule::Idle(_) => self.plain_text(value, at),
            Rule::Text(_) => {}
            Rule::In(rows) => self.inside(rows, None, value, at),
            Rule::Whole(check, rows) => self.inside(rows, Some(*check), value, at),
            Rule::Unmet(why) if is_set(value) => {
                self.take(at, Finding::Unmet((*why).to_owned()));
            }
            Rule::Refused(why) if is_set(value) => {
                self.refuse(at, UNSUPPORTED, (*why).to_owned());
            }
            Rule::Unmet(_) | Rule::Refused(_) => {}
            Rule::Only(check) => {
                self.plain_text(value, at);
                let finding = check(value, self);
                self.take(at, finding);
            }
            Rule::Beside(check) => {
                self.plain_text(value, at);
                let finding = check(object, self);
                self.take(at, finding);
            }
        }
    }

    /// An object with fields of its own, or a list of such objects.
    fn inside(&mut self, rows: Rows, check: Option<Check>, value: &Value, at: &str) {
        if let Value::Array(items) = value {
            for (index, item) in items.iter().enumerate() {
                self.inside(rows, check, item, &format!("{at}[{index}]"));
            }
            return;
        }
        if let Some(check) = check {
            let finding = check(value, self);
            self.take(at, finding);
        }
        self.object(rows, value, at);
    }

    /// A name or a path has no control characters: one could end a line of a file, or a path of the node.
    fn plain_text(&mut self, value: &Value, at: &str) {
        let bad = |text: &str| text.contains(char::is_control);
        match value {
            Value::String(text) if bad(text) => {
                self.refuse(at, UNSUPPORTED, format!("{text:?} has control characters"));
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.plain_text(item, &format!("{at}[{index}]"));
                }
            }
            Value::Object(entries) => {
                for (key, value) in entries {
                    if bad(key) {
                        self.refuse(at, UNSUPPORTED, format!("{key:?} has control characters"));
                    }
                    self.plain_text(value, &format!("{at}.{key}"));
                }
            }
            _ => {}
        }
    }

    fn take(&mut self, at: &str, finding: Finding) {
        match finding {
            Finding::Fine => {}
            Finding::Unmet(why) => self.admission.unmet.push(format!("{at}: {why}")),
            Finding::Refused { reason, why } => self.refuse(at, reason, why),
        }
    }

    /// The first refusal stands for all.
    fn refuse(&mut self, at: &str, reason: &'static str, why: String) {
        self.admission.refusal.get_or_insert_with(|| Refusal {
            reason,
            message: format!("{at}: {why}"),
        });
    }
}

fn host_paths(pod: &Pod) -> BTreeMap<String, String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let path = |volume: &Volume| {
        let source = volume.host_path.as_ref()?;
        Some((volume.name.clone(), source.path.clone()))
    };
    volumes.into_iter().flatten().filter_map(path).collect()
}

/// Whether a value says more than leaving the field out would.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests;
