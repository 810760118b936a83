//! How a node becomes one of the cluster: a token proves the cluster to the node and the node to
//! the cluster; what comes back is a certificate and the cluster's ranges.
//!
//! Owns the files under `<data>/pki`. A node that has joined needs no token any more, unless its
//! Node is deleted or it gets an address that it does not connect from: its certificate is good for the
//! next one. Its key is made first, and stays: the server gives the node's name to that key alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use api::join_token::JoinToken;
use datapath::Addrs;
use sys::certificates::{self, Credentials};
use sys::https::{Post, PostError};
use sys::{files, tls};

const PATH: &str = "/orchestrator/v1/join";
const DEFAULT_MASK_BITS: u8 = 24;
const DEFAULT_VNI: u32 = 1;
const DEFAULT_VXLAN_PORT: u16 = 4789;

/// What a node has once it has joined.
#[derive(Debug, Clone)]
pub struct Membership {
    pub credentials: Credentials,
    /// The cluster's authority, PEM.
    pub authority: String,
    pub settings: Settings,
}

/// The cluster's settings that every node must share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    #[serde(with = "as_text")]
    pod_cidr: IpNetwork,
    #[serde(with = "as_text")]
    service_cidr: IpNetwork,
    #[serde(default = "default_mask_bits")]
    pod_mask_bits: u8,
    /// At most one of each family, as are the Services'. Servers of one family know only the single
    /// ranges above.
    #[serde(default, with = "as_texts")]
    pod_cidrs: Vec<IpNetwork>,
    #[serde(default, with = "as_texts")]
    service_cidrs: Vec<IpNetwork>,
    /// Range by range of `pod_cidrs`.
    #[serde(default)]
    pod_masks_bits: Vec<u8>,
    #[serde(default = "default_vni")]
    pub vni: u32,
    #[serde(default = "default_vxlan_port")]
    pub vxlan_port: u16,
    /// Where names are asked for, if it is another server than the cluster's own.
    #[serde(default)]
    cluster_dns: Option<IpAddr>,
    #[serde(default)]
    pub cluster_domain: Option<String>,
}

/// What the cluster has of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    pub pods: IpNetwork,
    /// The prefix length of a node's share of it.
    pub mask_bits: u8,
    pub services: Option<IpNetwork>,
}

impl Settings {
    /// The ranges of each family.
    pub fn all_ranges(&self) -> Vec<Ranges> {
        let pods = self.pod_cidrs.iter().chain([&self.pod_cidr]);
        let mut all: Vec<Ranges> = Vec::new();
        for range in pods.filter_map(|range| self.ranges(*range)) {
            if !all.contains(&range) {
                all.push(range);
            }
        }
        all
    }

    /// Where pods ask for names: by custom the tenth address of each range of Services.
    pub fn dns_addresses(&self) -> Vec<IpAddr> {
        if let Some(address) = self.cluster_dns {
            return vec![address];
        }
        let ranges = self.all_ranges();
        let services = ranges.iter().filter_map(|range| range.services);
        services.filter_map(tenth).collect()
    }

    /// The ranges of the family that a node's share is of.
    pub fn ranges(&self, share: IpNetwork) -> Option<Ranges> {
        let like = |range: &&IpNetwork| range.is_ipv4() == share.is_ipv4();
        let pods = self.pod_cidrs.iter().zip(&self.pod_masks_bits);
        let (pods, mask_bits) = pods
            .chain([(&self.pod_cidr, &self.pod_mask_bits)])
            .find(|(range, _)| like(range))?;
        let services = self.service_cidrs.iter().chain([&self.service_cidr]);
        Some(Ranges {
            pods: *pods,
            mask_bits: *mask_bits,
            services: services.copied().find(|range| like(&range)),
        })
    }
}

/// The tenth address of a range, if it has so many.
fn tenth(range: IpNetwork) -> Option<IpAddr> {
    let address = match range.network() {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits().checked_add(10)?)),
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().checked_add(10)?)),
    };
    range.contains(address).then_some(address)
}

