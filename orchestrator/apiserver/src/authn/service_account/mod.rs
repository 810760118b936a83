//! Tokens of ServiceAccounts: made for TokenRequests and Secrets, and known again.
//!
//! ```text
//!  token ─▶ issuer is ours? ─▶ signature (kept by digest) ─▶ time ─▶ audience ─▶ bond ─▶ User
//!              │ no                                                               │
//!              └─ another authenticator's                    ServiceAccount, pod, Secret, node: each
//!                                                            there, with the uid that the token says
//! ```

mod bond;
pub mod claims;
pub mod discovery;
mod keys;
pub mod legacy;
mod memory;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::{Bearer, Proof, ShownToken, User, Verdict};
use api::ApiError;
use claims::{Audience, Claims, Kubernetes, LEGACY_ISSUER, LegacyClaims, user_name};
use keys::{Key, Keys};
use memory::Memory;
use store::Store;

pub use bond::{Bond, To, find};
pub use keys::{KeyError, start_rotation};

/// The longest life of a token: a longer one is cut to it, so that keys have an end.
pub const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Seconds by which the clocks of a cluster may differ.
const LEEWAY: i64 = 60;

/// What stands for a token where the token itself must not be.
pub type Digested = [u8; 32];

/// What tokens of ServiceAccounts are made with and known by.
pub struct Accounts {
    /// The first signs, all are believed.
    pub issuers: Vec<String>,
    pub keys: Keys,
    verified: Memory<Digested, Arc<Verified>>,
}

/// A token whose signature is good: what it says does not change any more.
enum Verified {
    Bound(Claims),
    Legacy(LegacyClaims),
}

impl Accounts {
    /// Keys are those of the store; the first server takes over what one of before left in the directory.
    pub async fn load(
        issuers: Vec<String>,
        store: Arc<dyn Store>,
        directory: Option<&Path>,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        Ok(Self {
            issuers,
            keys: Keys::load(store, directory, now).await?,
            verified: Memory::default(),
        })
    }

    /// A signed token.
    pub fn sign(&self, audiences: Vec<String>, kubernetes: Kubernetes, life: Life) -> Token {
        let account = &kubernetes.serviceaccount;
        let claims = Claims {
            aud: Audience(audiences),
            exp: life.from.as_second() + life.seconds,
            iat: life.from.as_second(),
            iss: self.issuers.first().cloned().unwrap_or_default(),
            jti: uuid::Uuid::new_v4().to_string(),
            nbf: life.from.as_second(),
            sub: user_name(&kubernetes.namespace, &account.name),
            kubernetes,
        };
        let text = signed(self.keys.ring().signing(), &claims);
        Token {
            text,
            id: claims.jti,
        }
    }

    /// A token without an end, to be kept in a Secret.
    pub fn sign_legacy(&self, namespace: &str, account: &claims::Named, secret: &str) -> Signed {
        let claims = LegacyClaims {
            iss: LEGACY_ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            name: account.name.clone(),
            uid: account.uid.clone(),
            sub: user_name(namespace, &account.name),
        };
        signed(self.keys.ring().legacy(), &claims)
    }

    /// What a token says whose signature is good; None if it is not one of ours.
    fn verify(&self, token: &str) -> Result<Option<Arc<Verified>>, String> {
        let Some(issuer) = issuer(token) else {
            return Ok(None);
        };
        let legacy = issuer == LEGACY_ISSUER;
        if !legacy && !self.issuers.contains(&issuer) {
            return Ok(None);
        }
        let digest = digest(token.as_bytes());
        if let Some(verified) = self.verified.get(&digest) {
            return Ok(Some(verified));
        }
        let ring = self.keys.ring();
        let header = decode_header(token).map_err(|_| "the token's header is not usable")?;
        let id = header.kid.unwrap_or_default();
        let key = match legacy {
            true => Some(ring.legacy()).filter(|key| key.id == id),
            false => ring.find(&id),
        };
        let key = key.ok_or("the token was signed with a key that this cluster does not have")?;
        let verified = Arc::new(match legacy {
            true => Verified::Legacy(checked(token, key)?),
            false => Verified::Bound(checked(token, key)?),
        });
        self.verified.put(digest, verified.clone());
        Ok(Some(verified))
    }

