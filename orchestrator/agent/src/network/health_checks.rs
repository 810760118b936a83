//! What load balancers are told that ask whether a Service has endpoints on this node: the table of
//! `healthCheckNodePort`s and the counts behind it. Pure; `serve::health_checks` answers with it.
//!
//! Only Services that have such a port are kept, and of slices only endpoints of this node.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::drain::endpoints::{Who, who};
use datapath::ObjectKey;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// All that load balancers may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthChecks {
    services: BTreeMap<ObjectKey, Asked>,
    /// By slice: its Service, and the endpoints of this node that take connections.
    slices: BTreeMap<ObjectKey, (ObjectKey, BTreeSet<Who>)>,
}

/// A Service that has a port for health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub port: u16,
    pub uid: String,
}

/// What there is to say on one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    pub service: ObjectKey,
    /// Pods of this node that take connections; one in two slices counts once.
    pub local_endpoints: usize,
}

impl HealthChecks {
    /// Takes a Service in; None when it was deleted.
    pub fn service(&mut self, key: ObjectKey, service: Option<&Service>) {
        match service.and_then(asked) {
            Some(asked) => self.services.insert(key, asked),
            None => self.services.remove(&key),
        };
    }

    /// Takes a slice in as `node` sees it; None when it was deleted.
    pub fn slice(&mut self, key: ObjectKey, slice: Option<&EndpointSlice>, node: &str) {
        let local = slice.and_then(|slice| {
            let labels = slice.metadata.labels.as_ref()?;
            let service = labels.get(SERVICE_NAME)?.as_str();
            let service = ObjectKey::new(key.namespace(), service);
            let ready = slice.endpoints.iter().filter(|it| is_ready_on(it, node));
            let ready: BTreeSet<Who> = ready.filter_map(who).collect();
            Some((service, ready)).filter(|(_, ready)| !ready.is_empty())
        });
        match local {
            Some(local) => self.slices.insert(key, local),
            None => self.slices.remove(&key),
        };
    }

    /// The ports to answer on. The first of two Services with one port has it: the other is about to
    /// go, or to change.
    pub fn ports(&self) -> BTreeMap<u16, (&ObjectKey, &Asked)> {
        let mut ports = BTreeMap::new();
        for (key, asked) in &self.services {
            ports.entry(asked.port).or_insert((key, asked));
        }
        ports
    }

    /// What to say on that port; nothing if nobody asks for it any more.
    pub fn count(&self, port: u16) -> Option<Count> {
        let (service, _) = self.ports().remove(&port)?;
        let own = self.slices.values().filter(|(of, _)| of == service);
        let pods: BTreeSet<&Who> = own.flat_map(|(_, ready)| ready).collect();
        Some(Count {
            service: service.clone(),
            local_endpoints: pods.len(),
        })
    }
}

/// Kubernetes gives the port to LoadBalancers whose traffic stays on the node, and to no other.
fn asked(service: &Service) -> Option<Asked> {
    let spec = service.spec.as_ref()?;
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let port = spec.health_check_node_port.filter(|_| local && balanced)?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    let uid = service.metadata.uid.clone().unwrap_or_default();
    Some(Asked { port, uid })
}

fn is_ready_on(endpoint: &Endpoint, node: &str) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
    ready && endpoint.node_name.as_deref() == Some(node)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn service(spec: Value) -> Service {
        let mut object = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "s1"},
            "spec": {
                "type": "LoadBalancer",
                "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 30123,
            },
        });
        for (field, value) in spec.as_object().expect("an object") {
            object["spec"][field] = value.clone();
        }
        serde_json::from_value(object).expect("a Service")
    }

    /// An endpoint by pod, node and whether it is ready.
    fn slice(service: &str, endpoints: &[(&str, &str, bool)]) -> EndpointSlice {
        let endpoint = |(uid, node, ready): &(&str, &str, bool)| {
            json!({
                "addresses": ["10.100.1.2"],
                "nodeName": node,
                "conditions": {"ready": ready, "serving": true, "terminating": !ready},
                "targetRef": {"kind": "Pod", "uid": uid},
            })
        };
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        });
        serde_json::from_value(slice).expect("a slice")
    }

    fn counted(checks: &HealthChecks) -> Option<usize> {
        checks.count(30123).map(|count| count.local_endpoints)
    }

    #[test]
    fn ready_pods_of_this_node_count_once_each() {
        let mut checks = HealthChecks::default();
        checks.service(key("web"), Some(&service(json!({}))));
        assert_eq!(counted(&checks), Some(0));
        let four = slice(
            "web",
            &[("u1", "n1", true), ("u2", "n1", true), ("u3", "n2", true)],
        );
        let six = slice("web", &[("u1", "n1", true)]);
        checks.slice(key("web-4"), Some(&four), "n1");
        checks.slice(key("web-6"), Some(&six), "n1");
        checks.slice(
            key("other-1"),
            Some(&slice("other", &[("u9", "n1", true)])),
            "n1",
        );
        assert_eq!(counted(&checks), Some(2));
        checks.slice(key("web-4"), None, "n1");
        assert_eq!(counted(&checks), Some(1));
    }

    #[test]
    fn terminating_endpoints_do_not_count_though_they_may_still_serve() {
        let mut checks = HealthChecks::default();
        checks.service(key("web"), Some(&service(json!({}))));
        checks.slice(
            key("web-1"),
            Some(&slice("web", &[("u1", "n1", false)])),
            "n1",
        );
        assert_eq!(counted(&checks), Some(0));
    }

    #[test]
    fn a_port_is_answered_while_a_service_asks_for_it() {
        let mut checks = HealthChecks::default();
        for spec in [
            json!({"type": "NodePort"}),
            json!({"externalTrafficPolicy": "Cluster"}),
            json!({"healthCheckNodePort": null}),
        ] {
            checks.service(key("web"), Some(&service(spec)));
            assert!(checks.ports().is_empty());
        }
        checks.service(key("web"), Some(&service(json!({}))));
        assert_eq!(checks.ports()[&30123].1.uid, "s1");
        checks.service(
            key("web"),
            Some(&service(json!({"healthCheckNodePort": 30124}))),
        );
        assert_eq!(checks.ports().into_keys().collect::<Vec<_>>(), [30124]);
        assert_eq!(checks.count(30123), None);
        checks.service(key("web"), None);
        assert!(checks.ports().is_empty());
    }

    #[test]
    fn of_two_services_with_one_port_the_first_has_it() {
        let mut checks = HealthChecks::default();
        checks.service(key("b"), Some(&service(json!({}))));
        checks.service(key("a"), Some(&service(json!({}))));
        checks.slice(key("b-1"), Some(&slice("b", &[("u1", "n1", true)])), "n1");
        assert_eq!(checks.count(30123).expect("asked").service, key("a"));
        checks.service(key("a"), None);
        assert_eq!(counted(&checks), Some(1));
    }
}
