//! The whole product as its users meet it: a dev cluster, kubectl, requests, and things that die.
//!
//! Each test makes a cluster of its own and removes it.

#[path = "e2e/rollouts.rs"]
mod rollouts;
#[path = "e2e/walkthrough.rs"]
mod walkthrough;

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::{Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    capture::Capture,
    cluster::{Cluster, Kubectl, PodSeen, manifest, output, wait},
    http_load::{self, Load},
};

#[test]
fn a_service_spreads_requests_over_pods_on_three_nodes_and_the_underlay_sees_only_the_overlay() {
    let cluster = Cluster::up("e2e", 3).unwrap();
    let kubectl = cluster.client().unwrap();
    let (service, pods) = deploy(&kubectl);
    client_pod(&kubectl);

    let capture = Capture::start(&cluster.namespace("underlay")).unwrap();
    let node = cluster
        .namespace("node-1")
        .enter(|| http_load::connections((service, 80), 1000));
    assert_eq!(node.failures, Vec::<String>::new(), "requests of a node");
    assert_spread(&node.by_pod, &pods);

    let container = cluster.container("client", "client").unwrap();
    let url = format!("http://{service}/?[1-1000]");
    let curl = [
        "exec",
        &container,
        "curl",
        "-sS",
        "--max-time",
        "60",
        "-H",
        "Connection: close",
        &url,
    ];
    let answers = cluster.docker(&curl).unwrap();
    let pod = answers
        .lines()
        .filter_map(served_by)
        .fold(Counts::new(), |mut counts, name| {
            *counts.entry(name.to_owned()).or_default() += 1;
            counts
        });
    assert_eq!(pod.values().sum::<usize>(), 1000, "requests of a pod");
    assert_spread(&pod, &pods);
    assert_only_overlay(&capture.packets().unwrap(), &pods);

    for number in 1..=3 {
        assert_clean_node(&cluster.node(number)).unwrap();
    }
    cluster.down().unwrap();
}

#[test]
fn what_dies_under_load_heals_and_neither_agent_nor_server_is_missed() {
    let cluster = Cluster::up("e2e", 3).unwrap();
    let kubectl = cluster.client().unwrap();
    let (service, pods) = deploy(&kubectl);

    // A container: started again in place. A pod: replaced.
    let load = Load::connections((service, 80), cluster.enter("node-1"));
    let victim = &pods[0].name;
    let container = cluster.container(victim, "nginx").unwrap();
    cluster.docker(&["kill", &container]).unwrap();
    wait("the container's restart is counted", || {
        let count = kubectl.field(
            &format!("pod {victim}"),
            "/status/containerStatuses/0/restartCount",
        )?;
        Ok((count == "1").then_some(()))
    });
    wait("three pods are Ready", || three_ready(&kubectl));
    let gone = &pods[1].name;
    kubectl
        .run(&format!("delete pod {gone} --wait=false"))
        .unwrap();
    let pods = wait("another pod takes the place", || {
        Ok(three_ready(&kubectl)?.filter(|now| now.iter().all(|pod| pod.name != *gone)))
    });
    let after = cluster
        .namespace("node-2")
        .enter(|| http_load::connections((service, 80), 300));
    assert_eq!(
        after.failures,
        Vec::<String>::new(),
        "requests after the cluster healed"
    );
    assert_spread(&after.by_pod, &pods);
    let outcome = load.stop();
    println!(
        "container and pod died: {} answered, {} failed",
        outcome.answered(),
        outcome.failures.len()
    );

    for what in ["node-2", "server"] {
        unharmed_by_the_death_of(&cluster, &kubectl, service, what);
    }
    cluster.down().unwrap();
}

/// Neither a request nor a connection fails, and no container restarts.
fn unharmed_by_the_death_of(cluster: &Cluster, kubectl: &Kubectl, service: Ipv4Addr, what: &str) {
    let before = cluster.containers().unwrap();
    let loads = [
        Load::connections((service, 80), cluster.enter("node-1")),
        Load::connections((service, 80), cluster.enter("node-2")),
        Load::one_connection((service, 80), cluster.enter("node-1")),
        Load::one_connection((service, 80), cluster.enter("node-2")),
    ];
    let pid = cluster.pid(what).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait("the supervisor starts it again", || {
        Ok((cluster.pid(what)? != pid).then_some(()))
    });
    // It works again when what only it can do is done. (Pods of the Service are left alone: one that
    // comes or goes may refuse a connection for a moment, whoever died.)
    let name = format!("after-{what}");
    wait("a pod is taken", || {
        kubectl
            .run(&format!("run {name} --image=tools --labels=app={name}"))
            .map(Some)
    });
    wait("a new pod is Ready", || {
        Ok((kubectl.ready_pods(&format!("app={name}"))?.len() == 1).then_some(()))
    });
    kubectl
        .run(&format!("delete pod {name} --grace-period=1"))
        .unwrap();
    let mut answered = 0;
    for load in loads {
        let outcome = load.stop();
        assert_eq!(
            outcome.failures,
            Vec::<String>::new(),
            "under load while {what} died"
        );
        answered += outcome.answered();
    }
    println!("{what} died: {answered} answered, none failed");
    assert_eq!(
        cluster.containers().unwrap(),
        before,
        "containers and their starts"
    );
}

