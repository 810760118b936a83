//! Who shares the uplink's link with the node: there a tunnel needs no route, its other end is the next
//! hop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use orchestrator_common::Prefix;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};

use super::{Netlink, failed};
use crate::DatapathError;

/// The range around the node's address on its uplink, [`Prefix::NONE`] where a route leads to a part of it
/// by a gateway: who is where then is the routing table's to say.
pub async fn find(
    netlink: &Netlink,
    uplink: u32,
    underlay: IpAddr,
) -> Result<Prefix, DatapathError> {
    let addresses = netlink.handle.address().get();
    let addresses = addresses.set_link_index_filter(uplink).execute();
    let addresses: Vec<AddressMessage> = addresses
        .try_collect()
        .await
        .map_err(failed("list the uplink's addresses".into()))?;
    let Some(range) = addresses.iter().find_map(|it| range_of(it, underlay)) else {
        return Ok(Prefix::NONE);
    };
    let all = match underlay {
        IpAddr::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpAddr::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let routes: Vec<RouteMessage> = netlink
        .handle
        .route()
        .get(all)
        .execute()
        .try_collect()
        .await
        .map_err(failed("list the node's routes".into()))?;
    let is_split = routes.iter().any(|route| leads_elsewhere(route, range));
    Ok(if is_split {
        Prefix::NONE
    } else {
        Prefix::new(range.ip(), range.prefix())
    })
}

/// The range that the kernel made a route of when the link was given that address.
fn range_of(message: &AddressMessage, underlay: IpAddr) -> Option<IpNetwork> {
    let without_route = message.attributes.iter().any(|attribute| {
        matches!(attribute, AddressAttribute::Flags(flags)
            if flags.contains(AddressFlags::Noprefixroute))
    });
    let holds = |attribute: &AddressAttribute| {
        matches!(attribute, AddressAttribute::Local(ip) | AddressAttribute::Address(ip)
            if *ip == underlay)
    };
    let found = message.attributes.iter().any(holds) && !without_route;
    found.then(|| IpNetwork::new(underlay, message.header.prefix_len).ok())?
}

/// Whether a route of the main table leads to a part of the range by a gateway.
fn leads_elsewhere(route: &RouteMessage, range: IpNetwork) -> bool {
    let mut part = None;
    let mut by_gateway = false;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => part = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => part = Some(IpAddr::V6(*v6)),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                by_gateway = true;
            }
            _ => {}
        }
    }
    let is_main = route.header.table == RouteHeader::RT_TABLE_MAIN;
    is_main
        && by_gateway
        && route.header.destination_prefix_length >= range.prefix()
        && part.is_some_and(|part| range.contains(part))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::AddressHeader;

    use super::*;

    fn address(ip: &str, bits: u8) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header = AddressHeader {
            prefix_len: bits,
            ..AddressHeader::default()
        };
        message.attributes = vec![AddressAttribute::Address(ip.parse().unwrap())];
        message
    }

    #[test]
    fn the_range_is_that_of_the_nodes_own_address_with_its_route() {
        let underlay = "172.31.0.11".parse().unwrap();
        let range = |message: &AddressMessage| range_of(message, underlay).map(|it| it.to_string());
        assert_eq!(
            range(&address("172.31.0.11", 24)).unwrap(),
            "172.31.0.11/24"
        );
        assert_eq!(range(&address("172.31.0.12", 24)), None);
        let mut routeless = address("172.31.0.11", 24);
        let flags = AddressAttribute::Flags(AddressFlags::Noprefixroute);
        routeless.attributes.push(flags);
        assert_eq!(range(&routeless), None);
    }

    #[test]
    fn only_a_gateway_to_a_part_of_the_range_takes_it_away() {
        let range: IpNetwork = "172.31.0.11/24".parse().unwrap();
        let route = |to: Ipv4Addr, bits, gateway: Option<Ipv4Addr>| {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, bits);
            match gateway {
                Some(gateway) => builder.gateway(gateway).build(),
                None => builder.build(),
            }
        };
        let gateway = Some(Ipv4Addr::new(172, 31, 0, 1));
        let part = Ipv4Addr::new(172, 31, 0, 128);
        assert!(leads_elsewhere(&route(part, 25, gateway), range));
        assert!(!leads_elsewhere(&route(part, 25, None), range));
        let beside = Ipv4Addr::new(172, 31, 1, 0);
        assert!(!leads_elsewhere(&route(beside, 24, gateway), range));
        let all = Ipv4Addr::UNSPECIFIED;
        assert!(!leads_elsewhere(&route(all, 0, gateway), range));
    }
}
