//! `cargo xtask mutate`: are the tests any good? Puts known bugs into the datapath, one at a time, and
//! looks which level notices. The sources are as before when it ends, also when it fails.

mod bugs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cluster::workspace;
use crate::{build_ebpf, command, setup};
use bugs::{BUGS, Bug};

/// Levels that judge the programs, quickest first. They read the object that they are told of.
const PACKET: [&str; 3] = ["packet_oracle", "packet_fuzz", "packet"];

/// Levels that judge what is computed for the maps.
const DESIRED: [(&str, &[&str]); 3] = [
    ("unit", &["--package", "datapath", "--lib"]),
    ("golden", &["--package", "tests", "--test", "golden"]),
    ("oracle", &["--package", "tests", "--test", "oracle"]),
];

/// `parts`: only bugs whose name or file has one of them.
pub fn run(parts: &[String]) -> Result<ExitCode> {
    for bug in BUGS {
        bug.check()?;
    }
    let wanted = |bug: &&Bug| {
        let named = |part: &String| bug.name.contains(part) || bug.file.contains(part);
        parts.is_empty() || parts.iter().any(named)
    };
    let binaries = binaries()?;
    let mut survivors = 0;
    for bug in BUGS.iter().filter(wanted) {
        let started = Instant::now();
        let caught = bug.try_out(&binaries)?;
        survivors += usize::from(caught.is_none());
        let by = caught.unwrap_or("NOBODY");
        println!(
            "{by:<14} {:>5.0} s  {}",
            started.elapsed().as_secs_f64(),
            bug.name
        );
    }
    println!("{survivors} bugs that no level noticed");
    Ok(if survivors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Bug {
    fn path(&self) -> PathBuf {
        workspace().join(self.file)
    }

    /// The text must stand there once, or the bug is none any more.
    fn check(&self) -> Result<()> {
        let source = fs::read_to_string(self.path())?;
        let times = source.matches(self.from).count();
        ensure!(
            times == 1,
            "{}: the text of \"{}\" stands there {times} times, not once; bring \
             xtask/src/mutate/bugs.rs up to date:\n{}",
            self.file,
            self.name,
            self.from
        );
        Ok(())
    }

    /// Who notices it.
    fn try_out(&self, binaries: &[(String, PathBuf)]) -> Result<Option<&'static str>> {
        let mutated = Mutated::write(self)?;
        if !self.file.starts_with("orchestrator-ebpf") {
            return DESIRED
                .iter()
                .find_map(
                    |(level, args)| match fails(command::cargo().arg("test").args(*args)) {
                        Ok(false) => None,
                        Ok(true) => Some(Ok(*level)),
                        Err(error) => Some(Err(error)),
                    },
                )
                .transpose();
        }
        let built =
            build_ebpf::compile(&setup::ensure()?, &build_ebpf::target().join("mutate"), &[]);
        drop(mutated);
        let Ok(object) = built else {
            return Ok(Some("compiler"));
        };
        for level in PACKET {
            let (_, binary) = binaries
                .iter()
                .find(|(name, _)| name == level)
                .context("no such binary")?;
            let mut test = Command::new(binary);
            test.current_dir(workspace().join("tests"))
                .env("ORCHESTRATOR_BPF_OBJECT", &object);
            if fails(&mut test)? {
                return Ok(Some(level));
            }
        }
        Ok(None)
    }
}

/// A file with its bug in, until this is dropped.
struct Mutated {
    path: PathBuf,
    source: String,
}

impl Mutated {
    fn write(bug: &Bug) -> Result<Mutated> {
        let path = bug.path();
        let source = fs::read_to_string(&path)?;
        fs::write(&path, source.replacen(bug.from, bug.to, 1))?;
        Ok(Mutated { path, source })
    }
}

impl Drop for Mutated {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.source) {
            eprintln!("{} still has a bug in it: {error}", self.path.display());
        }
    }
}

/// Whether tests find something wrong, be it that they no longer compile.
fn fails(tests: &mut Command) -> Result<bool> {
    tests
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(!tests
        .status()
        .with_context(|| format!("run {tests:?}"))?
        .success())
}

/// The tests that read an object, compiled and, with the object as it is, content.
fn binaries() -> Result<Vec<(String, PathBuf)>> {
    let object = build_ebpf::build(&setup::ensure()?)?;
    let mut cargo = command::cargo();
    cargo.args([
        "test",
        "--package",
        "tests",
        "--no-run",
        "--message-format",
        "json",
    ]);
    cargo.args(PACKET.iter().flat_map(|level| ["--test", level]));
    let mut found = Vec::new();
    for line in command::output(&mut cargo)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let (name, path) = (&message["target"]["name"], &message["executable"]);
        if let (Some(name), Some(path)) = (name.as_str(), path.as_str()) {
            found.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    for (name, binary) in &found {
        let mut test = Command::new(binary);
        test.current_dir(workspace().join("tests"))
            .env("ORCHESTRATOR_BPF_OBJECT", &object);
        if PACKET.contains(&name.as_str()) && fails(&mut test)? {
            bail!(
                "{name} fails without any bug: {}",
                Path::new(binary).display()
            );
        }
    }
    Ok(found)
}
