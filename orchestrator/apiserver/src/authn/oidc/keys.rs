//! The keys of an issuer: fetched when a token needs them, kept, and fetched again when a token names one
//! that is not among them. How often that may be is limited, since anybody can write such a token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};

use crate::State;
use crate::outgoing::{self, ClientConfig};

const DISCOVERY: &str = "/.well-known/openid-configuration";
/// An answer of the issuer: so long, and so many bytes.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES: usize = 1024 * 1024;
/// How many keys of an issuer are looked at. The largest ones have some ten.
const MAX_KEYS: usize = 100;
/// After a fetch, whatever came of it, the next one waits that long.
const PAUSE: Duration = Duration::from_secs(10);
/// Older keys are fetched again in the background, so that one that was taken back ends.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The bytes of a modulus: 2,048 to 8,192 bits. And of an exponent.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
const EXPONENT_BYTES: usize = 8;

/// A key that verifies.
#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    /// `RSA`, `P-256`, `P-384`.
    form: &'static str,
    pub key: DecodingKey,
}

/// The keys of one issuer.
pub struct Keys {
    issuer: String,
    /// What its certificate must be signed by (PEM), if not by whom the machine trusts.
    bundle: Option<String>,
    known: Mutex<Known>,
    /// One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Known {
    keys: Arc<[Key]>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl Keys {
    pub fn new(issuer: &str, bundle: Option<String>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            bundle,
            known: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// The keys that may have signed a token which names this one; without a name, all of the form.
    pub async fn of(
        &self,
        state: &State,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<Key>, String> {
        let known = self.known();
        let found = known.find(id, algorithm);
        if !found.is_empty() {
            if is_over(known.fetched, LIFETIME) && is_over(known.tried, PAUSE) {
                refresh_behind(state);
            }
            return Ok(found);
        }
        let fetched = self.fetch(state).await;
        let found = self.known().find(id, algorithm);
        match (found.is_empty(), fetched) {
            (false, _) => Ok(found),
            (true, Ok(())) => Err("the issuer has no such key".to_owned()),
            (true, Err(why)) => Err(why),
        }
    }

    fn known(&self) -> Known {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// Asks the issuer, unless that was done a moment ago.
    async fn fetch(&self, state: &State) -> Result<(), String> {
        let _turn = self.fetching.lock().await;
        if !is_over(self.known().tried, PAUSE) {
            return Err("the issuer was asked for its keys a moment ago".to_owned());
        }
        // Whoever is dropped while it waits has tried as well.
        self.note(|known| known.tried = Some(Instant::now()));
        let keys = self.ask(state).await;
        let keys = keys.inspect_err(|why| tracing::warn!(issuer = self.issuer, why, "no keys"))?;
        self.note(|known| {
            known.keys = keys.into();
            known.fetched = Some(Instant::now());
        });
        Ok(())
    }

    fn note(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn ask(&self, state: &State) -> Result<Vec<Key>, String> {
        let url = format!("{}{DISCOVERY}", self.issuer.trim_end_matches('/'));
        let document = self.get(state, &url).await?;
        if document["issuer"] != self.issuer.as_str() {
            return Err("the issuer calls itself by another name".to_owned());
        }
        let url = document["jwks_uri"].as_str().unwrap_or_default();
        let set = self.get(state, url).await?;
        let keys = set["keys"].as_array().into_iter().flatten();
        Ok(keys.filter_map(key).take(MAX_KEYS).collect())
    }

    async fn get(&self, state: &State, url: &str) -> Result<Value, String> {
        let bundle = self.bundle.as_ref().map(|pem| STANDARD.encode(pem));
        let to = ClientConfig::of(&json!({"url": url, "caBundle": bundle}))?;
        outgoing::call_json(state, &to, None, (ANSWER_BYTES, FETCH_TIMEOUT)).await
    }
}

/// Fetches the issuer's keys while its users go on with the old ones.
fn refresh_behind(state: &State) {
    let Some(state) = state.me.upgrade() else {
        return;
    };
    tokio::spawn(async move {
        if let Some(issuer) = &state.authentication.oidc {
            // Its failure is in the log, and tried again.
            let _ = issuer.keys.fetch(&state).await;
        }
    });
}

fn is_over(since: Option<Instant>, time: Duration) -> bool {
    since.is_none_or(|since| since.elapsed() >= time)
}

impl Known {
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<Key> {
        let form = match algorithm {
            Algorithm::ES256 => "P-256",
            Algorithm::ES384 => "P-384",
            _ => "RSA",
        };
        let is_meant = |key: &&Key| {
            key.form == form && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        };
        self.keys.iter().filter(is_meant).cloned().collect()
    }
}

/// A key of a set (RFC 7517); None for one that verifies nothing here.
pub fn key(jwk: &Value) -> Option<Key> {
    let text = |field: &str| jwk[field].as_str();
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let (form, key) = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let (modulus, exponent) = (text("n")?, text("e")?);
            let bytes = |text: &str| Some(URL_SAFE_NO_PAD.decode(text).ok()?.len());
            let is_fit = MODULUS_BYTES.contains(&bytes(modulus)?)
                && (1..=EXPONENT_BYTES).contains(&bytes(exponent)?);
            let key = DecodingKey::from_rsa_components(modulus, exponent).ok();
            ("RSA", key.filter(|_| is_fit)?)
        }
        ("EC", Some("P-256")) => ("P-256", elliptic(text("x")?, text("y")?, 32)?),
        ("EC", Some("P-384")) => ("P-384", elliptic(text("x")?, text("y")?, 48)?),
        _ => return None,
    };
    Some(Key {
        id: text("kid").map(str::to_owned),
        form,
        key,
    })
}

fn elliptic(x: &str, y: &str, bytes: usize) -> Option<DecodingKey> {
    let is_fit = |text: &str| {
        URL_SAFE_NO_PAD
            .decode(text)
            .is_ok_and(|it| it.len() == bytes)
    };
    let key = DecodingKey::from_ec_components(x, y).ok()?;
    (is_fit(x) && is_fit(y)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_no_use_here_are_passed_over() {
        let bytes = |count: usize| URL_SAFE_NO_PAD.encode(vec![0xab; count]);
        let rsa = |n: usize, e: usize| json!({"kty": "RSA", "n": bytes(n), "e": bytes(e)});
        assert!(key(&rsa(256, 3)).is_some());
        for (n, e) in [(128, 3), (1025, 3), (1 << 20, 3), (256, 9), (256, 0)] {
            assert!(key(&rsa(n, e)).is_none(), "{n} {e}");
        }
        let mut other = rsa(256, 3);
        other["use"] = json!("enc");
        assert!(key(&other).is_none());
        let secret = json!({"kty": "oct", "k": bytes(32)});
        assert!(key(&secret).is_none());
        let elliptic = |crv: &str, length: usize| json!({"kty": "EC", "crv": crv, "x": bytes(length), "y": bytes(length)});
        assert!(key(&elliptic("P-256", 32)).is_some());
        assert!(key(&elliptic("P-256", 48)).is_none());
        assert!(key(&elliptic("P-521", 66)).is_none());
    }
}
