//! What another server joins by: a token that the holder of the authority's key has signed. It is kept nowhere, so
//! nobody who reads or writes Secrets has one: whoever makes it could read the key that it leads to. The store knows
//! the ids of those that are good (`known`), so that one can be revoked.

pub(super) mod known;

use std::path::Path;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::PkiError;
use api::ApiError;
use sys::certificates::{CertificateError, der_of, fingerprint};
use sys::files;

const AUDIENCE: &str = "orchestrator:servers";

pub use known::{ID_LENGTH, Known, LONGEST_LIFE_S, PATH};

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    jti: String,
    /// Seconds since 1970.
    exp: i64,
}

/// A token that is good until `ends` once its id is known, by the files of a server's directory `pki`: the authority's
/// fingerprint, a dot, what is signed.
///
/// # Errors
/// The files cannot be read, or there are none.
pub fn make(pki: &Path, id: &str, ends: Timestamp) -> Result<String, PkiError> {
    let path = pki.join("ca.crt");
    let authority = read(&path)?;
    let fingerprint = fingerprint(&der_of(&authority)?);
    let claims = Claims {
        aud: AUDIENCE.to_owned(),
        jti: id.to_owned(),
        exp: ends.as_second(),
    };
    let key = EncodingKey::from_secret(&secret(pki)?);
    let signed = key.and_then(|key| encode(&Header::new(Algorithm::HS256), &claims, &key));
    let signed = signed.map_err(|error| CertificateError::Reading(error.to_string()))?;
    Ok(format!("{fingerprint}.{signed}"))
}

/// The fingerprint of the authority that a token names, and what is shown to a server; `None`: it is no token.
pub fn parse(text: &str) -> Option<(&str, &str)> {
    let (authority, signed) = text.trim().split_once('.')?;
    let is_hex = authority.len() == 64 && authority.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && signed.split('.').count() == 3).then_some((authority, signed))
}

/// The id in what was shown, if that is signed by the holder of the authority's key and has not ended.
pub(super) fn check(pki: &Path, signed: &str) -> Result<String, ApiError> {
    let secret = secret(pki).map_err(super::reply::internal)?;
    let mut rules = Validation::new(Algorithm::HS256);
    rules.set_audience(&[AUDIENCE]);
    rules.leeway = 0;
    let key = DecodingKey::from_secret(&secret).map_err(super::reply::internal)?;
    let read = decode::<Claims>(signed, &key, &rules);
    read.map(|read| read.claims.jti).map_err(|_| refused())
}

/// Nothing says which it is.
pub(super) fn refused() -> ApiError {
    let why = "the token is not one of this cluster's, has ended or was revoked: make one on a server with \
               `orchestrator server token`";
    ApiError::Unauthorized(why.to_owned())
}

fn secret(pki: &Path) -> Result<[u8; 32], PkiError> {
    let key = read(&pki.join("ca.key"))?;
    let mut hash = Sha256::new_with_prefix("orchestrator server token\n");
    hash.update(key.as_bytes());
    Ok(hash.finalize().into())
}

fn read(path: &Path) -> Result<String, PkiError> {
    let error = |source| PkiError::File {
        path: path.to_owned(),
        source,
    };
    let text = files::read_if_present(path).map_err(error)?;
    text.ok_or_else(|| error(std::io::ErrorKind::NotFound.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pki() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let names = ["localhost".to_owned()];
        let life = Duration::from_secs(3600);
        super::super::Pki::load_or_create(directory.path(), &names, life, Timestamp::now())
            .expect("certificates");
        directory
    }

    #[test]
    fn a_token_is_good_for_its_cluster_and_its_time() {
        let (ours, theirs) = (pki(), pki());
        let now = Timestamp::now();
        let good = make(ours.path(), "a", now + Duration::from_secs(60)).expect("a token");
        let (_, signed) = parse(&good).expect("a token");
        assert!(check(ours.path(), signed).is_ok());
        assert!(check(theirs.path(), signed).is_err(), "of another cluster");
        let ended = make(ours.path(), "a", now - Duration::from_secs(1)).expect("a token");
        let (_, ended) = parse(&ended).expect("a token");
        assert!(check(ours.path(), ended).is_err(), "it has ended");
    }

    #[test]
    fn what_nobody_has_signed_is_no_token() {
        let ours = pki();
        let ends = Timestamp::now() + Duration::from_secs(60);
        let good = make(ours.path(), "a", ends).expect("a token");
        let (_, signed) = parse(&good).expect("a token");
        let claims = Claims {
            aud: AUDIENCE.to_owned(),
            jti: "a".to_owned(),
            exp: ends.as_second(),
        };
        // The certificate is public; its hash is in every token.
        let public = std::fs::read(ours.path().join("ca.crt")).expect("a certificate");
        let forged = |key: &[u8], audience: &str| {
            let claims = Claims {
                aud: audience.to_owned(),
                jti: claims.jti.clone(),
                ..claims
            };
            encode(
                &Header::new(Algorithm::HS256),
                &claims,
                &EncodingKey::from_secret(key).expect("a key"),
            )
        };
        let other = forged(&secret(ours.path()).expect("a secret"), "other");
        for wrong in [
            forged(&public, AUDIENCE).expect("signed"),
            forged(b"a guess", AUDIENCE).expect("signed"),
            other.expect("signed"),
            signed[..signed.len() - 2].to_owned(),
            String::new(),
        ] {
            assert!(check(ours.path(), &wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "a.b.c.d", &good[..70], &good[1..]] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
