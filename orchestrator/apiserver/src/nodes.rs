//! What nodes claim for themselves, and what they say of their pods. Pure but for the claims, which are
//! `addresses`'.
//!
//! A node's ranges and addresses decide where all other nodes send packets, and its pods' addresses decide
//! where Services lead. So they are the node's own or they are refused.

use serde_json::{Value, json};

use super::addresses::{self, Addresses, Holding};
use super::services::invalid;
use api::Cause;
use api::address::parse_ip;

/// Takes the ranges and addresses that a node has now and had not before; what is taken is noted.
pub fn claim(
    addresses: &Addresses,
    new: &Value,
    had: &Holding,
    taken: &mut Holding,
) -> Result<(), Vec<Cause>> {
    for (field, range) in addresses::pod_ranges(new) {
        let Some(range) = range.filter(|range| !had.pod_ranges.contains(range)) else {
            continue;
        };
        addresses
            .claim_pod_range(range)
            .map_err(|refusal| invalid(&field, &json!(range.to_string()), &refusal.to_string()))?;
        taken.pod_ranges.insert(range);
    }
    for (field, address) in addresses::internal_addresses(new) {
        if had.node_addresses.contains(&address) || taken.node_addresses.contains(&address) {
            continue;
        }
        addresses
            .claim_node_address(address)
            .map_err(|refusal| invalid(&field, &json!(address), &refusal.to_string()))?;
        taken.node_addresses.insert(address);
    }
    Ok(())
}

/// Whether a node may write this status of a pod that is bound to it: an address that is new in it lies
/// in the node's ranges of pods, or is the node's own for a pod on the node's network.
pub fn check_pod_addresses(node: &Value, new: &Value, old: &Value) -> Result<(), String> {
    let held = Holding::of(node);
    let host_network = new["spec"]["hostNetwork"] == true;
    let before: Vec<&str> = pod_addresses(old).collect();
    for text in pod_addresses(new).filter(|text| !before.contains(text)) {
        let address = parse_ip(text);
        let fits = address.is_some_and(|address| match host_network {
            true => held.node_addresses.contains(&address),
            false => held.pod_ranges.iter().any(|range| range.contains(address)),
        });
        if !fits {
            let whose = match host_network {
                true => "an address of its own to a pod on its network",
                false => "an address of its pod ranges to a pod",
            };
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            return Err(format!("node \"{name}\" can only give {whose}, not {text}"));
        }
    }
    Ok(())
}

fn pod_addresses(pod: &Value) -> impl Iterator<Item = &str> {
    let status = &pod["status"];
    let all = status["podIPs"].as_array().into_iter().flatten();
    let all = all.map(|entry| &entry["ip"]);
    let all = all.chain(std::iter::once(&status["podIP"]));
    all.filter_map(Value::as_str)
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(host_network: bool, ips: &[&str]) -> Value {
        let all: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"spec": {"hostNetwork": host_network},
            "status": {"podIP": ips.first(), "podIPs": all}})
    }

    #[test]
    fn a_node_gives_pods_only_addresses_of_its_own() {
        let node = json!({"kind": "Node", "metadata": {"name": "node-1"},
            "spec": {"podCIDRs": ["10.100.1.0/24", "fd00:100:0:1::/64"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.31.0.11"},
                {"type": "ExternalIP", "address": "192.0.2.1"}]}});
        let may = |host_network: bool, ips: &[&str]| {
            check_pod_addresses(&node, &pod(host_network, ips), &pod(host_network, &[]))
        };
        assert_eq!(may(false, &[]), Ok(()));
        assert_eq!(may(false, &["10.100.1.7", "fd00:100:0:1::7"]), Ok(()));
        assert_eq!(may(true, &["172.31.0.11"]), Ok(()));
        for stolen in [
            "10.100.2.7",
            "172.31.0.1",
            "172.31.0.11",
            "10.96.0.1",
            "::ffff:10.100.1.7",
            "nonsense",
        ] {
            assert_eq!(
                may(false, &["10.100.1.7", stolen]),
                Err(format!(
                    "node \"node-1\" can only give an address of its pod ranges to a pod, not {stolen}"
                ))
            );
        }
        for stolen in ["10.100.1.7", "172.31.0.12", "192.0.2.1"] {
            assert!(may(true, &[stolen]).is_err(), "{stolen}");
        }
        // The old field alone is read by clients, too.
        let mut first = pod(false, &["10.100.1.7"]);
        first["status"]["podIP"] = "10.100.2.7".into();
        assert!(check_pod_addresses(&node, &first, &pod(false, &[])).is_err());
    }

    #[test]
    fn what_a_pod_had_before_its_node_may_repeat() {
        let node = json!({"kind": "Node", "metadata": {"name": "node-1"}});
        let old = pod(false, &["10.100.1.7"]);
        assert_eq!(check_pod_addresses(&node, &old, &old), Ok(()));
    }
}
