//! A pod's network from its address to the datapath: allocate, wire, hand over; and back.
//!
//! Owns the node's address book. What a wire is made of is `pod_net`'s, what happens to packets
//! the datapath's.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::feed::{DatapathHandle, Snapshot};
use super::ipam::{Ipam, IpamError};
use super::pod_net::shaping::Bandwidth;
use super::pod_net::{self, NetError, PodLinks, Wire};
use crate::metrics::Metrics;
use datapath::{Addrs, Change, HostPort};

/// What a pod's worker asks of the node's network.
pub trait PodNetwork: Send + Sync + 'static {
    /// The pod's addresses; the same at every call until it is released.
    fn allocate(&self, uid: &str) -> Result<Addrs, WiringError>;

    /// Notes the addresses that a running sandbox has; false when they cannot be kept.
    fn restore(&self, uid: &str, addrs: Addrs) -> bool;

    /// Notes what the pod may carry, for the wires that are made from now on.
    fn limit(&self, _uid: &str, _bandwidth: Bandwidth) {}

    /// Wires the pod whose sandbox runs as `pid`, or finds it wired.
    fn attach(
        &self,
        uid: &str,
        pid: u32,
        addrs: Addrs,
    ) -> impl Future<Output = Result<(), WiringError>> + Send;

    /// Waits until a sandbox of the node's own network is in it.
    fn join_node(&self, pid: u32) -> impl Future<Output = Result<(), WiringError>> + Send;

    /// Says which ports of the node lead to the pod; `None`: all pods of the API have been said.
    fn host_ports(&self, pod: Option<(&str, Vec<HostPort>)>) -> impl Future<Output = ()> + Send;

    /// Takes the pod off the network; its addresses stay its own.
    fn detach(&self, uid: &str) -> impl Future<Output = Result<(), WiringError>> + Send;

    /// Takes the pod off the network and frees its addresses.
    fn release(&self, uid: &str) -> impl Future<Output = Result<(), WiringError>> + Send;
}

/// Why a pod is not on the network.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("the datapath did not take the pod: {0}")]
    Datapath(String),
}

/// The network of a real node.
pub struct Wiring {
    links: PodLinks,
    ipam: Mutex<Ipam>,
    datapath: DatapathHandle,
    gateways: Addrs,
    mtu: u32,
    metrics: Arc<Metrics>,
    /// By uid: of pods whose bandwidth is limited.
    limits: Mutex<BTreeMap<String, Bandwidth>>,
}

impl Wiring {
    /// `gateways` is the node inside the overlay, `mtu` that of pods' links.
    pub fn new(
        links: PodLinks,
        ipam: Ipam,
        datapath: DatapathHandle,
        gateways: Addrs,
        mtu: u32,
        metrics: Arc<Metrics>,
    ) -> Wiring {
        Wiring {
            links,
            ipam: Mutex::new(ipam),
            datapath,
            gateways,
            mtu,
            metrics,
            limits: Mutex::default(),
        }
    }

    fn limits(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Bandwidth>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the wires of all pods but these.
    pub async fn remove_others(&self, keep: &[String]) -> Result<Vec<String>, NetError> {
        self.links.remove_others(keep).await
    }

    fn ipam(&self) -> std::sync::MutexGuard<'_, Ipam> {
        // Every change of the book is one step: a panic leaves it whole.
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn hand_over(&self, change: Change) -> Result<(), WiringError> {
        self.datapath
            .change(change)
            .await
            .map_err(WiringError::Datapath)
    }
}

impl PodNetwork for Wiring {
    fn allocate(&self, uid: &str) -> Result<Addrs, WiringError> {
        Ok(self.ipam().allocate(uid)?)
    }

    fn restore(&self, uid: &str, addrs: Addrs) -> bool {
        let mut ipam = self.ipam();
        ipam.release(uid);
        ipam.restore(uid, addrs)
    }

    fn limit(&self, uid: &str, bandwidth: Bandwidth) {
        match bandwidth == Bandwidth::default() {
            true => self.limits().remove(uid),
            false => self.limits().insert(uid.to_owned(), bandwidth),
        };
    }

    async fn attach(&self, uid: &str, pid: u32, addrs: Addrs) -> Result<(), WiringError> {
        let wire = Wire {
            uid: uid.to_owned(),
            pid,
            addrs,
            gateways: self.gateways,
            mtu: self.mtu,
        };
        let started = Instant::now();
        let guard = self.datapath.guard();
        let mut pod = self.links.attach(&wire, &guard).await?;
        let limit = self.limits().get(uid).copied();
        if let Some(limit) = limit {
            self.links.shape(&wire, pod.ifindex, limit).await?;
            pod.is_queued = limit.ingress.is_some();
        }
        let wired = started.elapsed();
        let handed = self.datapath.wired(uid.to_owned(), pod, guard).await;
        handed.map_err(WiringError::Datapath)?;
        let took = started.elapsed();
        tracing::debug!(uid, ?wired, ?took, "a pod is on the network");
        self.metrics.attaches().note(took);
        Ok(())
    }

    async fn join_node(&self, pid: u32) -> Result<(), WiringError> {
        Ok(pod_net::joined_node(pid).await?)
    }

    async fn host_ports(&self, pod: Option<(&str, Vec<HostPort>)>) {
        let Some((uid, ports)) = pod else {
            return self.datapath.delivered(Snapshot::HostPorts).await;
        };
        // What fails is reported there, and tried again.
        let _ = self
            .hand_over(Change::HostPorts(uid.to_owned(), ports))
            .await;
    }

    async fn detach(&self, uid: &str) -> Result<(), WiringError> {
        self.hand_over(Change::Pod(uid.to_owned(), None)).await?;
        Ok(self.links.detach(uid).await?)
    }

    async fn release(&self, uid: &str) -> Result<(), WiringError> {
        self.detach(uid).await?;
        self.limits().remove(uid);
        self.ipam().release(uid);
        Ok(())
    }
}
