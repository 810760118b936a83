//! A restore that dies when the former store is moved aside and the new one is not in its place yet.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use tests::api_load::connection::Ask;
use tests::control_plane::link_program;
use tests::nemesis::site::{Kind, Means, Site};

const NAMESPACES: &str = "/api/v1/namespaces";
/// The former store is moved by the first one, the new one by the second.
const KILL: &str = "inject=rename:signal=SIGKILL:when=2";
const WAIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

pub fn trials() -> Vec<Trial> {
    let name = "a_restore_that_is_killed_leaves_no_empty_cluster_and_is_run_again";
    let trial = Trial::test(name, || {
        let ran = super::runtime().and_then(|runtime| runtime.block_on(is_killed()));
        ran.map_err(|error| Failed::from(format!("{error:#}")))
    });
    vec![trial]
}

async fn is_killed() -> Result<()> {
    let mut site = Site::start(Kind::Redb, Means::default()).await?;
    let mut connection = site.targets[0].connect().await?;
    let kept = json!({"metadata": {"name": "kept"}});
    connection.good(Ask::post(NAMESPACES, kept)).await?;
    let taken = Ask::post(apiserver::snapshots::PATH, "");
    let taken: Value = serde_json::from_slice(&connection.good(taken).await?)?;
    let snapshot = taken["path"].as_str().context("no snapshot")?;
    site.servers[0].kill();
    let data = site.data(0);
    let directory = tempfile::tempdir()?;
    let program = link_program(directory.path())?;
    let mut killed = Command::new("strace");
    killed.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=rename",
        "-e",
        KILL,
    ]);
    ensure!(
        !restore(killed.arg(&program), snapshot, &data)?,
        "it was not killed"
    );
    let (store, new) = (data.join("store.redb"), data.join("store.redb.new"));
    ensure!(!store.exists() && new.exists(), "it was killed elsewhere");
    site.servers[0].start()?;
    let end = Instant::now() + WAIT;
    while !site.servers[0].has_ended() {
        if Instant::now() > end {
            bail!("a server serves what was not restored");
        }
        tokio::time::sleep(LOOK).await;
    }
    let said = site.servers[0].said();
    ensure!(said.contains("was interrupted. Run it again"), "{said}");
    ensure!(
        restore(&mut Command::new(program), snapshot, &data)?,
        "not restored"
    );
    site.servers[0].kill();
    site.heal().await?;
    let mut connection = site.targets[0].connect().await?;
    connection
        .good(Ask::get(format!("{NAMESPACES}/kept")))
        .await?;
    Ok(())
}

/// Whether it ended well.
fn restore(command: &mut Command, snapshot: &str, data: &Path) -> Result<bool> {
    command.args(["snapshot", "restore", snapshot, "--data-dir"]);
    command.arg(data).stdin(Stdio::null());
    Ok(command.status().context("cannot run it")?.success())
}
