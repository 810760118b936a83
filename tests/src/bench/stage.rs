//! A dev cluster whose processes the bench starts and ends itself.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::config::Kubeconfig;
use kube::{Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cluster::Cluster;

/// How the processes are started; the same arguments as the supervisor's.
pub struct Stage {
    pub server: Value,
    pub agent: Value,
    pub dir: PathBuf,
}

/// A process of the stage, asked to end when dropped.
pub struct Process(Child);

impl Stage {
    /// The cluster keeps all that is around its processes, which end.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        let supervisor = Pid::from_raw(cluster.pid("dev")?);
        kill(supervisor, Signal::SIGTERM)?;
        crate::cluster::wait("the supervisor ends", || {
            Ok(kill(supervisor, None).is_err().then_some(()))
        });
        let mut processes = cluster.processes()?.into_iter();
        let (server, agent) = (processes.next(), processes.next());
        Ok(Self {
            server: server.context("no server")?,
            agent: agent.context("no agent")?,
            dir: cluster.dir().to_owned(),
        })
    }

    /// Nothing of a former round is left: no data, no container, no map.
    pub fn clear(&self) -> Result<()> {
        self.reset_node()?;
        for name in ["server", "agents"] {
            let dir = self.dir.join(name);
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
        }
        Ok(())
    }

    /// Containers, links and maps of the node go; its agent must not run.
    pub fn reset_node(&self) -> Result<()> {
        let status = self.command(&self.agent)?.arg("--reset").status()?;
        ensure!(status.success(), "the node cannot be reset");
        Ok(())
    }

    pub fn start(&self, process: &Value) -> Result<Process> {
        Ok(Process(self.command(process)?.spawn()?))
    }

    fn command(&self, process: &Value) -> Result<Command> {
        let program = process["program"].as_str().context("no program")?;
        let arguments = process["args"].as_array().context("no arguments")?;
        let mut command = match process["networkNamespace"].as_str() {
            Some(path) => {
                let mut nsenter = Command::new("nsenter");
                nsenter.arg(format!("--net={path}")).arg(program);
                nsenter
            }
            None => Command::new(program),
        };
        command.args(arguments.iter().filter_map(Value::as_str));
        let name = process["name"].as_str().unwrap_or("process");
        fs::create_dir_all(self.dir.join("log"))?;
        let log = fs::File::create(self.dir.join("log").join(format!("bench-{name}.log")))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(command)
    }

    pub fn namespace(&self) -> Result<&str> {
        self.agent["networkNamespace"]
            .as_str()
            .context("the agent has no namespace")
    }
}

impl Process {
    /// PSS and RSS in KiB.
    pub fn memory(&self) -> Result<[u64; 2]> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0.id()))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|l| l.split_whitespace().next()?.parse().ok())
                .context("no such field")
        };
        Ok([field("Pss:")?, field("Rss:")?])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A client of the administrator, once the server has written its file.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    while !kubeconfig.exists() {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(Client::try_from(
        Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?,
    )?)
}
