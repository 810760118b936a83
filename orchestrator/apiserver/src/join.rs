//! How a node becomes a member: it shows a join token and gets a certificate. With that it may ask
//! for another one, when it has other addresses or its own is due.
//!
//! A name belongs to a key: joining makes the Node, which notes the key's fingerprint, and from then
//! on only that key is given certificates for the name, until the Node is deleted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::{Response, StatusCode};
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::attempts::Attempt;
use super::authn::{NODE_PREFIX, NODES, User, bearer};
use super::node_writes::{UNPROVEN, one_of_each_family};
use super::objects::{Current, WriteError};
use super::services::Claim;
use super::shares::{Peer, Ticket};
use super::write::Writer;
use super::{Pki, State, authz, reply, tokens, upload};
use api::address::embeds_ipv4;
use api::{self, ApiError, FieldValidation, Resource, annotations};
use sys::certificates::{Identity, Shown, Usage, der_of, names_of, requested_names};

/// The endpoint.
pub const PATH: &str = "/orchestrator/v1/join";

/// One overlay: its number and port.
const VNI: u32 = 1;
const VXLAN_PORT: u16 = 4789;

/// What a node sends.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JoinRequest {
    node_name: String,
    /// PEM; the node's key never leaves the node.
    csr: String,
    #[serde(flatten)]
    registration: Registration,
}

/// What the Node says from the start; of one that is there already it is not looked at.
#[derive(Default, Deserialize)]
struct Registration {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    taints: Vec<Value>,
}

/// How many of each a node may bring.
const MOST_LABELS: usize = 64;
const MOST_TAINTS: usize = 64;
/// The prefixes of labels that are Kubernetes' own and that a node may bring all the same, as from a kubelet
/// (NodeRestriction, Kubernetes 1.33).
const OWN_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// The same of whole labels.
const TOPOLOGY_LABELS: [&str; 4] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
];

/// What it gets: its certificate and what it has to know of the cluster. The single ranges are the
/// first ones of the lists, for agents of one family.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JoinAnswer {
    certificate: String,
    ca: String,
    pod_cidr: String,
    service_cidr: String,
    pod_mask_bits: u8,
    pod_cidrs: Vec<String>,
    service_cidrs: Vec<String>,
    /// Range by range of `pod_cidrs`.
    pod_masks_bits: Vec<u8>,
    /// The first and the last port that Services may take on every node.
    node_ports: [u16; 2],
    vni: u32,
    vxlan_port: u16,
}

/// What an applicant has shown.
enum Proof {
    /// The id of a good token.
    Token(String),
    /// A certificate of the node with this name.
    Member(String, User),
}

/// POST. The body is looked at once the token or the certificate is found good.
pub async fn join(Extract(state): Extract<Arc<State>>, request: Request) -> Response<Body> {
    let remote = request.extensions().get::<Peer>().copied();
    let (mut by, mut node) = (String::new(), String::new());
    let answer = admit(&state, request, &mut by, &mut node).await;
    let attempt = Attempt {
        remote,
        node: &node,
        by: &by,
    };
    state.attempts.end(&attempt, answer)
}

