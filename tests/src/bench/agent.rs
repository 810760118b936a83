//! The agent's half of the datapath: what changes cost until the kernel has them. No API, no Docker.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::network::pod_net::{PodLinks, Wire};
use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use datapath::{Datapath, pin_name};
use orchestrator_common::maps::flows::FLOWS;

use super::case::{Mark, Outcome};
use super::load::{self, Job, Kind};
use super::service::{Position, Size, changes, service_addr, slice, target};
use super::side::{From, Ours, Side, Who};
use crate::netns::Cluster;

/// How much of it: `--short` only shows that it runs.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Services of the large tables, and of the largest.
    pub services: u32,
    pub most_services: u32,
    pub loads: u32,
    pub changes: u32,
    pub pods: u32,
    pub flips: Duration,
}

pub const FULL: Extent = Extent {
    services: 10_000,
    most_services: 44_000,
    loads: 3,
    changes: 2000,
    pods: 500,
    flips: Duration::from_secs(5),
};

pub const SHORT: Extent = Extent {
    services: 10,
    most_services: 20,
    loads: 1,
    changes: 10,
    pods: 3,
    flips: Duration::from_millis(100),
};

const FLIPS_PER_S: u32 = 1000;
const POD_MTU: u32 = 1450;

pub fn figures(extent: Extent) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (size, limit_ms) in [
        (Size::new(extent.services, 1), None),
        (Size::new(extent.services, 10), Some(1000.0)),
        (Size::new(extent.most_services, 1), Some(5000.0)),
    ] {
        outcomes.extend(cold_load(size, extent, limit_ms)?);
    }
    outcomes.push(flips(Size::new(extent.services, 10), extent.flips)?);
    Ok(outcomes)
}

/// From the complete view in memory to the last map write, into empty maps; then the maps' memory and
/// what one more change costs.
fn cold_load(size: Size, extent: Extent, limit_ms: Option<f64>) -> Result<Vec<Outcome>> {
    let mut took_ms = Vec::new();
    let mut last = None;
    for _ in 0..extent.loads {
        drop(last.take());
        let mut cluster = Cluster::start(1)?;
        cluster.nodes[0].with(|datapath| fill(datapath, size))?;
        let (took, done) = cluster.nodes[0].with(|datapath| timed(|| datapath.in_sync()));
        done?;
        took_ms.push(took.as_secs_f64() * 1e3);
        last = Some(cluster);
    }
    let mut cluster = last.context("no load ran")?;
    let mark = limit_ms.map(Mark::AtMost);
    let mut outcomes = vec![Outcome::alone("cold load", size, "ms", &took_ms, mark)];
    let config = &cluster.nodes[0].config;
    let maps = config
        .pin_root
        .join(pin_name(&config.node_name))
        .join("maps");
    let bytes = maps_bytes(&maps)? as f64 / 1e6;
    let mark = (size.endpoints == 1 && size.services == extent.services).then_some(20.0);
    outcomes.push(Outcome::alone(
        "maps without flows",
        size,
        "MB",
        &[bytes],
        mark.map(Mark::AtMost),
    ));
    if size.endpoints > 1 {
        let took_us = cluster.nodes[0].with(|datapath| change_endpoints(datapath, size, extent))?;
        let mark = Some(Mark::AtMost(1000.0));
        let p99 = percentile(took_us, 99);
        outcomes.push(Outcome::alone(
            "one endpoint change, p99",
            size,
            "us",
            &[p99],
            mark,
        ));
    }
    Ok(outcomes)
}

fn fill(datapath: &mut Datapath, size: Size) -> Result<()> {
    let mut all = (0..size.services).flat_map(|index| changes(index, size));
    Ok(all.try_for_each(|change| datapath.change(change))?)
}

/// Microseconds of each change: an endpoint goes, or is back.
fn change_endpoints(datapath: &mut Datapath, size: Size, extent: Extent) -> Result<Vec<f64>> {
    let all: Vec<u8> = (0..size.endpoints).collect();
    let step = |number: u32| {
        // Spread over the table; every second change undoes the one before.
        let index = (number / 2).wrapping_mul(7919) % size.services;
        let gone = (number % 2 == 0).then_some(number as u8 / 2 % size.endpoints);
        let left: Vec<u8> = all
            .iter()
            .copied()
            .filter(|nth| Some(*nth) != gone)
            .collect();
        let change = slice(index, size, &left);
        let (took, done) = timed(|| datapath.change(change));
        done?;
        Ok(took.as_secs_f64() * 1e6)
    };
    (0..extent.changes).map(step).collect()
}

