//! metrics.k8s.io/v1beta1 as this server answers it, while no APIService leads to another one: get and list of
//! `nodes` and `pods`, with selectors and tables. What is asked with was authorised by the words of the path.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Sample;
use crate::cache::Cached;
use crate::negotiate::{Offer, Shape, Wanted};
use crate::request::Query;
use crate::request_info::{ObjectInfo, RequestInfo};
use crate::rest::Answer;
use crate::rest::list::Selection;
use crate::tables::{self, IncludeObject};
use crate::{State, bootstrap, reply};
use api::samples::{PodSample, Usage};
use api::selector::{FieldSelector, LabelSelector};
use api::status::Target;
use api::{ApiError, Resource, Served, meta};

const GROUP: &str = "metrics.k8s.io";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// The `APIResourceList` of the group.
pub fn resources() -> Value {
    let resource = |name: &str, kind: &str, namespaced: bool| {
        json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
            "verbs": ["get", "list"]})
    };
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION,
        "resources": [
            resource("nodes", "NodeMetrics", false),
            resource("pods", "PodMetrics", true),
        ],
    })
}

/// Answers a request below the group's path.
pub fn answer(state: &State, request: &Request<Body>) -> Answer {
    let info = RequestInfo::of(request.method(), request.uri());
    let Some(object) = info.object else {
        return Ok(reply::json(StatusCode::OK, &resources()));
    };
    let of = Of::named(&object.resource).filter(|of| of.has(&object));
    let of = of.ok_or(ApiError::NoSuchResource)?;
    if request.method() != Method::GET || info.verb == "watch" {
        return Err(ApiError::MethodNotAllowed {
            target: of.target(""),
            action: info.verb.to_owned(),
        });
    }
    let query = Query::of(request.uri());
    let wanted = Wanted::negotiate(request.headers(), &query, Offer::Text)?;
    let now = Timestamp::now();
    if object.name.is_empty() {
        let selection = of.selection(&query)?;
        let items = of.list(state, &object.namespace, &selection, now)?;
        return show(of, &wanted, List(items));
    }
    let found = state
        .objects
        .cache
        .get(of.kind()?, &object.namespace, &object.name);
    let metrics = found.and_then(|found| of.metrics(state, &found, now));
    let metrics = metrics.ok_or_else(|| ApiError::NotFound(of.target(&of.full_name(&object))))?;
    show(of, &wanted, One(metrics))
}

/// Of which objects there are metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Nodes,
    Pods,
}

use Shown::{List, One};

/// What is answered.
enum Shown {
    One(Value),
    List(Vec<Value>),
}

impl Of {
    fn named(plural: &str) -> Option<Self> {
        match plural {
            "nodes" => Some(Self::Nodes),
            "pods" => Some(Self::Pods),
            _ => None,
        }
    }

    /// Whether a path is one of this kind's.
    fn has(self, object: &ObjectInfo) -> bool {
        let named = object.namespace.is_empty() || self == Self::Pods;
        let whole = self == Self::Nodes || object.name.is_empty() || !object.namespace.is_empty();
        object.version == "v1beta1" && object.subresource.is_empty() && named && whole
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Pods => "pods",
        }
    }

    /// The name of the kind: also, in lower case, what errors call it.
    fn metrics_kind(self) -> &'static str {
        match self {
            Self::Nodes => "NodeMetrics",
            Self::Pods => "PodMetrics",
        }
    }

    /// The kind of the objects that are measured.
    fn kind(self) -> Result<&'static Arc<Resource>, ApiError> {
        bootstrap::find("", self.plural())
    }

    fn target(self, name: &str) -> Target {
        Target {
            group: GROUP.to_owned(),
            kind: self.metrics_kind().to_lowercase(),
            name: name.to_owned(),
            uid: String::new(),
        }
    }

    /// As metrics-server names an object that it does not find.
    fn full_name(self, object: &ObjectInfo) -> String {
        match self {
            Self::Nodes => object.name.clone(),
            Self::Pods => format!("{}/{}", object.namespace, object.name),
        }
    }

    /// Labels are those of the objects that are measured, as are fields, of which metrics have only the names.
    fn selection(self, query: &Query) -> Result<Selection, ApiError> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())?;
        let known: &[api::resource::Name] = match self {
            Self::Nodes => &["metadata.name".into()],
            Self::Pods => &["metadata.name".into(), "metadata.namespace".into()],
        };
        fields.check(self.metrics_kind(), known)?;
        Ok(Selection::stored(labels, fields))
    }

    fn list(
        self,
        state: &State,
        namespace: &str,
        selection: &Selection,
        now: Timestamp,
    ) -> Result<Vec<Value>, ApiError> {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let kind = self.kind()?;
        let served = Served::stored(kind);
        let cache = &state.objects.cache;
        let bucket = selection.bucket(&served.resource, namespace);
        let (_, objects) = match &bucket {
            Some(bucket) => cache.list_bucket(kind, namespace, bucket),
            None => cache.list(kind, namespace),
        };
        let selected = objects.iter().filter(|object| selection.selects(object));
        Ok(selected
            .filter_map(|object| self.metrics(state, object, now))
            .collect())
    }

    fn metrics(self, state: &State, object: &Cached, now: Timestamp) -> Option<Value> {
        match self {
            Self::Nodes => {
                let sample = state.samples.of(object.name(), now)?;
                Some(node_metrics(object, &sample))
            }
            Self::Pods => {
                let node = object.fields().get("spec.nodeName")?;
                let sample = state.samples.of(node, now)?;
                let value = reply::parse(&object.bytes()).ok()?;
                let pod = sample.pods.get(meta::uid(&value))?;
                Some(pod_metrics(object, pod, sample.at))
            }
        }
    }
}

