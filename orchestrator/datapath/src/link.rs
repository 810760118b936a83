//! The node's own links: the VXLAN device, the veth pair that makes the node an endpoint, the routes that
//! send the overlay through it, and the pair in which packets are cut.
//!
//! A restarted agent recognises them by name; what is right already is left alone, so no packet is
//! lost. Pod links are the agent's (`agent/pod_net`).

mod addresses;
pub mod batch;
mod cut;
mod driver;
pub mod filters;
mod frames;
mod neighbourhood;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Display;
use std::fs;
use std::io;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder};

use orchestrator_common::Prefix;

use super::{DatapathError, FamilyConfig, NodeConfig};

pub use addresses::route_addresses;
pub use cut::Cut;
pub use driver::Driver;
pub use frames::Sender;

pub const VXLAN: &str = "orch-vxlan";
/// The node's end: carries its overlay address and the routes.
pub const HOST: &str = "orch-host";
/// The datapath's end: what the node sends comes in here.
pub const NET: &str = "orch-net";
/// By this one leaves what is to be cut, and its pieces come back to it.
pub const CUT: &str = "orch-cut";
/// Its other end.
pub const PIECES: &str = "orch-pieces";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub ifindex: u32,
    pub mac: [u8; 6],
}

/// What the programs must know of the node's links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    pub uplink: Device,
    pub driver: Driver,
    pub vxlan: Device,
    pub host: Device,
    pub net: Device,
    /// Where nothing is to be cut there is none.
    pub cut: Option<Cut>,
    /// Whose addresses are on the uplink's own link.
    pub neighbourhood: Prefix,
}

/// Makes the node's links, addresses and routes as they should be. `overlay_mac` is the address that
/// every VXLAN device of the cluster has.
pub async fn ensure(config: &NodeConfig, overlay_mac: [u8; 6]) -> Result<Devices, DatapathError> {
    let netlink = Netlink::connect()?;
    let uplink = netlink.find(&config.uplink).await?.ok_or_else(|| {
        DatapathError::Invalid(format!(
            "there is no link {} here: name the one that carries {}",
            config.uplink, config.underlay
        ))
    })?;
    let families: Vec<FamilyConfig> = config.families().copied().collect();
    let vxlan = ensure_vxlan(&netlink, config, overlay_mac).await?;
    let (host, net) = ensure_pair(&netlink, config).await?;
    let cut = cut::ensure(&netlink, config).await?;
    ensure_addresses(&netlink, host, &families).await?;
    for family in &families {
        ensure_routes(&netlink, host, net, family).await?;
    }
    let port = device(&uplink)?;
    let neighbourhood = neighbourhood::find(&netlink, port.ifindex, config.underlay).await?;
    Ok(Devices {
        uplink: port,
        driver: Driver::of(&uplink),
        vxlan,
        host,
        net,
        cut,
        neighbourhood,
    })
}

/// Removes the node's links; routes and neighbours go with them. Absent ones are fine.
pub async fn remove() -> Result<(), DatapathError> {
    let netlink = Netlink::connect()?;
    for name in [HOST, VXLAN, CUT] {
        if let Some(link) = netlink.find(name).await? {
            netlink.delete(name, &link).await?;
        }
    }
    Ok(())
}

async fn ensure_vxlan(
    netlink: &Netlink,
    config: &NodeConfig,
    mac: [u8; 6],
) -> Result<Device, DatapathError> {
    let mtu = config.overlay_mtu();
    let link = match netlink.find(VXLAN).await? {
        Some(link) if is_overlay(&link, config) => link,
        stale => {
            if let Some(stale) = stale {
                netlink.delete(VXLAN, &stale).await?;
            }
            let message = LinkMessageBuilder::<LinkVxlan>::new(VXLAN)
                .collect_metadata(true)
                .learning(false)
                .port(config.vxlan_port)
                .udp_zero_csum6_rx(true)
                .address(mac.to_vec())
                .mtu(mtu)
                .build();
            netlink.create(VXLAN, message).await?
        }
    };
    quiet(VXLAN)?;
    let message = LinkUnspec::new_with_index(link.header.index)
        .arp(false)
        .multicast(false)
        .address(mac.to_vec())
        .mtu(mtu)
        .up()
        .build();
    netlink.set(VXLAN, message).await?;
    Ok(Device {
        ifindex: link.header.index,
        mac,
    })
}

