//! `cargo xtask conformance [FOCUS]`: Kubernetes' own end-to-end tests against a dev cluster.
//!
//! The tests (`e2e.test` of 1.20, of which 311 are conformance) are built once into a directory outside of
//! the repository, the images that they name are made from Debian's packages, and each test's result is
//! printed when it ends. The last result of each focus is kept in `orchestrator/CONFORMANCE.md`.

mod build;
mod images;
mod output;
mod record;

pub use build::ensure as ensure_built;
pub use record::stamp;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use self::output::{Outcome, Reader, Verdict};
use crate::{
    cluster::{Cluster, workspace},
    command, down,
    engine::{self, Engine},
    guard, machine, packages,
    progress::Progress,
    up,
};

/// The cluster that is made when none is named; it goes after the run.
const OWN_CLUSTER: &str = "conform";
const NODES: u8 = 3;
/// Tests at once, of those that may run beside others.
const PROCESSES: u8 = 6;
/// Where the result is kept, below the workspace.
const RECORD: &str = "orchestrator/CONFORMANCE.md";

/// What the command line says.
#[derive(clap::Args)]
pub struct Arguments {
    /// A regular expression for names of tests; all conformance tests, if not given
    #[arg(default_value = ".")]
    focus: String,
    /// A regular expression for names that are left out
    #[arg(long)]
    skip: Option<String>,
    /// How many nodes a cluster of its own has
    #[arg(long, default_value_t = NODES)]
    nodes: u8,
    /// A cluster that is up; without it, one is made and taken down again
    #[arg(long)]
    cluster: Option<String>,
    /// How many tests run at once
    #[arg(long, default_value_t = PROCESSES)]
    processes: u8,
    /// Build the tests, make no cluster
    #[arg(long)]
    build_only: bool,
    /// The tests that are not marked [Conformance] too: a focus should be narrow
    #[arg(long)]
    all: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    machine::check_root("cargo xtask conformance")?;
    let progress = Progress::new();
    packages::ensure(packages::FOR_CONFORMANCE)?;
    let built = build::ensure(&progress)?;
    if arguments.build_only {
        println!("{}", built.display());
        return Ok(ExitCode::SUCCESS);
    }
    let name = arguments.cluster.as_deref().unwrap_or(OWN_CLUSTER);
    let was_up = Cluster::load(name)?.is_some();
    if arguments.cluster.is_some() && !was_up {
        bail!("there is no cluster {name}: `cargo xtask up --cluster {name}` makes it");
    }
    if !was_up {
        up::run(
            name,
            (Some(arguments.nodes), None),
            None,
            up::Profile::default(),
        )?;
    }
    let result = test(&progress, arguments, name, &built);
    if !was_up {
        down::run(name)?;
    }
    result
}

fn test(progress: &Progress, arguments: &Arguments, name: &str, built: &Path) -> Result<ExitCode> {
    let cluster = Cluster::load(name)?.with_context(|| format!("the cluster {name} is gone"))?;
    let engine = match engine::of(&cluster) {
        Some(engine) => engine,
        None => engine::ensure()?,
    };
    progress.step("images of the tests", |step| {
        step.note(images::ensure(step, &engine, built)?);
        Ok(())
    })?;
    let suite = Suite::new(arguments, built, &cluster, &engine)?;
    let expected = suite.names()?;
    println!("{} tests, logs in {}", expected.len(), suite.logs.display());
    // Before the tests: work may go on while they run.
    let (started, stamp) = (Instant::now(), record::stamp()?);
    let mut outcomes = Vec::new();
    for phase in [Phase::Parallel, Phase::Serial] {
        if expected.iter().any(|name| phase.has(name)) {
            suite.run(phase, expected.len(), &mut outcomes)?;
        }
    }
    let seen: BTreeSet<&str> = outcomes.iter().map(|it| it.name.as_str()).collect();
    let missing = expected.iter().filter(|name| !seen.contains(name.as_str()));
    let missing: Vec<Outcome> = missing.map(|name| Outcome::without_result(name)).collect();
    for outcome in &missing {
        println!("FAILED {}: {}", outcome.name, outcome.reason);
    }
    outcomes.extend(missing);
    let summary = record::Summary::of(&outcomes, started.elapsed());
    record::write(&workspace().join(RECORD), &suite.title(), &stamp, &summary)?;
    println!("{}, written to {RECORD}", summary.line());
    if outcomes.is_empty() {
        bail!("no test has a name that matches {:?}", arguments.focus);
    }
    Ok(if summary.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Tests marked [Serial] run alone, after the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Parallel,
    Serial,
}

impl Phase {
    fn has(self, name: &str) -> bool {
        name.contains("[Serial]") == (self == Self::Serial)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::Serial => "serial",
        }
    }
}

/// The chosen tests, and how they are run.
struct Suite<'a> {
    arguments: &'a Arguments,
    built: PathBuf,
    kubeconfig: PathBuf,
    docker_host: String,
    /// How many the cluster has: one on the embedded store, or several on etcd.
    servers: u8,
    logs: PathBuf,
}

