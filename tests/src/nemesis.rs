//! Real clients of real servers, while a nemesis kills and stops what they depend on; what the clients saw is
//! judged by [`crate::checker`].
//!
//! ```text
//!            ┌─ clients: reads, writes, watches ─▶ servers ─▶ store        one round:
//! round ─────┤                                        ▲          ▲          load and faults ─▶ all is healed
//!            └─ faults: kill, stop, partition ────────┴──────────┘          ─▶ a last list ─▶ watches reach it
//!                                                                           ─▶ checker
//! ```
//!
//! Every process here is a child of this one and ends with it.

pub mod clients;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod faults;
pub mod members;
pub mod process;
pub mod site;
pub mod watching;
pub mod wires;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api_load::connection::Ask;
use crate::checker;
use crate::checker::history::History;
use crate::sim::rng::Rng;
use clients::{Listed, Recorder};
use site::Site;

/// Clients that read and write at once.
const WRITERS: usize = 6;
/// Objects that they share in a round.
const KEYS: usize = 8;
/// After a fault is healed everything has to work again within this.
const HEAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Watches have this long after the last write.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// Fewer say nothing.
const LEAST_OPERATIONS: usize = 50;
const LOOK: Duration = Duration::from_millis(20);

/// What a round was and gave.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub operations: usize,
    pub unknown: usize,
    pub events: usize,
    pub disturbances: Vec<String>,
    pub faults: Vec<String>,
}

/// Runs one round on a site; the seed decides what is asked and what is done to the site.
///
/// # Errors
/// The site does not work again after the faults are over: that is a fault as well.
pub async fn round(site: &mut Site, seed: u64, length: Duration) -> Result<Report> {
    let recorder = Arc::new(Recorder::new(format!("round-{seed}"), KEYS));
    make_namespace(site, &recorder.namespace).await?;
    let mut rng = Rng::new(seed);
    let mut load = JoinSet::new();
    for number in 0..WRITERS {
        let seed = rng.number();
        let (targets, recorder) = (site.targets.clone(), recorder.clone());
        load.spawn(clients::run(targets, recorder, number, seed));
    }
    let mut watches = JoinSet::new();
    for number in 0..2 * site.targets.len().max(2) {
        let seed = rng.number();
        let (targets, recorder) = (site.targets.clone(), recorder.clone());
        watches.spawn(watching::run(targets, recorder, number, seed));
    }
    let disturbances = faults::run(site, &mut rng, length).await?;
    tokio::time::timeout(HEAL_TIMEOUT, site.heal())
        .await
        .context("not all is ready again in time")??;
    // Where builds take the cores, clients have hardly begun by now.
    let asked = async {
        while recorder.operations() < LEAST_OPERATIONS {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(HEAL_TIMEOUT, asked)
        .await
        .context("clients are not answered after the faults are over")?;
    recorder.end_load();
    while let Some(ended) = load.join_next().await {
        ended?;
    }
    let at_end = last_list(site, &recorder).await?;
    // Not before: a watch that ends at an earlier server's list may lack what the last one shows.
    recorder.set_goal(at_end.revision);
    let late = catch_up(&recorder, &mut watches).await?;
    let mut history = recorder.history();
    (history.at_end, history.ended_at) = (at_end.objects, at_end.revision);
    let mut faults = checker::faults(&history);
    faults.extend(late);
    Ok(report(&history, disturbances, faults))
}

async fn make_namespace(site: &Site, name: &str) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let mut connection = site.targets[0].connect().await?;
    connection
        .good(Ask::post("/api/v1/namespaces", body))
        .await
        .map(drop)
}

/// What is there at the end, through every server; it is part of the history.
async fn last_list(site: &Site, recorder: &Recorder) -> Result<Listed> {
    let end = Instant::now() + HEAL_TIMEOUT;
    let mut last = Listed::default();
    for (number, target) in site.targets.iter().enumerate() {
        loop {
            let client = format!("at the end, server {number}");
            if let Some(listed) = clients::list(target, recorder, &client).await {
                last = listed;
                break;
            }
            if Instant::now() > end {
                bail!("server {number} does not answer after the faults are over");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(last)
}

/// Waits for the watches; those that are late are named.
async fn catch_up(recorder: &Recorder, watches: &mut JoinSet<()>) -> Result<Option<String>> {
    let all = async {
        while let Some(ended) = watches.join_next().await {
            ended?;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(CATCH_UP_TIMEOUT, all).await {
        Ok(ended) => ended.map(|()| None),
        Err(_) => {
            recorder.give_up();
            while watches.join_next().await.is_some() {}
            Ok(Some(format!(
                "watches that do not reach the last write within {} s",
                CATCH_UP_TIMEOUT.as_secs()
            )))
        }
    }
}

fn report(history: &History, disturbances: Vec<String>, faults: Vec<String>) -> Report {
    let unknown = history.operations.iter().filter(|it| it.is_open());
    Report {
        operations: history.operations.len(),
        unknown: unknown.count(),
        events: history.watches.iter().map(|it| it.steps.len()).sum(),
        disturbances,
        faults,
    }
}
