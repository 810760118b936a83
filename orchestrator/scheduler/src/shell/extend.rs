//! Asks extenders over HTTP(S), each answer within its time and of a bounded size.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::extender::{self, Said};
use crate::pod::{PodKey, PodRow};
use crate::profile::extenders::Extender;
use client::{Kind, Verbs};

/// Of an answer: 5,000 nodes in full take some 50 MiB.
const ANSWER_LIMIT: usize = 128 << 20;

/// All extenders, in their order.
#[derive(Clone)]
pub struct Extenders(Arc<Vec<(Extender, Result<Client, String>)>>);

impl Extenders {
    /// One that cannot be asked as it is configured says so of every pod.
    pub async fn new(all: &[Extender]) -> Self {
        let mut made = Vec::new();
        for extender in all {
            let client = client_of(extender).await;
            if let Err(error) = &client {
                tracing::error!(url = extender.url, error, "an extender cannot be asked");
            }
            made.push((extender.clone(), client));
        }
        Self(Arc::new(made))
    }

    /// What they say of these nodes for the pod.
    pub async fn consult(
        &self,
        verbs: &Verbs,
        key: &PodKey,
        uid: &str,
        nodes: Vec<String>,
    ) -> Result<Said, String> {
        let (pod, row) = read_pod(verbs, key, uid).await?;
        let concerned: Vec<_> = self.concerned(&row).collect();
        let full = match concerned.iter().all(|(it, _)| it.caches_nodes) {
            true => None,
            false => Some(read_nodes(verbs).await?),
        };
        let mut said = Said::all(nodes);
        for (extender, client) in &concerned {
            if extender.filter.is_empty() || said.nodes.is_empty() {
                continue;
            }
            let body = arguments(extender, &pod, &said, full.as_ref());
            let answer = ask(extender, client, &extender.filter, &body).await;
            let mut next = said.clone();
            match answer.and_then(|answer| next.filter(&answer)) {
                Ok(()) => said = next,
                Err(error) if extender.is_ignorable => {
                    tracing::warn!(url = extender.url, error, "an extender is left out");
                }
                Err(error) => return Err(format!("extender {}: {error}", extender.url)),
            }
        }
        for (extender, client) in &concerned {
            if extender.prioritize.is_empty() || said.nodes.is_empty() {
                continue;
            }
            let body = arguments(extender, &pod, &said, full.as_ref());
            let answer = ask(extender, client, &extender.prioritize, &body).await;
            let rated = answer.and_then(|answer| said.prioritize(&answer, extender.weight));
            // As in Kubernetes: the others' ratings do.
            if let Err(error) = rated {
                tracing::warn!(url = extender.url, error, "an extender did not rate nodes");
            }
        }
        Ok(said)
    }

    /// The uids of the pods that may be stopped on the node; none: it may not be used.
    pub async fn agree(
        &self,
        verbs: &Verbs,
        (key, uid): (&PodKey, &str),
        node: &str,
        (victims, violations): (&[(PodKey, String)], usize),
    ) -> Result<Option<Vec<String>>, String> {
        let (pod, row) = read_pod(verbs, key, uid).await?;
        let mut full = Vec::new();
        for (key, uid) in victims {
            // One that is gone meanwhile need not be stopped.
            full.extend(read_pod(verbs, key, uid).await.ok().map(|(pod, _)| pod));
        }
        for (extender, client) in self.concerned(&row) {
            if extender.preempt.is_empty() {
                continue;
            }
            let how = (violations, extender.caches_nodes);
            let body = extender::preemption(&pod, node, &full, how);
            match ask(extender, client, &extender.preempt, &body).await {
                Ok(answer) => {
                    let Some(uids) = extender::agreed(&answer, node) else {
                        return Ok(None);
                    };
                    full.retain(|pod| uids.iter().any(|uid| pod["metadata"]["uid"] == **uid));
                }
                Err(error) if extender.is_ignorable => {
                    tracing::warn!(url = extender.url, error, "an extender is left out");
                }
                Err(error) => return Err(format!("extender {}: {error}", extender.url)),
            }
        }
        let uids = full
            .iter()
            .filter_map(|pod| pod["metadata"]["uid"].as_str());
        Ok(Some(uids.map(str::to_owned).collect()))
    }

