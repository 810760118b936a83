//! `orchestrator/OPERATING.md`, step by step: every command of the page is run, on machines that are directories
//! and addresses of the loopback device. `cargo xtask operating`; a few minutes. With `--former PROGRAM` all machines begin
//! with a program of before, and those that the page upgrades go on with this one: the versions share one store then.
//!
//! ```text
//!  page ─▶ blocks: machine, lines ─▶ sh, with the machine's paths and addresses
//!                                └─▶ systemctl: the server of that machine, a process
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::control_plane;

const PAGE: &str = include_str!("../../orchestrator/OPERATING.md");
/// Of each machine; its own, wherever the page names them.
const DIRECTORIES: [&str; 4] = [
    "etc/orchestrator",
    "etc/haproxy",
    "var/lib/orchestrator",
    "usr/local/bin",
];
/// The program of before, if the machines begin with one.
const FORMER: &str = "ORCHESTRATOR_FORMER";
/// A server that starts, with others that join or catch up.
const START_TIMEOUT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    if let Some(code) = control_plane::as_program() {
        return code;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut machines = Machines::new()?;
    let blocks = blocks(PAGE)?;
    ensure!(blocks.len() > 10, "the page has few steps");
    for (number, block) in blocks.iter().enumerate() {
        println!("step {}: on {}", number + 1, block.machine);
        let done = machines.run(block);
        done.with_context(|| {
            format!(
                "step {} on {}\n{}",
                number + 1,
                block.machine,
                block.lines.join("\n")
            )
        })?;
    }
    println!("{} steps of the page were run", blocks.len());
    Ok(())
}

/// Some commands on one machine.
struct Block {
    machine: String,
    lines: Vec<String>,
}

fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for text in page.split("```sh\n").skip(1) {
        let (text, _) = text.split_once("```").context("a block without an end")?;
        let mut lines = text.lines();
        let first = lines.next().context("an empty block")?;
        let machine = first
            .strip_prefix("# on ")
            .context("a block names no machine")?;
        blocks.push(Block {
            machine: machine.to_owned(),
            lines: lines.map(str::to_owned).collect(),
        });
    }
    Ok(blocks)
}

/// The machines of the page: directories below one, and addresses of a network of this run.
struct Machines {
    root: tempfile::TempDir,
    network: String,
    servers: BTreeMap<String, Child>,
}

impl Machines {
    fn new() -> Result<Self> {
        let root = tempfile::tempdir()?;
        let second = std::process::id() % 250 + 2;
        let machines = Self {
            root,
            network: format!("127.{second}.0."),
            servers: BTreeMap::new(),
        };
        let tools = machines.tools();
        fs::create_dir_all(&tools)?;
        fs::create_dir_all(machines.root.path().join("backup"))?;
        std::os::unix::fs::symlink(etcd()?, tools.join("etcd"))?;
        program(&tools.join("orchestrator"), ORCHESTRATOR)?;
        program(&tools.join("scp"), SCP)?;
        Ok(machines)
    }

    fn tools(&self) -> PathBuf {
        self.root.path().join("tools")
    }

    /// The machine's directory, with what the page takes for granted.
    fn machine(&self, name: &str) -> Result<PathBuf> {
        let machine = self.root.path().join(name);
        // What another machine copied here may be there first.
        if !machine.join("usr").exists() {
            for directory in DIRECTORIES {
                fs::create_dir_all(machine.join(directory))?;
            }
            let programs = machine.join("usr/local/bin");
            match std::env::var_os(FORMER) {
                Some(former) => drop(fs::copy(former, programs.join("orchestrator"))?),
                None => drop(control_plane::link_program(&programs)?),
            }
            // The next version.
            fs::hard_link(std::env::current_exe()?, machine.join("orchestrator.new")).or_else(
                |_| fs::copy(std::env::current_exe()?, machine.join("orchestrator.new")).map(drop),
            )?;
        }
        Ok(machine)
    }

    fn run(&mut self, block: &Block) -> Result<()> {
        let mut script: Vec<&str> = Vec::new();
        let mut exports: Vec<&str> = Vec::new();
        for line in &block.lines {
            let Some(verb) = line.strip_prefix("systemctl ") else {
                script.push(line);
                exports.extend(line.starts_with("export ").then_some(&**line));
                continue;
            };
            self.sh(&block.machine, &script)?;
            script = exports.clone();
            match verb {
                "start orchestrator-server" => self.start(&block.machine)?,
                "stop orchestrator-server" => self.stop(&block.machine)?,
                "start haproxy" => self.start_balancer(&block.machine)?,
                other => bail!("systemctl {other}: the page has no such service"),
            }
        }
        self.sh(&block.machine, &script)
    }

