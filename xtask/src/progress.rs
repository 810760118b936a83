//! One line and one time a step. While a step runs, a spinner shows its latest output; where nobody
//! watches (a pipe, a log file), a line every ten seconds does.

use std::{
    io::{BufRead as _, BufReader, IsTerminal as _, Read},
    process::{Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::command;

/// How often a step says in a log that it still runs.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// Characters of a note; longer ones would wrap.
const NOTE_WIDTH: usize = 52;

/// Prints the steps of one command.
pub struct Progress {
    started: Instant,
    terminal: bool,
}

/// One running step; what it notes is shown on its line.
pub struct Step {
    spinner: Option<ProgressBar>,
    name: String,
    /// The step's result, for its last line.
    note: Mutex<String>,
    /// The newest line of a program that it runs.
    latest: Arc<Mutex<String>>,
    /// Crates that cargo has begun in this step.
    crates: AtomicUsize,
}

/// Prints that a step still runs, until it is dropped.
struct SignsOfLife {
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Runs one step and prints its line when it ends, well or not.
    pub fn step<T>(&self, what: &str, run: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        let step = Step {
            spinner: self.spinner(what),
            name: what.to_owned(),
            note: Mutex::default(),
            latest: Arc::default(),
            crates: AtomicUsize::new(0),
        };
        let started = Instant::now();
        let signs = (!self.terminal).then(|| SignsOfLife::of(&step, started));
        let result = run(&step);
        drop(signs);
        if let Some(spinner) = &step.spinner {
            spinner.finish_and_clear();
        }
        let mark = if result.is_ok() { "ok" } else { "!!" };
        let note = locked(&step.note);
        println!(
            "{mark}  {what:<22} {note:<NOTE_WIDTH$} {:>6.1} s",
            started.elapsed().as_secs_f64()
        );
        result
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn spinner(&self, what: &str) -> Option<ProgressBar> {
        if !self.terminal {
            return None;
        }
        let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(120));
        Some(spinner)
    }
}

impl Step {
    /// What was found or done, shown on the step's line when it ends.
    pub fn note(&self, text: impl Into<String>) {
        *locked(&self.note) = text.into();
    }

    /// What the step is at now; the next call replaces it.
    pub fn show(&self, text: &str) {
        let text: String = text.trim().chars().take(NOTE_WIDTH).collect();
        if text.is_empty() {
            return;
        }
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{}: {text}", self.name));
        }
        *locked(&self.latest) = text;
    }

    /// Like [`command::output`], and shows each line that the program writes while it runs.
    pub fn run(&self, command: &mut Command) -> Result<String> {
        let shown = command::describe(command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let (stdout, stderr) = thread::scope(|scope| {
            let errors = scope.spawn(|| self.follow(stderr));
            (self.follow(stdout), errors.join().unwrap_or_default())
        });
        let status = child
            .wait()
            .with_context(|| format!("`{shown}` was lost"))?;
        command::checked(&shown, status, &stdout, &stderr)
    }

    /// Shows line by line, and returns all of it.
    pub fn follow(&self, output: impl Read) -> String {
        let mut all = String::new();
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line);
            match text.trim_start().strip_prefix("Compiling ") {
                Some(name) => {
                    let count = self.crates.fetch_add(1, Ordering::Relaxed) + 1;
                    let name = name.split(" (").next().unwrap_or(name);
                    self.show(&format!("crate {count}: {name}"));
                }
                None => self.show(&text),
            }
            all.push_str(&text);
            line.clear();
        }
        all
    }
}

impl SignsOfLife {
    fn of(step: &Step, started: Instant) -> Self {
        println!("..  {}", step.name);
        let (name, latest) = (step.name.clone(), step.latest.clone());
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let end = ended.clone();
        let run = move || {
            let (ended, changed) = &*end;
            let mut over = locked(ended);
            while !*over {
                let waited = changed.wait_timeout(over, SIGN_OF_LIFE);
                let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                over = guard;
                if timeout.timed_out() && !*over {
                    let (latest, seconds) = (locked(&latest), started.elapsed().as_secs());
                    println!("..  {name:<22} {:<NOTE_WIDTH$} {seconds:>6} s", *latest);
                }
            }
        };
        Self {
            ended,
            thread: Some(thread::spawn(run)),
        }
    }
}

impl Drop for SignsOfLife {
    fn drop(&mut self) {
        let (ended, changed) = &*self.ended;
        *locked(ended) = true;
        changed.notify_all();
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_the_newest_line_of_what_it_runs_and_counts_crates() {
        let progress = Progress {
            started: Instant::now(),
            terminal: false,
        };
        let script = "echo one; echo '   Compiling libc v0.2.1' >&2; echo '   Compiling api v0.1.0 (/a)' >&2";
        progress
            .step("a step", |step| {
                assert_eq!(step.run(Command::new("sh").args(["-c", script]))?, "one\n");
                assert_eq!(step.crates.load(Ordering::Relaxed), 2);
                assert!(!locked(&step.latest).is_empty());
                let failed = step.run(Command::new("sh").args(["-c", "echo why >&2; exit 3"]));
                let text = failed.unwrap_err().to_string();
                assert!(
                    text.contains("why") && text.contains("exit status: 3"),
                    "{text}"
                );
                Ok(())
            })
            .unwrap();
    }
}
