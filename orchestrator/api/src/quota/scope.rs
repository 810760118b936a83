//! Which pods a quota is about.

use serde_json::Value;

use super::{Measured, Usage};
use crate::pod_resources;

/// One requirement of a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    scope: String,
    operator: String,
    values: Vec<String>,
}

/// All requirements of a quota's spec, which an object must meet together.
pub fn selectors(spec: &Value) -> Vec<Selector> {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let scopes = items(&spec["scopes"]).into_iter().map(|scope| Selector {
        scope: text(&scope),
        operator: "Exists".to_owned(),
        values: Vec::new(),
    });
    let requirements = items(&spec["scopeSelector"]["matchExpressions"]);
    let selectors = requirements.iter().map(|requirement| Selector {
        scope: text(&requirement["scopeName"]),
        operator: text(&requirement["operator"]),
        values: items(&requirement["values"]).iter().map(text).collect(),
    });
    scopes.chain(selectors).collect()
}

impl Selector {
    /// Only pods are of a scope.
    pub fn selects(&self, measured: &Measured<'_>) -> bool {
        if measured.resource.usage != Usage::Pod {
            return false;
        }
        let spec = &measured.object["spec"];
        match self.scope.as_str() {
            "Terminating" => has_deadline(spec),
            "NotTerminating" => !has_deadline(spec),
            "BestEffort" => pod_resources::qos_class(spec) == "BestEffort",
            "NotBestEffort" => pod_resources::qos_class(spec) != "BestEffort",
            "PriorityClass" => self.selects_class(spec["priorityClassName"].as_str()),
            "CrossNamespacePodAffinity" => looks_into_other_namespaces(spec),
            _ => false,
        }
    }

    fn selects_class(&self, class: Option<&str>) -> bool {
        let class = class.filter(|class| !class.is_empty());
        let listed = |class: &str| self.values.iter().any(|value| value == class);
        match self.operator.as_str() {
            "In" => class.is_some_and(listed),
            "NotIn" => !class.is_some_and(listed),
            "Exists" => class.is_some(),
            "DoesNotExist" => class.is_none(),
            _ => false,
        }
    }
}

fn has_deadline(spec: &Value) -> bool {
    let deadline = spec["activeDeadlineSeconds"].as_i64();
    deadline.is_some_and(|seconds| seconds >= 0)
}

/// Whether a term of (anti-)affinity names other namespaces or selects them (KEP-2249).
fn looks_into_other_namespaces(spec: &Value) -> bool {
    let across = |term: &Value| {
        let named = term["namespaces"].as_array();
        named.is_some_and(|list| !list.is_empty()) || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &spec["affinity"][kind];
        let items = |list: &str| affinity[list].as_array().into_iter().flatten();
        let mut required = items("requiredDuringSchedulingIgnoredDuringExecution");
        let mut preferred = items("preferredDuringSchedulingIgnoredDuringExecution");
        required.any(across) || preferred.any(|term| across(&term["podAffinityTerm"]))
    })
}
