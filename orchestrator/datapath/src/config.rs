//! What a node is told about itself, checked before anything is made of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use orchestrator_common::maps::config::Family;
use orchestrator_common::{Addr, Mac, Port, Prefix};

use super::facts::Facts;
use super::link::Devices;
use super::{Addrs, DatapathError, Xdp, syscall};

/// Outer Ethernet, IP, UDP and VXLAN headers: what the overlay takes from the uplink's MTU.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;

/// The smallest links that the families work on: RFC 791, RFC 8200 section 5.
const SMALLEST_V4: u32 = 576;
const SMALLEST_V6: u32 = 1280;

/// What the datapath must know before the first packet.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub node_name: String,
    /// The node's address on the uplink that the other nodes tunnel to. Its family is the
    /// underlay's, whatever families the pods have.
    pub underlay: IpAddr,
    /// At least one of the two.
    pub v4: Option<FamilyConfig>,
    pub v6: Option<FamilyConfig>,
    /// The link that carries the node's addresses.
    pub uplink: String,
    /// The uplink's.
    pub mtu: u32,
    pub vni: u32,
    pub vxlan_port: u16,
    /// Where the agent reaches the API server: a Service that took these would cut it off for good.
    pub servers: Vec<IpAddr>,
    /// Direct server return: on every node of a cluster or on none.
    pub dsr: bool,
    /// XDP on the uplink.
    pub xdp: Xdp,
    /// Usually `/sys/fs/bpf/orchestrator`; maps and links go to `<node_name>/{maps,links}` below it.
    pub pin_root: PathBuf,
    /// The mount of cgroup v2, see [`super::mount::cgroup_root`].
    pub cgroup_root: PathBuf,
}

/// A node in one IP family: its pods and Services, and the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyConfig {
    /// The node's address on the uplink: the source of masqueraded packets. A node without one has
    /// pods of this family that cannot leave the cluster.
    pub node_ip: Option<IpAddr>,
    /// This node's own share of the pods' range. Its number is the translation address, its first
    /// address is the node's inside the overlay.
    pub pod_cidr: IpNetwork,
    /// The range that all pods of the cluster share.
    pub cluster_cidr: IpNetwork,
    /// None: the cluster has no Services of this family.
    pub service_cidr: Option<IpNetwork>,
    /// The prefix length of every node's share.
    pub pod_mask_bits: u8,
}

impl NodeConfig {
    /// The families that the node has, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = &FamilyConfig> {
        self.v4.iter().chain(&self.v6)
    }

    /// The largest IP packet inside the overlay: the MTU of pods.
    pub fn overlay_mtu(&self) -> u32 {
        let overhead = match self.underlay {
            IpAddr::V4(_) => OVERHEAD_V4,
            IpAddr::V6(_) => OVERHEAD_V6,
        };
        self.mtu.saturating_sub(overhead)
    }

    /// Pods may have packets that a path does not carry whole and their senders cannot make smaller.
    pub(super) fn cuts(&self) -> bool {
        self.underlay.is_ipv6() && self.v6.is_some()
    }

    /// The same node with other addresses on its uplink; its underlay keeps its family.
    pub(super) fn readdressed(&self, addrs: Addrs) -> Self {
        let mut config = self.clone();
        config.underlay = addrs.like(self.underlay).unwrap_or(self.underlay);
        config.v4.iter_mut().for_each(|family| {
            family.node_ip = addrs.v4.map(IpAddr::V4);
        });
        config.v6.iter_mut().for_each(|family| {
            family.node_ip = addrs.v6.map(IpAddr::V6);
        });
        config
    }

    /// Ranges that overlap would send packets to two places.
    pub(super) fn validate(&self) -> Result<(), DatapathError> {
        let refused = |complaint: String| Err(DatapathError::Invalid(complaint));
        if self.families().next().is_none() {
            return refused(
                "the node has neither IPv4 nor IPv6: give it a pod range of either".into(),
            );
        }
        for (family, v4) in [(&self.v4, true), (&self.v6, false)] {
            if let Some(family) = family {
                family.validate(v4, self.underlay).or_else(refused)?;
            }
        }
        let (mtu, name) = (self.overlay_mtu(), &self.uplink);
        let needed = self.v6.map_or(SMALLEST_V4, |_| SMALLEST_V6);
        if mtu < needed {
            return refused(format!(
                "the uplink {name} has an MTU of {}, which leaves {mtu} inside the overlay: \
                 pods need {needed}",
                self.mtu
            ));
        }
        Ok(())
    }

    /// What `desired` makes the node's own rows of.
    pub(super) fn facts(&self, devices: &Devices) -> Result<Facts, DatapathError> {
        let cookie = syscall::own_netns_cookie();
        let family =
            |family: &Option<FamilyConfig>| family.as_ref().map_or(Family::NONE, FamilyConfig::row);
        Ok(Facts {
            name: self.node_name.clone(),
            v4: family(&self.v4),
            v6: family(&self.v6),
            underlay: self.underlay.into(),
            uplink: devices.uplink.ifindex,
            overlay: devices.vxlan.ifindex,
            host: devices.net.ifindex,
            cut: devices.cut.map_or(0, |pair| pair.cut),
            host_mac: Mac::new(devices.host.mac),
            net_mac: Mac::new(devices.net.mac),
            uplink_mac: Mac::new(devices.uplink.mac),
            vni: self.vni,
            vxlan_port: Port::new(self.vxlan_port),
            mtu: self.overlay_mtu(),
            netns_cookie: cookie
                .map_err(|error| DatapathError::io("read the namespace's cookie", error))?,
            dsr: self.dsr,
            servers: self.servers.iter().map(|addr| Addr::from(*addr)).collect(),
            neighbourhood: if devices.neighbourhood.contains(&self.underlay.into()) {
                devices.neighbourhood
            } else {
                // Of an address that the node has no more.
                Prefix::NONE
            },
        })
    }
}

