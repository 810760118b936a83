//! What the agents of nodes may do: a table, beside the roles that others have.
//!
//! A node reads and writes what the rows of `NODE_RULES` say, and what it writes is looked at again by
//! `node_writes`. Its rights are those of the key with which it joined.

use super::{Attributes, Wish};
use crate::State;
use crate::authn::User;
use crate::cache::{Cached, Referent};
use crate::registry::Snapshot;
use crate::reply;
use crate::request::{Target, Verb};
use crate::{applied, samples};
use api::kinds::storage::local;
use api::{ApiError, Behaviour, Subresource};

/// Where nodes' leases live.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// One thing that a node may do; what has no row is refused.
struct Rule {
    group: &'static str,
    plural: &'static str,
    subresource: Option<Subresource>,
    verbs: &'static [Verb],
    whose: Whose,
}

/// Which objects of a resource a rule is about.
#[derive(Clone, Copy)]
enum Whose {
    /// All of them.
    All,
    /// All of them, of which other nodes' are trimmed: no selector may ask for what is cut.
    Peers,
    /// The one with the node's name.
    Own,
    /// A new one: `node_writes` looks at its name.
    New,
    /// A pod that is bound to the node.
    Bound,
    /// The pods that are bound to the node, by the selector that says so.
    AllBound,
    /// The one that a bound pod refers to.
    Referred,
    /// A Secret that a bound pod refers to, or that the volume of one of its claims does.
    Secret,
    /// The attachment of a volume to the node.
    Attached,
    /// A volume whose claim a bound pod refers to, or that is on the node's own disk.
    Volume,
    /// A volume that is on the node's own disk: `node_writes` looks at what changes.
    OwnVolume,
    /// The node's own lease.
    OwnLease,
    /// A new one in that namespace.
    NewLease,
}

const READ: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];
const CHANGE: &[Verb] = &[Verb::Update, Verb::Patch];

/// Everything that an agent asks for.
static NODE_RULES: &[Rule] = &[
    rule("", "nodes", READ, Whose::Peers),
    rule("", "nodes", CHANGE, Whose::Own),
    status("nodes", Whose::Own),
    // Mirrors of its static pods.
    rule("", "pods", &[Verb::Create], Whose::New),
    rule("", "pods", &[Verb::Get, Verb::Delete], Whose::Bound),
    rule("", "pods", &[Verb::List, Verb::Watch], Whose::AllBound),
    status("pods", Whose::Bound),
    rule("", "configmaps", READ, Whose::Referred),
    rule("", "secrets", READ, Whose::Secret),
    rule("", "serviceaccounts", READ, Whose::Referred),
    Rule {
        subresource: Some(Subresource::Token),
        ..rule("", "serviceaccounts", &[Verb::Create], Whose::Referred)
    },
    rule("", "persistentvolumeclaims", &[Verb::Get], Whose::Referred),
    rule("", "persistentvolumes", READ, Whose::Volume),
    rule("", "persistentvolumes", &[Verb::Patch], Whose::OwnVolume),
    // A volume of a CSI driver has become larger.
    status("persistentvolumeclaims", Whose::Referred),
    rule(STORAGE_GROUP, "csidrivers", &[Verb::Get], Whose::All),
    rule(STORAGE_GROUP, "csinodes", &[Verb::Create], Whose::New),
    rule(STORAGE_GROUP, "csinodes", &[Verb::Get], Whose::Own),
    rule(STORAGE_GROUP, "csinodes", CHANGE, Whose::Own),
    rule(
        STORAGE_GROUP,
        "volumeattachments",
        &[Verb::Get],
        Whose::Attached,
    ),
    rule("", "services", READ, Whose::All),
    rule("discovery.k8s.io", "endpointslices", READ, Whose::All),
    rule("node.k8s.io", "runtimeclasses", READ, Whose::All),
    rule(
        "certificates.k8s.io",
        "clustertrustbundles",
        READ,
        Whose::All,
    ),
    rule("", "events", &[Verb::Create], Whose::New),
    rule("", "events", &[Verb::Patch], Whose::All),
    rule(LEASE_GROUP, "leases", &[Verb::Get], Whose::OwnLease),
    rule(LEASE_GROUP, "leases", &[Verb::Create], Whose::NewLease),
    rule(LEASE_GROUP, "leases", CHANGE, Whose::OwnLease),
];

/// What the paths begin with that are the nodes' own.
const NODE_PATHS: [&str; 2] = [applied::PREFIX, samples::PATH];

const LEASE_GROUP: &str = "coordination.k8s.io";
const STORAGE_GROUP: &str = "storage.k8s.io";

const fn rule(
    group: &'static str,
    plural: &'static str,
    verbs: &'static [Verb],
    whose: Whose,
) -> Rule {
    Rule {
        group,
        plural,
        subresource: None,
        verbs,
        whose,
    }
}

