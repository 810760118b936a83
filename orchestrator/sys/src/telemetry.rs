//! Log lines on stderr: one format for every subcommand. Never secrets: a token, a key or a
//! Secret's data is no field of any event.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// The environment variable that wins over the flag; takes tracing's filter syntax
/// (`debug`, `info,orchestrator::store=trace`).
pub const LEVEL_VARIABLE: &str = "ORCHESTRATOR_LOG";

/// Starts logging at `level` (a filter as above) unless the environment says otherwise. A second
/// call does nothing: tests and in-process clusters share the first one's output.
pub fn init(level: &str) -> Result<(), InvalidFilter> {
    let text = std::env::var(LEVEL_VARIABLE).unwrap_or_else(|_| level.to_owned());
    let filter = filter(&text)?;
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_span_events(FmtSpan::NONE)
        .with_target(true)
        .try_init();
    Ok(())
}

/// Log lines that were written while a [`Capture`] lasted.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

/// Keeps the log lines of this thread in memory, for tests of what is never logged.
pub struct Capture {
    pub lines: Lines,
    _guard: tracing::subscriber::DefaultGuard,
    /// While there is one subscriber alone, tracing (0.1) asks that of the thread which is the first to
    /// come by an event whether anybody wants it, and remembers the answer for all threads.
    _second: tracing::Dispatch,
}

impl Capture {
    /// At a level as [`init`] takes it.
    pub fn start(level: &str) -> Result<Self, InvalidFilter> {
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(level)?)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        Ok(Self {
            lines,
            _guard: tracing::subscriber::set_default(subscriber),
            _second: second,
        })
    }
}

impl Lines {
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log level that tracing does not understand.
#[derive(Debug, thiserror::Error)]
#[error("log level {0:?} is not understood: use error, warn, info, debug, trace or module=level,…")]
pub struct InvalidFilter(String);

fn filter(text: &str) -> Result<EnvFilter, InvalidFilter> {
    // A bare level is for our own code: dependencies at debug drown it.
    let is_bare = ["error", "warn", "info", "debug", "trace"].contains(&text);
    let directives = match text {
        "debug" | "trace" if is_bare => of_our_crates(text),
        _ => text.to_owned(),
    };
    EnvFilter::try_new(&directives).map_err(|_| InvalidFilter(text.to_owned()))
}

/// The crates of the product, by the name under which they log.
const CRATES: &[&str] = &[
    "agent",
    "api",
    "apiserver",
    "client",
    "controllers",
    "datapath",
    "orchestrator",
    "scheduler",
    "store",
    "sys",
];

/// Directives that set a level for our own crates and leave all others at info.
pub fn of_our_crates(level: &str) -> String {
    let ours = CRATES.iter().map(|name| format!(",{name}={level}"));
    format!("info{}", ours.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_debug_level_leaves_dependencies_at_info() {
        let directives = filter("debug").unwrap().to_string();
        assert!(directives.ends_with(",info"), "{directives}");
        assert!(directives.contains("apiserver=debug"), "{directives}");
        assert!(!directives.contains("hyper"), "{directives}");
        assert_eq!(filter("warn").unwrap().to_string(), "warn");
    }

    #[test]
    fn nonsense_is_refused_with_what_to_write_instead() {
        let error = filter("=loud=").unwrap_err().to_string();
        assert!(error.contains("use error, warn"), "{error}");
    }
}
