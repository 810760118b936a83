//! The keys that sign tokens: files of the server, several at a time.
//!
//! ```text
//!  pki/service-account/1764450000.key   ─ the newest: signs
//!                      1756674000.key   ─ older: verifies, until no token of it can live
//!                      legacy.key       ─ signs tokens in Secrets, which have no end, and is kept
//! ```
//!
//! A key's name is the second in which it was made. A key appears in no log, error or `Debug` output.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::LONGEST_LIFE;
use crate::State;
use sys::certificates::make_key;
use sys::files;

/// How long a key signs.
const SIGNING_TIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Clocks differ, and what a key has signed is verified a little longer than it says.
const LEEWAY: SignedDuration = SignedDuration::from_hours(1);
/// How often the server looks whether the newest key is due.
const ROTATION_INTERVAL: Duration = Duration::from_secs(600);
/// The key of tokens without an end.
const LEGACY: &str = "legacy";

/// What a public key of the curve P-256 has before its point (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0} is not the key of an EC P-256 pair in PKCS#8")]
    Reading(String),
    #[error(transparent)]
    Making(#[from] sys::certificates::CertificateError),
}

/// The keys, as they are now.
pub struct Keys {
    /// None: they are kept in memory only.
    directory: Option<PathBuf>,
    ring: RwLock<Arc<Ring>>,
}

/// All keys at one time.
pub struct Ring {
    /// The newest first.
    own: Vec<Arc<Key>>,
    legacy: Arc<Key>,
}

/// A pair of keys for ES256.
pub struct Key {
    /// What a token says that this key has signed: the SHA-256 of its public key.
    pub id: String,
    pub signing: EncodingKey,
    pub verifying: DecodingKey,
    made: Timestamp,
    /// The coordinates of the public key, as JWKs have them.
    x: String,
    y: String,
}

impl Keys {
    /// Reads the keys in the directory (made, for the owner alone) and makes those that are missing.
    pub fn load(directory: Option<&Path>, now: Timestamp) -> Result<Self, KeyError> {
        if let Some(directory) = directory {
            files::create_private_dir(directory).map_err(|source| file(directory, source))?;
        }
        let mut own = read_all(directory)?;
        if own.is_empty() {
            own.push(Arc::new(make(
                directory,
                &now.as_second().to_string(),
                now,
            )?));
        }
        let legacy = match directory.map(|directory| read(directory, LEGACY, now)) {
            Some(kept) => kept?,
            None => None,
        };
        let legacy = match legacy {
            Some(legacy) => legacy,
            None => make(directory, LEGACY, now)?,
        };
        let ring = Ring {
            own,
            legacy: Arc::new(legacy),
        };
        Ok(Self {
            directory: directory.map(Path::to_owned),
            ring: RwLock::new(Arc::new(ring)),
        })
    }

    pub fn ring(&self) -> Arc<Ring> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.clone()
    }

    /// Makes the next key if the newest has signed long enough, and forgets those of which no token
    /// can live. True: something has changed.
    pub fn rotate(&self, now: Timestamp) -> Result<bool, KeyError> {
        let before = self.ring();
        let mut own = before.own.clone();
        if now.duration_since(before.newest().made) >= SIGNING_TIME {
            let directory = self.directory.as_deref();
            let key = make(directory, &now.as_second().to_string(), now)?;
            own.insert(0, Arc::new(key));
        }
        let over = own.iter().zip(own.iter().skip(1));
        let over = over
            .filter(|(successor, _)| now.duration_since(successor.made) > LONGEST_LIFE + LEEWAY);
        let over: Vec<Arc<Key>> = over.map(|(_, key)| key.clone()).collect();
        own.retain(|key| !over.iter().any(|gone| gone.id == key.id));
        let changed = own.len() != before.own.len() || !over.is_empty();
        if changed {
            let ring = Arc::new(Ring {
                own,
                legacy: before.legacy.clone(),
            });
            *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        }
        for key in over {
            if let Some(directory) = &self.directory {
                let path = path(directory, &key.made.as_second().to_string());
                std::fs::remove_file(&path).map_err(|source| file(&path, source))?;
            }
        }
        Ok(changed)
    }
}

impl Ring {
    /// The one that signs.
    pub fn newest(&self) -> &Arc<Key> {
        // A ring is made with one, and the newest has no successor that could end it.
        &self.own[0]
    }

    /// The one that signs tokens in Secrets.
    pub fn legacy(&self) -> &Arc<Key> {
        &self.legacy
    }

    /// The key with this id.
    pub fn find(&self, id: &str) -> Option<&Arc<Key>> {
        self.own.iter().find(|key| key.id == id)
    }

    /// The public keys as a JWK set (RFC 7517).
    pub fn public(&self) -> Value {
        let keys = self.own.iter().chain([&self.legacy]);
        let keys: Vec<Value> = keys.map(|key| key.public()).collect();
        json!({"keys": keys})
    }
}

impl Key {
    fn parse(pem: &str, made: Timestamp) -> Option<Self> {
        let signing = EncodingKey::from_ec_pem(pem.as_bytes()).ok()?;
        let jwk = Jwk::from_encoding_key(&signing, Algorithm::ES256).ok()?;
        let AlgorithmParameters::EllipticCurve(point) = jwk.algorithm else {
            return None;
        };
        let mut spki = SPKI_PREFIX.to_vec();
        spki.push(4);
        for coordinate in [&point.x, &point.y] {
            spki.extend(URL_SAFE_NO_PAD.decode(coordinate).ok()?);
        }
        Some(Self {
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(&spki)),
            verifying: DecodingKey::from_ec_components(&point.x, &point.y).ok()?,
            signing,
            made,
            x: point.x,
            y: point.y,
        })
    }

    fn public(&self) -> Value {
        json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": self.x, "y": self.y})
    }
}

