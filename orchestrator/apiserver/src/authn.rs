//! Who asks: a client certificate of the cluster's authority, a caller in the same process, or
//! nobody in particular.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use jiff::Timestamp;

use api::ApiError;
use sys::certificates::{CertificateError, Identity, Shown};

/// A caller, as authorisation sees it. Put into the extensions of a request by whoever knows:
/// the TLS connection or the in-process client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `admin`, `system:node:node-1`, `system:anonymous`
    pub name: Arc<str>,
    /// Without the groups that everybody has.
    pub groups: Arc<[String]>,
    /// The certificate that says so, where there is a connection that showed one.
    pub certificate: Option<Shown>,
    /// Where that connection comes from.
    pub peer: Option<IpAddr>,
}

/// Everything is allowed to this group.
pub const MASTERS: &str = "system:masters";
/// The agents of the cluster's nodes.
pub const NODES: &str = "system:nodes";
/// What a node's user name begins with.
pub const NODE_PREFIX: &str = "system:node:";

const ANONYMOUS: &str = "system:anonymous";

impl User {
    /// The holder of a verified certificate.
    pub fn from_certificate(identity: Identity) -> Self {
        Self {
            name: identity.common_name.into(),
            groups: identity.organizations.into(),
            certificate: None,
            peer: None,
        }
    }

    /// The holder of the certificate (DER) that a TLS connection has verified.
    pub fn of_peer(der: &[u8]) -> Result<Self, CertificateError> {
        let user = Self::from_certificate(Identity::of_peer(der)?);
        Ok(user.showing(Shown::of_peer(der)?))
    }

    /// The same caller with what else its certificate says.
    pub fn showing(self, shown: Shown) -> Self {
        Self {
            certificate: Some(shown),
            ..self
        }
    }

    /// The same caller on a connection from there.
    pub fn at(self, peer: IpAddr) -> Self {
        Self {
            peer: Some(peer.to_canonical()),
            ..self
        }
    }

    /// Whether its connection proves an address to be its own: it comes from there, or the certificate
    /// names it. Callers in this process need no proof.
    pub fn proves(&self, address: IpAddr) -> bool {
        let Some(shown) = &self.certificate else {
            return true;
        };
        self.peer == Some(address) || shown.addresses.contains(&address)
    }

    /// A part of the control plane in this process.
    pub fn internal(name: &str) -> Self {
        Self {
            name: name.into(),
            groups: [MASTERS.to_owned()].into(),
            certificate: None,
            peer: None,
        }
    }

    /// Somebody whom another caller asks about.
    pub fn named(name: &str, groups: Vec<String>) -> Self {
        Self {
            name: name.into(),
            groups: groups.into(),
            certificate: None,
            peer: None,
        }
    }

    /// Its groups with the one that everybody has.
    pub fn all_groups(&self) -> Vec<&str> {
        let everybody = match self.is_anonymous() {
            true => "system:unauthenticated",
            false => "system:authenticated",
        };
        let own = self.groups.iter().map(String::as_str);
        let own = own.filter(|group| *group != everybody);
        own.chain([everybody]).collect()
    }

    /// A caller that says nothing about itself.
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.into(),
            groups: [].into(),
            certificate: None,
            peer: None,
        }
    }

    /// Its certificate is over.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        let certificate = self.certificate.as_ref();
        certificate.is_some_and(|shown| shown.ends <= now)
    }

    pub fn is_anonymous(&self) -> bool {
        &*self.name == ANONYMOUS
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|member| member == group)
    }

    /// The node that this caller is the agent of.
    pub fn node(&self) -> Option<&str> {
        let name = self.name.strip_prefix(NODE_PREFIX)?;
        self.is_in(NODES).then_some(name)
    }
}

/// The caller of a request. Credentials that are shown and not known, or have ended since, are an
/// error, not nobody: a wrong token must not look like missing rights.
pub fn authenticate(
    user: Option<&User>,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<User, ApiError> {
    match user {
        Some(user) if user.has_ended(now) => Err(ApiError::Unauthorized(
            "the client certificate has ended while the connection was open".to_owned(),
        )),
        Some(user) => Ok(user.clone()),
        None if headers.contains_key(header::AUTHORIZATION) => {
            Err(ApiError::Unauthorized("Unauthorized".to_owned()))
        }
        None => Ok(User::anonymous()),
    }
}

/// The token of `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_that_nobody_knows_is_not_anonymous() {
        let now = Timestamp::UNIX_EPOCH;
        let mut headers = HeaderMap::new();
        assert!(authenticate(None, &headers, now).is_ok_and(|user| user.is_anonymous()));
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_static("Bearer abc"),
        );
        assert_eq!(bearer(&headers), Some("abc"));
        let refused = authenticate(None, &headers, now).map_err(|e| e.code());
        assert_eq!(refused, Err(401));
    }

    #[test]
    fn a_certificate_that_ends_while_its_connection_is_open_is_worth_nothing_from_then_on() {
        let (headers, ends) = (HeaderMap::new(), Timestamp::UNIX_EPOCH);
        let user = User::internal("a").showing(Shown {
            key: "k".into(),
            ends,
            addresses: [].into(),
        });
        let second = jiff::SignedDuration::from_secs(1);
        assert!(authenticate(Some(&user), &headers, ends - second).is_ok());
        let refused = authenticate(Some(&user), &headers, ends).map_err(|e| e.code());
        assert_eq!(refused, Err(401));
    }

    #[test]
    fn only_a_member_of_the_nodes_group_is_a_node() {
        let identity = |groups: &[&str]| Identity::new("system:node:a", groups);
        assert_eq!(User::from_certificate(identity(&[NODES])).node(), Some("a"));
        assert_eq!(User::from_certificate(identity(&[])).node(), None);
    }
}
