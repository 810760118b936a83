//! A dev cluster of its own, made and removed by `cargo xtask`, and the clients to use it with.
//!
//! Its names begin with the cluster's, so it stands beside the developer's cluster. It goes when
//! the value is dropped, also by a panic. Nothing here knows how the orchestrator works inside.

use std::{
    fs,
    io::Write as _,
    mem::ManuallyDrop,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::netns::Netns;

pub struct Cluster {
    name: String,
    dir: PathBuf,
    docker_host: String,
    down: bool,
}

impl Cluster {
    /// Made anew: what an earlier run left goes first.
    pub fn up(name: &str, nodes: u8) -> Result<Self> {
        Self::up_with(name, nodes, &[])
    }

    /// The same with other options of `cargo xtask up`, `--ip-family ipv4` for one.
    pub fn up_with(name: &str, nodes: u8, options: &[&str]) -> Result<Self> {
        let dir = workspace().join(".dev/clusters").join(name);
        let mut cluster = Self {
            name: name.to_owned(),
            dir,
            docker_host: String::new(),
            down: false,
        };
        cluster.xtask(&["down"])?;
        let nodes = nodes.to_string();
        let mut arguments = vec!["up", "--nodes", &nodes];
        arguments.extend(options);
        if std::env::var_os("ORCHESTRATOR_E2E_DEBUG").is_some() {
            arguments.push("--debug");
        }
        cluster.xtask(&arguments)?;
        cluster.docker_host = cluster.record("docker_host")?;
        Ok(cluster)
    }

    /// `up` for a cluster that is there already.
    pub fn up_again(&self) -> Result<String> {
        self.xtask(&["up"])
    }

    /// Removes the cluster; an error names what is left of it.
    pub fn down(mut self) -> Result<()> {
        self.down = true;
        self.xtask(&["down"]).map(drop)
    }

    pub fn node(&self, number: u8) -> String {
        format!("{}-node-{number}", self.name)
    }

    /// The namespace of a node, or of `outside`, or of the switch; it stays when this is dropped.
    pub fn namespace(&self, what: &str) -> ManuallyDrop<Netns> {
        ManuallyDrop::new(Netns {
            name: format!("{}-{what}", self.name),
        })
    }

    /// Puts the thread that calls it into such a namespace.
    pub fn enter(&self, what: &str) -> impl FnOnce() + Send + 'static {
        let path = format!("/run/netns/{}", self.namespace(what).name);
        move || {
            let namespace = fs::File::open(&path).expect("the node has a namespace");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
        }
    }

    /// The same for the namespace of a pod, which is that of any of its containers.
    pub fn enter_pod(
        &self,
        pod: &str,
        container: &str,
    ) -> Result<impl FnOnce() + Send + 'static + use<>> {
        let id = self.container(pod, container)?;
        let pid = self.docker(&["inspect", "--format", "{{.State.Pid}}", &id])?;
        let path = format!("/proc/{}/ns/net", pid.trim());
        let namespace = fs::File::open(&path).context(path)?;
        Ok(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
        })
    }

    /// A process of the cluster: `dev`, the supervisor, and what it keeps: `server`, `node-1`.
    pub fn pid(&self, what: &str) -> Result<i32> {
        let node = what.starts_with("node-");
        let name = if node {
            format!("{}-{what}", self.name)
        } else {
            what.to_owned()
        };
        let file = self.dir.join("run").join(format!("{name}.pid"));
        let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
        let pid = text
            .split_whitespace()
            .next()
            .context("an empty pid file")?;
        Ok(pid.parse()?)
    }

    /// A client with this cluster's kubeconfig.
    pub fn kubectl(&self, program: &Path) -> Kubectl {
        Kubectl {
            program: program.to_owned(),
            kubeconfig: self.dir.join("kubeconfig"),
        }
    }

    /// The product's own client, which is the program that the cluster runs.
    pub fn orchestrator(&self) -> Result<Kubectl> {
        let processes = self.processes()?;
        let program = processes.iter().find_map(|it| it["program"].as_str());
        Ok(self.kubectl(Path::new(program.context("the cluster has no process")?)))
    }

    /// The newest kubectl of the machine.
    pub fn client(&self) -> Result<Kubectl> {
        let (_, program) = kubectls().pop().context("no kubectl is on this machine")?;
        Ok(self.kubectl(&program))
    }

    /// The `docker` client of the cluster's Engine.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.docker_command(arguments))
    }

    /// Where the cluster's Engine listens.
    pub fn docker_host(&self) -> &str {
        &self.docker_host
    }

    /// What `docker` runs.
    pub fn docker_command(&self, arguments: &[&str]) -> Command {
        let mut docker = Command::new("docker");
        docker.env("DOCKER_HOST", &self.docker_host).args(arguments);
        docker
    }

    /// What a node says of itself in numbers, asked with the administrator's certificate.
    pub fn metrics(&self, kubectl: &Kubectl, node: u8) -> Result<String> {
        let address = kubectl.field(
            &format!("node {}", self.node(node)),
            "/status/addresses/0/address",
        )?;
        let file = |field: &str| -> Result<String> {
            let path = format!("jsonpath={{{field}}}");
            let data = kubectl.run(&format!("config view --raw -o {path}"))?;
            let name = field.rsplit('.').next().unwrap_or_default();
            let file = self.dir.join(name);
            fs::write(&file, data)?;
            let decoded = output(Command::new("base64").arg("-d").arg(&file))?;
            fs::write(&file, decoded)?;
            Ok(file.to_string_lossy().into_owned())
        };
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--max-time", "10"])
            .args([
                "--cacert",
                &file(".clusters[0].cluster.certificate-authority-data")?,
            ])
            .args(["--cert", &file(".users[0].user.client-certificate-data")?])
            .args(["--key", &file(".users[0].user.client-key-data")?])
            .arg(format!("https://{address}:10250/metrics"));
        let namespace = self.namespace(&format!("node-{node}"));
        namespace.enter(|| output(&mut curl))
    }

    /// The running container of that name in that pod.
    pub fn container(&self, pod: &str, container: &str) -> Result<String> {
        let pod = format!("label=orchestrator.pod.name={pod}");
        let container = format!("label=orchestrator.container={container}");
        let id = self.docker(&[
            "ps",
            "-q",
            "--no-trunc",
            "--filter",
            &pod,
            "--filter",
            &container,
        ])?;
        Ok(id
            .lines()
            .next()
            .context("no such container runs")?
            .to_owned())
    }

    /// Every running container of its nodes with the time of its start, sorted. Other clusters may share the Engine.
    pub fn containers(&self) -> Result<Vec<String>> {
        let ids = self.docker(&[
            "ps",
            "-q",
            "--no-trunc",
            "--filter",
            "label=orchestrator.node",
        ])?;
        let mut inspect = vec![
            "inspect",
            "--format",
            "{{index .Config.Labels \"orchestrator.node\"}} {{.Id}} {{.Name}} {{.State.StartedAt}}",
        ];
        inspect.extend(ids.lines());
        let ours = format!("{}-node-", self.name);
        let listed = self.docker(&inspect)?;
        let lines = listed.lines().filter(|line| line.starts_with(&ours));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }

    /// What the supervisor runs: name, program, arguments, namespace of each process.
    pub fn processes(&self) -> Result<Vec<Value>> {
        let spec: Value = serde_json::from_slice(&fs::read(self.dir.join("dev.json"))?)?;
        Ok(spec["processes"].as_array().cloned().unwrap_or_default())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn record(&self, field: &str) -> Result<String> {
        let record: Value = serde_json::from_slice(&fs::read(self.dir.join("cluster.json"))?)?;
        Ok(record[field].as_str().unwrap_or_default().to_owned())
    }

    fn xtask(&self, arguments: &[&str]) -> Result<String> {
        let mut cargo = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()));
        cargo
            .current_dir(workspace())
            .args(["xtask"])
            .args(arguments);
        output(cargo.args(["--cluster", &self.name]))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.down {
            return;
        }
        if std::thread::panicking() {
            // What a person needs to see why, before it is gone.
            for entry in fs::read_dir(self.dir.join("log"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(30)..];
                eprintln!("== {}\n{}", entry.path().display(), tail.join("\n"));
            }
        }
        if let Err(error) = self.xtask(&["down"]) {
            eprintln!("{error:#}");
        }
    }
}