type Counts = std::collections::BTreeMap<String, usize>;

/// Three replicas behind a Service, one on each node.
fn deploy(kubectl: &Kubectl) -> (Ipv4Addr, Vec<PodSeen>) {
    for file in ["nginx-deployment.yaml", "nginxsvc.yaml"] {
        kubectl.args(&["apply", "-f", &manifest(file)]).unwrap();
    }
    let pods = wait("three pods are Ready", || three_ready(kubectl));
    let nodes: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    assert_eq!(nodes.len(), 3, "three pods are on three nodes: {pods:?}");
    let service = kubectl
        .field("service nginxsvc", "/spec/clusterIP")
        .unwrap();
    wait("the Service has three endpoints", || {
        let slices = kubectl.json("get endpointslices -l kubernetes.io/service-name=nginxsvc")?;
        let count = slices["items"][0]["endpoints"]
            .as_array()
            .map_or(0, Vec::len);
        Ok((count == 3).then_some(()))
    });
    (service.parse().unwrap(), pods)
}

fn three_ready(kubectl: &Kubectl) -> Result<Option<Vec<PodSeen>>> {
    let pods = kubectl.ready_pods("app=nginx")?;
    Ok((pods.len() == 3).then_some(pods))
}

/// A pod that only waits; requests are made in its container.
fn client_pod(kubectl: &Kubectl) {
    kubectl
        .run("run client --image=tools --restart=Never --labels=app=client")
        .unwrap();
    wait("the client's pod is Ready", || {
        Ok((kubectl.ready_pods("app=client")?.len() == 1).then_some(()))
    });
}

/// `<p>Served by POD to ADDRESS</p>`.
fn served_by(line: &str) -> Option<&str> {
    line.strip_prefix("<p>Served by ")?.split(' ').next()
}

/// A fair choice among three gives each a third; a tenth is far outside of chance.
fn assert_spread(counts: &Counts, pods: &[PodSeen]) {
    let total: usize = counts.values().sum();
    for pod in pods {
        let count = counts.get(&pod.name).copied().unwrap_or(0);
        assert!(
            count * 10 > total * 2,
            "{} answered {count} of {total}: {counts:?}",
            pod.name
        );
    }
}

/// Between nodes only VXLAN, and inside of it only addresses of pods and of nodes' pod ranges.
fn assert_only_overlay(packets: &[tests::capture::Packet], pods: &[PodSeen]) {
    let is_pod = |address: Ipv4Addr| address.octets()[..2] == [10, 100];
    let is_service = |address: Ipv4Addr| address.octets()[..2] == [10, 96];
    let mut inner = 0;
    for packet in packets {
        for address in [packet.from, packet.to] {
            assert!(
                !is_pod(address),
                "a pod's packet is bare on the underlay: {packet:?}"
            );
            assert!(
                !is_service(address),
                "a Service's address is on the underlay: {packet:?}"
            );
        }
        if let Some(inside) = &packet.inner {
            inner += 1;
            assert!(
                is_pod(inside.from) && is_pod(inside.to),
                "in the overlay: {packet:?}"
            );
            assert_ne!(
                inside.from.octets()[2],
                inside.to.octets()[2],
                "one node: {packet:?}"
            );
            let to_pod = pods
                .iter()
                .any(|p| p.address == inside.to || p.address == inside.from);
            assert!(to_pod, "a stranger in the overlay: {packet:?}");
        }
    }
    assert!(
        inner > 1000,
        "two of three pods are on other nodes, but the overlay carried {inner}"
    );
}

/// No packet filter and no bridge: the kernel's own tools say so.
fn assert_clean_node(node: &str) -> Result<()> {
    for tool in [
        &["nft", "list", "ruleset"][..],
        &["iptables-save"],
        &["ip", "link", "show", "type", "bridge"],
    ] {
        let found = output(
            std::process::Command::new("ip")
                .args(["netns", "exec", node])
                .args(tool),
        )?;
        ensure!(found.trim().is_empty(), "{node}: {tool:?} prints\n{found}");
    }
    Ok(())
}
