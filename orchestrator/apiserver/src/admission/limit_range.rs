//! LimitRanges: what containers of a namespace ask for unless they say it, and how much containers, pods and
//! claims may ask for. As Kubernetes' LimitRanger does it: a pod when it is made, a claim also when
//! it changes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::reply;
use api::amounts::{self, Amounts};
use api::quantity::Quantity;
use api::quota::Usage;
use api::{ApiError, meta, pod_resources};

/// Says on a pod what it was given.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// What an object asks for, and may use at most.
#[derive(Default)]
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

/// Gives a new pod's containers what they do not say.
pub fn mutate(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
    if attributes.resource.usage != Usage::Pod || !concerns(attributes) {
        return Ok(());
    }
    for range in ranges(attributes)? {
        // What follows from a container's own limits comes first.
        attributes.resource.default(object);
        give_defaults(&range, object);
    }
    Ok(())
}

/// Whether the object keeps to every limit range of its namespace.
pub fn validate(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(object) = object.filter(|_| concerns(attributes)) else {
        return Ok(());
    };
    for range in ranges(attributes)? {
        let violations = violations(&range, attributes.resource.usage, object);
        if let Some(why) = together(violations) {
            return Err(ApiError::forbidden(
                attributes.resource,
                attributes.name,
                why,
            ));
        }
    }
    Ok(())
}

fn concerns(attributes: &Attributes<'_>) -> bool {
    let is_of_the_whole = attributes.subresource.is_none();
    let goes = attributes.old.is_some_and(meta::is_terminating);
    is_of_the_whole
        && !goes
        && match attributes.resource.usage {
            Usage::Pod => attributes.operation == Operation::Create,
            Usage::Claim => attributes.operation != Operation::Delete,
            _ => false,
        }
}

fn ranges(attributes: &Attributes<'_>) -> Result<Vec<Value>, ApiError> {
    let kind = api::find("", "v1", "limitranges").ok_or(ApiError::NoSuchResource)?;
    let cache = &attributes.state.objects.cache;
    let (_, ranges) = cache.list(kind, Some(attributes.namespace));
    ranges
        .iter()
        .map(|range| reply::parse(&range.bytes()))
        .collect()
}

fn limits_of<'a>(range: &'a Value, kind: &str) -> impl Iterator<Item = &'a Value> {
    let limits = range["spec"]["limits"].as_array().into_iter().flatten();
    limits.filter(move |limit| limit["type"] == kind)
}

fn give_defaults(range: &Value, pod: &mut Value) {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for limit in limits_of(range, "Container") {
        requests.extend(amounts::read(&limit["defaultRequest"]));
        limits.extend(amounts::read(&limit["default"]));
    }
    let mut given = Vec::new();
    for (list, word) in [
        ("containers", "container"),
        ("initContainers", "init container"),
    ] {
        let containers = pod["spec"][list].as_array_mut();
        for container in containers.into_iter().flatten() {
            let name = name_of(container);
            for (field, what, defaults) in [
                ("requests", "request", &requests),
                ("limits", "limit", &limits),
            ] {
                let names = fill(&mut container["resources"], field, defaults);
                if !names.is_empty() {
                    let names = names.join(", ");
                    given.push(format!("{names} {what} for {word} {name}"));
                }
            }
        }
    }
    if !given.is_empty() {
        let note = format!("LimitRanger plugin set: {}", given.join("; "));
        pod["metadata"]["annotations"][ANNOTATION] = note.into();
    }
}

fn name_of(container: &Value) -> String {
    container["name"].as_str().unwrap_or_default().to_owned()
}

/// Adds the amounts that a list has not; the answer is their names.
fn fill(resources: &mut Value, field: &str, defaults: &Amounts) -> Vec<String> {
    let lacks = |name: &String| resources[field].get(name).is_none_or(Value::is_null);
    let names: Vec<String> = defaults
        .keys()
        .filter(|name| lacks(name))
        .cloned()
        .collect();
    for name in &names {
        if resources.is_null() {
            *resources = json!({});
        }
        resources[field][name] = defaults[name].to_string().into();
    }
    names
}

/// What the range forbids of the object.
fn violations(range: &Value, usage: Usage, object: &Value) -> Vec<String> {
    let mut all = Vec::new();
    if usage == Usage::Claim {
        let requests = amounts::read(&object["spec"]["resources"]["requests"]);
        let asked = Asked {
            requests,
            limits: Amounts::new(),
        };
        for limit in limits_of(range, "PersistentVolumeClaim") {
            check(limit, "min", &asked, too_small, &mut all);
            check(limit, "max", &asked, too_large_a_claim, &mut all);
        }
        return all;
    }
    let spec = &object["spec"];
    for limit in limits_of(range, "Container") {
        for container in pod_resources::containers(spec) {
            check_compute(limit, &Asked::by_container(container), &mut all);
        }
    }
    for limit in limits_of(range, "Pod") {
        check_compute(limit, &Asked::by_pod(spec), &mut all);
    }
    all
}

