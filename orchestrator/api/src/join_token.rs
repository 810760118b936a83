//! What a machine joins the cluster with: `<fingerprint of the authority>.<id>.<secret>`. The server
//! keeps id and secret in a Secret of Kubernetes' type for that, with an end.
//!
//! `<id>.<secret>` alone is a bearer token, as kubeadm's: whoever shows it is `system:bootstrap:<id>`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// The type of the Secrets, and where they are.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
pub const NAMESPACE: &str = "kube-system";
/// The lengths of a token's parts, as Kubernetes has them.
pub const ID_LENGTH: usize = 6;
pub const SECRET_LENGTH: usize = 16;
const FINGERPRINT_LENGTH: usize = 64;
const PREFIX: &str = "bootstrap-token-";
const USAGE: &str = "usage-bootstrap-authentication";
const SIGNING: &str = "usage-bootstrap-signing";
const EXTRA_GROUPS: &str = "auth-extra-groups";
/// What the holder of a token is called, and the group that it is in.
const USER_PREFIX: &str = "system:bootstrap:";
const GROUP: &str = "system:bootstrappers";
/// What kubeadm's tokens are in besides, and what the names of such groups begin with.
const DEFAULT_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
const GROUP_PREFIX: &str = "system:bootstrappers:";
/// A group's name after its prefix.
const MAX_GROUP_BYTES: usize = 256;

/// A token. Neither `Debug` nor an error shows its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the authority's certificate, in hex.
    pub authority: String,
    /// By which the server finds it; no secret.
    pub id: String,
    pub secret: String,
}

/// What is kept of a token.
pub struct Kept {
    pub id: String,
    pub secret: Vec<u8>,
    /// None: it does not end.
    pub ends: Option<Timestamp>,
    pub description: String,
    /// Those of its holder besides `system:bootstrappers`.
    extra_groups: Vec<String>,
}

impl JoinToken {
    /// Reads a token; None if it is not written like one.
    pub fn parse(text: &str) -> Option<Self> {
        let (authority, rest) = text.trim().split_once('.')?;
        let is_hex = authority.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (id, secret) = bearer(rest)?;
        let reads = authority.len() == FINGERPRINT_LENGTH && is_hex;
        reads.then(|| Self {
            authority: authority.to_ascii_lowercase(),
            id: id.to_owned(),
            secret: secret.to_owned(),
        })
    }

    /// The text for the node.
    pub fn text(&self) -> String {
        format!("{}.{}.{}", self.authority, self.id, self.secret)
    }

