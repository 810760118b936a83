//! What each metric of an autoscaler proposes. Pure.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{MetricSpec, MetricTarget};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use serde_json::{Value, json};

use super::samples::{self, Samples};
use super::usage::{self, Aim, Answer, PodRef, Tolerance};
use crate::action::Reply;
use crate::object::Phase;
use api::quantity::Quantity;

/// How many replicas a metric is for, what it is called, and what the status says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub replicas: f64,
    pub name: String,
    pub status: Value,
}

/// Why a metric proposes nothing: a condition's reason and a sentence.
pub type Failure = (&'static str, String);

/// What metrics are looked at with.
pub struct Context<'a> {
    pub pods: &'a [PodRef<'a>],
    /// As the scale's spec says.
    pub current: f64,
    /// As its status says.
    pub running: f64,
    pub tolerance: Tolerance,
    pub now: Timestamp,
}

/// What one metric proposes, from what was answered.
pub fn of(context: &Context, metric: &MetricSpec, reply: &Reply) -> Result<Proposal, Failure> {
    let (reason, what) = source(metric);
    let list = reply
        .as_ref()
        .map_err(|why| (reason, format!("failed to get {what}: {why}")));
    let list = list?;
    let proposed = if let Some(it) = &metric.resource {
        let samples = samples::of_resource(list, &it.name, None);
        of_resource(context, (&it.name, None), &it.target, samples)
    } else if let Some(it) = &metric.container_resource {
        let samples = samples::of_resource(list, &it.name, Some(&it.container));
        of_resource(
            context,
            (&it.name, Some(&it.container)),
            &it.target,
            samples,
        )
    } else if let Some(it) = &metric.pods {
        of_pods(
            context,
            &it.metric.name,
            &it.target,
            samples::of_objects(list),
        )
    } else if let Some(it) = &metric.object {
        let mut status = json!({"type": "Object", "object": {
            "metric": it.metric, "describedObject": it.described_object}});
        let name = format!("{} metric {}", it.described_object.kind, it.metric.name);
        let value = samples::of_objects(list);
        let value = value.values().next().map(|sample| sample.millis);
        of_value(context, &it.target, value).map(|(replicas, current)| {
            status["object"]["current"] = current;
            proposal(replicas, name, status)
        })
    } else if let Some(it) = &metric.external {
        let mut status = json!({"type": "External", "external": {"metric": it.metric}});
        let name = format!("external metric {}", it.metric.name);
        of_value(context, &it.target, samples::sum(list)).map(|(replicas, current)| {
            status["external"]["current"] = current;
            proposal(replicas, name, status)
        })
    } else {
        Err("unknown metric source type".into())
    };
    proposed.map_err(|why| (reason, format!("failed to get {what}: {why}")))
}

/// The reason of a failure, and what was not got.
pub fn source(metric: &MetricSpec) -> (&'static str, String) {
    if let Some(it) = &metric.resource {
        (
            "FailedGetResourceMetric",
            format!("{} utilization", it.name),
        )
    } else if let Some(it) = &metric.container_resource {
        (
            "FailedGetContainerResourceMetric",
            format!("{} utilization", it.name),
        )
    } else if let Some(it) = &metric.pods {
        (
            "FailedGetPodsMetric",
            format!("pods metric value {}", it.metric.name),
        )
    } else if let Some(it) = &metric.object {
        (
            "FailedGetObjectMetric",
            format!("object metric value {}", it.metric.name),
        )
    } else if let Some(it) = &metric.external {
        (
            "FailedGetExternalMetric",
            format!("{} external metric", it.metric.name),
        )
    } else {
        ("InvalidMetricSourceType", "metric".to_owned())
    }
}

fn proposal(replicas: f64, name: String, status: Value) -> Proposal {
    Proposal {
        replicas,
        name,
        status,
    }
}

