//! What of users the server is told at start.

use std::path::PathBuf;

use super::Authentication;
use super::static_file::{StaticTokens, StaticTokensError};

/// Where users come from besides certificates, ServiceAccounts and join tokens.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file of tokens, for development.
    pub token_file: Option<PathBuf>,
}

/// Why one of the sources cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    #[error("tokens of users: {0}")]
    StaticTokens(#[from] StaticTokensError),
}

impl Authentication {
    /// Adds the users of these sources.
    pub fn with(self, sources: &Sources) -> Result<Self, AuthenticationError> {
        let file = sources.token_file.as_deref();
        let static_tokens = file.map(StaticTokens::load).transpose()?;
        Ok(Self {
            static_tokens: static_tokens.unwrap_or_default(),
            ..self
        })
    }
}
