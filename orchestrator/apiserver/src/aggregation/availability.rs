//! Keeps APIServices: those of what this server serves itself are made and removed as that comes and
//! goes; those of others say whether their server answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{METRICS, Probed, Server, ask, documents, kind};
use crate::objects::{Current, WriteError};
use crate::outgoing::{self, Unready};
use crate::write::{Part, Writer};
use crate::{State, bootstrap, reply};
use api::{ApiError, Subresource, meta};
use sys::Shutdown;

/// How often servers are asked whether they are well.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// How often it is looked whether something has changed that a probe would find.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a server may take about a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The resources of a version, as its server lists them.
const DISCOVERY_BYTES: usize = 1024 * 1024;

/// Says of an APIService that this server keeps it.
const KEPT: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Keeps them until the server stops.
pub fn start(state: &Arc<State>) {
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    let probe = (state.clone(), shutdown.clone());
    tasks.restarting("own API services", move || {
        own(state.clone(), shutdown.clone())
    });
    let described = probe.clone();
    tasks.restarting("API services", move || {
        others(probe.0.clone(), probe.1.clone())
    });
    tasks.restarting("OpenAPI of API services", move || {
        documents::keep(described.0.clone(), described.1.clone())
    });
}

/// Those of what is served here.
async fn own(state: Arc<State>, shutdown: Shutdown) -> Result<(), ApiError> {
    let mut changes = state.registry.subscribe();
    loop {
        changes.borrow_and_update();
        keep_own(&state).await?;
        if !matches!(shutdown.unless(changes.changed()).await, Some(Ok(()))) {
            return Ok(());
        }
    }
}

