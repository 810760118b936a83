//! What a write must meet, or is given, because of other objects: its namespace, a pod's service
//! account, a Service's addresses and node ports.

use serde_json::{Value, json};

use super::State;
use super::addresses::{Addresses, Holding, Refusal};
use super::objects::put;
use super::reply::internal;
use crate::api::{self, ApiError, Cause, CauseKind, Resource, meta};
use crate::store::{Expect, Write};

/// Namespace and name of the Service that leads to the API server; its address is kept for it.
pub const OWN_SERVICE: (&str, &str) = ("default", "kubernetes");

/// Nothing new may be made in a namespace that is absent or going.
pub fn namespace_is_open(
    state: &State,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    if !resource.namespaced() {
        return Ok(());
    }
    let namespaces = api::find("", "v1", "namespaces").ok_or(ApiError::NoSuchResource)?;
    let found = state.objects.get(namespaces, "", namespace)?;
    if found
        .fields()
        .get("status.phase")
        .is_some_and(|phase| phase == "Terminating")
    {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        return Err(ApiError::forbidden(resource, name, why));
    }
    Ok(())
}

/// Fills in what a new object gets before it is validated.
pub fn complete(resource: &Resource, object: &mut Value) {
    if (resource.group, resource.plural) == ("", "pods") {
        let spec = &mut object["spec"];
        let given = |field: &Value| field.as_str().is_some_and(|text| !text.is_empty());
        if !given(&spec["serviceAccountName"]) {
            let old_name = spec["serviceAccount"].clone();
            spec["serviceAccountName"] = if given(&old_name) {
                old_name
            } else {
                "default".into()
            };
        }
        spec["serviceAccount"] = spec["serviceAccountName"].clone();
    }
}

/// A pod that is sent back as its manifest keeps what it was given when it was made.
pub fn keep_given(resource: &Resource, new: &mut Value, old: &Value) {
    if (resource.group, resource.plural) != ("", "pods") {
        return;
    }
    for field in ["priority", "preemptionPolicy"] {
        if new["spec"][field].is_null() && !old["spec"][field].is_null() {
            new["spec"][field] = old["spec"][field].clone();
        }
    }
    let given = [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ];
    let tolerations = |pod: &Value| pod["spec"]["tolerations"].as_array().cloned();
    let (mut kept, before) = (tolerations(new).unwrap_or_default(), tolerations(old));
    for toleration in before.unwrap_or_default() {
        let is_given = given.iter().any(|key| toleration["key"] == *key);
        if is_given && !kept.iter().any(|other| other["key"] == toleration["key"]) {
            kept.push(toleration);
        }
    }
    if !kept.is_empty() {
        new["spec"]["tolerations"] = kept.into();
    }
}

/// What is written together with a new object: a namespace comes with its service account.
pub fn companions(
    state: &State,
    resource: &Resource,
    object: &Value,
) -> Result<Vec<Write>, ApiError> {
    if (resource.group, resource.plural) != ("", "namespaces") {
        return Ok(Vec::new());
    }
    let accounts = api::find("", "v1", "serviceaccounts").ok_or(ApiError::NoSuchResource)?;
    // Left from an earlier namespace of this name, or put into the store before it.
    let name = meta::name(object);
    if state.objects.cache.get(accounts, name, "default").is_some() {
        return Ok(Vec::new());
    }
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": "default",
            "namespace": name,
            "uid": new_uid(),
            "creationTimestamp": object["metadata"]["creationTimestamp"],
        },
    });
    Ok(vec![put(accounts, &account, Expect::Any)])
}

/// Addresses and ports taken for a Service whose write is not answered yet; given back unless kept.
pub struct Claim<'a> {
    addresses: &'a Addresses,
    taken: Holding,
    /// What the Service held before and does not any more.
    freed: Holding,
}