/// The answer and what has happened. `by` and `node` are told as soon as they are known.
async fn admit(
    state: &State,
    request: Request,
    by: &mut String,
    node: &mut String,
) -> Result<(Response<Body>, &'static str), ApiError> {
    let pki = state.pki.as_ref().ok_or(ApiError::NoSuchResource)?;
    let proof = proof(state, pki, &request)?;
    *by = match &proof {
        Proof::Token(id) => format!("token {id}"),
        Proof::Member(name, _) => format!("{NODE_PREFIX}{name}"),
    };
    let bad = |error: &dyn std::fmt::Display| {
        ApiError::BadRequest(format!("not a join request: {error}"))
    };
    let (parts, body) = request.into_parts();
    let body = upload::read(&parts.headers, body, upload::JOIN, &Ticket::default()).await?;
    let request: JoinRequest = serde_json::from_slice(&body.bytes).map_err(|error| bad(&error))?;
    node.clone_from(&request.node_name);
    let name = request.node_name.as_str();
    if let Proof::Member(own, _) = &proof
        && own != name
    {
        return Err(ApiError::BadRequest(format!(
            "the certificate is node {own}'s, the request is for {name:?}"
        )));
    }
    if !is_node_name(name) {
        return Err(ApiError::BadRequest(format!(
            "{name:?} is no node name: lower-case letters, digits, '-' and '.' (RFC 1123), and no \
             address"
        )));
    }
    let names = requested_names(&request.csr).map_err(|e| ApiError::BadRequest(e.to_string()))?;
    let addresses = check_names(pki, name, &names)?;
    request.registration.check()?;
    check_proven(&proof, name, &addresses)?;
    // One after the other: of two that want a name, one gets it.
    let _turn = state.joining.lock().await;
    let identity = Identity::new(&format!("{NODE_PREFIX}{name}"), &[NODES]);
    let mut names: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    // The API server knows an agent by it.
    names.insert(0, name.to_owned());
    let certificate = pki
        .authority
        .sign_request(
            &request.csr,
            &identity,
            &names,
            Usage::Both,
            Timestamp::now(),
        )
        .map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let der = der_of(&certificate).map_err(reply::internal)?;
    let key = Shown::of_peer(&der).map_err(reply::internal)?.key;
    let held = Held {
        name,
        key: &key,
        addresses: &addresses,
    };
    take_name(state, &proof, held, &request.registration).await?;
    let what = match proof {
        Proof::Token(_) => "a node has joined",
        Proof::Member(..) => "a node has a new certificate",
    };
    let answer = answer(state, pki, certificate);
    let answer = serde_json::to_value(answer).map_err(reply::internal)?;
    Ok((reply::json(StatusCode::OK, &answer), what))
}

fn proof(state: &State, pki: &Pki, request: &Request) -> Result<Proof, ApiError> {
    let now = Timestamp::now();
    let user = request.extensions().get::<User>();
    let member = user.and_then(|user| Some((user.node()?, user)));
    match member {
        Some((_, user)) if user.has_ended(now) => Err(ApiError::Unauthorized(
            "the certificate has ended: join again with a token".to_owned(),
        )),
        Some((name, user)) => {
            authz::holds_name(state, user)?;
            Ok(Proof::Member(name.to_owned(), user.clone()))
        }
        None => {
            let token = bearer(request.headers()).unwrap_or_default();
            tokens::check(state, pki, token, now).map(Proof::Token)
        }
    }
}

/// A token is good for any address that is free; a certificate for those that its node proves.
fn check_proven(proof: &Proof, name: &str, addresses: &[IpAddr]) -> Result<(), ApiError> {
    let Proof::Member(_, user) = proof else {
        return Ok(());
    };
    let unproven = addresses.iter().find(|address| !user.proves(**address));
    unproven.map_or(Ok(()), |address| {
        let why = format!("{address} {UNPROVEN}: ask from there, or join again with a token");
        Err(ApiError::forbidden(nodes()?, name, why))
    })
}

/// Who a node is.
#[derive(Clone, Copy)]
struct Held<'a> {
    name: &'a str,
    key: &'a str,
    addresses: &'a [IpAddr],
}

impl Registration {
    /// A node may not pretend to be one that an administrator has set apart.
    fn check(&self) -> Result<(), ApiError> {
        let bad = |why: String| Err(ApiError::BadRequest(why));
        if self.labels.len() > MOST_LABELS || self.taints.len() > MOST_TAINTS {
            return bad(format!(
                "a node brings at most {MOST_LABELS} labels and {MOST_TAINTS} taints"
            ));
        }
        match self.labels.keys().find(|label| !may_bring(label)) {
            Some(label) => bad(format!("a node may not bring the label {label:?}")),
            None => Ok(()),
        }
    }
}

