//! `orchestrator pause`: the process of a sandbox. It holds namespaces, reaps what is left behind in
//! them, and ends when it is asked to. One thread, no runtime.
//!
//! Containers may share its PID namespace, so it keeps nothing that one of them could use: no user, no
//! capability, no way to the node, no memory that can be read.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};

/// Nobody: a user that owns nothing.
const NOBODY: u32 = 65534;

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
        enter(&path)?;
    }
    give_up_privileges()?;
    loop {
        match signals.wait().context("wait for a signal")? {
            Signal::SIGCHLD => reap(),
            _ => return Ok(()),
        }
    }
}

/// Enters the network namespace at that path, and takes the path away: it leads to the node.
fn enter(path: &Path) -> anyhow::Result<()> {
    let namespace = File::open(path).with_context(|| format!("open {}", path.display()))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
    umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", path.display()))
}

/// Becomes nobody. With the last user id that is root's the kernel clears the capabilities, too.
fn give_up_privileges() -> anyhow::Result<()> {
    if geteuid().is_root() {
        setgroups(&[]).context("leave all groups")?;
        setgid(Gid::from_raw(NOBODY)).context("change the group")?;
        setuid(Uid::from_raw(NOBODY)).context("change the user")?;
    }
    prctl::set_no_new_privs().context("give up new privileges")?;
    prctl::set_dumpable(false).context("close the memory to others")
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
