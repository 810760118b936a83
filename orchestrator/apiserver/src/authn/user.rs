//! Who asks: a name, groups, and what has to hold as long as the caller is believed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::service_account::Bond;
use sys::certificates::{CertificateError, Identity, Shown};

/// A caller, as authorisation sees it (UserInfo of authentication.k8s.io/v1). Put into the extensions
/// of a request by the TLS connection, the in-process client, or [`authenticate`](super::authenticate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `admin`, `system:node:node-1`, `system:anonymous`
    pub name: Arc<str>,
    /// Tells apart users that had the name one after the other; empty where nothing does.
    pub uid: Arc<str>,
    /// Without the groups that everybody has.
    pub groups: Arc<[String]>,
    /// What else the authenticator knows, by qualified names.
    pub extra: Arc<BTreeMap<String, Vec<String>>>,
    /// The certificate that says so, where there is a connection that showed one.
    pub certificate: Option<Shown>,
    /// The bearer token that says so.
    pub token: Option<Arc<ShownToken>>,
    /// Where that connection comes from.
    pub peer: Option<IpAddr>,
}

/// What a bearer token was found to be. The token itself is not kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ShownToken {
    /// None: it lasts until somebody takes it back.
    pub ends: Option<Timestamp>,
    /// What it stands and falls with.
    pub bond: Option<Bond>,
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
        Self::named(&identity.common_name, identity.organizations)
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
        match (&self.certificate, &self.token) {
            (Some(shown), _) => self.peer == Some(address) || shown.addresses.contains(&address),
            (None, Some(_)) => self.peer == Some(address),
            (None, None) => true,
        }
    }

    /// A part of the control plane in this process.
    pub fn internal(name: &str) -> Self {
        Self::named(name, vec![MASTERS.to_owned()])
    }

    /// A part of the control plane in this process that has the rights of its roles.
    pub fn component(name: &str) -> Self {
        let account = name.strip_prefix("system:serviceaccount:");
        let account = account.and_then(|account| account.split_once(':'));
        let groups = account.map_or_else(Vec::new, |(namespace, _)| {
            let all = "system:serviceaccounts";
            vec![all.to_owned(), format!("{all}:{namespace}")]
        });
        Self::named(name, groups)
    }

    /// Somebody whom another caller asks about.
    pub fn named(name: &str, groups: Vec<String>) -> Self {
        Self {
            name: name.into(),
            uid: "".into(),
            groups: groups.into(),
            extra: Arc::default(),
            certificate: None,
            token: None,
            peer: None,
        }
    }

    /// Its groups with the one that everybody has.
    pub fn all_groups(&self) -> Vec<&str> {
        let everybody = self.everybody();
        let own = self.groups.iter().map(String::as_str);
        let own = own.filter(|group| *group != everybody);
        own.chain([everybody]).collect()
    }

    /// The group that everybody is in who has shown, or has not shown, who they are.
    pub fn everybody(&self) -> &'static str {
        match self.is_anonymous() {
            true => "system:unauthenticated",
            false => "system:authenticated",
        }
    }

    /// A caller that says nothing about itself.
    pub fn anonymous() -> Self {
        Self::named(ANONYMOUS, Vec::new())
    }

    /// When its certificate or its token is over, if ever.
    pub fn ends(&self) -> Option<Timestamp> {
        let certificate = self.certificate.as_ref().map(|shown| shown.ends);
        let token = self.token.as_ref().and_then(|token| token.ends);
        certificate.into_iter().chain(token).min()
    }

    /// Its certificate or its token is over.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.ends().is_some_and(|ends| ends <= now)
    }

    /// UserInfo of authentication.k8s.io/v1, as reviews and webhooks show it.
    pub fn info(&self) -> Value {
        let mut info = json!({"username": &*self.name, "groups": self.all_groups()});
        if !self.uid.is_empty() {
            info["uid"] = json!(&*self.uid);
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(&*self.extra);
        }
        info
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_user_is_a_kubernetes_user_info() {
        let user = User {
            uid: "u-1".into(),
            extra: Arc::new([("example.com/a".to_owned(), vec!["b".to_owned()])].into()),
            ..User::named("ann", vec!["dev".to_owned()])
        };
        assert_eq!(
            user.info(),
            json!({"username": "ann", "uid": "u-1", "groups": ["dev", "system:authenticated"],
                "extra": {"example.com/a": ["b"]}})
        );
        let few = json!({"username": ANONYMOUS, "groups": ["system:unauthenticated"]});
        assert_eq!(User::anonymous().info(), few);
    }

    #[test]
    fn only_a_member_of_the_nodes_group_is_a_node() {
        let identity = |groups: &[&str]| Identity::new("system:node:a", groups);
        assert_eq!(User::from_certificate(identity(&[NODES])).node(), Some("a"));
        assert_eq!(User::from_certificate(identity(&[])).node(), None);
    }
}