/// Whether a node may have this label from the start because it says so.
fn may_bring(label: &str) -> bool {
    let prefix = label.split_once('/').map_or("", |(prefix, _)| prefix);
    let is_in = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    let is_kubernetes = is_in("kubernetes.io") || is_in("k8s.io");
    !is_kubernetes
        || TOPOLOGY_LABELS.contains(&label)
        || OWN_PREFIXES.iter().any(|domain| is_in(domain))
}

/// Makes the Node with its key, or finds the name to be that key's.
async fn take_name(
    state: &State,
    proof: &Proof,
    held: Held<'_>,
    registration: &Registration,
) -> Result<(), ApiError> {
    let nodes = nodes()?;
    let Held {
        name,
        key,
        addresses,
    } = held;
    if let Proof::Member(_, user) = proof
        && user
            .certificate
            .as_ref()
            .is_some_and(|shown| *shown.key != *key)
    {
        return Err(ApiError::forbidden(
            nodes,
            name,
            "a certificate is renewed for the same key",
        ));
    }
    let Ok(current) = state.objects.current(nodes, "", name) else {
        return match proof {
            Proof::Token(_) => make_node(state, held, registration).await,
            // Deleted since the request came.
            Proof::Member(..) => Err(authz::no_such_node(name)),
        };
    };
    // Only looked at: the node takes them when it writes its status.
    let mut wanted = current.value.clone();
    wanted["status"]["addresses"] = internal(addresses);
    drop(Claim::make(
        state,
        nodes,
        &mut wanted,
        Some(&current.value),
    )?);
    let held = current.value["metadata"]["annotations"][annotations::NODE_KEY].as_str();
    match (held, proof) {
        (Some(held), _) if held == key => Ok(()),
        // Made before keys were noted: the certificate proves the name.
        (None, Proof::Member(..)) => note_key(state, nodes, &current, key).await,
        _ => Err(ApiError::conflict(
            nodes,
            name,
            format!(
                "node \"{name}\" exists, and this machine does not hold its key. If it is another \
                 machine, choose another name with --node-name, or delete that node first \
                 (kubectl delete node {name}); if it is the same one, give it its key back \
                 (<data dir>/pki/node.key)"
            ),
        )),
    }
}

/// The Node says from the start who may speak for it and which addresses are taken.
async fn make_node(
    state: &State,
    held: Held<'_>,
    registration: &Registration,
) -> Result<(), ApiError> {
    let Held {
        name,
        key,
        addresses,
    } = held;
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": {annotations::NODE_KEY: key}},
        "spec": {},
        "status": {"addresses": internal(addresses)},
    });
    if !registration.labels.is_empty() {
        node["metadata"]["labels"] = json!(registration.labels);
    }
    if !registration.taints.is_empty() {
        node["spec"]["taints"] = json!(registration.taints);
    }
    let node = nodes()?.canonical(node, FieldValidation::Strict)?.object;
    Writer::server(state, nodes()?)
        .create(node)
        .await
        .map(drop)
        .map_err(|error| write_error(error, name))
}

fn internal(addresses: &[IpAddr]) -> Value {
    let address = |address: &IpAddr| json!({"type": "InternalIP", "address": address});
    addresses.iter().map(address).collect()
}

async fn note_key(
    state: &State,
    nodes: &Arc<Resource>,
    current: &Current,
    key: &str,
) -> Result<(), ApiError> {
    let mut noted = current.value.clone();
    noted["metadata"]["annotations"][annotations::NODE_KEY] = key.into();
    let written = Writer::server(state, nodes).update(current, noted).await;
    written
        .map(drop)
        .map_err(|error| write_error(error, api::meta::name(&current.value)))
}

