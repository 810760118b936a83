//! `orchestrator logs`

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use futures::{AsyncBufReadExt as _, AsyncReadExt as _};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::pods::{self, ContainerArgs};
use super::{ClusterArgs, cluster};
use crate::cli::duration;

/// The longest line of several logs that is written in one piece.
const LINE_BYTES: usize = 256 * 1024;
/// Lines of each pod that a selector finds, unless more are asked for.
const SELECTED_LINES: i64 = 10;

/// Print what a container wrote
///
/// Examples:
///   orchestrator logs web
///   orchestrator logs -f deploy/web -c frontend --tail=20
///   orchestrator logs -l app=web --all-containers --prefix --since=5m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Logs {
    /// POD or TYPE/NAME
    #[arg(required_unless_present = "selector", conflicts_with = "selector")]
    pod: Option<String>,
    /// The pods with these labels
    #[arg(long, short = 'l')]
    selector: Option<String>,
    #[command(flatten)]
    container: ContainerArgs,
    /// Of all containers
    #[arg(long, conflicts_with = "container")]
    all_containers: bool,
    /// Say before each line whose it is
    #[arg(long)]
    prefix: bool,
    /// Go on as more is written
    #[arg(long, short)]
    follow: bool,
    /// How many logs may be followed at once
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
    /// Only the last lines; all with -1
    #[arg(long, allow_hyphen_values = true)]
    tail: Option<i64>,
    /// Only what is younger: 5s, 2m, 3h
    #[arg(long, value_parser = duration::parse)]
    since: Option<Duration>,
    /// Only what is younger than this time (RFC 3339)
    #[arg(long, conflicts_with = "since")]
    since_time: Option<String>,
    /// Only what is younger than this many seconds
    #[arg(long, conflicts_with_all = ["since", "since_time"])]
    since_seconds: Option<u64>,
    /// At most so many bytes
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// The container's previous run
    #[arg(long, short)]
    previous: bool,
    /// A time before each line
    #[arg(long)]
    timestamps: bool,
    /// Go on where one of several logs cannot be read
    #[arg(long)]
    ignore_errors: bool,
    /// For kubectl's sake: nodes are always known by their certificates
    #[arg(long, hide = true)]
    insecure_skip_tls_verify_backend: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// One container's log.
struct Source {
    path: String,
    prefix: String,
}

impl Logs {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        let pods = match (&self.pod, &self.selector) {
            (Some(pod), _) => vec![pods::find(&cluster, pod).await?],
            (None, selector) => {
                pods::of_selector(&cluster, selector.as_deref().unwrap_or_default()).await?
            }
        };
        let mut sources = Vec::new();
        for pod in &pods {
            let names = match self.all_containers {
                true => pods::names(pod),
                false => vec![self.container.choose(pod)?],
            };
            for name in names {
                sources.push(self.source(pod, &name)?);
            }
        }
        if let ([only], false) = (sources.as_slice(), self.prefix) {
            return whole(&cluster, &only.path).await;
        }
        if self.follow && sources.len() > self.max_log_requests {
            bail!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, \
                 use --max-log-requests to increase the limit",
                sources.len(),
                self.max_log_requests
            );
        }
        match self.follow {
            true => self.together(cluster, sources).await,
            false => self.in_order(&cluster, sources).await,
        }
    }

    fn source(&self, pod: &Value, container: &str) -> Result<Source> {
        let (name, pods) = (api::meta::name(pod), cluster::resource("pods")?);
        let mut options = vec![format!("container={container}")];
        for (name, is_set) in [
            ("follow", self.follow),
            ("previous", self.previous),
            ("timestamps", self.timestamps),
        ] {
            options.extend(is_set.then(|| format!("{name}=true")));
        }
        let default = self.selector.is_some() && !self.follow;
        let tail = self.tail.or(default.then_some(SELECTED_LINES));
        options.extend(tail.filter(|n| *n != -1).map(|n| format!("tailLines={n}")));
        let since = self.since.map(|since| since.as_secs().max(1));
        let since = since.or(self.since_seconds);
        options.extend(since.map(|n| format!("sinceSeconds={n}")));
        let time = self.since_time.as_deref();
        options.extend(time.map(|time| format!("sinceTime={}", cluster::query(time))));
        options.extend(self.limit_bytes.map(|n| format!("limitBytes={n}")));
        let prefix = match self.prefix {
            true => format!("[pod/{name}/{container}] "),
            false => String::new(),
        };
        let path = format!(
            "{}/log?{}",
            cluster::path(pods, pod["metadata"]["namespace"].as_str(), Some(name)),
            options.join("&")
        );
        Ok(Source { path, prefix })
    }

    async fn in_order(&self, cluster: &Cluster, sources: Vec<Source>) -> Result<()> {
        for source in &sources {
            let copied = lines(cluster, source).await;
            self.tolerate(copied)?;
        }
        Ok(())
    }

    async fn together(&self, cluster: Cluster, sources: Vec<Source>) -> Result<()> {
        let cluster = std::sync::Arc::new(cluster);
        let mut tasks = JoinSet::new();
        for source in sources {
            let cluster = cluster.clone();
            tasks.spawn(async move { lines(&cluster, &source).await });
        }
        while let Some(copied) = tasks.join_next().await {
            self.tolerate(copied?)?;
        }
        Ok(())
    }

    fn tolerate(&self, copied: Result<()>) -> Result<()> {
        match copied {
            Err(error) if self.ignore_errors => {
                eprintln!("error: {error:#}");
                Ok(())
            }
            copied => copied,
        }
    }
}

/// A log as it is, byte by byte.
async fn whole(cluster: &Cluster, path: &str) -> Result<()> {
    let mut log = Box::pin(cluster.lines(path, "*/*").await?);
    let mut buffer = vec![0; 16 * 1024];
    let mut out = tokio::io::stdout();
    loop {
        let read = log.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        out.write_all(&buffer[..read]).await?;
        out.flush().await?;
    }
}

/// A log line by line, so that lines of several do not mix.
async fn lines(cluster: &Cluster, source: &Source) -> Result<()> {
    let mut log = Box::pin(cluster.lines(&source.path, "*/*").await?);
    let mut line = source.prefix.as_bytes().to_vec();
    loop {
        let piece = log.fill_buf().await?;
        if piece.is_empty() {
            break;
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(piece.len(), |end| end + 1);
        line.extend_from_slice(&piece[..length]);
        log.consume_unpin(length);
        if end.is_some() || line.len() > LINE_BYTES {
            print(&line).await?;
            line.clear();
            if end.is_some() {
                line.extend_from_slice(source.prefix.as_bytes());
            }
        }
    }
    match line.len() > source.prefix.len() {
        true => print(&line).await,
        false => Ok(()),
    }
}

async fn print(line: &[u8]) -> Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(line).await?;
    Ok(out.flush().await?)
}
