//! `<id>.<secret>` of a Secret of type `bootstrap.kubernetes.io/token`: whoever joins with it.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::user::ShownToken;
use super::{Bearer, User, Verdict};
use crate::tokens;
use api::join_token;

/// Knows the holders of tokens that have not ended.
pub fn authenticate(bearer: Bearer<'_>) -> BoxFuture<'_, Verdict> {
    async move { judge(&bearer) }.boxed()
}

fn judge(bearer: &Bearer<'_>) -> Verdict {
    let Some((id, secret)) = join_token::bearer(bearer.token) else {
        return Ok(None);
    };
    let known = tokens::known(bearer.state, id, secret).map_err(|error| error.to_string())?;
    let Some(kept) = known else {
        return Err("the bootstrap token is not known".to_owned());
    };
    if kept.has_ended(bearer.now) {
        return Err("the bootstrap token has ended".to_owned());
    }
    let user = User {
        token: Some(Arc::new(ShownToken {
            ends: kept.ends,
            bond: None,
        })),
        ..User::named(&kept.user(), kept.groups())
    };
    Ok(bearer.for_any_audience(user))
}
