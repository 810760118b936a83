//! The members of a site's etcd: started, and taken out and put back while the others go on. They are asked by
//! etcd's own JSON interface.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::process::Process;
use super::site::Site;

/// etcd changes its members only when all that are there have been connected for 5 s.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Seconds for one answer.
const ANSWER_TIMEOUT_S: &str = "5";

impl Site {
    /// The members of a new etcd; none runs yet.
    pub(super) fn etcd(&mut self, count: usize) -> Result<Vec<Process>> {
        for number in 0..count {
            let place = self.place(&format!("m{number}"), 20 + number as u8)?;
            self.places.push(place);
        }
        (0..count)
            .map(|number| self.member(number, "new"))
            .collect()
    }

    pub(super) fn store_url(&self) -> String {
        let clients = self
            .places
            .iter()
            .map(|([client, _], _)| client.to_string());
        let clients: Vec<String> = clients.collect();
        format!("etcd://{}/nemesis", clients.join(","))
    }

    /// Takes a member out of etcd, with its data. False: etcd does not do it, since others have not been well.
    pub async fn remove_member(&mut self, number: usize) -> Result<bool> {
        let end = Instant::now() + CHANGE_TIMEOUT;
        let name = format!("m{number}");
        let mut has_asked = false;
        loop {
            let found = self.id_of(number, &name).await;
            match found {
                // An answer may be lost, and the member be removed all the same.
                Ok(None) if has_asked => break,
                Ok(Some(id)) => {
                    has_asked = true;
                    let body = json!({"ID": id});
                    if self.ask(number, "remove", &body).await.is_ok() {
                        break;
                    }
                }
                _ => {}
            }
            if Instant::now() > end {
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.members[number].kill();
        self.removed = Some(number);
        std::fs::remove_dir_all(self.path(&format!("etcd-{number}")))?;
        Ok(true)
    }

    /// Adds an empty member in the place of the one that was taken out, and starts it.
    ///
    /// # Errors
    /// The others do not take it in time.
    pub async fn put_back(&mut self) -> Result<()> {
        let Some(number) = self.removed else {
            return Ok(());
        };
        let ([_, peer], _) = &self.places[number];
        let body = json!({"peerURLs": [format!("http://{peer}")]});
        let end = Instant::now() + CHANGE_TIMEOUT;
        while let Err(error) = self.ask(number, "add", &body).await {
            // An answer may be lost, and the member be added all the same.
            if error.to_string().contains("Peer URLs already exists") {
                break;
            }
            if Instant::now() > end {
                return Err(error.context("etcd does not take a member"));
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.members[number] = self.member(number, "existing")?;
        self.members[number].start()?;
        self.removed = None;
        Ok(())
    }

    /// What the other members know one by; None: it is none of them.
    async fn id_of(&self, number: usize, name: &str) -> Result<Option<Value>> {
        let answer = self.ask(number, "list", &json!({})).await?;
        let members = answer["members"].as_array().context("no members")?;
        let found = members.iter().find(|it| it["name"] == name);
        Ok(found.map(|it| it["ID"].clone()))
    }

    /// Asks any member but one about the members.
    async fn ask(&self, but: usize, what: &str, body: &Value) -> Result<Value> {
        let mut last = anyhow::anyhow!("there is no other member");
        for (number, ([client, _], _)) in self.places.iter().enumerate() {
            if number == but {
                continue;
            }
            match ask(*client, what, body).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn member(&self, number: usize, state: &str) -> Result<Process> {
        let peers = self.places.iter().enumerate();
        let peers: Vec<String> = peers
            .map(|(number, ([_, peer], _))| format!("m{number}=http://{peer}"))
            .collect();
        let ([client, peer], netns) = &self.places[number];
        let data = self.path(&format!("etcd-{number}")).display().to_string();
        let arguments = [
            format!("--name=m{number}"),
            format!("--data-dir={data}"),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster={}", peers.join(",")),
            format!("--initial-cluster-state={state}"),
            "--heartbeat-interval=50".to_owned(),
            "--election-timeout=500".to_owned(),
            "--logger=zap".to_owned(),
            "--log-level=error".to_owned(),
        ];
        let log = self.path(&format!("etcd-{number}.log"));
        let name = (format!("etcd member {number}"), netns.clone());
        Ok(Process::new(name, etcd_program()?, arguments.into(), log))
    }
}

async fn ask(member: SocketAddr, what: &str, body: &Value) -> Result<Value> {
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", ANSWER_TIMEOUT_S]);
    curl.args(["--data", &body.to_string()]);
    curl.arg(format!("http://{member}/v3/cluster/member/{what}"));
    let output = curl.output().await.context("run curl")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "member {what}: {complaint}");
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    match answer["error"].as_str() {
        Some(error) => bail!("member {what}: {error}"),
        None => Ok(answer),
    }
}

/// Debian's, as `cargo xtask test` and `cargo xtask nemesis` unpack it.
pub fn etcd_program() -> Result<PathBuf> {
    let unpacked = cached("etcd-server/etcd");
    let programs = [unpacked, PathBuf::from("/usr/bin/etcd")];
    let found = programs.into_iter().find(|it| it.exists());
    found.context("no etcd on this machine: `cargo xtask test sim` unpacks it")
}

/// What `cargo xtask` has unpacked of Debian's packages.
pub fn cached(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../.dev/cache")
        .join(name)
}
