//! One line and one time a step; a spinner only where somebody watches.

use std::{
    cell::RefCell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Prints the steps of one command.
pub struct Progress {
    started: Instant,
    terminal: bool,
}

/// One running step; what it notes is shown on its line.
pub struct Step {
    spinner: Option<ProgressBar>,
    note: RefCell<String>,
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
            note: RefCell::default(),
        };
        let started = Instant::now();
        let result = run(&step);
        if let Some(spinner) = &step.spinner {
            spinner.finish_and_clear();
        }
        let mark = if result.is_ok() { "ok" } else { "!!" };
        let note = step.note.borrow();
        println!(
            "{mark}  {what:<22} {note:<52} {:>6.1} s",
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
    /// What was found or done, shown on the step's line.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        if let Some(spinner) = &self.spinner {
            spinner.set_message(text.clone());
        }
        *self.note.borrow_mut() = text;
    }
}
