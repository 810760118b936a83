//! What a user waits for on a node: a burst of pods until all are Ready, and an answer of the DNS after the
//! write that changes it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, bail, ensure};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::dns;
use crate::cluster::Cluster;

/// Pods of a burst: each is two containers, with that which holds its namespaces.
pub const BURST: usize = 30;
/// Of the DNS every pod asks this address, unless the cluster's range is another.
const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const LABEL: &str = "measured=burst";
/// Milliseconds after which something is broken.
const PATIENCE: f64 = 60e3;

/// Milliseconds from the first create until all pods of a burst are Ready. They are gone afterwards.
///
/// # Errors
///
/// Those of the API, and pods that are not Ready within a minute.
pub async fn burst(client: &Client) -> Result<f64> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let started = Instant::now();
    let made = (0..BURST).map(|number| async move {
        let pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("burst-{number}"), "labels": {"measured": "burst"}},
            "spec": {"terminationGracePeriodSeconds": 0,
                "containers": [{"name": "nginx", "image": "nginx"}]},
        }))?;
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        pods.create(&PostParams::default(), &pod).await?;
        anyhow::Ok(())
    });
    futures::future::try_join_all(made).await?;
    await_pods(&pods, &started, |ready, _| ready == BURST).await?;
    let took = milliseconds(started);
    let all = ListParams::default().labels(LABEL);
    pods.delete_collection(&DeleteParams::default(), &all)
        .await?;
    await_pods(&pods, &Instant::now(), |_, all| all == 0).await?;
    Ok(took)
}

/// Watches the burst until so many of its pods are Ready, and there.
async fn await_pods(
    pods: &Api<Pod>,
    started: &Instant,
    is_done: impl Fn(usize, usize) -> bool,
) -> Result<()> {
    let watch = watcher(pods.clone(), watcher::Config::default().labels(LABEL));
    let mut watch = std::pin::pin!(watch.default_backoff());
    let mut seen = BTreeMap::new();
    let mut is_listed = false;
    while let Some(event) = watch.try_next().await? {
        match event {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                seen.insert(pod.name_any(), is_ready(&pod));
            }
            watcher::Event::Delete(pod) => drop(seen.remove(&pod.name_any())),
            watcher::Event::Init => seen.clear(),
            watcher::Event::InitDone => is_listed = true,
        }
        let ready = seen.values().filter(|ready| **ready).count();
        if is_listed && is_done(ready, seen.len()) {
            return Ok(());
        }
        ensure!(
            milliseconds(*started) < PATIENCE,
            "{ready} of {} pods are Ready",
            seen.len()
        );
    }
    bail!("the watch has ended")
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|it| it.type_ == "Ready" && it.status == "True")
    })
}

/// Milliseconds that as many `docker run` take, one after the other. The containers are gone afterwards.
///
/// # Errors
///
/// Those of the Engine.
pub fn docker_runs(cluster: &Cluster) -> Result<f64> {
    let started = Instant::now();
    let run = |_| cluster.docker(&["run", "--detach", "--rm", "nginx"]);
    let ids: Vec<String> = (0..BURST).map(run).collect::<Result<_>>()?;
    let took = milliseconds(started);
    let mut kill = vec!["kill"];
    kill.extend(ids.iter().map(|id| id.trim()));
    cluster.docker(&kill)?;
    Ok(took)
}

