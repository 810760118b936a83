//! The Docker Engine: the one that answers, or an instance of our own below `.dev/`.
//!
//! Ours is started without any network (pods get theirs from the agent), so it makes no bridge and
//! no packet filter rule.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cluster::{Cluster, dev_dir},
    command, packages,
    processes::{Process, wait_for},
};

/// The cgroup that holds every container of our own Engine, so that it can be removed. Each checkout has one: the
/// Engine of another one may run.
fn cgroup() -> String {
    format!("orchestrator-dev-{}", sum(&dev_dir()))
}

/// A short name of a path.
fn sum(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    let sum: u64 = bytes.fold(7, |h, b| h * 31 % 0xffff_fffb + u64::from(*b));
    format!("{sum:08x}")
}

/// An Engine that answers.
pub struct Engine {
    /// As DOCKER_HOST wants it.
    pub host: String,
    pub version: String,
}

impl Engine {
    /// The `docker` client, pointed at this Engine.
    pub fn client(&self) -> Command {
        client(&self.host)
    }

    /// True when this is the instance that `up` starts.
    pub fn is_ours(&self) -> bool {
        self.host == address(&Paths::new())
    }
}

/// Finds an Engine, or starts ours.
pub fn ensure() -> Result<Engine> {
    for host in candidates() {
        if let Some(engine) = ask(&host)? {
            return Ok(engine);
        }
    }
    packages::ensure(&[("dockerd", "docker.io"), ("docker", "docker.io")])?;
    // The package starts a system-wide Engine where systemd runs.
    match ask("unix:///var/run/docker.sock")? {
        Some(engine) => Ok(engine),
        None => start(&Paths::new()),
    }
}

/// The Engine that a cluster was made with, when it answers.
pub fn of(cluster: &Cluster) -> Option<Engine> {
    let known = (!cluster.docker_host.is_empty()).then(|| cluster.docker_host.clone());
    known.and_then(|host| ask(&host).ok().flatten())
}

/// Stops our own instance, if it runs, and removes the cgroups that it made.
pub fn stop() -> Result<()> {
    let paths = Paths::new();
    if let Some(process) = Process::from_pid_file(&paths.pid_file, "dockerd") {
        process.stop(Duration::from_secs(20))?;
    }
    for left in [&paths.pid_file, &paths.socket] {
        let _ = fs::remove_file(left);
    }
    let _ = fs::remove_dir_all(&paths.exec);
    for dir in cgroups_left() {
        remove_cgroup(&dir);
    }
    Ok(())
}

/// True while our own instance runs.
pub fn runs() -> bool {
    Process::from_pid_file(&Paths::new().pid_file, "dockerd").is_some()
}

/// The cgroups of our own Engine that exist, in every hierarchy.
pub fn cgroups_left() -> Vec<PathBuf> {
    let roots = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    roots
        .map(|entry| entry.path())
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .map(|root| root.join(cgroup()))
        .filter(|dir| dir.is_dir())
        .collect()
}

/// Where our own instance keeps its things.
struct Paths {
    data: PathBuf,
    exec: PathBuf,
    socket: PathBuf,
    pid_file: PathBuf,
    log: PathBuf,
}

impl Paths {
    fn new() -> Self {
        let dev = dev_dir();
        // A Unix socket's path has at most 107 bytes, and containerd puts its own below `exec`.
        let longest = dev.join("docker/exec/containerd/containerd-debug.sock.ttrpc");
        let short = if longest.as_os_str().len() < 104 {
            dev.clone()
        } else {
            PathBuf::from(format!("/run/orchestrator-{}", sum(&dev)))
        };
        Self {
            data: dev.join("docker/data"),
            exec: short.join("docker/exec"),
            socket: short.join("docker.sock"),
            pid_file: dev.join("docker/dockerd.pid"),
            log: dev.join("log/dockerd.log"),
        }
    }
}

fn candidates() -> Vec<String> {
    let named = std::env::var("DOCKER_HOST")
        .ok()
        .filter(|host| !host.is_empty());
    let system = "unix:///var/run/docker.sock".to_owned();
    named
        .into_iter()
        .chain([address(&Paths::new()), system])
        .collect()
}

fn address(paths: &Paths) -> String {
    format!("unix://{}", paths.socket.display())
}

/// None when nothing answers there; an error when what answers is too old.
fn ask(host: &str) -> Result<Option<Engine>> {
    if let Some(path) = host.strip_prefix("unix://")
        && !Path::new(path).exists()
    {
        return Ok(None);
    }
    let format = "{{.Server.Version}} {{.Server.APIVersion}}";
    let Ok(answer) = command::output(client(host).args(["version", "--format", format])) else {
        return Ok(None);
    };
    let mut words = answer.split_whitespace();
    let (version, api) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let minor: u32 = api
        .split('.')
        .nth(1)
        .and_then(|m| m.parse().ok())
        .unwrap_or(0);
    if minor < 41 {
        bail!(
            "the Docker Engine at {host} is {version} (API {api}), but 20.10 (API 1.41) or newer \
             is needed: upgrade it, or stop it and `up` starts its own"
        );
    }
    Ok(Some(Engine {
        host: host.to_owned(),
        version: version.to_owned(),
    }))
}

fn start(paths: &Paths) -> Result<Engine> {
    for dir in [&paths.data, &paths.exec] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::create_dir_all(dev_dir().join("log"))?;
    let log = File::create(&paths.log)?;
    let host = address(paths);
    let mut dockerd = Command::new("setsid");
    dockerd.arg("dockerd").arg("-H").arg(&host);
    dockerd
        .arg("--data-root")
        .arg(&paths.data)
        .arg("--exec-root")
        .arg(&paths.exec);
    dockerd
        .arg("--pidfile")
        .arg(&paths.pid_file)
        .arg(format!("--cgroup-parent=/{}", cgroup()));
    dockerd.args([
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
    ]);
    dockerd
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    dockerd.spawn().context("cannot start dockerd")?;
    let mut engine = None;
    wait_for(Duration::from_secs(60), || {
        engine = ask(&host).ok().flatten();
        engine.is_some()
    });
    engine.with_context(|| {
        format!(
            "dockerd does not answer at {host}; what it says is in {}",
            paths.log.display()
        )
    })
}

fn client(host: &str) -> Command {
    let mut docker = Command::new("docker");
    docker.env("DOCKER_HOST", host).env_remove("DOCKER_CONTEXT");
    docker
}

/// Children first; the kernel refuses to remove one that still holds a process.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
