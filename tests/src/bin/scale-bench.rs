//! `cargo xtask bench scale`: a cluster of hollow nodes. `--nodes=N --pods=N --services=N --endpoints=N` say how large it is
//! (5,000, 150,000, 10,000 and 25 for each Service); `--part=N` measures one N-th of it first, for the cost of an event as
//! the cluster grows; `--short` shortens what is measured over time; `--page` keeps the table in the repository.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use sys::descriptors;
use tests::cluster::workspace;
use tests::scale::{self, Lengths, Sizes, nodes, table};

const FULL: Sizes = Sizes {
    nodes: 5_000,
    pods: 150_000,
    services: 10_000,
    endpoints: 25,
};
const LONG: Lengths = Lengths {
    idle: Duration::from_secs(60),
    load: Duration::from_secs(30),
};
const SHORT: Lengths = Lengths {
    idle: Duration::from_secs(10),
    load: Duration::from_secs(5),
};
/// Where the table is kept, below the workspace, with `--page`.
const PAGE: &str = "tests/bench/scale.md";

struct Plan {
    sizes: Vec<Sizes>,
    lengths: Lengths,
    /// Day and commit, for the page.
    stamp: String,
    has_page: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        // The same program is the server: nothing else has to be built.
        Some("server") => {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            return orchestrator::cli::main();
        }
        Some(nodes::MODE) => nodes::run(&arguments[1..]).map(|()| true),
        _ => plan(&arguments).and_then(|plan| run(&plan)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[String]) -> Result<Plan> {
    let (mut sizes, mut lengths, mut stamp) = (FULL, LONG, String::new());
    let (mut part, mut has_page) = (None, false);
    for argument in arguments {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        let number = || value.parse::<usize>().with_context(|| argument.clone());
        match name {
            "--nodes" => sizes.nodes = number()?.max(1),
            "--pods" => sizes.pods = number()?,
            "--services" => sizes.services = number()?,
            "--endpoints" => sizes.endpoints = number()?,
            "--part" => part = Some(number()?.max(2)),
            "--page" => has_page = true,
            "--short" => lengths = SHORT,
            "--stamp" => value.clone_into(&mut stamp),
            _ => bail!("there is no {argument}"),
        }
    }
    let first = part.map(|part| Sizes {
        nodes: (sizes.nodes / part).max(1),
        pods: sizes.pods / part,
        services: sizes.services / part,
        ..sizes
    });
    Ok(Plan {
        sizes: first.into_iter().chain([sizes]).collect(),
        lengths,
        stamp,
        has_page,
    })
}

fn page_of(plan: &Plan, table: &str) -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').nth(2).unwrap_or_default();
    let Sizes { nodes, pods, .. } = FULL;
    Ok(format!(
        "# A cluster of hollow nodes\n\n\
         One server on the embedded store; server, nodes and clients share the machine. A hollow node is an agent \
         without\ncontainers and without a datapath. The marks are those of {nodes} nodes with {pods} pods; they are \
         judged at the last size.\n\n\
         `cargo xtask bench scale`, {}; {cores} processors, load of the last 15 minutes at the end {load}\n\n{table}",
        plan.stamp
    ))
}

/// Whether all marks are met.
fn run(plan: &Plan) -> Result<bool> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    // On the disk of the workspace: a file system in memory has no fsync.
    let parent = workspace().join("target/bench");
    fs::create_dir_all(&parent)?;
    let (mut names, mut columns) = (Vec::new(), Vec::new());
    for sizes in &plan.sizes {
        let directory = tempfile::tempdir_in(&parent)?;
        let Sizes { nodes, pods, .. } = sizes;
        let (services, endpoints) = (sizes.services, sizes.services * sizes.endpoints);
        names.push(format!(
            "{nodes} nodes, {pods} pods, {services} Services, {endpoints} endpoints"
        ));
        let figures = scale::measure(*sizes, plan.lengths, directory.path());
        let figures = runtime.block_on(figures);
        if figures.is_err() {
            eprintln!("logs are kept in {}", directory.keep().display());
        }
        columns.push(figures?);
    }
    let table = table::markdown(&names, &columns);
    println!("{table}");
    let page: PathBuf = match plan.has_page {
        true => workspace().join(PAGE),
        false => parent.join("scale.md"),
    };
    let text = page_of(plan, &table)?;
    fs::write(&page, text).with_context(|| page.display().to_string())?;
    let last = columns.iter().flatten().rev();
    Ok(last
        .take(columns.last().map_or(0, Vec::len))
        .all(table::Figure::is_met))
}
