//! `orchestrator logs`

use anyhow::{Result, bail};
use clap::Args;
use futures::AsyncReadExt;
use std::io::Write;

use super::{ClusterArgs, cluster};

/// Print what a container wrote
///
/// Examples:
///   orchestrator logs web
///   orchestrator logs -f redis-django -c frontend --tail=20
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Logs {
    /// POD or TYPE/NAME of a pod
    pod: String,
    /// Which container, if the pod has several
    #[arg(long, short)]
    container: Option<String>,
    /// Go on as more is written
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines
    #[arg(long)]
    tail: Option<u64>,
    /// Only what is younger than this many seconds
    #[arg(long)]
    since_seconds: Option<u64>,
    /// The container's previous run
    #[arg(long, short)]
    previous: bool,
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Logs {
    pub async fn run(self) -> Result<()> {
        let pods = cluster::resource("pods")?;
        let name = match self.pod.split_once('/') {
            None => self.pod.as_str(),
            Some((kind, name)) if cluster::resource(kind)?.kind == "Pod" => name,
            Some((kind, _)) => bail!("logs are those of a pod, not of a {kind}"),
        };
        let cluster = self.cluster.connect().await?;
        let mut options = vec![
            format!("follow={}", self.follow),
            format!("previous={}", self.previous),
            format!("timestamps={}", self.timestamps),
        ];
        options.extend(self.container.map(|c| format!("container={c}")));
        options.extend(self.tail.map(|n| format!("tailLines={n}")));
        options.extend(self.since_seconds.map(|n| format!("sinceSeconds={n}")));
        let path = format!(
            "{}/log?{}",
            cluster.path(pods, Some(name)),
            options.join("&")
        );
        let mut log = Box::pin(cluster.lines(&path, "*/*").await?);
        let mut buffer = vec![0; 16 * 1024];
        let mut out = std::io::stdout();
        loop {
            let read = log.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            out.write_all(&buffer[..read])?;
            out.flush()?;
        }
    }
}
