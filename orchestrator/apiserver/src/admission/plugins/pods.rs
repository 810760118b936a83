//! What some clusters want of all pods: images that are asked for each time, so that nobody runs one that
//! only others on the node may pull; anti-affinity by node alone.

use serde_json::Value;

use super::{forbidden, is_pod};
use crate::admission::{Attributes, Operation};
use api::ApiError;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// AlwaysPullImages: sets the policy of containers and image volumes.
pub fn always_pull(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !pulls(attributes, pod) {
        return Ok(());
    }
    let spec = &mut pod["spec"];
    for list in LISTS {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            container["imagePullPolicy"] = "Always".into();
        }
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        if volume["image"].is_object() {
            volume["image"]["pullPolicy"] = "Always".into();
        }
    }
    Ok(())
}

/// AlwaysPullImages: what others have changed meanwhile.
pub fn check_pull(attributes: &Attributes<'_>, pod: Option<&Value>) -> Result<(), ApiError> {
    let Some(pod) = pod.filter(|pod| pulls(attributes, pod)) else {
        return Ok(());
    };
    let policies = LISTS.iter().flat_map(|list| {
        let containers = pod["spec"][*list].as_array().into_iter().flatten();
        let policies = containers.map(|container| &container["imagePullPolicy"]);
        let path = move |index| format!("spec.{list}[{index}].imagePullPolicy");
        let policies = policies.enumerate();
        policies.map(move |(index, policy)| (path(index), policy))
    });
    let mut others = policies.filter(|(_, policy)| **policy != "Always");
    match others.next() {
        Some((path, policy)) => {
            let policy = policy.as_str().unwrap_or_default();
            let why =
                format!("{path}: Unsupported value: {policy:?}: supported values: \"Always\"");
            Err(forbidden(attributes, why))
        }
        None => Ok(()),
    }
}

/// A pod that comes without a new image may keep the policy that it was let in with.
fn pulls(attributes: &Attributes<'_>, pod: &Value) -> bool {
    let is_for_images = is_pod(attributes)
        || attributes
            .subresource
            .is_some_and(|sub| sub.name() == "ephemeralcontainers");
    if !is_for_images {
        return false;
    }
    let Some(old) = attributes
        .old
        .filter(|_| attributes.operation == Operation::Update)
    else {
        return true;
    };
    let before: Vec<&Value> = images(old).collect();
    images(pod).any(|image| !before.contains(&image))
}

fn images(pod: &Value) -> impl Iterator<Item = &Value> {
    let containers = LISTS.iter().flat_map(|list| pod["spec"][*list].as_array());
    let of_containers = containers.flatten().map(|container| &container["image"]);
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let of_volumes = volumes.map(|volume| &volume["image"]["reference"]);
    of_containers.chain(of_volumes.filter(|image| image.is_string()))
}

/// LimitPodHardAntiAffinityTopology: a pod that keeps others out of a whole zone is refused.
pub fn check_topology(attributes: &Attributes<'_>, pod: Option<&Value>) -> Result<(), ApiError> {
    const HOSTNAME: &str = "kubernetes.io/hostname";
    let Some(pod) = pod.filter(|_| is_pod(attributes)) else {
        return Ok(());
    };
    let anti_affinity = &pod["spec"]["affinity"]["podAntiAffinity"];
    let terms = anti_affinity["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
    let mut keys = terms.into_iter().flatten().map(|term| &term["topologyKey"]);
    match keys.find(|key| **key != HOSTNAME) {
        Some(key) => {
            let key = key.as_str().unwrap_or_default();
            let why = format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only \
                 key {HOSTNAME} is allowed"
            );
            Err(forbidden(attributes, why))
        }
        None => Ok(()),
    }
}
