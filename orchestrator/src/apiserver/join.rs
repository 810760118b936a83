//! How a node becomes a member: it shows the join token and gets a certificate. With that it may ask
//! for another one, when it has other addresses or its own is about to end.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{Response, StatusCode};
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::authn::{NODE_PREFIX, NODES, User, bearer};
use super::{Pki, State, reply};
use crate::api::ApiError;
use crate::sys::certificates::{Identity, Usage, names_of, requested_names};

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
}

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

/// POST.
pub async fn join(
    Extract(state): Extract<Arc<State>>,
    Extension(user): Extension<User>,
    headers: axum::http::HeaderMap,
    body: bytes::Bytes,
) -> Response<Body> {
    let token = bearer(&headers).unwrap_or_default();
    let answer = admit(&state, &user, token, &body);
    answer.unwrap_or_else(|error| reply::error(&error))
}

fn admit(state: &State, user: &User, token: &str, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let pki = state.pki.as_ref().ok_or(ApiError::NoSuchResource)?;
    let member = user.node();
    if member.is_none() {
        check_token(pki, token)?;
    }
    let request: JoinRequest = serde_json::from_slice(body)
        .map_err(|error| ApiError::BadRequest(format!("not a join request: {error}")))?;
    let name = request.node_name;
    if let Some(own) = member.filter(|own| *own != name) {
        return Err(ApiError::BadRequest(format!(
            "the certificate is node {own}'s, the request is for {name:?}"
        )));
    }
    if !is_dns_name(&name) {
        return Err(ApiError::BadRequest(format!(
            "{name:?} is no node name: lower-case letters, digits, '-' and '.' (RFC 1123)"
        )));
    }
    let bad = |error: &dyn std::fmt::Display| ApiError::BadRequest(error.to_string());
    let names = requested_names(&request.csr).map_err(|error| bad(&error))?;
    check_names(state, pki, &name, &names)?;
    let identity = Identity::new(&format!("{NODE_PREFIX}{name}"), &[NODES]);
    let certificate = pki
        .authority
        .sign_request(
            &request.csr,
            &identity,
            &names,
            Usage::Both,
            Timestamp::now(),
        )
        .map_err(|error| bad(&error))?;
    let what = match member {
        None => "a node has joined",
        Some(_) => "a node has a new certificate",
    };
    tracing::info!(node = name, "{what}");
    let config = &state.config;
    let texts =
        |ranges: &[IpNetwork]| -> Vec<String> { ranges.iter().map(ToString::to_string).collect() };
    let (pods, services) = (texts(&config.pod_cidrs), texts(&config.service_cidrs));
    let answer = JoinAnswer {
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
    };
    let answer = serde_json::to_value(answer).map_err(reply::internal)?;
    Ok(reply::json(StatusCode::OK, &answer))
}

/// A node may be called by its own name and addresses: not by the server's, nor by a pod's or a
/// Service's.
fn check_names(state: &State, pki: &Pki, node: &str, names: &[String]) -> Result<(), ApiError> {
    let server = names_of(&pki.server.certificate).map_err(reply::internal)?;
    let config = &state.config;
    let forbidden = |name: &String| match name.parse::<std::net::IpAddr>() {
        Ok(address) => {
            let mut ranges = config.pod_cidrs.iter().chain(&config.service_cidrs);
            server.contains(name) || ranges.any(|range| range.contains(address))
        }
        Err(_) => name != node || server.contains(name),
    };
    match names.iter().find(|name| forbidden(name)) {
        Some(other) => Err(ApiError::BadRequest(format!(
            "the request names {other:?}, which is neither {node:?} nor an address that a node can \
             have"
        ))),
        None => Ok(()),
    }
}

fn check_token(pki: &Pki, token: &str) -> Result<(), ApiError> {
    let expected = pki.join_token().map_err(reply::internal)?;
    if same(token.as_bytes(), expected.as_bytes()) {
        return Ok(());
    }
    Err(ApiError::Unauthorized(
        "the join token is not this cluster's: take it from the server's file node-token"
            .to_owned(),
    ))
}

/// Compares in a time that does not depend on where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |found, (a, b)| found | (a ^ b)) == 0
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
    fn node_names_are_dns_names() {
        for good in ["node-1", "a", "n1.example"] {
            assert!(is_dns_name(good), "{good}");
        }
        for bad in ["", "Node", "-a", "a-", "a..b", "a/b"] {
            assert!(!is_dns_name(bad), "{bad}");
        }
    }

    #[test]
    fn tokens_compare_whole() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab"));
    }
}
