//! `cargo xtask bench datapath [case…]`: our datapath and its rivals, interleaved in one run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tests::bench::awake::Awake;
use tests::bench::case::{Case, Outcome};
use tests::bench::rounds::{self, Rounds};
use tests::bench::service::Size;
use tests::bench::side::{Side, Who};
use tests::bench::{agent, cases, cluster, death, load, programs, report};

const ROUNDS: Rounds = Rounds {
    count: 10,
    millis: 400,
};
/// `--short` only shows that it runs.
const SHORT: Rounds = Rounds {
    count: 1,
    millis: 40,
};

/// What is asked for by these words and not by a case's name.
const OTHERS: [&str; 5] = ["agent", "pods", "programs", "death", "cluster"];

/// Cases that share what the sides have in their tables.
struct Group {
    name: String,
    size: Size,
    peers: u16,
    cases: Vec<Case>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let _ = rustls::crypto::ring::default_provider().install_default();
    if arguments.first().is_some_and(|first| first == "load") {
        return load::main(&arguments[1..]);
    }
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        print!("{}", usage());
        return Ok(());
    }
    let known = |word: &str| word == "--short" || OTHERS.contains(&word) || is_case(word);
    if let Some(word) = arguments.iter().find(|word| !known(word)) {
        bail!("there is no case {word}\n\n{}", usage());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the bench makes namespaces: run it as root"
    );
    ensure!(
        datapath::object::is_embedded(),
        "no datapath is built in: run `cargo xtask build-ebpf` first"
    );
    let short = arguments.iter().any(|argument| argument == "--short");
    let wanted: Vec<&str> = arguments
        .iter()
        .filter(|a| !a.starts_with("--"))
        .map(String::as_str)
        .collect();
    let started = Instant::now();
    let mut results = Results {
        name: match (short, wanted.is_empty()) {
            (true, _) => "datapath-short",
            (false, true) => "datapath",
            (false, false) => "datapath-part",
        },
        outcomes: Vec::new(),
        failures: Vec::new(),
    };
    bench(short, &wanted, &mut results)?;
    eprintln!("{} s in all", started.elapsed().as_secs());
    let failures = results.failures;
    ensure!(failures.is_empty(), "failed:\n{}", failures.join("\n"));
    Ok(())
}

fn is_case(word: &str) -> bool {
    !groups(false, &[word]).is_empty()
}

fn usage() -> String {
    let groups = groups(false, &[]);
    let names = groups.iter().flat_map(|group| &group.cases);
    let names: BTreeSet<&str> = names.map(|case| case.name).chain(OTHERS).collect();
    let mut text = String::from(
        "Usage: cargo xtask bench datapath [--short] [case…]\n\n\
         Every case whose name contains one of the words; without words all. Needs root and a quiet\n\
         machine; --short only shows that it runs.\n\nCases:\n",
    );
    for name in names {
        text += &format!("  {name}\n");
    }
    text + "\nExamples:\n  \
            cargo xtask bench datapath\n  \
            cargo xtask bench datapath overlay programs\n"
}

/// Every case whose name contains one of the words; without words all.
fn bench(short: bool, wanted: &[&str], results: &mut Results) -> Result<()> {
    let rounds = if short { SHORT } else { ROUNDS };
    let mut sides = BTreeMap::new();
    let awake = Awake::keep()?;
    for group in groups(short, wanted) {
        prepare(&group, &mut sides)?;
        let said = |round| eprint!("\r{}: round {} of {} ", group.name, round + 1, rounds.count);
        let (found, failed) = rounds::run(&group.cases, &sides, rounds, said);
        eprintln!();
        results.take(&group.name, found, failed)?;
    }
    // Nothing of theirs is in the way of what follows.
    drop(sides);
    drop(awake);
    let asked = |name| wanted.is_empty() || wanted.contains(&name);
    let extent = if short { agent::SHORT } else { agent::FULL };
    if asked("agent") {
        results.take_all("agent", agent::figures(extent))?;
    }
    if asked("agent") || asked("pods") {
        results.take_all("pods", agent::pods(extent.pods))?;
    }
    if asked("programs") {
        results.take_all("programs", programs::figures())?;
    }
    // The server and the agent themselves, which the start's bench and e2e run anyway.
    if !short && (asked("cluster") || wanted.contains(&"death")) {
        results.take_all("death", death::figures())?;
    }
    if asked("cluster") && !short {
        results.take_all("cluster", cluster::figures())?;
    }
    Ok(())
}

