//! `orchestrator dev`: one supervisor for the server and the agents of a dev cluster.
//!
//! It reads which processes there are from a file that `cargo xtask up` writes, starts each in its
//! network namespace (the mount namespace stays: an agent needs the machine's own /sys), starts one
//! that dies again, and stops them in order. What it left running when it was killed itself, its
//! successor adopts. It knows nothing of what the processes do.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args as ClapArgs, Subcommand};
use futures::{StreamExt as _, future::join_all};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, Config, config::Kubeconfig, runtime::watcher};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Supervise the server and the agents of a dev cluster (started by `cargo xtask up`)
#[derive(ClapArgs)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// The file that names the processes
    #[arg(long, value_name = "FILE", required = true)]
    spec: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<DevCommand>,
}

#[derive(Subcommand)]
enum DevCommand {
    /// Return when all of these nodes are Ready
    Wait {
        #[arg(long)]
        kubeconfig: PathBuf,
        /// Give up after so many seconds
        #[arg(long, default_value_t = 60)]
        timeout_s: u64,
        nodes: Vec<String>,
    },
}

pub fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match (args.command, args.spec) {
            (
                Some(DevCommand::Wait {
                    kubeconfig,
                    timeout_s,
                    nodes,
                }),
                _,
            ) => wait_ready(&kubeconfig, nodes, Duration::from_secs(timeout_s)).await,
            (None, Some(spec)) => supervise_all(Spec::read(&spec)?).await,
            (None, None) => bail!("name the file of the processes: --spec FILE"),
        }
    })
}

/// What to run; written by `cargo xtask up`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    run_dir: PathBuf,
    log_dir: PathBuf,
    /// In the order of starting; those that wait for a file are stopped first.
    processes: Vec<ProcessSpec>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProcessSpec {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    /// The network namespace to start in; that of the supervisor when absent.
    network_namespace: Option<PathBuf>,
    /// Starts only when this file exists.
    after_file: Option<PathBuf>,
}

impl Spec {
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{} does not say what to run", path.display()))
    }
}

async fn supervise_all(spec: Spec) -> Result<()> {
    for dir in [&spec.run_dir, &spec.log_dir] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let own = spec.run_dir.join("dev.pid");
    if let Some(other) = running(&own) {
        bail!(
            "process {other} supervises this cluster already ({})",
            own.display()
        );
    }
    write_pid(&own, std::process::id())?;
    let mut ends = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ];
    let mut hangup = signal(SignalKind::hangup())?;

    // First those that wait for another, then the others.
    let (stop_first, stop_last) = (CancellationToken::new(), CancellationToken::new());
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for process in &spec.processes {
        let dependent = process.after_file.is_some();
        let stop = if dependent {
            stop_first.clone()
        } else {
            stop_last.clone()
        };
        let worker = Worker {
            pid_file: spec.run_dir.join(format!("{}.pid", process.name)),
            log_file: spec.log_dir.join(format!("{}.log", process.name)),
            process: process.clone(),
            stop,
        };
        let task = tokio::spawn(worker.run());
        if dependent {
            first.push(task)
        } else {
            last.push(task)
        }
    }
    let [terminate, interrupt] = &mut ends;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // The terminal that `up` ran in may close; the cluster stays.
            _ = hangup.recv() => {}
        }
    }
    stop_first.cancel();
    join_all(first).await;
    stop_last.cancel();
    join_all(last).await;
    fs::remove_file(&own).with_context(|| format!("cannot remove {}", own.display()))
}

/// Keeps one process running until told to stop.
struct Worker {
    process: ProcessSpec,
    pid_file: PathBuf,
    log_file: PathBuf,
    stop: CancellationToken,
}

/// A process that ran so long did not fail at once: the next failure is restarted at once too.
const HEALTHY: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// How long a process may take to end in order.
const PATIENCE: Duration = Duration::from_secs(15);

