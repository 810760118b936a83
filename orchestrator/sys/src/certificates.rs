//! The cluster's own certificates: an authority, what it signs, and who a peer says to be.
//!
//! Keys are ECDSA P-256. Private keys appear in no error, log line or `Debug` output.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files;

mod leaf;

pub use leaf::Leaf;

/// How long an authority is valid.
pub const AUTHORITY_VALIDITY: Duration = days(3650);
/// How long a certificate that an authority signs is valid, unless it is told otherwise. Holders
/// renew when `renewal_due` says so.
pub const LEAF_VALIDITY: Duration = days(365);
/// Clocks of a cluster differ: a certificate is valid from a little before it was made.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

const fn days(number: u64) -> Duration {
    Duration::from_secs(number * 24 * 3600)
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("certificate could not be made: {0}")]
    Making(#[from] rcgen::Error),
    #[error("certificate could not be read: {0}")]
    Reading(String),
    #[error("the signing request is not usable: {0}")]
    Request(String),
    #[error("{path}: {source}")]
    File {
        path: String,
        source: std::io::Error,
    },
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Credentials {
    pub certificate: String,
    pub key: String,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
    Both,
}

/// Who a certificate speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user: the subject's common name.
    pub common_name: String,
    /// The groups: the subject's organizations.
    pub organizations: Vec<String>,
}

/// A certificate authority with its key.
pub struct Authority {
    credentials: Credentials,
    issuer: Issuer<'static, KeyPair>,
    leaf_validity: Duration,
}

impl Authority {
    /// A new self-signed authority.
    pub fn create(common_name: &str, now: Timestamp) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            DIGITAL_SIGNATURE,
        ];
        valid(&mut params, now, AUTHORITY_VALIDITY);
        let certificate = params.self_signed(&key)?.pem();
        Self::from_credentials(Credentials {
            certificate,
            key: key.serialize_pem(),
        })
    }

    /// An authority whose certificate and key were made before.
    pub fn from_credentials(credentials: Credentials) -> Result<Self, CertificateError> {
        let key = KeyPair::from_pem(&credentials.key)?;
        let issuer = Issuer::from_ca_cert_pem(&credentials.certificate, key)?;
        Ok(Self {
            credentials,
            issuer,
            leaf_validity: LEAF_VALIDITY,
        })
    }

    /// The same authority; what it signs is valid that long.
    pub fn with_leaf_validity(self, leaf_validity: Duration) -> Self {
        Self {
            leaf_validity,
            ..self
        }
    }

    /// The authority kept in these files; made (and the key's file kept to the owner) at the first
    /// call.
    pub fn load_or_create(
        certificate: &Path,
        key: &Path,
        common_name: &str,
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        if let Some(credentials) = Credentials::load(certificate, key)? {
            return Self::from_credentials(credentials);
        }
        let authority = Self::create(common_name, now)?;
        authority.credentials.save(certificate, key)?;
        Ok(authority)
    }

    /// The authority's certificate (PEM). The key stays inside.
    pub fn certificate(&self) -> &str {
        &self.credentials.certificate
    }

    /// How long what it signs is valid, unless it is told otherwise.
    pub fn leaf_validity(&self) -> Duration {
        self.leaf_validity
    }

    /// A new key with a certificate for `identity`; `names` are DNS names and addresses.
    pub fn issue(
        &self,
        identity: &Identity,
        names: &[String],
        usage: Usage,
        now: Timestamp,
    ) -> Result<Credentials, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = leaf(identity, names, usage)?;
        valid(&mut params, now, self.leaf_validity);
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Credentials {
            certificate,
            key: key.serialize_pem(),
        })
    }

    /// Signs the key of a request (PEM) whose signature proves that the asker holds it. Subject,
    /// names and usage come from the caller: nothing that the request says about itself is kept.
    pub fn sign_request(
        &self,
        request: &str,
        identity: &Identity,
        names: &[String],
        usage: Usage,
        now: Timestamp,
    ) -> Result<String, CertificateError> {
        let request = parse_request(request)?;
        let mut params = leaf(identity, names, usage)?;
        valid(&mut params, now, self.leaf_validity);
        Ok(params.signed_by(&request.public_key, &self.issuer)?.pem())
    }
}

