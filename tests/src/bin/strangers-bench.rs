//! `cargo xtask bench strangers`: what clients that attack the API server cost those that use it.
//!
//! One server on loopback, a load at a fixed rate, quiet and under each attack by turns. The attackers
//! are another process that gives way to the others: elsewhere they would be other machines.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::json;
use sys::descriptors;
use tests::bench::stage::client;
use tests::bench::statistics::median;
use tests::cluster::workspace;
use tests::strangers::attacks::{ATTACKS, Attack};
use tests::strangers::{Target, load, resident_bytes};

const PER_SECOND: u32 = 100;
/// The most that the server may take of memory, whatever is done to it.
const MEMORY_BYTES: u64 = 768 * 1024 * 1024;
const MARK: f64 = 2.0;
const SERVER_START: Duration = Duration::from_secs(30);

/// How much is measured.
struct Plan {
    rounds: usize,
    phase: Duration,
    attacks: Vec<&'static Attack>,
}

/// What one attack did.
struct Row {
    attack: &'static Attack,
    quiet: Vec<f64>,
    attacked: Vec<f64>,
    before: u64,
    peak: u64,
    heard: BTreeMap<String, usize>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // The same program is the server and the attackers: nothing else has to be built.
    let result = match arguments.first().map(String::as_str) {
        Some("server") => return orchestrator::cli::main(),
        Some("attack") => attack(&arguments[1..]),
        _ => bench(&arguments),
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

fn bench(arguments: &[String]) -> Result<bool> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let plan = plan(arguments);
    let directory = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    // Another build of the server may be attacked instead, to compare.
    let given = arguments.iter().find_map(|it| it.strip_prefix("--server="));
    let program = given.map_or_else(env::current_exe, |path| Ok(path.into()))?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let server = Server::start(&program, directory.path(), address)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let rows = runtime.block_on(measure(&plan, &server))?;
    print!("{}", table(&rows));
    write(&rows)?;
    Ok(rows.iter().all(Row::holds))
}

fn plan(arguments: &[String]) -> Plan {
    let short = arguments.iter().any(|it| it == "--short");
    let names: Vec<&String> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let chosen = |attack: &&Attack| {
        names.is_empty() || names.iter().any(|name| attack.name.contains(name.as_str()))
    };
    Plan {
        rounds: if short { 2 } else { 5 },
        phase: Duration::from_secs(if short { 5 } else { 15 }),
        attacks: ATTACKS.iter().filter(chosen).collect(),
    }
}

async fn measure(plan: &Plan, server: &Server) -> Result<Vec<Row>> {
    let client = server.client().await?;
    load::prepare(&client).await?;
    // Once for the caches.
    load::run(&client, PER_SECOND, Duration::from_secs(2)).await?;
    let mut rows = Vec::new();
    for attack in &plan.attacks {
        let mut row = Row {
            attack,
            quiet: Vec::new(),
            attacked: Vec::new(),
            before: resident_bytes(server.process.id())?,
            peak: 0,
            heard: BTreeMap::new(),
        };
        for _ in 0..plan.rounds {
            let quiet = load::run(&client, PER_SECOND, plan.phase).await?;
            row.quiet.push(load::p99(&quiet));
            let attackers = Attackers::start(attack, server)?;
            // Time to get to where the attack is at its height.
            tokio::time::sleep(Duration::from_secs(3)).await;
            let loaded = load::run(&client, PER_SECOND, plan.phase);
            let watched = async {
                loop {
                    let bytes = resident_bytes(server.process.id()).unwrap_or_default();
                    row.peak = row.peak.max(bytes);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let attacked = tokio::select! {
                times = loaded => times?,
                () = watched => Vec::new(),
            };
            row.attacked.push(load::p99(&attacked));
            for answer in attackers.stop()? {
                *row.heard.entry(answer).or_default() += 1;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        eprintln!("{}", line(&row));
        rows.push(row);
    }
    Ok(rows)
}

struct Server {
    process: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Server {
    fn start(program: &Path, directory: &Path, address: SocketAddr) -> Result<Self> {
        let log = fs::File::create(directory.join("server.log"))?;
        let process = Command::new(program)
            .arg("server")
            .args(["--bind", &address.to_string(), "--data-dir"])
            .arg(directory)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self {
            process,
            address,
            directory: directory.to_owned(),
        })
    }

    async fn client(&self) -> Result<Client> {
        let client = client(&self.directory.join("admin.kubeconfig")).await?;
        let began = Instant::now();
        let ready = || http::Request::get("/readyz").body(Vec::new());
        while client.request_text(ready()?).await.is_err() {
            ensure!(
                began.elapsed() < SERVER_START,
                "the server does not become ready"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(client)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process of the attackers.
struct Attackers(Child);

impl Attackers {
    fn start(attack: &Attack, server: &Server) -> Result<Self> {
        let process = Command::new("nice")
            .arg("--adjustment=10")
            .arg(env::current_exe()?)
            .args(["attack", attack.name, &server.address.to_string()])
            .arg(&server.directory)
            .stdout(Stdio::piped())
            .spawn()
            .context("the attackers do not start")?;
        Ok(Self(process))
    }

    fn stop(mut self) -> Result<Vec<String>> {
        self.0.kill()?;
        let output = self.0.stdout.take().context("no output")?;
        Ok(BufReader::new(output).lines().collect::<Result<_, _>>()?)
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `attack NAME ADDRESS DIRECTORY`: says line by line what the attackers hear.
fn attack(arguments: &[String]) -> Result<bool> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    descriptors::raise_limit();
    let [name, address, directory] = arguments else {
        anyhow::bail!("attack NAME ADDRESS DIRECTORY");
    };
    let attack = ATTACKS.iter().find(|attack| attack.name == name);
    let attack = attack.context("no such attack")?;
    let target = Target::new(address.parse()?, Path::new(directory))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    runtime.block_on(attack.run(&target, |heard| {
        // Enough of each to count by; the pipe must not fill.
        let count = said.entry(heard.clone()).or_default();
        *count += 1;
        if *count <= 1000 {
            println!("{heard}");
        }
    }));
    Ok(true)
}

impl Row {
    fn ratio(&self) -> f64 {
        let pairs = self.quiet.iter().zip(&self.attacked);
        median(
            &pairs
                .map(|(quiet, attacked)| attacked / quiet)
                .collect::<Vec<_>>(),
        )
        .middle
    }

    /// The attackers hear what they should, if anything, and the others hardly notice.
    fn holds(&self) -> bool {
        self.ratio() <= MARK && self.peak <= MEMORY_BYTES && !self.heard.contains_key("nothing")
    }
}

fn table(rows: &[Row]) -> String {
    let head = format!(
        "{:<38} {:>10} {:>10} {:>6}   {:>9} {:>9}   {}\n",
        "ATTACK", "QUIET p99", "p99", "RATIO", "BEFORE", "PEAK", "THE ATTACKERS HEAR"
    );
    let lines: Vec<String> = rows.iter().map(|row| line(row) + "\n").collect();
    let limit = MEMORY_BYTES / 1024 / 1024;
    head + &lines.concat() + &format!("marks: ratio ≤ {MARK}, peak ≤ {limit} MiB\n")
}

fn line(row: &Row) -> String {
    let middle = |times: &[f64]| median(times).middle;
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    let heard = row
        .heard
        .iter()
        .map(|(answer, count)| format!("{answer} ({count})"));
    format!(
        "{:<38} {:>7.1} ms {:>7.1} ms {:>6.2} {} {:>5.0} MiB {:>5.0} MiB {} {}",
        row.attack.name,
        middle(&row.quiet),
        middle(&row.attacked),
        row.ratio(),
        if row.ratio() <= MARK { "✓" } else { "✗" },
        mib(row.before),
        mib(row.peak),
        if row.peak <= MEMORY_BYTES {
            "✓"
        } else {
            "✗"
        },
        heard.collect::<Vec<_>>().join(", ")
    )
}

fn write(rows: &[Row]) -> Result<()> {
    let row = |row: &Row| {
        json!({
            "attack": row.attack.name, "quiet_p99_ms": row.quiet, "attacked_p99_ms": row.attacked,
            "ratio": row.ratio(), "rss_before": row.before, "rss_peak": row.peak,
            "heard": row.heard, "holds": row.holds(),
        })
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    let directory = workspace().join("target/bench");
    fs::create_dir_all(&directory)?;
    let mut file = fs::File::create(directory.join("strangers.json"))?;
    writeln!(file, "{}", serde_json::to_string_pretty(&rows)?)?;
    Ok(())
}
