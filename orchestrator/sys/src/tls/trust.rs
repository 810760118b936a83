//! Whom a client trusts that goes out of the cluster's own circle: to webhooks and aggregated servers,
//! whose certificates are their owners' affair.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{TlsError, parse, provider};
use crate::certificates::{Credentials, valid_at};

/// Whose certificates are good.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Those signed by one of these (PEM), and these themselves.
    Bundle(&'a str),
    /// Those that this machine trusts.
    System,
    /// Any, whatever it says.
    Anybody,
}

/// A client of HTTP/1.1 that trusts those, and shows its own certificate if it has one.
pub fn trusting_config(
    trust: Trust<'_>,
    credentials: Option<&Credentials>,
) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(Verifier::of(trust)?);
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match credentials {
        Some(credentials) => {
            let (chain, key) = parse(credentials)?;
            config.with_client_auth_cert(chain, key)?
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// As the library verifies, but for two things that Kubernetes allows: a bundle may name the very
/// certificate of the server, which is then good although it says of itself that it is an authority; and
/// somebody may ask for no verification at all.
#[derive(Debug)]
struct Verifier {
    /// None: anybody is good.
    chains: Option<Arc<WebPkiServerVerifier>>,
    named: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn of(trust: Trust<'_>) -> Result<Self, TlsError> {
        let mut named = Vec::new();
        let roots = match trust {
            Trust::Anybody => None,
            Trust::System => Some(system_roots()),
            Trust::Bundle(pem) => {
                named = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(named.iter().cloned());
                Some(Arc::new(roots))
            }
        };
        let chains = roots
            .map(|roots| WebPkiServerVerifier::builder_with_provider(roots, provider()).build())
            .transpose()?;
        Ok(Self { chains, named })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chains) = &self.chains else {
            return Ok(ServerCertVerified::assertion());
        };
        if !self.named.contains(end_entity) {
            return chains.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let now = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        match valid_at(end_entity, now) {
            Ok(true) => Ok(ServerCertVerified::assertion()),
            Ok(false) => Err(rustls::CertificateError::Expired.into()),
            Err(error) => Err(rustls::Error::General(error.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Read once: they are a file of some hundred certificates.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    ROOTS.get_or_init(read).clone()
}

#[cfg(test)]
mod tests {
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::{ClientCertificate, ShownCertificate, server_config};
    use super::*;
    use crate::certificates::{Authority, Identity, Usage};

    fn authority(name: &str) -> Authority {
        Authority::create(name, Timestamp::now()).unwrap()
    }

    fn server(authority: &Authority) -> Credentials {
        let who = Identity::new("web", &[]);
        let names = ["web.shop.svc".to_owned()];
        let made = authority.issue(&who, &names, Usage::Server, Timestamp::now());
        made.unwrap()
    }

    /// Whether a client that trusts those speaks with this server under this name.
    async fn speaks(server: &Credentials, trust: Trust<'_>, name: &str) -> bool {
        let shown = ShownCertificate::new(server).unwrap();
        let root = authority("clients");
        let server = server_config(shown, root.certificate(), ClientCertificate::Optional);
        let client = trusting_config(trust, None).unwrap();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let (accepted, connected) = tokio::join!(
            TlsAcceptor::from(Arc::new(server.unwrap())).accept(far),
            TlsConnector::from(Arc::new(client)).connect(name, near),
        );
        accepted.is_ok() && connected.is_ok()
    }

    #[tokio::test]
    async fn a_bundle_is_trusted_for_the_name_that_was_asked_for() {
        let (one, two) = (authority("one"), authority("two"));
        let server = server(&one);
        let good = Trust::Bundle(one.certificate());
        assert!(speaks(&server, good, "web.shop.svc").await);
        assert!(!speaks(&server, good, "db.shop.svc").await);
        let other = Trust::Bundle(two.certificate());
        assert!(!speaks(&server, other, "web.shop.svc").await);
        let both = format!("{}{}", two.certificate(), one.certificate());
        assert!(speaks(&server, Trust::Bundle(&both), "web.shop.svc").await);
        assert!(!speaks(&server, Trust::System, "web.shop.svc").await);
        assert!(speaks(&server, Trust::Anybody, "web.shop.svc").await);
    }

    #[tokio::test]
    async fn a_bundle_may_be_the_certificate_of_the_server_itself() {
        // As `openssl req -x509` makes them: an authority that serves.
        let params = rcgen::CertificateParams::new(vec!["web.shop.svc".to_owned()]);
        let mut params = params.unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let server = Credentials {
            certificate: certificate.clone(),
            key: key.serialize_pem(),
        };
        let itself = Trust::Bundle(&certificate);
        assert!(speaks(&server, itself, "web.shop.svc").await);
        assert!(!speaks(&server, itself, "db.shop.svc").await);
    }
}
