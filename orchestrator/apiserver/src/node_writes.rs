//! What a node may say in the objects that it may write: judged when the new state is known.
//!
//! A node tells of itself: its status, its five labels, the status of its pods, its lease, events.
//! It decides nothing that others trust: where pods are placed, which addresses lead where, which key
//! is whose.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::addresses::internal_addresses;
use super::authn::User;
use super::cache::referred;
use super::services::invalid;
use super::{State, nodes};
use api::kinds::storage::local;
use api::{ApiError, Behaviour, Resource, meta};

/// The labels that an agent writes on its node. Any other one could draw pods, and with them their
/// Secrets, to the node.
const OWN_LABELS: [&str; 5] = [
    HOSTNAME,
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Refuses what a node may not write; `old` is given for changes. Other callers write as they like.
pub fn check(
    user: &User,
    resource: &Resource,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let Some(node) = user.node() else {
        return Ok(());
    };
    let refused = match resource.behaviour {
        Behaviour::Node => node_refused(node, new, old),
        Behaviour::Pod => pod_refused(node, new, old),
        Behaviour::Event => event_refused(node, new, old),
        Behaviour::Volume => volume_refused(node, new, old),
        Behaviour::NodeDrivers => (meta::name(new) != node).then(|| {
            "can only access CSINode with the same name as the requesting node".to_owned()
        }),
        Behaviour::Claim => claim_refused(node, new, old),
        Behaviour::Lease => (meta::name(new) != node).then(|| {
            "can only access node lease with the same name as the requesting node".to_owned()
        }),
        _ => None,
    };
    if let Some(why) = refused {
        return Err(ApiError::forbidden(resource, meta::name(new), why));
    }
    if resource.behaviour != Behaviour::Node {
        return Ok(());
    }
    match unproven(user, new, old) {
        Some((field, address)) => {
            let causes = invalid(&field, &json!(address), UNPROVEN);
            Err(ApiError::invalid(resource, meta::name(new), causes))
        }
        None => Ok(()),
    }
}

/// Why a node may not claim an address.
pub const UNPROVEN: &str =
    "is neither in the certificate of this node nor where its connection comes from";

/// The first address that is new in a Node and that its node does not prove to be its own.
fn unproven(user: &User, new: &Value, old: Option<&Value>) -> Option<(String, IpAddr)> {
    let before: Vec<IpAddr> = old
        .into_iter()
        .flat_map(|old| internal_addresses(old).map(|(_, address)| address))
        .collect();
    internal_addresses(new).find(|(_, address)| !before.contains(address) && !user.proves(*address))
}

fn node_refused(node: &str, new: &Value, old: Option<&Value>) -> Option<String> {
    // No rule lets a node make one either: a certificate whose Node was deleted would bring it back.
    let Some(old) = old else {
        return Some("nodes are made by joining".to_owned());
    };
    let name = meta::name(new);
    if name != node {
        return Some(format!(
            "node \"{node}\" is not allowed to modify node \"{name}\""
        ));
    }
    let (before, now) = (&old["metadata"], &new["metadata"]);
    let labels = different(&before["labels"], &now["labels"]);
    let foreign: Vec<&str> = labels
        .into_iter()
        .filter(|label| {
            let is_own = match *label {
                HOSTNAME => now["labels"][HOSTNAME] == node,
                label => OWN_LABELS.contains(&label),
            };
            let is_new = before["labels"][*label].is_null();
            !is_own && !(is_new && is_topology(label))
        })
        .collect();
    if !foreign.is_empty() {
        let labels = foreign.join(", ");
        return Some(format!(
            "node \"{node}\" is not allowed to modify labels: {labels}"
        ));
    }
    let fields = different(before, now);
    let mut changed = fields.into_iter().filter(|field| *field != "labels");
    if let Some(field) = changed.next() {
        return Some(format!(
            "node \"{node}\" is not allowed to modify metadata.{field}"
        ));
    }
    let addresses: Vec<IpAddr> = internal_addresses(new).map(|(_, it)| it).collect();
    if !one_of_each_family(&addresses) {
        return Some(format!(
            "node \"{node}\" can only have one InternalIP of each IP family"
        ));
    }
    let spec = different(&old["spec"], &new["spec"]);
    spec.into_iter().next().map(|field| match field {
        "taints" => format!("node \"{node}\" is not allowed to modify taints"),
        field => format!("node \"{node}\" is not allowed to modify spec.{field}"),
    })
}

/// Whether a label says where a node is in the eyes of a CSI driver: `topology.<driver>/…`. The node's agent writes
/// it for the driver, once; it cannot be one of Kubernetes' own.
fn is_topology(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let driver = domain.strip_prefix("topology.").unwrap_or_default();
    let is_reserved = ["kubernetes.io", "k8s.io"]
        .iter()
        .any(|reserved| driver == *reserved || driver.ends_with(&format!(".{reserved}")));
    !driver.is_empty() && !is_reserved
}

/// Of a claim, a node says how large its volume has become there.
fn claim_refused(node: &str, new: &Value, old: Option<&Value>) -> Option<String> {
    let old = old?;
    let metadata = different(&old["metadata"], &new["metadata"]);
    let metadata = metadata
        .into_iter()
        .filter(|field| *field != "resourceVersion")
        .map(|field| format!("metadata.{field}"));
    let status = different(&old["status"], &new["status"]);
    let status = status
        .into_iter()
        .filter(|field| !["capacity", "conditions"].contains(field))
        .map(|field| format!("status.{field}"));
    let field = metadata.chain(status).next()?;
    Some(format!(
        "node \"{node}\" is not allowed to modify {field} of a claim"
    ))
}

/// A node takes no more of the network between nodes: what it has, nobody else can be given.
pub fn one_of_each_family(addresses: &[IpAddr]) -> bool {
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    v4 <= 1 && addresses.len() - v4 <= 1
}

/// On a pod: the manifest of a node that it shows.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// A pod names no object by its projected volumes, and is given tokens and authorities by them.
const FOREIGN_VOLUMES: [&str; 1] = ["projected"];

/// A node makes nothing but mirrors of what it runs by itself, which draw nothing else to it (NodeRestriction of
/// Kubernetes 1.33): whatever a pod refers to, its node may read.
fn mirror_refused(node: &str, pod: &Value) -> Option<String> {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    if metadata["annotations"][MIRROR].is_null() {
        return Some(format!(
            "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"
        ));
    }
    if spec["nodeName"] != node {
        return Some(format!(
            "node \"{node}\" can only create pods with spec.nodeName set to itself"
        ));
    }
    let owners = metadata["ownerReferences"].as_array();
    let is_own = owners.is_some_and(|owners| match owners.as_slice() {
        [owner] => {
            owner["kind"] == "Node"
                && owner["apiVersion"] == "v1"
                && owner["name"] == node
                && owner["controller"] == true
                && owner["blockOwnerDeletion"] != true
        }
        _ => false,
    });
    if !is_own {
        return Some(format!(
            "node \"{node}\" can only create pods with an owner reference set to itself"
        ));
    }
    let account = spec["serviceAccountName"].as_str();
    if account.is_some_and(|name| !name.is_empty()) {
        return Some(format!(
            "node \"{node}\" can not create pods that reference a service account"
        ));
    }
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let mut foreign = volumes.filter_map(|volume| {
        let mut kinds = FOREIGN_VOLUMES.iter();
        kinds.find(|kind| !volume[**kind].is_null())
    });
    let foreign = foreign.next().copied();
    let named = referred(pod).map(|named| named.into_iter().next());
    let foreign = match named {
        Ok(named) => foreign.or(named.map(|(kind, _)| kind.plural()))?,
        Err(_) => return Some("the pod does not read".to_owned()),
    };
    Some(format!(
        "node \"{node}\" can not create pods that reference {foreign}"
    ))
}

fn pod_refused(node: &str, new: &Value, old: Option<&Value>) -> Option<String> {
    let Some(old) = old else {
        return mirror_refused(node, new);
    };
    // Another pod may have taken the name since the request was let pass.
    if old["spec"]["nodeName"] != node {
        return Some(format!(
            "node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let changed = different(&old["metadata"], &new["metadata"]);
    changed
        .into_iter()
        .next()
        .map(|field| format!("node \"{node}\" cannot update metadata.{field} through pod status"))
}

/// Of a volume on its disk, a node says how large it is, and when it is removed.
fn volume_refused(node: &str, new: &Value, old: Option<&Value>) -> Option<String> {
    let own = old.filter(|old| local::node_of(old) == Some(node));
    let Some(old) = own else {
        return Some(format!(
            "node \"{node}\" can only modify volumes on its own disk"
        ));
    };
    let (mut before, mut now) = (old.clone(), new.clone());
    let goes = meta::is_terminating(old);
    for volume in [&mut before, &mut now] {
        let annotations = volume["metadata"]["annotations"].as_object_mut();
        annotations.map(|all| all.remove(local::SIZE));
        let finalizers = volume["metadata"]["finalizers"].as_array_mut();
        if let Some(finalizers) = finalizers.filter(|_| goes) {
            finalizers.retain(|name| name != local::FINALIZER);
        }
    }
    let metadata = different(&before["metadata"], &now["metadata"]);
    let mut changed = metadata
        .into_iter()
        .filter(|field| *field != "resourceVersion")
        .map(|field| format!("metadata.{field}"))
        .chain(
            different(&before["spec"], &now["spec"])
                .into_iter()
                .map(|it| format!("spec.{it}")),
        );
    let field = changed.next()?;
    Some(format!(
        "node \"{node}\" is not allowed to modify {field} of a volume"
    ))
}

/// An event of a node says so: nobody takes it for another node's.
fn event_refused(node: &str, new: &Value, old: Option<&Value>) -> Option<String> {
    let is_own = |event: &Value| event["source"]["host"] == node;
    let allowed = is_own(new) && old.is_none_or(is_own);
    (!allowed)
        .then(|| format!("node \"{node}\" can only write events with source.host set to itself"))
}

/// The keys under which two objects differ. What is empty is as good as absent. The record of who owns which
/// field is this server's, and changes with each write.
fn different<'a>(before: &'a Value, now: &'a Value) -> BTreeSet<&'a str> {
    let keys = |object: &'a Value| object.as_object().into_iter().flatten();
    let all = keys(before).chain(keys(now));
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    all.map(|(key, _)| key.as_str())
        .filter(|key| *key != "managedFields")
        .filter(|key| {
            let (before, now) = (&before[*key], &now[*key]);
            before != now && !(is_empty(before) && is_empty(now))
        })
        .collect()
}

/// A node tells only addresses of its own for its pods.
pub fn check_pod_addresses(
    state: &State,
    user: &User,
    resource: &Resource,
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    let Some(node) = user.node() else {
        return Ok(());
    };
    if resource.behaviour != Behaviour::Pod {
        return Ok(());
    }
    let nodes = api::find("", "v1", "nodes").ok_or(ApiError::NoSuchResource)?;
    let node = state.objects.current(nodes, "", node)?.value;
    nodes::check_pod_addresses(&node, new, old)
        .map_err(|why| ApiError::forbidden(resource, meta::name(new), why))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use api::annotations;

    fn own() -> Value {
        json!({"metadata": {"name": "one", "uid": "u",
                "labels": {HOSTNAME: "one", "zone": "a"},
                "annotations": {annotations::NODE_KEY: "ab"}},
            "spec": {"podCIDR": "10.100.1.0/24", "podCIDRs": ["10.100.1.0/24"]},
            "status": {"phase": "x"}})
    }

    /// Why a change of the node's own object is refused.
    fn refused(pointer: &str, value: Value) -> String {
        let (before, mut after) = (own(), own());
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        after.pointer_mut(parent).expect("a parent")[key] = value;
        node_refused("one", &after, Some(&before)).unwrap_or_default()
    }

    #[test]
    fn a_node_changes_its_labels_that_say_what_it_runs_and_nothing_that_others_trust() {
        let mut labels = own()["metadata"]["labels"].clone();
        labels["kubernetes.io/arch"] = "arm64".into();
        assert_eq!(refused("/metadata/labels", labels), "");
        assert_eq!(refused("/status", json!({"phase": "y"})), "");
        let cases = [
            ("/metadata/labels/zone", json!("b"), "labels: zone"),
            (
                "/metadata/labels/node-restriction.kubernetes.io",
                json!("b"),
                "labels: node-r",
            ),
            (
                "/metadata/labels",
                json!({HOSTNAME: "two", "zone": "a"}),
                "labels: kubernetes.io/h",
            ),
            ("/metadata/labels", json!({HOSTNAME: "one"}), "labels: zone"),
            ("/metadata/annotations", json!({}), "metadata.annotations"),
            (
                "/metadata/finalizers",
                json!(["a/b"]),
                "metadata.finalizers",
            ),
            (
                "/metadata/ownerReferences",
                json!([{}]),
                "metadata.ownerReferences",
            ),
            ("/metadata/name", json!("two"), "node \"two\""),
            ("/spec/podCIDR", json!("10.100.2.0/24"), "spec.podCIDR"),
            ("/spec/podCIDRs", json!(["10.100.2.0/24"]), "spec.podCIDRs"),
            ("/spec/taints", json!([{"key": "k"}]), "taints"),
            ("/spec/unschedulable", json!(true), "spec.unschedulable"),
            ("/spec/providerID", json!("p"), "spec.providerID"),
            (
                "/status/addresses",
                json!([{"type": "InternalIP", "address": "172.31.0.11"},
                    {"type": "InternalIP", "address": "172.31.0.12"}]),
                "one InternalIP of each IP family",
            ),
        ];
        for (pointer, value, expected) in cases {
            let why = refused(pointer, value.clone());
            assert!(why.contains(expected), "{pointer} {value}: {why:?}");
        }
    }

    #[test]
    fn a_node_says_of_a_volume_on_its_disk_how_large_it_is_and_that_it_is_removed() {
        let volume = |node: &str| {
            json!({"metadata": {"name": "v", "deletionTimestamp": "2026-01-01T00:00:00Z",
                    "finalizers": ["a/b", local::FINALIZER]},
                "spec": {"capacity": {"storage": "1Gi"}, "csi": {"driver": local::DRIVER,
                    "volumeHandle": "v", "volumeAttributes": {"node": node}}}})
        };
        let refused = |pointer: &str, value: Value| {
            let (before, mut after) = (volume("one"), volume("one"));
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            after.pointer_mut(parent).expect("a parent")[key] = value;
            volume_refused("one", &after, Some(&before)).unwrap_or_default()
        };
        let size = json!({local::SIZE: "1"});
        assert_eq!(refused("/metadata/annotations", size), "");
        assert_eq!(refused("/metadata/finalizers", json!(["a/b"])), "");
        for (pointer, value) in [
            ("/metadata/annotations", json!({"other": "1"})),
            ("/metadata/finalizers", json!([local::FINALIZER])),
            ("/metadata/labels", json!({"a": "b"})),
            ("/spec/claimRef", json!({"name": "c"})),
            ("/spec/csi/volumeHandle", json!("other")),
        ] {
            assert!(!refused(pointer, value).is_empty(), "{pointer}");
        }
        let (theirs, mut kept) = (volume("two"), volume("one"));
        assert!(volume_refused("one", &theirs, Some(&theirs)).is_some());
        // What is not deleted keeps its finalizer.
        kept["metadata"]["deletionTimestamp"] = Value::Null;
        let mut freed = kept.clone();
        freed["metadata"]["finalizers"] = json!(["a/b"]);
        assert!(volume_refused("one", &freed, Some(&kept)).is_some());
    }

    #[test]
    fn a_node_says_once_where_csi_drivers_find_it_and_nothing_of_kubernetes_own() {
        let mut labels = own()["metadata"]["labels"].clone();
        labels["topology.ebs.example.com/zone"] = json!("a");
        assert_eq!(refused("/metadata/labels", labels), "");
        for (label, is) in [
            ("topology.hostpath.csi/node", true),
            ("topology.kubernetes.io/zone", false),
            ("topology.gke.k8s.io/zone", false),
            ("topology./zone", false),
            ("topology.x", false),
            ("zone", false),
        ] {
            assert_eq!(is_topology(label), is, "{label}");
        }
        let labelled = |value: &str| {
            let mut node = own();
            node["metadata"]["labels"]["topology.d.example.com/zone"] = json!(value);
            node
        };
        let changed = node_refused("one", &labelled("b"), Some(&labelled("a")));
        assert!(changed.is_some_and(|why| why.contains("topology.d.example.com/zone")));
        assert!(node_refused("one", &own(), Some(&labelled("a"))).is_some());
    }

    #[test]
    fn of_a_claim_a_node_says_nothing_but_its_size() {
        let claim = json!({"metadata": {"name": "c"}, "status": {"phase": "Bound",
            "capacity": {"storage": "1Gi"}}});
        let refused = |pointer: &str, value: Value| {
            let mut after = claim.clone();
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            after.pointer_mut(parent).expect("a parent")[key] = value;
            claim_refused("one", &after, Some(&claim))
        };
        assert_eq!(refused("/status/capacity", json!({"storage": "2Gi"})), None);
        assert_eq!(refused("/status/conditions", json!([])), None);
        assert!(refused("/status/phase", json!("Lost")).is_some());
        assert!(refused("/metadata/labels", json!({"a": "b"})).is_some());
    }

    #[test]
    fn a_node_makes_no_node_not_even_its_own() {
        let new = json!({"metadata": {"name": "one", "labels": {HOSTNAME: "one"}}, "spec": {}});
        assert!(node_refused("one", &new, None).is_some());
    }

    #[test]
    fn a_pods_status_takes_nothing_else_along_and_an_event_names_its_node() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "one"}, "status": {}});
        let mut labelled = pod.clone();
        labelled["metadata"]["labels"] = json!({"app": "db"});
        assert_eq!(pod_refused("one", &pod, Some(&pod)), None);
        assert!(pod_refused("one", &labelled, Some(&pod)).is_some());
        assert!(pod_refused("two", &pod, Some(&pod)).is_some());
        let (ours, theirs) = (
            json!({"source": {"host": "one"}}),
            json!({"source": {"host": "two"}}),
        );
        assert_eq!(event_refused("one", &ours, None), None);
        assert_eq!(event_refused("one", &ours, Some(&ours)), None);
        for (new, old) in [(&theirs, None), (&ours, Some(&theirs)), (&json!({}), None)] {
            assert!(event_refused("one", new, old).is_some(), "{new} {old:?}");
        }
    }
}
