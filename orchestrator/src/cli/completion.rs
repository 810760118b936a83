//! `orchestrator completion SHELL`: a script for the shell.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

/// Print a completion script: `source <(orchestrator completion bash)`
#[derive(clap::Args)]
pub struct Args {
    /// For which shell
    shell: Shell,
}

/// Prints the script.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut super::Cli::command(),
        "orchestrator",
        &mut script,
    );
    // Written at once: generating straight into a closed pipe (`| head`) would panic.
    std::io::stdout().write_all(&script)?;
    Ok(())
}