    fn sh(&self, name: &str, lines: &[&str]) -> Result<()> {
        let lines: Result<Vec<String>> = lines.iter().map(|line| checked(line)).collect();
        let machine = self.machine(name)?;
        let mut command = self.command("sh", name, &machine);
        command.args(["-euc", &self.here(&lines?.join("\n"), &machine)]);
        let output = command.stdin(Stdio::null()).output()?;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success(),
            "{}\n{shown}{said}{}",
            output.status,
            self.logs()
        );
        print!("{shown}");
        Ok(())
    }

    fn command(&self, program: &str, name: &str, machine: &Path) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.tools().display()));
        command
            .env("ROOT", self.root.path())
            .env("MACHINE", machine);
        command.env("NETWORK", &self.network).env("NAME", name);
        command.current_dir(machine);
        command
    }

    /// A text of the page with the paths and addresses that stand for its own.
    fn here(&self, text: &str, machine: &Path) -> String {
        let mut text = text.replace("10.0.0.", &self.network);
        for path in DIRECTORIES {
            text = text.replace(
                &format!("/{path}"),
                &format!("{}/{path}", machine.display()),
            );
        }
        text.replace(
            "/backup/",
            &format!("{}/backup/", self.root.path().display()),
        )
    }

    fn start(&mut self, name: &str) -> Result<()> {
        let machine = self.machine(name)?;
        let flags = fs::read_to_string(machine.join("etc/orchestrator/server.env"))?;
        let flags = flags
            .trim()
            .strip_prefix("ARGS=")
            .context("server.env has no ARGS")?;
        let program = machine.join("usr/local/bin/orchestrator");
        let mut command = self.command(&program.to_string_lossy(), name, &machine);
        command
            .args(["server", "--data-dir"])
            .arg(machine.join("var/lib/orchestrator/server"));
        command.args(flags.split_whitespace());
        let log = File::options()
            .create(true)
            .append(true)
            .open(machine.join("log"))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        self.servers.insert(name.to_owned(), child);
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.starts_with("ready") {
                    // Nobody listens any more after the first.
                    let _ = ready.send(());
                }
            }
        });
        let started = is_ready.recv_timeout(START_TIMEOUT);
        started.map_err(|_| anyhow::anyhow!("the server does not start\n{}", self.logs()))
    }

    /// Returns when it takes connections.
    fn start_balancer(&mut self, name: &str) -> Result<()> {
        let machine = self.machine(name)?;
        let mut haproxy = Command::new("haproxy");
        haproxy
            .args(["-db", "-f"])
            .arg(machine.join("etc/haproxy/haproxy.cfg"));
        let log = File::create(machine.join("log"))?;
        haproxy.stdin(Stdio::null()).stdout(log.try_clone()?);
        let child = haproxy.stderr(log).spawn();
        let child = child.context("no haproxy: run `cargo xtask operating`")?;
        self.servers.insert(name.to_owned(), child);
        let address = format!("{}:6443", name.replace("10.0.0.", &self.network));
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(&address).is_err() {
            ensure!(
                Instant::now() < deadline,
                "haproxy does not start\n{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn stop(&mut self, name: &str) -> Result<()> {
        let mut child = self
            .servers
            .remove(name)
            .context("its server does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        child.wait()?;
        Ok(())
    }

    /// The end of every machine's log.
    fn logs(&self) -> String {
        let mut text = String::new();
        for name in self.servers.keys() {
            let log = self.root.path().join(name).join("log");
            let log = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(15)..];
            text.push_str(&format!("--- {name}\n{}\n", last.join("\n")));
        }
        text
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for child in self.servers.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A line whose output is on the page is a test of it.
fn checked(line: &str) -> Result<String> {
    let Some((command, printed)) = line.split_once("   # prints ") else {
        return Ok(line.to_owned());
    };
    let printed = if printed == "nothing" { "" } else { printed };
    ensure!(!printed.contains('\''), "what is printed has a quote");
    Ok(format!(
        "printed=$({command}) || true; [ \"$printed\" = '{printed}' ] || \
         {{ echo \"printed: $printed, on the page: {printed}\" >&2; exit 1; }}"
    ))
}

/// The machine's own binary, on its own data, as without the flag on a machine that is one.
const ORCHESTRATOR: &str = r#"#!/bin/sh
own="$MACHINE/usr/local/bin/orchestrator"
data="$MACHINE/var/lib/orchestrator/server"
case "$1 $2" in
"server token" | "server members" | "snapshot restore" | "store migrate") exec "$own" "$@" --data-dir "$data" ;;
*) exec "$own" "$@" ;;
esac
"#;

/// From this machine to another one: `scp FILE ADDRESS:PATH`, whose path is still that of this machine.
const SCP: &str = r#"#!/bin/sh
set -e
last=${2%%:*}
to="$ROOT/10.0.0.${last##*.}"
path=${2#*:}
mkdir -p "$to/etc/orchestrator"
cp "$1" "$to/${path#"$MACHINE"}"
"#;

fn program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

fn etcd() -> Result<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.dev/cache/etcd-server/etcd");
    let found = [cache, "/usr/bin/etcd".into()]
        .into_iter()
        .find(|it| it.exists());
    Ok(found
        .context("no etcd: run `cargo xtask operating`")?
        .canonicalize()?)
}
