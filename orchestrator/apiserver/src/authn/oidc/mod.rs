//! Users of an OpenID Connect issuer: their id tokens are bearer tokens (kube-apiserver's `--oidc-…`).
//!
//! ```text
//! token ─▶ of this issuer? ─▶ key of its kid ─▶ signature ─▶ api::oidc: claims ─▶ User
//!                                 │ unknown, or old
//!                                 └─▶ /.well-known/openid-configuration ─▶ jwks_uri ─▶ keys
//! ```
//!
//! The issuer is asked by those who show a token of its name alone: nobody else waits for it.

pub mod keys;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::Value;

use super::user::ShownToken;
use super::{Bearer, User, Verdict};
use crate::State;
use api::jwt::Unverified;
use api::oidc::Rules;
use keys::Keys;
use sys::files;

/// What tokens may be signed with. Nothing that is signed with a shared secret, and nothing unsigned.
const ALGORITHMS: [&str; 8] = [
    "RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512",
];

/// The issuer, as the server is told of it.
#[derive(Clone, Debug, Default)]
pub struct OidcConfig {
    pub rules: Rules,
    /// Whose certificates it shows, if not of one whom the machine trusts.
    pub ca_file: Option<PathBuf>,
    pub signing_algorithms: Vec<String>,
}

/// Why an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("--oidc-issuer-url {0:?}: must be an https URL without user, query and fragment")]
    Issuer(String),
    #[error("--oidc-client-id: whom tokens are for must be said")]
    ClientId,
    #[error("--oidc-signing-algs: {0:?} is not one of {known}", known = ALGORITHMS.join(", "))]
    Algorithm(String),
    #[error("--oidc-ca-file {path}: {why}")]
    Authority { path: PathBuf, why: String },
}

/// The issuer with its keys.
pub struct Issuer {
    rules: Rules,
    algorithms: Vec<Algorithm>,
    keys: Keys,
}

/// Knows the users of the issuer, if there is one.
pub fn authenticate(bearer: Bearer<'_>) -> BoxFuture<'_, Verdict> {
    async move {
        let Some(issuer) = &bearer.state.authentication.oidc else {
            return Ok(None);
        };
        let Some(token) = Unverified::parse(bearer.token) else {
            return Ok(None);
        };
        if token.issuer() != issuer.rules.issuer {
            return Ok(None);
        }
        let user = issuer.user(bearer.state, bearer.token, &token, bearer.now);
        let user = user.await.map_err(|why| format!("oidc: {why}"))?;
        // As in Kubernetes, its audience is the client's id, not one of this server's.
        Ok(bearer.for_any_audience(user))
    }
    .boxed()
}

impl Issuer {
    /// One that has not been asked for its keys yet.
    pub fn new(config: &OidcConfig) -> Result<Self, OidcError> {
        let issuer = &config.rules.issuer;
        let is_plain = issuer
            .strip_prefix("https://")
            .is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@']));
        if !is_plain {
            return Err(OidcError::Issuer(issuer.clone()));
        }
        if config.rules.client_id.is_empty() {
            return Err(OidcError::ClientId);
        }
        let algorithm = |name: &String| {
            let known = ALGORITHMS.contains(&name.as_str());
            let found = Algorithm::from_str(name).ok().filter(|_| known);
            found.ok_or_else(|| OidcError::Algorithm(name.clone()))
        };
        let algorithms = config.signing_algorithms.iter().map(algorithm);
        let mut algorithms = algorithms.collect::<Result<Vec<_>, _>>()?;
        if algorithms.is_empty() {
            algorithms.push(Algorithm::RS256);
        }
        let bundle = config.ca_file.as_deref().map(bundle).transpose()?;
        Ok(Self {
            keys: Keys::new(issuer, bundle),
            rules: config.rules.clone(),
            algorithms,
        })
    }

    async fn user(
        &self,
        state: &State,
        text: &str,
        token: &Unverified,
        now: Timestamp,
    ) -> Result<User, String> {
        let algorithm = Algorithm::from_str(&token.algorithm).ok();
        let algorithm = algorithm.filter(|algorithm| self.algorithms.contains(algorithm));
        let algorithm =
            algorithm.ok_or("the token is signed with an algorithm that is not good")?;
        let keys = self
            .keys
            .of(state, token.key_id.as_deref(), algorithm)
            .await?;
        let mut validation = Validation::new(algorithm);
        // The claims are judged below, with the time that is given.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let verified = keys.iter().find_map(|key| {
            let decoded = jsonwebtoken::decode::<Value>(text, &key.key, &validation);
            decoded.ok().map(|decoded| decoded.claims)
        });
        let claims = verified.ok_or("no key of the issuer has signed the token")?;
        let person = self.rules.person(&claims, now.as_second())?;
        let ends = Timestamp::from_second(person.ends).ok();
        Ok(User {
            extra: Arc::new(person.extra),
            token: Some(Arc::new(ShownToken { ends, bond: None })),
            ..User::named(&person.name, person.groups)
        })
    }
}

fn bundle(path: &Path) -> Result<String, OidcError> {
    let failed = |why: String| OidcError::Authority {
        path: path.to_owned(),
        why,
    };
    let text = files::read_if_present(path).map_err(|error| failed(error.to_string()))?;
    text.ok_or_else(|| failed("there is no such file".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_that_cannot_be_asked_in_secret_is_refused_at_start() {
        let config = |issuer: &str, client_id: &str, algorithm: &str| OidcConfig {
            rules: Rules {
                issuer: issuer.to_owned(),
                client_id: client_id.to_owned(),
                ..Rules::default()
            },
            signing_algorithms: vec![algorithm.to_owned()],
            ..OidcConfig::default()
        };
        let good = "https://issuer.example/realm";
        assert!(Issuer::new(&config(good, "k", "RS256")).is_ok());
        for (issuer, client_id, algorithm) in [
            ("http://issuer.example", "k", "RS256"),
            ("https://", "k", "RS256"),
            ("https://a:b@issuer.example", "k", "RS256"),
            ("https://issuer.example?a=b", "k", "RS256"),
            (good, "", "RS256"),
            (good, "k", "none"),
            (good, "k", "HS256"),
        ] {
            let refused = Issuer::new(&config(issuer, client_id, algorithm));
            assert!(refused.is_err(), "{issuer} {client_id} {algorithm}");
        }
    }
}
