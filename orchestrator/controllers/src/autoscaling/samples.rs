//! Where metrics are read, and what is read there: metrics.k8s.io, custom.metrics.k8s.io, external.metrics.k8s.io.
//! The answers come from servers of others: what does not fit is left out, and what is left is bounded by what was
//! asked for. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{MetricIdentifier, MetricSpec};
use serde_json::Value;

use crate::object::Key;
use crate::world::World;
use api::quantity::Quantity;
use api::selector::LabelSelector;
use client::Kind;

/// What one pod uses, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub millis: f64,
    pub at: Option<Timestamp>,
    pub window: SignedDuration,
}

/// By the name of a pod.
pub type Samples = BTreeMap<String, Sample>;

/// The path of a metric, for the pods that `selector` selects. An error: its source is none.
pub fn path(
    world: &World,
    namespace: &str,
    metric: &MetricSpec,
    selector: &str,
) -> Result<String, String> {
    let pods = query("labelSelector", selector);
    let custom = version(world, "custom.metrics.k8s.io", &["v1beta2", "v1beta1"]);
    if metric.resource.is_some() || metric.container_resource.is_some() {
        let all = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        return Ok(format!("{all}?{pods}"));
    }
    if let Some(source) = &metric.pods {
        let name = segment(&source.metric.name);
        let more = more(&source.metric, "metricLabelSelector");
        return Ok(format!(
            "/apis/{custom}/namespaces/{namespace}/pods/*/{name}?{pods}{more}"
        ));
    }
    if let Some(source) = &metric.object {
        let of = &source.described_object;
        let version = of.api_version.as_deref().unwrap_or_default();
        let kind = world
            .find(version, &of.kind)
            .ok_or_else(|| format!("no matches for kind {:?} in version {version:?}", of.kind))?;
        let plural = match kind.group {
            "" => kind.plural.to_owned(),
            group => format!("{}.{group}", kind.plural),
        };
        let (object, name) = (segment(&of.name), segment(&source.metric.name));
        let place = match (kind == Kind::NAMESPACE, kind.namespaced) {
            (true, _) => format!("namespaces/{object}/metrics"),
            (_, true) => format!("namespaces/{namespace}/{plural}/{object}"),
            _ => format!("{plural}/{object}"),
        };
        let more = more(&source.metric, "metricLabelSelector");
        return Ok(format!(
            "/apis/{custom}/{place}/{name}?{}",
            more.trim_start_matches('&')
        ));
    }
    if let Some(source) = &metric.external {
        let name = segment(&source.metric.name);
        let more = more(&source.metric, "labelSelector");
        let all = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}");
        return Ok(format!("{all}/{name}?{}", more.trim_start_matches('&')));
    }
    Err(format!("unknown metric source type {:?}", metric.type_))
}

/// The first version that somebody serves.
fn version(world: &World, group: &str, versions: &[&str]) -> String {
    let is_served = |version: &&&str| {
        let name = Key::new("", &format!("{version}.{group}"));
        let kind = Kind::find("apiregistration.k8s.io/v1", "APIService");
        kind.is_some_and(|kind| world.get(kind, &name).is_some())
    };
    let served = versions.iter().find(is_served);
    format!(
        "{group}/{}",
        served.unwrap_or(&versions[versions.len() - 1])
    )
}

fn more(metric: &MetricIdentifier, parameter: &str) -> String {
    let selector = LabelSelector::from_object(metric.selector.as_ref());
    let selector = selector.ok().filter(|selector| !selector.is_everything());
    match (selector, &metric.selector) {
        (Some(_), Some(said)) => format!("&{}", query(parameter, &text(said))),
        _ => String::new(),
    }
}

/// A selector as a query has it.
fn text(selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten();
    let mut parts: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    for it in selector.match_expressions.iter().flatten() {
        let values = it.values.clone().unwrap_or_default().join(",");
        parts.push(match it.operator.as_str() {
            "In" => format!("{} in ({values})", it.key),
            "NotIn" => format!("{} notin ({values})", it.key),
            "DoesNotExist" => format!("!{}", it.key),
            _ => it.key.clone(),
        });
    }
    parts.join(",")
}

fn query(parameter: &str, value: &str) -> String {
    format!("{parameter}={}", segment(value))
}

/// Whatever could end a part of a path or query is written in percent (RFC 3986).
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").unwrap_or_default(),
        }
    }
    out
}

/// What pods use of a resource, all of their containers or one. A pod of which a container is not measured is left
/// out.
pub fn of_resource(list: &Value, resource: &str, container: Option<&str>) -> Samples {
    let mut samples = Samples::new();
    for item in list["items"].as_array().into_iter().flatten() {
        let containers = item["containers"].as_array().into_iter().flatten();
        let wanted = containers.filter(|it| container.is_none_or(|name| it["name"] == name));
        let used: Option<Vec<f64>> = wanted.map(|it| millis(&it["usage"][resource])).collect();
        let used = used.filter(|used| !used.is_empty());
        let name = item["metadata"]["name"].as_str();
        if let (Some(name), Some(used)) = (name, used) {
            let sample = Sample {
                millis: used.iter().sum(),
                at: time(&item["timestamp"]),
                window: seconds(&item["window"]),
            };
            samples.insert(name.to_owned(), sample);
        }
    }
    samples
}

/// The values of a custom metric, by the object that each is of.
pub fn of_objects(list: &Value) -> Samples {
    let items = list["items"].as_array().into_iter().flatten();
    let sample = |item: &Value| {
        let sample = Sample {
            millis: millis(&item["value"])?,
            at: time(&item["timestamp"]),
            window: SignedDuration::from_secs(item["windowSeconds"].as_i64().unwrap_or(60)),
        };
        let name = item["describedObject"]["name"].as_str()?;
        Some((name.to_owned(), sample))
    };
    items.filter_map(sample).collect()
}

/// The sum of the values of an external metric; None: there are none, or one is no number.
pub fn sum(list: &Value) -> Option<f64> {
    let items = list["items"].as_array()?;
    let values: Option<Vec<f64>> = items.iter().map(|item| millis(&item["value"])).collect();
    let values = values.filter(|values| !values.is_empty())?;
    Some(values.iter().sum())
}

/// In thousandths. Nothing is used less than not at all.
fn millis(value: &Value) -> Option<f64> {
    let quantity = Quantity::parse(value.as_str()?).ok()?;
    let is_sane = !quantity.is_negative();
    is_sane.then(|| quantity.wide_millis() as f64)
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// `1m0s` or `15s`.
fn seconds(value: &Value) -> SignedDuration {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.unwrap_or(SignedDuration::ZERO)
}
