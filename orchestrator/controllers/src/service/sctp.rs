//! SCTP's checksum covers its ports and is not rewritten on the way: a packet whose port would have
//! to change is dropped. Services that ask for it say so in a condition and an event. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::selection::{self, View, gather_any, has_sctp, target};
use crate::action::{Action, Plan};
use crate::controller::{Controller, Due, Watches};
use crate::object::Key;
use crate::world::{Address, Diff, World};
use client::Kind;

/// The condition's type; it is absent while nothing is wrong.
pub const CONDITION: &str = "SCTPPortsDiffer";
const REASON: &str = "PortTranslationUnsupported";

/// Says which ports of Services cannot be served. Its work is about a Service.
pub struct SctpController;

impl Controller for SctpController {
    fn name(&self) -> &'static str {
        "sctp"
    }

    fn account(&self) -> &'static str {
        "service-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::POD, Kind::NODE, Kind::SERVICE])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        if object.kind == Kind::SERVICE {
            due.insert((Kind::SERVICE, object.key.clone()));
            return;
        }
        selection::due(world, diff, due);
        due.retain(|(kind, key)| {
            let service = world.get(*kind, key);
            service
                .and_then(|service| service.as_service())
                .is_some_and(|service| has_sctp(service))
        });
    }

    fn plan(&mut self, world: &World, (_, key): &Address, now: Timestamp) -> Option<Plan> {
        gather(world, key).map(|view| plan(&view, now))
    }
}

/// The view of a Service that something is or was to be said about.
pub fn gather<'a>(world: &'a World, key: &Key) -> Option<View<'a>> {
    let service = world.get(Kind::SERVICE, key)?.as_service()?;
    let status = service.status.as_ref();
    let mut told = status
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let concerned = has_sctp(service) || told.any(|condition| condition.type_ == CONDITION);
    concerned.then(|| gather_any(world, key))?
}

/// Makes the condition say what is so.
pub fn plan(view: &View, now: Timestamp) -> Plan {
    if view.object.meta.deleting.is_some() {
        return Plan::default();
    }
    let problem = problem(view);
    let status = view.service.status.as_ref();
    let all = status.and_then(|status| status.conditions.as_deref());
    let (own, others): (Vec<_>, Vec<_>) = all
        .unwrap_or_default()
        .iter()
        .partition(|condition| condition.type_ == CONDITION);
    let current = own.first().copied();
    if current.map(|condition| condition.message.as_str()) == problem.as_deref() {
        return Plan::default();
    }
    let mut conditions: Vec<Value> = others.iter().map(|other| json!(other)).collect();
    let mut actions = Vec::new();
    if let Some(message) = &problem {
        conditions.push(json!(condition(view, message, current, now)));
        actions.push(Action::warning(view.object, REASON, message.clone()));
    }
    let conditions = if conditions.is_empty() {
        Value::Null
    } else {
        conditions.into()
    };
    let body = json!({"status": {"conditions": conditions}});
    actions.insert(0, Action::merge_exact(view.object, "status", body));
    Plan {
        actions,
        again: None,
    }
}

fn condition(view: &View, message: &str, current: Option<&Condition>, now: Timestamp) -> Condition {
    let since = current.map(|condition| condition.last_transition_time.0);
    Condition {
        type_: CONDITION.to_owned(),
        status: "True".to_owned(),
        reason: REASON.to_owned(),
        message: message.to_owned(),
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            since.unwrap_or(now),
        ),
        observed_generation: Some(view.object.meta.generation).filter(|number| *number > 0),
    }
}

/// What is wrong, port by port.
fn problem(view: &View) -> Option<String> {
    let spec = view.service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    let headless = spec.cluster_ip.as_deref() == Some("None");
    if external || headless {
        return None;
    }
    let ports = spec.ports.iter().flatten();
    let wrong: Vec<String> = ports
        .filter(|port| port.protocol.as_deref() == Some("SCTP"))
        .flat_map(|port| wrong(view, spec, port))
        .collect();
    (!wrong.is_empty()).then(|| {
        format!(
            "{}: SCTP's checksum covers its ports, so packets that need another port are dropped; \
             give both the same number",
            wrong.join(", ")
        )
    })
}

fn wrong(view: &View, spec: &ServiceSpec, port: &ServicePort) -> Vec<String> {
    let targets: BTreeSet<i32> = if view.pods.is_empty() {
        own_target(port).into_iter().collect()
    } else {
        let pods = view.pods.iter();
        pods.filter_map(|(_, row)| target(port, row)).collect()
    };
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let node_port = port.node_port.filter(|number| *number != 0 && !balanced);
    let fronts = [("port", Some(port.port)), ("nodePort", node_port)];
    let mut wrong = Vec::new();
    for (word, front) in fronts {
        let front = front.filter(|front| targets.iter().any(|target| target != front));
        let Some(front) = front else { continue };
        let texts: Vec<String> = targets.iter().map(ToString::to_string).collect();
        wrong.push(format!("{word} {front} leads to {}", texts.join(" and ")));
    }
    wrong
}

/// The target that needs no pod to be known.
fn own_target(port: &ServicePort) -> Option<i32> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(_)) => None,
    }
}
