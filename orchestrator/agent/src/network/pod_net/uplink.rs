//! The link that carries the node's addresses, and what becomes of them while the agent runs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures::{StreamExt, TryStreamExt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::LinkAttribute;
use tokio::sync::watch;

use super::NetError;
use super::Netlink;
use super::PodLinks;
use super::failed;

use datapath::Addrs;
use sys::Shutdown;

/// The link that carries the node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
}

impl PodLinks {
    /// Finds the link that carries the node's addresses: all of them, or it is an error.
    pub async fn uplink(&self, node_ips: Addrs) -> Result<Uplink, NetError> {
        let mut found: Option<(IpAddr, u32)> = None;
        for ip in node_ips.iter() {
            let index = self.link_with(ip).await?;
            match found {
                Some((other, at)) if at != index => {
                    return Err(NetError::Unexpected(format!(
                        "{other} and {ip} are on different links: give --node-ip addresses of one"
                    )));
                }
                _ => found = Some((ip, index)),
            }
        }
        let nothing = || NetError::Unexpected("the node has no address: give --node-ip".to_owned());
        let (_, index) = found.ok_or_else(nothing)?;
        let links = self.netlink.handle.link().get();
        let link = links.match_index(index).execute().try_next().await;
        let link = link.map_err(failed("look for the uplink"))?;
        let link = link.ok_or_else(|| NetError::Unexpected("the uplink vanished".to_owned()))?;
        let mut uplink = Uplink {
            index,
            name: String::new(),
            mtu: 1500,
        };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => uplink.name = name,
                LinkAttribute::Mtu(mtu) => uplink.mtu = mtu,
                _ => {}
            }
        }
        Ok(uplink)
    }

    async fn link_with(&self, ip: IpAddr) -> Result<u32, NetError> {
        let addresses = self.netlink.handle.address().get();
        let found = addresses.set_address_filter(ip).execute().try_next().await;
        let found = found.map_err(failed("list the node's addresses"))?;
        found.map(|found| found.header.index).ok_or_else(|| {
            NetError::Unexpected(format!(
                "no link here has the address {ip}: start the agent where the node's network is, \
                 or give it another --node-ip"
            ))
        })
    }
}

/// Tells `node_ips` whenever the node's addresses on its uplink change, until shutdown. An address
/// that is there stays the node's; one that went is replaced by the link's next of that family.
pub async fn follow(
    uplink: u32,
    node_ips: watch::Sender<Addrs>,
    shutdown: Shutdown,
) -> Result<(), NetError> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let opened = rtnetlink::new_multicast_connection(&groups);
    let (connection, handle, mut messages) = opened.map_err(|source| NetError::Io {
        what: "watch the node's addresses".into(),
        source,
    })?;
    let task = tokio::spawn(connection);
    let netlink = Netlink { handle, task };
    loop {
        let held = netlink.handle.address().get();
        let held = held.set_link_index_filter(uplink).execute();
        let held: Vec<AddressMessage> = held
            .try_collect()
            .await
            .map_err(failed("list the node's addresses"))?;
        let held: Vec<IpAddr> = held.iter().filter_map(usable).collect();
        node_ips.send_if_modified(|known| {
            let now = successor(*known, &held);
            std::mem::replace(known, now) != now
        });
        if let None | Some(None) = shutdown.unless(messages.next()).await {
            return Ok(());
        }
        // A change of address is several messages: one look for all that have come.
        while futures::FutureExt::now_or_never(messages.next()).is_some() {}
    }
}

/// The node's addresses once the uplink holds `held`: a family whose last address goes keeps it, for
/// a new one is about to come.
fn successor(known: Addrs, held: &[IpAddr]) -> Addrs {
    let present: BTreeSet<&IpAddr> = held.iter().collect();
    let next = known.iter().map(|old| {
        let same = |ip: &&IpAddr| ip.is_ipv4() == old.is_ipv4();
        let next = if present.contains(&old) {
            None
        } else {
            held.iter().find(same)
        };
        next.copied().unwrap_or(old)
    });
    next.collect()
}

/// A unicast address that others can reach and that is not about to go.
fn usable(message: &AddressMessage) -> Option<IpAddr> {
    let header = &message.header;
    let passing = AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Dadfailed
        | AddressHeaderFlags::Deprecated;
    let known = matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6);
    if !known || header.scope != AddressScope::Universe || header.flags.intersects(passing) {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_went_is_replaced_by_the_links_next_of_its_family() {
        let known: Addrs = "172.31.0.11,fd00:31::b".parse().expect("addresses");
        let after = |held: &[&str]| {
            let held: Vec<IpAddr> = held.iter().map(|ip| ip.parse().expect("ok")).collect();
            successor(known, &held).to_string()
        };
        let cases: [(&[&str], &str); 5] = [
            (&["172.31.0.11", "fd00:31::b"], "172.31.0.11,fd00:31::b"),
            (&["172.31.0.7", "172.31.0.11"], "172.31.0.11,fd00:31::b"),
            (&["172.31.0.7", "fd00:31::b"], "172.31.0.7,fd00:31::b"),
            (&["fd00:31::c", "172.31.0.11"], "172.31.0.11,fd00:31::c"),
            (&[], "172.31.0.11,fd00:31::b"),
        ];
        for (held, expected) in cases {
            assert_eq!(after(held), expected, "{held:?}");
        }
    }
}