fn check_compute(limit: &Value, asked: &Asked, all: &mut Vec<String>) {
    check(limit, "min", asked, too_small, all);
    check(limit, "max", asked, too_large, all);
    check(limit, "maxLimitRequestRatio", asked, too_far_apart, all);
}

/// Asks a rule about each amount of a list of the limit.
fn check(
    limit: &Value,
    list: &str,
    asked: &Asked,
    rule: fn(Quantity, Option<Quantity>, Option<Quantity>) -> Option<Broken>,
    all: &mut Vec<String>,
) {
    let kind = limit["type"].as_str().unwrap_or_default();
    for (name, bound) in amounts::read(&limit[list]) {
        let (request, limit) = (asked.requests.get(&name), asked.limits.get(&name));
        let broken = rule(bound, request.copied(), limit.copied());
        all.extend(broken.map(|broken| broken.text(&name, kind, bound)));
    }
}

/// How a rule is broken: what the message says before and behind the bound.
struct Broken {
    rule: Rule,
    how: String,
}

#[derive(Clone, Copy)]
enum Rule {
    Min,
    Max,
    Ratio,
}

impl Broken {
    fn new(rule: Rule, how: impl Into<String>) -> Option<Self> {
        let how = how.into();
        Some(Self { rule, how })
    }

    fn text(&self, name: &str, kind: &str, bound: Quantity) -> String {
        let how = &self.how;
        match self.rule {
            Rule::Min => format!("minimum {name} usage per {kind} is {bound}{how}"),
            Rule::Max => format!("maximum {name} usage per {kind} is {bound}{how}"),
            Rule::Ratio => format!("{name} max limit to request ratio per {kind} is {bound}{how}"),
        }
    }
}

