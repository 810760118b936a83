//! `cargo xtask idle`: an exec that says nothing for an hour, by every kubectl of the machine and by
//! `orchestrator`, is still connected after it. All clients wait at the same time, each with its own exec.
//!
//! ```text
//! exec -i idle -- cat ─▶ "before" comes back ─▶ silence ─▶ "after" comes back ─▶ stdin ends, exit code 0
//! ```
//!
//! The last result of each client is in the repository, `tests/idle.txt`.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::{
    cluster::{Cluster, dev_dir, workspace},
    command,
    conformance::stamp,
    down, kubectl, machine,
    processes::wait_for,
    progress::Progress,
    up,
};

/// The cluster that is made when none is named; it goes after the run.
const OWN_CLUSTER: &str = "idle";
const RECORD: &str = "tests/idle.txt";
const HEAD: &str = "# An exec without a byte either way: client, minutes of silence, date and commit, result.\n\
                    # Written by `cargo xtask idle`.\n";
/// For an echo to come back, and for a client to end.
const ECHO_TIMEOUT: Duration = Duration::from_secs(30);
const READY_TIMEOUT: &str = "--timeout=120s";
const POD: &str = "idle";

#[derive(clap::Args)]
pub struct Arguments {
    /// How long nothing is said
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// A cluster that is up; without it, one of one node is made and taken down again
    #[arg(long)]
    cluster: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    machine::check_root("cargo xtask idle")?;
    let name = arguments.cluster.as_deref().unwrap_or(OWN_CLUSTER);
    if arguments.cluster.is_none() {
        up::run(name, Some(1), None, up::Profile::default())?;
    }
    let cluster = Cluster::load(name)?.with_context(|| format!("there is no cluster {name}"))?;
    let result = run_all(&cluster, Duration::from_secs(arguments.minutes * 60));
    if arguments.cluster.is_none() {
        down::run(name)?;
    }
    result
}

fn run_all(cluster: &Cluster, silence: Duration) -> Result<ExitCode> {
    // The commit of what runs, not that of an hour later.
    let stamp = stamp()?;
    let own = (
        "orchestrator".to_owned(),
        dev_dir().join("bin/orchestrator"),
    );
    let clients: Vec<_> = kubectl::all()?.into_iter().chain([own]).collect();
    let first = &clients[0].1;
    make_pod(cluster, first)?;
    let results = Progress::new().step("silence", |step| {
        step.note(format!("{} clients", clients.len()));
        Ok(sit_out(cluster, &clients, silence))
    })?;
    let minutes = silence.as_secs() / 60;
    let lines = results.iter().map(|(name, result)| {
        let outcome = match result {
            Ok(()) => "passed".to_owned(),
            Err(error) => format!("FAILED {error:#}").replace('\n', " "),
        };
        (name.clone(), format!("{minutes} | {stamp} | {outcome}"))
    });
    let lines: BTreeMap<String, String> = lines.collect();
    for (name, line) in &lines {
        println!("{name:<14} {line}");
    }
    let path = workspace().join(RECORD);
    let old = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, replaced(&old, lines)).with_context(|| path.display().to_string())?;
    kubectl_given(cluster, first, &["delete", "pod", POD, "--now"]).map(drop)?;
    let failed = results.iter().any(|(_, result)| result.is_err());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn kubectl_given(cluster: &Cluster, kubectl: &Path, words: &[&str]) -> Result<String> {
    let mut command = Command::new(kubectl);
    command.arg("--kubeconfig").arg(cluster.kubeconfig());
    command::output(command.args(words))
}

fn make_pod(cluster: &Cluster, kubectl: &Path) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "tools", "image": "tools", "imagePullPolicy": "IfNotPresent"}]},
    });
    let mut apply = Command::new(kubectl);
    apply.arg("--kubeconfig").arg(cluster.kubeconfig());
    command::with_input(apply.args(["apply", "-f", "-"]), pod.to_string().as_bytes())?;
    let ready = ["wait", "--for=condition=Ready", READY_TIMEOUT, "pod", POD];
    kubectl_given(cluster, kubectl, &ready).map(drop)
}

/// The outcome of each client.
fn sit_out(
    cluster: &Cluster,
    clients: &[(String, PathBuf)],
    silence: Duration,
) -> Vec<(String, Result<()>)> {
    let begun = clients.iter().map(|(name, program)| {
        let idle = Idle::start(cluster, program).and_then(|mut idle| {
            idle.echo("before")?;
            Ok(idle)
        });
        (name.clone(), idle)
    });
    let mut begun: Vec<_> = begun.collect();
    let start = Instant::now();
    // A run in which no client is left need not be waited for.
    wait_for(silence, || {
        begun.iter_mut().for_each(|(_, idle)| {
            if let Ok(one) = idle
                && let Some(error) = one.ended(start.elapsed())
            {
                *idle = Err(error);
            }
        });
        begun.iter().all(|(_, idle)| idle.is_err())
    });
    let ends = begun.into_iter().map(|(name, idle)| {
        let result = idle.and_then(|mut idle| {
            idle.echo("after")?;
            idle.finish()
        });
        (name, result)
    });
    ends.collect()
}

/// A client with its exec. It ends with this value.
struct Idle {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Idle {
    fn start(cluster: &Cluster, program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        // `orchestrator` has its options behind the verb.
        command
            .arg("exec")
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig());
        command.args(["-i", POD, "--", "cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the client")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("no output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            stdin,
            lines,
        })
    }

    fn echo(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin has ended")?;
        writeln!(stdin, "{text}").and_then(|()| stdin.flush())?;
        let line = self.lines.recv_timeout(ECHO_TIMEOUT);
        let line = line.with_context(|| format!("no echo of {text:?}"))?;
        ensure!(line == text, "{line:?} came back for {text:?}");
        Ok(())
    }

    fn ended(&mut self, after: Duration) -> Option<anyhow::Error> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(anyhow::anyhow!(
            "it ended after {} s: {status}",
            after.as_secs()
        ))
    }

    fn finish(mut self) -> Result<()> {
        drop(self.stdin.take());
        let mut status = None;
        wait_for(ECHO_TIMEOUT, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("it ended with {status}"),
            None => bail!("it does not end with its stdin"),
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The record with a line for each client of this run; clients that did not run keep theirs.
fn replaced(old: &str, mut lines: BTreeMap<String, String>) -> String {
    for line in old.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, rest)) = line.split_once(" | ") {
            lines.entry(name.to_owned()).or_insert(rest.to_owned());
        }
    }
    let rows = lines
        .iter()
        .map(|(name, rest)| format!("{name} | {rest}\n"));
    HEAD.to_owned() + &rows.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_replaces_the_lines_of_its_own_clients_only() {
        let lines = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let first = replaced(
            "",
            lines(&[("a", "60 | then | passed"), ("b", "60 | then | passed")]),
        );
        let second = replaced(&first, lines(&[("b", "1 | now | FAILED it ended")]));
        let rows = "a | 60 | then | passed\nb | 1 | now | FAILED it ended\n";
        assert_eq!(second, format!("{HEAD}{rows}"));
    }
}
