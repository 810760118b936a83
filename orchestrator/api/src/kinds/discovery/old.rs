//! discovery.k8s.io/v1beta1 EndpointSlice, whose endpoints say in one map of labels where they are
//! (Kubernetes 1.21, `pkg/apis/discovery/v1beta1/conversion.go`).

use serde_json::{Value, json};

use super::endpoint_slice;
use crate::defaults::items;
use crate::kinds::old::{Face, Version};
use crate::served::{Conversion, Served};

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST_NAME: &str = "kubernetes.io/hostname";

const DISCOVERY: Version = Version {
    group: "discovery.k8s.io",
    version: "v1beta1",
    package: "discovery",
    life: Some(("1.21", "1.25")),
};

pub fn views() -> Vec<Served> {
    vec![DISCOVERY.serves(Face {
        conversion: Conversion::Pure { up, down },
        ..Face::of(endpoint_slice::resource)
    })]
}

fn up(slice: &mut Value) {
    for endpoint in items(slice, "endpoints") {
        let node = endpoint["nodeName"].clone();
        let Some(endpoint) = endpoint.as_object_mut() else {
            continue;
        };
        let Some(Value::Object(mut topology)) = endpoint.remove("topology") else {
            continue;
        };
        if let Some(zone) = topology.remove(ZONE) {
            endpoint.insert("zone".into(), zone);
        }
        // Another host name than the node's stays, and is shown again.
        if topology.get(HOST_NAME).is_some_and(|host| *host == node) {
            topology.remove(HOST_NAME);
        }
        if !topology.is_empty() {
            endpoint.insert("deprecatedTopology".into(), topology.into());
        }
        endpoint.retain(|_, value| !value.is_null());
    }
}

fn down(slice: &mut Value) {
    for endpoint in items(slice, "endpoints") {
        let Some(endpoint) = endpoint.as_object_mut() else {
            continue;
        };
        let mut topology = endpoint.remove("deprecatedTopology").unwrap_or(json!({}));
        if let Some(zone) = endpoint.remove("zone") {
            topology[ZONE] = zone;
        }
        if let Some(node) = endpoint.get("nodeName")
            && topology[HOST_NAME].is_null()
        {
            topology[HOST_NAME] = node.clone();
        }
        if topology
            .as_object()
            .is_some_and(|labels| !labels.is_empty())
        {
            endpoint.insert("topology".into(), topology);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::old::testing::{assert_same, shown, stored, view};

    fn slice(endpoint: Value) -> Value {
        json!({
            "metadata": {"name": "web-1"},
            "addressType": "IPv4",
            "endpoints": [endpoint],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        })
    }

    fn endpoint(mut rest: Value) -> Value {
        rest["addresses"] = json!(["10.0.0.1"]);
        rest["conditions"] = json!({"ready": true});
        rest
    }

    #[test]
    fn zone_and_node_are_labels_in_the_old_version() {
        let view = view("discovery.k8s.io", "v1beta1", "endpointslices");
        let old = json!({"nodeName": "n", "topology": {HOST_NAME: "n", ZONE: "a", "rack": "7"}});
        let new = json!({"nodeName": "n", "zone": "a", "deprecatedTopology": {"rack": "7"}});
        assert_same(view, slice(endpoint(old)), slice(endpoint(new)));
        let nothing = slice(endpoint(json!({})));
        assert_same(view, nothing.clone(), nothing);
    }

    #[test]
    fn a_host_name_that_is_not_the_nodes_is_kept() {
        let view = view("discovery.k8s.io", "v1beta1", "endpointslices");
        let old = json!({"nodeName": "n", "topology": {HOST_NAME: "other"}});
        let new = json!({"nodeName": "n", "deprecatedTopology": {HOST_NAME: "other"}});
        assert_same(view, slice(endpoint(old)), slice(endpoint(new)));
        // Without a node's name the label says nothing more than it did.
        let old = json!({"topology": {HOST_NAME: "n"}});
        let stored = stored(view, slice(endpoint(old.clone())));
        let kept = json!({"deprecatedTopology": {HOST_NAME: "n"}});
        assert_eq!(stored, slice(endpoint(kept)));
        assert_eq!(shown(view, stored), slice(endpoint(old)));
    }
}
