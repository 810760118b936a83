//! What the agent asks of a container engine: one trait, [`docker`] for nodes and [`fake`] for tests.
//!
//! Owns the words (container, state, spec). Knows nothing of the API, of restart policies or of the
//! network: a caller says what to start, a runtime says what there is. All that a restarted agent
//! must know again is on the containers, as labels.

pub mod container_spec;
pub mod credentials;
pub mod docker;
pub mod fake;
pub mod image_gc;
pub mod image_name;
pub mod image_root;
pub mod pause_image;
mod process;
pub mod streams;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use datapath::Addrs;

use credentials::Credentials;
use streams::{Process, Size, Streams, Terminal};

/// One container engine, seen by one node: only this node's containers exist for it.
pub trait Runtime: Send + Sync + 'static {
    /// What the engine is, and whether it answers at all.
    fn describe(&self) -> impl Future<Output = Result<Description, RuntimeError>> + Send;

    /// Every pod that has a container here, dead or alive.
    fn pods(&self) -> impl Future<Output = Result<Vec<Sighting>, RuntimeError>> + Send;

    /// Every container of one pod, its sandboxes included, in no order.
    fn containers(
        &self,
        uid: &str,
    ) -> impl Future<Output = Result<Vec<Container>, RuntimeError>> + Send;

    /// The uid of a pod each time one of its containers died or was removed. Ends when the engine does.
    fn events(&self) -> BoxStream<'static, Result<String, RuntimeError>>;

    /// Resolves once a container's process has ended, which the kernel knows long before the engine has
    /// cleaned up and says so; never, where it cannot be known.
    fn ended(&self, pid: u32) -> impl Future<Output = ()> + Send;

    /// Creates a container and gives its id. One of the same name that never ran is replaced.
    fn create(
        &self,
        spec: &ContainerSpec,
    ) -> impl Future<Output = Result<String, RuntimeError>> + Send;

    /// Makes the root of an image without anything else in it, for [`Runtime::path_in_root`] to look at, and
    /// gives an id to be removed like a container's. `image` is its id.
    fn root_of(&self, image: &str) -> impl Future<Output = Result<String, RuntimeError>> + Send;

    /// What an absolute path is in such a root.
    fn path_in_root(
        &self,
        id: &str,
        path: &str,
    ) -> impl Future<Output = Result<InRoot, RuntimeError>> + Send;

    /// What a file of such a root holds; none, if it is not there. One of more bytes than that is refused.
    fn file_in_root(
        &self,
        id: &str,
        path: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, RuntimeError>> + Send;

    /// What is in such a root, as a tar archive. The engine adds some empty files.
    fn export(&self, id: &str) -> BoxStream<'static, Result<Bytes, RuntimeError>>;

    /// Gives a running container other limits and shares; its OOM score stays.
    fn resize_container(
        &self,
        id: &str,
        resources: &Resources,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Starts a created container.
    fn start(&self, id: &str) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Sends the container's own stop signal, or SIGKILL; one that no longer runs is a success.
    fn signal(&self, id: &str, kill: bool)
    -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Removes a container, running or not; an absent one is a success.
    fn remove(&self, id: &str) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// The image of that reference, when it is on the node.
    fn image(
        &self,
        reference: &str,
    ) -> impl Future<Output = Result<Option<Image>, RuntimeError>> + Send;

    /// Fetches an image from its registry, with or without credentials.
    fn pull(
        &self,
        reference: &str,
        credentials: Option<&Credentials>,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Every image on the node but the sandboxes' own.
    fn images(&self) -> impl Future<Output = Result<Vec<StoredImage>, RuntimeError>> + Send;

    /// Removes an image by all its names; one that a container is made of is refused.
    fn remove_image(
        &self,
        image: &StoredImage,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// A path on the disk that holds images.
    fn image_root(&self) -> impl Future<Output = Result<PathBuf, RuntimeError>> + Send;

    /// The reference of the sandbox's image, made first when it is not there.
    fn pause_image(&self) -> impl Future<Output = Result<String, RuntimeError>> + Send;

    /// What a container wrote; ends with the container when followed.
    fn logs(
        &self,
        id: &str,
        options: &LogOptions,
    ) -> BoxStream<'static, Result<Bytes, RuntimeError>>;

    /// Runs a command in a container and waits for it.
    fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> impl Future<Output = Result<ExecOutcome, RuntimeError>> + Send;

    /// Runs a command in a container and gives its id with its streams. It may outlive them.
    fn run(
        &self,
        id: &str,
        command: &[String],
        streams: Streams,
    ) -> impl Future<Output = Result<(String, Process), RuntimeError>> + Send;

    /// The exit code of a command whose output has ended; `None` where it is not known.
    fn exit_code(
        &self,
        command: &str,
    ) -> impl Future<Output = Result<Option<i64>, RuntimeError>> + Send;

    /// The streams of a container that runs; what it has written before is not among them.
    fn attach(
        &self,
        id: &str,
        streams: Streams,
    ) -> impl Future<Output = Result<Process, RuntimeError>> + Send;

    /// Whether a container was made with a terminal.
    fn has_terminal(&self, id: &str) -> impl Future<Output = Result<bool, RuntimeError>> + Send;

    /// Tells a process how large its terminal is.
    fn resize(
        &self,
        terminal: Terminal<'_>,
        size: Size,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;
}

/// The engine as a node's status names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// For example `docker://20.10.24`.
    pub version: String,
    pub cgroup_driver: String,
}

/// A pod that the engine knows, with the addresses that its newest sandbox was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub pod: PodRef,
    pub addrs: Option<Addrs>,
    /// Changes whenever a container appears, starts or dies: what a relist compares.
    pub fingerprint: String,
}

/// A pod's names, as its containers carry them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Holds the pod's namespaces and does nothing.
    Sandbox,
    Init,
    Main,
    /// Added to a pod that runs, to look into it: nothing depends on it.
    Ephemeral,
}

/// What the agent writes on a container, to find it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub role: Role,
    /// The container's name in the pod; empty for a sandbox.
    pub name: String,
    /// Counts the starts of this container: the restart count of its status.
    pub attempt: u32,
    /// The attempt of the sandbox that it lives in.
    pub generation: u32,
    /// Failures in a row before this attempt: what the back-off is computed from.
    pub level: u32,
    /// Of the parts of the spec that may change while a pod lives.
    pub spec_hash: String,
    /// The pod's addresses, on sandboxes that have some.
    pub addrs: Option<Addrs>,
}

