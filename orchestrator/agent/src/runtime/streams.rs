//! A process of a container with its streams: a command that is run in it, or the container's own.

use std::pin::Pin;

use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::io::AsyncWrite;

use super::RuntimeError;

/// Which streams of a process are wanted. With a terminal everything that it writes is stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// What a process writes, piece by piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// What a process reads. To shut it down ends its stdin.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// A process that runs; dropped, it runs on without these streams.
pub struct Process {
    pub input: Input,
    /// Ends with the process, or with the engine.
    pub output: BoxStream<'static, Result<Output, RuntimeError>>,
}

/// Whose terminal is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal<'a> {
    /// By the id of the command.
    Command(&'a str),
    /// By the id of the container.
    Container(&'a str),
}

/// Characters and lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub width: u16,
    pub height: u16,
}
