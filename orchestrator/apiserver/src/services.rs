//! What a Service is given when it is written: its families, cluster addresses, node ports and the
//! port of its health check; and that nothing outside the cluster at which it answers is a pod's, a
//! Service's, a node's or this server's. What a node claims is `nodes`' affair.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use serde_json::{Value, json};

use super::State;
use super::addresses::{self, Addresses, Family, Holding, NodePort, Refusal};
use super::{families, nodes};
use api::{ApiError, Behaviour, Cause, CauseKind, Resource, meta};
use store::{Expect, Revision, Write};

/// Namespace and name of the Service that leads to the API server; its address is kept for it.
pub const OWN_SERVICE: (&str, &str) = ("default", "kubernetes");

/// The one that leads from one address of the load balancers' pool to all servers.
pub const SHARED_SERVICE: (&str, &str) = ("kube-system", "kubernetes-api");

/// Addresses, ports and ranges taken for a Service or node whose write is under way. Once that is answered
/// the stored object has them, or nobody.
pub struct Claim<'a> {
    addresses: &'a Addresses,
    taken: Holding,
    /// The claims that were known when it was made; `None`: this server makes all of them.
    known: Option<Revision>,
}

impl<'a> Claim<'a> {
    /// Gives a Service its addresses and ports, keeping what `old` has, and takes what a Service or a node
    /// names. Other kinds claim nothing.
    pub fn make(
        state: &'a State,
        resource: &Resource,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<Self, ApiError> {
        let none = Holding::default();
        let is_shared = state.objects.store.is_shared();
        let mut claim = Self {
            addresses: &state.addresses,
            taken: none.clone(),
            known: is_shared.then(|| state.addresses.claims()),
        };
        let had = old.map_or(none, Holding::of);
        let claimed = match resource.behaviour {
            Behaviour::Service => claim.service(new, old, &had),
            Behaviour::Node => nodes::claim(claim.addresses, new, &had, &mut claim.taken),
            _ => return Ok(claim),
        };
        claimed.map_err(|causes| ApiError::invalid(resource, meta::name(new), causes))?;
        Ok(claim)
    }

    /// What the commit must write besides, for no other server to have given the same away.
    pub fn guard(&self) -> Option<Write> {
        let known = self.known.filter(|_| self.taken != Holding::default())?;
        let expect = match known {
            0 => Expect::Absent,
            known => Expect::At(known),
        };
        Some(Write::put(addresses::CLAIMS, Bytes::new(), expect))
    }

    /// Whether another server has claimed something since.
    pub fn is_outdated(&self) -> bool {
        self.guard().is_some() && self.known != Some(self.addresses.claims())
    }

    fn service(
        &mut self,
        new: &mut Value,
        old: Option<&Value>,
        had: &Holding,
    ) -> Result<(), Vec<Cause>> {
        for (field, address) in addresses::outside(new) {
            if had.outside.contains(&address) || self.taken.outside.contains(&address) {
                continue;
            }
            self.addresses
                .claim_outside(address)
                .map_err(|refusal| invalid(&field, &json!(address), &refusal.to_string()))?;
            self.taken.outside.insert(address);
        }
        if old.is_some_and(|old| old["spec"] == new["spec"]) {
            return Ok(());
        }
        self.allocate(new, old, had)
    }

    fn allocate(
        &mut self,
        new: &mut Value,
        old: Option<&Value>,
        had: &Holding,
    ) -> Result<(), Vec<Cause>> {
        let kind = new["spec"]["type"]
            .as_str()
            .unwrap_or("ClusterIP")
            .to_owned();
        if kind == "ExternalName" {
            return Ok(());
        }
        if (meta::namespace(new), meta::name(new)) == OWN_SERVICE {
            self.take_own(&mut new["spec"]);
        } else {
            families::settle(new, old, &self.addresses.families())?;
            self.allocate_addresses(&mut new["spec"], had)?;
        }
        let spec = &mut new["spec"];
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            let unasked = kind == "NodePort" || spec["allocateLoadBalancerNodePorts"] != false;
            self.allocate_ports(spec, unasked, had)?;
        }
        if kind == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local" {
            let field = "spec.healthCheckNodePort";
            let given = number(&spec["healthCheckNodePort"]);
            let port = self.port(given, "TCP", field, had)?;
            spec["healthCheckNodePort"] = port.into();
        }
        Ok(())
    }

    fn take_own(&self, spec: &mut Value) {
        let own = self.addresses.own();
        spec["clusterIP"] = own.to_string().into();
        spec["clusterIPs"] = json!([own.to_string()]);
        spec["ipFamilies"] = json!([Family::of(own).name()]);
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }

    /// One address a family, in the order of the families.
    fn allocate_addresses(&mut self, spec: &mut Value, had: &Holding) -> Result<(), Vec<Cause>> {
        if spec["clusterIP"] == "None" {
            spec["clusterIPs"] = json!(["None"]);
            return Ok(());
        }
        let given = spec["clusterIPs"].clone();
        let families = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
        let families = families
            .iter()
            .filter_map(|name| Family::parse(name.as_str()?));
        let mut all = Vec::new();
        for (index, family) in families.enumerate() {
            let wanted = given[index].as_str().and_then(|text| text.parse().ok());
            let address = self.address(wanted, family, had).map_err(|refusal| {
                let what = wanted.map_or_else(
                    || format!("the next {} address", family.name()),
                    |address| format!("IP {address}"),
                );
                let why = format!("failed to allocate {what}: {refusal}");
                invalid("spec.clusterIPs", &given, &why)
            })?;
            all.push(address.to_string());
        }
        spec["clusterIP"] = all.first().cloned().into();
        spec["clusterIPs"] = all.into();
        Ok(())
    }

    fn address(
        &mut self,
        wanted: Option<IpAddr>,
        family: Family,
        had: &Holding,
    ) -> Result<IpAddr, Refusal> {
        let address = match wanted {
            Some(address) if had.addresses.contains(&address) => return Ok(address),
            Some(address) => {
                self.addresses.claim_address(address)?;
                address
            }
            None => self.addresses.next_address(family)?,
        };
        self.taken.addresses.insert(address);
        Ok(address)
    }

    /// Ports of one number with different protocols get one node port, as DNS needs it.
    fn allocate_ports(
        &mut self,
        spec: &mut Value,
        unasked: bool,
        had: &Holding,
    ) -> Result<(), Vec<Cause>> {
        let ports = spec["ports"].as_array_mut();
        let ports = ports.map(Vec::as_mut_slice).unwrap_or_default();
        let mut of_number: BTreeMap<Option<u16>, u16> = BTreeMap::new();
        for port in ports.iter() {
            if let Some(node_port) = number(&port["nodePort"]) {
                let of = of_number.entry(number(&port["port"]));
                of.or_insert(node_port);
            }
        }
        for (index, port) in ports.iter_mut().enumerate() {
            let given = number(&port["nodePort"]);
            if given.is_none() && !unasked {
                continue;
            }
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let field = format!("spec.ports[{index}].nodePort");
            let of = number(&port["port"]);
            let shared = of_number.get(&of).copied().filter(|_| given.is_none());
            let node_port = match shared {
                // Its number may be another Service's for this protocol.
                Some(shared) => self
                    .port(Some(shared), &protocol, &field, had)
                    .or_else(|_| self.port(None, &protocol, &field, had)),
                None => self.port(given, &protocol, &field, had),
            }?;
            of_number.entry(of).or_insert(node_port);
            port["nodePort"] = node_port.into();
        }
        Ok(())
    }

    fn port(
        &mut self,
        given: Option<u16>,
        protocol: &str,
        field: &str,
        had: &Holding,
    ) -> Result<u16, Vec<Cause>> {
        let cause = |refusal: Refusal| {
            invalid(
                field,
                &json!(given.unwrap_or_default()),
                &refusal.to_string(),
            )
        };
        let Some(number) = given else {
            let number = self.addresses.next_port(protocol).map_err(cause)?;
            self.taken.ports.insert((number, protocol.to_owned()));
            return Ok(number);
        };
        let port: NodePort = (number, protocol.to_owned());
        if !had.ports.contains(&port) {
            self.addresses.claim_port(port.clone()).map_err(cause)?;
            self.taken.ports.insert(port);
        }
        Ok(number)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.addresses.release(&self.taken);
    }
}

/// A port that is given. One that cannot be a port is refused as outside the range.
fn number(value: &Value) -> Option<u16> {
    let number = value.as_u64().filter(|number| *number != 0)?;
    Some(u16::try_from(number).unwrap_or_default())
}

pub fn invalid(field: &str, value: &Value, why: &str) -> Vec<Cause> {
    vec![Cause {
        field: field.to_owned(),
        kind: CauseKind::Invalid,
        message: format!("Invalid value: {value}: {why}"),
    }]
}
