//! What a kubelet shows of its pods and of what they use: `/pods`, `/stats/summary`, `/metrics/resource`,
//! `/metrics/cadvisor`, `/configz`. All from memory: the newest reading, at most a few seconds old.

mod exposition;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::Served;
use crate::node::cgroup::Counters;
use crate::node::running::Running;
use crate::node::usage::{
    ContainerDisk, ContainerReading, Disks, Filesystem, Interface, Machine, PodDisk, PodReading,
    Reading, Readings,
};
use crate::runtime::Runtime;

/// What kubelets call the text form of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the handlers look at.
#[derive(Clone, Default)]
pub struct Seen {
    pub node_name: String,
    pub started_at: Timestamp,
    pub running: Arc<Running>,
    pub readings: Readings,
    /// As a `KubeletConfiguration` says it.
    pub config: Arc<Value>,
}

/// GET `/pods`: the pods of this node, as the API says them.
pub async fn pods<R: Runtime>(State(served): State<Served<R>>) -> Response {
    let pods = served.seen.running.pods().into_values();
    let items: Vec<Value> = pods.map(|pod| json!(*pod.pod)).collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
        .into_response()
}

/// GET `/configz`.
pub async fn config<R: Runtime>(State(served): State<Served<R>>) -> Response {
    Json(json!({"kubeletconfig": *served.seen.config})).into_response()
}

/// GET `/stats/summary`.
pub async fn summary<R: Runtime>(State(served): State<Served<R>>) -> Response {
    let seen = &served.seen;
    let reading = seen.readings.newest();
    let disks = seen.readings.disks();
    let node = (&*seen.node_name, seen.started_at);
    Json(summary_of(node, &reading, &disks)).into_response()
}

/// GET `/metrics/resource`.
pub async fn resource<R: Runtime>(State(served): State<Served<R>>) -> Response {
    let text = exposition::resource(&served.seen.readings.newest());
    ([("content-type", TEXT)], text).into_response()
}

/// GET `/metrics/cadvisor`.
pub async fn cadvisor<R: Runtime>(State(served): State<Served<R>>) -> Response {
    let text = exposition::cadvisor(&served.seen.readings.newest());
    ([("content-type", TEXT)], text).into_response()
}

/// The `Summary` of stats/v1alpha1.
fn summary_of(
    (node_name, started_at): (&str, Timestamp),
    reading: &Reading,
    disks: &Disks,
) -> Value {
    let (machine, at) = (&reading.machine, reading.at);
    let pods: Vec<Value> = reading
        .pods
        .iter()
        .map(|(uid, it)| pod(uid, it, &disks.of(uid).unwrap_or_default(), (machine, at)))
        .collect();
    let disk = filesystem(&machine.filesystem, at);
    let images = filesystem(&machine.images, at);
    json!({
        "node": {
            "nodeName": node_name,
            "startTime": started_at,
            "cpu": {"time": at, "usageNanoCores": reading.rate.nanocores,
                "usageCoreNanoSeconds": machine.cpu_ns},
            "memory": {"time": at, "availableBytes": machine.available_bytes(),
                "usageBytes": machine.usage_bytes(),
                "workingSetBytes": machine.working_set_bytes(),
                "rssBytes": machine.anonymous_bytes, "pageFaults": 0, "majorPageFaults": 0},
            "fs": disk,
            "runtime": {"imageFs": images, "containerFs": images},
            "rlimit": {"time": at, "maxpid": machine.most_processes,
                "curproc": machine.processes},
        },
        "pods": pods,
    })
}