/// Milliseconds from the answer to a write of a Service until a pod hears of it from the DNS, for each of
/// `count` Services that are made and deleted again. The container is one of the pod that asks.
///
/// # Errors
///
/// Those of the API, and a name that is not known within seconds.
pub async fn name_after_write(
    client: &Client,
    cluster: &Cluster,
    (pod, container): (&str, &str),
    count: usize,
) -> Result<Vec<f64>> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let mut took = Vec::new();
    for number in 0..count {
        let name = format!("fresh-{number}");
        let service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"port": 80}]},
        }))?;
        // Finding the pod takes longer than the answer.
        let enter = cluster.enter_pod(pod, container)?;
        services.create(&PostParams::default(), &service).await?;
        let written = Instant::now();
        let asked = name.clone();
        let heard = thread::spawn(move || {
            enter();
            let question = dns::question(0, &format!("{asked}.default.svc.cluster.local"));
            dns::until_answered(SocketAddr::from((DNS, dns::PORT)), &question)
        });
        let heard = heard
            .join()
            .map_err(|_| anyhow!("the asking thread panicked"))??;
        took.push((heard - written).as_secs_f64() * 1e3);
        services.delete(&name, &DeleteParams::default()).await?;
    }
    Ok(took)
}

/// How long the starts of a node's pods took its agent, apart from the Engine.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnStarts {
    /// Milliseconds, and how many took at most these, in rising order. The last are all.
    pub buckets: Vec<(f64, u64)>,
    /// Milliseconds of all of them together, by stage.
    pub stages: BTreeMap<String, f64>,
}

impl OwnStarts {
    /// # Errors
    ///
    /// Those of the API, and a node without these metrics.
    pub async fn of(client: &Client, node: &str) -> Result<OwnStarts> {
        let path = format!("/api/v1/nodes/{node}/proxy/metrics");
        let text = client.request_text(http::Request::get(path).body(Vec::new())?);
        let own = OwnStarts::read(&text.await?);
        ensure!(
            !own.buckets.is_empty() && !own.stages.is_empty(),
            "the agent of {node} measures no starts"
        );
        Ok(own)
    }

    fn read(text: &str) -> OwnStarts {
        let name = "orchestrator_agent_pod_own_start";
        let rows = |start: String| {
            let rows = text.lines();
            rows.filter_map(move |line| line.strip_prefix(&start)?.split_once("\"} "))
        };
        let seconds = |text: &str| Some(text.parse::<f64>().ok()? * 1e3);
        let buckets = rows(format!("{name}_seconds_bucket{{le=\""));
        let stages = rows(format!("{name}_stage_seconds_total{{stage=\""));
        OwnStarts {
            buckets: buckets
                .filter_map(|(most, count)| Some((seconds(most)?, count.parse().ok()?)))
                .collect(),
            stages: stages
                .filter_map(|(stage, all)| Some((stage.to_owned(), seconds(all)?)))
                .collect(),
        }
    }

    pub fn count(&self) -> u64 {
        self.buckets.last().map_or(0, |(_, count)| *count)
    }

    /// What 99 of 100 take at most, as far as the buckets tell.
    pub fn p99(&self) -> f64 {
        let mut fitting = self.buckets.iter();
        let most = fitting.find(|(_, count)| count * 100 >= self.count() * 99);
        most.map_or(f64::INFINITY, |(milliseconds, _)| *milliseconds)
    }

    /// What one start takes in a stage, in the mean.
    pub fn mean(&self, stage: &str) -> f64 {
        let all = self.stages.get(stage).copied().unwrap_or_default();
        all / self.count().max(1) as f64
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_tells_what_most_starts_took_and_counters_in_which_stage() {
        let name = "orchestrator_agent_pod_own_start";
        let own = |slow: u64| {
            OwnStarts::read(&format!(
                "# TYPE {name}_seconds histogram\n{name}_seconds_sum 1.5\n\
                 {name}_seconds_bucket{{le=\"0.01\"}} 60\n\
                 {name}_seconds_bucket{{le=\"0.02\"}} 99\n\
                 {name}_seconds_bucket{{le=\"+Inf\"}} {}\n\
                 {name}_stage_seconds_total{{stage=\"network\"}} 0.5\n# EOF\n",
                99 + slow
            ))
        };
        assert_eq!(own(1).buckets[1], (20.0, 99));
        assert_eq!((own(1).p99(), own(1).mean("network")), (20.0, 5.0));
        assert_eq!(own(2).p99(), f64::INFINITY);
        assert!(OwnStarts::read("# EOF\n").buckets.is_empty());
    }
}
