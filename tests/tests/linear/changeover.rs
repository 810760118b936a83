//! An agent whose server stands still goes on at another one: for how long nothing is answered, and whether its watch
//! has every event.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent::api::client;
use agent::api::pauses::Pauses;
use agent::api::servers::Servers;
use agent::node::join::{self, Applicant};
use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Service;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use libtest_mimic::{Failed, Trial};
use serde_json::json;
use sys::Shutdown;
use tests::api_load::connection::{Ask, Target};
use tests::nemesis::site::{Kind, Means, Part, Site};
use tokio::sync::watch;

const NAME: &str = "watched";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const MERGE: &str = "application/merge-patch+json";
/// Between two writes, and between two reads.
const PAUSE: Duration = Duration::from_millis(20);
/// A second, and what a loaded machine adds: without questions to the server it is more than five.
const LONGEST: Duration = Duration::from_secs(2);
const WAIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

pub fn trials() -> Vec<Trial> {
    let name = "an_agent_whose_server_stands_still_asks_another_one_soon_and_misses_no_event";
    let trial = Trial::test(name, || {
        let ran = super::runtime().and_then(|runtime| runtime.block_on(stands_still()));
        ran.map_err(|error| Failed::from(format!("{error:#}")))
    });
    vec![trial]
}

/// When each thing was seen, and its number.
type Seen = Arc<Mutex<Vec<(Instant, u64)>>>;

async fn stands_still() -> Result<()> {
    let kind = Kind::Etcd {
        members: 1,
        servers: 2,
    };
    let mut site = Site::start(kind, Means::default()).await?;
    let directory = tempfile::tempdir()?;
    let shutdown = Shutdown::new();
    let client = agent(&site, directory.path().to_owned(), &shutdown).await?;
    let (events, reads) = (Seen::default(), Seen::default());
    let (goal, goals) = watch::channel(false);
    let writing = tokio::spawn(write(site.targets[1].clone(), goals));
    let watching = tokio::spawn(follow(client.clone(), events.clone()));
    let reading = tokio::spawn(read(client, reads.clone()));
    let both = [("events", &events), ("answers", &reads)];
    for (what, seen) in both {
        more(seen, 20).await.context(what)?;
    }
    site.process(Part::Server(0)).stop();
    let stopped = Instant::now();
    for (what, seen) in both {
        more(seen, 50).await.context(what)?;
    }
    let gaps = both.map(|(_, seen)| gap(seen, stopped));
    site.process(Part::Server(0)).go_on();
    goal.send_replace(true);
    let last = writing.await??;
    until(|| numbers(&events).last() == Some(&last)).await?;
    reading.abort();
    watching.abort();
    shutdown.trigger();
    let all = numbers(&events);
    for pair in all.windows(2) {
        ensure!(pair[1] == pair[0] + 1, "after {} came {}", pair[0], pair[1]);
    }
    eprintln!(
        "without events for {:?}, without answers for {:?}",
        gaps[0], gaps[1]
    );
    ensure!(gaps.iter().all(|gap| *gap < LONGEST), "too long: {gaps:?}");
    Ok(())
}

/// The client of a node that asks the first server.
async fn agent(site: &Site, data_dir: std::path::PathBuf, shutdown: &Shutdown) -> Result<Client> {
    let servers = site.targets.iter().map(|it| Ok(it.url().parse()?));
    let applicant = Applicant {
        servers: servers.collect::<Result<_>>()?,
        token: Some(std::fs::read_to_string(site.data(0).join("node-token"))?),
        node_name: "node-1".to_owned(),
        node_ips: std::net::IpAddr::from([172, 16, 0, 9]).into(),
        data_dir,
        registration: Default::default(),
    };
    let member = join::join(&applicant).await?;
    let servers = Servers::new(&applicant.servers, 0);
    Ok(client::start(
        &servers,
        watch::Sender::new(member).subscribe(),
        shutdown,
    )?)
}

/// Numbers a Service through a server until it is told to stop; the last number.
async fn write(target: Target, is_over: watch::Receiver<bool>) -> Result<u64> {
    let mut connection = target.connect().await?;
    let spec = json!({"metadata": {"name": NAME}, "spec": {"ports": [{"port": 80}]}});
    connection.good(Ask::post(SERVICES, spec)).await?;
    let mut number = 0;
    while !*is_over.borrow() {
        number += 1;
        let labels = json!({"metadata": {"labels": {"number": number.to_string()}}});
        let patch = Ask::patch(format!("{SERVICES}/{NAME}"), MERGE, labels);
        connection.good(patch).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(number)
}

/// As the agent follows Services for its datapath.
async fn follow(client: Client, seen: Seen) {
    let api = Api::<Service>::all(client);
    let config = watcher::Config::default().streaming_lists();
    let mut events = watcher(api, config).backoff(Pauses::default()).boxed();
    loop {
        if let Ok(Some(watcher::Event::Apply(service))) = events.try_next().await {
            note(&seen, &service);
        }
    }
}

async fn read(client: Client, seen: Seen) {
    let api = Api::<Service>::namespaced(client, "default");
    loop {
        if let Ok(service) = api.get(NAME).await {
            note(&seen, &service);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn note(seen: &Seen, service: &Service) {
    let labels = service.metadata.labels.iter().flatten();
    let number = labels.filter(|(name, _)| *name == "number");
    let number = number.filter_map(|(_, value)| value.parse().ok()).next();
    lock(seen).extend(number.map(|number| (Instant::now(), number)));
}

fn lock(seen: &Seen) -> std::sync::MutexGuard<'_, Vec<(Instant, u64)>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn numbers(seen: &Seen) -> Vec<u64> {
    lock(seen).iter().map(|(_, number)| *number).collect()
}

async fn more(seen: &Seen, count: usize) -> Result<()> {
    let goal = lock(seen).len() + count;
    until(|| lock(seen).len() >= goal).await
}

async fn until(is: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + WAIT;
    while !is() {
        if Instant::now() > end {
            bail!("it does not come");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// The longest time without anything, of what ends after a moment.
fn gap(seen: &Seen, after: Instant) -> Duration {
    let seen = lock(seen);
    let pairs = seen.windows(2).filter(|pair| pair[1].0 > after);
    pairs
        .map(|pair| pair[1].0 - pair[0].0)
        .max()
        .unwrap_or_default()
}