/// What was found so far; on the disk too, so that a run that is cut short was not for nothing.
struct Results {
    name: &'static str,
    outcomes: Vec<Outcome>,
    failures: Vec<String>,
}

impl Results {
    fn take_all(&mut self, group: &str, found: Result<Vec<Outcome>>) -> Result<()> {
        match found {
            Ok(found) => self.take(group, found, Vec::new()),
            Err(error) => self.take(group, Vec::new(), vec![format!("{error:#}")]),
        }
    }

    fn take(&mut self, group: &str, found: Vec<Outcome>, failed: Vec<String>) -> Result<()> {
        print!("{}", report::table(&found));
        for failure in failed {
            eprintln!("{group}: {failure}");
            self.failures.push(format!("{group}: {failure}"));
        }
        self.outcomes.extend(found);
        self.save()
    }

    fn save(&self) -> Result<()> {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
        fs::create_dir_all(&dir)?;
        let cores = thread::available_parallelism()?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let caption = format!(
            "ours / theirs: medians, 95 % intervals, marks; {cores} cores, Linux {}, {date}",
            kernel.trim()
        );
        let outcomes = &self.outcomes;
        for (kind, text) in [
            ("json", serde_json::to_string_pretty(outcomes)?),
            ("svg", report::svg(outcomes, &caption)),
            ("md", report::markdown(outcomes)),
        ] {
            fs::write(dir.join(format!("{}.{kind}", self.name)), text)?;
        }
        Ok(())
    }
}

/// Starts the sides that are not there yet, and fills the tables of all that the group asks.
fn prepare(group: &Group, sides: &mut BTreeMap<Who, Side>) -> Result<()> {
    let needed = rounds::sides(&group.cases);
    for who in &needed {
        if !sides.contains_key(who) {
            let side = Side::start(*who).with_context(|| format!("start {}", who.name()))?;
            sides.insert(*who, side);
        }
    }
    thread::scope(|scope| {
        let asked = sides.iter_mut().filter(|(who, _)| needed.contains(who));
        let fill = |(who, side): (&Who, &mut Side)| {
            let filled = side.resize(group.size).and_then(|()| match group.peers {
                0 => Ok(()),
                peers => side.add_peers(peers),
            });
            filled.with_context(|| format!("{} on {}", group.name, who.name()))
        };
        let threads: Vec<_> = asked.map(|side| scope.spawn(move || fill(side))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(filled) => filled,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}

/// The cases that are asked for.
fn groups(short: bool, wanted: &[&str]) -> Vec<Group> {
    let plain = |name: &str, size, peers, cases| Group {
        name: name.into(),
        size,
        peers,
        cases,
    };
    let mut groups = vec![
        plain("overlay", Size::NONE, 0, cases::overlay()),
        plain(
            "large overlay",
            Size::NONE,
            cases::PEERS,
            cases::crowded_overlay(),
        ),
    ];
    let sizes = if short {
        &cases::SIZES[..1]
    } else {
        &cases::SIZES[..]
    };
    groups.extend(sizes.iter().map(|&size| {
        let name = format!("{} Services × {}", size.services, size.endpoints);
        plain(&name, size, 0, cases::services(size))
    }));
    if !short {
        let size = Size::new(10_000, 10);
        groups.push(plain("connect()", size, 0, cases::growth()));
    }
    for group in &mut groups {
        group
            .cases
            .retain(|case| wanted.is_empty() || wanted.iter().any(|word| case.name.contains(word)));
    }
    groups.retain(|group| !group.cases.is_empty());
    groups
}
