//! The keys that sign tokens: one value in the store, so that every server signs and verifies by the same.
//!
//! ```text
//!  /cluster/secrets/token-keys ─ made, published: every server reads it within the rotation interval
//!                                signs:  the newest that is published long enough
//!                                older:  verify, until no token of them can live
//!                                legacy: signs tokens in Secrets, which have no end, and is kept
//! ```
//!
//! The value is encrypted as Secrets are. Servers of before kept keys in files below `pki/service-account`: the
//! first server that finds no value takes them over. A key appears in no log, error or `Debug` output.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::LONGEST_LIFE;
use crate::State;
use crate::encryption::OWN_SECRETS;
use store::{Entry, Expect, Store, StoreError, Write};
use sys::certificates::make_key;
use sys::files;

/// The key of the value in the store, behind `OWN_SECRETS`.
const NAME: &str = "token-keys";
/// How long a key signs.
const SIGNING_TIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Clocks differ, and a key signs a little longer than until its successor is made.
const LEEWAY: SignedDuration = SignedDuration::from_hours(1);
/// How often a server reads the keys, and looks whether the newest is due.
const ROTATION_INTERVAL: Duration = Duration::from_secs(600);
/// A key signs once every server has read it: two intervals after it was made.
const PUBLICATION: SignedDuration = SignedDuration::from_secs(1200);
/// The file of the key of tokens without an end.
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
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The keys, as this server last read them.
pub struct Keys {
    store: Arc<dyn Store>,
    ring: RwLock<Arc<Ring>>,
}

/// All keys at one time.
pub struct Ring {
    /// The newest first.
    own: Vec<Arc<Key>>,
    /// The place of the one that signs.
    signing: usize,
    legacy: Arc<Key>,
}

/// A pair of keys for ES256.
pub struct Key {
    /// What a token says that this key has signed: the SHA-256 of its public key.
    pub id: String,
    pub signing: EncodingKey,
    pub verifying: DecodingKey,
    /// The coordinates of the public key, as JWKs have them.
    x: String,
    y: String,
}

/// The value in the store.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    /// The newest first; at least one.
    keys: Vec<StoredKey>,
    /// PEM.
    legacy: String,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct StoredKey {
    /// The second in which it was made.
    made: i64,
    pem: String,
}

impl Keys {
    /// Reads the keys in the store. The first server of a store makes them, or takes those in `files`.
    pub async fn load(
        store: Arc<dyn Store>,
        files: Option<&Path>,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        let (stored, _) = stored(&*store, files, now).await?;
        let ring = RwLock::new(Arc::new(stored.ring(now)?));
        Ok(Self { store, ring })
    }

    pub fn ring(&self) -> Arc<Ring> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.clone()
    }

    /// Reads what other servers have made, makes the next key if the newest has signed long enough, and
    /// forgets those of which no token can live. True: another key signs, or some have come or gone.
    pub async fn rotate(&self, now: Timestamp) -> Result<bool, KeyError> {
        let key = key();
        let ring = loop {
            let (stored, entry) = stored(&*self.store, None, now).await?;
            let next = stored.rotated(now)?;
            if next == stored {
                break stored.ring(now)?;
            }
            let write = Write::put(&*key, next.text(), Expect::At(entry.modified));
            match self.store.commit(vec![write]).await {
                Ok(_) => break next.ring(now)?,
                // Another server was faster.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let ring = Arc::new(ring);
        let mut kept = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *kept, ring.clone());
        Ok(before.ids() != ring.ids() || before.signing().id != ring.signing().id)
    }
}

impl Stored {
    /// None: it does not read. The reason could hold a part of a key.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let stored: Self = serde_json::from_slice(bytes).ok()?;
        (!stored.keys.is_empty()).then_some(stored)
    }

    fn text(&self) -> String {
        json!(self).to_string()
    }

    /// Keys of its own, or those that a server of before left in files.
    fn first(directory: Option<&Path>, now: Timestamp) -> Result<Self, KeyError> {
        let (mut keys, legacy) = match directory {
            Some(directory) => (read_all(directory)?, read(directory, LEGACY)?),
            None => (Vec::new(), None),
        };
        if keys.is_empty() {
            keys.push(StoredKey::make(now)?);
        }
        let legacy = legacy.map_or_else(make_key, Ok)?;
        Ok(Self { keys, legacy })
    }

    fn rotated(&self, now: Timestamp) -> Result<Self, KeyError> {
        let mut keys = self.keys.clone();
        if now.as_second() - keys[0].made >= SIGNING_TIME.as_secs() {
            keys.insert(0, StoredKey::make(now)?);
        }
        let longest = (LONGEST_LIFE + LEEWAY).as_secs();
        let successors: Vec<i64> = keys.iter().map(|key| key.made).collect();
        let mut place = 0;
        keys.retain(|_| {
            place += 1;
            // The newest has no successor that could end it.
            place == 1 || now.as_second() - successors[place - 2] <= longest
        });
        let legacy = self.legacy.clone();
        Ok(Self { keys, legacy })
    }

    fn ring(&self, now: Timestamp) -> Result<Ring, KeyError> {
        let unreadable = || KeyError::Reading(key());
        let parse = |pem: &str| Key::parse(pem).map(Arc::new).ok_or_else(unreadable);
        let is_published = |key: &StoredKey| now.as_second() - key.made >= PUBLICATION.as_secs();
        let own = self.keys.iter().map(|key| parse(&key.pem));
        let published = self.keys.iter().position(is_published);
        Ok(Ring {
            own: own.collect::<Result<_, _>>()?,
            // A new cluster has one key, and nobody who could not know it.
            signing: published.unwrap_or(self.keys.len() - 1),
            legacy: parse(&self.legacy)?,
        })
    }
}

