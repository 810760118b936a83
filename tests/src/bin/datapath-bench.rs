//! `cargo xtask bench datapath`: our datapath and its rivals, interleaved in one run.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tests::bench::case::{self, Case, Outcome};
use tests::bench::side::{Ours, Side, Size};
use tests::bench::{load, report, rival, rival::Rival};

/// Rounds of each case and milliseconds of each load; `--short` only shows that it runs.
const ROUNDS: u32 = 10;
const MILLIS: u64 = 400;
const SHORT: (u32, u64) = (2, 50);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "load") {
        return load::main(&arguments[1..]);
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the bench makes namespaces: run it as root"
    );
    ensure!(
        orchestrator::datapath::object::is_embedded(),
        "no datapath is built in: run `cargo xtask build-ebpf` first"
    );
    let short = arguments.iter().any(|argument| argument == "--short");
    let wanted: Vec<&str> = arguments
        .iter()
        .filter(|a| !a.starts_with("--"))
        .map(String::as_str)
        .collect();
    let outcomes = bench(short, &wanted)?;
    print!("{}", report::table(&outcomes));
    save(&outcomes)
}

/// Every case whose name contains one of the words; without words all.
fn bench(short: bool, wanted: &[&str]) -> Result<Vec<Outcome>> {
    let (rounds, millis) = if short { SHORT } else { (ROUNDS, MILLIS) };
    let mut sides = vec![Side::Ours(Box::new(
        Ours::start().context("start our side")?,
    ))];
    for kind in rival::Kind::ALL {
        let side = Rival::start(kind).with_context(|| format!("start {}", kind.name()))?;
        sides.push(Side::Rival(Box::new(side)));
    }
    let mut outcomes = Vec::new();
    for (size, cases) in groups(short, wanted) {
        let mut name = "overlay".to_owned();
        if let Some(size) = size {
            name = format!("{} Services × {}", size.services, size.endpoints);
            for side in &mut sides {
                side.resize(size)
                    .with_context(|| format!("{name} on {}", side.name()))?;
            }
        }
        let said = |round| eprint!("\r{name}: round {} of {rounds} ", round + 1);
        outcomes.extend(case::run(&cases, &sides, rounds, millis, said)?);
        eprintln!();
    }
    Ok(outcomes)
}

/// The cases that are asked for, by the size that they share.
fn groups(short: bool, wanted: &[&str]) -> Vec<(Option<Size>, Vec<Case>)> {
    let sizes = if short {
        &case::SIZES[..1]
    } else {
        &case::SIZES[..]
    };
    let mut groups = vec![(None, case::overlay())];
    groups.extend(sizes.iter().map(|&size| (Some(size), case::services(size))));
    for (_, cases) in &mut groups {
        cases
            .retain(|case| wanted.is_empty() || wanted.iter().any(|word| case.name.contains(word)));
    }
    groups.retain(|(_, cases)| !cases.is_empty());
    groups
}

fn save(outcomes: &[Outcome]) -> Result<()> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    fs::create_dir_all(&dir)?;
    fs::write(
        dir.join("datapath.json"),
        serde_json::to_string_pretty(outcomes)?,
    )?;
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let caption = format!("ours / theirs, medians; {date}, 2 cores");
    fs::write(dir.join("datapath.svg"), report::svg(outcomes, &caption))?;
    eprintln!("wrote target/bench/datapath.json and datapath.svg");
    Ok(())
}
