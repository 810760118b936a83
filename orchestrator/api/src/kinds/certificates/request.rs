//! PKCS #10: what a request for a certificate says of its asker.

use std::net::IpAddr;

use base64::Engine as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::pem;

/// A request with a key of 8,192 bits and some hundred names has less.
const MAX_DER_BYTES: usize = 64 * 1024;

/// The attributes of a subject that a certificate takes over, in the order in which they are written: the
/// last number of the type below 2.5.4. Country, organization, unit, locality, province, street, postal
/// code, common name, serial number.
const ATTRIBUTES: [u8; 9] = [6, 10, 11, 7, 8, 9, 17, COMMON_NAME, 5];
const COMMON_NAME: u8 = 3;
const ORGANIZATION: u8 = 10;

/// A request whose signature proves that the asker holds the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Types (the last number below 2.5.4) and texts, in the order in which they are written.
    pub subject: Vec<(u8, String)>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    /// The DER of its SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
}

impl Request {
    /// Reads the first block of a PEM text.
    ///
    /// # Errors
    /// Why it is not a request that can be signed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let der = pem::request(text)?;
        if der.len() > MAX_DER_BYTES {
            return Err(format!("a request has at most {MAX_DER_BYTES} bytes"));
        }
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("trailing data after the request".to_owned());
        }
        let info = &request.certification_request_info;
        let mut read = Self {
            subject: subject(&info.subject)?,
            public_key: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                for name in &names.general_names {
                    read.add(name)?;
                }
            }
        }
        let verified = request.verify_signature();
        verified.map_err(|_| "the signature does not fit the key of the request".to_owned())?;
        Ok(read)
    }

    /// The same of the base64 in `spec.request`.
    ///
    /// # Errors
    /// As [`Request::parse`].
    pub fn of_spec(request: &str) -> Result<Self, String> {
        let text = base64::engine::general_purpose::STANDARD.decode(request);
        let text = text.map_err(|error| error.to_string())?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// Empty if there is none.
    pub fn common_name(&self) -> &str {
        self.all_of(COMMON_NAME).next().unwrap_or_default()
    }

    pub fn organizations(&self) -> Vec<&str> {
        self.all_of(ORGANIZATION).collect()
    }

    fn all_of(&self, kind: u8) -> impl Iterator<Item = &str> {
        let of_kind = self.subject.iter().filter(move |(of, _)| *of == kind);
        of_kind.map(|(_, text)| text.as_str())
    }

    /// Names of other kinds have no place in a certificate of the cluster.
    fn add(&mut self, name: &GeneralName<'_>) -> Result<(), String> {
        let text = |text: &str| match text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(text.to_owned()),
            false => Err(format!("the name {text:?} has characters that no name has")),
        };
        match name {
            GeneralName::DNSName(name) => self.dns_names.push(text(name)?),
            GeneralName::RFC822Name(name) => self.emails.push(text(name)?),
            GeneralName::URI(name) => self.uris.push(text(name)?),
            GeneralName::IPAddress(octets) => {
                let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
                let wrong = |_| format!("{} bytes are not an IP address", octets.len());
                self.addresses.push(address.map_err(wrong)?);
            }
            GeneralName::Invalid(..) => return Err("a subjectAltName does not read".to_owned()),
            _ => {}
        }
        Ok(())
    }
}

/// Who reads the first of two common names and who reads the last must read the same.
fn subject(name: &X509Name<'_>) -> Result<Vec<(u8, String)>, String> {
    let mut read = Vec::new();
    for attribute in name.iter_attributes() {
        let [0x55, 0x04, kind] = attribute.attr_type().as_bytes() else {
            continue;
        };
        let Some(place) = ATTRIBUTES.iter().position(|known| known == kind) else {
            continue;
        };
        let text = attribute
            .as_str()
            .map_err(|_| "an attribute of the subject does not read".to_owned())?;
        if text.chars().any(char::is_control) {
            return Err(format!("the subject has control characters: {text:?}"));
        }
        read.push((place, (*kind, text.to_owned())));
    }
    read.sort_by_key(|(place, _)| *place);
    let subject: Vec<(u8, String)> = read.into_iter().map(|(_, it)| it).collect();
    if subject
        .iter()
        .filter(|(kind, _)| *kind == COMMON_NAME)
        .count()
        > 1
    {
        return Err("the subject has more than one common name".to_owned());
    }
    Ok(subject)
}

#[cfg(test)]
pub mod testing {
    //! Requests that `openssl req -new` has made.

    /// Of an EC key (P-256): CN=jane, O=dev, O=ops; no names.
    pub const JANE: &str = include_str!("testdata/jane.csr");
    /// Of an EC key: CN=system:node:a, O=system:nodes; no names.
    pub const NODE: &str = include_str!("testdata/node.csr");
    /// Of an RSA key: the same subject; DNS:a, IP:10.0.0.1, IP:fd00::1.
    pub const SERVING: &str = include_str!("testdata/serving.csr");
    /// Of an Ed25519 key: CN=root, O=system:masters.
    pub const MASTERS: &str = include_str!("testdata/masters.csr");
    /// CN=a, CN=b.
    pub const TWO_NAMES: &str = include_str!("testdata/two-names.csr");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_who_asks_and_for_which_names() {
        let jane = Request::parse(testing::JANE).unwrap();
        assert_eq!(jane.common_name(), "jane");
        assert_eq!(jane.organizations(), ["dev", "ops"]);
        assert!(jane.dns_names.is_empty() && !jane.public_key.is_empty());
        let serving = Request::parse(testing::SERVING).unwrap();
        assert_eq!(serving.dns_names, ["a"]);
        let addresses: Vec<String> = serving.addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1", "fd00::1"]);
        let masters = Request::parse(testing::MASTERS).unwrap();
        assert_eq!(masters.organizations(), ["system:masters"]);
    }

    /// Another subject under the signature of the first.
    #[test]
    fn a_request_whose_subject_was_forged_is_refused() {
        let engine = base64::engine::general_purpose::STANDARD;
        let mut der = pem::request(testing::JANE).unwrap();
        let place = der.windows(4).position(|it| it == b"jane").unwrap();
        der[place..place + 4].copy_from_slice(b"root");
        let forged = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            engine.encode(&der)
        );
        let refused = Request::parse(&forged);
        assert_eq!(
            refused,
            Err("the signature does not fit the key of the request".to_owned())
        );
        der.push(0);
        let longer = engine.encode(&der);
        let longer = forged.replace(forged.lines().nth(1).unwrap(), &longer);
        assert!(Request::parse(&longer).is_err());
    }

    #[test]
    fn a_subject_with_two_common_names_is_refused() {
        let refused = Request::parse(testing::TWO_NAMES);
        assert!(refused.is_err_and(|why| why.contains("more than one common name")));
    }
}