/// The existing device takes its tunnel from each packet, listens on the right port and, where the
/// outer packets are IPv6, takes them without a checksum.
fn is_overlay(link: &LinkMessage, config: &NodeConfig) -> bool {
    let facts = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
                LinkInfo::Data(InfoData::Vxlan(facts)) => Some(facts),
                _ => None,
            }),
            _ => None,
        });
    facts.is_some_and(|facts| {
        facts.contains(&InfoVxlan::CollectMetadata(true))
            && facts.contains(&InfoVxlan::Port(config.vxlan_port))
            && (config.underlay.is_ipv4() || facts.contains(&InfoVxlan::UDPZeroCsumRX(true)))
    })
}

async fn ensure_pair(
    netlink: &Netlink,
    config: &NodeConfig,
) -> Result<(Device, Device), DatapathError> {
    let mtu = config.overlay_mtu();
    let (host, net) = veth(netlink, HOST, NET).await?;
    quiet(NET)?;
    if config.underlay.is_ipv6() {
        // The programs ask the kernel how narrow a path is, as if they forwarded from here.
        set_ipv6(NET, "forwarding", "1")?;
    }
    match config.v6 {
        Some(_) => plain_ipv6(HOST)?,
        None => quiet(HOST)?,
    }
    for (name, link) in [(HOST, &host), (NET, &net)] {
        sysctl(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
        sysctl(&format!("ipv4/conf/{name}/accept_local"), "1")?;
        let message = LinkUnspec::new_with_index(link.header.index)
            .mtu(mtu)
            .up()
            .build();
        netlink.set(name, message).await?;
    }
    Ok((device(&host)?, device(&net)?))
}

/// Both ends of a veth pair, which is made if it is not there.
async fn veth(
    netlink: &Netlink,
    name: &str,
    peer: &str,
) -> Result<(LinkMessage, LinkMessage), DatapathError> {
    let link = match netlink.find(name).await? {
        Some(link) if is_veth(&link) => link,
        stale => {
            if let Some(stale) = stale {
                netlink.delete(name, &stale).await?;
            }
            netlink
                .create(name, LinkVeth::new(name, peer).build())
                .await?
        }
    };
    let other = netlink.find(peer).await?.ok_or_else(|| {
        DatapathError::Invalid(format!(
            "{name} has lost its peer {peer}: run `ip link del {name}` and start again"
        ))
    })?;
    Ok((link, other))
}

fn is_veth(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    })
}

/// The node's overlay addresses, and no others: its range may have changed since the last start.
async fn ensure_addresses(
    netlink: &Netlink,
    host: Device,
    families: &[FamilyConfig],
) -> Result<(), DatapathError> {
    let what = |address: &dyn Display| format!("address {address} on {HOST}");
    let handle = netlink.handle.address();
    let existing: Vec<_> = handle
        .get()
        .set_link_index_filter(host.ifindex)
        .execute()
        .try_collect()
        .await
        .map_err(failed(format!("list the addresses of {HOST}")))?;
    let mut wanted: BTreeSet<IpAddr> = families.iter().map(FamilyConfig::gateway).collect();
    for message in existing {
        let mut attributes = message.attributes.iter();
        let held = attributes.find_map(|attribute| match attribute {
            AddressAttribute::Address(held) => Some(*held),
            _ => None,
        });
        let Some(held) = held else { continue };
        if !wanted.remove(&held) {
            let del = handle.del(message).execute();
            del.await.map_err(failed(what(&held)))?;
        }
    }
    for address in wanted {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let mut add = handle.add(host.ifindex, address, bits);
        // Nobody else can have it, and its routes are made here.
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        let attributes = &mut add.message_mut().attributes;
        attributes.push(AddressAttribute::Flags(flags));
        add.execute().await.map_err(failed(what(&address)))?;
    }
    Ok(())
}

/// One next hop a family with a permanent neighbour stands for the whole overlay: no ARP, no
/// neighbour discovery, and no neighbour table that grows with the pods.
async fn ensure_routes(
    netlink: &Netlink,
    host: Device,
    net: Device,
    family: &FamilyConfig,
) -> Result<(), DatapathError> {
    let (node, via) = (family.gateway(), family.translation());
    let neighbour = netlink.handle.neighbours().add(host.ifindex, via);
    neighbour
        .link_layer_address(&net.mac)
        .replace()
        .execute()
        .await
        .map_err(failed(format!("neighbour {via} on {HOST}")))?;
    let ranges = [Some(family.cluster_cidr), family.service_cidr];
    for range in ranges.into_iter().flatten() {
        let what = || format!("route {range} to {HOST}");
        let route =
            route(range, host, node, via).map_err(|error| DatapathError::kernel(what(), error))?;
        let add = netlink.handle.route().add(route).replace();
        add.execute().await.map_err(failed(what()))?;
    }
    Ok(())
}

