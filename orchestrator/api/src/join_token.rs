//! What a machine joins the cluster with: `<fingerprint of the authority>.<id>.<secret>`. The server
//! keeps id and secret in a Secret of Kubernetes' type for that, with an end.

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
}

impl JoinToken {
    /// Reads a token; None if it is not written like one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('.');
        let (authority, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let is_hex = authority.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_word = |text: &str, length: usize| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            text.len() == length && text.bytes().all(plain)
        };
        let reads = parts.next().is_none()
            && authority.len() == FINGERPRINT_LENGTH
            && is_hex
            && is_word(id, ID_LENGTH)
            && is_word(secret, SECRET_LENGTH);
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
    /// Reads a Secret; None if it is not one of a token that machines may join with. An end that
    /// does not read has passed.
    pub fn of(secret: &Value) -> Option<Self> {
        let field = |name: &str| STANDARD.decode(secret["data"][name].as_str()?).ok();
        let text = |name: &str| String::from_utf8(field(name)?).ok();
        let id = text("token-id")?;
        let is_one = secret["type"] == TYPE
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
        })
    }

    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
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
