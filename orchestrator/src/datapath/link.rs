//! The node's own links: the VXLAN device, the veth pair that makes the node an endpoint, and the routes
//! that send the overlay through it.
//!
//! A restarted agent recognises them by name; what is right already is left alone, so no packet is
//! lost. Pod links are the agent's (`agent/pod_net`). IPv4; IPv6 is issue 3.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnetwork::{IpNetwork, Ipv4Network};
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder};

use super::{DatapathError, NodeConfig};

pub const VXLAN: &str = "orch-vxlan";
/// The node's end: carries its overlay address and the routes.
pub const HOST: &str = "orch-host";
/// The datapath's end: what the node sends comes in here.
pub const NET: &str = "orch-net";

/// Outer Ethernet, IPv4, UDP and VXLAN headers: what the overlay takes from the uplink's MTU.
const OVERHEAD: u32 = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub ifindex: u32,
    pub mac: [u8; 6],
}

/// What the programs must know of the node's links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    pub uplink: Device,
    pub vxlan: Device,
    pub host: Device,
    pub net: Device,
}

/// Makes the node's links, addresses and routes as they should be. `overlay_mac` is the address that
/// every VXLAN device of the cluster has.
pub async fn ensure(config: &NodeConfig, overlay_mac: [u8; 6]) -> Result<Devices, DatapathError> {
    let netlink = Netlink::connect()?;
    let uplink = netlink.find(&config.uplink).await?.ok_or_else(|| {
        DatapathError::Invalid(format!(
            "there is no link {} here: name the one that carries {}",
            config.uplink, config.node_ip
        ))
    })?;
    let mtu = config.mtu.saturating_sub(OVERHEAD);
    let vxlan = ensure_vxlan(&netlink, config.vxlan_port, mtu, overlay_mac).await?;
    let (host, net) = ensure_pair(&netlink, mtu).await?;
    let overlay = Overlay::of(config)?;
    ensure_address(&netlink, host, overlay.node).await?;
    ensure_routes(&netlink, host, net, &overlay).await?;
    Ok(Devices {
        uplink: device(&uplink)?,
        vxlan,
        host,
        net,
    })
}

/// Removes the node's links; routes and neighbours go with them. Absent ones are fine.
pub async fn remove() -> Result<(), DatapathError> {
    let netlink = Netlink::connect()?;
    for name in [HOST, VXLAN] {
        if let Some(link) = netlink.find(name).await? {
            netlink.delete(name, &link).await?;
        }
    }
    Ok(())
}

/// The IPv4 addresses that the overlay's routes are made of.
struct Overlay {
    /// The first address of the node's range.
    node: Ipv4Addr,
    /// The range's own number, held by nobody: the next hop that stands for "the datapath".
    via: Ipv4Addr,
    ranges: [Ipv4Network; 2],
}

impl Overlay {
    fn of(config: &NodeConfig) -> Result<Self, DatapathError> {
        let own = v4(config.pod_cidr)?;
        let node = own.nth(1).ok_or_else(|| {
            DatapathError::Invalid(format!("the pod range {own} has no address for its node"))
        })?;
        let ranges = [v4(config.cluster_cidr)?, v4(config.service_cidr)?];
        Ok(Self {
            node,
            via: own.network(),
            ranges,
        })
    }
}

fn v4(range: IpNetwork) -> Result<Ipv4Network, DatapathError> {
    match range {
        IpNetwork::V4(range) => Ok(range),
        IpNetwork::V6(range) => Err(DatapathError::Invalid(format!(
            "{range}: the datapath has no IPv6 yet, give an IPv4 range"
        ))),
    }
}

async fn ensure_vxlan(
    netlink: &Netlink,
    port: u16,
    mtu: u32,
    mac: [u8; 6],
) -> Result<Device, DatapathError> {
    let link = match netlink.find(VXLAN).await? {
        Some(link) if is_overlay(&link, port) => link,
        stale => {
            if let Some(stale) = stale {
                netlink.delete(VXLAN, &stale).await?;
            }
            let message = LinkMessageBuilder::<LinkVxlan>::new(VXLAN)
                .collect_metadata(true)
                .learning(false)
                .port(port)
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

/// The existing device takes its tunnel from each packet and listens on the right port.
fn is_overlay(link: &LinkMessage, port: u16) -> bool {
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
        facts.contains(&InfoVxlan::CollectMetadata(true)) && facts.contains(&InfoVxlan::Port(port))
    })
}

async fn ensure_pair(netlink: &Netlink, mtu: u32) -> Result<(Device, Device), DatapathError> {
    let host = match netlink.find(HOST).await? {
        Some(link) if is_veth(&link) => link,
        stale => {
            if let Some(stale) = stale {
                netlink.delete(HOST, &stale).await?;
            }
            netlink
                .create(HOST, LinkVeth::new(HOST, NET).build())
                .await?
        }
    };
    let net = netlink.find(NET).await?.ok_or_else(|| {
        DatapathError::Invalid(format!(
            "{HOST} has lost its peer {NET}: run `ip link del {HOST}` and start again"
        ))
    })?;
    for (name, link) in [(HOST, &host), (NET, &net)] {
        quiet(name)?;
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

fn is_veth(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    })
}

/// The node's overlay address, and no other: its range may have changed since the last start.
async fn ensure_address(
    netlink: &Netlink,
    host: Device,
    address: Ipv4Addr,
) -> Result<(), DatapathError> {
    let what = || format!("address {address} on {HOST}");
    let handle = netlink.handle.address();
    let existing: Vec<_> = handle
        .get()
        .set_link_index_filter(host.ifindex)
        .execute()
        .try_collect()
        .await
        .map_err(failed(what()))?;
    let mut present = false;
    for message in existing {
        let held = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V4(held)) => Some(*held),
                _ => None,
            });
        match held {
            Some(held) if held == address => present = true,
            Some(_) => handle
                .del(message)
                .execute()
                .await
                .map_err(failed(what()))?,
            None => {}
        }
    }
    if !present {
        let add = handle.add(host.ifindex, address.into(), 32);
        add.execute().await.map_err(failed(what()))?;
    }
    Ok(())
}

/// One next hop with a permanent neighbour stands for the whole overlay: no ARP and no neighbour table
/// that grows with the pods.
async fn ensure_routes(
    netlink: &Netlink,
    host: Device,
    net: Device,
    overlay: &Overlay,
) -> Result<(), DatapathError> {
    let neighbour = netlink
        .handle
        .neighbours()
        .add(host.ifindex, overlay.via.into());
    neighbour
        .link_layer_address(&net.mac)
        .replace()
        .execute()
        .await
        .map_err(failed(format!("neighbour {} on {HOST}", overlay.via)))?;
    for range in overlay.ranges {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(range.network(), range.prefix())
            .gateway(overlay.via)
            .output_interface(host.ifindex)
            .pref_source(overlay.node)
            .onlink()
            .build();
        let add = netlink.handle.route().add(route).replace();
        add.execute()
            .await
            .map_err(failed(format!("route {range} to {HOST}")))?;
    }
    Ok(())
}

/// No IPv6 chatter on a link whose neighbours are all known.
fn quiet(name: &str) -> Result<(), DatapathError> {
    match sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1") {
        Err(DatapathError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(()) // a kernel without IPv6
        }
        done => done,
    }
}

/// Writes `/proc/sys/net/<path>` of this thread's network namespace.
fn sysctl(path: &str, value: &str) -> Result<(), DatapathError> {
    let path = format!("/proc/sys/net/{path}");
    fs::write(&path, value).map_err(|error| DatapathError::io(format!("write {path}"), error))
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
