//! The audit log as a file, one event a line, with the names of rotated files that lumberjack gives
//! them (`audit-2026-01-02T15-04-05.000.log`): log collectors know those.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

/// Where events are written, and what becomes of old ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// `-`: the standard output.
    pub path: PathBuf,
    /// Days after which a rotated file is removed; 0: never.
    pub max_age_days: u32,
    /// Rotated files that are kept; 0: all.
    pub max_backups: usize,
    /// Megabytes (10⁶ bytes × 1.048576) that a file may have; 0: 100.
    pub max_size_megabytes: u64,
}

/// The log, open.
pub struct LogFile {
    options: FileOptions,
    /// None: the standard output.
    file: Option<File>,
    size: u64,
    limit: u64,
}

impl LogFile {
    /// Opens the log to append to it; a new one is for its owner alone.
    pub fn open(options: FileOptions) -> io::Result<Self> {
        let limit = match options.max_size_megabytes {
            0 => 100,
            megabytes => megabytes,
        };
        let file = match options.path.as_os_str() == "-" {
            true => None,
            false => Some(append(&options.path, sys::files::PRIVATE)?),
        };
        let size = match &file {
            Some(file) => file.metadata()?.len(),
            None => 0,
        };
        Ok(Self {
            options,
            file,
            size,
            limit: limit.saturating_mul(1024 * 1024),
        })
    }

    /// Writes lines, in files that do not grow beyond their size.
    pub fn write(&mut self, lines: &[Bytes]) -> io::Result<()> {
        let mut whole = Vec::with_capacity(lines.iter().map(Bytes::len).sum());
        for line in lines {
            let size = self.size + (whole.len() + line.len()) as u64;
            if self.file.is_some() && size > self.limit && size > line.len() as u64 {
                self.append(&whole)?;
                whole.clear();
                self.rotate(Timestamp::now())?;
            }
            whole.extend_from_slice(line);
        }
        self.append(&whole)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes)?,
            None => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()?;
            }
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Puts the file aside and begins another one, with the same rights.
    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let path = &self.options.path;
        let mode = match &self.file {
            Some(file) => file.metadata()?.mode() & 0o777,
            None => return Ok(()),
        };
        std::fs::rename(path, backup_of(path, now))?;
        self.file = Some(append(path, mode)?);
        self.size = 0;
        remove_old(&self.options, now)
    }
}

fn append(path: &Path, mode: u32) -> io::Result<File> {
    let is_new = !path.try_exists()?;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode)
        .open(path)?;
    if is_new {
        // The umask may have taken rights that the former file had.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    Ok(file)
}

/// `audit.log`, in its parts: what stands before and behind the time.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map_or_else(String::new, |part| part.to_string_lossy().into_owned())
    };
    let extension = text(path.extension());
    let dot = if extension.is_empty() { "" } else { "." };
    (
        format!("{}-", text(path.file_stem())),
        format!("{dot}{extension}"),
    )
}

fn backup_of(path: &Path, now: Timestamp) -> PathBuf {
    let (before, behind) = parts(path);
    let whole = format!("{now:.3}");
    let time = whole.trim_end_matches('Z').replace(':', "-");
    path.with_file_name(format!("{before}{time}{behind}"))
}

/// Removes rotated files that are too many or too old.
fn remove_old(options: &FileOptions, now: Timestamp) -> io::Result<()> {
    let (before, behind) = parts(&options.path);
    let directory = match options.path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut backups = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let time = name
            .strip_prefix(&before)
            .and_then(|rest| rest.strip_suffix(&behind))
            .and_then(time_of);
        backups.extend(time.map(|time| (time, entry.path())));
    }
    backups.sort_by(|a, b| b.cmp(a));
    let days = i64::from(options.max_age_days);
    let oldest = now.checked_sub(SignedDuration::from_hours(24 * days)).ok();
    for (index, (time, path)) in backups.iter().enumerate() {
        let is_surplus = options.max_backups > 0 && index >= options.max_backups;
        let is_old = days > 0 && oldest.is_some_and(|oldest| *time < oldest);
        if is_surplus || is_old {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The time in the name of a rotated file; None if it is another file.
fn time_of(text: &str) -> Option<Timestamp> {
    let (day, time) = text.split_once('T')?;
    format!("{day}T{}Z", time.replace('-', ":")).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize, bytes: usize) -> Vec<Bytes> {
        let line = format!("{}\n", "x".repeat(bytes - 1));
        vec![Bytes::from(line); count]
    }

    #[test]
    fn a_log_is_private_and_is_rotated_by_size_into_names_with_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let options = FileOptions {
            path: path.clone(),
            max_size_megabytes: 1,
            ..FileOptions::default()
        };
        let mut log = LogFile::open(options.clone()).expect("a log");
        log.write(&lines(3, 400 * 1024)).expect("written");
        let mode = |path: &Path| std::fs::metadata(path).expect("a file").mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        let all: Vec<PathBuf> = std::fs::read_dir(directory.path())
            .expect("files")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert_eq!(all.len(), 2);
        let sizes: Vec<u64> = all
            .iter()
            .map(|p| std::fs::metadata(p).expect("a file").len())
            .collect();
        assert_eq!(sizes.iter().sum::<u64>(), 3 * 400 * 1024);
        assert!(sizes.iter().all(|size| *size <= 1024 * 1024), "{sizes:?}");
        // What another process has opened is appended to, with the rights that it has.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("a mode");
        let mut again = LogFile::open(options).expect("a log");
        again.write(&lines(2, 400 * 1024)).expect("written");
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn old_logs_are_removed_by_number_and_age_and_other_files_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let now: Timestamp = "2026-03-10T00:00:00Z".parse().expect("a time");
        let name = |day: &str| format!("audit-2026-03-{day}T15-04-05.123.log");
        let touch = |name: &str| std::fs::write(directory.path().join(name), "").expect("a file");
        for file in [
            &*name("01"),
            &name("07"),
            &name("08"),
            &name("09"),
            "audit-notes.log",
            "x.log",
        ] {
            touch(file);
        }
        let left = |max_age_days, max_backups| {
            let options = FileOptions {
                path: path.clone(),
                max_age_days,
                max_backups,
                max_size_megabytes: 1,
            };
            remove_old(&options, now).expect("removed");
            let entries = std::fs::read_dir(directory.path()).expect("files");
            let mut names: Vec<String> = entries
                .map(|entry| {
                    entry
                        .expect("an entry")
                        .file_name()
                        .to_string_lossy()
                        .into_owned()
                })
                .collect();
            names.sort();
            names
        };
        let others = ["audit-notes.log".to_owned(), "x.log".to_owned()];
        let with = |days: &[&str]| {
            let names = days.iter().map(|day| name(day));
            names.chain(others.clone()).collect::<Vec<_>>()
        };
        assert_eq!(left(0, 0), with(&["01", "07", "08", "09"]));
        assert_eq!(left(5, 0), with(&["07", "08", "09"]));
        assert_eq!(left(0, 2), with(&["08", "09"]));
        let now = backup_of(&path, now);
        assert!(
            now.ends_with("audit-2026-03-10T00-00-00.000.log"),
            "{now:?}"
        );
    }
}
