//! Processes that are nobody's children here: their end, from the kernel, and how it is brought about.

use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Resolves once the process has ended; an error if there is none of that number.
pub async fn ended(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    #[expect(
        deprecated,
        reason = "unsound where the descriptor may be closed early; this one is owned"
    )]
    let process = AsyncFd::with_interest(process, Interest::READABLE)?;
    process.readable().await.map(drop)
}

/// Kills the process of that number, if `is_it` says that the number is still that of the one that is meant.
pub async fn kill(pid: u32, is_it: impl Future<Output = bool>) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    // From here on it is one process that is asked about and killed.
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    if is_it.await {
        pidfd_send_signal(&process, Signal::KILL)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_process_is_killed_if_it_is_the_one_that_is_meant() {
        let mut command = Command::new("cat");
        let mut process = command.stdin(Stdio::piped()).spawn().expect("cat is there");
        kill(process.id(), async { false })
            .await
            .expect("it is there");
        assert!(
            process.try_wait().expect("it is ours").is_none(),
            "it lives"
        );
        kill(process.id(), async { true })
            .await
            .expect("it is there");
        assert!(!process.wait().expect("it has ended").success());
        assert!(kill(process.id(), async { true }).await.is_err());
    }

    #[tokio::test]
    async fn a_process_is_waited_for_until_it_ends() {
        let mut command = Command::new("cat");
        let mut process = command.stdin(Stdio::piped()).spawn().expect("cat is there");
        let mut waiting = Box::pin(ended(process.id()));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
        assert!(early.is_err(), "it runs");
        drop(process.stdin.take());
        let late = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        assert!(late.expect("in time").is_ok());
        process.wait().expect("it has ended");
        assert!(ended(process.id()).await.is_err(), "nobody is there");
    }
}
