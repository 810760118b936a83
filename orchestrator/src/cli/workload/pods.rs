//! Which pod and which container a word means, for the verbs that talk to containers.

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;

use super::cluster::{self, Cluster};

/// Which container of the pod is meant where several are.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Which container; shared by the verbs for containers.
#[derive(Args, Clone, Debug)]
pub struct ContainerArgs {
    /// Which container, if the pod has several
    #[arg(long, short)]
    pub container: Option<String>,
}

impl ContainerArgs {
    /// The container that is meant; it is said on stderr where it was chosen out of several.
    pub fn choose(&self, pod: &Value) -> Result<String> {
        let all = names(pod);
        if let Some(name) = &self.container {
            if !all.contains(name) {
                let pod = api::meta::name(pod);
                bail!(
                    "container {name} not found in pod {pod}; it has {}",
                    all.join(", ")
                );
            }
            return Ok(name.clone());
        }
        let wanted = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
        let wanted = wanted.filter(|name| all.iter().any(|known| known == name));
        let first = pod["spec"]["containers"][0]["name"].as_str();
        let chosen = wanted.or(first).context("the pod has no container")?;
        if all.len() > 1 && wanted.is_none() {
            eprintln!("Defaulted container {chosen:?} out of: {}", all.join(", "));
        }
        Ok(chosen.to_owned())
    }
}

/// The names of a pod's containers: those that go on, then those that begin, then those for debugging.
pub fn names(pod: &Value) -> Vec<String> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let lists = lists.map(|list| pod["spec"][list].as_array().cloned().unwrap_or_default());
    let names = lists.into_iter().flatten();
    let names = names.filter_map(|container| container["name"].as_str().map(str::to_owned));
    names.collect()
}

/// The pod of `POD`, `TYPE NAME` or `TYPE/NAME`; of a Service or a workload one that runs.
pub async fn find(cluster: &Cluster, word: &str) -> Result<Value> {
    let pods = cluster::resource("pods")?;
    let (kind, name) = match word.split_once('/') {
        None => (pods, word),
        Some((kind, name)) => (cluster::resource(kind)?, name),
    };
    let object = cluster.get(&cluster.path(kind, Some(name))).await?;
    if kind.kind == "Pod" {
        return Ok(object);
    }
    let found = of_selector(cluster, &selector(&object)?).await?;
    let best = found.into_iter().max_by_key(|pod| {
        let is_ready =
            |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
        let conditions = pod["status"]["conditions"].as_array();
        (
            pod["status"]["phase"] == "Running",
            conditions.is_some_and(|all| all.iter().any(is_ready)),
        )
    });
    best.with_context(|| format!("{word} has no pods"))
}

/// The pods that a label selector finds.
pub async fn of_selector(cluster: &Cluster, selector: &str) -> Result<Vec<Value>> {
    let pods = cluster::resource("pods")?;
    let path = cluster.path(pods, None);
    let path = format!("{path}?labelSelector={}", cluster::query(selector));
    let list = cluster.get(&path).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// The labels by which a Service or a workload finds its pods.
fn selector(object: &Value) -> Result<String> {
    let selector = &object["spec"]["selector"];
    let labels = match &selector["matchLabels"] {
        Value::Object(labels) => Some(labels),
        _ => selector.as_object(),
    };
    let labels = labels.filter(|labels| !labels.is_empty());
    let labels = labels.with_context(|| {
        let kind = object["kind"].as_str().unwrap_or_default();
        format!("a {kind} without a selector has no pods")
    })?;
    let pairs = labels.iter().map(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        format!("{key}={value}")
    });
    Ok(pairs.collect::<Vec<_>>().join(","))
}

/// The pods of the namespace, for what only the client library does: streams.
pub fn api(cluster: &Cluster, pod: &Value) -> Api<Pod> {
    let namespace = pod["metadata"]["namespace"].as_str();
    Api::namespaced(cluster.client(), namespace.unwrap_or(&cluster.namespace))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_default_container_is_that_of_the_annotation_or_the_first() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let args = |name: Option<&str>| ContainerArgs {
            container: name.map(str::to_owned),
        };
        assert_eq!(args(None).choose(&pod).unwrap(), "a");
        assert_eq!(args(Some("i")).choose(&pod).unwrap(), "i");
        assert!(args(Some("x")).choose(&pod).is_err());
        pod["metadata"]["annotations"][DEFAULT_CONTAINER] = "b".into();
        assert_eq!(args(None).choose(&pod).unwrap(), "b");
        pod["metadata"]["annotations"][DEFAULT_CONTAINER] = "gone".into();
        assert_eq!(args(None).choose(&pod).unwrap(), "a");
    }

    #[test]
    fn a_selector_is_that_of_a_service_or_of_a_workload() {
        let service = json!({"spec": {"selector": {"app": "web", "tier": "x"}}});
        assert_eq!(selector(&service).unwrap(), "app=web,tier=x");
        let deployment = json!({"spec": {"selector": {"matchLabels": {"app": "web"}}}});
        assert_eq!(selector(&deployment).unwrap(), "app=web");
        assert!(selector(&json!({"kind": "Service", "spec": {}})).is_err());
    }
}
