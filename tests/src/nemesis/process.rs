//! One child process that can be killed, stopped and started again on the same data.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock;

/// It ends when this is dropped, or with this process.
pub struct Process {
    pub name: String,
    /// Its network namespace, if it is not this process's.
    netns: Option<String>,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// Besides this process's own.
    pub environment: Vec<(String, String)>,
    child: Option<Child>,
    is_stopped: bool,
}

impl Process {
    pub fn new(
        (name, netns): (String, Option<String>),
        program: PathBuf,
        arguments: Vec<String>,
        log: PathBuf,
    ) -> Self {
        Self {
            name,
            netns,
            program,
            arguments,
            log,
            environment: Vec::new(),
            child: None,
            is_stopped: false,
        }
    }

    /// Call it on a thread that lives as long as the child is to: the kernel ends the child with that thread.
    ///
    /// # Errors
    /// The program, or `setpriv`, is not there.
    pub fn start(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut words: Vec<String> = Vec::new();
        if let Some(netns) = &self.netns {
            words.extend(["nsenter".to_owned(), format!("--net=/run/netns/{netns}")]);
            words.push("--".to_owned());
        }
        words.extend(["setpriv", "--pdeathsig", "KILL", "--", "env"].map(str::to_owned));
        let environment = self.environment.iter();
        words.extend(environment.map(|(name, value)| format!("{name}={value}")));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.arg(&self.program).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?);
        let child = command.stderr(log).spawn();
        let child = child.with_context(|| format!("cannot start {}", self.name))?;
        self.child = Some(child);
        self.is_stopped = false;
        Ok(())
    }

    /// As a machine that loses its power, but for what the kernel has not yet written to the disk.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            clock::clean_up(child.id());
        }
    }

    /// As a machine that hangs.
    pub fn stop(&mut self) {
        self.is_stopped = self.signal(Signal::SIGSTOP);
    }

    pub fn go_on(&mut self) {
        if self.is_stopped {
            self.signal(Signal::SIGCONT);
            self.is_stopped = false;
        }
    }

    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it has ended without being killed.
    pub fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let end = text.len().saturating_sub(3000);
        String::from_utf8_lossy(&text[end..]).into_owned()
    }

    fn signal(&self, signal: Signal) -> bool {
        let id = self.id().map(|id| Pid::from_raw(id as i32));
        id.is_some_and(|id| kill(id, signal).is_ok())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
