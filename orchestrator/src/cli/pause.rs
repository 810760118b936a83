//! `orchestrator pause`: the process of a sandbox. It holds namespaces, reaps what is left behind in
//! them, and ends when it is asked to. One thread, no runtime.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Context;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Hold a pod's namespaces (the agent starts this, not a person).
#[derive(clap::Args)]
pub struct Args {
    /// Enter this network namespace first.
    #[arg(long)]
    netns: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    // As the first process of a PID namespace it gets only signals that it waits for.
    signals.thread_block().context("block signals")?;
    if let Some(path) = args.netns {
        let namespace = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
    }
    loop {
        match signals.wait().context("wait for a signal")? {
            Signal::SIGCHLD => reap(),
            _ => return Ok(()),
        }
    }
}

/// Takes in every child that has ended; one signal may stand for many.
fn reap() {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