    /// Has the pod bound by the extender that does so; None: there is none for this pod.
    pub async fn bind(
        &self,
        verbs: &Verbs,
        key: &PodKey,
        uid: &str,
        node: &str,
    ) -> Option<Result<(), String>> {
        let (extender, client) = self.0.iter().find(|(it, _)| !it.bind.is_empty())?;
        if !extender.resources.is_empty() {
            match read_pod(verbs, key, uid).await {
                Ok((_, row)) if !extender.concerns(&row.demand.local.requests) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        let body = extender::binding((&key.0, &key.1), uid, node);
        let answer = ask(extender, client, &extender.bind, &body).await;
        Some(answer.and_then(|answer| extender::bind_error(&answer).map_or(Ok(()), Err)))
    }

    fn concerned(
        &self,
        row: &PodRow,
    ) -> impl Iterator<Item = (&Extender, &Result<Client, String>)> {
        let requests = row.demand.local.requests.clone();
        let all = self.0.iter().filter(move |(it, _)| it.concerns(&requests));
        all.map(|(extender, client)| (extender, client))
    }
}

fn arguments(
    extender: &Extender,
    pod: &Value,
    said: &Said,
    full: Option<&BTreeMap<String, Value>>,
) -> Value {
    let names = said.nodes.keys().map(String::as_str).collect();
    let full = full.filter(|_| !extender.caches_nodes);
    extender::arguments(pod, names, full)
}

async fn client_of(extender: &Extender) -> Result<Client, String> {
    let mut cluster = extender.tls.cluster.clone();
    cluster["server"] = extender.url.clone().into();
    let file = json!({
        "clusters": [{"name": "extender", "cluster": cluster}],
        "users": [{"name": "scheduler", "user": extender.tls.user}],
        "contexts": [{"name": "it", "context": {"cluster": "extender", "user": "scheduler"}}],
        "current-context": "it",
    });
    let file: Kubeconfig = serde_json::from_value(file).map_err(|error| error.to_string())?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options).await;
    let mut config = config.map_err(|error| error.to_string())?;
    // An environment for the scheduler's own way is not one for its extenders'.
    config.proxy_url = None;
    Client::try_from(config).map_err(|error| error.to_string())
}

async fn ask(
    extender: &Extender,
    client: &Result<Client, String>,
    verb: &str,
    body: &Value,
) -> Result<Value, String> {
    let client = client.as_ref().map_err(Clone::clone)?;
    let within = Duration::from_millis(extender.timeout_ms);
    let asked = timeout(within, post(client, verb, body)).await;
    asked.unwrap_or_else(|_| Err(format!("no answer to {verb} within {within:?}")))
}

async fn post(client: &Client, verb: &str, body: &Value) -> Result<Value, String> {
    let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
    let request = Request::post(format!("/{verb}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .map_err(|error| error.to_string())?;
    let answer = client.send(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("{verb} was answered with {status}"));
    }
    let read = Limited::new(answer.into_body(), ANSWER_LIMIT)
        .collect()
        .await;
    let read = read.map_err(|error| error.to_string())?;
    serde_json::from_slice(&read.to_bytes()).map_err(|error| format!("{verb}: {error}"))
}

async fn read_pod(verbs: &Verbs, key: &PodKey, uid: &str) -> Result<(Value, PodRow), String> {
    let pod = verbs.get(Kind::POD, &key.0, &key.1).await;
    let pod = pod.map_err(|error| error.to_string())?;
    if pod["metadata"]["uid"] != *uid {
        return Err("the pod is another one by now".to_owned());
    }
    let typed: Pod = serde_json::from_value(pod.clone()).map_err(|error| error.to_string())?;
    Ok((pod, PodRow::from(typed)))
}

async fn read_nodes(verbs: &Verbs) -> Result<BTreeMap<String, Value>, String> {
    let list = verbs.read(&Kind::NODE.path("", "", "")).await;
    let mut list = list.map_err(|error| error.to_string())?;
    let items = list["items"].take();
    let items = match items {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let named = items.into_iter().filter_map(|node| {
        let name = node["metadata"]["name"].as_str()?.to_owned();
        Some((name, node))
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests;