fn of_resource(
    context: &Context,
    (resource, container): (&str, Option<&str>),
    target: &MetricTarget,
    samples: Samples,
) -> Result<Proposal, String> {
    let noun = match container {
        None => format!("{resource} resource"),
        Some(_) => format!("{resource} container resource"),
    };
    let (aim, name) = match (target.average_value.as_ref(), target.average_utilization) {
        (Some(average), _) => (Aim::Average(millis(average)?), noun),
        (None, Some(percent)) => {
            let percent = u32::try_from(percent).unwrap_or(0);
            let name = format!("{noun} utilization (percentage of request)");
            (Aim::Utilization(percent, resource, container), name)
        }
        (None, None) => {
            return Err(
                "invalid resource metric source: neither an average utilization target nor \
                        an average value target was set"
                    .into(),
            );
        }
    };
    let answer = ask(context, samples, aim, resource == "cpu")?;
    let current = current(&answer, resource);
    let status = match container {
        None => json!({"type": "Resource", "resource": {"name": resource, "current": current}}),
        Some(container) => json!({"type": "ContainerResource", "containerResource": {
            "name": resource, "container": container, "current": current}}),
    };
    Ok(proposal(answer.replicas, name, status))
}

fn of_pods(
    context: &Context,
    metric: &str,
    target: &MetricTarget,
    samples: Samples,
) -> Result<Proposal, String> {
    let average = target.average_value.as_ref();
    let average = average.ok_or("invalid pods metric source: no average value was set")?;
    let answer = ask(context, samples, Aim::Average(millis(average)?), false)?;
    let current = json!({"averageValue": amount(answer.average)});
    let status = json!({"type": "Pods", "pods": {"metric": {"name": metric}, "current": current}});
    Ok(proposal(
        answer.replicas,
        format!("pods metric {metric}"),
        status,
    ))
}

fn ask(context: &Context, samples: Samples, aim: Aim, is_cpu: bool) -> Result<Answer, String> {
    let (current, tolerance) = (context.current, context.tolerance);
    usage::replicas(
        context.pods,
        samples,
        aim,
        is_cpu,
        current,
        tolerance,
        context.now,
    )
}

/// A value that is not of single pods: as such, or shared by all.
fn of_value(
    context: &Context,
    target: &MetricTarget,
    value: Option<f64>,
) -> Result<(f64, Value), String> {
    let used = value.ok_or("no metrics returned")?;
    let (current, running) = (context.current, context.running);
    if let Some(wanted) = &target.value {
        let ratio = used / above_zero(millis(wanted)?)?;
        let replicas = match current > 0.0 {
            true if context.tolerance.spares(ratio) => current,
            true => (ratio * ready(context)?).ceil(),
            false => ratio.ceil(),
        };
        return Ok((replicas, json!({"value": amount(used)})));
    }
    let wanted = target.average_value.as_ref();
    let wanted = wanted.ok_or("neither a value target nor an average value target was set")?;
    let wanted = above_zero(millis(wanted)?)?;
    let ratio = used / (wanted * running);
    let replicas = match running > 0.0 && context.tolerance.spares(ratio) {
        true => running,
        false => (used / wanted).ceil(),
    };
    let average = used / running.max(1.0);
    Ok((replicas, json!({"averageValue": amount(average)})))
}

fn ready(context: &Context) -> Result<f64, String> {
    let pods = context.pods.iter();
    let ready = pods.filter(|(_, row)| row.phase == Phase::Running && row.ready);
    match context.pods.is_empty() {
        true => Err("no pods returned by selector while calculating replica count".into()),
        false => Ok(ready.count() as f64),
    }
}

fn above_zero(wanted: f64) -> Result<f64, String> {
    match wanted > 0.0 {
        true => Ok(wanted),
        false => Err("the target is not above zero".into()),
    }
}

fn current(answer: &Answer, resource: &str) -> Value {
    let average = match resource {
        "cpu" => amount(answer.average),
        _ => Value::from(format!("{}", (answer.average / 1000.0).floor())),
    };
    let mut current = json!({"averageValue": average});
    if let Some(percent) = answer.percent {
        current["averageUtilization"] = json!(percent.min(f64::from(i32::MAX)) as i32);
    }
    current
}

fn millis(amount: &Amount) -> Result<f64, String> {
    let parsed = Quantity::parse(&amount.0).map_err(|error| error.to_string());
    parsed.map(|quantity| quantity.wide_millis() as f64)
}

/// Thousandths as a quantity.
fn amount(millis: f64) -> Value {
    Quantity::from_millis(millis.floor() as i64)
        .to_string()
        .into()
}
