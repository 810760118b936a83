//! What must hold of the objects: always, and once nothing moves any more.

use std::collections::{BTreeMap, BTreeSet};

use api::meta;
use client::Kind;
use serde_json::{Value, json};

use super::api::Api;
use super::processes::{POOL_SIZE, label};

const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// No node holds more than it has; no two nodes share addresses.
pub fn always(api: &Api) {
    let mut cpu: BTreeMap<&str, i64> = BTreeMap::new();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in api.list(Kind::POD).into_iter().filter(|pod| !finished(pod)) {
        let Some(node) = pod["spec"]["nodeName"].as_str() else {
            continue;
        };
        *cpu.entry(node).or_insert(0) += requested_cpu(pod);
        *count.entry(node).or_insert(0) += 1;
    }
    assert!(
        cpu.values().all(|millis| *millis <= 2000),
        "over-committed: {cpu:?}"
    );
    assert!(
        count.values().all(|pods| *pods <= 20),
        "too many pods: {count:?}"
    );
    for job in api.list(Kind::JOB) {
        let most = job["spec"]["parallelism"].as_u64().unwrap_or(1) as usize;
        let active = active_pods(api, job).len();
        assert!(active <= most, "{active} pods of {} are active", label(job));
    }
    kept_apart(api);
    let mut shares = BTreeSet::new();
    for node in api.list(Kind::NODE) {
        if let Some(share) = node["spec"]["podCIDR"].as_str() {
            assert!(shares.insert(share.to_owned()), "{share} was given twice");
        }
    }
    let mut balanced = BTreeSet::new();
    for address in api.list(Kind::SERVICE).into_iter().flat_map(ingress) {
        assert!(balanced.insert(address), "{address} was given twice");
    }
}

/// No pod is on a node with one that it must not be with.
fn kept_apart(api: &Api) {
    let pods = api.list(Kind::POD).into_iter();
    let placed = pods.filter(|pod| !finished(pod) && pod["spec"]["nodeName"].is_string());
    let placed: Vec<&Value> = placed.collect();
    for pod in &placed {
        let anti = &pod["spec"]["affinity"]["podAntiAffinity"];
        let terms = anti["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        for term in terms.into_iter().flatten() {
            let labels = term["labelSelector"]["matchLabels"].as_object();
            let selects = |other: &&&Value| {
                let mut labels = labels.into_iter().flatten();
                labels.all(|(key, value)| other["metadata"]["labels"][key] == *value)
            };
            let beside = placed.iter().filter(|other| {
                other["spec"]["nodeName"] == pod["spec"]["nodeName"]
                    && meta::uid(other) != meta::uid(pod)
            });
            let other = beside.filter(selects).next();
            assert!(
                other.is_none(),
                "{} is beside {:?}",
                label(pod),
                other.map(|it| label(it))
            );
        }
    }
}

/// What is not as its users asked for, in words.
pub fn problems(api: &Api) -> Vec<String> {
    let mut problems = Vec::new();
    for set in sets(api) {
        check_set(api, set, &mut problems);
    }
    for deployment in api.list(Kind::DEPLOYMENT) {
        check_deployment(api, deployment, &mut problems);
    }
    for service in api.list(Kind::SERVICE) {
        match service["spec"]["selector"].as_object() {
            Some(selector) if !selector.is_empty() => check_service(api, service, &mut problems),
            _ => check_mirror(api, service, &mut problems),
        }
    }
    api.list(Kind::JOB)
        .into_iter()
        .for_each(|job| check_job(api, job, &mut problems));
    super::sets::problems(api, &mut problems);
    check_balancers(api, &mut problems);
    check_owners(api, &mut problems);
    for node in api.list(Kind::NODE) {
        if node["spec"]["podCIDR"].is_null() {
            problems.push(format!("{} has no share of addresses", label(node)));
        }
    }
    problems
}

pub fn finished(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

pub fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The pods that `owner` controls and that count.
pub fn active_pods<'a>(api: &'a Api, owner: &Value) -> Vec<&'a Value> {
    let pods = api.list(Kind::POD).into_iter();
    pods.filter(|pod| !finished(pod) && !meta::is_terminating(pod) && owned_by(pod, owner))
        .collect()
}