/// A client with commands as kubectl has them.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Words are split at blanks.
    pub fn run(&self, words: &str) -> Result<String> {
        self.args(&words.split_whitespace().collect::<Vec<_>>())
    }

    pub fn args(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(arguments))
    }

    /// What `args` runs. A client that hangs must not hang the test.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg("90").arg(&self.program).args(arguments);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs a verb on a file that says this: `apply`, `create`.
    pub fn given(&self, verb: &str, object: &Value) -> Result<String> {
        let mut file = tempfile::Builder::new().suffix(".json").tempfile()?;
        file.write_all(object.to_string().as_bytes())?;
        let path = file.path().to_string_lossy().into_owned();
        self.args(&[verb, "-f", &path])
    }

    /// What `get` finds, as JSON.
    pub fn json(&self, words: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.run(&format!("{words} -o json"))?,
        )?)
    }

    /// One field of one object, by JSON pointer.
    pub fn field(&self, what: &str, pointer: &str) -> Result<String> {
        let object = self.json(&format!("get {what}"))?;
        let field = object
            .pointer(pointer)
            .with_context(|| format!("{what} has no {pointer}"))?;
        Ok(field
            .as_str()
            .map_or_else(|| field.to_string(), str::to_owned))
    }

    /// Pods with this selector that are Ready and not on their way out.
    pub fn ready_pods(&self, selector: &str) -> Result<Vec<PodSeen>> {
        let list = self.json(&format!("get pods -l {selector}"))?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items.iter().filter_map(PodSeen::ready).collect())
    }
}

