//! What a pod may learn about itself: fields, resources, labels as files. Pure.

use k8s_openapi::api::core::v1::{Container as Template, Pod, ResourceFieldSelector};

use super::quantity;
use super::shape;
use crate::runtime::container_spec::SpecError;
use datapath::Addrs;

/// Facts that are not in the pod's spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub node_name: String,
    pub node_ips: Addrs,
    pub pod_ips: Option<Addrs>,
    pub node_cpus: usize,
    pub node_memory_bytes: i64,
}

/// The value of a `fieldRef`.
pub fn field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, SpecError> {
    let meta = &pod.metadata;
    let owned = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some((map, key)) = path
        .strip_suffix("']")
        .and_then(|path| path.split_once("['"))
    {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(unknown(path)),
        };
        return Ok(map
            .as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => owned(&meta.name),
        "metadata.namespace" => owned(&meta.namespace),
        "metadata.uid" => owned(&meta.uid),
        "metadata.labels" => lines(meta.labels.iter().flatten()),
        "metadata.annotations" => lines(meta.annotations.iter().flatten()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => {
            let account = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.service_account_name.clone());
            account.unwrap_or_else(|| "default".to_owned())
        }
        "status.hostIP" => first(facts.node_ips),
        "status.hostIPs" => facts.node_ips.to_string(),
        "status.podIP" => first(facts.pod_ips.unwrap_or_default()),
        "status.podIPs" => facts.pod_ips.unwrap_or_default().to_string(),
        _ => return Err(unknown(path)),
    })
}

fn first(addrs: Addrs) -> String {
    addrs.first().map(|ip| ip.to_string()).unwrap_or_default()
}

/// The value of a `resourceFieldRef`; without a limit, what the node has.
pub fn resource(
    pod: &Pod,
    own: &Template,
    selector: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, SpecError> {
    let template = match &selector.container_name {
        None => Some(own),
        Some(name) => {
            let mains = shape::main_templates(pod).iter();
            mains
                .chain(shape::init_templates(pod))
                .find(|template| template.name == *name)
        }
    };
    let template = template.ok_or_else(|| unknown(&selector.resource))?;
    let (list, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| unknown(&selector.resource))?;
    let resources = template.resources.as_ref();
    let amount = |map: Option<&std::collections::BTreeMap<String, _>>| {
        map.and_then(|map| map.get(name)).and_then(quantity::milli)
    };
    let limit = amount(resources.and_then(|it| it.limits.as_ref()));
    let value = match list {
        "limits" => limit.unwrap_or(match name {
            "cpu" => facts.node_cpus as i128 * 1000,
            "memory" => i128::from(facts.node_memory_bytes) * 1000,
            _ => 0,
        }),
        "requests" => amount(resources.and_then(|it| it.requests.as_ref()))
            .or(limit)
            .unwrap_or(0),
        _ => return Err(unknown(&selector.resource)),
    };
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(quantity::milli)
        .filter(|it| *it > 0);
    let divisor = divisor.unwrap_or(1000);
    Ok(((value + divisor - 1) / divisor).to_string())
}

/// Labels and annotations as the downward API has them: a line each, the last one without its end.
fn lines<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let lines: Vec<String> = map.map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

fn unknown(path: &str) -> SpecError {
    SpecError::config(format!("field {path:?} is not supported"))
}
