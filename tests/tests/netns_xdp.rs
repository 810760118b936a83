//! XDP on a node's uplink, with real sockets: a client outside asks a node whose backends are on
//! another one. XDP's own counter says that it was at work.
//!
//! XDP is for real cards, whose frames have their checksums. On a veth pair the stack leaves a
//! checksum to a card that is not there, and XDP cannot see that: so who sends here computes it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::programs::XdpMode;
use datapath::{DatapathError, Xdp};
use tests::netns::{Cluster, Plan, Svc, ready};
use tests::peer::{Client, Server, receive, udp_for};
use tests::prog::Datapath;

const WEB: u16 = 30_080;
const DNS: u16 = 30_081;
const QUESTIONS: u64 = 20;

/// Two nodes; the first has XDP, the second the only pod, with a server for TCP and one for UDP.
struct Pair {
    cluster: Cluster,
    _switch: Datapath,
    _servers: [Server; 2],
}

fn pair(plan: Plan, mode: Xdp) -> Result<Pair> {
    let mut cluster = plan.start()?;
    cluster.nodes[1].add_pod(5)?;
    cluster.in_sync()?;
    let pod = &cluster.nodes[1].pods[0].netns;
    cluster.outside.ethtool("eth0 tx off")?;
    pod.ethtool("eth0 tx off")?;
    // A veth pair carries what XDP sends at one end only if the other one has XDP, too
    // (`veth_xdp_flush`, Linux 6.18). Without a config the program lets everything pass.
    let mut switch = Datapath::load()?;
    let passes = switch.xdp()?;
    cluster
        .underlay
        .enter(|| passes.attach("node-1", XdpMode::Driver))?;
    let servers = [
        Server::tcp(pod, "far", 8080)?,
        Server::udp(pod, "far", 5353)?,
    ];
    cluster.nodes[0].config.xdp = mode;
    cluster.restart(0)?;
    let backend = [cluster.nodes[1].ep(0)];
    let web = Svc::new("web", 20).port(80, 8080).node_port(WEB);
    cluster.apply(&web.to(backend.clone()))?;
    let dns = Svc::new("dns", 21).udp(53, 5353).node_port(DNS);
    cluster.apply(&dns.to(backend))?;
    Ok(Pair {
        cluster,
        _switch: switch,
        _servers: servers,
    })
}

impl Pair {
    /// Packets of a kind that the first node counted; "xdp" are those that XDP finished.
    fn counted(&mut self, what: &str) -> Result<u64> {
        let counters = self.cluster.nodes[0].with(|datapath| datapath.counters())?;
        let found = counters.iter().find(|(name, _)| *name == what);
        Ok(found.context("no such counter")?.1)
    }

    fn addrs(&self) -> [IpAddr; 2] {
        [self.cluster.nodes[0].v4(), self.cluster.nodes[0].v6()]
    }

    fn pin(&self, mode: &str) -> PathBuf {
        let config = &self.cluster.nodes[0].config;
        let links = config.pin_root.join(&config.node_name).join("links");
        links.join(format!("xdp_uplink-{mode}"))
    }

    fn restart_with(&mut self, mode: Xdp) -> Result<()> {
        self.cluster.nodes[0].config.xdp = mode;
        self.cluster.restart(0)
    }

    /// TCP and UDP over both families; how many packets XDP finished meanwhile.
    fn ask_all(&mut self) -> Result<u64> {
        let before = self.counted("xdp")?;
        for addr in self.addrs() {
            let mut client = Client::connect(&self.cluster.outside, (addr, WEB))?;
            ask(&mut client)?;
            // Many segments of the largest size.
            let long = "x".repeat(50_000);
            ensure!(client.ask(&long)?.len() == long.len() + 4);
            let socket = udp_for(&self.cluster.outside, addr)?;
            let at: SocketAddr = (addr, DNS).into();
            for number in 0..QUESTIONS {
                socket.send_to(number.to_string().as_bytes(), at)?;
                ensure!(receive(&socket)? == (format!("far {number}"), at));
            }
        }
        Ok(self.counted("xdp")? - before)
    }
}

