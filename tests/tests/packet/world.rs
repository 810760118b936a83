//! The node that all packet tests are about: its maps, and what a test expects of a run.

use nix::sched::{CloneFlags, unshare};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::{Config, Family};
use orchestrator_common::maps::endpoints::Endpoint;
use orchestrator_common::maps::flows::{FLOWS, Flow};
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};
use orchestrator_common::{
    Addr, DropReason, Mac, Port, Prefix, Proto, Rule, Trace, Tuple, Verdict,
};
use tests::packet::{SENDER_MAC, any_ip, ip};
use tests::prog::{Datapath, LOOPBACK, Ran, can_load};

/// Interfaces. A test run needs the one that the packet comes from to exist: that is always loopback.
pub const NEIGHBOUR: u32 = 77;
pub const UPLINK: u32 = 90;
pub const OVERLAY: u32 = 91;
pub const HOST: u32 = 92;
/// Of the overlay.
pub const MTU: u32 = 1450;

/// The pod that sends, one beside it, one on another node, the node itself, and somebody outside.
pub const POD: &str = "10.100.1.5";
pub const NEIGHBOUR_POD: &str = "10.100.1.6";
pub const REMOTE_POD: &str = "10.100.2.7";
pub const GATEWAY: &str = "10.100.1.1";
pub const NODE: &str = "172.31.0.11";
pub const OTHER_NODE: &str = "172.31.0.12";
pub const OUTSIDE: &str = "172.31.0.250";

/// The same in IPv6.
pub const POD6: &str = "fd00:100:0:1::5";
pub const NEIGHBOUR_POD6: &str = "fd00:100:0:1::6";
pub const REMOTE_POD6: &str = "fd00:100:0:2::7";
pub const GATEWAY6: &str = "fd00:100:0:1::1";
pub const NODE6: &str = "fd31::11";
pub const OTHER_NODE6: &str = "fd31::12";
pub const OUTSIDE6: &str = "fd31::250";
pub const SERVICE6: (&str, u16) = ("fd00:96::53", 53);
pub const BACKEND6: (&str, u16) = (REMOTE_POD6, 5353);
pub const EMPTY6: (&str, u16) = ("fd00:96::80", 80);

/// A UDP Service with one backend on another node; Services for TCP and UDP without any.
pub const SERVICE: (&str, u16) = ("10.96.0.53", 53);
pub const BACKEND: (&str, u16) = (REMOTE_POD, 5353);
pub const EMPTY: (&str, u16) = ("10.96.0.80", 80);

pub const POD_MAC: [u8; 6] = [2, 0, 0, 0, 1, 5];
pub const POD_GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 9, 5];
pub const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 7, 7];
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

pub struct World {
    pub datapath: Datapath,
}

/// The world, or `None` where it cannot be: the test is then reported as skipped.
pub fn world(test: &str) -> Option<World> {
    world_with_flows(test, FLOWS.max_entries)
}

/// The same with so many rows for flows.
pub fn world_with_flows(test: &str, rows: u32) -> Option<World> {
    if !can_load(test) {
        return None;
    }
    // Sockets of this machine must not be in the way of a test, nor a test's in theirs.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut world = World {
        datapath: Datapath::load_with_flows(rows).unwrap(),
    };
    world.datapath.set_config(&config()).unwrap();
    world.endpoint(POD, LOOPBACK, 0, POD_MAC);
    world.endpoint(NEIGHBOUR_POD, NEIGHBOUR, 0, POD_MAC);
    world.endpoint(GATEWAY, HOST, Endpoint::HOST, HOST_MAC);
    world.endpoint(NODE, HOST, Endpoint::HOST, HOST_MAC);
    world.endpoint(POD6, LOOPBACK, 0, POD_MAC);
    world.endpoint(NEIGHBOUR_POD6, NEIGHBOUR, 0, POD_MAC);
    world.endpoint(GATEWAY6, HOST, Endpoint::HOST, HOST_MAC);
    world.endpoint(NODE6, HOST, Endpoint::HOST, HOST_MAC);
    world.node("10.100.2.0", OTHER_NODE);
    world.node("fd00:100:0:2::", OTHER_NODE);
    world.service(1, SERVICE, Proto::UDP, &[(5, BACKEND)]);
    world.service(2, EMPTY, Proto::TCP, &[]);
    world.service(3, EMPTY, Proto::UDP, &[]);
    world.service(11, SERVICE6, Proto::UDP, &[(15, BACKEND6)]);
    world.service(12, EMPTY6, Proto::TCP, &[]);
    world.service(13, EMPTY6, Proto::UDP, &[]);
    Some(world)
}

pub fn config() -> Config {
    Config {
        v4: Family {
            node: addr(NODE),
            gateway: addr(GATEWAY),
            translation: addr("10.100.1.0"),
            pods: Prefix::new(ip("10.100.0.0").into(), 16),
            services: Prefix::new(ip("10.96.0.0").into(), 16),
            node_mask: Addr::v4_mask(24),
        },
        v6: Family {
            node: addr(NODE6),
            gateway: addr(GATEWAY6),
            translation: addr("fd00:100:0:1::"),
            pods: Prefix::new(any_ip("fd00:100::"), 48),
            services: Prefix::new(any_ip("fd00:96::"), 96),
            node_mask: Addr::v6_mask(64),
        },
        underlay: addr(NODE),
        uplink: UPLINK,
        overlay: OVERLAY,
        host: HOST,
        vni: 1,
        vxlan_port: Port::new(4789),
        node_port_first: Port::new(30000),
        node_port_last: Port::new(32767),
        uplink_mac: Mac::new(UPLINK_MAC),
        mtu: MTU,
        ..Config::default()
    }
}