pub fn sets(api: &Api) -> Vec<&Value> {
    let mut sets = api.list(Kind::REPLICA_SET);
    sets.extend(api.list(Kind::REPLICATION_CONTROLLER));
    sets
}

pub fn owned_by(object: &Value, owner: &Value) -> bool {
    meta::owner_references(object)
        .iter()
        .any(|reference| reference.uid == meta::uid(owner))
}

fn requested_cpu(pod: &Value) -> i64 {
    let text = pod["spec"]["containers"][0]["resources"]["requests"]["cpu"].as_str();
    let text = text.unwrap_or("0");
    text.strip_suffix('m').map_or_else(
        || text.parse::<i64>().expect("whole CPUs") * 1000,
        |millis| millis.parse().expect("millis"),
    )
}

fn check_set(api: &Api, set: &Value, problems: &mut Vec<String>) {
    let pods = active_pods(api, set);
    let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
    let ready = pods.iter().filter(|pod| ready(pod)).count();
    if pods.len() != wanted || ready != wanted {
        problems.push(format!(
            "{}: {wanted} wanted, {} there, {ready} ready",
            label(set),
            pods.len()
        ));
    }
    let told = set["status"]["readyReplicas"].as_u64().unwrap_or(0) as usize;
    if told != ready || set["status"]["observedGeneration"] != set["metadata"]["generation"] {
        problems.push(format!("{} tells of {told} ready, {ready} are", label(set)));
    }
}

