//! Certificates that are signed with a subject of any attributes, as a request names them.
//!
//! rcgen keeps one value for each type of attribute, so a certificate of several organizations is made by it
//! with an empty subject, which is then replaced, and signed again.

use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SerialNumber, SigningKey, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, CertificateError};

/// A certificate for the key of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The subject in its order: the last number of the attribute's type below 2.5.4 (3: common name, 10:
    /// organization), and the text.
    pub subject: Vec<(u8, String)>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    /// The DER of its SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// What it may be used for, in the words of certificates.k8s.io.
    pub usages: Vec<String>,
    pub begins: Timestamp,
    pub ends: Timestamp,
}

/// What an extended usage is in a certificate.
const EXTENDED: [(&str, &[u64]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113_730, 4, 1]),
];

/// The other usages. Nobody but an authority signs certificates and revocation lists with its key, so
/// these two words are not among them.
const PLAIN: [(&str, KeyUsagePurpose); 8] = [
    ("signing", KeyUsagePurpose::DigitalSignature),
    ("digital signature", KeyUsagePurpose::DigitalSignature),
    ("content commitment", KeyUsagePurpose::ContentCommitment),
    ("key encipherment", KeyUsagePurpose::KeyEncipherment),
    ("key agreement", KeyUsagePurpose::KeyAgreement),
    ("data encipherment", KeyUsagePurpose::DataEncipherment),
    ("encipher only", KeyUsagePurpose::EncipherOnly),
    ("decipher only", KeyUsagePurpose::DecipherOnly),
];

impl Authority {
    /// Signs a certificate, which ends with the authority's own at the latest.
    ///
    /// # Errors
    /// A usage or a kind of key that is not signed, a name that no certificate can hold.
    pub fn sign(&self, leaf: &Leaf) -> Result<String, CertificateError> {
        let key = SubjectPublicKeyInfo::from_der(&leaf.public_key)?;
        let signed = params(leaf, self.ends()?)?.signed_by(&key, &self.issuer)?;
        let der = with_subject(signed.der(), &leaf.subject, self.issuer.key())?;
        Ok(super::pem_of(&der))
    }

    fn ends(&self) -> Result<Timestamp, CertificateError> {
        super::ends(self.certificate())
    }
}

fn params(leaf: &Leaf, latest: Timestamp) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    // Random, positive and of at most 20 bytes (RFC 5280, section 4.1.2.2).
    let mut serial = uuid::Uuid::new_v4().into_bytes();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    (params.key_usages, params.extended_key_usages) = usages(&leaf.usages)?;
    params.subject_alt_names = names(leaf)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| {
        let seconds = time.as_second().max(0).unsigned_abs();
        epoch + std::time::Duration::from_secs(seconds)
    };
    params.not_before = at(leaf.begins);
    params.not_after = at(leaf.ends.min(latest));
    Ok(params)
}

type Usages = (Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>);

fn usages(words: &[String]) -> Result<Usages, CertificateError> {
    let (mut plain, mut extended) = (Vec::new(), Vec::new());
    for word in words {
        if let Some((_, usage)) = PLAIN.iter().find(|(known, _)| known == word) {
            if !plain.contains(usage) {
                plain.push(*usage);
            }
        } else if let Some((_, oid)) = EXTENDED.iter().find(|(known, _)| known == word) {
            let usage = ExtendedKeyUsagePurpose::Other(oid.to_vec());
            if !extended.contains(&usage) {
                extended.push(usage);
            }
        } else {
            return Err(CertificateError::Request(format!(
                "the usage {word:?} is not signed"
            )));
        }
    }
    Ok((plain, extended))
}

fn names(leaf: &Leaf) -> Result<Vec<SanType>, CertificateError> {
    let mut names = Vec::new();
    for name in &leaf.dns_names {
        names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    for name in &leaf.emails {
        names.push(SanType::Rfc822Name(name.as_str().try_into()?));
    }
    names.extend(leaf.addresses.iter().copied().map(SanType::IpAddress));
    for name in &leaf.uris {
        names.push(SanType::URI(name.as_str().try_into()?));
    }
    Ok(names)
}

/// The certificate (DER) with another subject, signed anew.
fn with_subject(
    der: &CertificateDer<'_>,
    subject: &[(u8, String)],
    key: &impl SigningKey,
) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |error: &dyn std::fmt::Display| CertificateError::Reading(error.to_string());
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
    let body = &certificate.tbs_certificate;
    // rcgen writes an empty subject, of two bytes, between the validity and the key.
    let tail = [body.subject.as_raw(), body.subject_pki.raw].concat();
    let whole: &[u8] = body.as_ref();
    let place = whole.windows(tail.len()).position(|it| it == tail);
    let place = place.ok_or_else(|| unreadable(&"it has no subject"))?;
    let head = header_length(whole).ok_or_else(|| unreadable(&"it has no header"))?;
    let rest = &whole[place + body.subject.as_raw().len()..];
    let body = sequence(&[&whole[head..place], &distinguished_name(subject), rest].concat());
    let mut signature = vec![0];
    signature.extend(key.sign(&body)?);
    // The algorithm as rcgen has written it, which is what the key signs with.
    let end = der.len() - tlv_length(certificate.signature_value.as_ref().len() + 1);
    let outer = header_length(der).ok_or_else(|| unreadable(&"it has no header"))?;
    let algorithm = &der[outer + whole.len()..end];
    Ok(sequence(
        &[body, algorithm.to_vec(), tlv(0x03, &signature)].concat(),
    ))
}