impl Credentials {
    /// Both files, or `None` if one of them is missing.
    pub fn load(certificate: &Path, key: &Path) -> Result<Option<Self>, CertificateError> {
        let read = |path: &Path| files::read_if_present(path).map_err(|e| file_error(path, e));
        let (certificate, key) = (read(certificate)?, read(key)?);
        Ok(certificate
            .zip(key)
            .map(|(certificate, key)| Self { certificate, key }))
    }

    /// Whether the certificate is for this key.
    pub fn belong_together(&self) -> Result<bool, CertificateError> {
        let key = KeyPair::from_pem(&self.key)?;
        let der = der_of(&self.certificate)?;
        let certificate = parse_der(&der)?;
        Ok(certificate.public_key().raw == key.subject_public_key_info())
    }

    /// Writes the key first: a certificate without its key would be found and used.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), CertificateError> {
        files::write_atomic(key, self.key.as_bytes(), files::PRIVATE)
            .map_err(|e| file_error(key, e))?;
        files::write_atomic(certificate, self.certificate.as_bytes(), files::PUBLIC)
            .map_err(|e| file_error(certificate, e))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Identity {
    pub fn new(common_name: &str, organizations: &[&str]) -> Self {
        Self {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|&o| o.to_owned()).collect(),
        }
    }

    /// Reads the subject of a certificate (DER) that TLS has already verified.
    pub fn of_peer(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse_der(der)?;
        let subject = certificate.subject();
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            value
                .as_str()
                .map(str::to_owned)
                .map_err(|e| CertificateError::Reading(e.to_string()))
        };
        let common_name = subject
            .iter_common_name()
            .next()
            .ok_or_else(|| CertificateError::Reading("it has no common name".into()))
            .and_then(text)?;
        let organizations = subject
            .iter_organization()
            .map(text)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            common_name,
            organizations,
        })
    }
}

/// What TLS has verified of a peer, beyond who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The SHA-256 of its public key, in hex.
    pub key: std::sync::Arc<str>,
    /// When its certificate ends.
    pub ends: Timestamp,
    /// The addresses that its certificate is valid for.
    pub addresses: std::sync::Arc<[IpAddr]>,
}

impl Shown {
    /// Reads a certificate (DER).
    pub fn of_peer(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse_der(der)?;
        Ok(Self {
            key: fingerprint(certificate.public_key().raw).into(),
            ends: second(certificate.validity().not_after.timestamp())?,
            addresses: subject_names(&certificate)?
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
        })
    }
}

/// A new key (PEM).
pub fn make_key() -> Result<String, CertificateError> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// A request (PEM) to have a key (PEM) signed.
pub fn make_request(
    key: &str,
    identity: &Identity,
    names: &[String],
) -> Result<String, CertificateError> {
    let key = KeyPair::from_pem(key)?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = distinguished_name(identity);
    Ok(params.serialize_request(&key)?.pem()?)
}

/// The names and addresses that a request (PEM) asks for, as text; for the caller to judge.
pub fn requested_names(request: &str) -> Result<Vec<String>, CertificateError> {
    let names = parse_request(request)?.params.subject_alt_names;
    names
        .into_iter()
        .map(|name| match name {
            rcgen::SanType::DnsName(name) => Ok(name.to_string()),
            rcgen::SanType::IpAddress(address) => Ok(address.to_string()),
            _ => Err(CertificateError::Request(
                "only DNS names and addresses are signed".into(),
            )),
        })
        .collect()
}

