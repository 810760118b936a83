//! Runs the commands of a transcript and compares what they print.

use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::VERSIONS;
use super::format::{Answers, Transcript};
use super::normalise::normalise;
use crate::clients::python;
use crate::cluster::{kubectls, workspace};
use crate::control_plane::link_program;

/// In seconds: a command that hangs must not hang the test.
const TIMEOUT: &str = "100";

/// Where the commands run, and against which server.
pub struct Place {
    pub kubeconfig: PathBuf,
    /// Kept while the server is wanted.
    pub server: Box<dyn Send>,
}

/// A kubectl: its minor version and the program.
pub type Client = (u32, PathBuf);

/// The kubectls of this machine among [`VERSIONS`].
pub fn versions() -> Vec<Client> {
    let mut clients = kubectls();
    clients.retain(|(minor, _)| VERSIONS.contains(minor));
    clients
}

/// Compares the transcript in `file` with what the commands print by each of these kubectls, each in a place of
/// its own, or rewrites the file where `UPDATE_EXPECT` is set. An error shows what differs.
pub fn judge(file: &Path, clients: &[Client], place: impl Fn() -> Result<Place>) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut transcript = Transcript::read(&text).with_context(|| file.display().to_string())?;
    let mut answers = vec![Answers::new(); transcript.steps.len()];
    if clients.is_empty() {
        bail!("no kubectl is on this machine");
    }
    for (minor, program) in clients {
        let bench = Bench::new(&transcript, program, place()?)?;
        for (step, answers) in transcript.steps.iter().zip(&mut answers) {
            if step.is_for(*minor) {
                answers.push((*minor, bench.run(&step.command)?));
            }
        }
    }
    if env::var_os("UPDATE_EXPECT").is_some() {
        for (step, answers) in transcript.steps.iter_mut().zip(&answers) {
            step.expect(answers);
        }
        return Ok(fs::write(file, transcript.write())?);
    }
    compare(&transcript, &answers)
}

/// A directory with the files of a transcript, and programs to run in it.
struct Bench {
    directory: TempDir,
    path: String,
    place: Place,
}

impl Bench {
    fn new(transcript: &Transcript, kubectl: &Path, place: Place) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let work = directory.path().join("work");
        for sub in ["work", "bin", "home"] {
            fs::create_dir(directory.path().join(sub))?;
        }
        for (name, content) in &transcript.files {
            let path = work.join(name);
            fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
            fs::write(path, content).with_context(|| name.clone())?;
        }
        let programs = directory.path().join("bin");
        symlink(kubectl, programs.join("kubectl"))?;
        link_program(&programs)?;
        symlink(workspace().join("manifests"), work.join("manifests"))?;
        if let Some(python) = python() {
            let helm = workspace().join("tests/clients/helm.py");
            let text = format!(
                "#!/bin/sh\nexec {} {} \"$@\"\n",
                python.display(),
                helm.display()
            );
            let script = programs.join("helm");
            fs::write(&script, text)?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        }
        let rest = env::var("PATH").unwrap_or_default();
        let path = format!("{}:{rest}", programs.display());
        Ok(Self {
            directory,
            path,
            place,
        })
    }

    /// What a command prints, normalised, with its exit code unless that is 0.
    fn run(&self, command: &str) -> Result<String> {
        let work = self.directory.path().join("work");
        let mut shell = Command::new("timeout");
        shell.args([TIMEOUT, "sh", "-c"]);
        // Both streams in the order in which they come.
        shell.arg(format!("exec 2>&1\n{command}"));
        shell.env_clear();
        shell.env("PATH", &self.path);
        // Caches are another server's discovery otherwise.
        shell.env("HOME", self.directory.path().join("home"));
        shell.env("KUBECONFIG", &self.place.kubeconfig);
        shell.env("TZ", "UTC").env("LC_ALL", "C");
        let ended = shell.current_dir(&work).stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&ended.stdout);
        let mut text = normalise(&text, &work.to_string_lossy());
        if !ended.status.success() {
            let code = ended.status.code().unwrap_or(-1);
            let _ = write!(text, "\n[exit code {code}]");
        }
        Ok(text.trim_start_matches('\n').to_owned())
    }
}

/// An error has every difference.
fn compare(transcript: &Transcript, answers: &[Answers]) -> Result<()> {
    let mut differences = String::new();
    for (step, answers) in transcript.steps.iter().zip(answers) {
        for (minor, got) in answers {
            let wanted = step.expected(*minor);
            if wanted != got {
                let command = &step.command;
                let _ = write!(
                    differences,
                    "\n$ {command}\n--- expected of kubectl 1.{minor}\n{wanted}\n+++ printed\n{got}\n"
                );
            }
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    bail!("{differences}")
}