/// Who asks, and whom.
#[derive(Debug, Clone)]
pub struct Applicant {
    /// Asked in turn until one answers; at least one.
    pub servers: Vec<http::Uri>,
    pub token: Option<String>,
    pub node_name: String,
    pub node_ips: Addrs,
    pub data_dir: PathBuf,
    pub registration: Registration,
}

/// What the node's object says from the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Registration {
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
}

impl Applicant {
    /// What its certificate must name.
    fn names(&self) -> impl Iterator<Item = String> {
        let ips = self.node_ips.iter().map(|ip| ip.to_string());
        [self.node_name.clone()].into_iter().chain(ips)
    }
}

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(
        "this node has not joined a cluster yet, or its certificate has ended: give it --token or \
         --token-file (`orchestrator token create` makes one, and the server keeps one in \
         <data-dir>/node-token)"
    )]
    NoToken,
    #[error(
        "the token does not read: it is <64 hex digits>.<6 letters>.<16 letters>, as \
         `orchestrator token create` prints it"
    )]
    BadToken,
    #[error("{0} is no https URL of a server")]
    BadServer(http::Uri),
    #[error("the server refused this node: {0}")]
    Refused(String),
    #[error("the server at {server} does not answer: {why}")]
    Unreachable { server: http::Uri, why: String },
    #[error("{what}: {why}")]
    Local { what: String, why: String },
}

impl JoinError {
    /// Whether trying again later may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, JoinError::Unreachable { .. })
    }
}

impl Membership {
    /// The short name of the cluster: two clusters may share one container engine.
    pub fn cluster(&self) -> String {
        let der = certificates::der_of(&self.authority).unwrap_or_default();
        certificates::fingerprint(&der)[..12].to_owned()
    }

    /// Its certificate is for a node of that name.
    pub fn is_for(&self, applicant: &Applicant) -> bool {
        let names = certificates::names_of(&self.credentials.certificate).unwrap_or_default();
        names.contains(&applicant.node_name)
    }

    /// Its certificate names all that the applicant is called, and is the key's.
    pub fn covers(&self, applicant: &Applicant) -> bool {
        let names = certificates::names_of(&self.credentials.certificate).unwrap_or_default();
        let whole = self.credentials.belong_together().unwrap_or(false);
        whole && applicant.names().all(|name| names.contains(&name))
    }

    /// Those of these addresses that its certificate names: what the node may say of itself.
    pub fn named(&self, addrs: Addrs) -> Addrs {
        let names = certificates::names_of(&self.credentials.certificate).unwrap_or_default();
        let is_named = |addr: &IpAddr| names.contains(&addr.to_string());
        addrs.iter().filter(is_named).collect()
    }

    /// When it is time for the next certificate: a little earlier on one node than on another, so that
    /// nodes that joined together do not ask together.
    pub fn due(&self, applicant: &Applicant) -> Timestamp {
        let certificate = &self.credentials.certificate;
        // One that does not read is due at once.
        let due = certificates::renewal_due(certificate).unwrap_or(Timestamp::MIN);
        let ends = certificates::ends(certificate).unwrap_or(Timestamp::MIN);
        let spread = applicant
            .node_name
            .bytes()
            .fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        // Due leaves a third of the life: at most half of that, a sixth, is given up.
        let early = ends.duration_since(due) / 2 * i32::from(spread) / i32::from(u8::MAX);
        due.checked_sub(early).unwrap_or(due)
    }

    /// Its certificate proves nothing any more.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        let ended = certificates::has_ended(&self.credentials.certificate, now);
        let whole = self.credentials.belong_together().unwrap_or(false);
        ended.unwrap_or(true) || !whole
    }
}

/// The files that a membership is kept in.
pub struct PkiFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authority: PathBuf,
    settings: PathBuf,
}

