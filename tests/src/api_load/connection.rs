//! One HTTP/1.1 connection to an API server that a kubeconfig names: what a load costs on this side is kept
//! small, because generator and server share the machine.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_yaml::Value;
use sys::certificates::Credentials;
use sys::tls;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The server, and who asks it.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    host: String,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    token: Option<String>,
}

/// What is asked: a verb, a path with its query, and a body with its content type.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub content_type: &'static str,
    pub body: String,
}

/// An open connection, for one request at a time.
pub struct Connection {
    send: SendRequest<Full<Bytes>>,
    host: String,
    token: Option<String>,
}

impl Target {
    /// Of the current context of a kubeconfig.
    pub fn read(kubeconfig: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(kubeconfig)
            .with_context(|| format!("cannot read {}", kubeconfig.display()))?;
        let config: Value = serde_yaml::from_str(&text)?;
        let context = config["current-context"].as_str().unwrap_or_default();
        let context = &named(&config["contexts"], context)?["context"];
        let cluster = context["cluster"].as_str().unwrap_or_default();
        let cluster = &named(&config["clusters"], cluster)?["cluster"];
        let user = context["user"].as_str().unwrap_or_default();
        let user = &named(&config["users"], user)?["user"];
        let url: Uri = cluster["server"].as_str().context("no server")?.parse()?;
        let host = url.host().context("the server has no host")?;
        let bare = host.trim_matches(['[', ']']);
        let port = url.port_u16().unwrap_or(443);
        let authority = data(cluster, "certificate-authority")?.context("no authority")?;
        let certificate = data(user, "client-certificate")?;
        let credentials = certificate.zip(data(user, "client-key")?);
        let credentials = credentials.map(|(certificate, key)| Credentials { certificate, key });
        let mut tls = tls::client_config(&authority, credentials.as_ref())?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            address: (bare, port)
                .to_socket_addrs()?
                .next()
                .context("the server has no address")?,
            host: format!("{host}:{port}"),
            name: ServerName::try_from(bare.to_owned())?,
            tls: Arc::new(tls),
            token: user["token"].as_str().map(str::to_owned),
        })
    }

    /// The server's.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(self.tls.clone());
        let stream = connector.connect(self.name.clone(), stream).await?;
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection {
            send,
            host: self.host.clone(),
            token: self.token.clone(),
        })
    }
}

impl Ask {
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            content_type: "application/json",
            body: String::new(),
        }
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self {
            method: Method::DELETE,
            ..Self::get(path)
        }
    }

    pub fn post(path: impl Into<String>, body: impl ToString) -> Self {
        Self {
            method: Method::POST,
            body: body.to_string(),
            ..Self::get(path)
        }
    }

    pub fn patch(path: impl Into<String>, kind: &'static str, body: impl ToString) -> Self {
        Self {
            method: Method::PATCH,
            content_type: kind,
            body: body.to_string(),
            ..Self::get(path)
        }
    }
}

impl Connection {
    /// The answer's first part; its body is still to be read.
    pub async fn open(&mut self, ask: Ask) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .header(HOST, &self.host)
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, ask.content_type);
        }
        let request = request.body(Full::new(Bytes::from(ask.body)))?;
        self.send.ready().await?;
        Ok(self.send.send_request(request).await?)
    }

    /// The whole answer.
    pub async fn ask(&mut self, ask: Ask) -> Result<(StatusCode, Bytes)> {
        let answer = self.open(ask).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// The answer of a request that must succeed.
    pub async fn good(&mut self, ask: Ask) -> Result<Bytes> {
        let what = format!("{} {}", ask.method, ask.path);
        let (status, body) = self.ask(ask).await?;
        let said = &body[..body.len().min(300)];
        ensure!(
            status.is_success(),
            "{what}: {status}: {}",
            String::from_utf8_lossy(said)
        );
        Ok(body)
    }

    /// Reads the answer and keeps nothing; returns how many bytes it had.
    pub async fn drain(&mut self, ask: Ask) -> Result<u64> {
        let answer = self.open(ask).await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        let mut body = answer.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok(bytes)
    }
}

/// The entry of that name in a list of a kubeconfig.
fn named<'a>(list: &'a Value, name: &str) -> Result<&'a Value> {
    let mut entries = list.as_sequence().into_iter().flatten();
    entries
        .find(|entry| entry["name"].as_str() == Some(name))
        .with_context(|| format!("the kubeconfig has no entry {name:?}"))
}

/// `NAME-data` in base64, or the file that `NAME` names.
fn data(entry: &Value, name: &str) -> Result<Option<String>> {
    if let Some(encoded) = entry[format!("{name}-data").as_str()].as_str() {
        return Ok(Some(String::from_utf8(STANDARD.decode(encoded)?)?));
    }
    let file = entry[name].as_str();
    Ok(file.map(std::fs::read_to_string).transpose()?)
}
