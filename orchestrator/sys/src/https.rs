//! One HTTPS request over a connection of its own, for those who have joined no cluster yet: they trust one
//! authority, or one fingerprint, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest answer that is read.
const ANSWER_BYTES: usize = 4 << 20;
/// From the connection to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is asked for.
pub struct Post<'a> {
    /// `https://HOST:PORT`.
    pub server: &'a Uri,
    pub path: &'a str,
    /// The token that proves who asks, if it is not the certificate.
    pub bearer: Option<&'a str>,
    /// JSON.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("{0} is no https URL of a server")]
    BadServer(Uri),
    #[error("the server at {server} does not answer: {why}")]
    Unreachable { server: Uri, why: String },
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
}

impl Post<'_> {
    /// The status and the body of the answer.
    pub async fn send(self, mut tls: ClientConfig) -> Result<(StatusCode, Bytes), PostError> {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = self.server.clone();
        match tokio::time::timeout(TIMEOUT, self.exchange(tls)).await {
            Ok(answer) => answer,
            Err(_) => Err(PostError::Unreachable {
                server,
                why: format!("nothing within {} s", TIMEOUT.as_secs()),
            }),
        }
    }

    async fn exchange(self, tls: ClientConfig) -> Result<(StatusCode, Bytes), PostError> {
        let bad = || PostError::BadServer(self.server.clone());
        let host = self.server.host().ok_or_else(bad)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = self.server.port_u16().unwrap_or(443);
        let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
        let away = |why: &dyn std::fmt::Display| PostError::Unreachable {
            server: self.server.clone(),
            why: why.to_string(),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await;
        let stream = stream.map_err(|error| away(&error))?;
        let connecting = TlsConnector::from(Arc::new(tls)).connect(name, stream);
        let stream = connecting.await.map_err(|error| away(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| away(&error))?;
        let connection = tokio::spawn(connection);
        let authority = self.server.authority().map_or("", |it| it.as_str());
        let mut request = Request::post(self.path)
            .header(http::header::HOST, authority)
            .header(http::header::CONTENT_TYPE, "application/json");
        if let Some(token) = self.bearer {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(self.body.clone())))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| away(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES)
            .collect()
            .await;
        connection.abort();
        Ok((status, body.map_err(|error| away(&error))?.to_bytes()))
    }
}
