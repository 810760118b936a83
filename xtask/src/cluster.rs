//! What a dev cluster is called and where its things are: names, addresses, ports, paths.
//!
//! Pure arithmetic over a name, an index and a number of nodes, plus the one file that remembers
//! them. Nothing here makes or removes anything of a running cluster.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// The cluster that `up` makes when none is named.
pub const DEFAULT: &str = "dev";

/// One dev cluster. Written to `cluster.json` by `up`, read by every other command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    pub name: String,
    /// Chooses the underlay's /24 and the API server's port; unique on this machine.
    pub index: u8,
    pub nodes: u8,
    /// One in the root namespace, with a store in a file, or several in namespaces of their own, with etcd.
    #[serde(default = "one")]
    pub servers: u8,
    /// Of nodes, pods and Services. Clusters of before there was a choice are IPv4.
    #[serde(default)]
    pub ip_family: IpFamily,
    /// The Engine's address as DOCKER_HOST wants it; empty until one was found or started.
    #[serde(default)]
    pub docker_host: String,
    /// True when `up` mounted /sys/fs/bpf, so that `down` unmounts it.
    #[serde(default)]
    pub mounted_bpffs: bool,
}

/// The IP families of a cluster; the first one's addresses are the underlay's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    #[default]
    Ipv4,
    Ipv6,
    Dual,
}

impl IpFamily {
    /// Both, unless this machine has no IPv6.
    pub fn of_machine() -> Self {
        if Path::new("/proc/net/if_inet6").exists() {
            Self::Dual
        } else {
            Self::Ipv4
        }
    }

    fn ranges(self, v4: &str, v6: &str) -> String {
        match self {
            Self::Ipv4 => v4.to_owned(),
            Self::Ipv6 => v6.to_owned(),
            Self::Dual => format!("{v4},{v6}"),
        }
    }
}

impl Cluster {
    pub fn new(name: &str, index: u8, nodes: u8, ip_family: IpFamily) -> Result<Self> {
        // The longest link name is `<name>-orch-ul`; the kernel allows 15 bytes.
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if name.is_empty() || name.len() > 7 || !name.chars().all(legal) {
            bail!("a cluster's name is 1 to 7 of a-z and 0-9, but it is {name:?}");
        }
        if !(1..=100).contains(&nodes) {
            bail!("a dev cluster has 1 to 100 nodes, but --nodes is {nodes}");
        }
        Ok(Self {
            name: name.to_owned(),
            index,
            nodes,
            servers: 1,
            ip_family,
            docker_host: String::new(),
            mounted_bpffs: false,
        })
    }

    /// The same with several servers.
    pub fn with_servers(mut self, servers: u8) -> Result<Self> {
        if !(1..=7).contains(&servers) || servers == 2 {
            bail!("a dev cluster has 1 or 3 to 7 servers, but --servers is {servers}");
        }
        self.servers = servers;
        Ok(self)
    }

