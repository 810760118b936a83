//! Work that keeps a processor busy for long, on a thread that gives way to all others.
//!
//! The kernel's scheduler shares processors among threads: one that computes for 100 ms costs every
//! other one whole time slices unless it is told to give way.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::thread;

use tokio::sync::oneshot;

/// Added to the niceness of the process; 19 is the most that Linux knows.
const NICENESS: i32 = 10;

/// Runs `work` to its end, also if the caller is gone by then. A panic in it is the caller's.
pub async fn give_way<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name("gives way".to_owned())
        .spawn(move || {
            // On Linux this is about the calling thread only. Refused, the work is done all the same.
            let _ = rustix::process::nice(NICENESS);
            let _ = done.send(panic::catch_unwind(AssertUnwindSafe(work)));
        })?;
    match result.await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(panic)) => panic::resume_unwind(panic),
        Err(_) => Err(io::Error::other("the thread ended without an outcome")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_work_has_a_lower_priority_and_others_keep_theirs() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let inside = give_way(own).await.unwrap();
        assert_eq!(inside, (before + NICENESS).min(19));
        assert_eq!(own(), before);
    }
}
