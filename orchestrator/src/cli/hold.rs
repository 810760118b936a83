//! `orchestrator hold`: keeps the sockets of a node's DNS open between two agents. One thread, no runtime.

use std::path::PathBuf;

use agent::dns::hold;
use sys::privileges;

/// Hold the sockets of a node's DNS, which are standard input and output (the agent starts this, not a person).
#[derive(clap::Args)]
pub struct Args {
    /// Names this process while it is wanted.
    file: PathBuf,
}

/// Runs until the file is gone.
pub fn run(args: Args) -> anyhow::Result<()> {
    privileges::keep(privileges::OF_HOLDER)?;
    hold::hold(&args.file);
    Ok(())
}
