//! `cargo xtask bench api`: our API server beside a Kubernetes API server with etcd, or (`--kubeconfig FILE`)
//! the same load on any server; `--large` measures 150,000 pods on ours, `--cost` what audit and encryption cost.
//!
//! Both servers run the whole time, each round loads one after the other, the order changes with each round,
//! and a ratio is taken within a round.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use sys::descriptors;
use tests::api_load::connection::Target;
use tests::api_load::load::{self, Sizes};
use tests::api_load::side::{self, Kind, Programs, Side};
use tests::api_load::table::{Better, Case, Figures, Row, markdown};
use tests::api_load::{cost, floor, large};
use tests::bench::statistics::median;
use tests::cluster::workspace;

const MIB: f64 = 1024.0 * 1024.0;
/// Between a server's start and a look at its idle memory.
const IDLE: Duration = Duration::from_secs(10);
const ROUNDS: usize = 10;
const SIZES: Sizes = Sizes {
    writes: 1_500,
    reads: 5_000,
    applies: 1_000,
    lists: 5,
    watchers: 300,
    watched_writes: 150,
};
const SHORT_ROUNDS: usize = 3;
const SHORT_SIZES: Sizes = Sizes {
    writes: 500,
    reads: 1_500,
    applies: 300,
    lists: 3,
    watchers: 300,
    watched_writes: 50,
};
/// Where the table is kept, below the workspace.
const PAGE: &str = "tests/bench/api.md";
const COST_PAGE: &str = "tests/bench/cost.md";
const COST_HEAD: &str = "# What audit and encryption at rest cost\n\nWritten by `cargo xtask bench api --cost`: \
                         our server with the one or the other beside our server without, in turn.\n\
                         A ratio of 1 is no cost. ConfigMaps; the audit log on the same disk.\n";
/// The heading of its section about many pods.
const LARGE: &str = "150,000 pods";

const fn case(name: &'static str, unit: &'static str, better: Better, mark: Option<f64>) -> Case {
    Case {
        name,
        unit,
        better,
        mark,
    }
}

/// In the order in which [`round`] and [`bench`] give their figures.
const CASES: &[Case] = &[
    case("creates, 32 in flight", "/s", Better::More, Some(5.0)),
    case("creates, p99", "ms", Better::TimesLess, None),
    case("gets", "/s", Better::More, Some(9.0)),
    case("creates, server's CPU each", "us", Better::Less, None),
    case("gets, server's CPU each", "us", Better::Less, None),
    case("merge patches", "/s", Better::More, Some(5.0)),
    case("server-side applies", "/s", Better::More, Some(4.0)),
    case(
        "list of 3,000 config maps by label",
        "ms",
        Better::TimesLess,
        Some(10.0),
    ),
    case("deletes", "/s", Better::More, Some(6.0)),
    case("300 watchers, events", "/s", Better::More, None),
    case("300 watchers, p99", "ms", Better::Less, Some(0.25)),
    case(
        "300 watchers, server's CPU an event",
        "us",
        Better::Less,
        Some(0.2),
    ),
];
const MEMORY_IDLE: Case = case("memory idle", "MiB", Better::Less, Some(0.05));
const MEMORY_LOADED: Case = case("memory after that load", "MiB", Better::Less, Some(0.1));
const READY: Case = case("exec to ready", "ms", Better::Less, Some(0.025));
const READY_AGAIN: Case = case(
    "exec to ready, on the data of that load",
    "ms",
    Better::Less,
    None,
);

