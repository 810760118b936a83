//! `orchestrator exec` and `orchestrator attach`

use anyhow::{Result, bail};
use clap::Args;

use super::pods::{self, ContainerArgs};
use super::{ClusterArgs, terminal};

/// What of the terminal a process in a container gets.
#[derive(Args)]
struct StreamArgs {
    /// Pass stdin to the process
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Stdin is a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// Only print what the process prints
    #[arg(long, short)]
    quiet: bool,
}

/// Run a command in a container
///
/// Examples:
///   orchestrator exec web -- ls -l /
///   orchestrator exec -it deploy/web -c app -- sh
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Exec {
    /// POD or TYPE/NAME
    pod: String,
    /// The command, after `--`
    #[arg(last = true, required = true)]
    command: Vec<String>,
    #[command(flatten)]
    streams: StreamArgs,
    #[command(flatten)]
    container: ContainerArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Exec {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        let pod = pods::find(&cluster, &self.pod).await?;
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") {
            bail!("cannot exec into a container in a completed pod; current phase is {phase}");
        }
        let container = self.container.choose(&pod)?;
        let wanted = terminal::wanted(container, self.streams.stdin, self.streams.tty);
        let name = api::meta::name(&pod).to_owned();
        let process = pods::api(&cluster, &pod);
        let process = process.exec(&name, self.command, &wanted).await;
        let process = process.map_err(|error| cluster.refused(error))?;
        terminal::converse(process, wanted.tty).await
    }
}

/// Attach to the process of a container
///
/// Examples:
///   orchestrator attach web
///   orchestrator attach -it web -c app
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Attach {
    /// POD or TYPE/NAME
    pod: String,
    #[command(flatten)]
    streams: StreamArgs,
    #[command(flatten)]
    container: ContainerArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Attach {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        let pod = pods::find(&cluster, &self.pod).await?;
        let container = self.container.choose(&pod)?;
        let lists = ["containers", "initContainers", "ephemeralContainers"];
        let all = lists.iter().filter_map(|list| pod["spec"][list].as_array());
        let template = all.flatten().find(|it| it["name"] == container.as_str());
        let has = |field: &str| template.is_some_and(|it| it[field] == true);
        let (mut stdin, mut tty) = (self.streams.stdin, self.streams.tty);
        if stdin && !has("stdin") {
            eprintln!("error: Unable to use stdin - container {container} did not ask for it");
            stdin = false;
        }
        if tty && !has("tty") {
            eprintln!("error: Unable to use a TTY - container {container} did not allocate one");
            tty = false;
        }
        let mut wanted = terminal::wanted(container, stdin, tty);
        // What a terminal writes comes as one stream.
        wanted.stderr = !has("tty");
        if !self.streams.quiet {
            eprintln!("If you don't see a command prompt, try pressing enter.");
        }
        let name = api::meta::name(&pod).to_owned();
        let process = pods::api(&cluster, &pod).attach(&name, &wanted).await;
        let process = process.map_err(|error| cluster.refused(error))?;
        terminal::converse(process, wanted.tty).await
    }
}
