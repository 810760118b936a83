//! What a namespace holds once its controllers have done their work, without what differs from run to run: names
//! by chance, addresses, times. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// A line for each thing, by what it is of.
pub type Picture = BTreeMap<String, String>;

/// A collection, and what of its objects is in the picture.
pub struct Part {
    pub path: &'static str,
    show: fn(&[Value], &mut Picture),
}

pub const PARTS: &[Part] = &[
    part("/apis/apps/v1/{}/deployments", deployments),
    part("/apis/apps/v1/{}/replicasets", revisions),
    part("/apis/apps/v1/{}/statefulsets", stateful_sets),
    part("/apis/apps/v1/{}/daemonsets", daemon_sets),
    part("/api/v1/{}/replicationcontrollers", replication_controllers),
    part("/apis/batch/v1/{}/jobs", jobs),
    part("/api/v1/{}/pods", pods),
    part("/apis/discovery.k8s.io/v1/{}/endpointslices", endpoints),
    part("/api/v1/{}/persistentvolumeclaims", claims),
    part("/api/v1/{}/configmaps", config_maps),
    part("/api/v1/{}/serviceaccounts", accounts),
];

const fn part(path: &'static str, show: fn(&[Value], &mut Picture)) -> Part {
    Part { path, show }
}

impl Part {
    /// Adds the objects of the collection.
    pub fn show(&self, items: &[Value], picture: &mut Picture) {
        (self.show)(items, picture);
    }
}

/// The lines in which two pictures differ.
pub fn differences(wanted: &Picture, found: &Picture) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    let nothing = "nothing".to_owned();
    let differ = names.into_iter().filter_map(|name| {
        let (a, b) = (wanted.get(name), found.get(name));
        let (a, b) = (a.unwrap_or(&nothing), b.unwrap_or(&nothing));
        (a != b).then(|| format!("{name}: {b}, and not {a}"))
    });
    differ.collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// These fields of the status, and whether the status is about the newest spec.
fn statuses(kind: &str, fields: &[&str], items: &[Value], picture: &mut Picture) {
    for object in items {
        let status = &object["status"];
        let values = fields.iter().map(|field| {
            let value = status[*field].as_u64().unwrap_or(0);
            format!("{field} {value}")
        });
        let mut line: Vec<String> = values.collect();
        if status["observedGeneration"] != object["metadata"]["generation"] {
            line.push("not observed".to_owned());
        }
        picture.insert(format!("{kind} {}", name(object)), line.join(", "));
    }
}

const REPLICAS: [&str; 4] = [
    "replicas",
    "readyReplicas",
    "updatedReplicas",
    "availableReplicas",
];

fn deployments(items: &[Value], picture: &mut Picture) {
    statuses("deployment", &REPLICAS, items, picture);
}

fn stateful_sets(items: &[Value], picture: &mut Picture) {
    statuses("stateful set", &REPLICAS, items, picture);
    for object in items {
        let status = &object["status"];
        let is_new = status["currentRevision"] == status["updateRevision"];
        let line = if is_new { "all" } else { "some" };
        picture.insert(format!("updated {}", name(object)), line.to_owned());
    }
}

fn daemon_sets(items: &[Value], picture: &mut Picture) {
    let fields = [
        "desiredNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberMisscheduled",
    ];
    statuses("daemon set", &fields, items, picture);
}

fn replication_controllers(items: &[Value], picture: &mut Picture) {
    statuses("replication controller", &REPLICAS[..2], items, picture);
}

/// How often it failed depends on what was killed.
fn jobs(items: &[Value], picture: &mut Picture) {
    for object in items {
        let status = &object["status"];
        let is_over = status["completionTime"].is_string();
        let line = format!(
            "succeeded {}, active {}, over: {is_over}",
            status["succeeded"],
            status["active"].as_u64().unwrap_or(0)
        );
        picture.insert(format!("job {}", name(object)), line);
    }
}

/// How many ReplicaSets each Deployment has, and how many pods they want.
fn revisions(items: &[Value], picture: &mut Picture) {
    let mut sets: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for object in items {
        let owner = object["metadata"]["ownerReferences"][0]["name"].as_str();
        let of_owner = sets.entry(format!("revisions {}", owner.unwrap_or("nobody")));
        let (count, wanted) = of_owner.or_default();
        *count += 1;
        *wanted += object["spec"]["replicas"].as_u64().unwrap_or(0);
    }
    let lines = sets.into_iter();
    picture.extend(lines.map(|(name, (count, wanted))| (name, format!("{count} want {wanted}"))));
}

/// How many there are of each app, version and state; those that ended are told of by their Job.
fn pods(items: &[Value], picture: &mut Picture) {
    let mut groups: BTreeMap<String, u64> = BTreeMap::new();
    for pod in items {
        let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
        if matches!(phase, "Succeeded" | "Failed") && pod["metadata"]["labels"]["app"] == "work" {
            continue;
        }
        let conditions = pod["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let is_ready = conditions.any(|it| it["type"] == "Ready" && it["status"] == "True");
        let is_leaving = !pod["metadata"]["deletionTimestamp"].is_null();
        let group = format!(
            "pods {} version {} {phase}{}{}",
            pod["metadata"]["labels"]["app"],
            pod["spec"]["containers"][0]["env"][0]["value"],
            if is_ready { "" } else { ", not ready" },
            if is_leaving { ", leaving" } else { "" },
        );
        *groups.entry(group).or_default() += 1;
    }
    let lines = groups.into_iter();
    picture.extend(lines.map(|(group, count)| (group, count.to_string())));
}

fn endpoints(items: &[Value], picture: &mut Picture) {
    let mut ready: BTreeMap<String, usize> = BTreeMap::new();
    for slice in items {
        let service = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        let endpoints = endpoints.filter(|it| it["conditions"]["ready"] == true);
        *ready.entry(format!("endpoints {service}")).or_default() += endpoints.count();
    }
    let lines = ready.into_iter();
    picture.extend(lines.map(|(service, count)| (service, count.to_string())));
}

fn claims(items: &[Value], picture: &mut Picture) {
    for claim in items {
        let line = claim["status"]["phase"].as_str().unwrap_or_default();
        picture.insert(format!("claim {}", name(claim)), line.to_owned());
    }
}

fn config_maps(items: &[Value], picture: &mut Picture) {
    names("config map", items, picture);
}

fn accounts(items: &[Value], picture: &mut Picture) {
    names("service account", items, picture);
}

fn names(kind: &str, items: &[Value], picture: &mut Picture) {
    for object in items {
        picture.insert(format!("{kind} {}", name(object)), "there".to_owned());
    }
}