/// The SHA-256 of a certificate's DER, in hex: how a join token names the authority.
pub fn fingerprint(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

/// The DER of the first certificate in a PEM text.
pub fn der_of(pem: &str) -> Result<Vec<u8>, CertificateError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map(|der| der.to_vec())
        .map_err(|e| CertificateError::Reading(e.to_string()))
}

/// The PEM of a certificate's DER.
fn pem_of(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// When the holder of a certificate (PEM) should have another one: after two thirds of its life.
pub fn renewal_due(pem: &str) -> Result<Timestamp, CertificateError> {
    let der = der_of(pem)?;
    let certificate = parse_der(&der)?;
    let validity = certificate.validity();
    let skew = i64::try_from(CLOCK_SKEW.as_secs()).unwrap_or_default();
    let ends = validity.not_after.timestamp();
    let made = validity.not_before.timestamp().saturating_add(skew);
    second(ends - (ends - made).max(0) / 3)
}

/// When the certificate (PEM) ends.
pub fn ends(pem: &str) -> Result<Timestamp, CertificateError> {
    Ok(Shown::of_peer(&der_of(pem)?)?.ends)
}

/// Whether the certificate (PEM) has ended.
pub fn has_ended(pem: &str, now: Timestamp) -> Result<bool, CertificateError> {
    Ok(ends(pem)? <= now)
}

/// Whether a certificate (DER) has begun and has not ended.
pub fn valid_at(der: &[u8], now: Timestamp) -> Result<bool, CertificateError> {
    let certificate = parse_der(der)?;
    let validity = certificate.validity();
    let begins = second(validity.not_before.timestamp())?;
    Ok(begins <= now && now < second(validity.not_after.timestamp())?)
}

fn second(second: i64) -> Result<Timestamp, CertificateError> {
    Timestamp::from_second(second).map_err(|e| CertificateError::Reading(e.to_string()))
}

/// The DNS names and addresses that a certificate (PEM) is valid for, as text, sorted.
pub fn names_of(pem: &str) -> Result<Vec<String>, CertificateError> {
    let mut names = subject_names(&parse_der(&der_of(pem)?)?)?;
    names.sort();
    Ok(names)
}

fn subject_names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, CertificateError> {
    use x509_parser::extensions::GeneralName;
    let extension = certificate
        .subject_alternative_name()
        .map_err(|e| CertificateError::Reading(e.to_string()))?;
    let names = extension
        .map(|e| e.value.general_names.as_slice())
        .unwrap_or_default();
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => address(octets).map(|a| a.to_string()),
        _ => None,
    });
    Ok(names.collect())
}

const DIGITAL_SIGNATURE: KeyUsagePurpose = KeyUsagePurpose::DigitalSignature;

fn leaf(
    identity: &Identity,
    names: &[String],
    usage: Usage,
) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = distinguished_name(identity);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![DIGITAL_SIGNATURE];
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = match usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Both => {
            vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ]
        }
    };
    Ok(params)
}

fn distinguished_name(identity: &Identity) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // rcgen keeps one value an attribute type, so further groups have nowhere to go.
    debug_assert!(
        identity.organizations.len() <= 1,
        "one organization a certificate"
    );
    for organization in identity.organizations.iter().take(1) {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, identity.common_name.as_str());
    name
}

fn valid(params: &mut CertificateParams, now: Timestamp, validity: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now.as_second().max(0).unsigned_abs());
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + validity;
}

fn parse_request(pem: &str) -> Result<CertificateSigningRequestParams, CertificateError> {
    CertificateSigningRequestParams::from_pem(pem)
        .map_err(|e| CertificateError::Request(e.to_string()))
}

fn parse_der(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|e| CertificateError::Reading(e.to_string()))
}

fn address(octets: &[u8]) -> Option<std::net::IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(Into::into)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(Into::into))
        .ok()
}

