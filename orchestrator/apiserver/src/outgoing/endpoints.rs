//! Where a Service leads, as the server sees it: the Service and its EndpointSlices, out of the watch
//! cache.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::addresses::Place;
use crate::{State, reply};
use api::{self, meta};

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub namespace: String,
    pub name: String,
    pub port: u16,
}

/// One place that answers for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub node: Option<String>,
    /// The pod of the Service's namespace that it says to be.
    pub pod: Option<String>,
}

/// Why a Service's port leads nowhere. The texts are Kubernetes'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    #[error("service {0:?} not found")]
    NoService(String),
    #[error("no service port {port} found for service {service:?}")]
    NoPort { service: String, port: u16 },
    /// None that is ready has the port of that name.
    #[error("no endpoints available for service {service:?}")]
    NoEndpoint { service: String, port: String },
    #[error("{0}")]
    Other(String),
}

/// Which port of a Service is meant.
#[derive(Clone, Copy, Debug)]
pub enum PortRef<'a> {
    Number(u16),
    /// The only port of a Service may have an empty name.
    Name(&'a str),
}

/// The ready endpoints of a Service's port; never none.
pub fn ready(state: &State, of: &ServicePort) -> Result<Vec<Endpoint>, Unready> {
    ready_at(state, &of.namespace, &of.name, PortRef::Number(of.port))
}

/// The same by the port's number or name.
pub fn ready_at(
    state: &State,
    namespace: &str,
    name: &str,
    port: PortRef<'_>,
) -> Result<Vec<Endpoint>, Unready> {
    let cache = &state.objects.cache;
    let other = |error: api::ApiError| Unready::Other(error.to_string());
    let find = |group: &str, plural: &str| {
        let found = api::find(group, "v1", plural);
        found.ok_or_else(|| Unready::Other(format!("{plural} are not served")))
    };
    let services = find("", "services")?;
    let service = cache.get(services, namespace, name);
    let service = service.ok_or_else(|| Unready::NoService(name.to_owned()))?;
    let service = reply::parse(&service.bytes()).map_err(other)?;
    let port = match port {
        PortRef::Number(number) => port_name(&service, name, number)?,
        PortRef::Name(port) => port.to_owned(),
    };
    let slices = find("discovery.k8s.io", "endpointslices")?;
    let (_, slices) = cache.list(slices, Some(namespace));
    let mut found = Vec::new();
    for slice in slices {
        let label = slice.labels().get("kubernetes.io/service-name");
        if label.is_some_and(|service| service == name) {
            let slice = reply::parse(&slice.bytes()).map_err(other)?;
            found.extend(of_slice(&slice, &port));
        }
    }
    let service = name.to_owned();
    match found.is_empty() {
        true => Err(Unready::NoEndpoint { service, port }),
        false => Ok(found),
    }
}

/// The name of the Service's port of that number.
fn port_name(service: &Value, name: &str, number: u16) -> Result<String, Unready> {
    if service["spec"]["type"] == "ExternalName" {
        let why = "unsupported service type \"ExternalName\"";
        return Err(Unready::Other(why.to_owned()));
    }
    let ports = service["spec"]["ports"].as_array();
    let mut ports = ports.into_iter().flatten();
    let is_it = |port: &&Value| {
        port["port"] == number && matches!(port["protocol"].as_str(), Some("TCP") | None)
    };
    let port = ports.find(is_it).ok_or_else(|| Unready::NoPort {
        service: name.to_owned(),
        port: number,
    })?;
    Ok(port["name"].as_str().unwrap_or_default().to_owned())
}

/// The ready endpoints of a slice that have a port of that name.
fn of_slice(slice: &Value, port: &str) -> Vec<Endpoint> {
    let list = |field: &str| slice[field].as_array().into_iter().flatten();
    let named = list("ports").find(|it| it["name"].as_str().unwrap_or_default() == port);
    let number = named.and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
    let Some(number) = number else {
        return Vec::new();
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let ready = list("endpoints").filter(|it| it["conditions"]["ready"] != false);
    let of_endpoint = |endpoint: &Value| {
        let address: IpAddr = endpoint["addresses"][0].as_str()?.parse().ok()?;
        let target = &endpoint["targetRef"];
        Some(Endpoint {
            address: SocketAddr::new(address, number),
            node: text(&endpoint["nodeName"]),
            pod: text(&target["name"]).filter(|_| target["kind"] == "Pod"),
        })
    };
    ready.filter_map(of_endpoint).collect()
}

/// How an endpoint is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through an agent.
    Tunnel,
    /// From this machine, as any other server.
    Direct,
}

