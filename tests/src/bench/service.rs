//! The Services under test: how many, where, and as changes for our datapath. Pure.

use std::net::{Ipv4Addr, SocketAddrV4};

use datapath::view::{PortView, Protocol};
use datapath::{Change, ObjectKey, ServiceView, SliceView};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::load::{CRR_PORT, Kind, RR_PORT, STREAM_PORT};
use crate::netns::ready_endpoint;

/// How many Services there are and how many endpoints each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    pub services: u32,
    pub endpoints: u8,
}

/// Which of the Services is asked: rules that are searched in order make it matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    First,
    Middle,
    Last,
}

/// The last octet of the client's and of the server's first address; further ones follow it.
pub const CLIENT: u8 = 2;
pub const SERVER: u8 = 10;
/// As many addresses as the largest Service under test has endpoints.
pub const SERVER_ADDRESSES: u8 = 10;

/// What a Service of the bench serves; its ports are the targets' too.
pub const PORTS: [(&str, u16, Protocol); 5] = [
    ("crr", CRR_PORT, Protocol::Tcp),
    ("rr", RR_PORT, Protocol::Tcp),
    ("stream", STREAM_PORT, Protocol::Tcp),
    ("udp-rr", RR_PORT, Protocol::Udp),
    ("udp-stream", STREAM_PORT, Protocol::Udp),
];

/// The node port of the last Service's first port; nobody else has one.
pub const NODE_PORT: u16 = 30_080;

impl Size {
    pub const NONE: Self = Self::new(0, 0);

    pub const fn new(services: u32, endpoints: u8) -> Self {
        Self {
            services,
            endpoints,
        }
    }

    /// Whether a case asks the Service of that number.
    pub fn tests(self, index: u32) -> bool {
        Position::ALL
            .iter()
            .any(|position| position.index(self.services) == index)
    }

    /// The ports of the Service of that number: tested ones have all of the load's, others one.
    pub fn ports(self, index: u32) -> &'static [(&'static str, u16, Protocol)] {
        if self.tests(index) {
            &PORTS
        } else {
            &PORTS[..1]
        }
    }

    pub fn node_port(self, index: u32) -> Option<u16> {
        (Position::Last.index(self.services) == index).then_some(NODE_PORT)
    }
}

impl Position {
    pub const ALL: [Self; 3] = [Self::First, Self::Middle, Self::Last];

    pub fn index(self, services: u32) -> u32 {
        match self {
            Self::First => 0,
            Self::Middle => services / 2,
            Self::Last => services.saturating_sub(1),
        }
    }
}

/// Below 10.96.1.0 are the addresses that clusters give to Services of their own.
pub fn service_addr(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + index)
}

/// On the server's node, which is the second.
pub fn server_addr(nth: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 100, 2, SERVER + nth)
}

/// A node's address on the underlay; nodes are numbered from 1.
pub fn node_addr(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 0, 10 + number)
}

/// Where a kind of load is sent on an address.
pub fn target(addr: Ipv4Addr, kind: Kind) -> SocketAddrV4 {
    let port = match kind {
        Kind::TcpRr | Kind::UdpRr => RR_PORT,
        Kind::TcpCrr => CRR_PORT,
        Kind::TcpStream | Kind::UdpStream => STREAM_PORT,
    };
    SocketAddrV4::new(addr, port)
}

/// The changes that make Service number `index`.
pub fn changes(index: u32, size: Size) -> [Change; 2] {
    let endpoints: Vec<u8> = (0..size.endpoints).collect();
    let view = ServiceView::from_object(&object(index, size)).expect("it has an address");
    [
        Change::Service(key(index), Some(view)),
        slice(index, size, &endpoints),
    ]
}

/// The change by which a Service has those of the server's addresses.
pub fn slice(index: u32, size: Size, endpoints: &[u8]) -> Change {
    let key = key(index);
    let port =
        |&(name, port, protocol): &(&str, u16, Protocol)| PortView::new(name, port, protocol);
    let ports = size.ports(index).iter().map(port);
    let ready = endpoints
        .iter()
        .map(|nth| ready_endpoint(server_addr(*nth)));
    let slice = SliceView::new(key.clone(), ports.collect(), ready.collect());
    Change::Slice(key, Some(slice))
}

pub fn removals(index: u32) -> [Change; 2] {
    [
        Change::Slice(key(index), None),
        Change::Service(key(index), None),
    ]
}

fn key(index: u32) -> ObjectKey {
    ObjectKey::new("bench", format!("s{index}"))
}

fn object(index: u32, size: Size) -> Service {
    let node_port = size.node_port(index).map(i32::from);
    let addr = service_addr(index).to_string();
    let port = |&(name, port, protocol): &(&str, u16, Protocol)| ServicePort {
        name: Some(name.into()),
        port: port.into(),
        protocol: Some(
            if protocol == Protocol::Udp {
                "UDP"
            } else {
                "TCP"
            }
            .into(),
        ),
        node_port: node_port.filter(|_| name == PORTS[0].0),
        ..ServicePort::default()
    };
    let kind = if node_port.is_some() {
        "NodePort"
    } else {
        "ClusterIP"
    };
    Service {
        spec: Some(ServiceSpec {
            cluster_ip: Some(addr.clone()),
            cluster_ips: Some(vec![addr]),
            type_: Some(kind.into()),
            ports: Some(size.ports(index).iter().map(port).collect()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
