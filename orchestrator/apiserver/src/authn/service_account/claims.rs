//! What a token of a ServiceAccount says (KEP-1205, KEP-4193), and the form that tokens in Secrets have.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Who has signed a token in a Secret.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// The claims of a bound token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default)]
    pub aud: Audience,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
    pub nbf: i64,
    pub sub: String,
}

/// Whom a token speaks for, and what it is bound to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kubernetes {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Named>,
    pub serviceaccount: Named,
    /// From then on its holder should have taken a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// One object, that one and no other of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The claims of a token in a Secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LegacyClaims {
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub name: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
    pub sub: String,
}

/// Whom a token is for. RFC 7519 lets one stand without a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "OneOrMore")]
pub struct Audience(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl From<OneOrMore> for Audience {
    fn from(audience: OneOrMore) -> Self {
        match audience {
            OneOrMore::One(audience) => Self(vec![audience]),
            OneOrMore::More(all) => Self(all),
        }
    }
}

impl Claims {
    /// When nobody believes it any more, a little after it has ended: clocks differ.
    pub fn ends(&self, leeway: i64) -> Option<Timestamp> {
        Timestamp::from_second(self.exp.checked_add(leeway)?).ok()
    }
}

/// `system:serviceaccount:NAMESPACE:NAME`
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}