/// A Ready pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodSeen {
    pub name: String,
    pub node: String,
    pub address: Ipv4Addr,
}

impl PodSeen {
    fn ready(pod: &Value) -> Option<Self> {
        let conditions = pod["status"]["conditions"].as_array()?;
        let ready = conditions
            .iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        if !ready || !pod["metadata"]["deletionTimestamp"].is_null() {
            return None;
        }
        Some(Self {
            name: pod["metadata"]["name"].as_str()?.to_owned(),
            node: pod["spec"]["nodeName"].as_str()?.to_owned(),
            address: pod["status"]["podIP"].as_str()?.parse().ok()?,
        })
    }
}

/// The kubectls of this machine, by minor version, oldest first.
pub fn kubectls() -> Vec<(u32, PathBuf)> {
    let mut found = Vec::new();
    let debian = workspace().join(".dev/cache/kubernetes-client/kubectl-1.20");
    if debian.exists() {
        found.push((20, debian));
    }
    for dir in [
        "/usr/bin",
        "/usr/local/bin",
        "/usr/lib/google-cloud-sdk/bin",
    ] {
        for minor in 20..60 {
            let program = Path::new(dir).join(format!("kubectl.1.{minor}"));
            if program.exists() {
                found.push((minor, program));
            }
        }
    }
    found.sort();
    found.dedup_by_key(|(minor, _)| *minor);
    found
}

/// Waits until `condition` gives a value; the panic says what did not come, and the last reason.
#[track_caller]
pub fn wait<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> T {
    let started = Instant::now();
    loop {
        let last = match condition() {
            Ok(Some(value)) => return value,
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        assert!(started.elapsed() < PATIENCE, "{what}: {last}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

const PATIENCE: Duration = Duration::from_secs(90);

pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the workspace")
}

pub fn manifest(name: &str) -> String {
    workspace()
        .join("manifests")
        .join(name)
        .to_string_lossy()
        .into_owned()
}

/// Standard output; a failure says the command and what it wrote.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
