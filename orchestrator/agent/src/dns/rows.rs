//! What names are made of: Services and EndpointSlices, cut to compact rows as they arrive. Pure.
//!
//! Every slice has a row, also those of Services with an address of their own, whose endpoints have no
//! names: a slice may arrive before its Service. A row of an endpoint takes 18 bytes for that reason.

use std::net::IpAddr;

use api::address::parse_ip;
use datapath::ObjectKey;
use datapath::view::Protocol;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service, as names see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRow {
    pub target: Target,
    pub ports: Box<[Port]>,
}

/// What a Service's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Its own addresses.
    Addresses(Box<[IpAddr]>),
    /// Those of its endpoints: `clusterIP: None`.
    Endpoints,
    /// Another name: `type: ExternalName`.
    Name(Box<str>),
}

/// A port with its name; those without one have no SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
}

/// An EndpointSlice, as names see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceRow {
    pub service: ObjectKey,
    pub ports: Box<[Port]>,
    pub endpoints: Box<[EndpointRow]>,
    /// Which endpoints have a host name, by their number, in order.
    pub hostnames: Box<[(u16, Box<str>)]>,
}

/// An address and whether it is ready. `publishNotReadyAddresses` makes an endpoint ready when the slice
/// is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointRow {
    pub addr: IpAddr,
    pub ready: bool,
}

impl ServiceRow {
    /// `None`: the Service has no address yet.
    pub fn from_object(service: &core::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let name = port.name.as_deref().unwrap_or_default();
            Port::new(name, port.protocol.as_deref(), port.port)
        });
        let target = if spec.type_.as_deref() == Some("ExternalName") {
            Target::Name(spec.external_name.as_deref()?.into())
        } else if spec.cluster_ip.as_deref() == Some("None") {
            Target::Endpoints
        } else {
            let listed = spec.cluster_ips.iter().flatten().map(String::as_str);
            let mut addrs: Vec<IpAddr> = listed
                .chain(spec.cluster_ip.as_deref())
                .filter_map(parse_ip)
                .collect();
            addrs.sort_unstable();
            addrs.dedup();
            if addrs.is_empty() {
                return None;
            }
            Target::Addresses(addrs.into())
        };
        Some(Self {
            target,
            ports: ports.collect(),
        })
    }
}

impl SliceRow {
    /// `None`: the slice names no Service, or holds host names.
    pub fn from_object(slice: &discovery::EndpointSlice) -> Option<Self> {
        if slice.address_type == "FQDN" {
            return None;
        }
        let labels = slice.metadata.labels.as_ref()?;
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let service = ObjectKey::new(namespace, labels.get(SERVICE_NAME)?);
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let name = port.name.as_deref().unwrap_or_default();
            Port::new(name, port.protocol.as_deref(), port.port?)
        });
        let v4 = slice.address_type == "IPv4";
        let mut endpoints = Vec::with_capacity(slice.endpoints.len());
        let mut hostnames = Vec::new();
        for endpoint in &slice.endpoints {
            let addr = endpoint
                .addresses
                .first()
                .and_then(|addr| parse_ip(addr))
                .filter(|addr| addr.is_ipv4() == v4);
            let (Some(addr), Ok(number)) = (addr, u16::try_from(endpoints.len())) else {
                continue;
            };
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
            endpoints.push(EndpointRow { addr, ready });
            let hostname = endpoint.hostname.as_deref();
            if let Some(name) = hostname.filter(|name| !name.is_empty()) {
                hostnames.push((number, name.to_ascii_lowercase().into()));
            }
        }
        Some(Self {
            service,
            ports: ports.collect(),
            endpoints: endpoints.into(),
            hostnames: hostnames.into(),
        })
    }

    /// The endpoints that take connections, with their host names if they have one.
    pub fn ready(&self) -> impl Iterator<Item = (IpAddr, Option<&str>)> {
        let mut names = self.hostnames.iter().peekable();
        (0..)
            .zip(&self.endpoints)
            .filter_map(move |(number, endpoint)| {
                let name = names.next_if(|(of, _)| *of == number);
                endpoint
                    .ready
                    .then_some((endpoint.addr, name.map(|(_, name)| &**name)))
            })
    }
}

impl Port {
    fn new(name: &str, protocol: Option<&str>, port: i32) -> Option<Self> {
        let protocol = match protocol {
            None | Some("" | "TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return None,
        };
        Some(Self {
            name: name.to_ascii_lowercase().into(),
            protocol,
            port: u16::try_from(port).ok()?,
        })
    }
}
