//! `cargo xtask fuzz [PARSER] [--seconds N]`: each parser for so long, with an input that it does not bear
//! written to `target/fuzz`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use fuzz::{PARSERS, Parser, Until, run};

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
    for parser in parsers {
        good &= fuzz(parser, Duration::from_secs(seconds), &directory)?;
    }
    Ok(good)
}

fn fuzz(parser: &Parser, lasts: Duration, directory: &Path) -> Result<bool> {
    let current = directory.join(format!("{}.current", parser.name));
    let seed = SystemTime::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    let result = run(parser, seed, Until::Elapsed(lasts), |input| {
        let _ = fs::write(&current, input);
    });
    fs::remove_file(&current)?;
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
