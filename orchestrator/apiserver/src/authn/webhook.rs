//! Tokens that a server outside of the cluster knows: it is asked by a TokenReview of
//! authentication.k8s.io/v1 (kube-apiserver's `--authentication-token-webhook-…`).
//!
//! ```text
//! token ─▶ asked lately? ─yes─▶ the answer of then
//!             └─no─▶ one of ASKING_AT_ONCE places ─▶ TokenReview ─▶ its answer, kept for a while
//! ```
//!
//! It is asked last, and by nobody who shows a certificate or a token of the cluster itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::user::ShownToken;
use super::{Bearer, User, Verdict};
use crate::outgoing::{self, ClientConfig, kubeconfig};

/// How many answers are kept.
const MAX_ANSWERS: usize = 4096;
/// How long the webhook may take, and how much it may say.
const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES: usize = 64 * 1024;
/// Anybody can show tokens that nobody knows: so many are asked about at a time, and the next one waits
/// as long as an answer may take.
const ASKING_AT_ONCE: usize = 32;

/// Where the webhook is.
#[derive(Clone, Debug)]
pub struct TokenWebhook {
    /// A kubeconfig that names it.
    pub config_file: PathBuf,
    /// How long its answers are kept, the good and the bad.
    pub cache_ttl: Duration,
}

/// The webhook with its latest answers.
pub struct Reviewer {
    to: ClientConfig,
    cache_ttl: Duration,
    /// By the digest of token and audiences.
    answers: Mutex<BTreeMap<[u8; 32], Answer>>,
    asking: Semaphore,
}

#[derive(Clone)]
struct Answer {
    at: Instant,
    /// None: it does not know the token.
    known: Option<Arc<Reviewed>>,
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq)]
pub struct Reviewed {
    user: User,
    /// None: it said none, so it is for whoever asked.
    audiences: Option<Vec<String>>,
}

/// Knows whom the webhook knows, if there is one.
pub fn authenticate(bearer: Bearer<'_>) -> BoxFuture<'_, Verdict> {
    async move {
        let Some(reviewer) = &bearer.state.authentication.webhook else {
            return Ok(None);
        };
        let known = reviewer.review(&bearer).await;
        let Some(known) = known.map_err(|why| format!("token webhook: {why}"))? else {
            return Ok(None);
        };
        let user = known.user.clone();
        Ok(match &known.audiences {
            Some(audiences) => bearer.proof(user, audiences),
            None => bearer.proof(user, bearer.audiences),
        })
    }
    .boxed()
}

impl Reviewer {
    pub fn new(webhook: &TokenWebhook) -> Result<Self, String> {
        Ok(Self {
            to: kubeconfig::read(&webhook.config_file)?,
            cache_ttl: webhook.cache_ttl,
            answers: Mutex::default(),
            asking: Semaphore::new(ASKING_AT_ONCE),
        })
    }

    async fn review(&self, bearer: &Bearer<'_>) -> Result<Option<Arc<Reviewed>>, String> {
        let digest = digest(bearer);
        if let Some(known) = self.remembered(&digest) {
            return Ok(known);
        }
        let place = tokio::time::timeout(TIMEOUT, self.asking.acquire()).await;
        let _place = place.map_err(|_| "too many tokens are asked about".to_owned())?;
        // Another request with the same token may have been answered meanwhile.
        if let Some(known) = self.remembered(&digest) {
            return Ok(known);
        }
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "metadata": {"creationTimestamp": null},
            "spec": {"token": bearer.token, "audiences": bearer.audiences},
        });
        let limits = (ANSWER_BYTES, TIMEOUT);
        let review = outgoing::call_json(bearer.state, &self.to, Some(&body), limits).await?;
        let known = judged(&review["status"])?.map(Arc::new);
        self.remember(digest, known.clone());
        Ok(known)
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Option<Arc<Reviewed>>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get(digest)?;
        (answer.at.elapsed() < self.cache_ttl).then(|| answer.known.clone())
    }

    fn remember(&self, digest: [u8; 32], known: Option<Arc<Reviewed>>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, answer| answer.at.elapsed() < self.cache_ttl);
        }
        if answers.len() >= MAX_ANSWERS {
            // A flood of tokens that nobody knows pushes out its own answers first.
            let worth = |answer: &Answer| (answer.known.is_some(), answer.at);
            let least = answers.iter().min_by_key(|(_, answer)| worth(answer));
            let least = least.map(|(digest, _)| *digest);
            least.map(|digest| answers.remove(&digest));
        }
        let at = Instant::now();
        answers.insert(digest, Answer { at, known });
    }
}

/// The token itself is not kept.
fn digest(bearer: &Bearer<'_>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [bearer.token]
        .into_iter()
        .chain(bearer.audiences.iter().map(String::as_str))
    {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// What the status of a TokenReview says; None if the token is not known.
pub fn judged(status: &Value) -> Result<Option<Reviewed>, String> {
    let words = |list: &Value| -> Vec<String> {
        let words = list.as_array().into_iter().flatten();
        words
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    if status["authenticated"] != true {
        return match status["error"].as_str() {
            Some(_) => Err("the webhook could not tell".to_owned()),
            None => Ok(None),
        };
    }
    let user = &status["user"];
    let name = user["username"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err("the webhook knows a user without a name".to_owned());
    }
    let extra = user["extra"].as_object().into_iter().flatten();
    let extra = extra.map(|(key, list)| (key.to_lowercase(), words(list)));
    let audiences = words(&status["audiences"]);
    Ok(Some(Reviewed {
        user: User {
            uid: user["uid"].as_str().unwrap_or_default().into(),
            extra: Arc::new(extra.collect()),
            token: Some(Arc::new(ShownToken::default())),
            ..User::named(name, words(&user["groups"]))
        },
        audiences: (!audiences.is_empty()).then_some(audiences),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_that_says_no_user_is_no_user() {
        for nobody in [
            json!({}),
            json!({"authenticated": false, "user": {"username": "root"}}),
            json!({"authenticated": "true", "user": {"username": "root"}}),
        ] {
            assert_eq!(judged(&nobody), Ok(None), "{nobody}");
        }
        for wrong in [
            json!({"authenticated": true}),
            json!({"authenticated": true, "user": {"username": ""}}),
            json!({"authenticated": false, "error": "the token s3cret is odd"}),
        ] {
            let why = judged(&wrong).expect_err("an error");
            assert!(!why.contains("s3cret"), "{why}");
        }
        let known = judged(&json!({"authenticated": true, "audiences": ["a"], "user": {
            "username": "ann", "uid": "7", "groups": ["dev", 8], "extra": {"Key": ["v"]}}}));
        let known = known.expect("it reads").expect("a user");
        assert_eq!(known.audiences, Some(vec!["a".to_owned()]));
        assert_eq!(known.user.groups[..], ["dev".to_owned()]);
        assert_eq!(known.user.extra["key"], ["v"]);
    }
}
