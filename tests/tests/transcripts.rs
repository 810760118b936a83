//! What kubectl prints, version by version, and Helm, for what needs no node: `transcripts/TOPIC.txt` and
//! `transcripts/helm/TOPIC.txt`, one test a topic. And the Python client's own tests.
//!
//! Each version of kubectl has a server process of its own. `TRANSCRIPTS_KUBECONFIG=FILE` runs them against
//! another server: Kubernetes', which judges them; `TRANSCRIPTS_RESET=COMMAND` empties it before each run.
//! `UPDATE_EXPECT=1` rewrites.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use tests::clients::python;
use tests::cluster::{output, workspace};
use tests::control_plane::{self, ControlPlane};
use tests::prog::skipped;
use tests::transcript::{Place, judge, versions};

fn main() -> ExitCode {
    if let Some(ended) = control_plane::as_program() {
        return ended;
    }
    let all = topics("").map(|file| trial("kubectl", file, kubectl));
    let helm = topics("helm").map(|file| trial("helm", file, helm));
    let python = Trial::test("the_python_clients_own_tests_pass", || {
        dynamic_client().map_err(|error| Failed::from(format!("{error:#}")))
    });
    let all = all.chain(helm).chain([python]);
    libtest_mimic::run(&Arguments::from_args(), all.collect()).exit_code()
}

const MISSING: &str = "no environment with its clients: run `cargo xtask test sim` once";

/// Which are skipped, and why, is in the program.
fn dynamic_client() -> Result<()> {
    let Some(python) = python() else {
        skipped("the Python client", MISSING);
        return Ok(());
    };
    let place = place()?;
    // It keeps what it discovered in the directory for temporary files.
    let directory = tempfile::tempdir()?;
    let mut tests = Command::new("timeout");
    tests.arg("100").arg(python);
    tests.arg(workspace().join("tests/clients/dynamic_client.py"));
    tests.env("KUBECONFIG", &place.kubeconfig);
    tests.env("TMPDIR", directory.path());
    print!("{}", output(&mut tests)?);
    Ok(())
}

fn kubectl(file: &Path) -> Result<()> {
    judge(file, &versions(), place)
}

/// kubectl looks at what Helm has done: one version of it does.
fn helm(file: &Path) -> Result<()> {
    if python().is_none() {
        skipped("helm", MISSING);
        return Ok(());
    }
    let newest = versions().pop().context("no kubectl is on this machine")?;
    judge(file, &[newest], place)
}

fn trial(who: &str, file: PathBuf, test: fn(&Path) -> Result<()>) -> Trial {
    let topic = file.file_stem().unwrap_or_default();
    let name = format!("{who}_{}", topic.to_string_lossy());
    let run = move || test(&file).map_err(|error| Failed::from(format!("{error:#}")));
    Trial::test(name, run)
}

fn topics(below: &str) -> impl Iterator<Item = PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let files = fs::read_dir(directory.join(below)).expect("the directory is in the repository");
    let mut files: Vec<PathBuf> = files.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "txt"));
    files.sort();
    files.into_iter()
}

fn place() -> Result<Place> {
    if let Some(kubeconfig) = env::var_os("TRANSCRIPTS_KUBECONFIG") {
        if let Some(reset) = env::var_os("TRANSCRIPTS_RESET") {
            output(Command::new("sh").arg("-c").arg(reset))?;
        }
        let (kubeconfig, server) = (kubeconfig.into(), Box::new(()));
        return Ok(Place { kubeconfig, server });
    }
    let server = ControlPlane::start()?;
    Ok(Place {
        kubeconfig: server.kubeconfig(),
        server: Box::new(server),
    })
}
