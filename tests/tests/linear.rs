//! The checker of histories, and the nemesis in its short form: some seconds on each store.
//!
//! `cargo xtask nemesis` runs this binary for as many rounds as it is told, by the variable below.

#[path = "linear/changeover.rs"]
mod changeover;
#[path = "linear/planted.rs"]
mod planted;
#[path = "linear/restore.rs"]
mod restore;
#[path = "linear/witnessed.rs"]
mod witnessed;

use std::env;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use tests::nemesis::cluster::{self, Stage};
use tests::nemesis::site::{Kind, Means, Site};
use tests::nemesis::wires::Wires;
use tests::nemesis::{self, Report, disk, members};

/// `STORE FROM TO`: rounds, by their seeds; the store `cluster` is a whole cluster.
const ROUNDS: &str = "NEMESIS_ROUNDS";
const CLUSTER: &str = "cluster";
/// How long one lasts.
const LENGTH: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_secs(3);
/// The short form's seed: it kills and stops.
const SEED: u64 = 1;

const STORES: &[(&str, &str)] = &[
    (
        "what_clients_see_of_the_memory_store_is_linearizable",
        "memory",
    ),
    (
        "what_clients_see_while_a_server_is_killed_is_linearizable",
        "redb",
    ),
    (
        "what_clients_see_while_servers_and_members_of_etcd_are_killed_is_linearizable",
        "etcd3",
    ),
];

fn main() -> ExitCode {
    if let Some(ended) = tests::control_plane::as_program() {
        return ended;
    }
    if let Ok(rounds) = env::var(ROUNDS) {
        return match long(&rounds) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let mut arguments = Arguments::from_args();
    // One load at a time.
    arguments.test_threads = Some(1);
    let mut trials = planted::trials();
    trials.extend(witnessed::trials());
    trials.extend(changeover::trials());
    trials.extend(restore::trials());
    trials.extend(STORES.iter().map(|(name, store)| {
        Trial::test(*name, move || {
            let report = rounds(store, Means::default(), SEED..SEED + 1, SHORT)
                .map_err(|error| format!("{error:#}"))?;
            eprintln!("{}", line(&report));
            Ok::<(), Failed>(())
        })
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn long(variable: &str) -> Result<()> {
    let words: Vec<&str> = variable.split_whitespace().collect();
    let [store, from, to] = words[..] else {
        anyhow::bail!("{ROUNDS}: write STORE FROM TO");
    };
    let seeds: Range<u64> = from.parse()?..to.parse()?;
    if store == CLUSTER {
        return on_a_cluster(seeds);
    }
    let means = match nix::unistd::geteuid().is_root() {
        true => means(store)?,
        false => Means::default(),
    };
    let report = rounds(store, means, seeds, LENGTH)?;
    println!("{}", line(&report));
    Ok(())
}

/// Rounds on one cluster of its own; the first one with a violation ends them.
fn on_a_cluster(seeds: Range<u64>) -> Result<()> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let stage = Stage::up().await?;
        let mut sum = cluster::Report::default();
        for seed in seeds {
            let report = stage.round(seed).await;
            let report = report.with_context(|| format!("round {seed} on a cluster"))?;
            ensure!(
                report.faults.is_empty(),
                "round {seed} on a cluster, with {:#?}:\n{}",
                report.kills,
                report.faults.join("\n")
            );
            eprintln!(
                "round {seed}: {} requests, {} containers, {} kills",
                report.requests,
                report.containers,
                report.kills.len()
            );
            sum.requests += report.requests;
            sum.containers += report.containers;
            sum.kills.extend(report.kills);
        }
        // A round with one that failed does not get here.
        println!(
            "rounds: requests {} failed 0 containers {} kills {}",
            sum.requests,
            sum.containers,
            sum.kills.len()
        );
        stage.down()
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    // A second one in this process finds the first one's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    Ok(runtime.worker_threads(2).enable_all().build()?)
}

/// What only root has. The embedded store's only connection is that of its clients: it is not cut.
fn means(store: &str) -> Result<Means> {
    let wires = store.starts_with("etcd").then(Wires::make).transpose()?;
    let has_own_disk = store == "redb";
    if has_own_disk {
        disk::own_mounts()?;
    }
    let library = members::cached("libfaketime/libfaketime.so");
    Ok(Means {
        wires,
        has_own_disk,
        has_strace: store != "memory",
        faketime: Some(library).filter(|it| it.exists()),
        replaces_members: true,
    })
}

/// What all rounds had together, as words and numbers that `cargo xtask nemesis` reads.
fn line(report: &Report) -> String {
    format!(
        "rounds: operations {} unknown {} events {} faults {}",
        report.operations,
        report.unknown,
        report.events,
        report.disturbances.len()
    )
}

/// Runs rounds on one site; the first one with a violation ends them.
fn rounds(store: &str, means: Means, seeds: Range<u64>, length: Duration) -> Result<Report> {
    let runtime = runtime()?;
    let kind: Kind = store.parse()?;
    runtime.block_on(async {
        let mut site = Site::start(kind, means).await?;
        let mut sum = Report::default();
        for seed in seeds {
            let report = nemesis::round(&mut site, seed, length).await;
            let report = report.with_context(|| format!("round {seed} on {store}"))?;
            ensure!(
                report.faults.is_empty(),
                "round {seed} on {store}, with {:#?}:\n{}",
                report.disturbances,
                report.faults.join("\n")
            );
            eprintln!("round {seed}: {}", report.disturbances.join("; "));
            sum.operations += report.operations;
            sum.unknown += report.unknown;
            sum.events += report.events;
            sum.disturbances.extend(report.disturbances);
        }
        Ok(sum)
    })
}
