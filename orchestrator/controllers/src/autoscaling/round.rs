//! One round of an autoscaler: what is to be read, and what follows from it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::Memory;
use super::behavior::Rules;
use super::proposal::{self, Context, Failure, Proposal};
use super::samples;
use crate::action::{Action, Patch, Reply};
use crate::object::{Key, Object, PodRow};
use crate::world::World;
use api::selector::LabelSelector;
use client::{Kind, PatchKind};

/// An autoscaler and the objects.
pub struct View<'a> {
    pub object: &'a Object,
    pub spec: &'a HorizontalPodAutoscalerSpec,
    pub old: HorizontalPodAutoscalerStatus,
    pub world: &'a World,
    pub now: Timestamp,
}

/// What was read by path.
type Read = BTreeMap<String, Reply>;

/// The scale of what is scaled.
struct Scale {
    kind: Kind,
    replicas: i64,
    running: i64,
    selector: String,
    revision: Value,
}

/// What a round decides.
#[derive(Default)]
struct Decision {
    conditions: Vec<(&'static str, bool, &'static str, String)>,
    metrics: Vec<Value>,
    /// The number, and why.
    change: Option<(i64, String)>,
    desired: i64,
    events: Vec<Action>,
}

impl View<'_> {
    fn target(&self) -> Option<(Kind, String)> {
        let of = &self.spec.scale_target_ref;
        let version = of.api_version.as_deref().unwrap_or_default();
        let kind = self.world.find(version, &of.kind)?;
        let namespace = &self.object.key.namespace;
        Some((kind, kind.path(namespace, &of.name, "scale")))
    }

    fn scale(&self, read: &Read) -> Result<Scale, String> {
        let of = &self.spec.scale_target_ref;
        let (kind, path) = self.target().ok_or_else(|| {
            let version = of.api_version.as_deref().unwrap_or_default();
            format!("no matches for kind {:?} in version {version:?}", of.kind)
        })?;
        let value = match read.get(&path) {
            Some(reply) => reply.as_ref().map_err(Clone::clone)?,
            None => return Err("the scale was not read".into()),
        };
        Ok(Scale {
            kind,
            replicas: value["spec"]["replicas"].as_i64().unwrap_or(0),
            running: value["status"]["replicas"].as_i64().unwrap_or(0),
            selector: value["status"]["selector"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            revision: value["metadata"]["resourceVersion"].clone(),
        })
    }

    fn bounds(&self) -> (i64, i64) {
        let least = self.spec.min_replicas.unwrap_or(1);
        (least.into(), self.spec.max_replicas.into())
    }

    fn path_of(
        &self,
        metric: &k8s_openapi::api::autoscaling::v2::MetricSpec,
        scale: &Scale,
    ) -> Result<String, String> {
        samples::path(
            self.world,
            &self.object.key.namespace,
            metric,
            &scale.selector,
        )
    }
}

/// Whether metrics decide: the number is within its bounds, and something runs.
fn asks_metrics(scale: &Scale, (least, most): (i64, i64)) -> bool {
    let is_off = scale.replicas == 0 && least != 0;
    !is_off && !scale.selector.is_empty() && (least..=most).contains(&scale.replicas)
}

