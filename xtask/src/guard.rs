//! A process that stands between xtask and what it runs, so that nothing of it outlives xtask, by
//! whatever signal xtask ends.
//!
//! The guard adopts every orphan below it (PR_SET_CHILD_SUBREAPER of prctl(2)), so also programs that
//! made themselves daemons stay its descendants. Its standard input is a pipe that only xtask holds open:
//! the kernel closes it when xtask is gone, and the guard then ends all its descendants. After a run that
//! ended by itself nothing is ended: a Docker Engine that a test has started stays for the next one.

use std::{
    ffi::OsString,
    fs,
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::processes::wait_for;

/// How long descendants may take to end by SIGTERM, before SIGKILL.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(3);
/// Orphans are adopted one level at a time, so several passes are needed.
const KILL_PASSES: usize = 20;

/// Set when xtask is gone.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Starts the command below a guard. The child's standard input belongs to the guard, its standard output is
/// a pipe.
pub fn spawn(command: &Command) -> Result<Child> {
    guarded(command)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the guard")
}

/// The same for a program that nobody listens to.
pub fn spawn_silent(command: &Command) -> Result<Child> {
    guarded(command)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the guard")
}

/// The same for a program whose errors can be read.
pub fn spawn_talking(command: &Command) -> Result<Child> {
    guarded(command)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the guard")
}

/// The same for a program whose output, errors too, goes to a file.
pub fn spawn_logged(command: &Command, log: &fs::File) -> Result<Child> {
    guarded(command)
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .spawn()
        .context("cannot start the guard")
}

fn guarded(command: &Command) -> Command {
    // The file may be replaced by a build while this runs; the kernel still has the old one.
    let mut guarded = Command::new("/proc/self/exe");
    guarded
        .args(["guard", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => guarded.env(name, value),
            None => guarded.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        guarded.current_dir(dir);
    }
    guarded.stdin(Stdio::piped());
    guarded
}

/// The guard's side: runs the program, and ends like it.
pub fn run(program: &[OsString]) -> Result<ExitCode> {
    prctl::set_child_subreaper(true).context("cannot adopt orphans")?;
    let (name, arguments) = program.split_first().context("guard: no program")?;
    let child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", name.to_string_lossy()))?;
    thread::spawn(|| {
        let mut nothing = [0; 1];
        // Xtask writes nothing: the read ends with xtask.
        let _ = std::io::stdin().read(&mut nothing);
        ENDING.store(true, Ordering::SeqCst);
        end_descendants();
        std::process::exit(1);
    });
    let own = Pid::from_raw(child.id() as i32);
    let code = wait(own)?;
    while ENDING.load(Ordering::SeqCst) {
        // The other thread exits when the program's descendants have ended too.
        thread::park();
    }
    Ok(code)
}

/// Reaps until the program itself has ended.
fn wait(own: Pid) -> Result<ExitCode> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == own => {
                return Ok(ExitCode::from(code as u8));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == own => {
                return Ok(ExitCode::from(128 + signal as u8));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waitpid"),
        }
    }
}

/// True when the run was ended by a signal, as [`run`] reports it.
pub fn was_killed(status: std::process::ExitStatus) -> bool {
    status.signal().is_some() || status.code().is_some_and(|code| code > 128)
}

fn end_descendants() {
    let own = std::process::id() as i32;
    for pid in descendants(own) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    wait_for(TERMINATION_TIMEOUT, || descendants(own).is_empty());
    for _ in 0..KILL_PASSES {
        let left = descendants(own);
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        wait_for(Duration::from_millis(200), || descendants(own).is_empty());
    }
}

/// Every living process below `root`, in no order.
fn descendants(root: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(i32, i32)> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == pid)
                .map(|(it, _)| it),
        );
    }
    found.split_off(1)
}

/// None for a zombie, which has ended.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted after it.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.next()?.parse().ok()
}