fn too_small(
    bound: Quantity,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<Broken> {
    let Some(request) = request else {
        return Broken::new(Rule::Min, ".  No request is specified");
    };
    if request < bound {
        return Broken::new(Rule::Min, format!(", but request is {request}"));
    }
    let limit = limit.filter(|limit| *limit < bound)?;
    Broken::new(Rule::Min, format!(", but limit is {limit}"))
}

fn too_large(
    bound: Quantity,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<Broken> {
    let Some(limit) = limit else {
        return Broken::new(Rule::Max, ".  No limit is specified");
    };
    if limit > bound {
        return Broken::new(Rule::Max, format!(", but limit is {limit}"));
    }
    let request = request.filter(|request| *request > bound)?;
    Broken::new(Rule::Max, format!(", but request is {request}"))
}

/// Claims have no limits.
fn too_large_a_claim(
    bound: Quantity,
    request: Option<Quantity>,
    _: Option<Quantity>,
) -> Option<Broken> {
    let Some(request) = request else {
        return Broken::new(Rule::Max, ".  No request is specified");
    };
    let request = Some(request).filter(|request| *request > bound)?;
    Broken::new(Rule::Max, format!(", but request is {request}"))
}

fn too_far_apart(
    bound: Quantity,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<Broken> {
    let Some(request) = request.filter(|request| !request.is_zero()) else {
        let how = ", but no request is specified or request is 0";
        return Broken::new(Rule::Ratio, how);
    };
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        let how = ", but no limit is specified or limit is 0";
        return Broken::new(Rule::Ratio, how);
    };
    let most = bound.ratio_to(Quantity::from_units(1));
    let ratio = Some(limit.ratio_to(request)).filter(|ratio| *ratio > most)?;
    Broken::new(Rule::Ratio, format!(", but provided ratio is {ratio:.6}"))
}

impl Asked {
    fn by_container(container: &Value) -> Self {
        let resources = &container["resources"];
        Self {
            requests: amounts::read(&resources["requests"]),
            limits: amounts::read(&resources["limits"]),
        }
    }

    fn by_pod(spec: &Value) -> Self {
        Self {
            requests: pod_resources::requests(spec),
            limits: pod_resources::limits(spec),
        }
    }
}

/// Several reasons as one, each said once.
fn together(reasons: Vec<String>) -> Option<String> {
    let mut said = BTreeSet::new();
    let mut once = reasons;
    once.retain(|reason| said.insert(reason.clone()));
    match once.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        all => Some(format!("[{}]", all.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limit: Value) -> Value {
        json!({"spec": {"limits": [limit]}})
    }

    fn pod(requests: Value, limits: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": requests, "limits": limits}}]}})
    }

    fn refused(limit: Value, usage: Usage, object: &Value) -> String {
        together(violations(&range(limit), usage, object)).unwrap_or_default()
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let range = range(json!({"type": "Container",
            "default": {"cpu": "500m", "memory": "500Mi"}, "defaultRequest": {"cpu": "100m"}}));
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "c"}, {"name": "d", "resources": {"limits": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "1"}}}]}});
        give_defaults(&range, &mut pod);
        let spec = &pod["spec"];
        assert_eq!(
            spec["containers"],
            json!([
                {"name": "c", "resources": {"requests": {"cpu": "100m"},
                    "limits": {"cpu": "500m", "memory": "500Mi"}}},
                {"name": "d", "resources": {"requests": {"cpu": "100m"},
                    "limits": {"cpu": "1", "memory": "500Mi"}}},
            ])
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; cpu, memory limit for container c; \
             cpu request for container d; memory limit for container d; \
             cpu, memory limit for init container i"
        );
    }

    #[test]
    fn containers_are_refused_in_the_words_of_kubernetes() {
        let bound = |list: &str, amount: &str| json!({"type": "Container", list: {"cpu": amount}});
        let cpu = |amount: &str| json!({"cpu": amount});
        let none = json!({});
        let cases = [
            (
                bound("min", "50m"),
                pod(none.clone(), none.clone()),
                "minimum cpu usage per Container is 50m.  No request is specified",
            ),
            (
                bound("min", "50m"),
                pod(cpu("10m"), none.clone()),
                "minimum cpu usage per Container is 50m, but request is 10m",
            ),
            (
                bound("min", "50m"),
                pod(cpu("50m"), cpu("20m")),
                "minimum cpu usage per Container is 50m, but limit is 20m",
            ),
            (
                bound("max", "1"),
                pod(cpu("10m"), none.clone()),
                "maximum cpu usage per Container is 1.  No limit is specified",
            ),
            (
                bound("max", "1"),
                pod(cpu("10m"), cpu("2")),
                "maximum cpu usage per Container is 1, but limit is 2",
            ),
            (
                bound("max", "1"),
                pod(cpu("1500m"), cpu("1")),
                "maximum cpu usage per Container is 1, but request is 1500m",
            ),
            (
                bound("maxLimitRequestRatio", "1500m"),
                pod(cpu("500m"), cpu("1")),
                "cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000",
            ),
            (
                bound("maxLimitRequestRatio", "2"),
                pod(cpu("500m"), cpu("1")),
                "",
            ),
            (
                bound("maxLimitRequestRatio", "2"),
                pod(none.clone(), cpu("1")),
                "cpu max limit to request ratio per Container is 2, but no request is specified or \
                 request is 0",
            ),
            (
                bound("maxLimitRequestRatio", "2"),
                pod(cpu("1"), none),
                "cpu max limit to request ratio per Container is 2, but no limit is specified or \
                 limit is 0",
            ),
            (
                json!({"type": "Container", "min": {"cpu": "2", "memory": "1Gi"}}),
                pod(json!({"cpu": "1", "memory": "1Mi"}), json!({})),
                "[minimum cpu usage per Container is 2, but request is 1, \
                 minimum memory usage per Container is 1Gi, but request is 1Mi]",
            ),
        ];
        for (limit, pod, why) in cases {
            assert_eq!(refused(limit, Usage::Pod, &pod), why);
        }
    }

    #[test]
    fn a_pod_is_measured_whole() {
        let mut two = pod(json!({"cpu": "600m"}), json!({"cpu": "1"}));
        let first = two["spec"]["containers"][0].clone();
        two["spec"]["containers"] = json!([first, first]);
        let limit = json!({"type": "Pod", "max": {"cpu": "1500m"}});
        assert_eq!(
            refused(limit, Usage::Pod, &two),
            "maximum cpu usage per Pod is 1500m, but limit is 2"
        );
        let limit = json!({"type": "Pod", "min": {"cpu": "1200m"}, "max": {"cpu": "2"}});
        assert_eq!(refused(limit, Usage::Pod, &two), "");
    }

    #[test]
    fn a_claim_is_measured_by_its_request() {
        let claim = json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}}});
        let limit = |list: &str, amount: &str| json!({"type": "PersistentVolumeClaim", list: {"storage": amount}});
        assert_eq!(
            refused(limit("max", "1Gi"), Usage::Claim, &claim),
            "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Gi"
        );
        assert_eq!(
            refused(limit("min", "6Gi"), Usage::Claim, &claim),
            "minimum storage usage per PersistentVolumeClaim is 6Gi, but request is 5Gi"
        );
        assert_eq!(refused(limit("max", "5Gi"), Usage::Claim, &claim), "");
    }
}