impl PkiFiles {
    pub fn in_data_dir(data_dir: &Path) -> PkiFiles {
        let file = |name: &str| data_dir.join("pki").join(name);
        PkiFiles {
            certificate: file("node.crt"),
            key: file("node.key"),
            authority: file("ca.crt"),
            settings: file("cluster.json"),
        }
    }
}

/// The membership that an earlier run left, unless the token names another cluster.
pub fn remembered(applicant: &Applicant) -> Result<Option<Membership>, JoinError> {
    let files = PkiFiles::in_data_dir(&applicant.data_dir);
    let credentials = Credentials::load(&files.certificate, &files.key).map_err(local("read"))?;
    let authority = files::read_if_present(&files.authority).map_err(local("read"))?;
    let settings = files::read_if_present(&files.settings).map_err(local("read"))?;
    let (Some(credentials), Some(authority), Some(settings)) = (credentials, authority, settings)
    else {
        return Ok(None);
    };
    let Ok(settings) = serde_json::from_str(&settings) else {
        return Ok(None);
    };
    let der = certificates::der_of(&authority).map_err(local("read the cluster's authority"))?;
    if let Some(token) = &applicant.token
        && read_token(token)?.authority != certificates::fingerprint(&der)
    {
        return Ok(None);
    }
    Ok(Some(Membership {
        credentials,
        authority,
        settings,
    }))
}

/// Asks the server for a certificate by the token, and keeps it.
pub async fn join(applicant: &Applicant) -> Result<Membership, JoinError> {
    let token = applicant.token.as_deref().ok_or(JoinError::NoToken)?;
    let token = read_token(token)?;
    ask(applicant, Proof::Token(&token)).await
}

/// The same by the certificate that the node has; where that is refused, by the token if there is one.
pub async fn renew(applicant: &Applicant, member: &Membership) -> Result<Membership, JoinError> {
    match ask(applicant, Proof::Certificate(member)).await {
        Err(JoinError::Refused(why)) if applicant.token.is_some() => {
            tracing::info!(why, "the certificate was refused; the token is tried");
            join(applicant).await
        }
        outcome => outcome,
    }
}

/// How the two prove themselves to each other.
#[derive(Clone, Copy)]
enum Proof<'a> {
    Token(&'a JoinToken),
    Certificate(&'a Membership),
}

async fn ask(applicant: &Applicant, proof: Proof<'_>) -> Result<Membership, JoinError> {
    let names: Vec<String> = applicant.names().collect();
    let identity = certificates::Identity::new(
        &format!("system:node:{}", applicant.node_name),
        &["system:nodes"],
    );
    let key = own_key(&applicant.data_dir)?;
    let request = certificates::make_request(&key, &identity, &names)
        .map_err(local("make a certificate request"))?;
    let Registration { labels, taints } = &applicant.registration;
    let body = serde_json::json!({ "nodeName": applicant.node_name, "csr": request,
        "labels": labels, "taints": taints });
    let answer = post_to_any(&applicant.servers, proof, &body.to_string()).await?;
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|e| JoinError::Refused(format!("its answer does not read: {e}")))?;
    let membership = Membership {
        credentials: Credentials {
            certificate: answer.certificate,
            key,
        },
        authority: answer.ca,
        settings: answer.settings,
    };
    keep(&membership, &applicant.data_dir)?;
    Ok(membership)
}

/// The node's key, made and kept at the first call: an agent that dies before it has an answer asks
/// again with the same one.
fn own_key(data_dir: &Path) -> Result<String, JoinError> {
    let paths = PkiFiles::in_data_dir(data_dir);
    if let Some(key) = files::read_if_present(&paths.key).map_err(local("read the node's key"))? {
        return Ok(key);
    }
    files::create_private_dir(&data_dir.join("pki")).map_err(local("make the pki directory"))?;
    let key = certificates::make_key().map_err(local("make the node's key"))?;
    files::write_atomic(&paths.key, key.as_bytes(), files::PRIVATE)
        .map_err(local("keep the node's key"))?;
    Ok(key)
}