fn pod(uid: &str, of: &PodReading, disk: &PodDisk, (machine, at): (&Machine, Timestamp)) -> Value {
    let (name, namespace) = names(&of.pod);
    let containers = of.containers.iter().map(|it| {
        let disk = disk.containers.get(&it.running.name).copied();
        container(it, &disk.unwrap_or_default(), (machine, at))
    });
    let containers: Vec<Value> = containers.collect();
    let counters = of.counters();
    let status = of.pod.status.as_ref();
    let started = status.and_then(|status| status.start_time.clone());
    let mut shown = json!({
        "podRef": {"name": name, "namespace": namespace, "uid": uid},
        "startTime": started,
        "containers": containers,
        "cpu": {"time": at, "usageNanoCores": of.nanocores(),
            "usageCoreNanoSeconds": counters.cpu_ns},
        "memory": memory(&counters, at),
        "process_stats": {"process_count": counters.processes},
        "ephemeral-storage": taken(&machine.filesystem, disk.bytes(), disk.inodes(), at),
    });
    let volumes: Vec<Value> = volumes(&of.pod, disk, at);
    if !volumes.is_empty() {
        shown["volume"] = volumes.into();
    }
    if let Some(interface) = &of.interface {
        shown["network"] = network(interface, at);
    }
    shown
}

/// Each volume that was measured, with the claim that it is of.
fn volumes(pod: &Pod, disk: &PodDisk, at: Timestamp) -> Vec<Value> {
    let (name, namespace) = names(pod);
    let spec = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let measured = spec.into_iter().flatten().filter_map(|volume| {
        let found = disk.by_volume.get(&volume.name)?;
        let (bytes, inodes) = (found.used_bytes, found.inodes_used);
        let mut shown = taken(&found.filesystem, bytes, inodes, at);
        shown["name"] = volume.name.clone().into();
        let claim = volume.persistent_volume_claim.as_ref();
        let claim = claim.map(|claim| claim.claim_name.clone());
        let own = volume.ephemeral.as_ref();
        let own = own.map(|_| format!("{name}-{}", volume.name));
        if let Some(claim) = claim.or(own) {
            shown["pvcRef"] = json!({"name": claim, "namespace": namespace});
        }
        Some(shown)
    });
    measured.collect()
}

fn container(
    of: &ContainerReading,
    disk: &ContainerDisk,
    (machine, at): (&Machine, Timestamp),
) -> Value {
    let images = &machine.images;
    json!({
        "name": of.running.name,
        "startTime": of.running.started_at,
        "cpu": {"time": at, "usageNanoCores": of.rate.nanocores,
            "usageCoreNanoSeconds": of.counters.cpu_ns},
        "memory": memory(&of.counters, at),
        "rootfs": taken(images, disk.layer.bytes, disk.layer.inodes, at),
        "logs": taken(images, disk.log_bytes, 0, at),
    })
}

fn memory(counters: &Counters, at: Timestamp) -> Value {
    json!({
        "time": at,
        "usageBytes": counters.memory_bytes,
        "workingSetBytes": counters.working_set_bytes,
        "rssBytes": counters.rss_bytes,
        "pageFaults": counters.page_faults,
        "majorPageFaults": counters.major_page_faults,
    })
}

fn network(of: &Interface, at: Timestamp) -> Value {
    let mut shown = json!({"name": crate::node::usage::INTERFACE, "rxBytes": of.rx_bytes,
        "rxErrors": of.rx_errors, "txBytes": of.tx_bytes, "txErrors": of.tx_errors});
    let interfaces = vec![shown.clone()];
    shown["time"] = json!(at);
    shown["interfaces"] = interfaces.into();
    shown
}

fn filesystem(of: &Filesystem, at: Timestamp) -> Value {
    json!({
        "time": at,
        "availableBytes": of.available_bytes,
        "capacityBytes": of.capacity_bytes,
        "usedBytes": of.used_bytes(),
        "inodesFree": of.inodes_free,
        "inodes": of.inodes,
        "inodesUsed": of.inodes.saturating_sub(of.inodes_free),
    })
}

/// What somebody takes of a filesystem.
fn taken(of: &Filesystem, used_bytes: u64, inodes_used: u64, at: Timestamp) -> Value {
    let mut shown = filesystem(of, at);
    shown["usedBytes"] = used_bytes.into();
    shown["inodesUsed"] = inodes_used.into();
    shown
}

