//! Streams may be silent for hours; that their other end is gone must be found out all the same.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

/// Seconds of silence before the kernel asks, between its questions, and how many stay without an answer.
const IDLE_SECONDS: u32 = 30;
const INTERVAL_SECONDS: u32 = 10;
const QUESTIONS: u32 = 3;

/// Has the kernel break a TCP connection whose other end has been unreachable for a minute.
pub fn keep_alive(stream: &impl AsFd) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &IDLE_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &INTERVAL_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepCount, &QUESTIONS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_silent_connection_is_asked_after_half_a_minute() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        keep_alive(&stream).unwrap();
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle).unwrap(), 30);
    }
}
