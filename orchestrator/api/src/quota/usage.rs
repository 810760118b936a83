//! How much of which resource an object uses.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Measured, Usage};
use crate::amounts::{self, Amounts};
use crate::annotations::{DISK_BANDWIDTH, EGRESS_BANDWIDTH, INGRESS_BANDWIDTH};
use crate::pod_resources;
use crate::quantity::Quantity;
use crate::resource::Resource;

/// What a quota of count begins with.
const COUNT: &str = "count/";

/// What containers ask for, and under which names quotas limit the requests and limits for it.
const COMPUTE: [(&str, &[&str], &str); 3] = [
    ("cpu", &["cpu", "requests.cpu"], "limits.cpu"),
    ("memory", &["memory", "requests.memory"], "limits.memory"),
    (
        "ephemeral-storage",
        &["ephemeral-storage", "requests.ephemeral-storage"],
        "limits.ephemeral-storage",
    ),
];

/// What every container must say when a quota limits it. Newer resources are not in this list: who does
/// not ask for them uses none.
const MUST_SPECIFY: [&str; 6] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];

/// What a pod is held to by an annotation, and under which name quotas limit the sum of it.
const SHAPED: [(&str, &str); 3] = [
    (
        INGRESS_BANDWIDTH,
        "requests.orchestrator.io/ingress-bandwidth",
    ),
    (
        EGRESS_BANDWIDTH,
        "requests.orchestrator.io/egress-bandwidth",
    ),
    (DISK_BANDWIDTH, "requests.orchestrator.io/disk-bandwidth"),
];

const REQUESTS: &str = "requests.";
const HUGE_PAGES: &str = "hugepages-";
const PODS: &str = "pods";

const SERVICES: &str = "services";
const LOAD_BALANCERS: &str = "services.loadbalancers";
const NODE_PORTS: &str = "services.nodeports";

const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";
/// Follows a storage class in the names of what is limited of it.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// The older names of counts.
const ALIASES: [&str; 4] = [
    "configmaps",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
];

/// The name under which objects of the kind are counted.
fn count_name(resource: &Resource) -> String {
    format!("{COUNT}{}", resource.qualified())
}

/// The group and plural of a count's name.
pub fn counted(name: &str) -> Option<(&str, &str)> {
    let qualified = name.strip_prefix(COUNT)?;
    let (plural, group) = qualified.split_once('.').unwrap_or((qualified, ""));
    Some((group, plural))
}

/// Whether the name, which is not a count's, is one of a resource that some kind uses.
pub fn is_known(name: &str) -> bool {
    let usages = [Usage::Pod, Usage::Service, Usage::Claim];
    ALIASES.contains(&name) || usages.iter().any(|usage| concerns(*usage, name))
}

/// Whether objects of the kind use what a quota limits under this name.
pub fn is_about(resource: &Resource, name: &str) -> bool {
    if name.starts_with(COUNT) {
        return resource.usage != Usage::Nothing && name == count_name(resource);
    }
    concerns(resource.usage, name)
}

fn concerns(usage: Usage, name: &str) -> bool {
    match usage {
        Usage::Nothing | Usage::Count => false,
        Usage::CountAs(alias) => name == alias,
        Usage::Service => [SERVICES, LOAD_BALANCERS, NODE_PORTS].contains(&name),
        Usage::Claim => {
            let name = name.split_once(OF_CLASS).map_or(name, |(_, what)| what);
            [CLAIMS, STORAGE].contains(&name)
        }
        Usage::Pod => {
            name == PODS
                || COMPUTE
                    .iter()
                    .any(|(_, requests, limits)| requests.contains(&name) || *limits == name)
                || name.starts_with(HUGE_PAGES)
                || name
                    .strip_prefix(REQUESTS)
                    .is_some_and(|name| name.starts_with(HUGE_PAGES) || is_extended(name))
        }
    }
}

/// All that the object uses.
pub fn of(measured: &Measured<'_>) -> Amounts {
    let Measured {
        resource, object, ..
    } = *measured;
    let one = Quantity::from_units(1);
    let mut used = match resource.usage {
        Usage::Nothing => return Amounts::new(),
        Usage::Count => Amounts::new(),
        Usage::CountAs(alias) => Amounts::from([(alias.to_owned(), one)]),
        Usage::Pod if !counts(object, measured.now) => Amounts::new(),
        Usage::Pod => {
            let mut used = of_pod(&object["spec"]);
            used.extend(shaped(object));
            used
        }
        Usage::Service => of_service(&object["spec"]),
        Usage::Claim => of_claim(object),
    };
    used.insert(count_name(resource), one);
    used
}