impl FamilyConfig {
    /// The share's own number, held by no socket.
    pub fn translation(&self) -> IpAddr {
        self.pod_cidr.network()
    }

    /// The node inside the overlay: every pod's gateway.
    pub fn gateway(&self) -> IpAddr {
        match self.translation() {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() | 1).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() | 1).into(),
        }
    }

    /// As the programs have it.
    pub fn row(&self) -> Family {
        let prefix = |range: &IpNetwork| Prefix::new(range.ip(), range.prefix());
        Family {
            node: self.node_ip.map_or(Addr::UNSPECIFIED, Addr::from),
            gateway: self.gateway().into(),
            translation: self.translation().into(),
            pods: prefix(&self.cluster_cidr),
            services: self.service_cidr.as_ref().map_or(Prefix::NONE, prefix),
            node_mask: Prefix::new(self.translation(), self.pod_mask_bits).mask,
        }
    }

    /// The complaint, if there is one.
    fn validate(&self, v4: bool, underlay: IpAddr) -> Result<(), String> {
        let (pods, services, own) = (self.cluster_cidr, self.service_cidr, self.pod_cidr);
        let name = if v4 { "IPv4" } else { "IPv6" };
        let ranges = [("pods'", Some(pods)), ("Services'", services)];
        let ranges = ranges
            .into_iter()
            .filter_map(|(what, range)| Some((what, range?)));
        for (what, range) in ranges.clone().chain([("node's", own)]) {
            if range.is_ipv4() != v4 {
                return Err(format!("the {what} range {range} is not {name}"));
            }
        }
        let overlap = |services: &IpNetwork| {
            pods.contains(services.network()) || services.contains(pods.network())
        };
        if let Some(services) = services.filter(overlap) {
            return Err(format!(
                "the pods' range {pods} and the Services' {services} overlap"
            ));
        }
        for node in self.node_ip.into_iter().chain([underlay]) {
            for (what, range) in ranges.clone() {
                if range.contains(node) {
                    return Err(format!(
                        "the node's address {node} is in the {what} range {range}"
                    ));
                }
            }
        }
        if let Some(node) = self.node_ip.filter(|node| node.is_ipv4() != v4) {
            return Err(format!("the node's address {node} is not {name}"));
        }
        let (bits, largest) = (self.pod_mask_bits, if v4 { 30 } else { 126 });
        if !pods.contains(own.network()) || own.prefix() != bits || bits < pods.prefix() {
            return Err(format!(
                "this node's range {own} is not a /{bits} of the pods' range {pods}"
            ));
        }
        if bits > largest {
            return Err(format!(
                "this node's range {own} has no room for pods: give nodes a /{largest} or larger"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(node: &str, own: &str, pods: &str, services: &str) -> FamilyConfig {
        let pod_cidr: IpNetwork = own.parse().unwrap();
        FamilyConfig {
            node_ip: Some(node.parse().unwrap()),
            pod_cidr,
            cluster_cidr: pods.parse().unwrap(),
            service_cidr: Some(services.parse().unwrap()),
            pod_mask_bits: if pod_cidr.is_ipv4() { 24 } else { 64 },
        }
    }

    fn config(v4: Option<FamilyConfig>, v6: Option<FamilyConfig>) -> NodeConfig {
        NodeConfig {
            node_name: "node-1".into(),
            underlay: "172.31.0.11".parse().unwrap(),
            v4,
            v6,
            uplink: "eth0".into(),
            mtu: 1500,
            vni: 1,
            vxlan_port: 4789,
            servers: Vec::new(),
            dsr: false,
            xdp: Xdp::Auto,
            pin_root: PathBuf::new(),
            cgroup_root: PathBuf::new(),
        }
    }

    const NODE: &str = "172.31.0.11";
    const SERVICES: &str = "10.96.0.0/16";

    fn v4(node: &str, own: &str, services: &str) -> Option<FamilyConfig> {
        Some(family(node, own, "10.100.0.0/16", services))
    }

    fn v6(own: &str, services: &str) -> Option<FamilyConfig> {
        Some(family("fd00:31::11", own, "fd00:100::/48", services))
    }

    #[test]
    fn ranges_that_overlap_are_refused_and_both_are_named() {
        let own = "10.100.1.0/24";
        assert!(config(v4(NODE, own, SERVICES), None).validate().is_ok());
        for services in ["10.100.0.0/16", "10.0.0.0/8", "10.100.7.0/24"] {
            let refused = config(v4(NODE, own, services), None).validate();
            let error = refused.unwrap_err().to_string();
            assert!(
                error.contains(services) && error.contains("10.100.0.0/16"),
                "{error}"
            );
        }
        let own = "fd00:100:0:1::/64";
        assert!(config(None, v6(own, "fd00:96::/112")).validate().is_ok());
        let refused = config(None, v6(own, "fd00:100:0:7::/112")).validate();
        let error = refused.unwrap_err().to_string();
        assert!(
            error.contains("fd00:100:0:7::/112") && error.contains("fd00:100::/48"),
            "{error}"
        );
    }

    #[test]
    fn a_node_inside_the_overlay_or_a_range_outside_is_refused() {
        for (node, own) in [
            ("10.100.1.7", "10.100.1.0/24"),
            ("10.96.0.7", "10.100.1.0/24"),
            (NODE, "10.101.1.0/24"),
            (NODE, "10.100.1.0/25"),
            ("fd00:31::11", "10.100.1.0/24"),
            (NODE, "fd00:100:0:1::/64"),
        ] {
            let refused = config(v4(node, own, SERVICES), None).validate();
            assert!(refused.is_err(), "{node} {own}");
        }
        assert!(config(None, None).validate().is_err());
    }

    #[test]
    fn the_overlay_has_what_the_underlay_leaves() {
        let mut config = config(
            v4(NODE, "10.100.1.0/24", SERVICES),
            v6("fd00:100:0:1::/64", "fd00:96::/112"),
        );
        assert_eq!(config.overlay_mtu(), 1450);
        config.underlay = "fd00:31::11".parse().unwrap();
        assert_eq!(config.overlay_mtu(), 1430);
        assert!(config.validate().is_ok());
        config.mtu = 1300;
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("1300") && error.contains("1280"), "{error}");
        config.v6 = None;
        assert!(config.validate().is_ok());
    }

    #[test]
    fn a_shares_number_and_first_address_are_not_pods() {
        for (family, translation, gateway) in [
            (
                v4(NODE, "10.100.1.0/24", SERVICES),
                "10.100.1.0",
                "10.100.1.1",
            ),
            (
                v6("fd00:100:0:1::/64", "fd00:96::/112"),
                "fd00:100:0:1::",
                "fd00:100:0:1::1",
            ),
        ] {
            let family = family.unwrap();
            assert_eq!(family.translation().to_string(), translation);
            assert_eq!(family.gateway().to_string(), gateway);
            assert_eq!(family.row().gateway.to_string(), gateway);
        }
    }
}
