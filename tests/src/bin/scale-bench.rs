//! `cargo xtask bench scale`: a cluster of hollow nodes. `--nodes=N --pods=N --services=N --endpoints=N` say how large it is
//! (5,000, 150,000, 10,000 and 25 for each Service); `--tenth` measures a tenth of it first, for the cost of an event as the
//! cluster grows; `--short` shortens what is measured over time.

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
/// Where the table is kept, below the workspace, if it is of the full size.
const PAGE: &str = "tests/bench/scale.md";

struct Plan {
    sizes: Vec<Sizes>,
    lengths: Lengths,
    /// Day and commit, for the page.
    stamp: String,
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
    let (mut sizes, mut lengths, mut stamp, mut has_tenth) = (FULL, LONG, String::new(), false);
    for argument in arguments {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        let number = || value.parse::<usize>().with_context(|| argument.clone());
        match name {
            "--nodes" => sizes.nodes = number()?.max(1),
            "--pods" => sizes.pods = number()?,
            "--services" => sizes.services = number()?,
            "--endpoints" => sizes.endpoints = number()?,
            "--tenth" => has_tenth = true,
            "--short" => lengths = SHORT,
            "--stamp" => value.clone_into(&mut stamp),
            _ => bail!("there is no {argument}"),
        }
    }
    let tenth = Sizes {
        nodes: (sizes.nodes / 10).max(1),
        pods: sizes.pods / 10,
        services: sizes.services / 10,
        ..sizes
    };
    let first = has_tenth.then_some(tenth);
    Ok(Plan {
        sizes: first.into_iter().chain([sizes]).collect(),
        lengths,
        stamp,
    })
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
        names.push(format!("{} nodes, {} pods", sizes.nodes, sizes.pods));
        let figures = scale::measure(*sizes, plan.lengths, directory.path());
        let figures = runtime.block_on(figures);
        if figures.is_err() {
            eprintln!("logs are kept in {}", directory.keep().display());
        }
        columns.push(figures?);
    }
    let table = table::markdown(&names, &columns);
    println!("{table}");
    let is_full = plan.sizes.last() == Some(&FULL);
    let page: PathBuf = match is_full {
        true => workspace().join(PAGE),
        false => parent.join("scale.md"),
    };
    let head = "# A cluster of hollow nodes\n\nOne server on the embedded store; server, nodes and clients share the \
                machine. A hollow node is an agent without containers and without a datapath.\n";
    let text = format!(
        "{head}\n`cargo xtask bench scale`, {}\n\n{table}",
        plan.stamp
    );
    fs::write(&page, text).with_context(|| page.display().to_string())?;
    let last = columns.iter().flatten().rev();
    Ok(last
        .take(columns.last().map_or(0, Vec::len))
        .all(table::Figure::is_met))
}
