//! Runs cases as named tests of a binary that has no other: one executor a binary.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};

use super::cases::Case;

/// What answers the cases' questions.
pub trait Executor: Send + 'static {
    /// Makes what the cases share, before the first of them.
    fn start() -> Result<Self>
    where
        Self: Sized;

    /// An error says who disagrees, and how.
    fn judge(&mut self, case: &Case) -> Result<()>;
}

/// Made by the first case, also if that fails.
type Shared<E> = Mutex<Option<Result<E, String>>>;

/// Every case is a test of its name; `skipped` says why none can run here. The executor goes before
/// this returns, whatever failed.
pub fn run<E: Executor>(cases: Vec<Case>, skipped: Option<&str>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One world at a time, and cases of one world side by side.
    arguments.test_threads = Some(1);
    if let Some(why) = skipped
        && !arguments.list
    {
        crate::prog::skipped("the oracle's cases", why);
    }
    let shared: Arc<Shared<E>> = Arc::default();
    let trials = cases.into_iter().map(|case| {
        let shared = Arc::clone(&shared);
        let name = case.name.clone();
        let judged =
            move || judge(&shared, &case).map_err(|error| Failed::from(format!("{error:#}")));
        Trial::test(name, judged).with_ignored_flag(skipped.is_some())
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(shared.lock().map(|mut executor| executor.take()));
    conclusion.exit_code()
}

fn judge<E: Executor>(shared: &Shared<E>, case: &Case) -> Result<()> {
    let mut shared = shared
        .lock()
        .map_err(|_| anyhow!("an earlier case panicked"))?;
    let made = shared.get_or_insert_with(|| E::start().map_err(|error| format!("{error:#}")));
    match made {
        Ok(executor) => executor.judge(case),
        Err(why) => Err(anyhow!("{why}")),
    }
}
