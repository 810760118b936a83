//! Namespaces for what is to be cut off from each other: one for each server and each member of etcd, and one for
//! the clients, on a switch of their own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};

use crate::netns::{Netns, Underlay};

/// Which packets between two are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
    Both,
}

/// They go with this.
pub struct Wires {
    plugged: BTreeMap<String, Netns>,
    _clients: Netns,
    underlay: Underlay,
}

/// The last number of the clients' address.
const CLIENTS: u8 = 9;

impl Wires {
    /// Makes the switch and enters the clients' namespace: call it before there are threads.
    ///
    /// # Errors
    /// Without root there are no namespaces.
    pub fn make() -> Result<Self> {
        let underlay = Underlay::create("nemesis")?;
        let clients = underlay.plug("clients", CLIENTS)?;
        let file = std::fs::File::open(format!("/run/netns/{}", clients.name))?;
        setns(file, CloneFlags::CLONE_NEWNET)?;
        Ok(Self {
            plugged: BTreeMap::new(),
            _clients: clients,
            underlay,
        })
    }

    /// A namespace with 172.31.0.`octet`; its name, and the address.
    pub fn plug(&mut self, tag: &str, octet: u8) -> Result<(String, IpAddr)> {
        let netns = self.underlay.plug(tag, octet)?;
        let name = netns.name.clone();
        self.plugged.insert(tag.to_owned(), netns);
        Ok((name, Ipv4Addr::new(172, 31, 0, octet).into()))
    }

    /// Packets from these addresses, to them, or both, are lost at the one with that tag.
    pub fn cut(&self, tag: &str, others: &[IpAddr], way: Way) -> Result<()> {
        let others: Vec<String> = others.iter().map(IpAddr::to_string).collect();
        let others = others.join(", ");
        let mut script = "table ip cut {\n".to_owned();
        if way != Way::Out {
            script += &format!(
                "chain in {{ type filter hook input priority 0; ip saddr {{ {others} }} drop; }}\n"
            );
        }
        if way != Way::In {
            script += &format!(
                "chain out {{ type filter hook output priority 0; ip daddr {{ {others} }} drop; }}\n"
            );
        }
        script += "}\n";
        self.nft(tag, &script)
    }

    /// All goes through again, everywhere.
    pub fn mend(&self) -> Result<()> {
        let mut tags = self.plugged.keys();
        tags.try_for_each(|tag| self.nft(tag, "flush ruleset\n"))
    }

    fn nft(&self, tag: &str, script: &str) -> Result<()> {
        let netns = self.plugged.get(tag).with_context(|| tag.to_owned())?;
        netns.enter(|| {
            let mut nft = Command::new("nft");
            nft.args(["-f", "-"]).stdin(Stdio::piped());
            let mut nft = nft.spawn().context("run nft")?;
            let mut input = nft.stdin.take().context("nft has an input")?;
            input.write_all(script.as_bytes())?;
            drop(input);
            ensure!(nft.wait()?.success(), "nft refuses {script}");
            Ok(())
        })
    }
}