    /// What a former `up` wrote, if anything.
    pub fn load(name: &str) -> Result<Option<Self>> {
        let path = state_dir(name).join("cluster.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} is damaged; remove it", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub fn save(&self) -> Result<()> {
        let dir = self.dir();
        fs::create_dir_all(&dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
        fs::write(dir.join("cluster.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// Every cluster of this checkout that is up, or was left by an `up` that failed.
    pub fn all() -> Vec<Self> {
        let others = fs::read_dir(dev_dir().join("clusters"))
            .into_iter()
            .flatten()
            .flatten();
        others
            .filter_map(|entry| entry.file_name().into_string().ok())
            .chain([DEFAULT.to_owned()])
            .filter_map(|name| Self::load(&name).ok().flatten())
            .collect()
    }

    pub fn dir(&self) -> PathBuf {
        state_dir(&self.name)
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir().join("run")
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir().join("log")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// Names of links and namespaces begin with it: nothing for the default cluster.
    pub fn prefix(&self) -> String {
        if self.name == DEFAULT {
            String::new()
        } else {
            format!("{}-", self.name)
        }
    }

    /// Several servers, each in its namespace.
    pub fn has_servers(&self) -> bool {
        self.servers > 1
    }

    /// The name and the namespace of one of several servers. Counted from 1.
    pub fn server(&self, number: u8) -> String {
        format!("{}server-{number}", self.prefix())
    }

    /// Where it keeps its data.
    pub fn server_dir(&self, number: u8) -> PathBuf {
        match self.has_servers() {
            true => self.dir().join("servers").join(self.server(number)),
            false => self.dir().join("server"),
        }
    }

    /// Where a server answers.
    pub fn server_addresses(&self, number: u8) -> Vec<IpAddr> {
        match self.has_servers() {
            true => self.addresses(1 + number),
            false => self.gateways(),
        }
    }

    /// The node's name in the API, which is its namespace's name too. Counted from 1.
    pub fn node(&self, number: u8) -> String {
        format!("{}node-{number}", self.prefix())
    }

    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|n| self.node(n)).collect()
    }

    /// The client on the underlay that is no node.
    pub fn outside(&self) -> String {
        format!("{}outside", self.prefix())
    }

    /// The namespace that holds the switch.
    pub fn underlay(&self) -> String {
        format!("{}underlay", self.prefix())
    }

    /// The root namespace's end of its cable to the switch.
    pub fn root_link(&self) -> String {
        format!("{}orch-ul", self.prefix())
    }

    pub fn pod_cidr(&self) -> String {
        self.ip_family.ranges("10.100.0.0/16", "fd00:100::/48")
    }

    pub fn service_cidr(&self) -> String {
        self.ip_family.ranges("10.96.0.0/16", "fd00:96::/112")
    }

    /// Addresses of the underlay for Services of type LoadBalancer; its nodes announce them.
    pub fn load_balancer_pool(&self) -> String {
        let [first, last] = [self.addresses(230), self.addresses(249)];
        let ranges = first.iter().zip(&last);
        let ranges: Vec<String> = ranges.map(|(from, to)| format!("{from}-{to}")).collect();
        ranges.join(",")
    }

    /// The last one of them, which leads to all of several servers.
    pub fn shared_address(&self) -> IpAddr {
        self.addresses(249)[0]
    }

    /// The underlay's own IPv4 range, of which every cluster has one.
    pub fn underlay_net(&self) -> String {
        format!("172.31.{}.0/24", self.index)
    }

    /// The root namespace on the underlay, where the server listens.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.addresses(1)
    }

    /// The one of them that nodes know the server by.
    pub fn gateway(&self) -> IpAddr {
        self.gateways()[0]
    }

    pub fn node_addresses(&self, number: u8) -> Vec<IpAddr> {
        self.addresses(10 + number)
    }

    pub fn outside_addresses(&self) -> Vec<IpAddr> {
        self.addresses(250)
    }

    pub fn api_port(&self) -> u16 {
        6443 + u16::from(self.index)
    }

    /// 172.31.index.host and fd00:31:index::host, with the host's decimal digits: the cluster's first
    /// family first.
    fn addresses(&self, host: u8) -> Vec<IpAddr> {
        let v4 = Ipv4Addr::new(172, 31, self.index, host).into();
        let digits =
            |n: u8| u16::from(n / 100) << 8 | u16::from(n / 10 % 10) << 4 | u16::from(n % 10);
        let (index, host) = (digits(self.index), digits(host));
        let v6 = Ipv6Addr::new(0xfd00, 0x31, index, 0, 0, 0, 0, host).into();
        match self.ip_family {
            IpFamily::Ipv4 => vec![v4],
            IpFamily::Ipv6 => vec![v6],
            IpFamily::Dual => vec![v4, v6],
        }
    }
}

fn one() -> u8 {
    1
}

/// The directory of the checkout: xtask's manifest is one below it.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Everything that a dev cluster writes is below it.
pub fn dev_dir() -> PathBuf {
    workspace().join(".dev")
}

fn state_dir(name: &str) -> PathBuf {
    if name == DEFAULT {
        dev_dir()
    } else {
        dev_dir().join("clusters").join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_cluster_has_the_documented_names_and_addresses() {
        let cluster = Cluster::new(DEFAULT, 0, 3, IpFamily::Dual).unwrap();
        assert_eq!(cluster.node_names(), ["node-1", "node-2", "node-3"]);
        assert_eq!(cluster.root_link(), "orch-ul");
        assert_eq!(cluster.gateway().to_string(), "172.31.0.1");
        let texts: Vec<String> = cluster
            .node_addresses(1)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts, ["172.31.0.11", "fd00:31::11"]);
        let pool = "172.31.0.230-172.31.0.249,fd00:31::230-fd00:31::249";
        assert_eq!(cluster.load_balancer_pool(), pool);
        assert_eq!(cluster.outside_addresses()[1].to_string(), "fd00:31::250");
        assert_eq!(cluster.api_port(), 6443);
    }

    #[test]
    fn two_clusters_share_no_name_address_or_port() {
        let (a, b) = (
            Cluster::new(DEFAULT, 0, 3, IpFamily::Dual).unwrap(),
            Cluster::new("e2e", 1, 3, IpFamily::Dual).unwrap(),
        );
        assert_ne!(a.node(1), b.node(1));
        assert_ne!(a.root_link(), b.root_link());
        assert_ne!(a.underlay_net(), b.underlay_net());
        assert_ne!(a.api_port(), b.api_port());
        assert_ne!(a.dir(), b.dir());
    }

    #[test]
    fn several_servers_have_addresses_of_their_own() {
        let one = Cluster::new(DEFAULT, 0, 3, IpFamily::Ipv4).unwrap();
        assert_eq!(one.server_addresses(1), one.gateways());
        assert!(one.server_dir(1).ends_with(".dev/server"));
        let three = one.with_servers(3).unwrap();
        let texts: Vec<String> = (1..=3)
            .map(|n| three.server_addresses(n)[0].to_string())
            .collect();
        assert_eq!(texts, ["172.31.0.2", "172.31.0.3", "172.31.0.4"]);
        assert!(three.server_dir(2).ends_with(".dev/servers/server-2"));
        assert!(
            three.with_servers(2).is_err(),
            "two lose more often than one"
        );
    }

    #[test]
    fn every_link_name_fits_the_kernel() {
        let new = |name| Cluster::new(name, 1, 3, IpFamily::Ipv4);
        let cluster = new("abcdefg").unwrap();
        assert!(cluster.root_link().len() <= 15);
        assert!(new("abcdefgh").is_err());
        assert!(new("e2e_1").is_err());
    }
}
