//! The command line: one file a subcommand; the only place that prints.

mod datapath;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An orchestrator whose network is the kernel.
#[derive(Parser)]
#[command(name = "orchestrator", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One variant a subcommand; each lives in the file of its name.
#[derive(Subcommand)]
enum Command {
    Datapath(datapath::Args),
}

/// Parses the command line and runs the subcommand; the exit code is the process's.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Datapath(args) => datapath::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
