//! Which processes are ours: a pid file holds `<pid> <start time>`, and a process counts only
//! while /proc confirms both and what it runs. Pid numbers are reused; the pair is not.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A process that was confirmed to be ours when this was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    started: u64,
}

impl Process {
    /// The process of this pid file, when it still runs and its command line holds `program`.
    pub fn from_pid_file(path: &Path, program: &str) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let mut words = text.split_whitespace();
        let pid: i32 = words.next()?.parse().ok()?;
        let process = Self {
            pid,
            started: start_time(pid)?,
        };
        // dockerd writes only its number; its command line must then be enough.
        let same = words
            .next()
            .is_none_or(|w| w.parse() == Ok(process.started));
        (same && command_line(pid).is_some_and(|line| line.contains(program))).then_some(process)
    }

    pub fn pid(self) -> i32 {
        self.pid
    }

    pub fn alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// SIGTERM, then SIGKILL when `patience` is over; returns when the process is gone.
    pub fn stop(self, patience: Duration) -> Result<()> {
        for (signal, patience) in [(Signal::SIGTERM, patience), (Signal::SIGKILL, PATIENCE)] {
            if !self.alive() {
                return Ok(());
            }
            match kill(Pid::from_raw(self.pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => return Err(e).context(format!("cannot end process {}", self.pid)),
            }
            if wait_for(patience, || !self.alive()) {
                return Ok(());
            }
        }
        bail!("process {} does not end, not even by SIGKILL", self.pid)
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` holds, at most `patience`; says whether it did.
pub fn wait_for(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if started.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Every process whose command line holds all of `words`.
pub fn with_command_line(words: &[&str]) -> Vec<i32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = command_line(*pid).unwrap_or_default();
            words.iter().all(|word| line.contains(word))
        })
        .collect()
}

/// A zombie has no command line and does not count as running.
pub fn command_line(pid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline"))
        .ok()
        .filter(|b| !b.is_empty())?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted after it.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_counts_only_while_number_and_start_time_agree() {
        let dir = std::env::temp_dir().join(format!("xtask-processes-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("pid");
        let own = std::process::id() as i32;
        let started = start_time(own).unwrap();
        fs::write(&file, format!("{own} {started}\n")).unwrap();
        assert_eq!(
            Process::from_pid_file(&file, "xtask").map(Process::pid),
            Some(own)
        );
        fs::write(&file, format!("{own} {}\n", started + 1)).unwrap();
        assert_eq!(Process::from_pid_file(&file, "xtask"), None);
        fs::write(&file, format!("{own} {started}\n")).unwrap();
        assert_eq!(Process::from_pid_file(&file, "no such program"), None);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn stopping_waits_until_the_process_is_gone() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let process = Process {
            pid,
            started: start_time(pid).unwrap(),
        };
        process.stop(PATIENCE).unwrap();
        assert!(!process.alive());
        child.wait().unwrap();
    }
}
