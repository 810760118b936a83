//! What the kernel takes for the writes of a watch, whatever the server: the limit of its CPU an event.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// An event of the bench's object in a TLS record.
const EVENT_BYTES: usize = 1024;

/// Microseconds of the writer's CPU for one event to one of `watchers` connections over loopback, plain and
/// from a buffer that is ready; each connection is written to `events` times.
///
/// # Errors
///
/// Those of the sockets.
pub fn write_us(watchers: usize, events: usize) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut sockets = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..watchers {
        let reader = TcpStream::connect(address)?;
        let (writer, _) = listener.accept()?;
        writer.set_nodelay(true)?;
        sockets.push(writer);
        readers.push(read(reader));
    }
    let before = cpu_us()?;
    for _ in 0..events {
        for socket in &mut sockets {
            socket.write_all(&[b'x'; EVENT_BYTES])?;
        }
    }
    let took = cpu_us()? - before;
    drop(sockets);
    for reader in readers {
        let ended = reader.join().map_err(|_| anyhow!("a reader panicked"))?;
        ended?;
    }
    Ok(took / (watchers * events) as f64)
}

/// Reads until the end.
fn read(mut socket: TcpStream) -> JoinHandle<std::io::Result<()>> {
    thread::spawn(move || {
        let mut buffer = [0; 4 * EVENT_BYTES];
        while socket.read(&mut buffer)? > 0 {}
        Ok(())
    })
}

/// Of this thread.
fn cpu_us() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let sum = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(sum as f64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_write_takes_some_time() {
        assert!(super::write_us(3, 200).unwrap() > 0.0);
    }
}