/// The paths that are still to be read in this round.
pub fn missing(view: &View, read: &Read) -> Vec<String> {
    let Some((_, path)) = view.target() else {
        return Vec::new();
    };
    if !read.contains_key(&path) {
        return vec![path];
    }
    let Ok(scale) = view.scale(read) else {
        return Vec::new();
    };
    if !asks_metrics(&scale, view.bounds()) {
        return Vec::new();
    }
    let metrics = view.spec.metrics.iter().flatten();
    let paths = metrics.filter_map(|metric| view.path_of(metric, &scale).ok());
    let mut paths: Vec<String> = paths.filter(|path| !read.contains_key(path)).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// What is done at the end of a round.
pub fn finish(view: &View, read: &Read, memory: &mut Memory) -> Vec<Action> {
    memory.history.prune(view.now);
    let scale = view.scale(read);
    let mut decision = match &scale {
        Ok(scale) => decide(view, scale, read, memory),
        Err(why) => Decision {
            conditions: vec![(
                "AbleToScale",
                false,
                "FailedGetScale",
                format!("the HPA controller was unable to get the target's current scale: {why}"),
            )],
            desired: view.old.desired_replicas.into(),
            events: vec![Action::warning(view.object, "FailedGetScale", why.clone())],
            ..Decision::default()
        },
    };
    let mut actions = Vec::new();
    if let Some(error) = memory.refused.take() {
        let text = format!("the HPA controller was unable to update the target scale: {error}");
        let condition = ("AbleToScale", false, "FailedUpdateScale", text);
        decision.conditions.push(condition);
        let event = Action::warning(view.object, "FailedRescale", error);
        decision.events.push(event);
    }
    let change = decision.change.take();
    if let (Some((to, why)), Ok(scale)) = (&change, &scale) {
        memory.writing = Some((scale.replicas, *to, view.now));
        actions.push(rescale(view, scale, *to));
        let text = format!("New size: {to}; reason: {why}");
        actions.push(Action::normal(view.object, "SuccessfulRescale", text));
        let text = format!("the HPA controller was able to update the target scale to {to}");
        let condition = ("AbleToScale", true, "SucceededRescale", text);
        decision.conditions.push(condition);
    }
    actions.append(&mut decision.events);
    let current = scale.ok().map(|scale| scale.replicas);
    actions.extend(status(view, current, &decision, change.is_some()));
    actions
}

fn decide(view: &View, scale: &Scale, read: &Read, memory: &mut Memory) -> Decision {
    let (least, most) = view.bounds();
    let current = scale.replicas;
    let mut decision = Decision {
        desired: current,
        ..Decision::default()
    };
    let able = "the HPA controller was able to get the target's current scale";
    let able = ("AbleToScale", true, "SucceededGetScale", able.to_owned());
    decision.conditions.push(able);
    if current == 0 && least != 0 {
        let off = "scaling is disabled since the replica count of the target is zero";
        let off = ("ScalingActive", false, "ScalingDisabled", off.to_owned());
        decision.conditions.push(off);
        return decision;
    }
    if scale.selector.is_empty() {
        let text = "the HPA target's scale is missing a selector";
        let condition = ("ScalingActive", false, "InvalidSelector", text.to_owned());
        decision.conditions.push(condition);
        decision.events = vec![Action::warning(
            view.object,
            "SelectorRequired",
            "selector is required".into(),
        )];
        return decision;
    }
    if !(least..=most).contains(&current) {
        let (to, which) = match current > most {
            true => (most, "above Spec.MaxReplicas"),
            false => (least, "below Spec.MinReplicas"),
        };
        decision.desired = to;
        decision.change = Some((to, format!("Current number of replicas {which}")));
        return decision;
    }
    by_metrics(view, scale, read, memory, &mut decision);
    decision
}

/// The largest number that a metric asks for, held by the rules for how fast. A metric that says nothing keeps the
/// others from scaling down.
fn by_metrics(
    view: &View,
    scale: &Scale,
    read: &Read,
    memory: &mut Memory,
    decision: &mut Decision,
) {
    let rules = Rules::of(view.spec.behavior.as_ref());
    let pods = pods(view, scale);
    let context = Context {
        pods: &pods,
        current: scale.replicas as f64,
        running: scale.running as f64,
        tolerance: rules.tolerance(),
        now: view.now,
    };
    let (proposals, failures) = ask_metrics(view, scale, read, &context);
    for (reason, why) in &failures {
        let event = Action::warning(view.object, *reason, why.clone());
        decision.events.push(event);
    }
    decision.metrics = proposals.iter().map(|it| it.status.clone()).collect();
    let current = scale.replicas;
    let best = proposals
        .iter()
        .max_by(|a, b| a.replicas.total_cmp(&b.replicas));
    let wanted = best.map(|best| (best.replicas.min(f64::from(i32::MAX)) as i64, best));
    let Some((wanted, best)) = wanted.filter(|(it, _)| failures.is_empty() || *it >= current)
    else {
        refuse(view, &failures, decision);
        return;
    };
    let name = &best.name;
    let text = format!("the HPA was able to successfully calculate a replica count from {name}");
    decision
        .conditions
        .push(("ScalingActive", true, "ValidMetricFound", text));
    if memory.history.recommended.is_empty() {
        memory.history.recommended.push((view.now, current));
    }
    let (stable, reason, message) = rules.stabilized(wanted, current, &memory.history, view.now);
    memory.history.recommended.push((view.now, wanted));
    decision
        .conditions
        .push(("AbleToScale", true, reason, message.to_owned()));
    let bounds = view.bounds();
    let held = rules.limited(stable, current, bounds, &memory.history, view.now);
    let ((to, reason, message), is_limited) = held;
    decision
        .conditions
        .push(("ScalingLimited", is_limited, reason, message.to_owned()));
    decision.desired = to;
    if to != current {
        let why = match to > current {
            true => format!("{name} above target"),
            false => "All metrics below target".to_owned(),
        };
        decision.change = Some((to, why));
    }
}

/// What each metric proposes, and why others do not.
fn ask_metrics(
    view: &View,
    scale: &Scale,
    read: &Read,
    context: &Context,
) -> (Vec<Proposal>, Vec<Failure>) {
    let (mut proposals, mut failures) = (Vec::new(), Vec::new());
    for metric in view.spec.metrics.iter().flatten() {
        let (reason, _) = proposal::source(metric);
        let path = view.path_of(metric, scale).map_err(|why| (reason, why));
        let proposed = path.and_then(|path| {
            let missing = Err("it was not read".to_owned());
            proposal::of(context, metric, read.get(&path).unwrap_or(&missing))
        });
        match proposed {
            Ok(proposal) => proposals.push(proposal),
            Err(failure) => failures.push(failure),
        }
    }
    (proposals, failures)
}

/// Says that metrics do not tell how many replicas are right.
fn refuse(view: &View, failures: &[Failure], decision: &mut Decision) {
    let none = ("InvalidMetricSourceType", "there is no metric".to_owned());
    let (reason, first) = failures.first().cloned().unwrap_or(none);
    let text = format!("the HPA was unable to compute the replica count: {first}");
    let condition = ("ScalingActive", false, reason, text);
    decision.conditions.push(condition);
    let all = view.spec.metrics.iter().flatten().count();
    let bad = failures.len();
    let text = format!("invalid metrics ({bad} invalid out of {all}), first error is: {first}");
    let event = Action::warning(view.object, "FailedComputeMetricsReplicas", text);
    decision.events.push(event);
}

fn pods<'a>(view: &View<'a>, scale: &Scale) -> Vec<(&'a Object, &'a PodRow)> {
    let Ok(selector) = LabelSelector::parse(&scale.selector) else {
        return Vec::new();
    };
    let namespace = &view.object.key.namespace;
    let world: &'a World = view.world;
    let all = world.within(Kind::POD, namespace);
    let matching = all.filter(|pod| selector.matches(&pod.meta.labels));
    matching
        .filter_map(|pod| Some((pod.as_ref(), pod.as_pod()?)))
        .collect()
}

