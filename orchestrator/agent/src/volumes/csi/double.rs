//! A driver for tests: directories of the machine are its volumes, and it says what it was asked, in order. It mounts
//! nothing: a target is a directory with the volume's files, so that no right is needed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::Grpc;
use tonic::{Request, Response, Status};

use super::driver;
use super::messages::{
    Empty, Expanded, NodeCapabilities, NodeCapability, NodeInfo, PluginInfo, PublishVolume,
    RpcCapability, StageVolume, Topology, UnpublishVolume, UnstageVolume,
};
use super::registration;

/// What every test's driver is called.
pub const NAME: &str = "hostpath.example.com";

/// The driver. It ends when it is dropped, and takes its sockets along.
pub struct Double {
    state: Arc<Mutex<State>>,
    sockets: Vec<PathBuf>,
    _servers: Vec<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct State {
    asked: Vec<String>,
    /// The last question of each method.
    questions: BTreeMap<String, Bytes>,
    offers: Vec<i32>,
    mischief: BTreeMap<&'static str, Mischief>,
    endpoint: String,
    /// What its registration came to.
    registered: Option<String>,
}

/// What it does instead of what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// It never answers.
    Hang,
    /// It answers with so many bytes.
    Flood(usize),
    /// It says that all is well.
    Nothing,
    /// It makes a link to somewhere else.
    Link,
    Fail,
}

impl Double {
    /// Starts a driver below a kubelet's directory that has these capabilities.
    pub fn start(kubelet: &Path, offers: &[i32]) -> Double {
        let registry = kubelet.join("plugins_registry");
        let plugin = kubelet.join("plugins").join(NAME);
        for dir in [&registry, &plugin] {
            fs::create_dir_all(dir).expect("a directory");
        }
        let sockets = vec![registry.join("double.sock"), plugin.join("csi.sock")];
        let state = State {
            offers: offers.to_vec(),
            endpoint: sockets[1].display().to_string(),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let servers = sockets.iter().map(|socket| serve(socket, state.clone()));
        Double {
            _servers: servers.collect(),
            state,
            sockets,
        }
    }

    /// What it was asked for volumes, in order.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.state().asked.clone().into_iter();
        let of_volumes = |it: &String| it.ends_with("Volume");
        asked.filter(of_volumes).collect()
    }

    pub fn forget(&self) {
        self.state().asked.clear();
    }

    /// What the last call of that method said.
    pub fn question<M: Message + Default>(&self, method: &str) -> Option<M> {
        let bytes = self.state().questions.get(method)?.clone();
        M::decode(bytes).ok()
    }

    pub fn misbehave(&self, method: &'static str, how: Mischief) {
        self.state().mischief.insert(method, how);
    }

    pub fn behave(&self) {
        self.state().mischief.clear();
    }

    /// Has it name another socket as its own.
    pub fn set_endpoint(&self, endpoint: &str) {
        self.state().endpoint = endpoint.to_owned();
    }

    /// What it was told of its registration; empty: it is registered.
    pub fn registered(&self) -> Option<String> {
        self.state().registered.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        for socket in &self.sockets {
            let _ = fs::remove_file(socket);
        }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(socket: &Path, state: Arc<Mutex<State>>) -> AbortOnDropHandle<()> {
    let listener = UnixListener::bind(socket).expect("a socket");
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let state = state.clone();
            let service = service_fn(move |request| answer(state.clone(), request));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // The agent hangs up after each call.
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    }))
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let answering = tower::service_fn(move |question: Request<Bytes>| {
        let (state, path) = (state.clone(), path.clone());
        async move { answered(&state, &path, question.into_inner()).await }
    });
    Ok(Grpc::new(Raw).unary(answering, request).await)
}

async fn answered(
    state: &Mutex<State>,
    path: &str,
    question: Bytes,
) -> Result<Response<Bytes>, Status> {
    let method = path.rsplit('/').next().unwrap_or_default().to_owned();
    let how = {
        let mut state = locked(state);
        state.asked.push(method.clone());
        state.questions.insert(method.clone(), question.clone());
        state.mischief.get(method.as_str()).copied()
    };
    let answer = match how {
        Some(Mischief::Hang) => std::future::pending().await,
        Some(Mischief::Flood(bytes)) => Ok(vec![0; bytes]),
        Some(Mischief::Fail) => return Err(Status::internal("")),
        _ => act(state, path, question, how),
    };
    let failed = |error: io::Error| Status::internal(error.to_string());
    let answer = answer.map_err(failed)?;
    Ok(Response::new(answer.into()))
}

/// Messages as they are on the wire.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Does what is asked.
fn act(
    state: &Mutex<State>,
    path: &str,
    question: Bytes,
    how: Option<Mischief>,
) -> io::Result<Vec<u8>> {
    let is = |method: super::rpc::Method| method.path == path;
    if is(registration::GET_INFO) {
        return Ok(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: NAME.to_owned(),
            endpoint: locked(state).endpoint.clone(),
            supported_versions: vec!["1.0.0".to_owned()],
        }
        .encode_to_vec());
    }
    if is(registration::NOTIFY) {
        let status = super::messages::RegistrationStatus::decode(question)?;
        locked(state).registered = Some(status.error);
    } else if is(driver::GET_INFO) {
        let segments = [(format!("topology.{NAME}/node"), "n1".to_owned())];
        return Ok(NodeInfo {
            node_id: "id-of-n1".to_owned(),
            max_volumes_per_node: 3,
            accessible_topology: Some(Topology {
                segments: segments.into(),
            }),
        }
        .encode_to_vec());
    } else if is(driver::GET_CAPABILITIES) {
        let capability = |kind: &i32| NodeCapability {
            rpc: Some(RpcCapability { r#type: *kind }),
        };
        let capabilities = locked(state).offers.iter().map(capability).collect();
        return Ok(NodeCapabilities { capabilities }.encode_to_vec());
    } else if is(driver::EXPAND) {
        return Ok(Expanded { capacity_bytes: 0 }.encode_to_vec());
    } else if is(driver::STAGE) {
        let asked = StageVolume::decode(question)?;
        fs::write(Path::new(&asked.staging_target_path).join("file"), "staged")?;
    } else if is(driver::UNSTAGE) {
        let asked = UnstageVolume::decode(question)?;
        removed(&Path::new(&asked.staging_target_path).join("file"))?;
    } else if is(driver::PUBLISH) && how.is_none() {
        let asked = PublishVolume::decode(question)?;
        fs::create_dir_all(&asked.target_path)?;
        let file = Path::new(&asked.target_path).join("file");
        fs::write(file, asked.volume_id)?;
    } else if is(driver::PUBLISH) && how == Some(Mischief::Link) {
        let asked = PublishVolume::decode(question)?;
        std::os::unix::fs::symlink("/etc", asked.target_path)?;
    } else if is(driver::UNPUBLISH) {
        let asked = UnpublishVolume::decode(question)?;
        let target = Path::new(&asked.target_path);
        removed(&target.join("file"))?;
        match fs::symlink_metadata(target) {
            Ok(found) if found.is_dir() => fs::remove_dir(target)?,
            Ok(_) => fs::remove_file(target)?,
            Err(_) => {}
        }
    }
    Ok(Empty {}.encode_to_vec())
}

fn removed(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
        removed => removed,
    }
}
