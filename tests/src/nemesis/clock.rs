//! The clock of one process, which jumps while the machine's own stays right. libfaketime answers for the real-time
//! clock of libc by a file; the monotonic clock goes on, as it does where somebody sets a machine's clock.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// The file that says how wrong it is.
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that is right.
    pub fn of(file: PathBuf) -> Result<Self> {
        let clock = Self { file };
        clock.jump(0)?;
        Ok(clock)
    }

    /// What a process is started with, so that it has this clock.
    pub fn environment(&self, library: &Path) -> Vec<(String, String)> {
        let file = self.file.display().to_string();
        let all = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            // It reads the file at every look at the clock.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        all.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// So many seconds from the right time, from now on.
    pub fn jump(&self, seconds: i64) -> Result<()> {
        // Never half a file: the process reads it at any time.
        let beside = self.file.with_extension("new");
        fs::write(&beside, format!("{seconds:+}"))?;
        Ok(fs::rename(beside, &self.file)?)
    }
}

/// Removes what the library of a process that was killed leaves in memory.
pub fn clean_up(process: u32) {
    for name in ["faketime_shm", "sem.faketime_sem"] {
        // It may have removed it itself.
        let _ = fs::remove_file(format!("/dev/shm/{name}_{process}"));
    }
}