fn rescale(view: &View, scale: &Scale, to: i64) -> Action {
    let name = &view.spec.scale_target_ref.name;
    Action::Patch(Patch {
        kind: scale.kind,
        key: Key::new(&view.object.key.namespace, name),
        subresource: "scale",
        how: PatchKind::Merge,
        body: json!({
            "metadata": {"resourceVersion": scale.revision},
            "spec": {"replicas": to},
        }),
    })
}

fn status(
    view: &View,
    current: Option<i64>,
    decision: &Decision,
    has_scaled: bool,
) -> Option<Action> {
    let count = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
    let mut next = view.old.clone();
    next.observed_generation = Some(view.object.meta.generation);
    if let Some(current) = current {
        next.current_replicas = Some(count(current));
    }
    next.desired_replicas = count(decision.desired);
    let seconds = Timestamp::from_second(view.now.as_second()).unwrap_or(view.now);
    if has_scaled {
        next.last_scale_time = Some(Time(seconds));
    }
    let conditions = next.conditions.get_or_insert_default();
    for (kind, holds, reason, message) in &decision.conditions {
        let value = if *holds { "True" } else { "False" };
        let place = conditions.iter().position(|it| it.type_ == *kind);
        let place = place.unwrap_or_else(|| {
            conditions.push(HorizontalPodAutoscalerCondition {
                type_: (*kind).to_owned(),
                ..Default::default()
            });
            conditions.len() - 1
        });
        let condition = &mut conditions[place];
        if condition.status != value {
            condition.last_transition_time = Some(Time(seconds));
        }
        condition.status = value.to_owned();
        condition.reason = Some((*reason).to_owned());
        condition.message = Some(message.clone());
    }
    next.current_metrics = None;
    let (was, mut is) = (json!(view.old), json!(next));
    if !decision.metrics.is_empty() {
        is["currentMetrics"] = decision.metrics.clone().into();
    }
    if was == is {
        return None;
    }
    if decision.metrics.is_empty() {
        is["currentMetrics"] = Value::Null;
    }
    Some(Action::merge(view.object, "status", json!({"status": is})))
}