fn node_metrics(node: &Cached, sample: &Sample) -> Value {
    let mut metrics = head(Of::Nodes, node, sample.at);
    let window = sample.window.try_into().unwrap_or_default();
    metrics["window"] = window_text(window).into();
    metrics["usage"] = usage(sample.usage);
    metrics
}

fn pod_metrics(pod: &Cached, sample: &PodSample, at: Timestamp) -> Value {
    let containers = sample.containers.iter();
    let containers = containers.map(|it| json!({"name": it.name, "usage": usage(it.usage)}));
    let mut metrics = head(Of::Pods, pod, at);
    metrics["metadata"]["namespace"] = pod.namespace().into();
    let window = i64::try_from(sample.window_ms).unwrap_or_default();
    metrics["window"] = window_text(SignedDuration::from_millis(window)).into();
    metrics["containers"] = containers.collect();
    metrics
}

fn head(of: Of, object: &Cached, at: Timestamp) -> Value {
    let mut metadata = json!({"name": object.name(), "creationTimestamp": meta::timestamp(at)});
    if !object.labels().is_empty() {
        metadata["labels"] = json!(object.labels());
    }
    json!({
        "kind": of.metrics_kind(),
        "apiVersion": API_VERSION,
        "metadata": metadata,
        "timestamp": meta::timestamp(at),
    })
}

fn usage(of: Usage) -> Value {
    json!({"cpu": of.cpu(), "memory": of.memory()})
}

/// A duration as Go writes it: `10.003s`, `1m0s`.
fn window_text(window: SignedDuration) -> String {
    let (seconds, millis) = (window.as_secs(), window.subsec_millis());
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let minutes = match minutes {
        0 => String::new(),
        minutes => format!("{minutes}m"),
    };
    let fraction = match millis {
        0 => String::new(),
        millis => format!(".{millis:03}").trim_end_matches('0').to_owned(),
    };
    format!("{minutes}{seconds}{fraction}s")
}

fn show(of: Of, wanted: &Wanted, shown: Shown) -> Answer {
    let value = match (wanted.shape, shown) {
        (Shape::Object, One(metrics)) => metrics,
        (Shape::Object, List(items)) => json!({
            "kind": format!("{}List", of.metrics_kind()), "apiVersion": API_VERSION,
            "metadata": {}, "items": items,
        }),
        (Shape::Metadata(version), One(metrics)) => tables::partial_metadata(version, metrics),
        (Shape::Metadata(version), List(items)) => {
            let items = items.into_iter();
            let items = items.map(|item| tables::partial_metadata(version, item));
            json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": {}, "items": items.collect::<Vec<_>>(),
            })
        }
        (Shape::Table(version, include), One(metrics)) => table(version, include, vec![metrics]),
        (Shape::Table(version, include), List(items)) => table(version, include, items),
    };
    reply::value_as(wanted, of.kind()?, StatusCode::OK, &value)
}

/// The columns of metrics-server.
fn table(version: &str, include: IncludeObject, items: Vec<Value>) -> Value {
    let column = |name: &str, format: &str| {
        json!({"name": name, "type": "string", "format": format, "description": "",
            "priority": 0})
    };
    let rows = items.into_iter().map(|item| {
        let cells = json!([
            item["metadata"]["name"],
            total(&item, "cpu"),
            total(&item, "memory"),
            item["window"],
        ]);
        let object = match include {
            IncludeObject::None => Value::Null,
            IncludeObject::Object => item,
            IncludeObject::Metadata => tables::partial_metadata(version, item),
        };
        json!({"cells": cells, "object": object})
    });
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {},
        "columnDefinitions": [
            column("Name", "name"),
            column("cpu", "quantity"),
            column("memory", "quantity"),
            column("Window", "duration"),
        ],
        "rows": rows.collect::<Vec<_>>(),
    })
}

/// What an object uses of a resource, in all its containers.
fn total(metrics: &Value, resource: &str) -> String {
    let containers = metrics["containers"].as_array();
    let each = containers.map_or_else(
        || vec![&metrics["usage"]],
        |all| all.iter().map(|container| &container["usage"]).collect(),
    );
    let mut sum = api::amounts::Amounts::new();
    for usage in each {
        api::amounts::add(&mut sum, &api::amounts::read(usage));
    }
    sum.get(resource)
        .map_or_else(|| "0".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_written_as_go_writes_it() {
        for (ms, text) in [
            (10_000, "10s"),
            (9_870, "9.87s"),
            (60_000, "1m0s"),
            (1, "0.001s"),
        ] {
            assert_eq!(window_text(SignedDuration::from_millis(ms)), text);
        }
    }

    #[test]
    fn a_pod_uses_what_its_containers_use() {
        let usage = |cpu: &str, memory: &str| json!({"usage": {"cpu": cpu, "memory": memory}});
        let pod = json!({"containers": [usage("1500000n", "10Ki"), usage("500000n", "1Ki")]});
        assert_eq!(
            (total(&pod, "cpu"), total(&pod, "memory")),
            ("2m".into(), "11Ki".into())
        );
        assert_eq!(total(&usage("7n", "1Ki"), "cpu"), "7n");
    }
}