/// One container, as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub identity: Identity,
    pub image: String,
    pub image_id: String,
    pub created_at: Timestamp,
    /// The file in which the engine keeps what it writes.
    pub log_path: Option<PathBuf>,
    /// Its limits and shares as the engine has them, if it says.
    pub resources: Option<Resources>,
    pub state: State,
}

impl Container {
    /// Whether its process lives.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            State::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}

/// Where a container is in its one life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Created,
    Running { pid: u32, started_at: Timestamp },
    Exited(Exit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub code: i32,
    pub oom_killed: bool,
    /// Set when the engine could not even start it.
    pub start_error: Option<String>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
}

/// Everything a runtime needs to make one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    pub pod: PodRef,
    pub identity: Identity,
    pub image: String,
    /// The image that was looked at under this name; empty for one that was not.
    pub image_id: String,
    /// Replaces the image's entrypoint.
    pub command: Option<Vec<String>>,
    /// Replaces the image's command.
    pub args: Option<Vec<String>>,
    pub env: Vec<(String, String)>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub network: Network,
    /// The sandbox whose IPC (and on demand PID) namespace it joins; `None` for a sandbox.
    pub sandbox: Option<String>,
    pub share_pids: bool,
    /// The container whose PID namespace it joins, by its id.
    pub processes_of: Option<String>,
    pub host_pids: bool,
    pub host_ipc: bool,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub resources: Resources,
    /// The cgroup in which its own one is made; none: the engine's own choice.
    pub cgroup_parent: Option<String>,
    /// Its users are not those of the node.
    pub own_users: bool,
    pub security: Security,
    pub sysctls: BTreeMap<String, String>,
    /// The engine's runtime that starts it; none: the engine's own choice.
    pub handler: Option<String>,
    /// Replaces the image's own.
    pub stop_signal: Option<String>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
}