#[derive(Deserialize)]
struct Answer {
    certificate: String,
    ca: String,
    #[serde(flatten)]
    settings: Settings,
}

fn keep(membership: &Membership, data_dir: &Path) -> Result<(), JoinError> {
    let paths = PkiFiles::in_data_dir(data_dir);
    let settings = serde_json::to_vec_pretty(&membership.settings).map_err(local("write"))?;
    let authority = membership.authority.as_bytes();
    files::write_atomic(&paths.authority, authority, files::PUBLIC).map_err(local("write"))?;
    files::write_atomic(&paths.settings, &settings, files::PUBLIC).map_err(local("write"))?;
    let certificate = membership.credentials.certificate.as_bytes();
    files::write_atomic(&paths.certificate, certificate, files::PUBLIC)
        .map_err(local("keep the node's certificate"))
}

fn read_token(token: &str) -> Result<JoinToken, JoinError> {
    JoinToken::parse(token).ok_or(JoinError::BadToken)
}

/// A server that does not answer for so long is left for the next one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The answer of the first server that can be reached.
async fn post_to_any(
    servers: &[http::Uri],
    proof: Proof<'_>,
    body: &str,
) -> Result<bytes::Bytes, JoinError> {
    if let [only] = servers {
        return post(only, proof, body.to_owned()).await;
    }
    let mut away = None;
    for server in servers {
        match timeout(ANSWER_TIMEOUT, post(server, proof, body.to_owned())).await {
            Ok(Err(unreachable @ JoinError::Unreachable { .. })) => away = Some(unreachable),
            Ok(answered) => return answered,
            Err(_) => {
                away = Some(JoinError::Unreachable {
                    server: server.clone(),
                    why: "it does not answer in time".to_owned(),
                });
            }
        }
    }
    Err(away.unwrap_or_else(|| JoinError::BadServer(http::Uri::default())))
}

/// One request over a connection that trusts only the cluster's authority.
async fn post(
    server: &http::Uri,
    proof: Proof<'_>,
    body: String,
) -> Result<bytes::Bytes, JoinError> {
    let config = match proof {
        Proof::Token(token) => tls::pinned_client_config(&token.authority),
        Proof::Certificate(of) => tls::client_config(&of.authority, Some(&of.credentials)),
    };
    let config = config.map_err(local("set up TLS"))?;
    let bearer = match proof {
        Proof::Token(token) => Some(token.text()),
        Proof::Certificate(_) => None,
    };
    let post = Post {
        server,
        path: PATH,
        bearer: bearer.as_deref(),
        body,
    };
    let away = |why: &dyn std::fmt::Display| JoinError::Unreachable {
        server: server.clone(),
        why: why.to_string(),
    };
    let (status, answer) = post.send(config).await.map_err(|error| match error {
        PostError::BadServer(server) => JoinError::BadServer(server),
        PostError::Unreachable { server, why } => JoinError::Unreachable { server, why },
        PostError::Request(_) => local("ask the server")(error),
    })?;
    if status.is_success() {
        Ok(answer)
    } else if status.is_server_error() {
        Err(away(&format!("{status}: {}", message_of(&answer))))
    } else {
        Err(JoinError::Refused(format!(
            "{status}: {}",
            message_of(&answer)
        )))
    }
}

/// The message of a Kubernetes status, or the text itself.
fn message_of(answer: &[u8]) -> String {
    let status: Option<serde_json::Value> = serde_json::from_slice(answer).ok();
    let message = status.and_then(|status| status["message"].as_str().map(str::to_owned));
    message.unwrap_or_else(|| String::from_utf8_lossy(answer).trim().to_owned())
}

fn local<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> JoinError {
    let what = what.to_owned();
    move |why| JoinError::Local {
        what,
        why: why.to_string(),
    }
}

