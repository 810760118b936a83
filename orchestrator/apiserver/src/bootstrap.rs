//! What the server writes by itself: the first namespaces, its own Service, and the end of old
//! events.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::State;
use super::addresses;
use super::objects::{Current, WriteError};
use super::pki::{self, Pki};
use super::servers;
use super::services::{OWN_SERVICE, SHARED_SERVICE};
use super::write::Writer;
use api::kinds::scheduling::priority_class;
use api::kinds::storage::{self, local, storage_class};
use api::{self, ApiError, Behaviour, FieldValidation, Resource, meta};
use store::Revision;
use sys::Shutdown;

/// How long an event is kept after it was last seen.
const EVENT_LIFETIME: SignedDuration = SignedDuration::from_hours(1);
/// How often old events are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// How often what every cluster has is looked after.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Makes sure that what every cluster has is there, and that this server is known.
pub async fn first_objects(state: &State) -> Result<(), ApiError> {
    mend(state).await?;
    servers::renew(state).await
}

/// Puts what every cluster has where it is missing or says something else.
async fn mend(state: &State) -> Result<(), ApiError> {
    let is_new = state
        .objects
        .current(find("", "namespaces")?, "", "kube-system")
        .is_err();
    // All at once: what is written at the same time is one commit of the store, with one fsync.
    let mut objects = Vec::new();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
        objects.push((find("", "namespaces")?, namespace, false));
    }
    if let Some(pki) = &state.pki {
        objects.push((find("", "configmaps")?, authentication(pki), true));
    }
    for (name, value) in priority_class::SYSTEM {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value,
            "description": "For pods that the cluster itself needs."});
        let classes = find("scheduling.k8s.io", "priorityclasses")?;
        objects.push((classes, class, false));
    }
    // Only once: who deletes it wants another one, or none.
    if is_new {
        let classes = find(storage::GROUP, "storageclasses")?;
        objects.push((classes, local_class(), false));
    }
    tokio::try_join!(ensure_all(state, objects), services(state)).map(|_| ())
}

/// The Services of the cluster itself.
async fn services(state: &State) -> Result<(), ApiError> {
    let services = find("", "services")?;
    let dns = async {
        // Its owner may have made another one of it.
        let written = ensure(state, services, dns_service(state), false).await;
        if let Err(error) = written {
            tracing::warn!(%error, "pods have no DNS: there is no Service kube-system/kube-dns");
        }
        Ok::<(), ApiError>(())
    };
    let own = ensure(state, services, own_service(state), true);
    let shared = state.config.shared_address.map(|address| {
        // Its owner may have given it other ports, or a class of load balancers.
        (services, shared_service(state, address), false)
    });
    tokio::try_join!(dns, own, ensure_all(state, shared), lead_to_servers(state)).map(|_| ())
}

/// Has the servers' Services lead to those of them that are alive.
pub async fn lead_to_servers(state: &State) -> Result<(), ApiError> {
    // An address that no other machine can reach is no endpoint; Kubernetes refuses it too.
    if state.config.advertise.ip().is_loopback() {
        return Ok(());
    }
    let servers = servers::alive(state)?;
    let slices = find("discovery.k8s.io", "endpointslices")?;
    let endpoints = (find("", "endpoints")?, own_endpoints(state, &servers), true);
    let own = (slices, slice(state, OWN_SERVICE, &servers), true);
    let shared = state.config.shared_address;
    let shared = shared.map(|_| (slices, slice(state, SHARED_SERVICE, &servers), true));
    ensure_all(state, [endpoints, own].into_iter().chain(shared)).await
}

