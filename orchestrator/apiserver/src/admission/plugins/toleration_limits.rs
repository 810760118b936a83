//! PodTolerationRestriction: which taints the pods of a namespace tolerate, and which they may, by annotations
//! of the namespace or, for namespaces without them, by the plugin's configuration.

use serde_json::{Value, json};

use super::config::{check_fields, check_kind};
use super::{forbidden, is_pod, tolerations};
use crate::admission::{Attributes, Operation};
use crate::reply;
use api::{ApiError, pod_resources};

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// What the configuration says of namespaces without the annotations.
#[derive(Clone, Debug, Default)]
pub struct Tolerations {
    given: Vec<Value>,
    /// Empty: there is no limit.
    allowed: Vec<Value>,
}

/// Reads `podtolerationrestriction.admission.k8s.io/v1alpha1`.
pub fn read(own: &Value) -> Result<Tolerations, String> {
    let version = "podtolerationrestriction.admission.k8s.io/v1alpha1";
    check_kind(own, version, "Configuration")?;
    check_fields(own, "", &["apiVersion", "kind", "default", "whitelist"])?;
    let list = |field: &str| own[field].as_array().cloned().unwrap_or_default();
    Ok(Tolerations {
        given: list("default"),
        allowed: list("whitelist"),
    })
}

pub fn mutate(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !is_pod(attributes) {
        return Ok(());
    }
    let mut more = match attributes.operation {
        Operation::Create => said(attributes, DEFAULTS)?.unwrap_or_else(|| {
            let configured = &attributes.state.plugins.config.tolerations;
            configured.given.clone()
        }),
        _ => Vec::new(),
    };
    if pod_resources::qos_class(&pod["spec"]) != "BestEffort" {
        more.push(
            json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists",
            "effect": "NoSchedule"}),
        );
    }
    tolerations::merge(pod, &more);
    validate(attributes, Some(pod))
}

pub fn validate(attributes: &Attributes<'_>, pod: Option<&Value>) -> Result<(), ApiError> {
    let Some(pod) = pod.filter(|_| is_pod(attributes)) else {
        return Ok(());
    };
    let configured = &attributes.state.plugins.config.tolerations;
    let (allowed, scope) = match said(attributes, ALLOWED)? {
        Some(own) => (own, "namespace"),
        None => (configured.allowed.clone(), "cluster"),
    };
    let tolerated = pod["spec"]["tolerations"].as_array();
    let mut tolerated = tolerated.into_iter().flatten();
    let is_allowed = |toleration: &Value| {
        let mut allowed = allowed.iter();
        allowed.any(|wider| tolerations::covers(wider, toleration))
    };
    match allowed.is_empty() || tolerated.all(is_allowed) {
        true => Ok(()),
        false => Err(forbidden(
            attributes,
            format!(
                "pod tolerations (possibly merged with namespace default tolerations) conflict \
                 with its {scope} whitelist"
            ),
        )),
    }
}

/// What the namespace's annotation says; None: there is none.
fn said(attributes: &Attributes<'_>, annotation: &str) -> Result<Option<Vec<Value>>, ApiError> {
    let kind = api::find("", "v1", "namespaces").ok_or(ApiError::NoSuchResource)?;
    let namespace = attributes
        .state
        .objects
        .get(kind, "", attributes.namespace)?;
    let namespace = reply::parse(&namespace.bytes())?;
    match namespace["metadata"]["annotations"][annotation].as_str() {
        None => Ok(None),
        Some("") => Ok(Some(Vec::new())),
        Some(text) => serde_json::from_str(text).map(Some).map_err(|error| {
            ApiError::Internal(format!("annotation {annotation} of its namespace: {error}"))
        }),
    }
}