fn names(pod: &Pod) -> (&str, &str) {
    let meta = &pod.metadata;
    (
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::node::running::RunningContainer;
    use crate::node::usage::{Rate, VolumeDisk};

    pub fn reading() -> Reading {
        let pod = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u1"},
            "spec": {"containers": []}});
        let container = ContainerReading {
            running: RunningContainer {
                id: "abc".into(),
                name: "ma\"in".into(),
                image: "nginx:1".into(),
                pid: 7,
                started_at: Timestamp::from_second(1000).expect("in range"),
            },
            counters: Counters {
                cpu_ns: 2_500_000_000,
                working_set_bytes: 4096,
                memory_bytes: 8192,
                ..Counters::default()
            },
            rate: Rate {
                nanocores: 5,
                window_ms: 10_000,
            },
        };
        let pod = PodReading {
            pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
            containers: vec![container],
            interface: Some(Interface {
                rx_bytes: 11,
                tx_bytes: 22,
                ..Interface::default()
            }),
        };
        Reading {
            at: Timestamp::from_second(2000).expect("in range"),
            machine: Machine {
                memory_total_bytes: 100,
                memory_free_bytes: 30,
                inactive_file_bytes: 20,
                ..Machine::default()
            },
            rate: Rate::default(),
            pods: BTreeMap::from([("u1".to_owned(), pod)]),
        }
    }

    #[test]
    fn a_summary_has_the_node_its_pods_and_when_each_container_started() {
        let summary = summary_of(("n1", Timestamp::UNIX_EPOCH), &reading(), &Disks::default());
        assert_eq!(summary["node"]["memory"]["workingSetBytes"], 50);
        assert_eq!(summary["node"]["memory"]["availableBytes"], 50);
        let pod = &summary["pods"][0];
        assert_eq!(
            pod["podRef"],
            json!({"name": "web", "namespace": "shop", "uid": "u1"})
        );
        assert_eq!(pod["containers"][0]["startTime"], "1970-01-01T00:16:40Z");
        assert_eq!(pod["network"]["interfaces"][0]["txBytes"], 22);
        assert!(pod.get("volume").is_none(), "nothing was measured yet");
    }

    #[test]
    fn a_summary_has_what_containers_and_volumes_take_of_disks() {
        let mut reading = reading();
        reading.machine.images.capacity_bytes = 5000;
        let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "containers": [], "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "db"}},
            {"name": "own", "ephemeral": {}},
            {"name": "late", "emptyDir": {}},
        ]}});
        let known = reading.pods.get_mut("u1").expect("a pod");
        known.pod = Arc::new(serde_json::from_value(pod).expect("a pod"));
        let volume = VolumeDisk {
            used_bytes: 700,
            inodes_used: 7,
            filesystem: Filesystem {
                capacity_bytes: 1000,
                ..Filesystem::default()
            },
        };
        let mut disk = PodDisk::default();
        let container = disk.containers.entry("ma\"in".to_owned()).or_default();
        (container.layer.bytes, container.log_bytes) = (30, 4);
        for name in ["data", "own"] {
            disk.by_volume.insert(name.to_owned(), volume);
        }
        let shown = super::pod(
            "u1",
            &reading.pods["u1"],
            &disk,
            (&reading.machine, reading.at),
        );
        let container = &shown["containers"][0];
        let bytes = |of: &str| container[of]["usedBytes"].as_u64();
        assert_eq!((bytes("rootfs"), bytes("logs")), (Some(30), Some(4)));
        assert_eq!(container["rootfs"]["capacityBytes"], 5000);
        assert_eq!(shown["ephemeral-storage"]["usedBytes"], 34);
        let volumes = shown["volume"].as_array().expect("volumes");
        let claims: Vec<&Value> = volumes.iter().map(|it| &it["pvcRef"]["name"]).collect();
        assert_eq!(claims, ["db", "web-own"]);
        assert_eq!(
            (&volumes[0]["usedBytes"], &volumes[0]["capacityBytes"]),
            (&700.into(), &1000.into())
        );
    }
}
