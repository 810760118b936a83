//! A driver for tests: directories of the machine are its volumes, and it says what it was asked, in order. It mounts
//! nothing: a target is a directory with the volume's files, so that no right is needed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;
use tokio_util::task::AbortOnDropHandle;

use super::driver;
use super::messages::{
    Empty, Expanded, NodeCapabilities, NodeCapability, NodeInfo, PluginInfo, PublishVolume,
    RpcCapability, StageVolume, Topology, UnpublishVolume, UnstageVolume,
};
use super::registration;
use super::rpc::{framed, unframed};

/// What every test's driver is called.
pub const NAME: &str = "hostpath.example.com";

type Answer = http::Response<UnsyncBoxBody<Bytes, Infallible>>;

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
) -> Result<Answer, hyper::Error> {
    let path = request.uri().path().to_owned();
    let method = path.rsplit('/').next().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let question = unframed(body).expect("a message");
    let how = {
        let mut state = locked(&state);
        state.asked.push(method.clone());
        state.questions.insert(method.clone(), question.clone());
        state.mischief.get(method.as_str()).copied()
    };
    match how {
        Some(Mischief::Hang) => std::future::pending().await,
        Some(Mischief::Flood(bytes)) => return Ok(said(vec![0; bytes], "0")),
        Some(Mischief::Fail) => return Ok(said(Vec::new(), "13")),
        _ => {}
    }
    Ok(match act(&state, &path, question, how) {
        Ok(answer) => said(answer, "0"),
        Err(_) => said(Vec::new(), "13"),
    })
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

fn said(message: Vec<u8>, code: &'static str) -> Answer {
    let status = HeaderName::from_static("grpc-status");
    let trailers = HeaderMap::from_iter([(status, HeaderValue::from_static(code))]);
    let body = Full::new(framed(&message));
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
    http::Response::new(body.boxed_unsync())
}
