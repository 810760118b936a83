//! The oracle's cases through the real programs: the rows that `desired` computes of the API objects,
//! and test runs from node to node.

use std::net::UdpSocket;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use tests::oracle::cases::{Case, Setting, direct, generated, named};
use tests::oracle::journey::{HOST, Journeys, Loaded, OVERLAY, POD, UPLINK};
use tests::oracle::run::{Executor, run};
use tests::oracle::world::NODES;

fn main() -> ExitCode {
    let skipped = if !nix::unistd::geteuid().is_root() {
        Some("loading programs needs root")
    } else if !tests::prog::object_path().exists() {
        Some("no datapath object: run `cargo xtask build-ebpf` first")
    } else {
        None
    };
    let mut cases = named();
    cases.extend(generated(0..20));
    cases.extend(direct(&cases));
    run::<Programs>(cases, skipped)
}

struct Programs {
    /// As a VXLAN device holds its port, which then no masqueraded flow is given.
    _vxlan: UdpSocket,
    journeys: Journeys<Loaded>,
    setting: Option<Setting>,
}

impl Executor for Programs {
    fn start() -> Result<Self> {
        // A test run needs the interface that a packet is from. The namespace is this process's own
        // and goes with it.
        unshare(CloneFlags::CLONE_NEWNET)?;
        for ifindex in [UPLINK, OVERLAY, HOST, POD + 5, POD + 6] {
            let link = format!("link add test{ifindex} index {ifindex} type bridge");
            let made = Command::new("ip")
                .args(link.split(' '))
                .status()
                .context("run ip")?;
            ensure!(made.success(), "ip {link}");
        }
        let nodes = NODES.iter().map(|_| Loaded::new()).collect::<Result<_>>()?;
        Ok(Programs {
            _vxlan: UdpSocket::bind("[::]:4789")?,
            journeys: Journeys::start(nodes),
            setting: None,
        })
    }

    fn judge(&mut self, case: &Case) -> Result<()> {
        if self.setting.as_ref() != Some(&case.setting) {
            self.journeys.tell(&case.setting.world())?;
            self.setting = Some(case.setting.clone());
        }
        self.journeys.judge(case)
    }
}
