//! The nemesis over a whole cluster: users work, and connections through a Service go on, while agents, the server,
//! containers and pods are killed.
//!
//! ```text
//!        ┌─ users: a story, each time the same ─────────┐
//! round ─┼─ kills: agents, server, containers, pods     ├─▶ all is as in a run without kills?
//!        ├─ load: connections to pods that are left alone ─▶ did one fail?
//!        └─ witness: what the Engine started and ended ────▶ did a pod, or the writer of a volume, run twice?
//! ```

mod kills;
pub mod picture;
pub mod story;
pub mod users;
pub mod witness;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api_load::connection::{Ask, Target};
use crate::cluster::{Cluster, manifest};
use crate::http_load::{self, Load, Outcome};
use crate::sim::rng::Rng;
use picture::{PARTS, Picture};
use users::Users;
use witness::Witness;

/// A cluster, the Service that connections go to, and what a run without kills ends with.
pub struct Stage {
    cluster: Cluster,
    users: Users,
    witness: Witness,
    service: Ipv4Addr,
    calm: Picture,
}

/// What a round was and gave.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Those that were answered.
    pub requests: usize,
    pub containers: usize,
    pub kills: Vec<String>,
    pub faults: Vec<String>,
}

const NAME: &str = "nemesis";
const NODES: u8 = 3;
/// Where connections come from.
const LOADED: [&str; 2] = ["node-1", "node-2"];
/// A round has at least so many.
const KILLS: usize = 15;
/// Between two steps of the users.
const STEP: Duration = Duration::from_secs(2);
/// After the last kill, for controllers and agents on a loaded machine.
const CONVERGE_TIMEOUT: Duration = Duration::from_secs(180);
/// A picture that has not changed for so long is the last one.
const STILL: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(500);

impl Stage {
    /// Makes the cluster, and runs the story without kills.
    pub async fn up() -> Result<Self> {
        let cluster = Cluster::up(NAME, NODES)?;
        let users = Users::of(Target::read(&cluster.dir().join("kubeconfig"))?);
        let witness = Witness::start(&cluster)?;
        let service = serve(&cluster, &users).await?;
        let mut stage = Self {
            cluster,
            users,
            witness,
            service,
            calm: Picture::new(),
        };
        let namespace = "calm";
        stage.tell(namespace).await?;
        stage.calm = stage.last_picture(namespace).await?;
        let work = stage.calm.get("job work").cloned().unwrap_or_default();
        let wanted = format!("succeeded {}, active 0, over: true", story::COMPLETIONS);
        ensure!(work == wanted, "without kills: {:#?}", stage.calm);
        let faults = stage.remove(namespace).await?;
        ensure!(faults.is_empty(), "without kills: {faults:?}");
        Ok(stage)
    }

    pub fn down(self) -> Result<()> {
        self.cluster.down()
    }

    /// One round; the seed decides what dies when.
    pub async fn round(&self, seed: u64) -> Result<Report> {
        let namespace = format!("round-{seed}");
        let loads = self.loads();
        let (end, done) = watch::channel(false);
        let means = (&self.cluster, &self.users, &self.witness);
        let killing = kills::run(means, (&namespace, NODES), Rng::new(seed), (KILLS, done));
        let working = async {
            let told = self.tell(&namespace).await;
            end.send_replace(true);
            told
        };
        let (told, kills) = tokio::join!(working, killing);
        told?;
        let mut report = Report {
            kills: kills?,
            ..Report::default()
        };
        report.faults.extend(self.converge(&namespace).await?);
        for load in loads {
            let outcome = tokio::task::spawn_blocking(move || load.stop()).await?;
            report.requests += outcome.answered();
            report.faults.extend(failures(&outcome));
        }
        report.faults.extend(self.remove(&namespace).await?);
        let seen = self.witness.of(&namespace);
        report.containers = seen.iter().filter(|it| it.has_started).count();
        report.faults.extend(witness::twice(&seen));
        self.witness.forget(&namespace);
        if !report.faults.is_empty() {
            self.keep_logs(seed)?;
        }
        Ok(report)
    }

    /// As many as a Service has users: on two nodes, with new connections and with one that lasts.
    fn loads(&self) -> Vec<Load> {
        let loads = LOADED.iter().flat_map(|node| {
            let (to, enter) = ((self.service, 80_u16), || self.cluster.enter(node));
            [
                Load::connections(to, enter()),
                Load::one_connection(to, enter()),
            ]
        });
        loads.collect()
    }

