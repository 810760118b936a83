//! A server process of its own on the loopback device: API server, scheduler and controllers as users run
//! them, without nodes.
//!
//! The test binary is the server's program too, so nothing else has to be built: [`as_program`] is the
//! first thing that its `main` calls.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::api_load::side::free_address;

/// The name by which the test binary is the product's command line.
const PROGRAM: &str = "orchestrator";

/// Runs the product's command line if this process was started for that.
pub fn as_program() -> Option<ExitCode> {
    let name = env::args_os().next()?;
    if Path::new(&name).file_name()? != PROGRAM {
        return None;
    }
    if env::args_os().nth(1)? == "server" {
        // A test that is killed leaves no server.
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    }
    Some(orchestrator::cli::main())
}

/// Makes a link in `directory` by which this test binary is the product's command line.
pub fn link_program(directory: &Path) -> Result<PathBuf> {
    let link = directory.join(PROGRAM);
    std::os::unix::fs::symlink(env::current_exe()?, &link)?;
    Ok(link)
}

/// A running server; it ends, and its data goes, when this is dropped.
pub struct ControlPlane {
    process: Child,
    directory: TempDir,
}

impl ControlPlane {
    /// Returns when the server says that it is ready.
    pub fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let address = free_address()?.to_string();
        let log = directory.path().join("server.log");
        let mut command = Command::new(link_program(directory.path())?);
        command.args(["server", "--bind", &address, "--data-dir"]);
        command.arg(directory.path().join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let process = command.stderr(File::create(&log)?).spawn()?;
        let mut plane = Self { process, directory };
        let stdout = plane.process.stdout.take().context("no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines.by_ref().map_while(Result::ok);
        if !ready.into_iter().any(|line| line.starts_with("ready")) {
            let said = fs::read_to_string(&log).unwrap_or_default();
            bail!("the server does not start: {said}");
        }
        // Whatever else it prints must not block it.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(plane)
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("data/admin.kubeconfig")
    }

    /// What the server has logged, for the message of a test that fails.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Its store goes with it: nothing has to end in good order.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
