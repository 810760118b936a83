//! The whole way: from a write to the API, and from the agent's exec, to the node's maps. One node of
//! a dev cluster, ten thousand Services whose endpoints nobody asks, and one that is asked.

use std::io::Read as _;
use std::mem::ManuallyDrop;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use datapath::{pin_name, remove_pins};
use futures::{TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use orchestrator_common::maps::services;
use serde_json::json;

use super::case::{Mark, Outcome};
use super::service::Size;
use super::stage::{Process, Stage, client};
use crate::cluster::Cluster;
use crate::netns::Netns;

const SERVICES: u32 = 10_000;
const PIN_ROOT: &str = "/sys/fs/bpf/orchestrator";
/// Requests that are on their way at once.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(120);
/// Between the last row and a look at the agent's memory.
const REST: Duration = Duration::from_secs(5);
const WRITES: usize = 100;

/// The Service that is asked: two backends that say which they are.
const PROBE: &str = "probe";
const PROBE_PORTS: [u16; 2] = [17_001, 17_002];

pub fn figures() -> Result<Vec<Outcome>> {
    let cluster = Cluster::up_with("bench", 1, &["--release"])?;
    let stage = Stage::new(&cluster)?;
    stage.clear()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let outcomes = runtime.block_on(measure(&stage));
    stage.clear()?;
    cluster.down()?;
    outcomes
}

async fn measure(stage: &Stage) -> Result<Vec<Outcome>> {
    let _server = stage.start(&stage.server)?;
    let client = client(&stage.dir.join("server/admin.kubeconfig")).await?;
    let started = Instant::now();
    let ready = || http::Request::get("/readyz").body(Vec::new());
    while client.request_text(ready()?).await.is_err() {
        ensure!(
            started.elapsed() < PATIENCE,
            "the server does not become ready"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    create_services(&client).await?;
    let mut outcomes = Vec::new();
    for endpoints in [1, 10] {
        let size = Size::new(SERVICES, endpoints);
        write_slices(&client, endpoints).await?;
        let (agent, took_ms) = cold_load(stage).await?;
        outcomes.push(Outcome::alone(
            "cold load, from the agent's exec",
            size,
            "ms",
            &[took_ms],
            None,
        ));
        tokio::time::sleep(REST).await;
        let [pss, rss] = agent.memory()?.map(|kib| kib as f64 / 1024.0);
        let mark = (endpoints == 1).then_some(Mark::AtMost(25.0));
        let memory = |case, mib, mark| Outcome::alone(case, size, "MiB", &[mib], mark);
        outcomes.push(memory("agent memory (PSS)", pss, mark));
        outcomes.push(memory("agent memory (RSS)", rss, None));
        if endpoints > 1 {
            outcomes.push(writes(stage, &client, size).await?);
        }
        drop(agent);
        stage.reset_node()?;
        remove_pins(Path::new(PIN_ROOT), node(stage)?)?;
    }
    Ok(outcomes)
}

async fn create_services(client: &Client) -> Result<()> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let names = (0..SERVICES).map(name).chain([PROBE.to_owned()]);
    let create = async |name: String| -> Result<()> {
        let service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "ports": [{ "name": "main", "port": 80 }] },
        }))?;
        services.create(&PostParams::default(), &service).await?;
        Ok(())
    };
    stream::iter(names.map(Ok))
        .try_for_each_concurrent(AT_ONCE, create)
        .await
}

async fn write_slices(client: &Client, endpoints: u8) -> Result<()> {
    let write = async |index| {
        let nth = |n: u8| Ipv4Addr::new(10, 100, 200, 1 + n).to_string();
        let addresses: Vec<String> = (0..endpoints).map(nth).collect();
        write_slice(client, &name(index), &addresses, 8080).await
    };
    stream::iter((0..SERVICES).map(Ok))
        .try_for_each_concurrent(AT_ONCE, write)
        .await
}

fn name(index: u32) -> String {
    format!("s{index}")
}