/// Makes the next key as it is due, until the server stops.
pub fn start_rotation(state: &Arc<State>) {
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.restarting("signing keys", move || {
        let (state, shutdown) = (state.clone(), shutdown.clone());
        async move {
            let tick = || shutdown.unless(tokio::time::sleep(ROTATION_INTERVAL));
            while tick().await.is_some() {
                if state
                    .authentication
                    .accounts
                    .keys
                    .rotate(Timestamp::now())?
                {
                    tracing::info!("the keys that sign tokens have changed");
                }
            }
            Ok::<(), KeyError>(())
        }
    });
}

/// Those that sign or have signed, the newest first.
fn read_all(directory: Option<&Path>) -> Result<Vec<Arc<Key>>, KeyError> {
    let Some(directory) = directory else {
        return Ok(Vec::new());
    };
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|source| file(directory, source))? {
        let name = entry.map_err(|source| file(directory, source))?.file_name();
        let second = name.to_str().and_then(|name| name.strip_suffix(".key"));
        let second = second.and_then(|name| Some((name, name.parse::<i64>().ok()?)));
        let Some((name, second)) = second else {
            continue;
        };
        let made = Timestamp::from_second(second);
        let made = made.map_err(|_| KeyError::Reading(name.to_owned()))?;
        keys.extend(read(directory, name, made)?.map(Arc::new));
    }
    keys.sort_by_key(|key| std::cmp::Reverse(key.made));
    Ok(keys)
}

fn read(directory: &Path, name: &str, made: Timestamp) -> Result<Option<Key>, KeyError> {
    let path = path(directory, name);
    let kept = files::read_if_present(&path).map_err(|source| file(&path, source))?;
    let parse = |pem: String| {
        Key::parse(&pem, made).ok_or_else(|| KeyError::Reading(path.display().to_string()))
    };
    kept.map(parse).transpose()
}

fn make(directory: Option<&Path>, name: &str, now: Timestamp) -> Result<Key, KeyError> {
    let pem = make_key()?;
    if let Some(directory) = directory {
        let path = path(directory, name);
        files::write_atomic(&path, pem.as_bytes(), files::PRIVATE)
            .map_err(|source| file(&path, source))?;
    }
    Key::parse(&pem, now).ok_or_else(|| KeyError::Reading(name.to_owned()))
}

fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.key"))
}

fn file(path: &Path, source: std::io::Error) -> KeyError {
    KeyError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn ids(keys: &Keys) -> Vec<String> {
        keys.ring().own.iter().map(|key| key.id.clone()).collect()
    }

    #[test]
    fn keys_last_over_a_restart_and_are_their_owner_s_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path().join("service-account");
        let load = || Keys::load(Some(&directory), Timestamp::now()).expect("keys");
        let (first, second) = (load(), load());
        assert_eq!(first.ring().public(), second.ring().public());
        let mode = |path: &Path| {
            let metadata = std::fs::metadata(path).expect("it is there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("legacy.key")), 0o600);
        assert_eq!(std::fs::read_dir(&directory).expect("files").count(), 2);
    }

    #[test]
    fn a_key_signs_for_its_time_and_verifies_as_long_as_its_tokens_can_live() {
        let directory = tempfile::tempdir().expect("a directory");
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let keys = Keys::load(Some(directory.path()), start).expect("keys");
        let first = ids(&keys);
        let second = SignedDuration::from_secs(1);
        let due = start + SIGNING_TIME;
        assert!(!keys.rotate(due - second).expect("too early"));
        assert!(keys.rotate(due).expect("due"));
        assert_eq!(ids(&keys).len(), 2);
        assert_eq!(ids(&keys)[1..], first);
        // No other one is made before the second has done its time.
        assert!(
            !keys
                .rotate(due + SignedDuration::from_hours(1))
                .expect("no")
        );
        let again = Keys::load(Some(directory.path()), due).expect("keys");
        assert_eq!(ids(&again), ids(&keys));
        let last = due + LONGEST_LIFE + LEEWAY;
        for hours in (0..).map(|n| n * 24) {
            let now = due + SignedDuration::from_hours(hours);
            keys.rotate(now).expect("a rotation");
            let is_kept = ids(&keys).contains(&first[0]);
            assert_eq!(is_kept, now <= last, "{now}");
            if !is_kept {
                break;
            }
        }
        // As many as fit into the life of a token, and the one of tokens without an end.
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("files").count(),
            6
        );
    }

    #[test]
    fn a_key_s_id_is_the_hash_of_its_public_key() {
        let keys = Keys::load(None, Timestamp::now()).expect("keys");
        let ring = keys.ring();
        let public = ring.public();
        assert_eq!(public["keys"][0]["kid"], json!(ring.newest().id));
        assert_eq!(ring.newest().id.len(), 43);
        assert_ne!(public["keys"][0]["x"], public["keys"][1]["x"]);
        let words = public.to_string();
        assert!(!words.contains("\"d\""), "a private part is public");
    }

    #[test]
    fn a_damaged_key_is_an_error_that_does_not_show_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let text = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        std::fs::write(directory.path().join("5.key"), text).expect("a file");
        let error = Keys::load(Some(directory.path()), Timestamp::now()).err();
        let error = error.expect("an error").to_string();
        assert!(
            error.contains("5.key") && !error.contains("c2VjcmV0"),
            "{error}"
        );
    }
}