/// The way to an endpoint. Whoever may write endpoints says where a Service leads, so that it must not
/// lead to what only the server reaches: itself, its machine's neighbours on the link, agents.
pub fn way(state: &State, namespace: &str, endpoint: &Endpoint) -> Result<Way, String> {
    let address = endpoint.address.ip().to_canonical();
    let refused = |whose: &str| Err(format!("endpoint {address} is {whose}"));
    if is_local(address) {
        return refused("not an address of another machine");
    }
    match state.addresses.place_of(address) {
        Place::Pods => Ok(Way::Tunnel),
        Place::Services => refused("an address of a Service"),
        Place::Server => refused("an address of the API server"),
        Place::Node if is_of_pod(state, namespace, endpoint) => Ok(Way::Direct),
        Place::Node => refused("an address of a node, and not of a pod on its network"),
        Place::Outside => Ok(Way::Direct),
    }
}

/// Loopback, link-local (cloud metadata is there), multicast or none at all.
pub fn is_local(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local
}

/// Whether the pod that the endpoint names has that address, as its node says.
pub fn is_of_pod(state: &State, namespace: &str, endpoint: &Endpoint) -> bool {
    let (Some(pod), Some(pods)) = (&endpoint.pod, api::find("", "v1", "pods")) else {
        return false;
    };
    let found = state.objects.cache.get(pods, namespace, pod);
    let pod = found.and_then(|pod| reply::parse(&pod.bytes()).ok());
    pod.is_some_and(|pod| {
        let status = &pod["status"];
        let first = std::iter::once(&status["podIP"]);
        let all = status["podIPs"].as_array().into_iter().flatten();
        let mut all = first.chain(all.map(|it| &it["ip"]));
        let address = endpoint.address.ip();
        let is_own = |own: &Value| own.as_str().and_then(|own| own.parse().ok()) == Some(address);
        all.any(is_own) && !meta::is_terminating(&pod)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_of_a_service_is_that_of_the_same_name_in_its_slices() {
        let service = json!({"spec": {"ports": [
            {"name": "dns", "port": 443, "protocol": "UDP"},
            {"name": "https", "port": 443, "targetPort": "secure"}]}});
        assert_eq!(port_name(&service, "hook", 443), Ok("https".to_owned()));
        let missing = port_name(&service, "hook", 80).map_err(|unready| unready.to_string());
        let expected = "no service port 80 found for service \"hook\"";
        assert_eq!(missing, Err(expected.to_owned()));
        let slice = json!({
            "ports": [{"name": "dns", "port": 53}, {"name": "https", "port": 8443}],
            "endpoints": [
                {"addresses": ["10.100.1.2"], "nodeName": "node-1",
                    "targetRef": {"kind": "Pod", "name": "p"}},
                {"addresses": ["10.100.1.3"], "conditions": {"ready": false}},
                {"addresses": ["fd00::3"], "conditions": {"ready": true}}],
        });
        let found = of_slice(&slice, "https");
        let addresses: Vec<_> = found.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(addresses, ["10.100.1.2:8443", "[fd00::3]:8443"]);
        assert_eq!(found[0].node.as_deref(), Some("node-1"));
        assert_eq!(found[0].pod.as_deref(), Some("p"));
        assert_eq!(of_slice(&slice, "http"), []);
    }

    #[test]
    fn what_only_this_machine_reaches_is_no_endpoint() {
        for address in [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "224.0.0.1",
        ] {
            assert!(is_local(address.parse().expect("an address")), "{address}");
        }
        assert!(!is_local([192, 0, 2, 1].into()));
    }
}
