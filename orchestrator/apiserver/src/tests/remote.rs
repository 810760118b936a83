//! Servers that the API server asks: others' on loopback, and agents that lead to them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::Cluster;
use crate::{Pki, ServerConfig, server_names};
use store::Expect;
use sys::certificates::{Authority, Credentials, Identity, LEAF_VALIDITY, Usage};
use sys::relay::relay;
use sys::tls::{ClientCertificate, ShownCertificate, server_config};

type Service = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// A server on loopback that speaks TLS.
pub struct Remote {
    pub address: SocketAddr,
    /// Signed its certificate.
    authority: String,
    _task: Ends,
}

/// Ends with the value.
struct Ends(JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Remote {
    /// One with an authority of its own, which answers every request so.
    pub async fn start<F>(
        names: &[&str],
        answer: impl Fn(Request<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::knowing(None, names, answer).await
    }

    /// The same, which knows clients by the authority of somebody else.
    pub async fn knowing<F>(
        clients_root: Option<&str>,
        names: &[&str],
        answer: impl Fn(Request<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let authority = Authority::create("hooks", Timestamp::now()).expect("an authority");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let who = Identity::new("hook", &[]);
        let shown = authority.issue(&who, &names, Usage::Server, Timestamp::now());
        let answer = Arc::new(answer);
        let service: Service = Arc::new(move |request| {
            let answer = answer.clone();
            Box::pin(async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                answer(Request::from_parts(parts, body)).await
            })
        });
        let root = clients_root.unwrap_or(authority.certificate());
        let clients = ClientCertificate::Optional;
        let shown = shown.expect("a certificate");
        let served = Self::serve("127.0.0.1:0", &shown, root, clients, service).await;
        Self {
            authority: authority.certificate().to_owned(),
            ..served
        }
    }

    async fn serve(
        at: &str,
        shown: &Credentials,
        root: &str,
        clients: ClientCertificate,
        service: Service,
    ) -> Self {
        let shown = ShownCertificate::new(shown).expect("it reads");
        let config = Arc::new(server_config(shown, root, clients).expect("TLS"));
        let listener = TcpListener::bind(at).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(config);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(converse(stream, acceptor.clone(), service.clone()));
            }
        });
        Self {
            address,
            authority: root.to_owned(),
            _task: Ends(task),
        }
    }

    /// Its `caBundle`.
    pub fn bundle(&self) -> String {
        STANDARD.encode(&self.authority)
    }

    /// The `clientConfig` that names it by its address.
    pub fn by_url(&self, path: &str) -> Value {
        let port = self.address.port();
        json!({"url": format!("https://localhost:{port}{path}"), "caBundle": self.bundle()})
    }

    /// The one that names the Service default/hook.
    pub fn by_service(&self, path: &str) -> Value {
        json!({"service": {"namespace": "default", "name": "hook", "path": path, "port": 443},
            "caBundle": self.bundle()})
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, service: Service) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let chain = stream.get_ref().1.peer_certificates();
    let identity = chain.map(|chain| Identity::of_peer(&chain[0]).expect("it reads"));
    let answer = service_fn(move |mut request: Request<Incoming>| {
        if let Some(identity) = identity.clone() {
            request.extensions_mut().insert(identity);
        }
        let answer = service(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    // The client may go away whenever it likes.
    let _ = connection.with_upgrades().await;
}

/// An answer of this code.
pub fn reply(code: u16, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = StatusCode::from_u16(code).expect("a code");
    answer
}

/// A cluster whose server has certificates, as agents demand of it.
pub struct Setting {
    pub cluster: Cluster,
    _directory: tempfile::TempDir,
}

impl Setting {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = ServerConfig::default();
        let names = server_names(&[config.advertise.ip()], config.own_service_address());
        let pki = Pki::load_or_create(directory.path(), &names, LEAF_VALIDITY, Timestamp::now());
        Self {
            cluster: Cluster::build(config, pki.ok()).await,
            _directory: directory,
        }
    }

    /// An agent of the node that leads from addresses of pods to servers on loopback.
    pub async fn agent(&self, node: &str, pods: BTreeMap<String, SocketAddr>) -> Agent {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let service: Service = Arc::new(move |mut request: Request<Incoming>| {
            let target = request.uri().authority().map(ToString::to_string);
            let target = target.unwrap_or_default();
            let pod = pods.get(&target).copied();
            assert_eq!(request.method(), Method::CONNECT);
            let identity = request.extensions().get::<Identity>();
            let name = identity.map(|it| it.common_name.clone());
            assert_eq!(name.as_deref(), Some("kube-apiserver-kubelet-client"));
            noted.lock().expect("whole").push(target);
            let tunnel = hyper::upgrade::on(&mut request);
            Box::pin(async move {
                let Some(pod) = pod else {
                    return reply(502, "connection refused");
                };
                let pod = TcpStream::connect(pod).await.expect("it listens");
                tokio::spawn(async move {
                    let server = TokioIo::new(tunnel.await.expect("a tunnel"));
                    relay(server, pod, Duration::from_secs(60)).await;
                });
                reply(200, "")
            })
        });
        let remote = self.serve_agent(node, service).await;
        Agent { remote, asked }
    }

    /// An agent of the node that answers requests so.
    pub async fn agent_serving(
        &self,
        node: &str,
        answer: impl Fn(Request<Incoming>) -> Response<Body> + Send + Sync + 'static,
    ) -> Agent {
        let service: Service = Arc::new(move |request| {
            let answer = answer(request);
            Box::pin(async move { answer })
        });
        Agent {
            remote: self.serve_agent(node, service).await,
            asked: Arc::default(),
        }
    }

    async fn serve_agent(&self, node: &str, service: Service) -> Remote {
        let state = &self.cluster.server.state;
        let pki = state.pki.as_ref().expect("certificates");
        let who = Identity::new(&format!("system:node:{node}"), &["system:nodes"]);
        let names = [node.to_owned()];
        let shown = pki
            .authority
            .issue(&who, &names, Usage::Both, Timestamp::now());
        let number = node.trim_start_matches("node-");
        let root = pki.authority.certificate();
        let at = format!("127.0.0.{number}:0");
        let required = ClientCertificate::Required;
        let shown = shown.expect("a certificate");
        Remote::serve(&at, &shown, root, required, service).await
    }

    /// A node whose agent is this.
    pub async fn node(&self, name: &str, agent: &Agent) {
        let address = agent.remote.address;
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {
                "addresses": [{"type": "InternalIP", "address": address.ip().to_string()}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}},
            },
        });
        // Not through the API: no node may be on loopback.
        let nodes = api::find("", "v1", "nodes").expect("served");
        let objects = &self.cluster.server.state.objects;
        let written = objects
            .write(nodes, &node, Expect::Absent, Vec::new())
            .await;
        written.expect("written");
    }

    /// Service default/hook, which leads to these endpoints.
    pub async fn service(&self, endpoints: &[(&str, &str)]) {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
            "spec": {"ports": [{"port": 443, "targetPort": "https"}]}});
        self.cluster
            .post(super::SERVICES, service)
            .await
            .expect(201);
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(address, node)| json!({"addresses": [address], "nodeName": node}))
            .collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "", "port": 8443, "protocol": "TCP"}],
        });
        self.cluster.post(SLICES, slice).await.expect(201);
    }
}

pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

pub struct Agent {
    remote: Remote,
    /// The targets of its tunnels.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("whole").clone()
    }
}
