//! Tokens of the pod's ServiceAccount, for its projected volumes: asked for before the pod starts, and
//! again before they end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::{Worker, instant_of};
use crate::api::sources::{self, Token, TokenWish};
use crate::network::wiring::PodNetwork;
use crate::runtime::Runtime;

/// How long the server may take for one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A token is exchanged when it is so old, however long it lives (as a kubelet does).
const OLDEST: SignedDuration = SignedDuration::from_hours(24);
/// Pods that started together do not ask again together.
const LONGEST_JITTER: SignedDuration = SignedDuration::from_secs(10);
/// Pauses between tries to exchange one that is still good.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// The tokens that a pod has.
#[derive(Default)]
pub(super) struct Tokens {
    held: BTreeMap<TokenWish, Held>,
    /// How often one has come.
    pub(super) changes: u64,
    /// Tries in a row that failed, and when the next one is.
    failures: u32,
    retry_at: Option<Instant>,
}

struct Held {
    token: Token,
    renew_at: Timestamp,
    ends: Timestamp,
}

impl Tokens {
    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.held.values().map(|held| held.renew_at).min();
        match self.retry_at {
            Some(at) => Some(at),
            None => due.map(instant_of),
        }
    }

    /// Whether one is to be asked for now.
    fn asks(&self, wish: &TokenWish, now: Timestamp) -> bool {
        match self.held.get(wish) {
            Some(held) if now < held.renew_at => false,
            Some(held) if now < held.ends => self.retry_at.is_none_or(|at| at <= Instant::now()),
            _ => true,
        }
    }

    fn take(&mut self, wish: TokenWish, held: Held) {
        self.held.insert(wish, held);
        self.changes += 1;
        self.failures = 0;
        self.retry_at = None;
    }

    fn failed(&mut self) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10));
        self.failures += 1;
        self.retry_at = Some(Instant::now() + pause.min(LONGEST_PAUSE));
    }
}

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    /// What the pod's volumes ask for, each good at the moment; those that are due are exchanged.
    pub(super) async fn tokens(&mut self) -> sources::Tokens {
        let pod = self.update.pod.clone();
        let wishes = sources::wished_tokens(&pod);
        self.tokens.held.retain(|wish, _| wishes.contains(wish));
        let mut tokens = sources::Tokens::new();
        for wish in wishes {
            let mut why = String::new();
            if self.tokens.asks(&wish, Timestamp::now()) {
                match ask(&self.node.client, &pod, &wish).await {
                    Ok(held) => self.tokens.take(wish.clone(), held),
                    Err(error) => {
                        tracing::warn!(error, pod = pod.metadata.name, "no token came");
                        self.tokens.failed();
                        why = error;
                    }
                }
            }
            let held = self.tokens.held.get(&wish);
            let good = held.filter(|held| Timestamp::now() < held.ends);
            let token = good.map(|held| held.token.clone());
            tokens.insert(wish, token.ok_or(why));
        }
        tokens
    }
}

async fn ask(client: &Client, pod: &Pod, wish: &TokenWish) -> Result<Held, String> {
    let (token, ends, seconds) = answered(client, pod, wish).await?;
    Ok(Held {
        token,
        renew_at: renewal(Timestamp::now(), ends, seconds, random()),
        ends,
    })
}

/// Asks for a token that is bound to the pod; gives it with its end. The error names no part of one.
pub async fn request(
    client: &Client,
    pod: &Pod,
    wish: &TokenWish,
) -> Result<(Token, Timestamp), String> {
    let (token, ends, _) = answered(client, pod, wish).await?;
    Ok((token, ends))
}

/// A token, its end, and how many seconds it was given.
async fn answered(
    client: &Client,
    pod: &Pod,
    wish: &TokenWish,
) -> Result<(Token, Timestamp, i64), String> {
    let meta = &pod.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or("default");
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let audience = Some(&wish.audience).filter(|audience| !audience.is_empty());
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audience.into_iter().cloned().collect(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            }),
            expiration_seconds: Some(wish.seconds),
        },
        ..TokenRequest::default()
    };
    let post = PostParams::default();
    let asking = accounts.create_token_request(account.unwrap_or("default"), &post, &request);
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, asking).await;
    let answer = answer.map_err(|_| "the server did not answer in time".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status.filter(|status| !status.token.is_empty());
    let status = status.ok_or("the server's answer has no token")?;
    let ends = status.expiration_timestamp.0;
    // The server may have given less than was asked for.
    let seconds = answer.spec.expiration_seconds.unwrap_or(wish.seconds);
    Ok((Token(status.token.into()), ends, seconds))
}

/// When to exchange a token that lives for so many seconds: with a fifth of its life left, or after a day;
/// a little before that by `chance`, which is in 0..1.
fn renewal(now: Timestamp, ends: Timestamp, seconds: i64, chance: f64) -> Timestamp {
    let life = SignedDuration::from_secs(seconds.max(0));
    let jitter = LONGEST_JITTER.min(life / 20).mul_f64(chance);
    (ends - life / 5).min(now + OLDEST) - jitter
}

/// A number in 0..1.
fn random() -> f64 {
    let bits = uuid::Uuid::new_v4().as_u64_pair().0;
    f64::from(u32::try_from(bits >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_exchanged_after_four_fifths_of_its_life_or_a_day() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let after = |seconds: i64, chance: f64| {
            let ends = now + SignedDuration::from_secs(seconds);
            renewal(now, ends, seconds, chance)
                .duration_since(now)
                .as_secs()
        };
        assert_eq!(after(3600, 0.0), 2880);
        assert_eq!(after(3600, 1.0), 2870);
        assert_eq!(after(100, 1.0), 75);
        assert_eq!(after(7 * 24 * 3600, 0.0), 24 * 3600);
    }

    #[test]
    fn tries_that_fail_come_less_and_less_often() {
        let mut tokens = Tokens::default();
        for seconds in [1, 2, 4, 8, 16, 32, 64, 120, 120] {
            let before = Instant::now();
            tokens.failed();
            let pause = tokens.retry_at.expect("a time") - before;
            assert_eq!(pause.as_secs(), seconds);
        }
    }
}
