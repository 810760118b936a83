//! Nodes, pods and a client outside as network namespaces, with the real datapath in each node.
//!
//! Everything made here bears the process's number and is removed when dropped, also by a panic; what a
//! killed run left is removed by the next. No agent, no API: the tests hand the changes over.

mod cluster;
mod hop;
mod node;
mod service;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

use crate::prog::skipped;

pub use cluster::{Cluster, Plan, ready_endpoint};
pub use hop::Narrow;
pub use node::{Node, Pod};
pub use service::{Ep, Object, Svc};

/// Every name made here: `dpt<pid>-…`.
pub(crate) const PREFIX: &str = "dpt";

pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// Whether the datapath can run here; otherwise reports `test` as skipped.
pub fn ready(test: &str) -> bool {
    let lacks = if !nix::unistd::geteuid().is_root() {
        "it needs root"
    } else if !datapath::object::is_embedded() {
        "no datapath is built in: run `cargo xtask build-ebpf` and build again"
    } else {
        return true;
    };
    skipped(test, lacks);
    false
}

/// A network namespace that goes with its value.
pub struct Netns {
    pub name: String,
}

impl Netns {
    fn create(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let made = Self { name };
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// `ip` inside; arguments are split at blanks.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        ip(&all).map(drop)
    }

    /// Runs `work` on a thread that is inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = inside(&self.name, work);
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// The same beside the caller, who joins it.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        thread::spawn(inside(&self.name, work))
    }

    /// Index and link address of a link inside.
    pub fn link(&self, name: &str) -> Result<(u32, [u8; 6])> {
        let text = ip(&["-n", &self.name, "-j", "link", "show", "dev", name])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let ifindex = links[0]["ifindex"].as_u64().context("no ifindex")?;
        let address = links[0]["address"].as_str().context("no address")?;
        Ok((u32::try_from(ifindex)?, mac(address)?))
    }

    /// The link address that is held for a neighbour.
    pub fn neighbour(&self, addr: IpAddr) -> Result<Option<[u8; 6]>> {
        let text = ip(&["-n", &self.name, "-j", "neigh", "show", &addr.to_string()])?;
        let held: serde_json::Value = serde_json::from_str(&text)?;
        held[0]["lladdr"].as_str().map(mac).transpose()
    }

    /// Lines for `ip -batch` inside: one process for many changes.
    pub fn batch(&self, script: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]);
        ip.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut ip = ip.spawn().context("run ip")?;
        let mut input = ip.stdin.take().context("ip has an input")?;
        input.write_all(script.as_bytes())?;
        drop(input);
        let done = ip.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{script}: {}", complaint.trim());
        Ok(())
    }

    /// `bridge` inside; arguments are split at blanks.
    pub fn bridge(&self, arguments: &str) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        run("bridge", &all).map(drop)
    }

    /// Sets offloads of a link inside; arguments, of which it is the first, are split at blanks.
    pub fn ethtool(&self, arguments: &str) -> Result<()> {
        let mut all = vec!["-K"];
        all.extend(arguments.split_whitespace());
        self.enter(|| run("ethtool", &all)).map(drop)
    }

    pub fn sysctl(&self, path: &str, value: &str) -> io::Result<()> {
        self.enter(|| fs::write(format!("/proc/sys/net/{path}"), value))
    }

    /// Several settings of IPv6 on a link, or on `default` for the links to come.
    fn ipv6(&self, link: &str, settings: &[(&str, &str)]) -> io::Result<()> {
        self.enter(|| {
            settings.iter().try_for_each(|(setting, value)| {
                fs::write(format!("/proc/sys/net/ipv6/conf/{link}/{setting}"), value)
            })
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A failure would be a panic in a drop; the next run's sweep gets what is left.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// The numbers under which everything here is found: node 1 is 172.31.0.11 and fd00:31::b, its
/// pods are 10.100.1.n and fd00:100:0:1::n, Services are 10.96.0.n and fd00:96::n.
pub fn underlay_addr(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let v6 = Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, number.into());
    (Ipv4Addr::new(172, 31, 0, number), v6)
}

pub fn pod_addr(node: u8, number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let v6 = Ipv6Addr::new(0xfd00, 0x100, 0, node.into(), 0, 0, 0, number.into());
    (Ipv4Addr::new(10, 100, node, number), v6)
}

pub fn service_addr(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let v6 = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, number.into());
    (Ipv4Addr::new(10, 96, 0, number), v6)
}

/// The client that is no node.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, OUTSIDE_NUMBER);
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, OUTSIDE_NUMBER as u16);
const OUTSIDE_NUMBER: u8 = 250;

/// A switch on its own, for networks that are not ours.
pub struct Underlay {
    pub netns: Netns,
    name: String,
}

impl Underlay {
    pub fn create(tag: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{tag}", std::process::id());
        let netns = Netns::create(format!("{name}-ul"))?;
        netns.ip("link add ul0 type bridge")?;
        netns.ip("link set ul0 up")?;
        Ok(Self { netns, name })
    }

    /// A namespace on the switch with 172.31.0.`octet`.
    pub fn plug(&self, tag: &str, octet: u8) -> Result<Netns> {
        let netns = self.namespace(tag)?;
        plug(
            &self.netns,
            &netns,
            tag,
            Ipv4Addr::new(172, 31, 0, octet),
            None,
        )?;
        Ok(netns)
    }

    /// A namespace that nothing leads to yet.
    pub fn namespace(&self, tag: &str) -> Result<Netns> {
        Netns::create(format!("{}-{tag}", self.name))
    }
}

/// Joins a namespace to the switch. Without an IPv6 address its link has no IPv6 at all.
fn plug(
    underlay: &Netns,
    netns: &Netns,
    port: &str,
    v4: Ipv4Addr,
    v6: Option<Ipv6Addr>,
) -> Result<()> {
    underlay.batch(&format!(
        "link add name {port} type veth peer name eth0 netns {}\n\
         link set {port} master ul0 up\n",
        netns.name
    ))?;
    let mut script = format!("addr add {v4}/24 dev eth0\n");
    match v6 {
        Some(v6) => {
            netns.ipv6("eth0", &[("accept_ra", "0"), ("accept_dad", "0")])?;
            script += &format!("addr add {v6}/64 dev eth0 nodad\n");
        }
        None => netns.ipv6("eth0", &[("disable_ipv6", "1")])?,
    }
    script += "link set eth0 up\n";
    netns.batch(&script)
}

fn inside<T, F: FnOnce() -> T>(name: &str, work: F) -> impl FnOnce() -> T + use<T, F> {
    let path = format!("/run/netns/{name}");
    move || {
        let namespace = fs::File::open(&path).expect("the namespace is there");
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
        work()
    }
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let mut mac = [0; 6];
    for (byte, octet) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(octet, 16)?;
    }
    Ok(mac)
}

fn split(arguments: &str) -> Vec<&str> {
    arguments.split_whitespace().collect()
}

fn ip(arguments: &[&str]) -> Result<String> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("run {program}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        complaint.trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Removes what a run that was killed could not.
fn sweep_dead_runs() -> Result<()> {
    let dead = |name: &str| {
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
    };
    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| dead(name)).collect()
    };
    for name in names("/run/netns") {
        ip(&["netns", "del", &name])?;
    }
    for name in names(BPFFS) {
        let root = Path::new(BPFFS).join(name);
        for node in datapath::nodes(&root)? {
            datapath::remove_pins(&root, &node)?;
        }
        fs::remove_dir(root)?;
    }
    Ok(())
}
