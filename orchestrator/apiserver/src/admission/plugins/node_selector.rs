//! PodNodeSelector: on which nodes the pods of a namespace run, by an annotation of the namespace or, for
//! namespaces without it, by the plugin's configuration.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{config, forbidden, is_pod};
use crate::admission::Attributes;
use crate::reply;
use api::ApiError;

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// The entry of the configuration that is for namespaces without the annotation.
const CLUSTER_DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// What the configuration says of namespaces: which labels their pods may ask for.
pub type Selectors = BTreeMap<String, Labels>;

/// Reads `podNodeSelectorPluginConfig`.
pub fn read(own: &Value) -> Result<Selectors, String> {
    const FIELD: &str = "podNodeSelectorPluginConfig";
    config::check_fields(own, "", &[FIELD])?;
    let entries = own[FIELD].as_object().into_iter().flatten();
    let entries = entries.map(|(namespace, text)| {
        let labels = parse(text.as_str().unwrap_or_default());
        Ok((
            namespace.clone(),
            labels.map_err(|why| format!("{FIELD}.{namespace}: {why}"))?,
        ))
    });
    entries.collect()
}

/// `a=b,c=d`
fn parse(text: &str) -> Result<Labels, String> {
    let pairs = text
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let pair = pair.split_once('=').filter(|(key, value)| {
            let parts = [key.trim(), value.trim()];
            parts.iter().all(|part| !part.contains(['=', '!'])) && !parts[0].is_empty()
        });
        let (key, value) = pair.ok_or_else(|| format!("invalid selector: [{text}]"))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    });
    pairs.collect()
}

pub fn mutate(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !is_pod(attributes) {
        return Ok(());
    }
    let demanded = demanded(attributes)?;
    check(attributes, pod, &demanded)?;
    for (key, value) in demanded {
        let selector = &mut pod["spec"]["nodeSelector"];
        if selector.is_null() {
            *selector = json!({});
        }
        selector[key] = value.into();
    }
    Ok(())
}

pub fn validate(attributes: &Attributes<'_>, pod: Option<&Value>) -> Result<(), ApiError> {
    match pod.filter(|_| is_pod(attributes)) {
        Some(pod) => check(attributes, pod, &demanded(attributes)?),
        None => Ok(()),
    }
}

/// What the namespace demands of all its pods.
fn demanded(attributes: &Attributes<'_>) -> Result<Labels, ApiError> {
    let kind = api::find("", "v1", "namespaces").ok_or(ApiError::NoSuchResource)?;
    let objects = &attributes.state.objects;
    let namespace = objects.get(kind, "", attributes.namespace)?;
    let namespace = reply::parse(&namespace.bytes())?;
    match namespace["metadata"]["annotations"][ANNOTATION].as_str() {
        Some(text) => parse(text).map_err(ApiError::Internal),
        None => {
            let selectors = &attributes.state.plugins.config.node_selectors;
            Ok(selectors.get(CLUSTER_DEFAULT).cloned().unwrap_or_default())
        }
    }
}

fn check(attributes: &Attributes<'_>, pod: &Value, demanded: &Labels) -> Result<(), ApiError> {
    let asked = &pod["spec"]["nodeSelector"];
    let conflicts =
        |(key, value): (&String, &String)| asked[key].as_str().is_some_and(|asked| asked != value);
    if demanded.iter().any(conflicts) {
        let why = "pod node label selector conflicts with its namespace node label selector";
        return Err(forbidden(attributes, why));
    }
    let selectors = &attributes.state.plugins.config.node_selectors;
    let allowed = selectors.get(attributes.namespace);
    let Some(allowed) = allowed.filter(|allowed| !allowed.is_empty()) else {
        return Ok(());
    };
    let asked = asked.as_object().into_iter().flatten();
    let mut others =
        asked.filter(|(key, value)| allowed.get(*key).map(String::as_str) != value.as_str());
    match others.next() {
        Some(_) => {
            let why = "pod node label selector labels conflict with its namespace whitelist";
            Err(forbidden(attributes, why))
        }
        None => Ok(()),
    }
}
