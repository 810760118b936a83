//! The user's terminal and the streams of a process in a container.

use std::io::IsTerminal as _;

use anyhow::{Context as _, Result};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode, size};
use futures::SinkExt as _;
use futures::channel::mpsc::Sender;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use tokio::io::{AsyncRead, AsyncWriteExt as _, copy, stderr, stdin, stdout};
use tokio::signal::unix::{SignalKind, signal};

/// Bytes on their way from one stream to another.
const BUFFER_BYTES: usize = 64 * 1024;

/// A process has ended with a code of its own, which this one ends with too.
#[derive(Debug, thiserror::Error)]
#[error("command terminated with exit code {0}")]
pub struct Terminated(pub u8);

/// What is asked for; a terminal only where the user has one.
pub fn wanted(container: String, stdin: bool, tty: bool) -> AttachParams {
    let has_terminal = std::io::stdin().is_terminal();
    if tty && !has_terminal {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let tty = tty && has_terminal;
    AttachParams {
        container: Some(container),
        stdin,
        stdout: true,
        stderr: !tty,
        tty,
        max_stdin_buf_size: Some(BUFFER_BYTES),
        max_stdout_buf_size: Some(BUFFER_BYTES),
        max_stderr_buf_size: Some(BUFFER_BYTES),
    }
}

/// Connects the user with a process until it has ended.
///
/// # Errors
/// [`Terminated`] where the process has failed; why its end is not known.
pub async fn converse(mut process: AttachedProcess, tty: bool) -> Result<()> {
    let raw = tty.then(Raw::enter).transpose()?;
    let status = process.take_status();
    let sizes = process
        .terminal_size()
        .map(|sizes| tokio::spawn(resize(sizes)));
    let input = process.stdin().map(|mut to| {
        tokio::spawn(async move {
            // A process that reads no more, or is over, is told by its status.
            let _ = copy(&mut stdin(), &mut to).await;
            let _ = to.shutdown().await;
        })
    });
    let out = forward(process.stdout(), stdout());
    let err = forward(process.stderr(), stderr());
    let ended = tokio::try_join!(out, err);
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    for task in sizes.into_iter().chain(input) {
        task.abort();
    }
    drop(raw);
    ended.context("the output cannot be written")?;
    judge(status)
}

async fn forward<R, W>(from: Option<R>, mut to: W) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let Some(mut from) = from else {
        return Ok(());
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = tokio::io::AsyncReadExt::read(&mut from, &mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
    }
}

/// What the status of a process means.
pub fn judge(status: Option<Status>) -> Result<()> {
    let status = status.context("the connection was lost before the end of the command")?;
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    let details = status.details.and_then(|details| details.causes);
    let mut causes = details.into_iter().flatten();
    let code = causes.find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = code.and_then(|cause| cause.message?.parse::<i32>().ok());
    match code.map(|code| u8::try_from(code).unwrap_or(u8::MAX)) {
        Some(code) => Err(Terminated(code).into()),
        None => anyhow::bail!("{}", status.message.unwrap_or_default()),
    }
}

/// The terminal sends each key as it is pressed, until this is dropped.
struct Raw;

impl Raw {
    fn enter() -> Result<Self> {
        enable_raw_mode().context("the terminal cannot be set up")?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing better can be done about a terminal that does not listen.
        let _ = disable_raw_mode();
    }
}

/// Tells the size of the terminal, and each change of it.
async fn resize(mut sizes: Sender<TerminalSize>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    loop {
        if let Ok((width, height)) = size()
            && sizes.send(TerminalSize { width, height }).await.is_err()
        {
            return;
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_an_exit_code_or_a_reason() {
        let judged = |status: serde_json::Value| {
            judge(serde_json::from_value(status).ok()).map_err(|error| {
                let code = error.downcast_ref::<Terminated>().map(|it| it.0);
                (code, error.to_string())
            })
        };
        assert_eq!(judged(json!({"status": "Success"})), Ok(()));
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
        let expected = (Some(3), "command terminated with exit code 3".to_owned());
        assert_eq!(judged(failed), Err(expected));
        let lost = json!({"status": "Failure", "message": "no such file"});
        assert_eq!(judged(lost), Err((None, "no such file".to_owned())));
        assert!(judge(None).is_err());
    }
}
