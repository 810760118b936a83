//! Disks that fail slowly: one that fills up, and one whose fsync takes long.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A small file system of its own, seen by this process and its children alone.
pub struct Disk {
    at: PathBuf,
}

/// Enough for the rounds of a site, and soon full.
const DISK_BYTES: u64 = 256 << 20;
/// How much longer an fsync takes.
const FSYNC_DELAY_MS: u64 = 150;
const FILLER: &str = "filler";

/// Mounts of this process are its own from now on: call it before there are threads.
///
/// # Errors
/// Without root there are none.
pub fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(
        None::<&str>,
        "/",
        None::<&str>,
        private,
        None::<&str>,
    )?)
}

impl Disk {
    /// An ext4 image beside the directory, mounted there.
    pub fn mount(at: &Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        let image = at.with_extension("image");
        File::create(&image)?.set_len(DISK_BYTES)?;
        let image = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", &image])?;
        run("mount", &["-o", "loop", &image, &at.display().to_string()])?;
        Ok(Self { at: at.to_owned() })
    }

    /// Not a byte is left.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.at.join(FILLER))?;
        for size in [1 << 20, 4096] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    pub fn empty(&self) -> Result<()> {
        let filler = self.at.join(FILLER);
        match filler.exists() {
            true => Ok(fs::remove_file(filler)?),
            false => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // With this process its mounts go anyway.
        let _ = run("umount", &["--lazy", &self.at.display().to_string()]);
    }
}

/// A process whose fsync is slow while this lives.
pub struct SlowFsync(Child);

impl SlowFsync {
    pub fn of(process: u32) -> Result<Self> {
        let inject = format!("inject=fsync,fdatasync:delay_enter={FSYNC_DELAY_MS}ms");
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fsync,fdatasync",
        ]);
        strace.args(["-e", &inject, "-p", &process.to_string()]);
        strace.stdin(Stdio::null()).stderr(Stdio::null());
        Ok(Self(strace.spawn().context("run strace")?))
    }
}

impl Drop for SlowFsync {
    fn drop(&mut self) {
        // It lets go of the process then.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("run {program}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {complaint}"
    );
    Ok(())
}