    /// The Secret that the server keeps.
    pub fn to_secret(&self, ends: Option<Timestamp>, description: &str) -> Value {
        let encode = |text: &str| STANDARD.encode(text);
        let mut data = json!({
            "token-id": encode(&self.id),
            "token-secret": encode(&self.secret),
            USAGE: encode("true"),
            SIGNING: encode("true"),
            EXTRA_GROUPS: encode(DEFAULT_GROUP),
        });
        if let Some(ends) = ends {
            data["expiration"] = encode(&super::meta::timestamp(ends)).into();
        }
        if !description.is_empty() {
            data["description"] = encode(description).into();
        }
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": secret_name(&self.id), "namespace": NAMESPACE},
            "type": TYPE,
            "data": data,
        })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Kept {
    /// Reads a Secret; None if it is not one of a token that machines may join with, or names a group that
    /// holders of tokens are not in. An end that does not read has passed.
    pub fn of(secret: &Value) -> Option<Self> {
        let field = |name: &str| STANDARD.decode(secret["data"][name].as_str()?).ok();
        let text = |name: &str| String::from_utf8(field(name)?).ok();
        let id = text("token-id")?;
        let extra_groups = match &secret["data"][EXTRA_GROUPS] {
            Value::Null => Vec::new(),
            _ => groups(&text(EXTRA_GROUPS)?)?,
        };
        let is_one = secret["type"] == TYPE
            && is_word(&id, ID_LENGTH)
            && super::meta::name(secret) == secret_name(&id)
            && text(USAGE).as_deref() == Some("true");
        let ends = secret["data"]["expiration"].is_string().then(|| {
            let ends = text("expiration").and_then(|text| text.parse().ok());
            ends.unwrap_or(Timestamp::MIN)
        });
        is_one.then_some(Self {
            id,
            secret: field("token-secret")?,
            ends,
            description: text("description").unwrap_or_default(),
            extra_groups,
        })
    }

    /// What its holder is called.
    pub fn user(&self) -> String {
        format!("{USER_PREFIX}{}", self.id)
    }

    /// The groups of its holder, without the one of everybody.
    pub fn groups(&self) -> Vec<String> {
        let own = self.extra_groups.iter().cloned();
        own.chain([GROUP.to_owned()]).collect()
    }

    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

/// Id and secret of a bearer token; None if it is not written like one.
pub fn bearer(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.split_once('.')?;
    let reads = is_word(id, ID_LENGTH) && is_word(secret, SECRET_LENGTH);
    reads.then_some((id, secret))
}

fn is_word(text: &str, length: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() == length && text.bytes().all(plain)
}

/// The groups of a list; None if one of them could be a group of others.
fn groups(list: &str) -> Option<Vec<String>> {
    let is_one = |group: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let rest = group
            .strip_prefix(GROUP_PREFIX)
            .unwrap_or_default()
            .as_bytes();
        rest.len() <= MAX_GROUP_BYTES
            && rest.last().is_some_and(|last| plain(*last))
            && rest
                .iter()
                .all(|byte| plain(*byte) || matches!(byte, b':' | b'-'))
    };
    let mut groups = Vec::new();
    for group in list.split(',').filter(|_| !list.is_empty()) {
        if !is_one(group) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort_unstable();
    groups.dedup();
    Some(groups)
}

/// The name of a token's Secret.
pub fn secret_name(id: &str) -> String {
    format!("{PREFIX}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        let text = format!("{}.abc123.0123456789abcdef\n", "a".repeat(64));
        JoinToken::parse(&text).expect("a token")
    }

    #[test]
    fn a_token_is_a_fingerprint_an_id_and_a_secret_and_shows_only_its_id() {
        let token = token();
        assert_eq!(JoinToken::parse(&token.text()).as_ref(), Some(&token));
        let shown = format!("{token:?}");
        assert!(shown.contains("abc123") && !shown.contains("0123456789abcdef"));
        let pin = "a".repeat(64);
        for bad in [
            "",
            "a.abc123.0123456789abcdef",
            &pin,
            &format!("{pin}.secret"),
            &format!("{pin}.abc123.0123456789abcde"),
            &format!("{pin}.abc12/.0123456789abcdef"),
            &format!("{pin}.abc123.0123456789abcdef.x"),
        ] {
            assert!(JoinToken::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_secret_gives_back_what_it_keeps_and_an_end_that_does_not_read_has_passed() {
        let ends: Timestamp = "2026-11-30T10:00:00Z".parse().expect("a time");
        let mut secret = token().to_secret(Some(ends), "for rack 7");
        let kept = Kept::of(&secret).expect("a token");
        assert_eq!((kept.id.as_str(), kept.ends), ("abc123", Some(ends)));
        assert_eq!(kept.secret, b"0123456789abcdef");
        assert_eq!(kept.description, "for rack 7");
        assert!(kept.has_ended(ends));
        secret["data"]["expiration"] = STANDARD.encode("soon").into();
        assert!(Kept::of(&secret).is_some_and(|kept| kept.has_ended(Timestamp::MIN)));
        let eternal = Kept::of(&token().to_secret(None, "")).expect("a token");
        assert!(!eternal.has_ended(Timestamp::MAX));
    }

    #[test]
    fn a_holder_is_in_the_groups_of_its_token_and_in_no_others() {
        let mut secret = token().to_secret(None, "");
        let kept = Kept::of(&secret).expect("a token");
        assert_eq!(kept.user(), "system:bootstrap:abc123");
        assert_eq!(kept.groups(), [DEFAULT_GROUP, GROUP]);
        for (list, known) in [
            ("", Some(1)),
            ("system:bootstrappers:b,system:bootstrappers:a", Some(3)),
            ("system:masters", None),
            ("system:bootstrappers:", None),
            ("system:bootstrappers:a-", None),
            ("system:bootstrappers:a,", None),
            ("system:bootstrappers:a\nsystem:masters", None),
        ] {
            secret["data"][EXTRA_GROUPS] = STANDARD.encode(list).into();
            let found = Kept::of(&secret).map(|kept| kept.groups().len());
            assert_eq!(found, known, "{list}");
        }
    }

    #[test]
    fn a_bearer_token_is_an_id_and_a_secret() {
        assert_eq!(
            bearer("abc123.0123456789abcdef"),
            Some(("abc123", "0123456789abcdef"))
        );
        for bad in [
            "",
            "abc123",
            "ABC123.0123456789abcdef",
            "abc123.0123456789abcdef.x",
        ] {
            assert_eq!(bearer(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_of_another_type_name_or_usage_is_no_token() {
        for (pointer, value) in [
            ("/type", json!("Opaque")),
            ("/metadata/name", json!("bootstrap-token-other1")),
            ("/data/usage-bootstrap-authentication", json!("ZmFsc2U=")),
        ] {
            let mut secret = token().to_secret(None, "");
            *secret.pointer_mut(pointer).expect("a field") = value;
            assert!(Kept::of(&secret).is_none(), "{pointer}");
        }
    }
}