impl<'a> Suite<'a> {
    fn new(
        arguments: &'a Arguments,
        built: &Path,
        cluster: &Cluster,
        engine: &Engine,
    ) -> Result<Self> {
        let logs = cluster.log_dir().join("conformance");
        fs::create_dir_all(&logs)?;
        Ok(Self {
            arguments,
            built: built.to_owned(),
            kubeconfig: cluster.kubeconfig(),
            docker_host: engine.host.clone(),
            servers: cluster.servers,
            logs,
        })
    }

    fn title(&self) -> String {
        let skip = self.arguments.skip.as_ref();
        let skip = skip.map(|skip| format!(", without `{skip}`"));
        let servers = match self.servers {
            0 | 1 => String::new(),
            servers => format!(", {servers} servers on etcd"),
        };
        format!(
            "`{}`{}{servers}",
            self.arguments.focus,
            skip.unwrap_or_default()
        )
    }

    /// The names of all tests that match, which ginkgo tells without running them.
    fn names(&self) -> Result<Vec<String>> {
        let mut dry = Command::new(self.built.join("e2e.test"));
        dry.args(["--ginkgo.dryRun", "--ginkgo.noColor"]);
        dry.arg("--ginkgo.succinct");
        dry.args(self.selection(None).map(|it| format!("--ginkgo.{it}")));
        dry.args(self.cluster_arguments());
        let text = command::output(&mut dry).context("the tests cannot be listed")?;
        let names: BTreeSet<String> = text.lines().filter_map(output::passed).collect();
        Ok(names.into_iter().collect())
    }

    /// Regular expressions for ginkgo, which joins the parts of a name by spaces.
    fn selection(&self, phase: Option<Phase>) -> impl Iterator<Item = String> {
        let focus = &self.arguments.focus;
        let conformance = |part: &str| match self.arguments.all {
            true => part.to_owned(),
            false => format!("({part}).*\\[Conformance\\]"),
        };
        let either = format!("({focus}).*\\[Serial\\]|\\[Serial\\].*({focus})");
        let focus = match phase {
            // A focus may name the mark itself.
            Some(Phase::Serial) if !focus.contains("Serial") => conformance(&either),
            _ => conformance(focus),
        };
        let serial = (phase == Some(Phase::Parallel)).then_some("\\[Serial\\]");
        let skip: Vec<&str> = serial
            .into_iter()
            .chain(self.arguments.skip.as_deref())
            .collect();
        let skip = (!skip.is_empty()).then(|| format!("skip={}", skip.join("|")));
        std::iter::once(format!("focus={focus}")).chain(skip)
    }

    fn cluster_arguments(&self) -> Vec<String> {
        let path = |name: &str, path: &Path| format!("--{name}={}", path.display());
        vec![
            path("kubeconfig", &self.kubeconfig),
            path("kubectl-path", &self.built.join("kubectl")),
            "--provider=local".into(),
            "--allowed-not-ready-nodes=0".into(),
            "--system-pods-startup-timeout=5s".into(),
            "--disable-log-dump=true".into(),
        ]
    }

    /// Prints a line for each test when it ends.
    fn run(&self, phase: Phase, all: usize, outcomes: &mut Vec<Outcome>) -> Result<()> {
        let processes = match phase {
            Phase::Parallel => self.arguments.processes,
            Phase::Serial => 1,
        };
        let mut ginkgo = Command::new(self.built.join("ginkgo"));
        ginkgo.args([format!("-nodes={processes}"), "-noColor".into()]);
        ginkgo.args(["-succinct", "-slowSpecThreshold=0.00001"]);
        ginkgo.args(self.selection(Some(phase)).map(|it| format!("-{it}")));
        ginkgo.arg(self.built.join("e2e.test")).arg("--");
        ginkgo.args(self.cluster_arguments());
        ginkgo.env("KUBECONFIG", &self.kubeconfig);
        ginkgo.env("DOCKER_HOST", &self.docker_host);
        let log = self.logs.join(phase.name()).with_extension("log");
        let mut log = File::create(&log).with_context(|| format!("{}", log.display()))?;
        let mut child = guard::spawn(&ginkgo)?;
        let stdout = child.stdout.take().context("ginkgo has no output")?;
        let mut stdout = BufReader::new(stdout);
        let (mut reader, mut line) = (Reader::default(), Vec::new());
        while stdout.read_until(b'\n', &mut line)? > 0 {
            log.write_all(&line)?;
            let text = String::from_utf8_lossy(&line);
            let outcome = reader.read(text.trim_end());
            // Whatever is skipped while it runs says so and counts as neither.
            if let Some(outcome) = outcome {
                outcomes.push(outcome);
                let (at, outcome) = (outcomes.len(), &outcomes[outcomes.len() - 1]);
                println!("{} {at}/{all} {outcome}", outcome.verdict);
            }
            line.clear();
        }
        let stdin = child.stdin.take();
        child.wait()?;
        drop(stdin);
        Ok(())
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passed => "ok    ",
            Self::Failed => "FAILED",
            Self::Skipped => "skip  ",
        })
    }
}
