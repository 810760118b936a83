//! What `cargo xtask test` runs does not outlive it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts the guard over a shell that starts a child, a daemon and a daemon's child, and writes all pids.
fn start(pids: &Path) -> Child {
    let script = format!(
        "echo $$ > {0}; sleep 1000 & echo $! >> {0}; \
         setsid sh -c 'trap \"\" TERM; sleep 1001 & echo $! >> {0}; echo $$ >> {0}; echo end >> {0}; wait' & wait",
        pids.display()
    );
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["guard", "--", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn runs(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').unwrap_or(0)..].starts_with(") Z"))
}

#[test]
fn when_xtask_is_gone_its_guard_ends_daemons_and_those_that_ignore_sigterm() {
    let dir = scratch("guard");
    let pids = dir.join("pids");
    let mut guard = start(&pids);
    let read = || fs::read_to_string(&pids).unwrap_or_default();
    wait_until("the processes start", || read().ends_with("end\n"));
    let text = read();
    let all: Vec<&str> = text.lines().filter(|line| *line != "end").collect();
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|pid| runs(pid)));
    // The kernel closes this end when xtask is killed.
    drop(guard.stdin.take());
    wait_until("the processes end", || !all.iter().any(|pid| runs(pid)));
    assert!(!guard.wait().unwrap().success());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_guarded_program_that_ends_by_itself_gives_its_exit_code() {
    let ended = |script: &str| {
        let mut guard = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["guard", "--", "sh", "-c", script])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = guard.stdin.take();
        let code = guard.wait().unwrap().code();
        drop(stdin);
        code
    };
    assert_eq!(ended("exit 7"), Some(7));
    assert_eq!(ended("kill -9 $$"), Some(137));
}

fn scratch(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}
