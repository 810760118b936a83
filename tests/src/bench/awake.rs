//! Keeps the cores from falling asleep: on a virtual machine, waking one costs more than the packet that
//! woke it, and never the same. Every side has it so.

use std::env;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A process a core that turns whenever nobody else wants to (SCHED_IDLE of sched(7)), until this is
/// dropped.
pub struct Awake(Vec<Child>);

impl Awake {
    pub fn keep() -> Result<Self> {
        let own = env::current_exe()?;
        let mut awake = Self(Vec::new());
        for core in 0..thread::available_parallelism()?.get() {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(&own);
            command.args(["load", "turn", &core.to_string()]);
            let child = command.stdin(Stdio::null()).spawn().context("chrt")?;
            awake.0.push(child);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The child's side: turns on one core until it is killed.
pub fn turn(core: &str) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut cores = CpuSet::new();
    cores.set(core.parse()?)?;
    sched_setaffinity(Pid::from_raw(0), &cores)?;
    loop {
        std::hint::spin_loop();
    }
}
