//! What the kernel says while a test runs. It says it of the whole machine: a complaint may be about
//! what somebody else does there.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// The log from a moment on.
pub struct KernelLog(File);

/// A record begins with how severe it is, and eight times who wrote it: nothing for the kernel.
const WARNING: u32 = 4;

/// More than a log holds.
const RECORDS: usize = 1 << 20;

impl KernelLog {
    /// `None` where this machine shows its log to nobody.
    pub fn from_now() -> Option<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_NONBLOCK);
        let mut file = file.open("/dev/kmsg").ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        Some(Self(file))
    }

    /// Warnings and worse since then or since the last call.
    pub fn warnings(&mut self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut record = [0; 8192];
        for _ in 0..RECORDS {
            let length = match self.0.read(&mut record) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Some were overwritten before they were read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
                Err(error) => return Err(error),
            };
            let text = String::from_utf8_lossy(&record[..length]);
            let (head, said) = text.split_once(';').unwrap_or(("", &text));
            let number = head.split(',').next().and_then(|it| it.parse::<u32>().ok());
            if number.is_some_and(|number| number <= WARNING) {
                found.push(said.trim_end().to_owned());
            }
        }
        Ok(found)
    }
}
