//! 100,000 endpoints in the real maps: what a small agent must hold. And every kind of row, read back.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use datapath::dump::dump;
use datapath::facts::Facts;
use datapath::fake::Fake;
use datapath::reconcile::Reconciler;
use datapath::view::{ExternalView, PortView, Protocol};
use datapath::{Change, NodeView, ObjectKey, ServiceView, SliceView};
use orchestrator_common::maps::config::Family;
use orchestrator_common::{Addr, Mac, Port, Prefix};
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
    // The fastest of several: what a change costs, not what else runs on the machine.
    let mut changed = Duration::MAX;
    for less in 1..=10 {
        changed = changed.min(took(|| cluster.change(&slice_of(500, ENDPOINTS - less)))?);
    }
    cluster.nodes[0].kill();
    let reopened = took(|| cluster.nodes[0].open())?;
    for service in 0..SERVICES {
        cluster.change(&service_of(service))?;
        let endpoints = if service == 500 {
            ENDPOINTS - 10
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
    assert!(
        changed * 100 < filled,
        "one of 100,000 endpoints in {changed:?}, all of them in {filled:?}"
    );
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
    let view = SliceView::new(key(number), vec![port(8080)], endpoints.collect());
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

/// What a person may do to one load balancer's Service; after each, the kernel's rows are those of the
/// maps in memory.
#[test]
fn every_kind_of_row_reads_back_as_it_was_computed() -> Result<()> {
    if !ready("every_kind_of_row_reads_back") {
        return Ok(());
    }
    let mut cluster = Cluster::start(1)?;
    let mut model = Reconciler::start(Fake::default(), facts())?;
    let mut both = |cluster: &mut Cluster, change: Change| -> Result<()> {
        cluster.change(&change)?;
        model.change(change)?;
        // Before, nothing is written of Services.
        cluster.in_sync()?;
        model.in_sync()?;
        let kernel = cluster.nodes[0].with(|datapath| datapath.dump())?;
        assert_eq!(of_services(&kernel), of_services(&dump(model.actual())));
        Ok(())
    };
    let own = NodeView::new(
        vec!["10.100.1.0/24".parse()?],
        Ipv4Addr::new(172, 31, 0, 11),
    );
    both(&mut cluster, Change::Node("node-1".into(), Some(own)))?;
    both(&mut cluster, load_balancer(&["198.51.100.0/24"]))?;
    for endpoints in [1, 2, 3, 100, 99, 65, 2, 0] {
        both(&mut cluster, slice_of(0, endpoints))?;
    }
    both(&mut cluster, slice_of(0, 40))?;
    both(
        &mut cluster,
        load_balancer(&["0.0.0.0/0", "198.51.100.0/25", "fd00::/8"]),
    )?;
    both(&mut cluster, load_balancer(&[]))?;
    let ranges = load_balancer(&["198.51.100.0/24"]);
    both(&mut cluster, ranges.clone())?;

    let before = cluster.nodes[0].with(|datapath| datapath.dump())?;
    assert!(before.contains("announced_v1\n  203.0.113.1\n"), "{before}");
    assert!(before.contains("= 6421 positions, slots 40"), "{before}");
    cluster.nodes[0].kill();
    cluster.nodes[0].open()?;
    cluster.announce_nodes()?;
    cluster.change(&ranges)?;
    cluster.change(&slice_of(0, 40))?;
    cluster.in_sync()?;
    let after = cluster.nodes[0].with(|datapath| datapath.dump())?;
    assert_eq!(
        of_services(&before),
        of_services(&after),
        "a restarted agent changes nothing"
    );

    both(&mut cluster, Change::Service(key(0), None))?;
    let empty = cluster.nodes[0].with(|datapath| datapath.dump())?;
    assert_eq!(of_services(&empty).lines().count(), 5, "{empty}");
    Ok(())
}

/// The sections of a dump that no fact of the node is in.
fn of_services(dump: &str) -> &str {
    let from = dump.find("services_v1").expect("the section");
    let to = dump.find("netns_v2").expect("the section");
    &dump[from..to]
}

fn load_balancer(ranges: &[&str]) -> Change {
    let mut web = port(80);
    web.node_port = 30080;
    let cluster_ip = Ipv4Addr::new(10, 96, 0, 10).into();
    let mut view = ServiceView::cluster_ip(&[cluster_ip], vec![web]);
    view.affinity_s = 60;
    let ranges = ranges
        .iter()
        .map(|range| range.parse().expect("a literal range"));
    view.external = Some(Box::new(ExternalView {
        load_balancer_ips: vec![Ipv4Addr::new(203, 0, 113, 1).into()],
        source_ranges: ranges.collect(),
        ..ExternalView::default()
    }));
    Change::Service(key(0), Some(view))
}

/// Of a node like the cluster's first; only its name matters here.
fn facts() -> Facts {
    Facts {
        name: "node-1".into(),
        v4: Family::NONE,
        v6: Family::NONE,
        underlay: Addr::UNSPECIFIED_V4,
        uplink: 2,
        overlay: 3,
        host: 5,
        cut: 0,
        host_mac: Mac::default(),
        net_mac: Mac::default(),
        uplink_mac: Mac::default(),
        vni: 1,
        vxlan_port: Port::new(4789),
        mtu: 1450,
        netns_cookie: 1,
        dsr: false,
        neighbourhood: Prefix::NONE,
        servers: Vec::new(),
    }
}