const fn status(plural: &'static str, whose: Whose) -> Rule {
    Rule {
        subresource: Some(Subresource::Status),
        ..rule("", plural, &[Verb::Get, Verb::Update, Verb::Patch], whose)
    }
}

/// The reason of a refusal is empty where no rule is about such a request.
pub fn may(state: &State, node: &str, wish: Wish<'_>) -> Result<(), String> {
    let Wish { verb, target, .. } = wish;
    let is_about = |rule: &&Rule| {
        rule.group == target.resource().group
            && rule.plural == target.resource().plural
            && rule.subresource == target.subresource
            && rule.verbs.contains(&verb)
    };
    let rule = NODE_RULES.iter().find(is_about).ok_or_else(String::new)?;
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let name = target.name.as_deref();
    let only = || name.map_or_else(|| wish.required("metadata.name"), |it| Some(it.to_owned()));
    let unrelated = || format!("no relationship found between node '{node}' and this object");
    let (allowed, why) = match rule.whose {
        Whose::All | Whose::New => (true, String::new()),
        Whose::Peers => (
            !selects_by_content(wish),
            "nodes can only select nodes by name".to_owned(),
        ),
        Whose::Own => (
            name == Some(node),
            match target.resource().behaviour {
                Behaviour::Node => {
                    format!("node '{node}' cannot access other nodes, only its own Node object")
                }
                _ => "can only access CSINode with the same name as the requesting node".to_owned(),
            },
        ),
        Whose::Attached => (is_attached(state, node, target), unrelated()),
        Whose::Bound => (own_pod(state, node, target), unrelated()),
        Whose::AllBound => (
            name.is_none() && wish.required("spec.nodeName").as_deref() == Some(node),
            "can only list/watch pods with spec.nodeName field selector".to_owned(),
        ),
        Whose::Referred | Whose::Secret => {
            let kind = Referent::of(&target.resource().plural);
            let found = kind.zip(only()).filter(|_| !namespace.is_empty());
            let cache = &state.objects.cache;
            let referred = |(kind, name): (Referent, String)| {
                is_every_nodes(kind, namespace, &name)
                    || cache.refers(node, kind, namespace, &name)
                    || (kind == Referent::Secret && of_volume(state, node, namespace, &name))
            };
            (found.is_some_and(referred), unrelated())
        }
        Whose::Volume | Whose::OwnVolume => {
            let reads = matches!(rule.whose, Whose::Volume);
            let allowed = match only() {
                Some(name) => may_volume(state, node, target, &name, reads),
                None => reads && selects_own_volumes(wish, node),
            };
            (allowed, unrelated())
        }
        Whose::NewLease => (
            namespace == LEASE_NAMESPACE,
            format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"),
        ),
        Whose::OwnLease => (
            namespace == LEASE_NAMESPACE && name == Some(node),
            "can only access node lease with the same name as the requesting node".to_owned(),
        ),
    };
    if allowed { Ok(()) } else { Err(why) }
}

/// Whether an object is read by every node, whatever its pods refer to: what is said of the cluster's DNS.
pub fn is_every_nodes(kind: Referent, namespace: &str, name: &str) -> bool {
    (kind, namespace, name) == (Referent::ConfigMap, "kube-system", "kube-dns")
}

/// Whether a path is one of the nodes' own.
pub fn is_own_path(path: &str) -> bool {
    NODE_PATHS.iter().any(|own| path.starts_with(own))
}

/// The same of what is said in words. The reason is empty where no rule is about that.
pub fn allows(state: &State, node: &str, wanted: &Attributes<'_>) -> Result<(), String> {
    if let Some(path) = wanted.path {
        return match is_own_path(path) {
            true => Ok(()),
            false => Err(String::new()),
        };
    }
    let snapshot = state.registry.snapshot();
    let verb = Verb::of(wanted.verb);
    let (Some(target), Some(verb)) = (target(&snapshot, wanted), verb) else {
        return Err(String::new());
    };
    may(
        state,
        node,
        Wish {
            verb,
            target: &target,
            query: None,
        },
    )
}

fn target(snapshot: &Snapshot, wanted: &Attributes<'_>) -> Option<Target> {
    let given = |word: &str| Some(word.to_owned()).filter(|word| !word.is_empty());
    let served = snapshot.find_any(wanted.group, wanted.resource)?;
    let resource = &served.resource;
    let subresource = match wanted.subresource {
        "" => None,
        name => {
            let mut all = resource.subresources.iter();
            Some(*all.find(|sub| sub.name() == name)?)
        }
    };
    Some(Target {
        served: served.clone(),
        namespace: given(wanted.namespace).filter(|_| resource.namespaced()),
        name: given(wanted.name),
        subresource,
        rest: String::new(),
        watch: false,
    })
}

/// By labels, or by fields other than the name.
fn selects_by_content(wish: Wish<'_>) -> bool {
    let given = |name: &str| {
        let selector = wish.query.and_then(|query| query.get(name));
        selector.unwrap_or_default()
    };
    !given("labelSelector").trim().is_empty() || given("fieldSelector").contains("spec.")
}