/// The newest revision of what leads to the other servers, none of which leads to this one any more; None: some does.
/// 0: none ever did, or this server is the last one, to which they lead to its end.
pub fn led_elsewhere(state: &State) -> Result<Option<Revision>, ApiError> {
    let own = state.config.advertise;
    if own.ip().is_loopback() || servers::alive(state)?.contains(&own) {
        return Ok(Some(0));
    }
    let (slices, own) = (
        find("discovery.k8s.io", "endpointslices")?,
        own.ip().to_string(),
    );
    let mut newest = 0;
    for (namespace, name) in [OWN_SERVICE, SHARED_SERVICE] {
        let Ok(found) = state.objects.current(slices, namespace, name) else {
            continue;
        };
        let endpoints = found.value["endpoints"].as_array();
        let mut endpoints = endpoints.into_iter().flatten();
        if endpoints.any(|it| it["addresses"][0] == *own) {
            return Ok(None);
        }
        newest = newest.max(found.revision);
    }
    Ok(Some(newest))
}

/// The class of claims that name none: volumes on the disks of the nodes.
fn local_class() -> Value {
    let mark = storage_class::IS_DEFAULT[0];
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": local::CLASS, "annotations": {mark: "true"}},
        "provisioner": local::DRIVER, "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true, "reclaimPolicy": "Delete",
    })
}

/// How the servers of other groups know clients, and this server that passes clients' requests on.
fn authentication(pki: &Pki) -> Value {
    let list = |words: &[&str]| json!(words).to_string();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": pki.authority.certificate(),
            "requestheader-client-ca-file": pki.front_proxy.certificate(),
            "requestheader-allowed-names": list(&[pki::FRONT_PROXY]),
            "requestheader-username-headers": list(&["X-Remote-User"]),
            "requestheader-uid-headers": list(&["X-Remote-Uid"]),
            "requestheader-group-headers": list(&["X-Remote-Group"]),
            "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
        },
    })
}

/// Service kube-system/kube-dns. It has no endpoints in the API: every node leads its pods to itself. By the
/// labels, `kubectl cluster-info` and Kubernetes' own tests find it.
fn dns_service(state: &State) -> Value {
    let ranges = state.config.service_cidrs.iter();
    let addresses = ranges.filter_map(|range| addresses::tenth_of(*range));
    let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    let port =
        |name, protocol| json!({"name": name, "port": 53, "targetPort": 53, "protocol": protocol});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "KubeDNS",
            },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": addresses.first(),
            "clusterIPs": addresses,
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        },
    })
}

/// Service default/kubernetes.
fn own_service(state: &State) -> Value {
    let (namespace, name) = OWN_SERVICE;
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": state.addresses.own().to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP",
                "targetPort": state.config.advertise.port()}],
        },
    })
}

/// The Service by which people reach the servers at one address, whichever of them are alive: nodes announce it
/// as they do any load balancer's.
fn shared_service(state: &State, address: IpAddr) -> Value {
    let (namespace, name) = SHARED_SERVICE;
    let port = state.config.advertise.port();
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerIP": address.to_string(),
            "allocateLoadBalancerNodePorts": false,
            "ipFamilies": [family],
            "ports": [{"name": "https", "port": port, "protocol": "TCP", "targetPort": port}],
        },
    })
}

/// Where default/kubernetes leads, in the old form.
fn own_endpoints(state: &State, servers: &[SocketAddr]) -> Value {
    let (namespace, name) = OWN_SERVICE;
    let addresses: Vec<Value> = servers.iter().map(|it| json!({"ip": it.ip()})).collect();
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": name, "namespace": namespace,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": addresses, "ports": [https_port(state)]}],
    })
}

/// Where one of the servers' Services leads.
fn slice(state: &State, (namespace, name): (&str, &str), servers: &[SocketAddr]) -> Value {
    let is_v4 = state.config.advertise.is_ipv4();
    let endpoint =
        |server: &SocketAddr| json!({"addresses": [server.ip()], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name}},
        "addressType": if is_v4 { "IPv4" } else { "IPv6" },
        "endpoints": servers.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [https_port(state)],
    })
}

fn https_port(state: &State) -> Value {
    json!({"name": "https", "port": state.config.advertise.port(), "protocol": "TCP"})
}

