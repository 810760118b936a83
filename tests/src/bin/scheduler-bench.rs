//! `cargo xtask bench scheduler`: pods a second that get a node, over HTTP with fsync, at nodes without agents;
//! a real kube-scheduler does the same on the same API server.
//!
//! The pods wait before the scheduler starts, so what is measured is the scheduler and what it asks of the API.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::json;
use sys::descriptors;
use tests::api_load::side::{self, Beside, Kind, Side};
use tests::cluster::workspace;
use tests::scheduler_load::{self, Outcome, WORKLOADS, Workload};

const NODES: usize = 5000;
const ROUNDS: usize = 1;

/// What the command line says.
struct Plan {
    nodes: usize,
    rounds: usize,
    only: Option<String>,
    peer: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        // The same program is the server: nothing else has to be built.
        Some("server") => {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            return orchestrator::cli::main();
        }
        Some("exec") => side::become_program(&arguments[1..]),
        _ => plan(&arguments).and_then(|plan| run(&plan)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[String]) -> Result<Plan> {
    let value = |name: &str| {
        let start = format!("{name}=");
        arguments.iter().find_map(|it| it.strip_prefix(&start))
    };
    const KNOWN: [&str; 4] = ["--nodes=", "--rounds=", "--only=", "--peer="];
    let is_known = |argument: &String| KNOWN.iter().any(|it| argument.starts_with(it));
    if let Some(argument) = arguments.iter().find(|it| !is_known(it)) {
        bail!("{argument}? There is {}…", KNOWN.join("…, "));
    }
    Ok(Plan {
        nodes: value("--nodes").map_or(Ok(NODES), str::parse)?,
        rounds: value("--rounds").map_or(Ok(ROUNDS), str::parse)?,
        only: value("--only").map(str::to_owned),
        peer: value("--peer").map(PathBuf::from),
    })
}

fn run(plan: &Plan) -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    // On the disk of the workspace: a file system in memory has no fsync.
    let parent = workspace().join("target/bench");
    fs::create_dir_all(&parent)?;
    let mut rows = Vec::new();
    let wanted = |it: &&Workload| plan.only.as_ref().is_none_or(|only| it.name.contains(only));
    println!(
        "{} nodes, pods/s (median and range of {} rounds)",
        plan.nodes, plan.rounds
    );
    for workload in WORKLOADS.iter().filter(wanted) {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..plan.rounds {
            let ours = runtime.block_on(round(plan, *workload, None, &parent))?;
            rates[0].push(ours.per_second);
            if let Some(peer) = plan.peer.as_deref().filter(|_| workload.of_peer) {
                let peer = runtime.block_on(round(plan, *workload, Some(peer), &parent))?;
                rates[1].push(peer.per_second);
            }
        }
        let [ours, peer] = rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates
        });
        println!(
            "{:36} {:>22} mark {:>5.0}   kube-scheduler 1.20 {}",
            workload.name,
            shown(&ours),
            workload.mark,
            shown(&peer)
        );
        rows.push(
            json!({"workload": workload.name, "mark": workload.mark, "ours": ours, "peer": peer}),
        );
    }
    let mut file = fs::File::create(parent.join("scheduler.json"))?;
    writeln!(file, "{}", serde_json::to_string_pretty(&rows)?)?;
    Ok(())
}

fn shown(rates: &[f64]) -> String {
    let middle = rates.get(rates.len() / 2);
    let ends = rates.first().zip(rates.last());
    match middle.zip(ends) {
        Some((middle, (least, most))) => format!("{middle:.0} ({least:.0} to {most:.0})"),
        None => "-".to_owned(),
    }
}

/// A server of its own: first without a scheduler, to fill it, then with ours, or with the peer beside it.
async fn round(
    plan: &Plan,
    workload: Workload,
    peer: Option<&Path>,
    parent: &Path,
) -> Result<Outcome> {
    let directory = tempfile::tempdir_in(parent)?;
    let mut server = Side::new(Kind::Ours, &directory.path().join("ours"), None)?;
    let idle = scheduler_load::write_idle_profile(directory.path())?;
    server.flags = vec!["--scheduler-config".to_owned(), idle];
    server.start().await?;
    let pods = scheduler_load::prepare(&server.target()?, workload, plan.nodes).await?;
    server.stop();
    if peer.is_none() {
        server.flags.clear();
    }
    server.start().await?;
    let _peer = match peer {
        None => None,
        Some(program) => {
            let kubeconfig = server.kubeconfig().display().to_string();
            let flags = [
                format!("--kubeconfig={kubeconfig}"),
                format!("--authentication-kubeconfig={kubeconfig}"),
                format!("--authorization-kubeconfig={kubeconfig}"),
                "--leader-elect=false".to_owned(),
                "--port=0".to_owned(),
                "--secure-port=0".to_owned(),
                // As upstream's own benches have it: the client is not to be the limit.
                "--kube-api-qps=5000".to_owned(),
                "--kube-api-burst=5000".to_owned(),
            ];
            Some(Beside::start(
                program,
                &flags,
                &directory.path().join("peer.log"),
            )?)
        }
    };
    let outcome = scheduler_load::watch(&server.target()?, pods).await;
    outcome.with_context(|| format!("{}, see {}", workload.name, directory.path().display()))
}