    /// The users' part.
    async fn tell(&self, namespace: &str) -> Result<()> {
        for step in story::steps(namespace) {
            self.users.surely(&step).await?;
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }

    /// Waits until all is as in the run without kills; what is not.
    async fn converge(&self, namespace: &str) -> Result<Vec<String>> {
        let end = Instant::now() + CONVERGE_TIMEOUT;
        loop {
            let picture = self.picture(namespace).await?;
            let differences = picture::differences(&self.calm, &picture);
            if differences.is_empty() || Instant::now() > end {
                return Ok(differences);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn last_picture(&self, namespace: &str) -> Result<Picture> {
        let end = Instant::now() + CONVERGE_TIMEOUT;
        let (mut picture, mut since) = (self.picture(namespace).await?, Instant::now());
        while since.elapsed() < STILL {
            tokio::time::sleep(LOOK).await;
            let now = self.picture(namespace).await?;
            if now != picture {
                (picture, since) = (now, Instant::now());
            }
            ensure!(Instant::now() < end, "no end of changes: {picture:#?}");
        }
        Ok(picture)
    }

    async fn picture(&self, namespace: &str) -> Result<Picture> {
        let mut picture = Picture::new();
        for part in PARTS {
            let path = part.path.replace("{}", &format!("namespaces/{namespace}"));
            let list = self.users.surely(&Ask::get(path)).await?;
            let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
            part.show(items, &mut picture);
        }
        Ok(picture)
    }

    /// Deletes the namespace: nothing of it stays.
    async fn remove(&self, namespace: &str) -> Result<Vec<String>> {
        let path = format!("/api/v1/namespaces/{namespace}");
        self.users.surely(&Ask::delete(&path)).await?;
        let end = Instant::now() + CONVERGE_TIMEOUT;
        loop {
            let found = self.users.surely(&Ask::get(&path)).await?;
            let seen = self.witness.of(namespace);
            let running = witness::running(&seen);
            if found.is_null() && running.is_empty() {
                return Ok(Vec::new());
            }
            if Instant::now() > end {
                let conditions = &found["status"]["conditions"];
                let pods: Vec<&str> = running.iter().map(|it| &*it.pod).collect();
                return Ok(vec![format!("it does not go: {conditions}, {pods:?} run")]);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn keep_logs(&self, seed: u64) -> Result<()> {
        let kept = crate::cluster::workspace().join("target/nemesis");
        std::fs::create_dir_all(&kept)?;
        let to = kept.join(format!("round-{seed}"));
        let mut copy = std::process::Command::new("cp");
        copy.arg("-rT").arg(self.cluster.dir().join("log")).arg(&to);
        ensure!(copy.status()?.success(), "cannot copy logs");
        eprintln!("logs are in {}", to.display());
        Ok(())
    }
}

/// Three pods behind a Service, which nothing here kills.
async fn serve(cluster: &Cluster, users: &Users) -> Result<Ipv4Addr> {
    let collections = [
        (
            "nginx-deployment.yaml",
            "/apis/apps/v1/namespaces/default/deployments",
        ),
        ("nginxsvc.yaml", "/api/v1/namespaces/default/services"),
    ];
    for (file, path) in collections {
        let object: Value = serde_yaml::from_str(&std::fs::read_to_string(manifest(file))?)?;
        users.surely(&Ask::post(path, object)).await?;
    }
    let kubectl = cluster.client()?;
    let end = Instant::now() + CONVERGE_TIMEOUT;
    while kubectl.ready_pods("app=nginx")?.len() < 3 {
        if Instant::now() > end {
            bail!("the Service's pods do not get ready");
        }
        tokio::time::sleep(LOOK).await;
    }
    let path = "/api/v1/namespaces/default/services/nginxsvc";
    let service = users.surely(&Ask::get(path)).await?;
    let address = service["spec"]["clusterIP"]
        .as_str()
        .context("no address")?;
    let service: Ipv4Addr = address.parse()?;
    for node in LOADED {
        let know_all = || {
            let ask = || http_load::connections((service, 80), 60);
            let outcome = cluster.namespace(node).enter(ask);
            outcome.failures.is_empty() && outcome.by_pod.len() == 3
        };
        while !know_all() {
            ensure!(Instant::now() < end, "{node} does not learn of the pods");
        }
    }
    Ok(service)
}

fn failures(outcome: &Outcome) -> Option<String> {
    let first = outcome.failures.first()?;
    let (failed, answered) = (outcome.failures.len(), outcome.answered());
    Some(format!(
        "{failed} requests failed and {answered} did not: {first}"
    ))
}