/// Name ::= SEQUENCE OF SET OF SEQUENCE { type, value }
fn distinguished_name(attributes: &[(u8, String)]) -> Vec<u8> {
    const COUNTRY: u8 = 6;
    const PRINTABLE_STRING: u8 = 0x13;
    const UTF8_STRING: u8 = 0x0c;
    let attribute = |(last, text): &(u8, String)| {
        let string = match *last {
            COUNTRY => PRINTABLE_STRING,
            _ => UTF8_STRING,
        };
        let value = tlv(string, text.as_bytes());
        tlv(
            0x31,
            &sequence(&[tlv(0x06, &[0x55, 0x04, *last]), value].concat()),
        )
    };
    sequence(
        &attributes
            .iter()
            .map(attribute)
            .collect::<Vec<_>>()
            .concat(),
    )
}

fn sequence(contents: &[u8]) -> Vec<u8> {
    tlv(0x30, contents)
}

/// A value of ASN.1 in DER: tag, length, contents.
fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut written = vec![tag];
    let bytes = contents.len().to_be_bytes();
    let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    match significant {
        [] => written.push(0),
        [short] if *short < 0x80 => written.push(*short),
        long => {
            // At most eight bytes.
            written.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            written.extend(long);
        }
    }
    written.extend(contents);
    written
}

fn tlv_length(contents: usize) -> usize {
    tlv(0, &vec![0; contents]).len()
}

/// The bytes of tag and length of the value that begins here.
fn header_length(der: &[u8]) -> Option<usize> {
    match der.get(1)? {
        short if *short < 0x80 => Some(2),
        long => Some(2 + usize::from(long & 0x7f)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Identity, der_of, make_key, names_of, parse_der};
    use super::*;
    use rcgen::{KeyPair, PublicKeyData};

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    fn leaf(key: &str) -> Leaf {
        let text = |text: &str| text.to_owned();
        Leaf {
            subject: vec![(10, text("dev")), (10, text("ops")), (3, text("jané"))],
            dns_names: vec![text("a.example")],
            addresses: vec!["10.0.0.1".parse().unwrap()],
            emails: vec![text("a@b.example")],
            uris: vec![text("spiffe://a/b")],
            public_key: KeyPair::from_pem(key).unwrap().subject_public_key_info(),
            usages: ["client auth", "digital signature", "ipsec user"]
                .map(text)
                .into(),
            begins: now(),
            ends: now() + Duration::from_secs(600),
        }
    }

    #[test]
    fn a_certificate_has_every_group_of_its_request_and_its_authoritys_signature() {
        let authority = Authority::create("test", now()).unwrap();
        let key = make_key().unwrap();
        let made = authority.sign(&leaf(&key)).unwrap();
        let der = der_of(&made).unwrap();
        let who = Identity::of_peer(&der).unwrap();
        assert_eq!(who, Identity::new("jané", &["dev", "ops"]));
        assert_eq!(names_of(&made).unwrap(), ["10.0.0.1", "a.example"]);
        let certificate = parse_der(&der).unwrap();
        let root = der_of(authority.certificate()).unwrap();
        let root = parse_der(&root).unwrap();
        assert!(
            certificate
                .verify_signature(Some(root.public_key()))
                .is_ok()
        );
        assert_eq!(certificate.issuer(), root.subject());
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && usage.other.len() == 1);
        let validity = certificate.validity();
        let lasts = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(lasts, 600);
    }

    #[test]
    fn nothing_outlives_its_authority_or_signs_certificates_itself() {
        let authority = Authority::create("test", now()).unwrap();
        let key = make_key().unwrap();
        let mut long = leaf(&key);
        long.ends = now() + Duration::from_secs(20 * 365 * 24 * 3600);
        let made = authority.sign(&long).unwrap();
        assert_eq!(
            super::super::ends(&made).unwrap(),
            authority.ends().unwrap()
        );
        for usage in ["cert sign", "crl sign", "nonsense"] {
            let mut signing = leaf(&key);
            signing.usages = vec![usage.to_owned()];
            let refused = authority.sign(&signing).map_err(|error| error.to_string());
            assert!(refused.is_err_and(|why| why.contains(usage)), "{usage}");
        }
    }

    #[test]
    fn lengths_are_written_as_short_as_they_can_be() {
        assert_eq!(tlv(4, &[]), [4, 0]);
        assert_eq!(tlv(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(tlv(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(tlv(4, &[7; 300])[..4], [4, 0x82, 1, 44]);
        assert_eq!(header_length(&tlv(4, &[7; 300])), Some(4));
    }
}
