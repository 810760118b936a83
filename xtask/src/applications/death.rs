//! A node that dies as a machine does: its agent does nothing more, its containers are gone, its cable is dead.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cluster::Cluster,
    command, down,
    engine::Engine,
    processes::{Process, wait_for},
    underlay,
};

/// Seconds until a node that is back says that it is Ready.
const RETURN_TIMEOUT_S: u32 = 120;

/// A node between its death and its return.
pub struct Dead<'a> {
    cluster: &'a Cluster,
    node: String,
    number: u8,
    agent: Process,
}

impl<'a> Dead<'a> {
    /// The agent is stopped and not killed: its supervisor would start it again at once. Nothing of it runs
    /// until the return, which kills it.
    pub fn kill(cluster: &'a Cluster, engine: &Engine, node: &str) -> Result<Self> {
        let number = (1..=cluster.nodes).find(|number| cluster.node(*number) == node);
        let number = number.with_context(|| format!("{node} is no node of {}", cluster.name))?;
        let file = cluster.run_dir().join(format!("{node}.pid"));
        let agent = Process::from_pid_file(&file, "orchestrator");
        let agent = agent.with_context(|| format!("the agent of {node} does not run"))?;
        kill(Pid::from_raw(agent.pid()), Signal::SIGSTOP).context("cannot stop the agent")?;
        underlay::plug(cluster, number, false)?;
        let containers = down::containers_of(engine, &[node.to_owned()])?;
        let mut remove: Command = engine.client();
        remove.arg("kill").args(&containers);
        // Some have ended before, and the Engine complains of them.
        let _ = command::output(&mut remove);
        Ok(Self {
            cluster,
            node: node.to_owned(),
            number,
            agent,
        })
    }

    /// The machine starts again: a new agent finds what the old one left. Returns when the node is Ready.
    pub fn revive(self, kubeconfig: &Path) -> Result<()> {
        underlay::plug(self.cluster, self.number, true)?;
        kill(Pid::from_raw(self.agent.pid()), Signal::SIGKILL).context("cannot end the agent")?;
        let gone = wait_for(Duration::from_secs(10), || !self.agent.alive());
        ensure!(gone, "the agent of {} does not end", self.node);
        let file = self.cluster.run_dir().join(format!("{}.pid", self.node));
        let again = || Process::from_pid_file(&file, "orchestrator").is_some();
        ensure!(
            wait_for(Duration::from_secs(30), again),
            "the supervisor does not start the agent of {}",
            self.node
        );
        let mut wait = Command::new("kubectl");
        wait.arg("--kubeconfig").arg(kubeconfig);
        wait.args(["wait", "--for=condition=Ready"]);
        wait.arg(format!("--timeout={RETURN_TIMEOUT_S}s"));
        command::output(wait.arg(format!("node/{}", self.node))).map(drop)
    }
}