    /// Whom a token proves.
    fn recognize(&self, bearer: &Bearer<'_>) -> Verdict {
        let Some(verified) = self.verify(bearer.token)? else {
            return Ok(None);
        };
        let (bond, audiences, ends) = match &*verified {
            Verified::Bound(claims) => {
                check_time(claims, bearer.now)?;
                (Bond::of(claims), &claims.aud.0, claims.ends(LEEWAY))
            }
            // It names no audience, and is for this server alone.
            Verified::Legacy(claims) => (
                Bond::of_copy(claims, digest(bearer.token.as_bytes())),
                &bearer.state.authentication.audiences,
                None,
            ),
        };
        let id = match &*verified {
            Verified::Bound(claims) => claims.jti.as_str(),
            Verified::Legacy(_) => "",
        };
        let user = user(&bond, id);
        let proof = bearer.proof(user, audiences).ok_or_else(|| {
            format!(
                "token audiences {audiences:?} is invalid for the target audiences {:?}",
                bearer.audiences
            )
        })?;
        bond.holds(bearer.state, bearer.now)?;
        let token = ShownToken {
            ends,
            bond: Some(bond),
        };
        Ok(Some(Proof {
            user: User {
                token: Some(Arc::new(token)),
                ..proof.user
            },
            ..proof
        }))
    }
}

/// How long a token is to be good.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub from: Timestamp,
    pub seconds: i64,
}

/// The text of a token, or that it could not be made.
pub type Signed = Result<String, ApiError>;

/// A new token.
pub struct Token {
    pub text: Signed,
    /// What the audit log calls it.
    pub id: String,
}

/// The row of `AUTHENTICATORS`.
pub fn authenticate(bearer: Bearer<'_>) -> BoxFuture<'_, Verdict> {
    async move { bearer.state.authentication.accounts.recognize(&bearer) }.boxed()
}

fn check_time(claims: &Claims, now: Timestamp) -> Result<(), String> {
    let now = now.as_second();
    if now > claims.exp.saturating_add(LEEWAY) {
        return Err("service account token has expired".to_owned());
    }
    let from = claims.nbf.max(claims.iat);
    if now < from.saturating_sub(LEEWAY) {
        return Err("service account token is not valid yet".to_owned());
    }
    Ok(())
}

fn user(bond: &Bond, id: &str) -> User {
    let namespace = &bond.namespace;
    let groups = vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ];
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        }
    };
    if !id.is_empty() {
        add("credential-id", format!("JTI={id}"));
    }
    let (pod, node) = match &bond.to {
        To::Pod(pod, node) => (Some(pod), node.as_ref()),
        To::Node(node) => (None, Some(node)),
        _ => (None, None),
    };
    for (kind, named) in [("pod", pod), ("node", node)] {
        let Some(named) = named else { continue };
        add(&format!("{kind}-name"), named.name.clone());
        add(&format!("{kind}-uid"), named.uid.clone());
    }
    User {
        uid: bond.account.uid.as_str().into(),
        extra: Arc::new(extra),
        ..User::named(&user_name(namespace, &bond.account.name), groups)
    }
}

/// Who has signed the token, as it says; nothing of that is proven yet. None: it is no JWT.
fn issuer(token: &str) -> Option<String> {
    use base64::Engine as _;
    #[derive(Deserialize)]
    struct Said {
        iss: String,
    }
    let mut parts = token.split('.');
    let payload = parts.nth(1)?;
    parts.next()?;
    if parts.next().is_some() {
        return None;
    }
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let said: Said = serde_json::from_slice(&engine.decode(payload).ok()?).ok()?;
    Some(said.iss)
}

/// The claims of a token that this key has signed, with the one algorithm that it is for.
fn checked<T: DeserializeOwned>(token: &str, key: &Key) -> Result<T, String> {
    let mut validation = Validation::new(Algorithm::ES256);
    // Only the signature is checked here, once; the rest is with every request.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let decoded = decode(token, &key.verifying, &validation);
    // What exactly is wrong is nothing that a forger should learn.
    decoded
        .map(|decoded| decoded.claims)
        .map_err(|_| "the token's signature or claims are not good".to_owned())
}

fn signed(key: &Key, claims: &impl serde::Serialize) -> Signed {
    let header = Header {
        typ: None,
        kid: Some(key.id.clone()),
        ..Header::new(Algorithm::ES256)
    };
    encode(&header, claims, &key.signing).map_err(crate::reply::internal)
}

pub fn digest(token: &[u8]) -> Digested {
    Sha256::digest(token).into()
}
