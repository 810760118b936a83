//! `endpoints_v1` and `netns_v2`: the pods that run here, and the node itself.

use orchestrator_common::maps::endpoints::{Endpoint, Netns};
use orchestrator_common::{Addr, Mac};

use crate::facts::Facts;
use crate::world::World;

/// The node holds its own addresses, whatever a pod claims.
pub fn endpoint(addr: Addr, world: &World, facts: &Facts) -> Option<Endpoint> {
    if facts.own_addresses().any(|own| own == addr) {
        return Some(Endpoint {
            ifindex: facts.host,
            flags: Endpoint::HOST,
            mac: facts.host_mac,
            gateway_mac: facts.net_mac,
            identity: 0,
        });
    }
    let pod = world.endpoint(&addr)?;
    Some(Endpoint {
        ifindex: pod.ifindex,
        flags: match pod.is_queued {
            true => Endpoint::QUEUED,
            false => 0,
        },
        mac: Mac::new(pod.mac),
        gateway_mac: Mac::new(pod.host_mac),
        identity: 0,
    })
}

pub fn netns(cookie: u64, world: &World, facts: &Facts) -> Option<Netns> {
    if cookie == facts.netns_cookie {
        return Some(Netns {
            v4: facts.v4.gateway,
            v6: facts.v6.gateway,
            flags: Netns::HOST,
            reserved: 0,
        });
    }
    let (v4, v6) = world.netns(cookie)?.addrs.rows();
    Some(Netns {
        v4,
        v6,
        flags: 0,
        reserved: 0,
    })
}
