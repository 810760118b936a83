//! The command line: one file a subcommand; the only place that prints.

mod agent;
mod completion;
mod datapath;
mod dev;
mod duration;
mod encrypt;
mod hold;
mod pause;
mod server;
mod snapshot;
mod store;
mod supervise;
mod token;
mod version;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workload::Terminated;
use workload::output::printable;

/// Where a server keeps its data if nothing else is said.
const SERVER_DATA_DIR: &str = "/var/lib/orchestrator/server";

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
    Server(server::Args),
    Dev(dev::Args),
    Agent(agent::Args),
    Token(token::Args),
    Snapshot(snapshot::Args),
    Store(store::Args),
    #[command(hide = true)]
    Pause(pause::Args),
    #[command(hide = true)]
    Hold(hold::Args),
    Datapath(datapath::Args),
    Version(version::Args),
    Completion(completion::Args),
    #[command(flatten)]
    Workload(workload::Verb),
}

/// Parses the command line and runs the subcommand; the exit code is the process's.
pub fn main() -> ExitCode {
    // The heap asks for its memory long before it is used. Without huge pages an idle server holds a fifth
    // less, is ready in half the time, and takes a seventh less CPU under load; an old kernel goes on without.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let result = match Cli::parse().command {
        Command::Server(args) => server::run(args),
        Command::Dev(args) => dev::run(args),
        Command::Agent(args) => agent::run(args),
        Command::Token(args) => token::run(args),
        Command::Snapshot(args) => snapshot::run(args),
        Command::Store(args) => store::run(args),
        Command::Pause(args) => pause::run(args),
        Command::Hold(args) => hold::run(args),
        Command::Datapath(args) => datapath::run(args),
        Command::Version(args) => version::run(args),
        Command::Completion(args) => completion::run(args),
        Command::Workload(verb) => workload::run(verb),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What the server says of an object may be its maker's words.
            eprintln!("error: {}", printable(&format!("{error:#}")));
            let of_command = error.downcast_ref::<Terminated>();
            of_command.map_or(ExitCode::FAILURE, |it| ExitCode::from(it.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