/// The Job is over, and every pod that ended while it had the finalizer is counted once.
fn check_job(api: &Api, job: &Value, problems: &mut Vec<String>) {
    let mut ended = BTreeSet::new();
    let log = api.log.iter().filter(|entry| entry.kind == Kind::POD);
    for pod in log.map(|entry| &entry.object) {
        let is_tracked = meta::finalizers(pod).iter().any(|it| it == TRACKING);
        let is_over = finished(pod) || meta::is_terminating(pod);
        if is_tracked && is_over && owned_by(pod, job) {
            ended.insert(meta::uid(pod));
        }
    }
    let status = &job["status"];
    let number = |field: &str| status[field].as_u64().unwrap_or(0);
    let (succeeded, failed) = (number("succeeded"), number("failed"));
    let wanted = job["spec"]["completions"].as_u64().unwrap_or(0);
    let is_indexed = job["spec"]["completionMode"] == "Indexed";
    let total = (succeeded + failed) as usize;
    if succeeded < wanted || (!is_indexed && total != ended.len()) {
        problems.push(format!(
            "{}: {wanted} wanted, {succeeded} succeeded, {failed} failed, of {} that ended: {status}",
            label(job),
            ended.len()
        ));
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    if !conditions.into_iter().any(|it| it["type"] == "Complete") {
        problems.push(format!("{} is not complete: {status}", label(job)));
    }
}

fn check_deployment(api: &Api, deployment: &Value, problems: &mut Vec<String>) {
    let name = label(deployment);
    let sets: Vec<&Value> = api
        .list(Kind::REPLICA_SET)
        .into_iter()
        .filter(|set| owned_by(set, deployment))
        .collect();
    let image =
        |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    for set in &sets {
        let is_new = image(set) == image(deployment);
        let right = if is_new { wanted } else { 0 };
        if set["spec"]["replicas"] != json!(right) {
            problems.push(format!(
                "{name}: {} has {}",
                label(set),
                set["spec"]["replicas"]
            ));
        }
    }
    if !sets.iter().any(|set| image(set) == image(deployment)) {
        problems.push(format!("{name} has no set of its template"));
    }
    let status = &deployment["status"];
    for field in [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
    ] {
        if status[field].as_u64().unwrap_or(0) != wanted {
            problems.push(format!(
                "{name}: {field} is {}, not {wanted}",
                status[field]
            ));
        }
    }
    if status["observedGeneration"] != deployment["metadata"]["generation"] {
        problems.push(format!("{name} was not observed"));
    }
}

fn check_service(api: &Api, service: &Value, problems: &mut Vec<String>) {
    let selector = service["spec"]["selector"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let selects = |pod: &&Value| {
        selector
            .iter()
            .all(|(key, value)| pod["metadata"]["labels"][key] == *value)
    };
    let serving = |pod: &&Value| !finished(pod) && !meta::is_terminating(pod) && ready(pod);
    let pods = api
        .list(Kind::POD)
        .into_iter()
        .filter(selects)
        .filter(serving);
    let expected: BTreeSet<&str> = pods
        .filter_map(|pod| pod["status"]["podIP"].as_str())
        .collect();
    let slices = api
        .list(Kind::ENDPOINT_SLICE)
        .into_iter()
        .filter(|s| owned_by(s, service));
    let mut told = Vec::new();
    for endpoint in slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten()) {
        if endpoint["conditions"]["ready"] == json!(true) {
            told.extend(endpoint["addresses"][0].as_str());
        }
    }
    if told.len() != expected.len() || told.into_iter().collect::<BTreeSet<_>>() != expected {
        problems.push(format!("{}: its slices are not its pods", label(service)));
    }
    let name = (meta::namespace(service), meta::name(service));
    let endpoints = api.get(Kind::ENDPOINTS, name.0, name.1);
    let subsets = endpoints.and_then(|endpoints| endpoints["subsets"].as_array());
    let subsets = subsets.into_iter().flatten();
    let addresses = subsets.flat_map(|subset| subset["addresses"].as_array().into_iter().flatten());
    if addresses
        .filter_map(|a| a["ip"].as_str())
        .collect::<BTreeSet<_>>()
        != expected
    {
        problems.push(format!(
            "{}: its Endpoints are not its pods",
            label(service)
        ));
    }
}

/// The Endpoints of a Service without selector are what its slices say.
fn check_mirror(api: &Api, service: &Value, problems: &mut Vec<String>) {
    let (namespace, name) = (meta::namespace(service), meta::name(service));
    let endpoints = api.get(Kind::ENDPOINTS, namespace, name);
    let subsets = endpoints.and_then(|endpoints| endpoints["subsets"].as_array());
    let mut wanted = BTreeSet::new();
    for subset in subsets.into_iter().flatten() {
        for (list, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            let addresses = subset[list].as_array().into_iter().flatten();
            wanted.extend(addresses.filter_map(|address| Some((address["ip"].as_str()?, ready))));
        }
    }
    let slices = api.list(Kind::ENDPOINT_SLICE).into_iter();
    let slices = slices.filter(|slice| {
        let of = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
        of == name && meta::namespace(slice) == namespace
    });
    let mut told = Vec::new();
    for slice in slices {
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        told.extend(endpoints.filter_map(|endpoint| {
            let ready = endpoint["conditions"]["ready"] == true;
            Some((endpoint["addresses"][0].as_str()?, ready))
        }));
    }
    if told.len() != wanted.len() || told.into_iter().collect::<BTreeSet<_>>() != wanted {
        let name = label(service);
        problems.push(format!("{name}: its slices are not its Endpoints"));
    }
}

/// The addresses that a load balancer's status has.
pub fn ingress(service: &Value) -> Vec<&str> {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    let ingress = ingress.into_iter().flatten();
    ingress.filter_map(|entry| entry["ip"].as_str()).collect()
}

/// Whoever is to have an address has one, unless all are taken; nobody else has any.
fn check_balancers(api: &Api, problems: &mut Vec<String>) {
    let services = api.list(Kind::SERVICE);
    let taken = services.iter().flat_map(|service| ingress(service)).count();
    for service in services {
        let has = ingress(service).len();
        let right = match service["spec"]["type"].as_str() {
            Some("LoadBalancer") => has == 1 || (has == 0 && taken == POOL_SIZE),
            _ => has == 0,
        };
        if !right {
            let name = label(service);
            problems.push(format!("{name} has {has} addresses, {taken} are taken"));
        }
    }
}

/// Nothing is left of what is gone.
fn check_owners(api: &Api, problems: &mut Vec<String>) {
    let all = || {
        Kind::watched()
            .iter()
            .copied()
            .flat_map(|kind| api.list(kind))
    };
    let uids: BTreeSet<&str> = all().map(meta::uid).collect();
    for object in all() {
        let owners = meta::owner_references(object);
        if !owners.is_empty()
            && owners
                .iter()
                .all(|owner| !uids.contains(owner.uid.as_str()))
        {
            problems.push(format!("{} has lost its owner", label(object)));
        }
        if meta::is_terminating(object) {
            problems.push(format!("{} does not end", label(object)));
        }
    }
}