fn ask(client: &mut Client) -> Result<()> {
    for number in 0..QUESTIONS {
        let answer = client.ask(&number.to_string())?;
        ensure!(answer == format!("far {number}"), "{answer}");
    }
    Ok(())
}

/// Two packets a question at least, of which one a second may be the stack's.
const FINISHED: u64 = 4 * QUESTIONS;

#[test]
fn clients_outside_are_served_by_generic_xdp() -> Result<()> {
    served("generic XDP", Plan::nodes(2), Xdp::Generic)
}

#[test]
fn clients_outside_are_served_by_generic_xdp_over_an_ipv6_underlay() -> Result<()> {
    served(
        "generic XDP over IPv6",
        Plan::nodes(2).underlay_v6(),
        Xdp::Generic,
    )
}

#[test]
fn clients_outside_are_served_by_native_xdp() -> Result<()> {
    served("native XDP", Plan::nodes(2), Xdp::Native)
}

fn served(test: &str, plan: Plan, mode: Xdp) -> Result<()> {
    if !ready(test) {
        return Ok(());
    }
    let mut pair = pair(plan, mode)?;
    let finished = pair.ask_all()?;
    assert!(finished > FINISHED, "{finished} packets");
    // What has no business here ends in XDP, too.
    let (xdp, reason) = (pair.counted("xdp")?, pair.counted("pod_range_outside")?);
    pair.cluster.route_outside("10.100.0.0/16", 0)?;
    pair.cluster.route_outside("fd00:100::/48", 0)?;
    let pod = &pair.cluster.nodes[1].pods[0];
    for addr in [IpAddr::V4(pod.addr), IpAddr::V6(pod.v6)] {
        udp_for(&pair.cluster.outside, addr)?.send_to(b"x", (addr, 5353))?;
    }
    // Whoever is served after them has come after them.
    pair.ask_all()?;
    assert_eq!(pair.counted("pod_range_outside")?, reason + 2);
    assert!(pair.counted("xdp")? >= xdp + 2 + FINISHED);
    Ok(())
}

#[test]
fn a_restarted_agent_keeps_xdp_and_one_that_is_told_so_removes_it() -> Result<()> {
    if !ready("XDP and restarts") {
        return Ok(());
    }
    let mut pair = pair(Plan::nodes(2), Xdp::Generic)?;
    let addr = pair.addrs()[0];
    let mut client = Client::connect(&pair.cluster.outside, (addr, WEB))?;
    ask(&mut client)?;
    let before = pair.counted("xdp")?;
    pair.cluster.nodes[0].kill();
    ask(&mut client).context("while no agent runs")?;
    pair.cluster.restart(0)?;
    assert!(
        pair.counted("xdp")? > before,
        "XDP worked without its agent"
    );
    assert!(pair.pin("generic").exists());
    ask(&mut client).context("after the restart")?;
    assert!(pair.ask_all()? > FINISHED);

    // Another mode takes its place, and nothing is left of the first.
    pair.restart_with(Xdp::Native)?;
    assert!(pair.pin("native").exists() && !pair.pin("generic").exists());
    assert!(pair.ask_all()? > FINISHED);
    for mode in [Xdp::Off, Xdp::Auto] {
        pair.restart_with(mode)?;
        assert!(!pair.pin("native").exists() && !pair.pin("generic").exists());
        assert_eq!(pair.ask_all()?, 0, "{mode:?} on a veth pair");
        ask(&mut client).context("the connection is the stack's now")?;
    }
    Ok(())
}

#[test]
fn where_native_xdp_cannot_be_the_agent_says_what_to_do() -> Result<()> {
    if !ready("no native XDP") {
        return Ok(());
    }
    // A veth pair takes no XDP while its frames do not fit into a page.
    let mut cluster = Plan::nodes(1).mtu(9000).start()?;
    cluster.underlay.ip("link set node-1 mtu 9000")?;
    let node = &mut cluster.nodes[0];
    node.kill();
    node.config.xdp = Xdp::Native;
    let error = node.open().err().context("it opened")?;
    let error: DatapathError = error.downcast()?;
    assert!(error.to_string().contains("--xdp auto"), "{error}");
    node.config.xdp = Xdp::Generic;
    node.open()
}