/// A node that is written by others at the same moment tries again.
fn write_error(error: WriteError, name: &str) -> ApiError {
    match error {
        WriteError::Failed(error) => error,
        WriteError::Changed => ApiError::ServiceUnavailable(format!(
            "node \"{name}\" was written by others at the same time: try again"
        )),
    }
}

fn answer(state: &State, pki: &Pki, certificate: String) -> JoinAnswer {
    let config = &state.config;
    let texts =
        |ranges: &[IpNetwork]| -> Vec<String> { ranges.iter().map(ToString::to_string).collect() };
    let (pods, services) = (texts(&config.pod_cidrs), texts(&config.service_cidrs));
    JoinAnswer {
        certificate,
        ca: pki.authority.certificate().to_owned(),
        pod_cidr: pods.first().cloned().unwrap_or_default(),
        service_cidr: services.first().cloned().unwrap_or_default(),
        pod_mask_bits: config.node_mask_bits.first().copied().unwrap_or_default(),
        pod_cidrs: pods,
        service_cidrs: services,
        pod_masks_bits: config.node_mask_bits.clone(),
        node_ports: [*config.node_ports.start(), *config.node_ports.end()],
        vni: VNI,
        vxlan_port: VXLAN_PORT,
    }
}

/// A node may be called by its own name and by addresses that are not the server's.
fn check_names(pki: &Pki, node: &str, names: &[String]) -> Result<Vec<IpAddr>, ApiError> {
    let server = pki.issued();
    let server = names_of(&server.server.certificate).map_err(reply::internal)?;
    let refused = |name: &str| {
        ApiError::BadRequest(format!(
            "the request names {name:?}, which is neither {node:?} nor an address that a node can \
             have"
        ))
    };
    if server.iter().any(|name| name == node) {
        return Err(refused(node));
    }
    let mut addresses = Vec::new();
    for name in names {
        match name.parse::<IpAddr>() {
            // Others' are refused when the Node takes its own.
            Ok(address) if may_be_a_nodes(address) && !server.contains(name) => {
                addresses.push(address);
            }
            Err(_) if name == node => {}
            _ => return Err(refused(name)),
        }
    }
    if !one_of_each_family(&addresses) {
        let why = "the request names more than one address of an IP family";
        return Err(ApiError::BadRequest(why.to_owned()));
    }
    Ok(addresses)
}

/// An address that only this machine, or nobody, is known by is no node's, nor is IPv6 that stands for
/// IPv4: some clients take it for the other.
fn may_be_a_nodes(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(embeds_ipv4(address)
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || is_link_local)
}

fn nodes() -> Result<&'static Arc<Resource>, ApiError> {
    api::find("", "v1", "nodes").ok_or(ApiError::NoSuchResource)
}

/// A name that is an address would make the node's certificate one for that address.
fn is_node_name(name: &str) -> bool {
    is_dns_name(name) && name.parse::<IpAddr>().is_err()
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        !bytes.is_empty()
            && bytes.iter().all(|byte| plain(byte) || *byte == b'-')
            && bytes.first().is_some_and(plain)
            && bytes.last().is_some_and(plain)
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_does_not_set_itself_apart() {
        for good in [
            "disk",
            "example.com/disk",
            "node.kubernetes.io/instance-type",
        ] {
            assert!(may_bring(good), "{good}");
        }
        for good in TOPOLOGY_LABELS {
            assert!(may_bring(good), "{good}");
        }
        for bad in [
            "node-restriction.kubernetes.io/secret",
            "node-role.kubernetes.io/control-plane",
            "kubernetes.io/hostname",
            "x.k8s.io/y",
        ] {
            assert!(!may_bring(bad), "{bad}");
        }
    }

    #[test]
    fn node_names_are_dns_names() {
        for good in ["node-1", "a", "n1.example"] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", "Node", "-a", "a-", "a..b", "a/b", "172.31.0.12"] {
            assert!(!is_node_name(bad), "{bad}");
        }
    }
}
