//! A storage driver as its users have it: a program with the identity, controller and node services of CSI 1.9 and
//! a kubelet's registration on unix sockets, and beside it what external-provisioner, -attacher and -resizer do. Its
//! volumes are directories and disk images of this machine. Only for tests: it believes whoever connects.

pub mod messages;
pub mod sidecars;
mod volumes;

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent::volumes::csi::messages::{
    Empty, NodeCapabilities, NodeCapability, NodeInfo, PluginInfo, RpcCapability, Topology,
};
use anyhow::{Context as _, Result};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use volumes::Volumes;

pub const NAME: &str = "hostpath.tests.example.com";
/// What a stage, a publication and an expansion must show of their Secret.
pub const PASSPHRASE: (&str, &str) = ("passphrase", "open sesame");
/// Says which node a volume can be reached from.
pub const TOPOLOGY: &str = "topology.hostpath.tests.example.com/node";
/// The file of a published volume that says what was told at its last publication.
pub const TOLD: &str = "told.json";

/// A driver on one node.
#[derive(Clone)]
pub struct Driver {
    node: String,
    volumes: Arc<Mutex<Volumes>>,
}

/// Where a driver listens.
#[derive(Clone, Debug)]
pub struct Sockets {
    registration: PathBuf,
    pub services: PathBuf,
}

impl Sockets {
    /// Below a kubelet's directory.
    pub fn of(kubelet: &Path) -> Self {
        let services = kubelet.join("plugins").join(NAME).join("csi.sock");
        let registration = kubelet
            .join("plugins_registry")
            .join(format!("{NAME}.sock"));
        Self {
            registration,
            services,
        }
    }
}

impl Driver {
    /// Keeps its volumes below `data`.
    pub fn new(node: &str, data: &Path) -> Self {
        let volumes = Arc::new(Mutex::new(Volumes::new(data)));
        let node = node.to_owned();
        Self { node, volumes }
    }

    /// Serves until the process ends.
    pub async fn serve(self, sockets: &Sockets) -> Result<()> {
        let mut servers = Vec::new();
        // Who finds the registration finds the services.
        for socket in [&sockets.services, &sockets.registration] {
            let above = socket.parent().context("a directory")?;
            fs::create_dir_all(above)?;
            match fs::remove_file(socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let listener = UnixListener::bind(socket)?;
            let (driver, services) = (self.clone(), sockets.services.clone());
            servers.push(async move { driver.listen(listener, &services).await });
        }
        futures::future::join_all(servers).await;
        Ok(())
    }

    async fn listen(&self, listener: UnixListener, services: &Path) {
        while let Ok((stream, _)) = listener.accept().await {
            let (driver, services) = (self.clone(), services.to_owned());
            let service = service_fn(move |request| {
                let (driver, services) = (driver.clone(), services.clone());
                async move { driver.answer(request, &services).await }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // The caller hangs up after each call.
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    }

    fn volumes(&self) -> MutexGuard<'_, Volumes> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        services: &Path,
    ) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        Ok(match path.as_str() {
            "/pluginregistration.Registration/GetInfo" => {
                let endpoint = services.display().to_string();
                call(request, |_: Empty| Ok(plugin(endpoint))).await
            }
            "/pluginregistration.Registration/NotifyRegistrationStatus" => {
                call(request, |_: Empty| Ok(Empty {})).await
            }
            "/csi.v1.Node/NodeGetInfo" => call(request, |_: Empty| Ok(self.info())).await,
            "/csi.v1.Node/NodeGetCapabilities" => call(request, |_: Empty| Ok(offers())).await,
            "/csi.v1.Node/NodeStageVolume" => call(request, |it| self.volumes().stage(&it)).await,
            "/csi.v1.Node/NodeUnstageVolume" => {
                call(request, |it| self.volumes().unstage(&it)).await
            }
            "/csi.v1.Node/NodePublishVolume" => {
                call(request, |it| self.volumes().publish(&it)).await
            }
            "/csi.v1.Node/NodeUnpublishVolume" => {
                call(request, |it| self.volumes().unpublish(&it)).await
            }
            "/csi.v1.Node/NodeExpandVolume" => {
                call(request, |it| self.volumes().expand_on_node(&it)).await
            }
            "/csi.v1.Node/NodeGetVolumeStats" => {
                call(request, |it| self.volumes().stats(&it)).await
            }
            "/csi.v1.Controller/CreateVolume" => {
                call(request, |it| self.volumes().create(&it)).await
            }
            "/csi.v1.Controller/DeleteVolume" => {
                call(request, |it| self.volumes().delete(&it)).await
            }
            "/csi.v1.Controller/ControllerPublishVolume" => {
                call(request, |it| self.volumes().attach(&it)).await
            }
            "/csi.v1.Controller/ControllerUnpublishVolume" => {
                call(request, |it| self.volumes().detach(&it)).await
            }
            "/csi.v1.Controller/ControllerExpandVolume" => {
                call(request, |it| self.volumes().expand(&it)).await
            }
            _ => {
                call(request, |_: Empty| {
                    Err::<Empty, _>(Status::unimplemented(path.clone()))
                })
                .await
            }
        })
    }

    fn info(&self) -> NodeInfo {
        let segments = [(TOPOLOGY.to_owned(), self.node.clone())];
        NodeInfo {
            node_id: self.node.clone(),
            max_volumes_per_node: 8,
            accessible_topology: Some(Topology {
                segments: segments.into(),
            }),
        }
    }
}

fn plugin(endpoint: String) -> PluginInfo {
    PluginInfo {
        r#type: "CSIPlugin".to_owned(),
        name: NAME.to_owned(),
        endpoint,
        supported_versions: vec!["1.0.0".to_owned()],
    }
}

fn offers() -> NodeCapabilities {
    use agent::volumes::csi::messages::{EXPANDS, HAS_STATS, STAGES};
    let capability = |kind: i32| NodeCapability {
        rpc: Some(RpcCapability { r#type: kind }),
    };
    NodeCapabilities {
        capabilities: [STAGES, HAS_STATS, EXPANDS].map(capability).into(),
    }
}

/// One unary call.
async fn call<Q, A>(
    request: Request<Incoming>,
    answer: impl FnOnce(Q) -> Result<A, Status>,
) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let mut answer = Some(answer);
    let service = tower::service_fn(|question: tonic::Request<Q>| {
        let answer = answer.take().map(|answer| answer(question.into_inner()));
        let answer = answer.unwrap_or_else(|| Err(Status::internal("asked twice")));
        std::future::ready(answer.map(tonic::Response::new))
    });
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
    grpc.unary(service, request).await
}