fn file_error(path: &Path, source: std::io::Error) -> CertificateError {
    CertificateError::File {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn an_issued_certificate_says_who_and_what_for_and_until_when() {
        let authority = Authority::create("test", now()).unwrap();
        let who = Identity::new("system:node:one", &["system:nodes"]);
        let names = [
            "one".to_owned(),
            "172.31.0.11".to_owned(),
            "fd00::1".to_owned(),
        ];
        let made = authority.issue(&who, &names, Usage::Both, now()).unwrap();
        let der = der_of(&made.certificate).unwrap();
        assert_eq!(Identity::of_peer(&der).unwrap(), who);
        assert_eq!(
            names_of(&made.certificate).unwrap(),
            ["172.31.0.11", "fd00::1", "one"]
        );
        assert!(!has_ended(&made.certificate, now()).unwrap());
        let ends = now() + LEAF_VALIDITY;
        assert_eq!(Shown::of_peer(&der).unwrap().ends, ends);
        assert!(has_ended(&made.certificate, ends).unwrap());
    }

    #[test]
    fn a_certificate_is_due_after_two_thirds_of_the_life_that_its_authority_gives() {
        let authority = Authority::create("test", now()).unwrap();
        let authority = authority.with_leaf_validity(Duration::from_secs(60));
        let who = Identity::new("a", &[]);
        let made = authority.issue(&who, &[], Usage::Client, now()).unwrap();
        let due = renewal_due(&made.certificate).unwrap();
        assert_eq!(due, now() + Duration::from_secs(40));
    }

    #[test]
    fn a_renewed_certificate_of_the_same_key_has_its_fingerprint() {
        let authority = Authority::create("test", now()).unwrap();
        let who = Identity::new("a", &[]);
        let key = |pem: &str| {
            let request = make_request(pem, &who, &[]).unwrap();
            let signed = authority.sign_request(&request, &who, &[], Usage::Client, now());
            let der = der_of(&signed.unwrap()).unwrap();
            Shown::of_peer(&der).unwrap().key
        };
        let (one, other) = (make_key().unwrap(), make_key().unwrap());
        assert_eq!(key(&one), key(&one));
        assert_ne!(key(&one), key(&other));
    }

    #[test]
    fn a_signed_request_keeps_its_key_and_none_of_its_claims() {
        let authority = Authority::create("test", now()).unwrap();
        let claim = Identity::new("admin", &["system:masters"]);
        let key = make_key().unwrap();
        let request = make_request(&key, &claim, &["evil.example".to_owned()]).unwrap();
        assert_eq!(requested_names(&request).unwrap(), ["evil.example"]);
        let who = Identity::new("system:node:two", &["system:nodes"]);
        let names = ["two".to_owned()];
        let signed = authority
            .sign_request(&request, &who, &names, Usage::Client, now())
            .unwrap();
        assert_eq!(Identity::of_peer(&der_of(&signed).unwrap()).unwrap(), who);
        assert_eq!(names_of(&signed).unwrap(), names);
    }

    #[test]
    fn a_request_that_was_changed_is_refused() {
        let authority = Authority::create("test", now()).unwrap();
        let who = Identity::new("a", &[]);
        let refused =
            authority.sign_request("-----BEGIN NONSENSE-----", &who, &[], Usage::Client, now());
        assert!(matches!(refused, Err(CertificateError::Request(_))));
    }

    #[test]
    fn an_authority_is_made_once_and_its_key_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (crt, key) = (
            directory.path().join("ca.crt"),
            directory.path().join("ca.key"),
        );
        let load = || Authority::load_or_create(&crt, &key, "test", now()).unwrap();
        let first = load().certificate().to_owned();
        assert_eq!(first, load().certificate());
        assert_eq!(
            std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        let authority = Authority::create("test", now()).unwrap();
        let made = authority
            .issue(&Identity::new("a", &[]), &[], Usage::Client, now())
            .unwrap();
        assert!(!format!("{made:?}{authority:?}").contains("PRIVATE"));
    }
}
