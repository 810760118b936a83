//! Setup, build, up, down, test, bench and tidy: what a developer types, as `cargo xtask …`.

mod applications;
mod bench;
mod build_ebpf;
mod cluster;
mod command;
mod conformance;
mod down;
mod engine;
mod fuzz;
mod guard;
mod idle;
mod images;
mod kubectl;
mod machine;
mod mutate;
mod nemesis;
mod operating;
mod packages;
mod processes;
mod progress;
mod python;
mod schemathesis;
mod servers;
mod setup;
mod simulate;
mod stack;
mod test;
mod tidy;
mod underlay;
mod up;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::DEFAULT;

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// From a bare machine to a running cluster (as root)
    Up {
        /// How many nodes; 3, or as many as the cluster has
        #[arg(long)]
        nodes: Option<u8>,
        /// How many servers: one with a store in a file, or 3 and more, each with an etcd of its own
        #[arg(long)]
        servers: Option<u8>,
        /// A second cluster beside the default one
        #[arg(long, default_value = DEFAULT)]
        cluster: String,
        /// Of nodes, pods and Services; both, if not given
        #[arg(long, value_enum)]
        ip_family: Option<cluster::IpFamily>,
        /// The binary that is shipped and measured: built later, runs faster
        #[arg(long)]
        release: bool,
        /// A binary that is not optimised, with line numbers
        #[arg(long, conflicts_with = "release")]
        debug: bool,
    },
    /// Stop the cluster and leave nothing behind (as root)
    Down {
        #[arg(long, default_value = DEFAULT)]
        cluster: String,
    },
    /// Find or install what builds the datapath
    Setup,
    /// Build the datapath object, with the verifier's figures where it can be loaded
    BuildEbpf,
    /// Make the demo images nginx, redis, django and tools
    Images {
        /// Those of the applications too
        #[arg(long)]
        applications: bool,
    },
    /// Run the tests: every level, or the named ones
    Test {
        #[arg(value_enum)]
        levels: Vec<test::Level>,
    },
    /// Run Kubernetes' own end-to-end tests against a dev cluster (as root)
    Conformance(conformance::Arguments),
    /// Run applications as people deploy them, through a node's death (as root)
    Applications(applications::Arguments),
    /// Leave an exec of every kubectl without a byte for an hour, and use it after that (as root)
    Idle(idle::Arguments),
    /// Measure: a table on the screen, JSON in target/bench (as root)
    Bench {
        #[arg(value_enum)]
        name: bench::Bench,
        /// Handed to the bench: parts of case names, or --short
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Feed damaged input to every parser that reads from the network, or to the named ones
    Fuzz {
        parsers: Vec<String>,
        /// How long each parser is fed
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Run every command of orchestrator/OPERATING.md: several servers, a lost one, a restored cluster
    Operating {
        /// The orchestrator of before: all machines begin with it, and the page upgrades two of them
        #[arg(long, value_name = "PROGRAM")]
        former: Option<PathBuf>,
    },
    /// Ask a server what its OpenAPI documents allow and forbid: no answer may be 5xx
    Schemathesis {
        /// Only documents whose path has one of these in it: apis/apps/v1
        parts: Vec<String>,
        /// Requests for each operation
        #[arg(long, default_value_t = 20)]
        examples: u32,
    },
    /// Run the simulation over many seeds; goes on where the last run ended
    Simulate(simulate::Arguments),
    /// Kill and stop servers and stores under load, and judge what clients saw; goes on where the last run ended
    Nemesis(nemesis::Arguments),
    /// Put known bugs into the datapath, one at a time, and see which tests notice (as root)
    Mutate {
        /// Only bugs whose name or file has one of these in it
        parts: Vec<String>,
    },
    /// Check imports, lengths, dead files and words
    Tidy,
    /// Run a program, and end all that is left of it when standard input ends
    #[command(hide = true)]
    Guard {
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up {
            nodes,
            servers,
            cluster,
            ip_family,
            release,
            debug,
        } => {
            let profile = match (release, debug) {
                (true, _) => up::Profile::Release,
                (_, true) => up::Profile::Debug,
                _ => up::Profile::Up,
            };
            up::run(&cluster, (nodes, servers), ip_family, profile)?;
        }
        Command::Down { cluster } => down::run(&cluster)?,
        Command::Setup => println!("{}", setup::ensure()?),
        Command::BuildEbpf => {
            let object = build_ebpf::build(&setup::ensure()?)?;
            println!("{}", object.display());
            if machine::is_root() {
                println!("{}", build_ebpf::report(&object)?);
            }
        }
        Command::Images { applications } => {
            let engine = engine::ensure()?;
            let mut made = images::ensure(&engine)?;
            if applications {
                made.extend(images::ensure_all(&engine, applications::IMAGES)?);
            }
            println!(
                "made: {}",
                if made.is_empty() {
                    "none, all are present".into()
                } else {
                    made.join(", ")
                }
            );
        }
        Command::Test { levels } => return test::run(&levels),
        Command::Bench { name, arguments } => return bench::run(name, &arguments),
        Command::Idle(arguments) => return idle::run(&arguments),
        Command::Applications(arguments) => return applications::run(&arguments),
        Command::Conformance(arguments) => return conformance::run(&arguments),
        Command::Operating { former } => return operating::run(former.as_deref()),
        Command::Fuzz { parsers, seconds } => return fuzz::run(&parsers, seconds),
        Command::Schemathesis { parts, examples } => return schemathesis::run(&parts, examples),
        Command::Simulate(arguments) => return simulate::run(&arguments),
        Command::Nemesis(arguments) => return nemesis::run(&arguments),
        Command::Mutate { parts } => return mutate::run(&parts),
        Command::Tidy => return tidy::run(),
        Command::Guard { program } => return guard::run(&program),
    }
    Ok(ExitCode::SUCCESS)
}
