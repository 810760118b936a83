//! Clients that try to keep an API server from its work, and the load of others meanwhile.
//!
//! Attacks hold what the server has (connections, memory, time) and spend little of their own. They
//! talk to one server only, whose certificates they can read.

pub mod attacks;
pub mod load;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use sys::certificates::{Authority, Credentials, Identity, Usage};
use sys::tls;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The node whose certificate was stolen.
pub const STOLEN: &str = "stolen";

/// Its object, without which its certificate is worth nothing. The key is not noted: any certificate
/// with the name is good.
pub fn stolen_node() -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": STOLEN}})
}

/// The server, and who speaks to it.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    authority: Arc<str>,
    node: Arc<Credentials>,
}

/// What a client shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Stranger,
    /// A node's certificate, which somebody has stolen.
    Node,
}

impl Target {
    /// The server of this data directory.
    pub fn new(address: SocketAddr, directory: &Path) -> Result<Self> {
        let file = |name: &str| directory.join("pki").join(name);
        let now = Timestamp::now();
        let authority = Authority::load_or_create(&file("ca.crt"), &file("ca.key"), "", now)?;
        let node = Identity::new(&format!("system:node:{STOLEN}"), &["system:nodes"]);
        let node = authority.issue(&node, &[], Usage::Client, now)?;
        Ok(Self {
            address,
            authority: authority.certificate().into(),
            node: Arc::new(node),
        })
    }

    pub async fn dial(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub async fn secure(&self, who: Who, protocol: &str) -> Result<TlsStream<TcpStream>> {
        let shown = (who == Who::Node).then_some(&*self.node);
        let mut config = tls::client_config(&self.authority, shown)?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::IpAddress(self.address.ip().into());
        let connector = TlsConnector::from(Arc::new(config));
        Ok(connector.connect(name, self.dial().await?).await?)
    }
}

/// Bytes of memory that a process holds.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = text.split(' ').nth(1).context("no such field")?;
    Ok(pages.parse::<u64>()? * 4096)
}