/// A node's name is the key's with which it joined, until its Node is deleted: from then on its
/// certificates are worth nothing, whether or not another machine has the name.
pub fn holds_name(state: &State, user: &User) -> Result<(), ApiError> {
    let (Some(node), Some(shown)) = (user.node(), &user.certificate) else {
        return Ok(());
    };
    let nodes = api::find("", "v1", "nodes").ok_or(ApiError::NoSuchResource)?;
    let Some(found) = state.objects.cache.get(nodes, "", node) else {
        return Err(no_such_node(node));
    };
    // One that was made before keys were noted, or by hand: the certificate is enough.
    if found.node_key().is_none_or(|held| *held == *shown.key) {
        return Ok(());
    }
    Err(ApiError::Unauthorized(format!(
        "node \"{node}\" has joined with another key since this certificate was made"
    )))
}

/// What the holder of a certificate hears whose Node was deleted.
pub fn no_such_node(node: &str) -> ApiError {
    ApiError::Unauthorized(format!(
        "node \"{node}\" was deleted, and with it the right of this certificate: to join again, make a \
         token (orchestrator token create) and start the agent with --token"
    ))
}

/// The name of a pod that is meant and not there. A node hears so, whoever's it was: its agent waits
/// for that, and a pod of the name that comes a moment later is not taken for its own.
pub fn absent_pod<'a>(state: &State, target: &'a Target) -> Option<&'a str> {
    let is_pod = target.storage().behaviour == Behaviour::Pod;
    let (namespace, name) = (target.namespace.as_ref()?, target.name.as_deref()?);
    let found = state.objects.cache.get(target.storage(), namespace, name);
    (is_pod && found.is_none()).then_some(name)
}

/// By the label that says whose disk a volume is on, and nothing else.
fn selects_own_volumes(wish: Wish<'_>, node: &str) -> bool {
    let selector = wish.query.and_then(|query| query.get("labelSelector"));
    selector.is_some_and(|selector| *selector == format!("{}={node}", local::NODE_LABEL))
}

/// Whether a volume is the node's own, or its pods'. Of one that is not there, a node that reads its name
/// hears so.
fn may_volume(state: &State, node: &str, target: &Target, name: &str, reads: bool) -> bool {
    let cache = &state.objects.cache;
    let Some(found) = cache.get(target.storage(), "", name) else {
        return reads && target.name.is_some();
    };
    let Ok(volume) = reply::parse(&found.bytes()) else {
        return false;
    };
    let claim = &volume["spec"]["claimRef"];
    let text = |field: &str| claim[field].as_str().unwrap_or_default();
    let used = || cache.refers(node, Referent::Claim, text("namespace"), text("name"));
    local::node_of(&volume) == Some(node) || (reads && used())
}

/// Whether the volume of a claim that a bound pod refers to names the Secret for the node's part of its driver.
fn of_volume(state: &State, node: &str, namespace: &str, name: &str) -> bool {
    let cache = &state.objects.cache;
    let kinds = ["persistentvolumeclaims", "persistentvolumes"].map(|it| api::find("", "v1", it));
    let [Some(claims), Some(volumes)] = kinds else {
        return false;
    };
    let read = |kind, namespace: &str, name: &str| {
        let found = cache.get(kind, namespace, name)?;
        reply::parse(&found.bytes()).ok()
    };
    cache.claims_of(node).into_iter().any(|(of, claim)| {
        let claim = read(claims, &of, &claim);
        let volume = claim.and_then(|claim| {
            let volume = read(volumes, "", claim["spec"]["volumeName"].as_str()?)?;
            (volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]).then_some(volume)
        });
        volume.is_some_and(|volume| {
            NODE_SECRETS.iter().any(|field| {
                let secret = &volume["spec"]["csi"][*field];
                secret["namespace"] == namespace && secret["name"] == name
            })
        })
    })
}

/// The Secrets of a volume that its node hands to the driver.
const NODE_SECRETS: [&str; 3] = [
    "nodeStageSecretRef",
    "nodePublishSecretRef",
    "nodeExpandSecretRef",
];

fn is_attached(state: &State, node: &str, target: &Target) -> bool {
    let name = target.name.as_deref().unwrap_or_default();
    let found = state.objects.cache.get(target.storage(), "", name);
    let found = found.and_then(|found| reply::parse(&found.bytes()).ok());
    found.is_some_and(|attachment| attachment["spec"]["nodeName"] == node)
}

fn own_pod(state: &State, node: &str, target: &Target) -> bool {
    let (Some(namespace), Some(name)) = (&target.namespace, &target.name) else {
        return false;
    };
    let found = state.objects.cache.get(target.storage(), namespace, name);
    found.is_some_and(|pod| is_bound(node, &pod))
}

fn is_bound(node: &str, pod: &Cached) -> bool {
    let bound = pod.fields().get("spec.nodeName");
    bound.is_some_and(|bound| bound == node)
}