pub fn addr(text: &str) -> Addr {
    Addr::from(any_ip(text))
}

impl World {
    /// Who sends by loopback sends the tests' frames.
    pub fn endpoint(&mut self, at: &str, ifindex: u32, flags: u32, mac: [u8; 6]) {
        let mac = if ifindex == LOOPBACK { SENDER_MAC } else { mac };
        let (mac, gateway_mac) = (Mac::new(mac), Mac::new(POD_GATEWAY_MAC));
        let endpoint = Endpoint {
            ifindex,
            flags,
            mac,
            gateway_mac,
            identity: 0,
        };
        self.datapath
            .put("endpoints_v1", addr(at), endpoint)
            .unwrap();
    }

    pub fn node(&mut self, share: &str, vtep: &str) {
        let node = Node {
            vtep: addr(vtep),
            ..Node::default()
        };
        self.datapath.put("nodes_v1", addr(share), node).unwrap();
    }

    pub fn service(&mut self, id: u32, at: (&str, u16), proto: Proto, to: &[(u32, (&str, u16))]) {
        for (slot, (number, (backend, port))) in to.iter().enumerate() {
            let row = Backend {
                addr: addr(backend),
                port: Port::new(*port),
                flags: 0,
                id: *number,
            };
            let key = BackendKey {
                service: id,
                slot: slot as u32,
            };
            self.datapath.put("backends_v1", key, row).unwrap();
        }
        let key = ServiceKey::new(addr(at.0), Port::new(at.1), proto);
        let service = Service {
            id,
            count: to.len() as u32,
            flags: 0,
            affinity_s: 0,
        };
        self.datapath.put("services_v1", key, service).unwrap();
    }

    /// Takes a row of a flow away. Rows are looked after once a second at most: so the row that is
    /// left was used long ago.
    pub fn lose(&mut self, key: &Tuple, left: &Tuple) {
        self.datapath.delete::<_, Flow>("flows_v1", key).unwrap();
        let row = Flow {
            last_seen_ns: 0,
            ..self.flow(left)
        };
        self.datapath.put("flows_v1", *left, row).unwrap();
    }

    pub fn flow(&mut self, key: &Tuple) -> Flow {
        let flows = self.datapath.flows().unwrap();
        flows
            .iter()
            .find(|(found, _)| found == key)
            .expect("the flow's row")
            .1
    }

    /// The pod (or whoever has the loopback device in this world) sends.
    pub fn send(&mut self, frame: &[u8]) -> Ran {
        self.run(Hook::FromContainer, frame)
    }

    pub fn run(&mut self, hook: Hook, frame: &[u8]) -> Ran {
        self.datapath.run(hook, LOOPBACK, frame).unwrap()
    }

    /// From now on the one who was beside the pod sends by loopback, and the pod is beside.
    pub fn swap(&mut self, pod: &str, other: &str) {
        self.endpoint(pod, NEIGHBOUR, 0, POD_MAC);
        self.endpoint(other, LOOPBACK, 0, POD_MAC);
    }

    /// Runs a hook that must drop the frame for that reason: counted once, told once, and nothing else counted.
    pub fn must_drop(&mut self, hook: Hook, frame: &[u8], reason: DropReason) {
        self.must_drop_inner(hook, frame, frame, reason);
    }

    /// The same of a frame that is dropped as what is inside of it.
    pub fn must_drop_inner(&mut self, hook: Hook, frame: &[u8], inner: &[u8], reason: DropReason) {
        self.datapath.events().unwrap();
        let before = self.datapath.counted(reason).unwrap();
        let ran = self.run(hook, frame);
        let trace = Trace {
            verdict: Verdict::Drop,
            target: 0,
            vtep: 0,
            reason,
            rule: Rule::None,
        };
        assert_eq!(ran.trace, trace);
        assert_eq!(ran.code, 2, "TC_ACT_SHOT");
        assert_eq!(self.datapath.counted(reason).unwrap(), before + 1);
        let events = self.datapath.events().unwrap();
        let on_link = reason == DropReason::NotUnicast && frame[12..14] == [0x86, 0xdd];
        if reason == DropReason::NotIp || on_link {
            assert!(events.is_empty(), "pods send such things all the time");
            return;
        }
        let [event] = events[..] else {
            panic!("one event, not {events:?}")
        };
        assert_eq!((event.reason, event.hook), (reason.number(), hook as u32));
        assert_eq!(
            (event.ifindex, event.length),
            (LOOPBACK, inner.len() as u32)
        );
    }
}

pub fn trace(verdict: Verdict, target: u32, rule: Rule) -> Trace {
    Trace {
        verdict,
        target,
        vtep: 0,
        reason: DropReason::None,
        rule,
    }
}

/// The trace of a packet for the other node that is one on the wire.
pub fn overlay(rule: Rule) -> Trace {
    Trace {
        vtep: ip(OTHER_NODE).to_bits(),
        ..trace(Verdict::Tunnel, UPLINK, rule)
    }
}

/// The trace of one that the VXLAN device is to encapsulate, for it is or becomes several.
pub fn by_device(rule: Rule) -> Trace {
    Trace {
        vtep: ip(OTHER_NODE).to_bits(),
        ..trace(Verdict::Overlay, OVERLAY, rule)
    }
}