/// Connections that fail while the asked Service's endpoints change all the time.
fn flips(size: Size, duration: Duration) -> Result<Outcome> {
    let mut ours = Ours::start()?;
    ours.with(|datapath| fill(datapath, size))?;
    let mut side = Side::Ours(Who::Ours, Box::new(ours));
    let index = Position::Last.index(size.services);
    let job = Job {
        kind: Kind::TcpCrr,
        to: target(service_addr(index), Kind::TcpCrr),
        flows: 1,
        beside: None,
        millis: u64::try_from(duration.as_millis())?,
    };
    let client = load::start(&side.client(From::Pod), &job)?;
    let Side::Ours(_, ours) = &mut side else {
        unreachable!("it was made so");
    };
    let flipped = ours.with(|datapath| flip(datapath, index, size, duration))?;
    let measured = client.finish()?;
    let rate = f64::from(flipped) / duration.as_secs_f64();
    ensure!(measured.rate > 0.0, "nobody connected");
    let case = format!("failed connects, {rate:.0} flips/s");
    let (failed, mark) = (measured.failed as f64, Mark::AtMost(0.0));
    Ok(Outcome::alone(&case, size, "", &[failed], Some(mark)))
}

/// One half of the endpoints, then the other; how often.
fn flip(datapath: &mut Datapath, index: u32, size: Size, duration: Duration) -> Result<u32> {
    let halves = [
        (0..size.endpoints / 2).collect::<Vec<_>>(),
        (size.endpoints / 2..size.endpoints).collect(),
    ];
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < duration {
        datapath.change(slice(index, size, &halves[done as usize % 2]))?;
        done += 1;
        let due = started + Duration::from_secs(1) * done / FLIPS_PER_S;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(done)
}

/// Sandboxes without anything in them.
struct Sandboxes(Vec<Child>);

impl Drop for Sandboxes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The network's part of a pod's start, one pod after another: wire, address, programs.
pub fn pods(count: u32) -> Result<Vec<Outcome>> {
    let mut cluster = Cluster::start(1)?;
    cluster.in_sync()?;
    let mut sandboxes = Sandboxes(Vec::new());
    for _ in 0..count {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo; exec sleep 600"]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut out = child.stdout.take().context("no output")?;
        sandboxes.0.push(child);
        std::io::Read::read_exact(&mut out, &mut [0])?;
    }
    let wires: Vec<Wire> = sandboxes.0.iter().zip(0..).map(wire).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (all, took) =
        cluster.nodes[0].with(|datapath| timed(|| runtime.block_on(attach(datapath, &wires))));
    let (took_ms, size) = (took?, Size::NONE);
    let seconds = all.as_secs_f64();
    let p99 = percentile(took_ms.clone(), 99);
    Ok(vec![
        Outcome::alone("pod attach", size, "ms", &took_ms, None),
        Outcome::alone(
            "pod attach, p99",
            size,
            "ms",
            &[p99],
            Some(Mark::AtMost(10.0)),
        ),
        Outcome::alone(
            &format!("{count} pods"),
            size,
            "s",
            &[seconds],
            Some(Mark::AtMost(5.0)),
        ),
    ])
}

fn wire((sandbox, number): (&Child, u32)) -> Wire {
    let first = Ipv4Addr::new(10, 100, 1, 0);
    Wire {
        uid: format!("pod-{number}"),
        pid: sandbox.id(),
        // More than the node's range holds: the rows do not mind.
        addrs: Ipv4Addr::from_bits(first.to_bits() + 2 + number).into(),
        gateways: Ipv4Addr::new(10, 100, 1, 1).into(),
        mtu: POD_MTU,
    }
}

/// Milliseconds of each pod.
async fn attach(datapath: &mut Datapath, wires: &[Wire]) -> Result<Vec<f64>> {
    let links = PodLinks::new()?;
    let mut took_ms = Vec::new();
    for wire in wires {
        let started = Instant::now();
        let guard = datapath.guard().clone();
        let pod = links.attach(wire, &guard).await?;
        datapath.wired(wire.uid.clone(), pod, &guard)?;
        took_ms.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took_ms)
}

/// What the kernel says that the pinned maps take, without the flow table.
fn maps_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.ends_with(FLOWS.name) {
            continue;
        }
        let map = MapData::from_pin(&path)?;
        let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let info = fs::read_to_string(info)?;
        let memlock = info.lines().find_map(|line| line.strip_prefix("memlock:"));
        sum += memlock.context("no memlock")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let done = work();
    (started.elapsed(), done)
}

fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = values.len() * percent / 100;
    values[index.min(values.len() - 1)]
}