impl StoredKey {
    fn make(now: Timestamp) -> Result<Self, KeyError> {
        Ok(Self {
            made: now.as_second(),
            pem: make_key()?,
        })
    }
}

/// What the store holds; what is not there is made.
async fn stored(
    store: &dyn Store,
    files: Option<&Path>,
    now: Timestamp,
) -> Result<(Stored, Entry), KeyError> {
    let key = key();
    loop {
        if let Some(entry) = store.get(&key).await? {
            let stored = Stored::parse(&entry.value).ok_or(KeyError::Reading(key))?;
            return Ok((stored, entry));
        }
        let first = Stored::first(files, now)?;
        let write = Write::put(&*key, first.text(), Expect::Absent);
        match store.commit(vec![write]).await {
            // Read back, or another server was faster.
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn key() -> String {
    format!("{OWN_SECRETS}{NAME}")
}

impl Ring {
    /// The one that signs.
    pub fn signing(&self) -> &Arc<Key> {
        // A ring is made with one, and its place is below their number.
        &self.own[self.signing]
    }

    fn ids(&self) -> Vec<&str> {
        self.own.iter().map(|key| &*key.id).collect()
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
    fn parse(pem: &str) -> Option<Self> {
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
            x: point.x,
            y: point.y,
        })
    }

    fn public(&self) -> Value {
        json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": self.x, "y": self.y})
    }
}

/// Reads the keys, and makes the next one as it is due, until the server stops.
pub fn start_rotation(state: &Arc<State>) {
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.restarting("signing keys", move || {
        let (state, shutdown) = (state.clone(), shutdown.clone());
        async move {
            let tick = || shutdown.unless(tokio::time::sleep(ROTATION_INTERVAL));
            while tick().await.is_some() {
                let keys = &state.authentication.accounts.keys;
                if keys.rotate(Timestamp::now()).await? {
                    tracing::info!("the keys that sign tokens have changed");
                }
            }
            Ok::<(), KeyError>(())
        }
    });
}

/// Those that sign or have signed, the newest first; a key's file is named after the second in which it was made.
fn read_all(directory: &Path) -> Result<Vec<StoredKey>, KeyError> {
    let mut keys = Vec::new();
    let found = match std::fs::read_dir(directory) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(keys),
        Err(source) => return Err(file(directory, source)),
    };
    for entry in found {
        let name = entry.map_err(|source| file(directory, source))?.file_name();
        let second = name.to_str().and_then(|name| name.strip_suffix(".key"));
        let second = second.and_then(|name| Some((name, name.parse::<i64>().ok()?)));
        let Some((name, made)) = second else {
            continue;
        };
        keys.extend(read(directory, name)?.map(|pem| StoredKey { made, pem }));
    }
    keys.sort_by_key(|key| std::cmp::Reverse(key.made));
    Ok(keys)
}

fn read(directory: &Path, name: &str) -> Result<Option<String>, KeyError> {
    let path = directory.join(format!("{name}.key"));
    let kept = files::read_if_present(&path).map_err(|source| file(&path, source))?;
    let whole = |pem: String| match Key::parse(&pem) {
        Some(_) => Ok(pem),
        None => Err(KeyError::Reading(path.display().to_string())),
    };
    kept.map(whole).transpose()
}

fn file(path: &Path, source: std::io::Error) -> KeyError {
    KeyError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::MemoryStore;

    async fn load(store: &Arc<MemoryStore>, now: Timestamp) -> Keys {
        let loaded = Keys::load(store.clone(), None, now).await;
        loaded.expect("keys")
    }

    fn ids(keys: &Keys) -> Vec<String> {
        keys.ring().ids().into_iter().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn all_servers_of_a_store_have_the_same_keys() {
        let (store, now) = (Arc::new(MemoryStore::default()), Timestamp::now());
        let (first, second) = (load(&store, now).await, load(&store, now).await);
        assert_eq!(first.ring().public(), second.ring().public());
        assert_eq!(first.ring().signing().id, second.ring().signing().id);
    }

    #[tokio::test]
    async fn a_key_signs_once_every_server_has_read_it() {
        let store = Arc::new(MemoryStore::default());
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let (one, two) = (load(&store, start).await, load(&store, start).await);
        let due = start + SIGNING_TIME;
        assert!(one.rotate(due).await.expect("a rotation"));
        assert_eq!(ids(&one).len(), 2);
        assert_eq!(
            one.ring().signing().id,
            ids(&two)[0],
            "the former one signs"
        );
        // Within an interval the other server has read it, and made none of its own.
        let interval = SignedDuration::from_secs(600);
        assert!(two.rotate(due + interval).await.expect("a rotation"));
        assert_eq!(ids(&one), ids(&two));
        let known = two.ring();
        assert!(one.rotate(due + PUBLICATION).await.expect("a rotation"));
        assert_eq!(one.ring().signing().id, ids(&one)[0]);
        assert!(known.find(&one.ring().signing().id).is_some());
    }

    #[tokio::test]
    async fn a_key_verifies_as_long_as_its_tokens_can_live() {
        let store = Arc::new(MemoryStore::default());
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let keys = load(&store, start).await;
        let first = ids(&keys);
        let due = start + SIGNING_TIME;
        let second = SignedDuration::from_secs(1);
        assert!(!keys.rotate(due - second).await.expect("too early"));
        assert!(keys.rotate(due).await.expect("due"));
        assert_eq!(ids(&keys)[1..], first);
        let again = load(&store, due).await;
        assert_eq!(ids(&again), ids(&keys));
        let last = due + LONGEST_LIFE + LEEWAY;
        for days in 0.. {
            let now = due + SignedDuration::from_hours(days * 24);
            keys.rotate(now).await.expect("a rotation");
            let is_kept = ids(&keys).contains(&first[0]);
            assert_eq!(is_kept, now <= last, "{now}");
            if !is_kept {
                break;
            }
        }
        // As many as fit into the life of a token.
        assert_eq!(ids(&keys).len(), 5);
    }

    #[tokio::test]
    async fn a_key_s_id_is_the_hash_of_its_public_key() {
        let store = Arc::new(MemoryStore::default());
        let keys = load(&store, Timestamp::now()).await;
        let ring = keys.ring();
        let public = ring.public();
        assert_eq!(public["keys"][0]["kid"], json!(ring.signing().id));
        assert_eq!(ring.signing().id.len(), 43);
        assert_ne!(public["keys"][0]["x"], public["keys"][1]["x"]);
        let words = public.to_string();
        assert!(!words.contains("\"d\""), "a private part is public");
    }

    #[tokio::test]
    async fn keys_that_a_server_of_before_kept_in_files_are_taken_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let (old, legacy) = (make_key().expect("a key"), make_key().expect("a key"));
        std::fs::write(directory.path().join("1764450000.key"), &old).expect("a file");
        std::fs::write(directory.path().join("legacy.key"), &legacy).expect("a file");
        let store = Arc::new(MemoryStore::default());
        let now = Timestamp::from_second(1_764_460_000).expect("a time");
        let keys = Keys::load(store.clone(), Some(directory.path()), now).await;
        let ring = keys.expect("keys").ring();
        let id = |pem: &str| Key::parse(pem).expect("a key").id;
        assert_eq!(
            (&ring.signing().id, &ring.legacy().id),
            (&id(&old), &id(&legacy))
        );
        // A server that joins later has none of them, and needs none.
        assert_eq!(load(&store, now).await.ring().public(), ring.public());
    }

    #[tokio::test]
    async fn a_damaged_key_is_an_error_that_does_not_show_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let text = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        std::fs::write(directory.path().join("5.key"), text).expect("a file");
        let store = Arc::new(MemoryStore::default());
        let loaded = Keys::load(store.clone(), Some(directory.path()), Timestamp::now()).await;
        let error = loaded.err().expect("an error").to_string();
        assert!(
            error.contains("5.key") && !error.contains("c2VjcmV0"),
            "{error}"
        );
        let damaged = json!({"keys": [{"made": 5, "pem": "c2VjcmV0"}], "legacy": "c2VjcmV0"});
        let write = Write::put(key(), damaged.to_string(), Expect::Absent);
        store.commit(vec![write]).await.expect("a write");
        let loaded = Keys::load(store, None, Timestamp::now()).await;
        let error = loaded.err().expect("an error").to_string();
        assert!(
            error.contains(NAME) && !error.contains("c2VjcmV0"),
            "{error}"
        );
    }
}