/// The same of many objects at once, of which none needs another one.
pub async fn ensure_all(
    state: &State,
    objects: impl IntoIterator<Item = (&Arc<Resource>, Value, bool)>,
) -> Result<(), ApiError> {
    let objects = objects.into_iter();
    let written = objects.map(|(resource, object, update)| ensure(state, resource, object, update));
    futures::future::try_join_all(written).await.map(|_| ())
}

/// Writes an object that is missing; one that is there is made to say the same if `update`.
pub async fn ensure(
    state: &State,
    resource: &Arc<Resource>,
    object: Value,
    update: bool,
) -> Result<(), ApiError> {
    let (namespace, name) = (meta::namespace(&object), meta::name(&object));
    let found = state.objects.get(resource, namespace, name).ok();
    if found.is_some() && !update {
        return Ok(());
    }
    let object = resource.canonical(object, FieldValidation::Strict)?.object;
    let writer = Writer::server(state, resource);
    let written = match found {
        Some(found) => {
            let current = Current::of(&found)?;
            let wanted = merged(resource, &current.value, object);
            writer.update(&current, wanted).await
        }
        None => writer.create(object).await,
    };
    match written {
        // Another writer was there first: nothing runs beside this one at start.
        Ok(_) | Err(WriteError::Changed) => Ok(()),
        Err(WriteError::Failed(error)) => Err(error),
    }
}

/// The wanted content in an object that is there, which keeps who it is.
fn merged(resource: &Resource, old: &Value, mut wanted: Value) -> Value {
    let labels = wanted["metadata"]["labels"].take();
    wanted["metadata"] = old["metadata"].clone();
    // Labels that others have put there stay.
    for (label, value) in labels.as_object().into_iter().flatten() {
        wanted["metadata"]["labels"][label] = value.clone();
    }
    if resource.behaviour == Behaviour::Service {
        // The address is given once and stays with the object.
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            wanted["spec"][field] = old["spec"][field].clone();
        }
    }
    wanted
}

/// Puts back what somebody has deleted or changed.
pub fn start_upkeep(state: &Arc<State>) {
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    let look_after = move || look_after(state.clone(), shutdown.clone());
    tasks.restarting("upkeep", look_after);
}

async fn look_after(state: Arc<State>, shutdown: Shutdown) -> Result<(), ApiError> {
    while shutdown
        .unless(tokio::time::sleep(UPKEEP_INTERVAL))
        .await
        .is_some()
    {
        mend(&state).await?;
    }
    Ok(())
}

/// Removes events that nobody has repeated for an hour.
pub fn start_expiry(state: &Arc<State>) {
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    let expire = move || expire_events(state.clone(), shutdown.clone());
    tasks.restarting("event expiry", expire);
}

async fn expire_events(state: Arc<State>, shutdown: Shutdown) -> Result<(), ApiError> {
    let events = find("", "events")?;
    let writer = Writer::server(&state, events);
    while shutdown
        .unless(tokio::time::sleep(EXPIRY_INTERVAL))
        .await
        .is_some()
    {
        let oldest = Timestamp::now() - EVENT_LIFETIME;
        for event in state.objects.cache.list(events, None).1 {
            let current = Current::of(&event)?;
            if last_seen(&current.value).is_some_and(|seen| seen < oldest) {
                // One that was repeated in between is kept.
                match writer.remove(&current).await {
                    Ok(()) | Err(WriteError::Changed) => {}
                    Err(WriteError::Failed(error)) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

fn last_seen(event: &Value) -> Option<Timestamp> {
    let stamps = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    stamps
        .into_iter()
        .filter_map(|stamp| stamp.as_str()?.parse().ok())
        .max()
}

/// A built-in resource of version v1.
pub fn find(group: &str, plural: &str) -> Result<&'static Arc<Resource>, ApiError> {
    api::find(group, "v1", plural).ok_or(ApiError::NoSuchResource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_old_as_its_last_repetition() {
        let event = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "lastTimestamp": "2026-01-01T02:00:00Z"});
        assert_eq!(last_seen(&event), "2026-01-01T02:00:00Z".parse().ok());
        assert_eq!(last_seen(&json!({})), None);
    }
}
