//! Scenarios that share what is costly to make: a cluster. The first scenario that runs makes it, and it
//! is removed after the last one, whatever failed.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

/// A scenario panics where the cluster does not do as its name says.
pub type Scenario<S> = (&'static str, fn(&S));

/// The main function of a test binary: runs the scenarios one after the other.
pub fn run<S: Send + 'static>(
    start: fn() -> Result<S>,
    end: fn(S) -> Result<()>,
    scenarios: impl IntoIterator<Item = Scenario<S>>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let shared: Arc<Mutex<Option<Result<S, String>>>> = Arc::default();
    let trial = |(name, scenario): Scenario<S>| {
        let shared = Arc::clone(&shared);
        Trial::test(name, move || {
            // A scenario that panicked leaves the cluster as good as it was.
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let made = shared.get_or_insert_with(|| start().map_err(|error| format!("{error:#}")));
            scenario(made.as_ref().map_err(Failed::from)?);
            Ok(())
        })
    };
    let conclusion = libtest_mimic::run(&arguments, scenarios.into_iter().map(trial).collect());
    let shared = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Ok(made)) = shared
        && let Err(error) = end(made)
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
