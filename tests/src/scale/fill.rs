//! What a cluster is filled with.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{NAMESPACE, Sizes};
use crate::api_load::connection::{Ask, Target};
use crate::api_load::load::drive_with;
use crate::hollow_nodes::{self, IMAGE};

/// Requests that are on their way at once.
const IN_FLIGHT: usize = 32;
const MERGE: &str = "application/merge-patch+json";

pub async fn namespace(target: &Target) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let mut connection = target.connect().await?;
    connection
        .good(Ask::post("/api/v1/namespaces", body))
        .await?;
    Ok(())
}

/// Services without a selector, each with one slice.
pub async fn services(target: &Target, sizes: Sizes) -> Result<()> {
    drive_with(target, IN_FLIGHT, sizes.services, |number| {
        let body = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("service-{number}")},
            "spec": {"ports": [{"port": 80, "targetPort": 8080}]},
        });
        Ask::post(format!("/api/v1/namespaces/{NAMESPACE}/services"), body)
    })
    .await
    .context("Services")?;
    drive_with(target, IN_FLIGHT, sizes.services, move |number| {
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
        Ask::post(path, slice(number, sizes))
    })
    .await
    .context("slices")?;
    Ok(())
}

/// An endpoint has an address of its node's range, which no other one has: see `Sizes::check`.
fn slice(number: usize, sizes: Sizes) -> Value {
    let endpoint = |index: usize| {
        let pod = number * sizes.endpoints + index;
        let node = pod % sizes.nodes;
        json!({
            "addresses": [format!("10.{}.{}.{}", node >> 8, node & 255, 2 + pod / sizes.nodes)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": hollow_nodes::name(node),
        })
    };
    let endpoints: Vec<Value> = (0..sizes.endpoints).map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("service-{number}-a"),
            "labels": {"kubernetes.io/service-name": format!("service-{number}")}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// Pods that are on their nodes from the start.
pub async fn pods(target: &Target, sizes: Sizes) -> Result<()> {
    drive_with(target, IN_FLIGHT, sizes.pods, move |number| {
        let mut spec = spec();
        spec["nodeName"] = json!(hollow_nodes::name(number % sizes.nodes));
        pod(&format!("filled-{number}"), "filled", spec)
    })
    .await
    .context("pods")?;
    Ok(())
}

/// Pods that the scheduler places.
pub async fn burst(target: &Target, count: usize) -> Result<()> {
    drive_with(target, IN_FLIGHT, count, |number| {
        pod(&format!("burst-{number}"), "burst", spec())
    })
    .await
    .context("pods of the burst")?;
    Ok(())
}

/// One behind a Service.
pub async fn deployment(target: &Target, replicas: usize) -> Result<()> {
    let labels = json!({"app": "rolled"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "rolled"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "rolled"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec()},
        },
    });
    let mut connection = target.connect().await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/services");
    connection.good(Ask::post(path, service)).await?;
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    connection.good(Ask::post(path, deployment)).await?;
    Ok(())
}

/// Another template for it.
pub async fn update(target: &Target) -> Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/rolled");
    let body = json!({"spec": {"template": {"metadata": {"annotations": {"update": "1"}}}}});
    let mut connection = target.connect().await?;
    connection.good(Ask::patch(path, MERGE, body)).await?;
    Ok(())
}

fn pod(name: &str, app: &str, spec: Value) -> Ask {
    let labels = json!({"app": app});
    let body = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
        "spec": spec,
    });
    Ask::post(format!("/api/v1/namespaces/{NAMESPACE}/pods"), body)
}

fn spec() -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        // All Services are in one namespace: a pod would have 70,000 variables.
        "enableServiceLinks": false,
        "containers": [{
            "name": "web", "image": IMAGE,
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        }],
    })
}
