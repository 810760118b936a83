//! `cargo xtask down`: everything that `up` made goes, and what stays after all is named.
//!
//! It ends only processes whose pid file and command line both say that they are ours, and removes
//! only namespaces, links, pins and containers that carry the cluster's names.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cluster::{Cluster, DEFAULT, IpFamily, dev_dir},
    command,
    engine::{self, Engine},
    machine,
    processes::{self, Process},
    progress::Progress,
    underlay,
};

const PINS: &str = "/sys/fs/bpf/orchestrator";
const SOCKETS: &str = "/run/orchestrator";

/// The agent marks every container with the node that it belongs to.
const NODE_LABEL: &str = "orchestrator.node";

pub fn run(name: &str) -> Result<()> {
    machine::check_root("cargo xtask down")?;
    let progress = Progress::new();
    let cluster = match Cluster::load(name)? {
        Some(cluster) => cluster,
        None => Cluster::new(name, 0, 3, IpFamily::default())?,
    };
    progress.step("server and agents", |step| {
        let ended = stop_processes(&cluster)?;
        step.note(format!("{ended} ended"));
        Ok(())
    })?;
    progress.step("containers", |step| {
        step.note(format!("{} removed", remove_containers(&cluster)?));
        Ok(())
    })?;
    progress.step("datapath", |_| remove_pins(&cluster))?;
    progress.step("namespaces and links", |_| underlay::remove(&cluster))?;
    let others = Cluster::all()
        .iter()
        .any(|other| other.name != cluster.name);
    if !others {
        progress.step("container engine", |_| engine::stop())?;
    }
    progress.step("state", |_| remove_state(&cluster, others))?;
    let left = leftovers(&cluster, others)?;
    if !left.is_empty() {
        bail!(
            "this is left and could not be removed:\n  {}",
            left.join("\n  ")
        );
    }
    println!(
        "\nNothing is left. Logs stay in {}.",
        cluster.log_dir().display()
    );
    Ok(())
}

fn stop_processes(cluster: &Cluster) -> Result<usize> {
    let mut ended = 0;
    let run_dir = cluster.run_dir();
    // The supervisor first: it ends the others in order and starts none again.
    let supervisor = run_dir.join("dev.pid");
    let files = fs::read_dir(&run_dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let rest: Vec<PathBuf> = files.filter(|path| *path != supervisor).collect();
    let children = rest
        .iter()
        .filter_map(|f| Process::from_pid_file(f, "orchestrator"))
        .count();
    if let Some(process) = Process::from_pid_file(&supervisor, "orchestrator") {
        process.stop(Duration::from_secs(60))?;
        ended += 1 + children;
    }
    for file in &rest {
        if let Some(process) = Process::from_pid_file(file, "orchestrator") {
            process.stop(Duration::from_secs(15))?;
            ended += 1;
        }
    }
    Ok(ended)
}

fn remove_containers(cluster: &Cluster) -> Result<usize> {
    let Some(engine) = engine::of(cluster) else {
        return Ok(0);
    };
    let containers = containers(cluster)?;
    if !containers.is_empty() {
        let mut remove = engine.client();
        remove
            .args(["rm", "--force", "--volumes"])
            .args(&containers);
        command::output(&mut remove)?;
    }
    Ok(containers.len())
}

/// The identifiers of all containers of the cluster's nodes, running or not.
fn containers(cluster: &Cluster) -> Result<Vec<String>> {
    let Some(engine) = engine::of(cluster) else {
        return Ok(Vec::new());
    };
    containers_of(&engine, &cluster.node_names())
}

/// The same of these nodes.
pub fn containers_of(engine: &Engine, nodes: &[String]) -> Result<Vec<String>> {
    let format = format!("{{{{.ID}}}} {{{{.Label \"{NODE_LABEL}\"}}}}");
    let filter = format!("label={NODE_LABEL}");
    let mut list: Command = engine.client();
    list.args([
        "ps",
        "--all",
        "--no-trunc",
        "--filter",
        &filter,
        "--format",
        &format,
    ]);
    Ok(command::output(&mut list)?
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, node)| nodes.iter().any(|n| n == node))
        .map(|(id, _)| id.to_owned())
        .collect())
}

/// Links and programs go with their pins: nobody holds them any more.
fn remove_pins(cluster: &Cluster) -> Result<()> {
    for pin in pins(cluster) {
        fs::remove_dir_all(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
    }
    for node in cluster.node_names() {
        // An agent that was killed leaves its socket.
        // Without the last two, the processes end that hold the sockets of the node's DNS.
        for kind in ["drops", "names4", "names6"] {
            let _ = fs::remove_file(PathBuf::from(SOCKETS).join(format!("{node}.{kind}")));
        }
    }
    // They stay when another cluster's nodes are below them.
    let _ = fs::remove_dir(PINS);
    let _ = fs::remove_dir(SOCKETS);
    Ok(())
}

fn pins(cluster: &Cluster) -> Vec<PathBuf> {
    let nodes = cluster.node_names();
    nodes
        .iter()
        .map(|node| PathBuf::from(PINS).join(node))
        .filter(|dir| dir.exists())
        .collect()
}

/// The data of server and agents, and what `up` wrote. Logs and caches stay.
fn remove_state(cluster: &Cluster, others: bool) -> Result<()> {
    let dir = cluster.dir();
    detach_mounts(&dir)?;
    for name in ["server", "servers", "agents", "run"] {
        match fs::remove_dir_all(dir.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e)
                    .with_context(|| format!("cannot remove {}", dir.join(name).display()));
            }
            _ => {}
        }
    }
    if cluster.mounted_bpffs && !others && machine::bpffs_is_unused() {
        let _ = command::run("umount", ["/sys/fs/bpf"]);
    }
    for name in ["kubeconfig", "env", "dev.json", "cluster.json"] {
        let _ = fs::remove_file(dir.join(name));
    }
    Ok(())
}

/// What agents mounted for pods that were there to the end, the newest mount first.
fn detach_mounts(dir: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    let points = table
        .lines()
        .rev()
        .filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| Path::new(point).starts_with(dir)) {
        command::run("umount", ["--lazy", point])?;
    }
    Ok(())
}

/// What a cluster that is down must not have, each as a line for a person.
pub fn leftovers(cluster: &Cluster, others: bool) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let data = format!("{}/", cluster.dir().display());
    let mut words = vec!["orchestrator", data.as_str()];
    if cluster.name == DEFAULT {
        words.push("/.dev/server");
    }
    for pid in processes::with_command_line(&words) {
        let line = processes::command_line(pid).unwrap_or_default();
        left.push(format!("process {pid}: {line}"));
    }
    left.extend(
        underlay::left(cluster)?
            .iter()
            .map(|name| format!("namespace {name}")),
    );
    if underlay::link_exists(&cluster.root_link()) {
        left.push(format!("link {}", cluster.root_link()));
    }
    left.extend(
        pins(cluster)
            .iter()
            .map(|pin| format!("pin {}", pin.display())),
    );
    left.extend(
        containers(cluster)?
            .iter()
            .map(|id| format!("container {id}")),
    );
    if !others {
        left.extend(
            engine::cgroups_left()
                .iter()
                .map(|dir| format!("cgroup {}", dir.display())),
        );
        if engine::runs() {
            left.push(format!("the Docker Engine of {}", dev_dir().display()));
        }
    }
    Ok(left)
}