/// Which network namespace a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// A new one with nothing in it but `lo`.
    Fresh,
    /// The node's own. The engine may live in another namespace than the node: the sandbox enters
    /// the one that is mounted at this path.
    Node(PathBuf),
    /// That of the sandbox with this id.
    Sandbox(String),
}

/// A path of the node in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
    pub propagation: Propagation,
    /// Other volumes are mounted inside it, each read-only or not by itself.
    pub joined: bool,
}

/// A block device of the node in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
}

/// Which later mounts are seen across a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// Limits and shares, in the kernel's units. Zero means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Resources {
    pub memory_bytes: i64,
    pub cpu_shares: i64,
    pub cpu_quota_us: i64,
    pub cpu_period_us: i64,
    pub oom_score_adj: i64,
}

/// The parts of a security context that the engine enforces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub privileged: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// The AppArmor profile, or `unconfined`; none: the engine's own.
    pub app_armor: Option<String>,
    /// SELinux labels: user, role, type and level, as far as they are said.
    pub selinux: Vec<(&'static str, String)>,
    /// Nothing of `/proc` is hidden or made read-only.
    pub unmasked: bool,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// The engine's own profile.
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A profile of the node, by its path below the directory of profiles.
    File(PathBuf),
    /// That profile, as it was read.
    Profile(String),
}

/// An image on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    /// It came from a registry, so a newer one may be there. An image that was made on the node
    /// has nowhere to be refreshed from.
    pub has_origin: bool,
    /// The image's own user, when that is a number or a name.
    pub user: String,
    /// Where the engine mounts a volume of its own, unless the container has a mount at that path.
    pub volumes: Vec<String>,
    pub working_dir: String,
}

/// An image as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    pub id: String,
    /// With their tags.
    pub names: Vec<String>,
    pub size_bytes: u64,
    /// It came from a registry.
    pub has_origin: bool,
    /// A container is made of it, whoever's.
    pub is_used: bool,
}

/// What a path is in the root of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InRoot {
    Absent,
    /// A symbolic link and where it leads, as it is written or with further links resolved.
    Link(String),
    /// A directory, or a file of another type.
    Other,
}

/// What part of a log is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub timestamps: bool,
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    pub stdout: bool,
    pub stderr: bool,
}

impl Default for LogOptions {
    /// All that there is, of both streams.
    fn default() -> Self {
        Self {
            follow: false,
            timestamps: false,
            tail: None,
            since: None,
            stdout: true,
            stderr: true,
        }
    }
}

/// How a command in a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    pub code: i64,
    pub output: String,
}

/// What can go wrong between the agent and its engine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    #[error("the container engine does not answer: {0}")]
    Unreachable(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{message}")]
    Refused { status: u16, message: String },
    #[error("{0}")]
    Pull(String),
    #[error("the sandbox image could not be made: {0}")]
    PauseImage(String),
    #[error("command did not end within {0:?}")]
    ExecTimeout(Duration),
}

/// A UUID as the API server writes it: the uid of a pod is a part of paths of the node.
pub fn is_uid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let hex = |part: &&str| part.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    lengths == [8, 4, 4, 4, 12] && parts.iter().all(hex)
}

#[cfg(test)]
mod tests {
    use super::is_uid;

    #[test]
    fn only_a_uuid_is_a_uid() {
        assert!(is_uid("0dbb31e4-11b1-4e4c-a01c-8a0ff5f5d3b7"));
        for text in [
            "",
            "..",
            "u1",
            "0dbb31e4-11b1-4e4c-a01c-8a0ff5f5d3b7/..",
            "0dbb31e4-11b1-4e4c-a01c-/../../etc/x",
            "0DBB31E4-11B1-4E4C-A01C-8A0FF5F5D3B7",
        ] {
            assert!(!is_uid(text), "{text:?}");
        }
    }
}
