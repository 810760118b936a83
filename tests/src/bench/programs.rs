//! What a program costs a packet: a run over it by BPF_PROG_TEST_RUN, less one of a program that does
//! nothing. Each run has a packet of its own, as the programs alter it. Beside it, what the kernel's
//! helpers cost that any program has to call for the same.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use datapath::table::Tables;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::{Config, Family};
use orchestrator_common::maps::endpoints::Endpoint;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};
use orchestrator_common::{Addr, Mac, Port, Prefix, Proto, Verdict};

use super::case::{Mark, Outcome};
use super::floor::{self, Instruction};
use super::service::Size;
use crate::packet::{Flags, SENDER_MAC, any_ip, tcp, vxlan};
use crate::prog::{Datapath, LOOPBACK};

const NOTHING: &str = "nothing";
const ROUNDS: usize = 10;
const RUNS: u32 = 2000;
const BLOCK: u32 = 50;

const POD: &str = "10.100.1.5";
const NEIGHBOUR: &str = "10.100.1.6";
const FAR_POD: &str = "10.100.2.7";
const NODE: &str = "172.31.0.11";
const OTHER_NODE: &str = "172.31.0.12";
const CLIENT: &str = "172.31.0.250";
const NODE_PORT: u16 = 30080;

/// A packet at a hook, what must become of it, and the most that may cost.
struct Case {
    name: &'static str,
    hook: Hook,
    frame: Vec<u8>,
    verdict: Verdict,
    limit_ns: f64,
    /// The kernel's part of it.
    helpers: (&'static str, Vec<Instruction>),
}

pub fn figures() -> Result<Vec<Outcome>> {
    let cases = cases();
    let mut floors: Vec<_> = cases.iter().map(|case| case.helpers.clone()).collect();
    floors.push((NOTHING, floor::nothing()));
    let mut floors = Ebpf::load(&floor::object(&floors)?)?;
    for (_, program) in floors.programs_mut() {
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
    }
    let mut datapath = Datapath::load()?;
    datapath.fill(&tables())?;
    let mut found = Vec::new();
    for case in &cases {
        found.extend(figure(case, &mut datapath, &floors)?);
    }
    Ok(found)
}

fn figure(case: &Case, datapath: &mut Datapath, floors: &Ebpf) -> Result<[Outcome; 2]> {
    let (mut costs, mut of_helpers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut ours, mut helpers, mut nothing) = (0.0, 0.0, 0.0);
        for _ in 0..RUNS / BLOCK {
            for _ in 0..BLOCK {
                let ran = datapath.run(case.hook, LOOPBACK, &case.frame)?;
                anyhow::ensure!(
                    ran.trace.verdict == case.verdict,
                    "{}: {:?}",
                    case.name,
                    ran.trace
                );
                ours += ran.duration.as_nanos() as f64;
            }
            for _ in 0..BLOCK {
                helpers += run(floors, case.helpers.0, &case.frame)?;
            }
            for _ in 0..BLOCK {
                nothing += run(floors, NOTHING, &case.frame)?;
            }
        }
        costs.push((ours - nothing) / f64::from(RUNS));
        of_helpers.push((helpers - nothing) / f64::from(RUNS));
    }
    let mark = Some(Mark::AtMost(case.limit_ns));
    let alone =
        |name: &str, costs: &[f64], mark| Outcome::alone(name, Size::NONE, "ns", costs, mark);
    Ok([
        alone(case.name, &costs, mark),
        alone(&format!("- {}", case.helpers.0), &of_helpers, None),
    ])
}

/// Nanoseconds of one run.
fn run(programs: &Ebpf, name: &str, frame: &[u8]) -> Result<f64> {
    let program = programs.program(name).context("no such program")?;
    let program: &SchedClassifier = program.try_into()?;
    let ran = program.test_run(TestRunOptions {
        data_in: Some(frame),
        repeat: 1,
        ..TestRunOptions::new()
    })?;
    Ok(ran.duration.as_nanos() as f64)
}

fn cases() -> Vec<Case> {
    let sent = tcp((POD, 40000), (FAR_POD, 80), Flags::Ack, b"x");
    let came = tcp((FAR_POD, 80), (NEIGHBOUR, 40000), Flags::Ack, b"x");
    let asked = tcp((CLIENT, 50000), (NODE, NODE_PORT), Flags::Ack, b"x");
    vec![
        Case {
            name: "a packet, overlay egress",
            hook: Hook::FromContainer,
            frame: sent,
            verdict: Verdict::Tunnel,
            limit_ns: 150.0,
            helpers: ("helpers_of_egress", floor::encapsulation()),
        },
        Case {
            name: "a packet, overlay ingress",
            hook: Hook::FromNetdev,
            frame: vxlan(OTHER_NODE, NODE, 1, &came),
            verdict: Verdict::Peer,
            limit_ns: 120.0,
            helpers: ("helpers_of_ingress", floor::decapsulation()),
        },
        Case {
            name: "a packet, node port",
            hook: Hook::FromNetdev,
            frame: asked,
            verdict: Verdict::Tunnel,
            limit_ns: 200.0,
            helpers: ("helpers_of_node_port", floor::translation()),
        },
    ]
}

/// A node with two pods, another node, and a node port whose backend is there.
fn tables() -> Tables {
    let addr = |text: &str| Addr::from(any_ip(text));
    let mut tables = Tables::default();
    let family = Family {
        node: addr(NODE),
        gateway: addr("10.100.1.1"),
        translation: addr("10.100.1.0"),
        pods: Prefix::new(any_ip("10.100.0.0"), 16),
        services: Prefix::new(any_ip("10.96.0.0"), 16),
        node_mask: Addr::v4_mask(24),
    };
    let config = Config {
        v4: family,
        v6: Family::NONE,
        underlay: addr(NODE),
        uplink: 90,
        overlay: 91,
        host: 92,
        cut: 0,
        vni: 1,
        vxlan_port: Port::new(4789),
        node_port_first: Port::new(30000),
        node_port_last: Port::new(32767),
        uplink_mac: Mac::NONE,
        mtu: 1450,
        flags: 0,
    };
    tables.config.insert(0, config);
    let endpoint = |ifindex, flags| Endpoint {
        ifindex,
        flags,
        mac: Mac::new(SENDER_MAC),
        gateway_mac: Mac::new(SENDER_MAC),
        identity: 0,
    };
    tables.endpoints.insert(addr(POD), endpoint(LOOPBACK, 0));
    tables.endpoints.insert(addr(NEIGHBOUR), endpoint(77, 0));
    tables
        .endpoints
        .insert(addr(NODE), endpoint(92, Endpoint::HOST));
    let node = Node {
        vtep: addr(OTHER_NODE),
        ..Node::default()
    };
    tables.nodes.insert(addr("10.100.2.0"), node);
    let service = Service {
        id: 1,
        count: 1,
        flags: 0,
        affinity_s: 0,
    };
    let key = ServiceKey::outside(Addr::UNSPECIFIED_V4, Port::new(NODE_PORT), Proto::TCP);
    tables.services.insert(key, service);
    let backend = Backend {
        addr: addr(FAR_POD),
        port: Port::new(8080),
        flags: 0,
        id: 1,
    };
    tables.backends.insert(
        BackendKey {
            service: 1,
            slot: 0,
        },
        backend,
    );
    tables
}