async fn write_slice(client: &Client, name: &str, addresses: &[String], port: u16) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let endpoint = |address| json!({ "addresses": [address], "conditions": { "ready": true } });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "ports": [{ "name": "main", "port": port, "protocol": "TCP" }],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
    });
    let found = slices.get_opt(name).await?;
    if found.is_some() {
        let patch = Patch::Merge(slice);
        slices.patch(name, &PatchParams::default(), &patch).await?;
    } else {
        let slice = serde_json::from_value(slice)?;
        slices.create(&PostParams::default(), &slice).await?;
    }
    Ok(())
}

/// Milliseconds from exec until every Service has its row, over empty maps.
async fn cold_load(stage: &Stage) -> Result<(Process, f64)> {
    let node = stage.agent["name"]
        .as_str()
        .context("the agent has no name")?;
    let maps = Path::new(PIN_ROOT).join(pin_name(node)).join("maps");
    let started = Instant::now();
    let agent = stage.start(&stage.agent)?;
    while rows(&maps).unwrap_or_default() <= SERVICES as usize {
        ensure!(started.elapsed() < PATIENCE, "the maps do not fill");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok((agent, started.elapsed().as_secs_f64() * 1e3))
}

fn node(stage: &Stage) -> Result<&str> {
    stage.agent["name"]
        .as_str()
        .context("the agent has no name")
}

fn rows(maps: &Path) -> Result<usize> {
    let map = Map::from_map_data(MapData::from_pin(maps.join(services::SERVICES.name))?)?;
    let map: HashMap<MapData, services::ServiceKey, services::Service> = map.try_into()?;
    Ok(map.keys().count())
}

/// From the write that moves the asked Service to its other backend to the first answer of that one.
async fn writes(stage: &Stage, client: &Client, size: Size) -> Result<Outcome> {
    let service: Api<Service> = Api::default_namespaced(client.clone());
    let service = service.get(PROBE).await?.spec.context("no spec")?;
    let service: Ipv4Addr = service.cluster_ip.context("no address")?.parse()?;
    let arguments = stage.agent["args"].as_array().context("no arguments")?;
    let at = arguments.iter().position(|it| it == "--node-ip");
    let node = at.and_then(|at| arguments.get(at + 1)?.as_str());
    // A node of two families has two addresses there, the Service one family.
    let node = node.and_then(|both| both.split(',').find(|ip| ip.parse::<Ipv4Addr>().is_ok()));
    let node = [node.context("the agent has no IPv4 address")?.to_owned()];
    let inside = Inside::of(stage)?;
    for port in PROBE_PORTS {
        let listener = inside.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
        thread::spawn(move || answer(&listener, port));
    }
    let mut took_ms = Vec::new();
    for write in 0..WRITES {
        let port = PROBE_PORTS[write % 2];
        let asker = inside.clone();
        let started = Instant::now();
        let asking = tokio::task::spawn_blocking(move || asker.run(|| wait_for(service, port)));
        write_slice(client, PROBE, &node, port).await?;
        asking.await??;
        took_ms.push(started.elapsed().as_secs_f64() * 1e3);
    }
    // The first write made the slice.
    let mark = Some(Mark::AtMost(10.0));
    Ok(Outcome::alone(
        "API write to first success",
        size,
        "ms",
        &took_ms[1..],
        mark,
    ))
}

/// The node's network namespace, which stays.
#[derive(Clone)]
struct Inside(String);

impl Inside {
    fn of(stage: &Stage) -> Result<Self> {
        let name = Path::new(stage.namespace()?).file_name();
        let name = name.context("the agent's namespace has no name")?;
        Ok(Self(name.to_string_lossy().into_owned()))
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let name = self.0.clone();
        ManuallyDrop::new(Netns { name }).enter(work)
    }
}

fn answer(listener: &TcpListener, port: u16) {
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        let _ = std::io::Write::write_all(&mut stream, &port.to_be_bytes());
    }
}

/// Asks until the backend of that port answers.
fn wait_for(service: Ipv4Addr, port: u16) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let mut said = [0; 2];
        let asked = TcpStream::connect((service, 80)).and_then(|mut it| it.read_exact(&mut said));
        if asked.is_ok() && said == port.to_be_bytes() {
            return Ok(());
        }
    }
    anyhow::bail!("the Service does not move to its other backend")
}
