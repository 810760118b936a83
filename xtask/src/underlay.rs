//! The simulated underlay: one namespace with a switch, one namespace a node, one for a client
//! outside, and a cable from each to the switch.
//!
//! The switch is a bridge, but in a namespace of its own: a node has none.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cluster::Cluster,
    command::{self, run},
};

/// Makes what is missing; what is there already stays as it is.
pub fn create(cluster: &Cluster) -> Result<()> {
    let present = namespaces()?;
    let switch = cluster.underlay();
    if !present.contains(&switch) {
        run("ip", ["netns", "add", &switch])?;
        batch(
            Some(&switch),
            "link add ul0 type bridge\nlink set ul0 up\nlink set lo up\n",
        )?;
    }
    let root = cluster.root_link();
    if !link_exists(&root) {
        let mut script = String::new();
        writeln!(
            script,
            "link add {root} type veth peer name root netns {switch}"
        )?;
        addresses(&mut script, &cluster.gateways(), &root)?;
        writeln!(script, "link set {root} up")?;
        batch(None, &script)?;
        batch(Some(&switch), "link set root master ul0 up\n")?;
    }
    for number in (1..=cluster.servers).filter(|_| cluster.has_servers()) {
        let name = cluster.server(number);
        if !present.contains(&name) {
            let port = format!("s{number}");
            connect(cluster, &name, &port, &cluster.server_addresses(number))?;
        }
    }
    for number in 1..=cluster.nodes {
        let name = cluster.node(number);
        if !present.contains(&name) {
            connect(
                cluster,
                &name,
                &port(number),
                &cluster.node_addresses(number),
            )?;
        }
    }
    if !present.contains(&cluster.outside()) {
        connect(
            cluster,
            &cluster.outside(),
            "outside",
            &cluster.outside_addresses(),
        )?;
    }
    Ok(())
}

/// Plugs a node's cable in, or out: the node keeps its addresses and routes, and reaches nobody.
pub fn plug(cluster: &Cluster, number: u8, plugged: bool) -> Result<()> {
    let state = if plugged { "up" } else { "down" };
    let port = port(number);
    run(
        "ip",
        ["-n", &cluster.underlay(), "link", "set", &port, state],
    )
    .map(drop)
}

/// The switch's end of a node's cable.
fn port(number: u8) -> String {
    format!("n{number}")
}

/// Removes the namespaces and the root's cable. What is absent already is fine.
pub fn remove(cluster: &Cluster) -> Result<()> {
    if link_exists(&cluster.root_link()) {
        run("ip", ["link", "del", &cluster.root_link()])?;
    }
    for name in left(cluster)? {
        run("ip", ["netns", "del", &name])?;
    }
    Ok(())
}

/// The cluster's namespaces that exist now, nodes of an earlier, larger cluster included.
pub fn left(cluster: &Cluster) -> Result<Vec<String>> {
    let kinds = ["node", "server"].map(|kind| format!("{}{kind}-", cluster.prefix()));
    let ours = |name: &String| {
        let numbers = kinds.iter().filter_map(|kind| name.strip_prefix(kind));
        let has_number = numbers.map(str::parse::<u8>).any(|number| number.is_ok());
        has_number || *name == cluster.outside() || *name == cluster.underlay()
    };
    Ok(namespaces()?.into_iter().filter(ours).collect())
}

pub fn link_exists(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).exists()
}

/// Refuses an underlay whose range some other route of this machine already covers.
pub fn check_free(cluster: &Cluster) -> Result<()> {
    let ours = cluster.underlay_net();
    if let Some(route) = overlapping_route(&ours, &cluster.root_link())? {
        bail!(
            "the underlay of the nodes is {ours}, but this machine already has the route \
             `{route}`: remove it, or choose another cluster with --cluster NAME"
        );
    }
    Ok(())
}

/// The lowest index whose /24 and port nobody has, for a new cluster beside others.
pub fn free_index(taken: &BTreeSet<u8>) -> Result<u8> {
    for index in (1..=255).filter(|i| !taken.contains(i)) {
        if overlapping_route(&format!("172.31.{index}.0/24"), "")?.is_none() {
            return Ok(index);
        }
    }
    bail!("every /24 of 172.31.0.0/16 is taken by a route of this machine")
}

/// The first route other than the default one and those of `own` that shares an address with `net`.
fn overlapping_route(net: &str, own: &str) -> Result<Option<String>> {
    let routes = run("ip", ["-4", "route", "show", "table", "main"])?;
    let ours = parse_net(net).with_context(|| format!("{net} is no range"))?;
    let foreign = |line: &&str| own.is_empty() || !line.contains(&format!(" dev {own} "));
    Ok(routes
        .lines()
        .filter(foreign)
        .find(|line| {
            let first = line.split_whitespace().next().unwrap_or_default();
            parse_net(first).is_some_and(|route| overlap(ours, route))
        })
        .map(|line| line.trim().to_owned()))
}

fn parse_net(text: &str) -> Option<(u32, u32)> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let bits: u32 = bits.parse().ok().filter(|b| (1..=32).contains(b))?;
    Some((address, u32::MAX << (32 - bits)))
}

fn overlap(a: (u32, u32), b: (u32, u32)) -> bool {
    let mask = a.1 & b.1;
    a.0 & mask == b.0 & mask
}

/// A namespace with `eth0` on the switch, the root as its default route.
fn connect(cluster: &Cluster, name: &str, port: &str, own: &[IpAddr]) -> Result<()> {
    let switch = cluster.underlay();
    run("ip", ["netns", "add", name])?;
    let mut script = String::new();
    writeln!(
        script,
        "link add eth0 type veth peer name {port} netns {switch}"
    )?;
    addresses(&mut script, own, "eth0")?;
    writeln!(script, "link set lo up")?;
    writeln!(script, "link set eth0 up")?;
    for gateway in cluster.gateways() {
        writeln!(script, "route add default via {gateway}")?;
    }
    batch(Some(name), &script)?;
    batch(Some(&switch), &format!("link set {port} master ul0 up\n"))
        .with_context(|| format!("cannot plug {name} into the switch"))
}

/// Nobody else can have them: there is nothing to detect.
fn addresses(script: &mut String, addresses: &[IpAddr], link: &str) -> Result<()> {
    for address in addresses {
        let (bits, nodad) = if address.is_ipv4() {
            (24, "")
        } else {
            (64, " nodad")
        };
        writeln!(script, "addr add {address}/{bits} dev {link}{nodad}")?;
    }
    Ok(())
}

fn namespaces() -> Result<BTreeSet<String>> {
    let list = run("ip", ["netns", "list"])?;
    Ok(list
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

fn batch(namespace: Option<&str>, script: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    if let Some(name) = namespace {
        ip.args(["-n", name]);
    }
    command::with_input(ip.args(["-batch", "-"]), script.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_when_one_holds_the_other() {
        let net = |text| parse_net(text).unwrap();
        assert!(overlap(net("172.31.0.0/24"), net("172.16.0.0/12")));
        assert!(overlap(net("172.31.0.0/24"), net("172.31.0.7")));
        assert!(!overlap(net("172.31.0.0/24"), net("172.31.1.0/24")));
        assert!(parse_net("default").is_none());
    }
}
