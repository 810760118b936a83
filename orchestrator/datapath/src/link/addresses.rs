//! Routes of single addresses: what the node itself sends to a load balancer's or an external address
//! goes through the programs, as what it sends to a Service's own does.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};

use super::{Devices, HOST, Netlink, failed, route};
use crate::{DatapathError, FamilyConfig, NodeConfig};

/// Has `orch-host` carry routes to these addresses, of the node's families, and to no other ones.
pub async fn route_addresses(
    config: &NodeConfig,
    devices: &Devices,
    wanted: &BTreeSet<IpAddr>,
) -> Result<(), DatapathError> {
    let netlink = Netlink::connect()?;
    for family in config.families() {
        route_family(&netlink, devices, family, wanted).await?;
    }
    Ok(())
}

async fn route_family(
    netlink: &Netlink,
    devices: &Devices,
    family: &FamilyConfig,
    wanted: &BTreeSet<IpAddr>,
) -> Result<(), DatapathError> {
    let gateway = family.gateway();
    let like = |addr: &&IpAddr| addr.is_ipv4() == gateway.is_ipv4();
    let mut missing: BTreeSet<IpAddr> = wanted.iter().filter(like).copied().collect();
    let all = match gateway {
        IpAddr::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpAddr::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let mut listed = Vec::new();
    let mut routes = netlink.handle.route().get(all).execute();
    let what = || format!("list the routes of {HOST}");
    while let Some(message) = routes.try_next().await.map_err(failed(what()))? {
        listed.extend(single(&message, devices.host.ifindex).map(|addr| (addr, message)));
    }
    for (addr, message) in listed {
        if !missing.remove(&addr) {
            let del = netlink.handle.route().del(message).execute();
            del.await
                .map_err(failed(format!("remove the route to {addr}")))?;
        }
    }
    for addr in missing {
        let what = || format!("route {addr} to {HOST}");
        let message = route(
            IpNetwork::from(addr),
            devices.host,
            gateway,
            family.translation(),
        );
        let message = message.map_err(|error| DatapathError::kernel(what(), error))?;
        let add = netlink.handle.route().add(message).replace();
        add.execute().await.map_err(failed(what()))?;
    }
    Ok(())
}

/// The one address that a route of the main table leads to over this link.
fn single(route: &RouteMessage, ifindex: u32) -> Option<IpAddr> {
    let mut addr = None;
    let mut there = false;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => addr = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => addr = Some(IpAddr::V6(*v6)),
            RouteAttribute::Oif(oif) => there = *oif == ifindex,
            _ => {}
        }
    }
    let bits = route.header.destination_prefix_length;
    let whole = |addr: &IpAddr| bits == if addr.is_ipv4() { 32 } else { 128 };
    let main = route.header.table == RouteHeader::RT_TABLE_MAIN;
    addr.filter(whole).filter(|_| there && main)
}