/// Ranges as their text: ipnetwork's own serde support is a feature that nothing else needs.
mod as_text {
    use ipnetwork::IpNetwork;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(range: &IpNetwork, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(range)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<IpNetwork, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The same for lists.
mod as_texts {
    use ipnetwork::IpNetwork;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(ranges: &[IpNetwork], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ranges.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNetwork>, D::Error> {
        let texts: Vec<String> = Vec::deserialize(from)?;
        let ranges = texts.iter().map(|text| text.parse());
        ranges
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
    }
}

fn default_mask_bits() -> u8 {
    DEFAULT_MASK_BITS
}

fn default_vni() -> u32 {
    DEFAULT_VNI
}

fn default_vxlan_port() -> u16 {
    DEFAULT_VXLAN_PORT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_key_is_made_once_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let first = own_key(directory.path()).expect("a key");
        assert_eq!(own_key(directory.path()).expect("the same"), first);
        let path = PkiFiles::in_data_dir(directory.path()).key;
        let mode = std::fs::metadata(path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, files::PRIVATE);
    }

    #[test]
    fn an_answer_without_the_optional_settings_has_their_defaults() {
        let answer = r#"{"certificate":"c","ca":"a","podCidr":"10.100.0.0/16",
            "serviceCidr":"10.96.0.0/16"}"#;
        let answer: Answer = serde_json::from_str(answer).expect("reads");
        let ranges = |share: &str| answer.settings.ranges(share.parse().expect("a range"));
        let v4 = ranges("10.100.1.0/24").expect("IPv4");
        assert_eq!(
            (v4.pods.to_string().as_str(), v4.mask_bits),
            ("10.100.0.0/16", 24)
        );
        assert_eq!(ranges("fd00:100:0:1::/64"), None);
        assert_eq!((answer.settings.vni, answer.settings.vxlan_port), (1, 4789));
    }

    #[test]
    fn an_answer_of_two_families_has_ranges_of_each() {
        let answer = r#"{"certificate":"c","ca":"a","podCidr":"10.100.0.0/16",
            "serviceCidr":"10.96.0.0/16","podCidrs":["10.100.0.0/16","fd00:100::/48"],
            "podMasksBits":[24,64],"serviceCidrs":["10.96.0.0/16"]}"#;
        let answer: Answer = serde_json::from_str(answer).expect("reads");
        let share = "fd00:100:0:1::/64".parse().expect("a range");
        let v6 = answer.settings.ranges(share).expect("IPv6");
        assert_eq!(
            (v6.pods.to_string().as_str(), v6.mask_bits),
            ("fd00:100::/48", 64)
        );
        assert_eq!(v6.services, None);
    }

    #[test]
    fn a_certificate_covers_a_node_until_it_has_another_address() {
        let now = jiff::Timestamp::now();
        let authority = certificates::Authority::create("test", now).expect("an authority");
        let applicant = |ips: &str| Applicant {
            servers: vec![http::Uri::from_static("https://172.31.0.1:6443")],
            token: None,
            node_name: "node-1".into(),
            node_ips: ips.parse().expect("addresses"),
            data_dir: PathBuf::new(),
            registration: Registration::default(),
        };
        let names: Vec<String> = applicant("172.31.0.11,fd00:31::b").names().collect();
        let who = certificates::Identity::new("system:node:node-1", &["system:nodes"]);
        let made = authority.issue(&who, &names, certificates::Usage::Both, now);
        let settings = r#"{"podCidr":"10.100.0.0/16","serviceCidr":"10.96.0.0/16"}"#;
        let member = Membership {
            credentials: made.expect("a certificate"),
            authority: authority.certificate().to_owned(),
            settings: serde_json::from_str(settings).expect("settings"),
        };
        for (ips, covered) in [
            ("172.31.0.11,fd00:31::b", true),
            ("172.31.0.11", true),
            ("172.31.0.99,fd00:31::b", false),
            ("172.31.0.11,fd00:31::63", false),
        ] {
            assert_eq!(member.covers(&applicant(ips)), covered, "{ips}");
        }
    }
}
