//! Join tokens: which are good, the server's own one in a file, and the end of those that are over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use subtle::ConstantTimeEq;

use super::objects::{Current, WriteError};
use super::{Pki, State, bootstrap, reply};
use api::join_token::{self, JoinToken, Kept};
use api::{self, ApiError, Resource, meta};
use sys::{files, random};

/// How long a token is good unless its maker says otherwise; the server's own as well.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// How often the server looks for tokens that have ended, and at its own.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(30);

/// The id of the token, if it is one of this cluster's that has not ended. What is said of others
/// does not tell how near they come.
pub fn check(state: &State, pki: &Pki, text: &str, now: Timestamp) -> Result<String, ApiError> {
    let unknown = || {
        ApiError::Unauthorized(
            "the join token is not one of this cluster's: make one with `orchestrator token create`"
                .to_owned(),
        )
    };
    let token = JoinToken::parse(text).ok_or_else(unknown)?;
    if token.authority != pki.fingerprint().map_err(reply::internal)? {
        return Err(unknown());
    }
    match known(state, &token.id, &token.secret)? {
        None => Err(unknown()),
        Some(kept) if kept.has_ended(now) => Err(ApiError::Unauthorized(format!(
            "the join token {} has ended: make another with `orchestrator token create`",
            kept.id
        ))),
        Some(kept) => Ok(kept.id),
    }
}

/// The token of this id and secret, also one that has ended. None if there is none.
pub fn known(state: &State, id: &str, secret: &str) -> Result<Option<Kept>, ApiError> {
    let name = join_token::secret_name(id);
    let Ok(found) = state.objects.get(secrets()?, join_token::NAMESPACE, &name) else {
        return Ok(None);
    };
    let found = reply::parse(&found.bytes())?;
    let kept = Kept::of(&found).filter(|_| !meta::is_terminating(&found));
    Ok(kept.filter(|kept| bool::from(kept.secret.ct_eq(secret.as_bytes()))))
}

/// Keeps a good token in the server's own file, so that whoever starts agents beside it has one, and
/// removes tokens that have ended, until the server stops. Returns when the file is written.
pub async fn start_upkeep(state: &Arc<State>, file: Option<PathBuf>) -> Result<(), ApiError> {
    if let Some(file) = &file {
        keep_own(state, file, Timestamp::now()).await?;
    }
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.restarting("join tokens", move || {
        let (state, shutdown, file) = (state.clone(), shutdown.clone(), file.clone());
        async move {
            let tick = || shutdown.unless(tokio::time::sleep(UPKEEP_INTERVAL));
            while tick().await.is_some() {
                let now = Timestamp::now();
                remove_ended(&state, now).await?;
                if let Some(file) = &file {
                    keep_own(&state, file, now).await?;
                }
            }
            Ok::<(), ApiError>(())
        }
    });
    Ok(())
}

/// Writes another token once half of the kept one's life is over: who has just read that one can
/// still join with it.
async fn keep_own(state: &State, file: &Path, now: Timestamp) -> Result<(), ApiError> {
    let Some(pki) = &state.pki else {
        return Ok(());
    };
    let kept = files::read_if_present(file).map_err(reply::internal)?;
    let soon = now + LIFETIME / 2;
    if kept.is_some_and(|kept| check(state, pki, &kept, soon).is_ok()) {
        return Ok(());
    }
    let token = JoinToken {
        authority: pki.fingerprint().map_err(reply::internal)?,
        id: random::word(join_token::ID_LENGTH),
        secret: random::word(join_token::SECRET_LENGTH),
    };
    let description = "the server's own, in its file node-token";
    let secret = token.to_secret(Some(now + LIFETIME), description);
    bootstrap::ensure(state, secrets()?, secret, false).await?;
    let text = format!("{}\n", token.text());
    files::write_atomic(file, text.as_bytes(), files::PRIVATE).map_err(reply::internal)
}

async fn remove_ended(state: &State, now: Timestamp) -> Result<(), ApiError> {
    let (secrets, namespace) = (secrets()?, join_token::NAMESPACE);
    for secret in state.objects.cache.list(secrets, Some(namespace)).1 {
        let of_type = secret.fields().get("type");
        if of_type.is_none_or(|of_type| of_type != join_token::TYPE) {
            continue;
        }
        let current = Current::of(&secret)?;
        let Some(kept) = Kept::of(&current.value).filter(|kept| kept.has_ended(now)) else {
            continue;
        };
        let name = secret.name();
        let removed = state
            .objects
            .remove(secrets, namespace, name, current.revision);
        match removed.await {
            Ok(()) => tracing::info!(token = kept.id, "a join token has ended"),
            // It was given more time, or is gone already.
            Err(WriteError::Changed) => {}
            Err(WriteError::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

fn secrets() -> Result<&'static Arc<Resource>, ApiError> {
    api::find("", "v1", "secrets").ok_or(ApiError::NoSuchResource)
}

#[cfg(test)]
pub mod testing {
    //! Tokens for tests of joining.

    use super::*;

    pub async fn make(state: &State, ends: Option<Timestamp>) -> JoinToken {
        let pki = state.pki.as_ref().expect("certificates");
        let token = JoinToken {
            authority: pki.fingerprint().expect("an authority"),
            id: random::word(join_token::ID_LENGTH),
            secret: random::word(join_token::SECRET_LENGTH),
        };
        let secret = token.to_secret(ends, "");
        let made = bootstrap::ensure(state, secrets().expect("secrets"), secret, false);
        made.await.expect("a token");
        token
    }

    pub async fn upkeep(state: &State, file: &Path, now: Timestamp) {
        remove_ended(state, now).await.expect("upkeep");
        keep_own(state, file, now).await.expect("upkeep");
    }
}
