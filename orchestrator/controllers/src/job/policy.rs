//! What failures and successes of single pods mean for the whole Job: `podFailurePolicy` (KEP-3329) and
//! `successPolicy` (KEP-3998). Pure.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    SuccessPolicyRule,
};

use super::indexes::Indexes;
use super::view::Pod;

/// What a rule makes of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It counts as any failure does.
    Counts,
    Ignored,
    FailsIndex,
    /// With the sentence for the Job's condition.
    FailsJob(String),
}

impl Failure {
    pub fn counts(&self) -> bool {
        *self != Self::Ignored
    }
}

/// What the first rule that fits says of a failed pod.
pub fn failure(spec: &JobSpec, pod: &Pod) -> Failure {
    let rules = spec.pod_failure_policy.iter();
    let rules = rules.flat_map(|policy| &policy.rules).enumerate();
    for (place, rule) in rules {
        let by_exit = rule.on_exit_codes.as_ref();
        let found = by_exit.and_then(|demand| exit(demand, pod)).or_else(|| {
            let mut patterns = rule.on_pod_conditions.iter().flatten();
            patterns.find_map(|pattern| condition(pattern, pod))
        });
        let Some(what) = found else { continue };
        let action = rule.action.as_str();
        return match action {
            "Ignore" => Failure::Ignored,
            "FailIndex" => Failure::FailsIndex,
            "FailJob" => {
                Failure::FailsJob(format!("{what} matching {action} rule at index {place}"))
            }
            _ => Failure::Counts,
        };
    }
    Failure::Counts
}

fn exit(demand: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<String> {
    let wanted = |(name, code): &&(String, i32)| {
        let named = demand.container_name.as_ref();
        let is_in = demand.values.contains(code);
        named.is_none_or(|it| it == name) && is_in == (demand.operator == "In")
    };
    let (name, code) = pod.job.exits.iter().find(wanted)?;
    let key = &pod.object.key;
    Some(format!(
        "Container {name} for pod {}/{} failed with exit code {code}",
        key.namespace, key.name
    ))
}

fn condition(pattern: &PodFailurePolicyOnPodConditionsPattern, pod: &Pod) -> Option<String> {
    let mut conditions = pod.job.conditions.iter();
    let (type_, _) =
        conditions.find(|(type_, status)| *type_ == pattern.type_ && *status == pattern.status)?;
    let key = &pod.object.key;
    Some(format!(
        "Pod {}/{} has condition {type_}",
        key.namespace, key.name
    ))
}

/// Which rule of the success policy the succeeded indexes meet, as a sentence.
pub fn success(spec: &JobSpec, done: &Indexes, completions: u32) -> Option<String> {
    let rules = &spec.success_policy.as_ref()?.rules;
    let meets = |rule: &SuccessPolicyRule| {
        let named = rule.succeeded_indexes.as_ref();
        let named = named.map(|text| Indexes::parse(text, completions));
        let count = rule
            .succeeded_count
            .map(|count| u64::try_from(count).unwrap_or(0));
        match (named, count) {
            (Some(named), count) => done.common(&named) >= count.unwrap_or(named.len()),
            (None, Some(count)) => done.len() >= count,
            (None, None) => false,
        }
    };
    let place = rules.iter().position(meets)?;
    Some(format!("Matched rules at index {place}"))
}
