//! Who asks: a client certificate, a bearer token, a caller in the same process, or nobody in
//! particular.
//!
//! ```text
//!  connection: certificate? ──yes──▶ User
//!      │ no
//!      ▼
//!  Authorization: Bearer …? ──yes──▶ AUTHENTICATORS, in order ──▶ the first that knows it ──▶ User
//!      │ no                                  └─ no one knows it ──▶ 401
//!      ▼
//!  system:anonymous
//! ```
//!
//! INVARIANT: a token is in no log and no error; what is kept of it is its digest.

pub mod bootstrap_token;
pub mod failures;
pub mod impersonation;
pub mod oidc;
pub mod service_account;
pub mod sources;
pub mod static_file;
mod user;
pub mod webhook;

use std::path::Path;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::{State, authz};
use api::ApiError;
use service_account::{Accounts, KeyError};
use store::Store;

pub use oidc::OidcConfig;
pub use sources::{AuthenticationError, Sources};
pub use user::{MASTERS, NODE_PREFIX, NODES, ShownToken, User};
pub use webhook::TokenWebhook;

/// Longer tokens are not looked at. One of a ServiceAccount takes about 1,200 bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// What the server is told at start about tokens.
#[derive(Clone, Debug)]
pub struct AuthenticationConfig {
    /// Who signs tokens of ServiceAccounts: the first does, all are believed.
    pub issuers: Vec<String>,
    /// Whom tokens must be for that are shown to this server; empty: the issuers.
    pub audiences: Vec<String>,
}

impl Default for AuthenticationConfig {
    fn default() -> Self {
        Self {
            issuers: vec!["https://kubernetes.default.svc".to_owned()],
            audiences: Vec::new(),
        }
    }
}

/// What authenticators know tokens by.
pub struct Authentication {
    /// Whom tokens must be for that are shown to this server. Tokens that say no audience are for all
    /// of these.
    pub audiences: Vec<String>,
    /// Those of the file that the server was given.
    pub static_tokens: static_file::StaticTokens,
    pub oidc: Option<oidc::Issuer>,
    pub webhook: Option<webhook::Reviewer>,
    pub failures: failures::Failures,
    pub accounts: Accounts,
}

impl Authentication {
    /// Keys are those of the store; a server of before kept them below `directory`.
    pub async fn load(
        config: &AuthenticationConfig,
        store: Arc<dyn Store>,
        directory: Option<&Path>,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        let issuers = config.issuers.clone();
        let audiences = match config.audiences.is_empty() {
            true => &issuers,
            false => &config.audiences,
        };
        let keys = directory.map(|directory| directory.join("service-account"));
        Ok(Self {
            audiences: audiences.clone(),
            accounts: Accounts::load(issuers, store, keys.as_deref(), now).await?,
            static_tokens: static_file::StaticTokens::default(),
            oidc: None,
            webhook: None,
            failures: failures::Failures::default(),
        })
    }
}

/// A token that somebody shows, and to whom.
#[derive(Clone, Copy)]
pub struct Bearer<'a> {
    pub state: &'a State,
    pub token: &'a str,
    /// It must be for one of them.
    pub audiences: &'a [String],
    pub now: Timestamp,
}

/// What a good token proves.
#[derive(Debug, PartialEq)]
pub struct Proof {
    pub user: User,
    /// Those of the asked audiences that it is for.
    pub audiences: Vec<String>,
}

/// None for a token of another kind, which another authenticator may know; an error for one of its
/// own kind that is not good (any more). The error names no part of the token.
pub type Verdict = Result<Option<Proof>, String>;

type Authenticator = for<'a> fn(Bearer<'a>) -> BoxFuture<'a, Verdict>;

/// Who knows tokens, in the order in which they are asked.
static AUTHENTICATORS: [Authenticator; 5] = [
    static_file::authenticate,
    service_account::authenticate,
    bootstrap_token::authenticate,
    oidc::authenticate,
    webhook::authenticate,
];

impl<'a> Bearer<'a> {
    /// A token that is for whoever asks this server.
    pub fn for_any_audience(&self, user: User) -> Option<Proof> {
        let own = &self.state.authentication.audiences;
        self.proof(user, own)
    }

