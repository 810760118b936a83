//! 100,000 endpoints in the real maps: what a small agent must hold.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use orchestrator::datapath::view::{PortView, Protocol};
use orchestrator::datapath::{Change, ObjectKey, ServiceView, SliceView};
use tests::netns::{Cluster, ready, ready_endpoint};

const SERVICES: u32 = 1000;
const ENDPOINTS: u32 = 100;

#[test]
fn a_hundred_thousand_endpoints_fit_a_small_agent() -> Result<()> {
    if !ready("a_hundred_thousand_endpoints") {
        return Ok(());
    }
    let mut cluster = Cluster::start(1)?;
    let adopted = took(|| cluster.nodes[0].open())?;
    let before_kib = resident_kib()?;
    for service in 0..SERVICES {
        cluster.change(&service_of(service))?;
        cluster.change(&slice_of(service, ENDPOINTS))?;
    }
    let filled = took(|| cluster.in_sync())?;
    let grown_kib = resident_kib()?.saturating_sub(before_kib);
    let changed = took(|| cluster.change(&slice_of(500, ENDPOINTS - 1)))?;
    cluster.nodes[0].kill();
    let reopened = took(|| cluster.nodes[0].open())?;
    for service in 0..SERVICES {
        cluster.change(&service_of(service))?;
        let endpoints = if service == 500 {
            ENDPOINTS - 1
        } else {
            ENDPOINTS
        };
        cluster.change(&slice_of(service, endpoints))?;
    }
    let resynced = took(|| cluster.in_sync())?;
    println!(
        "opened over empty maps in {adopted:?}; 100,000 endpoints: filled in {filled:?}, one endpoint less in {changed:?}, reopened in \
         {reopened:?}, in sync again in {resynced:?}, {grown_kib} KiB resident"
    );
    assert!(grown_kib < 48 << 10, "{grown_kib} KiB");
    assert!(changed < Duration::from_millis(20), "{changed:?}");
    Ok(())
}

fn took(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn service_of(number: u32) -> Change {
    let addr = Ipv4Addr::from_bits(0x0a60_0100 + number).into();
    let view = ServiceView::cluster_ip(&[addr], vec![port(80)]);
    Change::Service(key(number), Some(view))
}

fn slice_of(number: u32, endpoints: u32) -> Change {
    let addr = |n| Ipv4Addr::from_bits(0x0a64_0000 + (number * ENDPOINTS + n) % 0xffff);
    let endpoints = (0..endpoints).map(|n| ready_endpoint(addr(n)));
    let view = SliceView::new(key(number).name, vec![port(8080)], endpoints.collect());
    Change::Slice(key(number), Some(view))
}

fn key(number: u32) -> ObjectKey {
    ObjectKey::new("default", format!("service-{number}"))
}

fn port(port: u16) -> PortView {
    PortView::new("", port, Protocol::Tcp)
}

fn resident_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("no number")?
        .parse()?)
}
