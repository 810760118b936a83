//! `cargo xtask fuzz [PARSER] [--seconds N]`: each parser for so long, with an input that it does not bear
//! written to `target/fuzz`, and what was seen written to the page `fuzz/RUNS.md`.

mod record;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use fuzz::{PARSERS, Parser, Until, run};
use jiff::Timestamp;
use record::{Commit, Row};

/// The long form, for each parser.
const SECONDS: u64 = 600;

fn main() -> ExitCode {
    match fuzz_all() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz_all() -> Result<bool> {
    let (mut names, mut seconds) = (Vec::new(), SECONDS);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = arguments.next().context("--seconds N")?.parse()?,
            name => names.push(name.to_owned()),
        }
    }
    let chosen = |parser: &&Parser| names.is_empty() || names.iter().any(|it| it == parser.name);
    let parsers: Vec<&Parser> = PARSERS.iter().filter(chosen).collect();
    if parsers.is_empty() {
        let names: Vec<&str> = PARSERS.iter().map(|parser| parser.name).collect();
        bail!("there are {}", names.join(", "));
    }
    let directory = PathBuf::from("target/fuzz");
    fs::create_dir_all(&directory)?;
    // A stack that overflows ends the process: the input that did it is in this file then.
    let mut good = true;
    let commit = Commit::of_worktree();
    for parser in parsers {
        good &= fuzz(parser, Duration::from_secs(seconds), &directory, &commit)?;
    }
    Ok(good)
}

fn fuzz(parser: &Parser, lasts: Duration, directory: &Path, commit: &Commit) -> Result<bool> {
    let current = directory.join(format!("{}.current", parser.name));
    let seed = SystemTime::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    let began = Instant::now();
    let mut inputs = 0;
    let result = run(parser, seed, Until::Elapsed(lasts), |input| {
        inputs += 1;
        let _ = fs::write(&current, input);
    });
    fs::remove_file(&current)?;
    record::note(
        Path::new(record::PAGE),
        &Row {
            parser: parser.name,
            inputs,
            seconds: began.elapsed().as_secs(),
            seen: result.as_ref().ok(),
            found: result.as_ref().err().map(|found| found.why.as_str()),
            at: Timestamp::now(),
            commit,
        },
    )?;
    match result {
        Ok(seen) => {
            println!(
                "ok     {:<16} {:>9} inputs, {:>5.1} % taken, at most {:>5.1} MiB and {:.2} s for one",
                parser.name,
                seen.inputs,
                seen.accepted as f64 * 100.0 / seen.inputs.max(1) as f64,
                seen.most_bytes as f64 / 1024.0 / 1024.0,
                seen.slowest.as_secs_f64()
            );
            Ok(true)
        }
        Err(found) => {
            let file = directory.join(format!("{}.found", parser.name));
            fs::write(&file, &found.input)?;
            println!(
                "FAILED {:<16} {}: {}",
                parser.name,
                found.why,
                file.display()
            );
            Ok(false)
        }
    }
}