/// What the pod has not said that it must, because a quota limits it.
pub fn missing<'a>(measured: &Measured<'_>, names: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    if measured.resource.usage != Usage::Pod {
        return BTreeSet::new();
    }
    let shaped = shaped(measured.object);
    let unshaped = SHAPED
        .iter()
        .filter(|(_, name)| !shaped.contains_key(*name));
    let unshaped: BTreeSet<&str> = unshaped.map(|(_, name)| *name).collect();
    let spec = &measured.object["spec"];
    let of_pod = said(&spec["resources"]);
    let mut missing: BTreeSet<&str> = names.intersection(&unshaped).copied().collect();
    for container in pod_resources::containers(spec) {
        let said = said(&container["resources"]);
        let must = names.iter().filter(|name| MUST_SPECIFY.contains(name));
        missing.extend(must.filter(|name| !said.contains(*name) && !of_pod.contains(*name)));
    }
    missing
}

/// What a pod is held to: without a limit it could take all that there is.
fn shaped(pod: &Value) -> Amounts {
    let annotations = &pod["metadata"]["annotations"];
    let amounts = SHAPED.iter().filter_map(|(annotation, name)| {
        let amount = Quantity::parse(annotations[*annotation].as_str()?).ok()?;
        (amount > Quantity::ZERO).then(|| ((*name).to_owned(), amount))
    });
    amounts.collect()
}

/// The names of which requests and limits say something.
fn said(resources: &Value) -> BTreeSet<&'static str> {
    let mut said = BTreeSet::new();
    for (resource, requests, limits) in COMPUTE {
        if !resources["requests"][resource].is_null() {
            said.extend(requests);
        }
        if !resources["limits"][resource].is_null() {
            said.insert(limits);
        }
    }
    said
}

/// A pod that has ended uses nothing, nor does one that should be gone and is stuck on a lost node.
fn counts(pod: &Value, now: Timestamp) -> bool {
    let phase = pod["status"]["phase"].as_str();
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return false;
    }
    let metadata = &pod["metadata"];
    let grace = metadata["deletionGracePeriodSeconds"].as_i64();
    let deleted: Option<Timestamp> = metadata["deletionTimestamp"]
        .as_str()
        .and_then(|time| time.parse().ok());
    let (Some(deleted), Some(grace)) = (deleted, grace) else {
        return true;
    };
    let until = deleted.checked_add(SignedDuration::from_secs(grace));
    until.is_ok_and(|until| now <= until)
}

fn of_pod(spec: &Value) -> Amounts {
    let (mut requests, mut limits) = (pod_resources::requests(spec), pod_resources::limits(spec));
    let overhead = pod_resources::overhead(spec);
    amounts::add(&mut requests, &overhead);
    // What has no limit gets none from the overhead.
    let limited = overhead
        .into_iter()
        .filter(|(name, _)| limits.contains_key(name));
    let limited: Amounts = limited.collect();
    amounts::add(&mut limits, &limited);
    let mut used = Amounts::from([(PODS.to_owned(), Quantity::from_units(1))]);
    for (resource, of_requests, of_limits) in COMPUTE {
        if let Some(request) = requests.get(resource) {
            used.extend(
                of_requests
                    .iter()
                    .map(|name| ((*name).to_owned(), *request)),
            );
        }
        if let Some(limit) = limits.get(resource) {
            used.insert(of_limits.to_owned(), *limit);
        }
    }
    for (name, request) in requests {
        if name.starts_with(HUGE_PAGES) {
            used.insert(format!("{REQUESTS}{name}"), request);
            used.insert(name, request);
        } else if is_extended(&name) {
            used.insert(format!("{REQUESTS}{name}"), request);
        }
    }
    used
}

/// Devices and the like, of domains that are not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with(REQUESTS)
}

fn of_service(spec: &Value) -> Amounts {
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let with_node_port = ports.iter().filter(|port| {
        let number = port["nodePort"].as_i64();
        number.is_some_and(|number| number != 0)
    });
    let node_ports = match spec["type"].as_str() {
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => {
            with_node_port.count()
        }
        Some("LoadBalancer" | "NodePort") => ports.len(),
        _ => 0,
    };
    let balancers = i64::from(spec["type"] == "LoadBalancer");
    let amounts = [
        (SERVICES, 1),
        (LOAD_BALANCERS, balancers),
        (NODE_PORTS, node_ports as i64),
    ];
    let amounts = amounts.into_iter();
    amounts
        .map(|(name, units)| (name.to_owned(), Quantity::from_units(units)))
        .collect()
}

fn of_claim(claim: &Value) -> Amounts {
    // An older way to name the class counts first, as it does everywhere.
    let annotation = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    let class = annotation.as_str();
    let class = class.or(claim["spec"]["storageClassName"].as_str());
    let class = class.filter(|class| !class.is_empty());
    let mut used = Amounts::new();
    let mut charge = |what: &str, amount: Quantity| {
        used.insert(what.to_owned(), amount);
        if let Some(class) = class {
            used.insert(format!("{class}{OF_CLASS}{what}"), amount);
        }
    };
    charge(CLAIMS, Quantity::from_units(1));
    let asked = amounts::read(&claim["spec"]["resources"]["requests"]);
    if let Some(storage) = asked.get("storage") {
        charge(STORAGE, storage.rounded_up_to_units());
    }
    used
}