/// What the command line says.
struct Plan {
    short: bool,
    large: bool,
    cost: bool,
    rounds: usize,
    sizes: Sizes,
    kubeconfig: Option<PathBuf>,
    programs: Option<Programs>,
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
        Some(floor::MODE) => floor::serve(&arguments[1..]).map(|()| true),
        Some("exec") => side::become_program(&arguments[1..]).map(|()| true),
        _ => plan(&arguments).and_then(|plan| run(&plan)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[String]) -> Result<Plan> {
    let flag = |name: &str| arguments.iter().any(|it| it == name);
    let value = |name: &str| {
        let start = format!("{name}=");
        arguments.iter().find_map(|it| it.strip_prefix(&start))
    };
    let known = ["--short", "--large", "--cost"];
    let valued = [
        "--rounds=",
        "--kubeconfig=",
        "--apiserver=",
        "--etcd=",
        "--stamp=",
    ];
    for argument in arguments {
        if !known.contains(&argument.as_str()) && !valued.iter().any(|it| argument.starts_with(it))
        {
            bail!(
                "{argument}? There is {} and {}…",
                known.join(", "),
                valued.join("…, ")
            );
        }
    }
    let short = flag("--short");
    let rounds = if short { SHORT_ROUNDS } else { ROUNDS };
    let programs = value("--apiserver").zip(value("--etcd"));
    Ok(Plan {
        short,
        large: flag("--large"),
        cost: flag("--cost"),
        rounds: value("--rounds").map_or(Ok(rounds), str::parse)?,
        sizes: if short { SHORT_SIZES } else { SIZES },
        kubeconfig: value("--kubeconfig").map(PathBuf::from),
        programs: programs.map(|(apiserver, etcd)| Programs {
            apiserver: apiserver.into(),
            etcd: etcd.into(),
        }),
        stamp: value("--stamp").unwrap_or("not committed").to_owned(),
    })
}

fn run(plan: &Plan) -> Result<bool> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    // On the disk of the workspace: a file system in memory has no fsync.
    let parent = workspace().join("target/bench");
    fs::create_dir_all(&parent)?;
    let directory = tempfile::tempdir_in(&parent)?;
    let rows = match &plan.kubeconfig {
        Some(kubeconfig) => runtime.block_on(any(plan, kubeconfig))?,
        None if plan.cost => {
            let rows = cost::rows(directory.path(), plan.rounds, plan.sizes);
            runtime.block_on(rows)?
        }
        None if plan.large => runtime.block_on(alone(plan, directory.path()))?,
        None => runtime.block_on(bench(plan, directory.path()))?,
    };
    let other = match plan.cost {
        true => "ours without it",
        false => "Kubernetes and etcd",
    };
    let table = markdown(&rows, other);
    println!("\n{table}");
    let mut file = fs::File::create(parent.join("api.json"))?;
    writeln!(file, "{}", serde_json::to_string_pretty(&rows)?)?;
    match plan.short || plan.kubeconfig.is_some() {
        true => {}
        false if plan.cost => {
            let page = format!(
                "{COST_HEAD}\n{}, {} rounds\n\n{table}",
                plan.stamp, plan.rounds
            );
            fs::write(workspace().join(COST_PAGE), page)?;
        }
        false => write_page(plan, &table)?,
    }
    Ok(rows.iter().all(|row| row.met != Some(false)))
}

/// The section of this kind of run is replaced, the others stay.
fn write_page(plan: &Plan, table: &str) -> Result<()> {
    const HEADING: &str = "\n## ";
    let path = workspace().join(PAGE);
    let old = fs::read_to_string(&path).unwrap_or_default();
    let (pair, others) = old.split_once(HEADING).unwrap_or((&old, ""));
    let others = others.split(HEADING).filter(|it| !it.is_empty());
    let mut sections: Vec<String> = others.map(str::to_owned).collect();
    let mut pair = pair.to_owned();
    if plan.large {
        sections.retain(|it| !it.starts_with(LARGE));
        sections.insert(0, format!("{LARGE}\n\n{}\n\n{table}", plan.stamp));
    } else {
        pair = format!(
            "# The API server beside Kubernetes'\n\nWritten by `cargo xtask bench api`: kube-apiserver \
             1.20.2 with etcd 3.4 and ours, on one machine,\nin turn, generator included, fsync before \
             the answer on both sides. {} rounds.\n\n{}\n\n{table}",
            plan.rounds, plan.stamp
        );
    }
    sections.insert(0, pair);
    Ok(fs::write(path, sections.join(HEADING))?)
}

/// The load on a server that runs already.
async fn any(plan: &Plan, kubeconfig: &Path) -> Result<Vec<Row>> {
    let target = Target::read(kubeconfig)?;
    load::prepare(&target).await?;
    let mut rounds = Vec::new();
    for number in 0..plan.rounds {
        rounds.push(round(&target, number, plan.sizes, &|| Ok(0.0)).await?);
    }
    let middle = |at: usize| {
        let values: Vec<f64> = rounds.iter().map(|figures| figures[at]).collect();
        median(&values).middle
    };
    let cases = CASES
        .iter()
        .enumerate()
        .filter(|(_, case)| case.unit != "us");
    Ok(cases
        .map(|(at, case)| Row::alone(case.name, case.unit, middle(at), None))
        .collect())
}

async fn alone(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    let mut ours = Side::new(Kind::Ours, &directory.join("ours"), None)?;
    ours.start().await?;
    large::rows(&ours, plan.short).await
}