async fn keep_own(state: &State) -> Result<(), ApiError> {
    let kind = kind()?;
    let served = state.registry.snapshot();
    let versions = served.versions();
    let name = |group: &str, version: &str| format!("{version}.{group}");
    let wanted = versions.iter().enumerate().map(|(place, version)| {
        let before = versions[..place].iter();
        let newer = before.filter(|other| other.group == version.group).count();
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        let newer = i64::try_from(newer).unwrap_or(i64::MAX);
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {
                "name": name(&version.group, &version.version),
                "labels": {KEPT: "onstart"},
            },
            "spec": {
                "group": version.group,
                "version": version.version,
                // The order of discovery, as numbers.
                "groupPriorityMinimum": (18000 - 10 * place).max(100),
                "versionPriority": (100 - newer).max(1),
            },
        })
    });
    let metrics = Server::metrics("");
    let metrics = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": metrics.name, "labels": {KEPT: "onstart"}},
        "spec": metrics.made_of.0,
    });
    let wanted = wanted.chain([metrics]);
    // Side by side they share one sync of the disk.
    try_join_all(wanted.map(|service| bootstrap::ensure(state, kind, service, false))).await?;
    let names: BTreeSet<String> = versions
        .iter()
        .map(|version| name(&version.group, &version.version))
        .chain([name(METRICS.0, METRICS.1)])
        .collect();
    for cached in state.objects.cache.list(kind, None).1 {
        if cached.labels().contains_key(KEPT) && !names.contains(cached.name()) {
            let current = Current::of(&cached)?;
            match Writer::server(state, kind).remove(&current).await {
                Ok(()) | Err(WriteError::Changed) => {}
                Err(WriteError::Failed(error)) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Those of other servers.
async fn others(state: Arc<State>, shutdown: Shutdown) -> Result<(), ApiError> {
    let (mut seen, mut probed_at) = ([0; 3], None::<Instant>);
    loop {
        let now = changes(&state)?;
        let due = probed_at.is_none_or(|at| at.elapsed() >= PROBE_INTERVAL);
        if due || now != seen {
            let servers = state.aggregated.servers(&state)?;
            let others = servers.iter().filter(|server| !server.is_own);
            let probes = others.map(|server| look_after(&state, server));
            try_join_all(probes).await?;
            probed_at = Some(Instant::now());
            // The conditions that were written are nothing new.
            seen = changes(&state)?;
        }
        let pause = tokio::time::sleep(LOOK_INTERVAL);
        if shutdown.unless(pause).await.is_none() {
            return Ok(());
        }
    }
}

/// What a probe depends on: the last changes of APIServices, Services and their endpoints.
fn changes(state: &State) -> Result<[u64; 3], ApiError> {
    let last = |group: &str, plural: &str| {
        let kind = api::find(group, "v1", plural).ok_or(ApiError::NoSuchResource)?;
        Ok::<_, ApiError>(state.objects.cache.last_change(kind))
    };
    Ok([
        last("apiregistration.k8s.io", "apiservices")?,
        last("", "services")?,
        last("discovery.k8s.io", "endpointslices")?,
    ])
}

/// Probes a server and says on its APIService what was found.
async fn look_after(state: &State, server: &Server) -> Result<(), ApiError> {
    let (status, reason, message) = match probe(state, server).await {
        Ok(resources) => {
            server.note(Probed {
                available: true,
                resources,
            });
            ("True", "Passed", "all checks passed".to_owned())
        }
        Err((reason, why)) => {
            let resources = server.probed().resources;
            server.note(Probed {
                available: false,
                resources,
            });
            ("False", reason, why)
        }
    };
    let writer = Writer {
        part: Part::Of(Subresource::Status),
        ..Writer::server(state, kind()?)
    };
    let said = writer.change("", &server.name, |current| {
        let mut new = current.value.clone();
        say(&mut new["status"], status, reason, &message);
        Ok(new)
    });
    match said.await {
        // It has gone meanwhile.
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts the condition Available into a status; the time is that of the last change of the word.
fn say(status: &mut Value, word: &str, reason: &str, message: &str) {
    let conditions = status["conditions"].as_array().cloned();
    let mut conditions = conditions.unwrap_or_default();
    let place = conditions.iter().position(|it| it["type"] == "Available");
    let since = place
        .map(|place| &conditions[place])
        .filter(|before| before["status"] == word)
        .map(|before| before["lastTransitionTime"].clone())
        .filter(|since| !since.is_null());
    let condition = json!({
        "type": "Available",
        "status": word,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| meta::timestamp(Timestamp::now()).into()),
    });
    match place {
        Some(place) => conditions[place] = condition,
        None => conditions.push(condition),
    }
    status["conditions"] = conditions.into();
}

/// The resources that a server lists, or the reason and text of the condition.
async fn probe(state: &State, server: &Server) -> Result<Value, (&'static str, String)> {
    let text = |field: &str| server.service[field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let port = server.service["port"].as_u64().unwrap_or(443);
    let failed = |why: String| {
        let url = format!(
            "https://{name}.{namespace}.svc:{port}/apis/{}/{}",
            server.group, server.version
        );
        (
            "FailedDiscoveryCheck",
            format!("failing or missing response from {url}: {why}"),
        )
    };
    let client = server.client.as_ref().map_err(|why| failed(why.clone()))?;
    if let Err(unready) = outgoing::is_ready(state, client) {
        return Err(match unready {
            Unready::NoService(_) => (
                "ServiceNotFound",
                format!("service/{name} in {namespace:?} is not present"),
            ),
            Unready::NoPort { .. } => (
                "ServicePortError",
                format!("service/{name} in {namespace:?} is not listening on port {port}"),
            ),
            Unready::NoEndpoint { port, .. } => (
                "MissingEndpoints",
                format!(
                    "endpoints for service/{name} in {namespace:?} have no addresses with port \
                     name {port:?}"
                ),
            ),
            Unready::Other(why) => failed(why),
        });
    }
    let path = format!("/apis/{}/{}", server.group, server.version);
    let asking = ask(state, client, &path, None, DISCOVERY_BYTES, PROBE_TIMEOUT);
    let answer = asking.await.map_err(failed)?;
    if answer.code != StatusCode::OK {
        let code = answer.code.as_u16();
        return Err(failed(format!("bad status from the server: {code}")));
    }
    reply::parse(&answer.body).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_its_word_stays() {
        let mut status = json!({"conditions": [{"type": "Other", "status": "True"},
            {"type": "Available", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        say(&mut status, "False", "MissingEndpoints", "none");
        let available = &status["conditions"][1];
        assert_eq!(available["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(available["reason"], "MissingEndpoints");
        say(&mut status, "True", "Passed", "all checks passed");
        let available = &status["conditions"][1];
        assert_ne!(available["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(status["conditions"].as_array().map(Vec::len), Some(2));
    }
}
