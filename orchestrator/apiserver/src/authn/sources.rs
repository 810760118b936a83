//! What of users the server is told at start.

use std::path::PathBuf;

use super::Authentication;
use super::oidc::{Issuer, OidcConfig, OidcError};
use super::static_file::{StaticTokens, StaticTokensError};
use super::webhook::{Reviewer, TokenWebhook};

/// Where users come from besides certificates, ServiceAccounts and join tokens.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file of tokens, for development.
    pub token_file: Option<PathBuf>,
    pub oidc: Option<OidcConfig>,
    pub webhook: Option<TokenWebhook>,
}

/// Why one of the sources cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    #[error("--token-auth-file: {0}")]
    StaticTokens(#[from] StaticTokensError),
    #[error(transparent)]
    Oidc(#[from] OidcError),
    #[error("--authentication-token-webhook-config-file: {0}")]
    Webhook(String),
}

impl Authentication {
    /// Adds the users of these sources. Nobody is asked yet.
    pub fn with(self, sources: &Sources) -> Result<Self, AuthenticationError> {
        let file = sources.token_file.as_deref();
        let static_tokens = file.map(StaticTokens::load).transpose()?;
        let reviewer = sources.webhook.as_ref().map(Reviewer::new).transpose();
        Ok(Self {
            static_tokens: static_tokens.unwrap_or_default(),
            oidc: sources.oidc.as_ref().map(Issuer::new).transpose()?,
            webhook: reviewer.map_err(AuthenticationError::Webhook)?,
            ..self
        })
    }
}
