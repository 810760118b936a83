//! What a cluster's owner says about names: ConfigMap `kube-system/kube-dns`, in the words of the DNS add-on
//! of that name, and the node's own `resolv.conf`. Pure.
//!
//! | key | value | means |
//! |---|---|---|
//! | `stubDomains` | JSON: domain → list of servers | names of the domain are asked of these servers |
//! | `upstreamNameservers` | JSON: list of servers | all other names, instead of the node's own servers |
//! | `hosts` | lines as in `/etc/hosts` | these names have these addresses |
//!
//! A server is an address, with a port if it is not 53: `192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:5353`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use api::address::parse_ip;
use hickory_proto::rr::Name;

/// Where the ConfigMap is.
pub const NAMESPACE: &str = "kube-system";
pub const NAME: &str = "kube-dns";

const PORT: u16 = 53;

/// More servers or domains than these are not asked.
const MAX_SERVERS: usize = 8;
const MAX_DOMAINS: usize = 256;
const MAX_HOSTS: usize = 10_000;

/// What the ConfigMap says; nothing, if there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    stubs: BTreeMap<Name, Vec<SocketAddr>>,
    /// `None`: the node's own.
    upstream: Option<Vec<SocketAddr>>,
    /// Names in lower case, and their addresses in the order of the lines.
    hosts: BTreeMap<Name, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, Vec<Name>>,
}

impl Config {
    /// Reads the ConfigMap. What does not read is left out, and said.
    pub fn parse(data: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let mut config = Self::default();
        let mut complaints = Vec::new();
        for (key, value) in data {
            let read = match key.as_str() {
                "stubDomains" => stubs(value).map(|it| config.stubs = it),
                "upstreamNameservers" => upstream(value).map(|it| config.upstream = it),
                "hosts" => {
                    complaints.extend(config.read_hosts(value));
                    Ok(())
                }
                _ => Err("no such setting".to_owned()),
            };
            if let Err(why) = read {
                complaints.push(format!("{key}: {why}"));
            }
        }
        (config, complaints)
    }

    /// The addresses that a name is given; `None`: it is not listed.
    pub fn host(&self, name: &Name) -> Option<&[IpAddr]> {
        if self.hosts.is_empty() {
            return None;
        }
        self.hosts.get(&name.to_lowercase()).map(Vec::as_slice)
    }

    /// The names that an address is given.
    pub fn names(&self, addr: IpAddr) -> &[Name] {
        self.names.get(&addr).map_or(&[], Vec::as_slice)
    }

    /// The servers for a name: those of the longest stub domain that it is in, else the upstream's.
    pub fn servers<'a>(&'a self, name: &Name, node: &'a [SocketAddr]) -> &'a [SocketAddr] {
        let domains = self.stubs.iter();
        let domains = domains.filter(|(domain, _)| domain.zone_of(name));
        let stub = domains.max_by_key(|(domain, _)| domain.num_labels());
        match (stub, &self.upstream) {
            (Some((_, servers)), _) => servers,
            (None, Some(servers)) => servers,
            (None, None) => node,
        }
    }

    fn read_hosts(&mut self, text: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(first) = words.next() else {
                continue;
            };
            let Some(addr) = parse_ip(first) else {
                complaints.push(format!("hosts: line {number}: {first:?} is not an address"));
                continue;
            };
            for word in words {
                match full_name(word) {
                    Some(name) if self.hosts.len() < MAX_HOSTS => {
                        let addrs = self.hosts.entry(name.clone()).or_default();
                        if !addrs.contains(&addr) {
                            addrs.push(addr);
                            self.names.entry(addr).or_default().push(name);
                        }
                    }
                    Some(_) => {
                        complaints.push(format!("hosts: more than {MAX_HOSTS} names"));
                        return complaints;
                    }
                    None => {
                        complaints.push(format!("hosts: line {number}: {word:?} is not a name"));
                    }
                }
            }
        }
        complaints
    }
}

fn stubs(value: &str) -> Result<BTreeMap<Name, Vec<SocketAddr>>, String> {
    let read: BTreeMap<String, Vec<String>> =
        serde_json::from_str(value).map_err(|error| error.to_string())?;
    if read.len() > MAX_DOMAINS {
        return Err(format!("more than {MAX_DOMAINS} domains"));
    }
    let stub = |(domain, listed): (String, Vec<String>)| {
        let name = full_name(&domain).ok_or_else(|| format!("{domain:?} is not a domain"))?;
        Ok((name, servers(&listed)?))
    };
    read.into_iter().map(stub).collect()
}

fn upstream(value: &str) -> Result<Option<Vec<SocketAddr>>, String> {
    let listed: Vec<String> = serde_json::from_str(value).map_err(|error| error.to_string())?;
    Ok(Some(servers(&listed)?).filter(|servers| !servers.is_empty()))
}

fn servers(listed: &[String]) -> Result<Vec<SocketAddr>, String> {
    let listed = listed.iter().take(MAX_SERVERS);
    let read = listed.map(|text| server(text).ok_or_else(|| format!("{text:?} is not a server")));
    read.collect()
}

fn server(text: &str) -> Option<SocketAddr> {
    let with_port = || text.parse::<SocketAddr>().ok();
    let addr = parse_ip(text).map(|addr| SocketAddr::new(addr, PORT));
    addr.or_else(with_port)
}

fn full_name(text: &str) -> Option<Name> {
    let text = text.trim_end_matches('.');
    let name = Name::from_ascii(format!("{text}.")).ok();
    name.filter(|_| !text.is_empty())
        .map(|name| name.to_lowercase())
}

/// The servers that a `resolv.conf` names, but for those that are this resolver itself: it would ask itself
/// without end.
pub fn node_servers(text: &str, own: &BTreeSet<IpAddr>) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    // A zone after the address says by which link: it is lost, as such a server is behind the uplink.
    let addrs = lines.filter_map(|word| parse_ip(word.split('%').next().unwrap_or_default()));
    let others = addrs.filter(|addr| !own.contains(addr));
    let servers = others.map(|addr| SocketAddr::new(addr, PORT));
    servers.take(MAX_SERVERS).collect()
}