impl Worker {
    async fn run(mut self) {
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let started = Instant::now();
            match self.run_once().await {
                Ok(how) if self.stop.is_cancelled() => eprintln!("{}: {how}", self.process.name),
                Ok(how) => eprintln!("{}: {how}; starting it again", self.process.name),
                Err(error) => eprintln!("{}: {error:#}", self.process.name),
            }
            failures = if started.elapsed() > HEALTHY {
                1
            } else {
                failures + 1
            };
            tokio::select! {
                () = sleep(backoff(failures)) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// From start (or adoption) to end of the process; says how it ended.
    async fn run_once(&mut self) -> Result<String> {
        if let Some(pid) = running(&self.pid_file) {
            if command_line(pid) == self.expected_command_line() {
                eprintln!("{}: adopted process {pid}", self.process.name);
                return self.guard_adopted(pid).await;
            }
            end(pid).await;
        }
        if !self.wait_for_file().await {
            return Ok("not started".into());
        }
        let mut child = self.spawn()?;
        let pid = child.id().context("the process ended at once")?;
        write_pid(&self.pid_file, pid)?;
        eprintln!("{}: started process {pid}", self.process.name);
        let status = tokio::select! {
            status = child.wait() => status?,
            () = self.stop.cancelled() => {
                end(pid as i32).await;
                child.wait().await?
            }
        };
        let _ = fs::remove_file(&self.pid_file);
        Ok(format!("process {pid} ended ({status})"))
    }

    /// A process that is no child of ours cannot be waited for, only watched.
    async fn guard_adopted(&self, pid: i32) -> Result<String> {
        tokio::select! {
            () = gone(pid) => {}
            () = self.stop.cancelled() => end(pid).await,
        }
        let _ = fs::remove_file(&self.pid_file);
        Ok(format!("process {pid} ended"))
    }

    /// False when it was told to stop before the file was there.
    async fn wait_for_file(&self) -> bool {
        let Some(file) = &self.process.after_file else {
            return true;
        };
        while !file.exists() {
            if self.stop.is_cancelled() {
                return false;
            }
            sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Only a thread of its own may change its namespace and give it to the child.
    fn spawn(&self) -> Result<Child> {
        let log = open_log(&self.log_file)?;
        let mut command = Command::new(&self.process.program);
        command.args(&self.process.args).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        // A ^C at the supervisor's terminal must not reach the child past the order of stopping.
        command.process_group(0);
        let namespace = self.process.network_namespace.clone();
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::spawn(move || -> Result<Child> {
            let _entered = runtime.enter();
            if let Some(path) = namespace {
                let file = File::open(&path)
                    .with_context(|| format!("no network namespace {}", path.display()))?;
                setns(file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter {}", path.display()))?;
            }
            let program = command.get_program().to_owned();
            tokio::process::Command::from(command)
                .spawn()
                .with_context(|| format!("cannot start {}", program.display()))
        });
        thread
            .join()
            .map_err(|_| anyhow!("the thread that starts the process panicked"))?
    }

    fn expected_command_line(&self) -> Vec<String> {
        let program = self.process.program.to_string_lossy().into_owned();
        [program]
            .into_iter()
            .chain(self.process.args.iter().cloned())
            .collect()
    }
}

const POLL: Duration = Duration::from_millis(50);

/// Nothing, then 1, 2, 4 … seconds.
fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => MAX_BACKOFF.min(Duration::from_secs(1 << (n - 2).min(10))),
    }
}

/// SIGTERM, then SIGKILL when the patience is over.
async fn end(pid: i32) {
    // An error means that the process is gone already, which is what is wanted.
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    if timeout(PATIENCE, gone(pid)).await.is_err() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        let _ = timeout(PATIENCE, gone(pid)).await;
    }
}

async fn gone(pid: i32) {
    while alive(pid) {
        sleep(POLL).await;
    }
}

fn open_log(path: &Path) -> Result<File> {
    const LARGE: u64 = 32 << 20;
    if fs::metadata(path).is_ok_and(|found| found.len() > LARGE) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// `<pid> <start time>`: numbers are reused, the pair is not. `cargo xtask down` reads it too.
fn write_pid(path: &Path, pid: u32) -> Result<()> {
    let started = start_time(pid as i32).context("the process ended at once")?;
    fs::write(path, format!("{pid} {started}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The process of a pid file, while it runs.
fn running(pid_file: &Path) -> Option<i32> {
    let text = fs::read_to_string(pid_file).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let (pid, started) = (pid.parse().ok()?, started.parse().ok()?);
    (start_time(pid) == Some(started)).then_some(pid)
}

fn alive(pid: i32) -> bool {
    start_time(pid).is_some()
}

/// None for a process that is gone or waits only for its parent to notice.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    (fields.next()? != "Z").then_some(())?;
    fields.nth(18)?.parse().ok()
}

fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes
        .split(|b| *b == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words: Vec<String> = words.collect();
    words.pop();
    words
}

async fn wait_ready(kubeconfig: &Path, nodes: Vec<String>, patience: Duration) -> Result<()> {
    let mut missing: BTreeMap<String, String> = nodes
        .into_iter()
        .map(|name| (name, "has not registered".to_owned()))
        .collect();
    let result = timeout(patience, watch_nodes(kubeconfig, &mut missing)).await;
    if let Ok(result) = result {
        return result;
    }
    let why: Vec<String> = missing
        .iter()
        .map(|(name, why)| format!("{name} {why}"))
        .collect();
    bail!("after {} s: {}", patience.as_secs(), why.join("; "))
}

/// Returns when `missing` is empty.
async fn watch_nodes(kubeconfig: &Path, missing: &mut BTreeMap<String, String>) -> Result<()> {
    while !kubeconfig.exists() {
        sleep(POLL).await;
    }
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    let nodes: Api<Node> = Api::all(Client::try_from(config)?);
    // The server may still be starting; a watcher would take long steps between its attempts.
    while nodes.list_metadata(&Default::default()).await.is_err() {
        sleep(POLL).await;
    }
    let mut events = std::pin::pin!(watcher(nodes, watcher::Config::default()));
    while !missing.is_empty() {
        let Some(event) = events.next().await else {
            bail!("the server ended the watch")
        };
        let node = match event {
            Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => node,
            Ok(_) => continue,
            Err(_) => {
                sleep(POLL).await;
                continue;
            }
        };
        let name = node.metadata.name.clone().unwrap_or_default();
        let conditions = node.status.and_then(|s| s.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|c| c.type_ == "Ready");
        match ready {
            Some(condition) if condition.status == "True" => drop(missing.remove(&name)),
            other => {
                let why = other
                    .and_then(|c| c.message)
                    .unwrap_or("says nothing".into());
                missing
                    .entry(name)
                    .and_modify(|e| *e = format!("is not ready: {why}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_the_others_wait_longer_and_longer() {
        let seconds: Vec<u64> = (1..9).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff(u32::MAX), MAX_BACKOFF);
    }

    #[test]
    fn a_pid_file_of_another_process_with_the_same_number_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.pid");
        write_pid(&file, std::process::id()).unwrap();
        assert_eq!(running(&file), Some(std::process::id() as i32));
        fs::write(&file, format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(running(&file), None);
    }

    fn worker(dir: &Path, line: &[&str], stop: CancellationToken) -> Worker {
        Worker {
            process: ProcessSpec {
                name: "test".into(),
                program: line[0].into(),
                args: line[1..].iter().map(|a| (*a).to_owned()).collect(),
                network_namespace: None,
                after_file: None,
            },
            pid_file: dir.join("test.pid"),
            log_file: dir.join("test.log"),
            stop,
        }
    }

    #[tokio::test]
    async fn a_process_that_dies_is_started_again_and_all_end_when_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let script = format!("echo >> {0}/starts; exec sleep 1000", dir.path().display());
        let task =
            tokio::spawn(worker(dir.path(), &["/bin/sh", "-c", &script], stop.clone()).run());
        let pid_file = dir.path().join("test.pid");
        let starts = || fs::read(dir.path().join("starts")).map_or(0, |bytes| bytes.len());
        until(|| (starts() == 1).then_some(())).await;
        let first = until(|| running(&pid_file)).await;
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        let second = until(|| running(&pid_file).filter(|pid| *pid != first)).await;
        until(|| (starts() == 2).then_some(())).await;
        stop.cancel();
        task.await.unwrap();
        assert!(!alive(second));
        assert!(!pid_file.exists());
    }

    #[tokio::test]
    async fn a_process_that_a_former_supervisor_left_is_adopted() {
        let dir = tempfile::tempdir().unwrap();
        let mut orphan = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        // The parent goes on a moment before the kernel has set the child's command line.
        until(|| (!command_line(orphan.id() as i32).is_empty()).then_some(())).await;
        write_pid(&dir.path().join("test.pid"), orphan.id()).unwrap();
        let stop = CancellationToken::new();
        let mut worker = worker(dir.path(), &["sleep", "1000"], stop.clone());
        let task = tokio::spawn(async move { worker.run_once().await });
        // One turn of the only thread takes the worker to where it watches the orphan.
        tokio::task::yield_now().await;
        stop.cancel();
        let how = task.await.unwrap().unwrap();
        assert_eq!(how, format!("process {} ended", orphan.id()));
        assert!(!orphan.wait().unwrap().success());
    }

    async fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
        timeout(Duration::from_secs(10), async {
            loop {
                if let Some(found) = condition() {
                    return found;
                }
                sleep(POLL).await;
            }
        })
        .await
        .expect("the condition within ten seconds")
    }
}
