//! What must hold of StatefulSets and DaemonSets: once nothing moves any more, and always.

use std::collections::{BTreeMap, BTreeSet};

use api::meta;
use client::Kind;
use serde_json::{Value, json};

use super::api::Api;
use super::check::{finished, owned_by, ready};
use super::processes::label;

const REVISION: &str = "controller-revision-hash";

/// What is not as its users asked for, in words.
pub fn problems(api: &Api, problems: &mut Vec<String>) {
    for set in api.list(Kind::STATEFUL_SET) {
        check_stateful(api, set, problems);
    }
    for set in api.list(Kind::DAEMON_SET) {
        check_daemon(api, set, problems);
    }
}

/// The pods that a set controls, however they are.
pub fn pods<'a>(api: &'a Api, set: &Value) -> Vec<&'a Value> {
    let pods = api.list(Kind::POD).into_iter();
    pods.filter(|pod| owned_by(pod, set)).collect()
}

/// It serves: ready, and not asked to end.
pub fn serves(pod: &Value) -> bool {
    ready(pod) && !finished(pod) && !meta::is_terminating(pod)
}

/// How many pods of the set do not end, by the node that they are on or are for.
pub fn by_node(api: &Api, set: &Value) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pod in pods(api, set) {
        if !meta::is_terminating(pod) && !finished(pod) {
            let named = pod.pointer(
                "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                 /nodeSelectorTerms/0/matchFields/0/values/0",
            );
            let node = named.and_then(Value::as_str).expect("each is for a node");
            *counts.entry(node.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

fn check_stateful(api: &Api, set: &Value, problems: &mut Vec<String>) {
    let name = label(set);
    let (spec, status) = (&set["spec"], &set["status"]);
    let wanted = spec["replicas"].as_u64().unwrap_or(1);
    let all = pods(api, set);
    let expected: BTreeSet<String> = (0..wanted)
        .map(|ordinal| format!("{}-{ordinal}", meta::name(set)))
        .collect();
    let serving: BTreeSet<String> = all
        .iter()
        .filter(|pod| serves(pod))
        .map(|pod| meta::name(pod).to_owned())
        .collect();
    if serving != expected || all.len() != expected.len() {
        problems.push(format!(
            "{name}: {serving:?} serve of {}, {wanted} are wanted",
            all.len()
        ));
    }
    for pod in &all {
        let image = &pod["spec"]["containers"][0]["image"];
        if *image != spec["template"]["spec"]["containers"][0]["image"] {
            problems.push(format!("{}: runs {image}", label(pod)));
        }
        if pod["metadata"]["labels"][REVISION] != status["updateRevision"] {
            problems.push(format!("{}: is of another revision", label(pod)));
        }
    }
    for field in [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
    ] {
        if status[field].as_u64().unwrap_or(0) != wanted {
            problems.push(format!(
                "{name}: {field} is {}, not {wanted}",
                status[field]
            ));
        }
    }
    if status["currentRevision"] != status["updateRevision"] {
        problems.push(format!("{name}: the update is not over: {status}"));
    }
    check_revisions(api, set, problems);
}

fn check_daemon(api: &Api, set: &Value, problems: &mut Vec<String>) {
    let name = label(set);
    let nodes: BTreeSet<&str> = api.list(Kind::NODE).into_iter().map(meta::name).collect();
    let serving: Vec<&Value> = pods(api, set)
        .into_iter()
        .filter(|pod| serves(pod))
        .collect();
    let on: BTreeSet<&str> = serving
        .iter()
        .filter_map(|pod| pod["spec"]["nodeName"].as_str())
        .collect();
    if on != nodes || serving.len() != nodes.len() {
        problems.push(format!("{name}: {} pods serve on {on:?}", serving.len()));
    }
    for pod in &serving {
        let image = &pod["spec"]["containers"][0]["image"];
        if *image != set["spec"]["template"]["spec"]["containers"][0]["image"] {
            problems.push(format!("{}: runs {image}", label(pod)));
        }
    }
    for field in [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "updatedNumberScheduled",
        "numberReady",
        "numberAvailable",
    ] {
        if set["status"][field] != json!(nodes.len()) {
            problems.push(format!("{name}: {field} is {}", set["status"][field]));
        }
    }
    check_revisions(api, set, problems);
}

/// The newest revision is that of the template, and no more are kept than the limit allows.
fn check_revisions(api: &Api, set: &Value, problems: &mut Vec<String>) {
    let revisions = api.list(Kind::CONTROLLER_REVISION).into_iter();
    let mut own: Vec<&Value> = revisions.filter(|it| owned_by(it, set)).collect();
    own.sort_by_key(|it| it["revision"].as_i64());
    let image = |template: &Value| template["spec"]["containers"][0]["image"].clone();
    let newest = own.last().map(|it| image(&it["data"]["spec"]["template"]));
    if newest != Some(image(&set["spec"]["template"])) {
        problems.push(format!(
            "{}: its newest revision is of {newest:?}",
            label(set)
        ));
    }
    let limit = set["spec"]["revisionHistoryLimit"].as_u64().unwrap_or(10);
    if own.len() as u64 > limit + 1 {
        problems.push(format!("{}: has {} revisions", label(set), own.len()));
    }
    if set["status"]["observedGeneration"] != set["metadata"]["generation"] {
        problems.push(format!("{} was not observed", label(set)));
    }
}