async fn bench(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    let programs = plan.programs.clone();
    let programs =
        programs.context("--apiserver=FILE and --etcd=FILE are needed, or --kubeconfig")?;
    let mut sides = [
        Side::new(Kind::Ours, &directory.join("ours"), None)?,
        Side::new(Kind::Real, &directory.join("real"), Some(programs))?,
    ];
    let mut rows = Vec::new();
    let ready = [sides[0].start().await?, sides[1].start().await?];
    tokio::time::sleep(IDLE).await;
    let idle = memory(&sides)?;
    for side in &sides {
        eprintln!("{:?} is ready", side.kind);
        load::prepare(&side.target()?).await?;
        // Once for caches and connections.
        round(&side.target()?, plan.rounds, SHORT_SIZES, &|| Ok(0.0)).await?;
    }
    let mut figures = vec![Figures::default(); CASES.len()];
    for number in 0..plan.rounds {
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let side = &sides[at];
            let cpu = || side.cpu_seconds();
            let found = round(&side.target()?, number, plan.sizes, &cpu)
                .await
                .with_context(|| format!("{:?}", side.kind))?;
            eprintln!(
                "round {} of {}, {:?}: {found:.1?}",
                number + 1,
                plan.rounds,
                side.kind
            );
            for (figures, found) in figures.iter_mut().zip(found) {
                match side.kind {
                    Kind::Ours => figures.ours.push(found),
                    _ => figures.real.push(found),
                }
            }
        }
    }
    rows.extend(
        CASES
            .iter()
            .zip(&figures)
            .map(|(case, figures)| case.row(figures)),
    );
    rows.extend(limits(plan, &directory.join("ready")).await?);
    let loaded = memory(&sides)?;
    let mut again = [0.0; 2];
    for (side, again) in sides.iter_mut().zip(&mut again) {
        side.stop();
        *again = side.start().await?;
    }
    for (case, [ours, real]) in [
        (MEMORY_IDLE, idle),
        (MEMORY_LOADED, loaded),
        (READY, ready),
        (READY_AGAIN, again),
    ] {
        rows.push(case.row(&Figures {
            ours: vec![ours],
            real: vec![real],
        }));
    }
    Ok(rows)
}

/// What no server passes here.
async fn limits(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    let mut side = Side::new(Kind::Ready, directory, None)?;
    side.start().await?;
    let target = side.target()?;
    let mut rates = [const { Vec::new() }; 4];
    for number in 0..plan.rounds {
        let [creates, gets, lists, deletes] = &mut rates;
        let created = load::creates(&target, number, plan.sizes).await?;
        creates.push(created.per_second);
        gets.push(load::gets(&target, number, plan.sizes).await?.per_second);
        lists.push(median(&load::lists(&target, plan.sizes).await?).middle);
        let deleted = load::deletes(&target, number, plan.sizes).await?;
        deletes.push(deleted.per_second);
    }
    let names = [
        ("limit: creates that are answered without looking", "/s"),
        ("limit: gets, likewise", "/s"),
        ("limit: the list's bytes, likewise", "ms"),
        ("limit: deletes, likewise", "/s"),
    ];
    let rows = names.iter().zip(&rates);
    let mut rows: Vec<Row> = rows
        .map(|((name, unit), values)| Row::alone(name, unit, median(values).middle, None))
        .collect();
    let bare = floor::write_us(SIZES.watchers, SIZES.watched_writes)?;
    let name = "limit: a bare write to each of 300 sockets, CPU";
    rows.push(Row::alone(name, "us", bare, None));
    Ok(rows)
}

fn memory(sides: &[Side; 2]) -> Result<[f64; 2]> {
    let mib = |side: &Side| Ok::<_, anyhow::Error>(side.memory_bytes()? as f64 / MIB);
    Ok([mib(&sides[0])?, mib(&sides[1])?])
}

/// One round on one side: the figures of [`CASES`].
async fn round(
    target: &Target,
    number: usize,
    sizes: Sizes,
    cpu_seconds: &dyn Fn() -> Result<f64>,
) -> Result<Vec<f64>> {
    let start = cpu_seconds()?;
    let creates = load::creates(target, number, sizes)
        .await
        .context("creates")?;
    let created = cpu_seconds()?;
    let gets = load::gets(target, number, sizes).await.context("gets")?;
    let got = cpu_seconds()?;
    let each = |seconds: f64, requests: usize| seconds * 1e6 / requests as f64;
    let merges = load::merges(target, number, sizes)
        .await
        .context("merge patches")?;
    let applies = load::applies(target, number, sizes)
        .await
        .context("applies")?;
    let lists = load::lists(target, sizes).await.context("lists")?;
    let deletes = load::deletes(target, number, sizes)
        .await
        .context("deletes")?;
    let mut before = 0.0;
    let watched = load::watch(target, number, sizes, || {
        before = cpu_seconds()?;
        Ok(())
    });
    let watched = watched.await.context("watches")?;
    let cpu_us = each(cpu_seconds()? - before, watched.events);
    Ok(vec![
        creates.per_second,
        creates.p99_ms,
        gets.per_second,
        each(created - start, sizes.writes),
        each(got - created, sizes.reads),
        merges.per_second,
        applies.per_second,
        median(&lists).middle,
        deletes.per_second,
        watched.rate.per_second,
        watched.rate.p99_ms,
        cpu_us,
    ])
}
