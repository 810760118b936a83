//! TLS configurations from credentials: a server that asks for or insists on client certificates,
//! a client of the cluster, and the one client that knows an authority only by its fingerprint.

mod trust;

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::certificates::{Credentials, fingerprint};
pub use trust::{Trust, trusting_config};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS could not be set up: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("TLS could not be set up: unreadable PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("TLS could not be set up: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What a server does about clients without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    Optional,
    Required,
}

/// A server that speaks HTTP/2 and HTTP/1.1 and checks client certificates against `authority`
/// (PEM). The peer's certificate is then in the connection (`Identity::of_peer`).
pub fn server_config(
    shown: Arc<ShownCertificate>,
    authority: &str,
    clients: ClientCertificate,
) -> Result<ServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)?), provider());
    let verifier = match clients {
        ClientCertificate::Optional => verifier.allow_unauthenticated().build()?,
        ClientCertificate::Required => verifier.build()?,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    // A resumed session would go on with a certificate that nobody looks at again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn();
    Ok(config)
}

/// The certificate that a server shows, which may be replaced while it serves.
#[derive(Debug)]
pub struct ShownCertificate(RwLock<Arc<CertifiedKey>>);

impl ShownCertificate {
    pub fn new(credentials: &Credentials) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(RwLock::new(certified(credentials)?))))
    }

    /// Handshakes from now on show this one.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), TlsError> {
        let certified = certified(credentials)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

impl ResolvesServerCert for ShownCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(shown.clone())
    }
}

fn certified(credentials: &Credentials) -> Result<Arc<CertifiedKey>, TlsError> {
    let (chain, key) = parse(credentials)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))
}

/// A client that trusts `authority` (PEM) and shows its own certificate if it has one.
pub fn client_config(
    authority: &str,
    credentials: Option<&Credentials>,
) -> Result<ClientConfig, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(authority)?);
    let mut config = match credentials {
        Some(credentials) => {
            let (chain, key) = parse(credentials)?;
            config.with_client_auth_cert(chain, key)?
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn();
    Ok(config)
}

/// A client for the one request that fetches the authority: it trusts a server only if the chain
/// that the server shows contains the authority with this fingerprint (hex SHA-256 of its DER)
/// and the server's certificate is signed by it for the name that was dialled.
pub fn pinned_client_config(authority_fingerprint: &str) -> Result<ClientConfig, TlsError> {
    let verifier = Pinned {
        fingerprint: authority_fingerprint.to_ascii_lowercase(),
        provider: provider(),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = alpn();
    Ok(config)
}

/// Trusts what is signed by the one authority with a known fingerprint. The server has to send
/// that authority's certificate along (`Credentials::certificate` = leaf, then authority).
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.fingerprint)
            .ok_or_else(|| {
                rustls::Error::General(
                    "the server is not of the cluster that the token names".into(),
                )
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            self.provider.clone(),
        )
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Named, so that no other crate's choice of a process-wide default matters.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

fn roots(authority: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

type Parsed = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn parse(credentials: &Credentials) -> Result<Parsed, TlsError> {
    let chain = CertificateDer::pem_slice_iter(credentials.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())?;
    Ok((chain, key))
}

#[cfg(test)]
mod tests {
    use super::super::certificates::{Authority, Identity, Usage, der_of};
    use super::*;
    use jiff::Timestamp;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn cluster(name: &str) -> (Authority, Credentials) {
        let now = Timestamp::now();
        let authority = Authority::create(name, now).unwrap();
        let who = Identity::new("server", &[]);
        let names = ["localhost".to_owned()];
        let mut made = authority.issue(&who, &names, Usage::Server, now).unwrap();
        made.certificate.push_str(authority.certificate());
        (authority, made)
    }

    /// One exchange over a pipe; the answer is the identity that the server saw, or who refused.
    async fn talk(
        server: ServerConfig,
        client: ClientConfig,
        name: &str,
    ) -> Result<String, String> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let serve = async {
            let stream = tokio_rustls::TlsAcceptor::from(Arc::new(server))
                .accept(far)
                .await;
            let mut stream = stream.map_err(|e| format!("server: {e}"))?;
            let peer = stream
                .get_ref()
                .1
                .peer_certificates()
                .map(|chain| chain[0].clone());
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            Ok(peer.map_or("nobody".into(), |der| {
                Identity::of_peer(&der).unwrap().common_name
            }))
        };
        let ask = async {
            let stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, near);
            let mut stream = stream.await.map_err(|e| format!("client: {e}"))?;
            let mut text = String::new();
            stream
                .read_to_string(&mut text)
                .await
                .map_err(|e| format!("client: {e}"))?;
            Ok::<_, String>(text)
        };
        let (seen, got): (Result<String, String>, _) = tokio::join!(serve, ask);
        got?;
        seen
    }

    #[tokio::test]
    async fn a_server_learns_who_the_client_is_and_lets_the_unknown_in_only_if_told() {
        let (authority, server) = cluster("one");
        let who = Identity::new("admin", &["system:masters"]);
        let admin = authority
            .issue(&who, &[], Usage::Client, Timestamp::now())
            .unwrap();
        let root = authority.certificate();
        let config = |clients| {
            let shown = ShownCertificate::new(&server).unwrap();
            server_config(shown, root, clients).unwrap()
        };
        let optional = || config(ClientCertificate::Optional);
        let required = || config(ClientCertificate::Required);
        let known = || client_config(root, Some(&admin)).unwrap();
        let unknown = || client_config(root, None).unwrap();
        assert_eq!(
            talk(optional(), known(), "localhost").await.as_deref(),
            Ok("admin")
        );
        assert_eq!(
            talk(required(), known(), "localhost").await.as_deref(),
            Ok("admin")
        );
        assert_eq!(
            talk(optional(), unknown(), "localhost").await.as_deref(),
            Ok("nobody")
        );
        assert!(talk(required(), unknown(), "localhost").await.is_err());
    }

    #[tokio::test]
    async fn a_pinned_client_trusts_only_the_authority_that_it_names() {
        let ((one, server_one), (_, server_two)) = (cluster("one"), cluster("two"));
        let pin = fingerprint(&der_of(one.certificate()).unwrap());
        let config = |server| {
            let shown = ShownCertificate::new(server).unwrap();
            server_config(shown, one.certificate(), ClientCertificate::Optional).unwrap()
        };
        let client = || pinned_client_config(&pin).unwrap();
        assert!(
            talk(config(&server_one), client(), "localhost")
                .await
                .is_ok()
        );
        assert!(
            talk(config(&server_two), client(), "localhost")
                .await
                .is_err()
        );
        assert!(
            talk(config(&server_one), client(), "elsewhere")
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_foreign_leaf_beside_the_pinned_authority_is_refused() {
        let ((one, _), (_, mut foreign)) = (cluster("one"), cluster("two"));
        let leaf_end = foreign
            .certificate
            .find("-----END CERTIFICATE-----\n")
            .unwrap()
            + 26;
        foreign.certificate.truncate(leaf_end);
        foreign.certificate.push_str(one.certificate());
        let pin = fingerprint(&der_of(one.certificate()).unwrap());
        let shown = ShownCertificate::new(&foreign).unwrap();
        let server = server_config(shown, one.certificate(), ClientCertificate::Optional).unwrap();
        assert!(
            talk(server, pinned_client_config(&pin).unwrap(), "localhost")
                .await
                .is_err()
        );
    }
}