fn route(
    range: IpNetwork,
    host: Device,
    node: IpAddr,
    via: IpAddr,
) -> Result<RouteMessage, Box<dyn Error + Send + Sync>> {
    let route = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(range.network(), range.prefix())?
        .gateway(via)?
        .output_interface(host.ifindex)
        .pref_source(node)?
        .onlink();
    Ok(route.build())
}

/// Lets XDP ask the kernel for routes in the name of `orch-net`: it is answered only for an interface
/// that forwards. Nothing that comes in there gets to the stack, so nothing is forwarded.
pub fn let_xdp_route(config: &NodeConfig) -> Result<(), DatapathError> {
    sysctl(&format!("ipv4/conf/{NET}/forwarding"), "1")?;
    if config.v6.is_some() || config.underlay.is_ipv6() {
        sysctl(&format!("ipv6/conf/{NET}/forwarding"), "1")?;
    }
    Ok(())
}

/// No IPv6 on a link that only the programs use.
fn quiet(name: &str) -> Result<(), DatapathError> {
    set_ipv6(name, "disable_ipv6", "1")
}

/// A setting of IPv6 on a link, if it has any.
fn set_ipv6(name: &str, setting: &str, value: &str) -> Result<(), DatapathError> {
    match sysctl(&format!("ipv6/conf/{name}/{setting}"), value) {
        Err(DatapathError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(()) // a kernel without IPv6, or a link too narrow for it
        }
        done => done,
    }
}

/// IPv6 with the addresses and neighbours that are given to it, and none that it finds itself: no
/// link-local address, no duplicate address detection, no routers.
fn plain_ipv6(name: &str) -> Result<(), DatapathError> {
    let settings = [
        ("addr_gen_mode", "1"),
        ("accept_ra", "0"),
        ("accept_dad", "0"),
        ("dad_transmits", "0"),
        ("router_solicitations", "0"),
        ("disable_ipv6", "0"),
    ];
    for (setting, value) in settings {
        sysctl(&format!("ipv6/conf/{name}/{setting}"), value)?;
    }
    Ok(())
}

/// Sets `/proc/sys/net/<path>` of this thread's network namespace, unless it is so already.
fn sysctl(path: &str, value: &str) -> Result<(), DatapathError> {
    let path = format!("/proc/sys/net/{path}");
    let failed = |what: &str, error| DatapathError::io(format!("{what} {path}"), error);
    let held = fs::read_to_string(&path).map_err(|error| failed("read", error))?;
    if held.trim() == value {
        return Ok(());
    }
    fs::write(&path, value).map_err(|error| failed("write", error))
}

fn device(link: &LinkMessage) -> Result<Device, DatapathError> {
    let mac = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
            _ => None,
        });
    let mac = mac.ok_or_else(|| {
        DatapathError::Invalid(format!(
            "link {} has no Ethernet address",
            link.header.index
        ))
    })?;
    Ok(Device {
        ifindex: link.header.index,
        mac,
    })
}

fn failed(what: String) -> impl FnOnce(rtnetlink::Error) -> DatapathError {
    move |source| DatapathError::Kernel {
        what,
        source: Box::new(source),
    }
}

/// One netlink connection; its task ends with it.
struct Netlink {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Netlink {
    /// In the calling thread's network namespace.
    fn connect() -> Result<Self, DatapathError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| DatapathError::io("open a netlink socket", error))?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, DatapathError> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match links.try_next().await {
            Ok(link) => Ok(link),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => {
                Ok(None)
            }
            Err(error) => Err(failed(format!("look for link {name}"))(error)),
        }
    }

    async fn create(&self, name: &str, link: LinkMessage) -> Result<LinkMessage, DatapathError> {
        let what = || format!("create link {name}");
        self.handle
            .link()
            .add(link)
            .execute()
            .await
            .map_err(failed(what()))?;
        self.find(name).await?.ok_or_else(|| {
            DatapathError::Invalid(format!("link {name} vanished right after it was made"))
        })
    }

    async fn set(&self, name: &str, link: LinkMessage) -> Result<(), DatapathError> {
        let set = self.handle.link().set(link).execute();
        set.await.map_err(failed(format!("set link {name}")))
    }

    async fn delete(&self, name: &str, link: &LinkMessage) -> Result<(), DatapathError> {
        let delete = self.handle.link().del(link.header.index).execute();
        delete.await.map_err(failed(format!("delete link {name}")))
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}
