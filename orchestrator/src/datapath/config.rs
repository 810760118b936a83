//! What a node is told about itself, checked before anything is made of it.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use orchestrator_common::{Mac, Port, Prefix};

use super::desired::Facts;
use super::link::Devices;
use super::{DatapathError, syscall};

/// What the datapath must know before the first packet.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub node_name: String,
    /// The node's address on the uplink: the VXLAN endpoint and the source of masqueraded packets.
    pub node_ip: IpAddr,
    /// This node's own pod range; its first address is the node's inside the overlay.
    pub pod_cidr: IpNetwork,
    /// The range that all pods of the cluster share.
    pub cluster_cidr: IpNetwork,
    pub service_cidr: IpNetwork,
    /// The prefix length of every node's pod range.
    pub pod_mask_bits: u8,
    /// The link that carries `node_ip`.
    pub uplink: String,
    /// The uplink's; everything inside the overlay has 50 less.
    pub mtu: u32,
    pub vni: u32,
    pub vxlan_port: u16,
    /// Usually `/sys/fs/bpf/orchestrator`; maps and links go to `<node_name>/{maps,links}` below it.
    pub pin_root: PathBuf,
    /// The mount of cgroup v2, see [`mount::cgroup_root`].
    pub cgroup_root: PathBuf,
}

impl NodeConfig {
    /// Ranges that overlap would send packets to two places.
    pub(super) fn validate(&self) -> Result<(), DatapathError> {
        let refused = |complaint: String| Err(DatapathError::Invalid(complaint));
        let (pods, services) = (self.cluster_cidr, self.service_cidr);
        if pods.contains(services.network()) || services.contains(pods.network()) {
            return refused(format!(
                "the pods' range {pods} and the Services' {services} overlap"
            ));
        }
        for (name, range) in [("pods'", pods), ("Services'", services)] {
            if range.contains(self.node_ip) {
                let node = self.node_ip;
                return refused(format!(
                    "the node's address {node} is in the {name} range {range}"
                ));
            }
        }
        let (own, bits) = (self.pod_cidr, self.pod_mask_bits);
        if !pods.contains(own.network()) || own.prefix() != bits || bits < pods.prefix() {
            return refused(format!(
                "this node's range {own} is not a /{bits} of the pods' range {pods}"
            ));
        }
        Ok(())
    }

    /// What `desired` makes the node's own rows of.
    pub(super) fn facts(&self, devices: &Devices) -> Result<Facts, DatapathError> {
        let cookie = syscall::own_netns_cookie();
        let prefix = |range: &IpNetwork| Prefix::new(range.ip(), range.prefix());
        let gateway = self.pod_cidr.iter().nth(1).ok_or_else(|| {
            DatapathError::Invalid(format!("the pod range {} is too small", self.pod_cidr))
        })?;
        Ok(Facts {
            node: self.node_ip.into(),
            gateway: gateway.into(),
            own_pods: prefix(&self.pod_cidr),
            pods: prefix(&self.cluster_cidr),
            services: prefix(&self.service_cidr),
            node_mask: Prefix::new(self.node_ip, self.pod_mask_bits).mask,
            uplink: devices.uplink.ifindex,
            overlay: devices.vxlan.ifindex,
            host: devices.net.ifindex,
            host_mac: Mac::new(devices.host.mac),
            net_mac: Mac::new(devices.net.mac),
            vni: self.vni,
            vxlan_port: Port::new(self.vxlan_port),
            netns_cookie: cookie
                .map_err(|error| DatapathError::io("read the namespace's cookie", error))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(node: &str, own: &str, pods: &str, services: &str) -> NodeConfig {
        NodeConfig {
            node_name: "node-1".into(),
            node_ip: node.parse().unwrap(),
            pod_cidr: own.parse().unwrap(),
            cluster_cidr: pods.parse().unwrap(),
            service_cidr: services.parse().unwrap(),
            pod_mask_bits: 24,
            uplink: "eth0".into(),
            mtu: 1500,
            vni: 1,
            vxlan_port: 4789,
            pin_root: PathBuf::new(),
            cgroup_root: PathBuf::new(),
        }
    }

    #[test]
    fn ranges_that_overlap_are_refused_and_both_are_named() {
        let (node, own, pods) = ("172.31.0.11", "10.100.1.0/24", "10.100.0.0/16");
        assert!(config(node, own, pods, "10.96.0.0/16").validate().is_ok());
        for services in ["10.100.0.0/16", "10.0.0.0/8", "10.100.7.0/24"] {
            let error = config(node, own, pods, services)
                .validate()
                .unwrap_err()
                .to_string();
            assert!(error.contains(services) && error.contains(pods), "{error}");
        }
    }

    #[test]
    fn a_node_inside_the_overlay_or_a_range_outside_is_refused() {
        let services = "10.96.0.0/16";
        for (node, own) in [
            ("10.100.1.7", "10.100.1.0/24"),
            ("10.96.0.7", "10.100.1.0/24"),
            ("172.31.0.11", "10.101.1.0/24"),
            ("172.31.0.11", "10.100.1.0/25"),
        ] {
            assert!(
                config(node, own, "10.100.0.0/16", services)
                    .validate()
                    .is_err(),
                "{node} {own}"
            );
        }
    }
}