    /// The proof of a token that is for these audiences; None if it is for no asked one.
    pub fn proof(&self, user: User, good_for: &[String]) -> Option<Proof> {
        let asked = self.audiences.iter();
        let audiences: Vec<String> = asked
            .filter(|audience| good_for.contains(audience))
            .cloned()
            .collect();
        let is_for_some = !audiences.is_empty() || self.audiences.is_empty();
        is_for_some.then_some(Proof { user, audiences })
    }
}

/// Whose a token is; None if it is nobody's, with what was found wrong with it.
pub async fn authenticate_token(bearer: Bearer<'_>) -> (Option<Proof>, Vec<String>) {
    let mut errors = Vec::new();
    if bearer.token.is_empty() || bearer.token.len() > MAX_TOKEN_BYTES {
        return (None, errors);
    }
    for authenticator in &AUTHENTICATORS {
        match authenticator(bearer).await {
            Ok(Some(proof)) => return (Some(proof), errors),
            Ok(None) => {}
            Err(why) => errors.push(why),
        }
    }
    (None, errors)
}

/// The caller of a request; `user` is whom the connection knows. Credentials that are shown and not
/// known, or have ended since, are an error, not nobody: a wrong token must not look like missing
/// rights.
pub async fn authenticate(
    state: &State,
    user: Option<&User>,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<User, ApiError> {
    let unauthorized = || ApiError::Unauthorized("Unauthorized".to_owned());
    match user {
        Some(user) if user.has_ended(now) => Err(ApiError::Unauthorized(
            "the client certificate has ended while the connection was open".to_owned(),
        )),
        Some(user) if !user.is_anonymous() => Ok(user.clone()),
        _ if headers.contains_key(header::AUTHORIZATION) => {
            let token = bearer(headers).ok_or_else(unauthorized)?;
            let (proof, errors) = authenticate_token(Bearer {
                state,
                token,
                audiences: &state.authentication.audiences,
                now,
            })
            .await;
            for why in errors {
                tracing::debug!(why, "a bearer token was not believed");
            }
            proof.map(|proof| proof.user).ok_or_else(unauthorized)
        }
        _ => Ok(User::anonymous()),
    }
}

/// Whether what a caller is believed by is still there: the key of a node's name, what a token is
/// bound to. Asked again while a watch goes on.
pub fn still_holds(state: &State, user: &User, now: Timestamp) -> Result<(), ApiError> {
    authz::holds_name(state, user)?;
    let bond = user.token.as_ref().and_then(|token| token.bond.as_ref());
    bond.map_or(Ok(()), |bond| bond.holds(state, now))
        .map_err(ApiError::Unauthorized)
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
    use crate::tests::Cluster;
    use sys::certificates::Shown;

    #[tokio::test]
    async fn a_token_that_nobody_knows_is_not_anonymous() {
        let cluster = Cluster::start().await;
        let state = &cluster.server.state;
        let now = Timestamp::UNIX_EPOCH;
        let mut headers = HeaderMap::new();
        let nobody = authenticate(state, None, &headers, now).await;
        assert!(nobody.is_ok_and(|user| user.is_anonymous()));
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_static("Bearer abc"),
        );
        assert_eq!(bearer(&headers), Some("abc"));
        for known in [None, Some(&User::anonymous())] {
            let refused = authenticate(state, known, &headers, now).await;
            assert_eq!(refused.map_err(|e| e.code()), Err(401));
        }
    }

    #[tokio::test]
    async fn a_certificate_that_ends_while_its_connection_is_open_is_worth_nothing_from_then_on() {
        let cluster = Cluster::start().await;
        let state = &cluster.server.state;
        let (headers, ends) = (HeaderMap::new(), Timestamp::UNIX_EPOCH);
        let user = User::internal("a").showing(Shown {
            key: "k".into(),
            ends,
            addresses: [].into(),
        });
        let second = jiff::SignedDuration::from_secs(1);
        let before = authenticate(state, Some(&user), &headers, ends - second).await;
        assert!(before.is_ok());
        let refused = authenticate(state, Some(&user), &headers, ends).await;
        assert_eq!(refused.map_err(|e| e.code()), Err(401));
    }
}
