//! One value, encrypted with AES-256-GCM. Pure but for the random nonces.
//!
//! A nonce is 96 random bits: with one key, 2³² writes are the limit (NIST SP 800-38D, 8.3). A write of a
//! Secret every 10 ms takes 497 days to get there; keys are to be rotated before.

use aes_gcm::aead::{Aead, AeadCore, KeyInit, OsRng, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use sha2::{Digest as _, Sha256};

/// What every encrypted value begins with, whoever has encrypted it.
pub const PREFIX: &[u8] = b"k8s:enc:";
/// This one's.
const AES_GCM: &str = "k8s:enc:aesgcm:v1:";
pub const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// A key, ready to be used. It shows its name only.
#[derive(Clone)]
pub struct Key {
    pub name: String,
    cipher: Aes256Gcm,
    /// `k8s:enc:aesgcm:v1:NAME:`
    prefix: String,
    fingerprint: String,
}

/// A value that has been read.
#[derive(Debug, PartialEq)]
pub enum Unsealed<'a> {
    AsItWas(&'a [u8]),
    Decrypted(Vec<u8>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.name).finish()
    }
}

impl Unsealed<'_> {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::AsItWas(value) => value,
            Self::Decrypted(value) => value,
        }
    }
}

impl Key {
    /// None: the secret has another length.
    pub fn new(name: &str, secret: &[u8]) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            cipher: Aes256Gcm::new_from_slice(secret).ok()?,
            prefix: format!("{AES_GCM}{name}:"),
            fingerprint: fingerprint(secret),
        })
    }

    /// Its name, and by what it is told from another one of that name.
    pub fn shown(&self) -> String {
        format!("{} ({})", named(&self.name, "aesgcm"), self.fingerprint)
    }

    /// A random secret.
    pub fn random() -> [u8; KEY_BYTES] {
        Aes256Gcm::generate_key(OsRng).into()
    }

    pub fn seal(&self, key: &str, plain: &[u8]) -> Vec<u8> {
        let nonce = Aes256Gcm::generate_nonce(&mut OsRng);
        let payload = Payload {
            msg: plain,
            aad: key.as_bytes(),
        };
        let Ok(sealed) = self.cipher.encrypt(&nonce, payload) else {
            // The library refuses more than 64 GiB, and an object has 3 MiB at most.
            unreachable!("a value is too long to be encrypted");
        };
        [self.prefix.as_bytes(), &nonce, &sealed].concat()
    }

    /// Whether a value was encrypted with this key.
    pub fn has_sealed(&self, value: &[u8]) -> bool {
        value.starts_with(self.prefix.as_bytes())
    }

    /// None: the value, or the key that it is stored under, is not what was encrypted.
    pub fn open(&self, key: &str, value: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = value
            .strip_prefix(self.prefix.as_bytes())?
            .split_at_checked(NONCE_BYTES)?;
        let payload = Payload {
            msg: sealed,
            aad: key.as_bytes(),
        };
        self.cipher.decrypt(Nonce::from_slice(nonce), payload).ok()
    }
}

/// Who has encrypted a value, for messages: `key "x" of aesgcm`.
pub fn sealed_by(value: &[u8]) -> Option<String> {
    let rest = value.strip_prefix(PREFIX)?;
    let head = String::from_utf8_lossy(&rest[..rest.len().min(300)]);
    let mut words = head.splitn(4, ':');
    let (provider, _, name) = (words.next()?, words.next()?, words.next()?);
    Some(named(name, provider))
}

fn named(key: &str, provider: &str) -> String {
    format!("key {key:?} of {provider}")
}

/// Nobody finds a random key by it.
fn fingerprint(secret: &[u8]) -> String {
    let mut hash = Sha256::new_with_prefix("orchestrator encryption key\n");
    hash.update(secret);
    let hash: [u8; 32] = hash.finalize().into();
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_opened_with_its_key_at_its_place_and_as_it_is_only() {
        let key = Key::new("one", &[7; KEY_BYTES]).expect("a key");
        let sealed = key.seal("/a", b"plain");
        assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:one:"));
        assert_eq!(key.open("/a", &sealed).as_deref(), Some(&b"plain"[..]));
        assert_ne!(key.seal("/a", b"plain"), sealed);
        assert_eq!(key.open("/b", &sealed), None);
        let other = Key::new("one", &[8; KEY_BYTES]).expect("a key");
        assert_eq!(other.open("/a", &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open("/a", &flipped), None, "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(key.open("/a", &sealed[..length]), None);
        }
        assert!(Key::new("short", &[7; 16]).is_none());
        assert_eq!(format!("{key:?}"), "Key(\"one\")");
    }

    #[test]
    fn a_value_says_who_has_encrypted_it() {
        let key = Key::new("one", &[7; KEY_BYTES]).expect("a key");
        let by = sealed_by(&key.seal("/a", b"x"));
        assert_eq!(by.as_deref(), Some("key \"one\" of aesgcm"));
        assert_eq!(sealed_by(b"{}"), None);
    }
}
