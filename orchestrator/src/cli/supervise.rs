//! A program that runs as long as this process: started again when it ends by itself.
//!
//! A thread of its own starts it and waits for it: the kernel may be told to end a child with the thread that
//! started it (`setpriv --pdeathsig`).

use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// One that ran so long did not fail at once: it is started again at once.
const HEALTHY: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long it may take to end in order.
const FAREWELL: Duration = Duration::from_secs(10);

pub struct Supervisor {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_stopping: bool,
    /// While it is surely this one's.
    pid: Option<Pid>,
}

impl Supervisor {
    /// Runs what `make` says, again and again.
    pub fn start(name: &'static str, make: impl Fn() -> Command + Send + 'static) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || of_thread.run(name, make))
            .with_context(|| format!("no thread for {name}"))?;
        Ok(Self { shared, thread })
    }

    /// Ends it in order, and by force when that takes too long.
    pub async fn stop(self) {
        self.shared.state().is_stopping = true;
        self.shared.changed.notify_all();
        self.shared.signal(Signal::SIGTERM);
        let deadline = Instant::now() + FAREWELL;
        let Self { shared, thread } = self;
        let waited = tokio::task::spawn_blocking(move || {
            let runs = |state: &mut State| state.pid.is_some();
            let left = deadline.saturating_duration_since(Instant::now());
            drop(
                shared
                    .changed
                    .wait_timeout_while(shared.state(), left, runs),
            );
            // Nothing, where it has ended.
            shared.signal(Signal::SIGKILL);
            thread.join()
        });
        if !matches!(waited.await, Ok(Ok(()))) {
            tracing::error!("the thread of a program that is run ended in disorder");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        // The lock is held: nobody reaps it meanwhile, so the number is not another's.
        let state = self.state();
        if let Some(pid) = state.pid {
            let _ = kill(pid, signal);
        }
    }

    fn run(&self, name: &str, make: impl Fn() -> Command) {
        let mut failures = 0_u64;
        while !self.state().is_stopping {
            let started = Instant::now();
            match self.run_once(make()) {
                Ok(_) if self.state().is_stopping => return,
                Ok(how) => tracing::error!(how, "{name} has ended and is started again"),
                Err(error) => tracing::error!(error = %format!("{error:#}"), "{name} does not run"),
            }
            failures = if started.elapsed() > HEALTHY {
                1
            } else {
                failures + 1
            };
            let pause = Duration::from_secs(failures.saturating_sub(1)).min(LONGEST_PAUSE);
            let state = self.state();
            let waiting = |state: &mut State| !state.is_stopping;
            drop(self.changed.wait_timeout_while(state, pause, waiting));
        }
    }

    /// From its start to its end.
    fn run_once(&self, mut command: Command) -> Result<String> {
        let program = command.get_program().to_owned();
        let mut child = {
            let mut state = self.state();
            if state.is_stopping {
                return Ok(String::new());
            }
            let child = command.spawn();
            let child =
                child.with_context(|| format!("{} cannot be run", program.to_string_lossy()))?;
            state.pid = Some(Pid::from_raw(i32::try_from(child.id())?));
            child
        };
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        // It stays a zombie, and its number its own, until nobody can signal it any more.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while let Err(nix::errno::Errno::EINTR) = waitid(Id::Pid(pid), flags) {}
        self.state().pid = None;
        self.changed.notify_all();
        Ok(child.wait()?.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_ends_is_started_again_until_it_is_stopped() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let script = format!("echo $$ >> {}; exec sleep 1000", log.display());
        let supervisor = Supervisor::start("sleep", move || {
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            command
        });
        let supervisor = supervisor.expect("started");
        let pids = || -> Vec<i32> {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.lines().filter_map(|line| line.parse().ok()).collect()
        };
        until("it runs", || pids().len() == 1).await;
        kill(Pid::from_raw(pids()[0]), Signal::SIGKILL).expect("a signal");
        until("it runs again", || pids().len() == 2).await;
        supervisor.stop().await;
        assert!(
            kill(Pid::from_raw(pids()[1]), None).is_err(),
            "it still runs"
        );
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_does_not_hold_the_stop_up() {
        let supervisor = Supervisor::start("none", || Command::new("/not/there"));
        supervisor.expect("started").stop().await;
    }
}