impl<'a> Claim<'a> {
    /// Gives a Service its addresses and ports, keeping what `old` has. Other kinds claim nothing.
    pub fn make(
        state: &'a State,
        resource: &Resource,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<Self, ApiError> {
        let none = Holding::default();
        let mut claim = Self {
            addresses: &state.addresses,
            taken: none.clone(),
            freed: none.clone(),
        };
        if (resource.group, resource.plural) != ("", "services") {
            return Ok(claim);
        }
        let had = old.map_or(none, Holding::of);
        claim
            .allocate(new, old, &had)
            .map_err(|causes| ApiError::invalid(resource, meta::name(new), causes))?;
        claim.freed = had.without(&Holding::of(new));
        Ok(claim)
    }

    /// The write happened: the new ones stay, the old ones are free.
    pub fn keep(mut self) {
        self.taken = std::mem::take(&mut self.freed);
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
        self.allocate_address(new, had)
            .map_err(|cause| vec![cause])?;
        if kind == "NodePort" || kind == "LoadBalancer" {
            let wanted = new["spec"]["allocateLoadBalancerNodePorts"]
                .as_bool()
                .unwrap_or(true);
            if wanted || kind == "NodePort" {
                self.allocate_ports(new, old, had)?;
            }
        }
        Ok(())
    }

    fn allocate_address(&mut self, new: &mut Value, had: &Holding) -> Result<(), Cause> {
        let own = (meta::namespace(new), meta::name(new)) == OWN_SERVICE;
        let spec = &mut new["spec"];
        if own {
            spec["clusterIP"] = self.addresses.own().to_string().into();
        }
        let given = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
        if given == "None" {
            return Ok(());
        }
        let invalid = |refusal: Refusal| Cause {
            field: "spec.clusterIPs".to_owned(),
            kind: CauseKind::Invalid,
            message: format!(
                "Invalid value: [\"{given}\"]: failed to allocate IP {given}: {refusal}"
            ),
        };
        let address = match given.parse() {
            Ok(address) if own || had.addresses.contains(&address) => address,
            Ok(address) => {
                self.addresses.claim_address(address).map_err(invalid)?;
                self.taken.addresses.insert(address);
                address
            }
            Err(_) => {
                let address = self.addresses.next_address().map_err(invalid)?;
                self.taken.addresses.insert(address);
                address
            }
        };
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        spec["clusterIP"] = address.to_string().into();
        spec["clusterIPs"] = json!([address.to_string()]);
        spec["ipFamilies"] = json!([family]);
        if spec["ipFamilyPolicy"].is_null() {
            spec["ipFamilyPolicy"] = "SingleStack".into();
        }
        Ok(())
    }

    fn allocate_ports(
        &mut self,
        new: &mut Value,
        old: Option<&Value>,
        had: &Holding,
    ) -> Result<(), Vec<Cause>> {
        let before = old.and_then(|old| old["spec"]["ports"].as_array()).cloned();
        let before = before.unwrap_or_default();
        let ports = new["spec"]["ports"].as_array_mut().into_iter().flatten();
        for (index, port) in ports.enumerate() {
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let same = |other: &&Value| {
                other["port"] == port["port"] && other["protocol"] == port["protocol"]
            };
            let given = port["nodePort"]
                .as_u64()
                .filter(|number| *number != 0)
                .or_else(|| {
                    before
                        .iter()
                        .find(same)
                        .and_then(|other| other["nodePort"].as_u64())
                });
            let given = given.map(|number| u16::try_from(number).unwrap_or_default());
            let cause = |refusal: Refusal| {
                vec![Cause {
                    field: format!("spec.ports[{index}].nodePort"),
                    kind: CauseKind::Invalid,
                    message: format!("Invalid value: {}: {refusal}", given.unwrap_or_default()),
                }]
            };
            let number = match given {
                Some(number) if had.ports.contains(&(number, protocol.clone())) => number,
                Some(number) => {
                    self.addresses
                        .claim_port((number, protocol.clone()))
                        .map_err(cause)?;
                    self.taken.ports.insert((number, protocol));
                    number
                }
                None => {
                    let number = self.addresses.next_port(&protocol).map_err(cause)?;
                    self.taken.ports.insert((number, protocol));
                    number
                }
            };
            port["nodePort"] = number.into();
        }
        Ok(())
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.addresses.release(&self.taken);
    }
}

/// A Service that is gone holds nothing.
pub fn release(state: &State, resource: &Resource, object: &Value) {
    if (resource.group, resource.plural) == ("", "services") {
        state.addresses.release(&Holding::of(object));
    }
}

/// A new object's uid.
pub fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The name of an object that asks for a generated one.
pub fn generate_name(object: &mut Value) -> Result<bool, ApiError> {
    let prefix = object["metadata"]["generateName"]
        .as_str()
        .unwrap_or_default();
    if !meta::name(object).is_empty() || prefix.is_empty() {
        return Ok(false);
    }
    let bits = uuid::Uuid::new_v4().as_u64_pair();
    // The second half of a random UUID carries the variant in its top bits: mix both.
    let name = meta::generated_name(prefix, bits.0 ^ bits.1);
    let metadata = object["metadata"].as_object_mut();
    let metadata = metadata.ok_or_else(|| internal("an object without metadata"))?;
    metadata.insert("name".to_owned(), name.into());
    Ok(true)
}
