//! What is read and not watched: scales, and what pods use. Pods of an app share its load evenly.

use std::collections::BTreeMap;

use api::meta;
use api::selector::LabelSelector;
use client::Kind;
use controllers::action::Reply;
use serde_json::{Value, json};

use super::api::Api;
use super::check::finished;

const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/";

/// What answers.
#[derive(Default)]
pub struct Metrics {
    /// By the label `app`: what all of its pods use together, in thousandths of a CPU.
    pub load: BTreeMap<String, u64>,
    /// Nobody answers for `metrics.k8s.io`.
    pub is_away: bool,
    /// It answers, and knows of no pod.
    pub is_empty: bool,
}

impl Metrics {
    pub fn answer(&self, api: &Api, path: &str) -> Reply {
        let path = path.split('#').next().unwrap_or_default();
        if let Some(rest) = path.strip_prefix(PODS) {
            return self.pods(api, rest);
        }
        scale(api, path).ok_or_else(|| format!("{path} not found"))
    }

    fn pods(&self, api: &Api, rest: &str) -> Reply {
        if self.is_away {
            return Err("the server is currently unable to handle the request".to_owned());
        }
        let (namespace, query) = rest
            .split_once("/pods?labelSelector=")
            .unwrap_or((rest, ""));
        let selector = query.replace("%3D", "=").replace("%2C", ",");
        let selector = LabelSelector::parse(&selector).map_err(|error| format!("{error:?}"))?;
        let mut items = Vec::new();
        let all = api.list(Kind::POD).into_iter().filter(|_| !self.is_empty);
        let running = all.filter(|pod| pod["status"]["phase"] == "Running" && !finished(pod));
        let chosen: Vec<&Value> = running
            .filter(|pod| meta::namespace(pod) == namespace && selector.matches(&meta::labels(pod)))
            .collect();
        for pod in &chosen {
            let app = pod["metadata"]["labels"]["app"]
                .as_str()
                .unwrap_or_default();
            let load = self.load.get(app).copied().unwrap_or(0);
            let share = load / chosen.len() as u64;
            items.push(json!({
                "metadata": {"name": meta::name(pod), "namespace": namespace},
                "timestamp": meta::timestamp(api.now), "window": "15s",
                "containers": [{"name": "main", "usage": {"cpu": format!("{share}m")}}],
            }));
        }
        Ok(json!({"items": items}))
    }
}

/// The scale of what has one here.
fn scale(api: &Api, path: &str) -> Option<Value> {
    let path = path.strip_suffix("/scale")?;
    let (rest, name) = path.rsplit_once('/')?;
    let (rest, plural) = rest.rsplit_once('/')?;
    let (_, namespace) = rest.rsplit_once('/')?;
    let kinds = [Kind::DEPLOYMENT, Kind::REPLICATION_CONTROLLER];
    let kind = kinds.into_iter().find(|kind| kind.plural == plural)?;
    let object = api.get(kind, namespace, name)?;
    let labels = object["spec"]["selector"]["matchLabels"].as_object();
    let labels = labels.or(object["spec"]["selector"].as_object())?;
    let terms = labels
        .iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    Some(json!({
        "metadata": {"resourceVersion": object["metadata"]["resourceVersion"]},
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {
            "replicas": object["status"]["replicas"],
            "selector": terms.collect::<Vec<_>>().join(","),
        },
    }))
}
