//! Addresses and ranges that are somebody else's: what Services and nodes may not claim.

use super::*;
use sys::certificates::Identity;

const NODES: &str = "/api/v1/nodes";

impl Cluster {
    /// The agent of a node, whose object is made first.
    async fn node(&self, name: &str, range: &str, address: &str) -> Self {
        let body = node(name, &[range], address);
        self.post(NODES, body).await.expect(201);
        let identity = Identity::new(&format!("system:node:{name}"), &["system:nodes"]);
        self.as_user(User::from_certificate(identity))
    }

    /// Why a write is refused.
    async fn why(&self, answer: impl Future<Output = Answer>, code: u16) -> String {
        let answer = answer.await;
        assert_eq!(answer.code.as_u16(), code, "{}", answer.body);
        answer.message().to_owned()
    }

    async fn say_address(&self, node: &str, address: &str) -> Answer {
        let status = json!({"addresses": [{"type": "InternalIP", "address": address}]});
        let path = format!("{NODES}/{node}/status");
        self.merge(&path, json!({"status": status})).await
    }

    async fn balance(&self, name: &str, address: &str) -> Answer {
        let status = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
        let path = format!("{SERVICES}/{name}/status");
        self.merge(&path, json!({"status": status})).await
    }
}

fn node(name: &str, ranges: &[&str], address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDRs": ranges},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]}})
}

fn external(address: &str) -> Value {
    json!({"ports": [{"port": 443}], "externalIPs": [address]})
}

#[tokio::test]
async fn a_service_answers_at_no_address_of_a_pod_a_service_a_node_or_the_server() {
    let cluster = Cluster::start().await;
    cluster.node("node-1", "10.100.1.0/24", "172.31.0.11").await;
    let balancer = json!({"type": "LoadBalancer", "ports": [{"port": 443}]});
    cluster
        .post(SERVICES, service("lb", balancer))
        .await
        .expect(201);
    let cases = [
        ("10.96.0.1", "is in the cluster's range 10.96.0.0/16"),
        ("10.96.0.10", "is in the cluster's range 10.96.0.0/16"),
        ("10.100.1.7", "is in the cluster's range 10.100.0.0/16"),
        ("172.31.0.11", "is an address of a node"),
        ("172.31.0.1", "is the API server's address"),
        (
            "::ffff:10.96.0.1",
            "must not be an IPv4-mapped IPv6 address",
        ),
    ];
    for (address, expected) in cases {
        let post = cluster.post(SERVICES, service("x", external(address)));
        let why = cluster.why(post, 422).await;
        assert!(why.contains("spec.externalIPs[0]: Invalid value"), "{why}");
        assert!(why.contains(expected), "{why}");
        let why = cluster.why(cluster.balance("lb", address), 422).await;
        assert!(
            why.contains("status.loadBalancer.ingress[0].ip: Invalid value"),
            "{why}"
        );
        assert!(why.contains(expected), "{why}");
    }
    // Ranges of documentation, as Kubernetes' conformance has them, and one address for two Services.
    for name in ["a", "b"] {
        cluster
            .post(SERVICES, service(name, external("203.0.113.9")))
            .await
            .expect(201);
    }
    cluster.balance("lb", "203.0.113.9").await.expect(200);
}

#[tokio::test]
async fn a_service_that_exists_may_not_be_changed_to_take_an_address_either() {
    let cluster = Cluster::start().await;
    cluster
        .post(SERVICES, service("x", external("203.0.113.9")))
        .await
        .expect(201);
    let path = format!("{SERVICES}/x");
    let change = json!({"spec": {"externalIPs": ["203.0.113.9", "10.96.0.1"]}});
    let why = cluster.why(cluster.merge(&path, change), 422).await;
    assert!(why.contains("spec.externalIPs[1]"), "{why}");
    let other = json!({"metadata": {"labels": {"a": "b"}}});
    cluster.merge(&path, other).await.expect(200);
}

#[tokio::test]
async fn a_node_has_a_share_of_the_clusters_ranges_that_no_other_node_has() {
    let cluster = Cluster::start().await;
    let agent = cluster.node("node-1", "10.100.1.0/24", "172.31.0.11").await;
    cluster.node("node-2", "10.100.2.0/24", "172.31.0.12").await;
    let cases = [
        ("10.100.2.0/24", "is the pod range of another node"),
        (
            "8.8.8.0/24",
            "must be a share of the cluster's pod ranges: a /24 of 10.100.0.0/16",
        ),
        (
            "10.96.0.0/24",
            "must be a share of the cluster's pod ranges",
        ),
        (
            "10.100.3.0/25",
            "must be a share of the cluster's pod ranges",
        ),
        (
            "10.100.0.0/16",
            "must be a share of the cluster's pod ranges",
        ),
        (
            "fd00:100:0:1::/64",
            "must be a share of the cluster's pod ranges",
        ),
        ("10.100.3.7/24", "must be in canonical form"),
        (
            "::ffff:10.100.2.0/120",
            "must not have an IPv4-mapped IPv6 address",
        ),
    ];
    for (range, expected) in cases {
        let post = cluster.post(NODES, node("0", &[range], "172.31.0.66"));
        let why = cluster.why(post, 422).await;
        assert!(why.contains("spec.podCIDRs[0]: Invalid value"), "{why}");
        assert!(why.contains(expected), "{why}");
    }
    // The second family of the theft that a node could do by itself.
    let stolen = json!({"spec": {"podCIDRs": ["10.100.1.0/24", "::ffff:10.100.2.0/120"]}});
    let answer = agent.merge(&format!("{NODES}/node-1"), stolen).await;
    assert!(
        [403, 422].contains(&answer.code.as_u16()),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn of_two_nodes_that_ask_for_one_range_at_once_one_gets_it() {
    let cluster = Cluster::start().await;
    let asked = (0..8).map(|n| {
        let body = node(
            &format!("n{n}"),
            &["10.100.7.0/24"],
            &format!("172.31.0.{}", 20 + n),
        );
        cluster.post(NODES, body)
    });
    let answers = futures::future::join_all(asked).await;
    let made = answers
        .iter()
        .filter(|answer| answer.code == StatusCode::CREATED);
    assert_eq!(made.count(), 1);
}

#[tokio::test]
async fn a_range_and_an_address_are_free_again_when_their_node_has_gone() {
    let cluster = Cluster::start().await;
    cluster.node("node-1", "10.100.1.0/24", "172.31.0.11").await;
    let again = || cluster.post(NODES, node("other", &["10.100.1.0/24"], "172.31.0.11"));
    again().await.expect(422);
    cluster.delete(&format!("{NODES}/node-1")).await.expect(200);
    again().await.expect(201);
}

#[tokio::test]
async fn a_node_is_at_no_address_of_another_node_a_pod_a_service_or_the_server() {
    let pool = "203.0.113.200".parse().expect("an address");
    let cluster = Cluster::with(ServerConfig {
        bound: vec!["fd00:31::1".parse().expect("an address")],
        load_balancer_pool: vec![pool..=pool],
        ..ServerConfig::default()
    })
    .await;
    let agent = cluster.node("node-1", "10.100.1.0/24", "172.31.0.11").await;
    cluster.node("node-2", "10.100.2.0/24", "172.31.0.12").await;
    cluster
        .post(SERVICES, service("x", external("203.0.113.9")))
        .await
        .expect(201);
    let balancer = json!({"type": "LoadBalancer", "ports": [{"port": 443}]});
    cluster
        .post(SERVICES, service("lb", balancer))
        .await
        .expect(201);
    cluster.balance("lb", "203.0.113.1").await.expect(200);
    let cases = [
        ("172.31.0.12", "is an address of another node"),
        ("10.100.2.7", "is in the cluster's range 10.100.0.0/16"),
        ("10.96.0.1", "is in the cluster's range 10.96.0.0/16"),
        ("172.31.0.1", "is the API server's address"),
        ("fd00:31::1", "is the API server's address"),
        (
            "203.0.113.9",
            "is an external or load balancer address of a Service",
        ),
        (
            "203.0.113.1",
            "is an external or load balancer address of a Service",
        ),
        ("203.0.113.200", "is in the pool of load balancer addresses"),
        ("127.0.0.1", "may not be in the loopback range"),
        (
            "::ffff:172.31.0.12",
            "must not be an IPv4-mapped IPv6 address",
        ),
    ];
    for (address, expected) in cases {
        let why = cluster.why(agent.say_address("node-1", address), 422).await;
        assert!(
            why.contains("status.addresses[0].address: Invalid value"),
            "{why}"
        );
        assert!(why.contains(expected), "{why}");
    }
    agent.say_address("node-1", "172.31.0.99").await.expect(200);
    // What it left is free, what it has is taken.
    let why = cluster.why(cluster.balance("lb", "172.31.0.99"), 422).await;
    assert!(why.contains("is an address of a node"), "{why}");
    cluster.balance("lb", "172.31.0.11").await.expect(200);
    cluster.delete(&format!("{SERVICES}/lb")).await.expect(200);
    agent.say_address("node-1", "172.31.0.11").await.expect(200);
}

#[tokio::test]
async fn a_node_gives_its_pods_no_address_of_others() {
    let cluster = Cluster::start().await;
    let agent = cluster.node("node-1", "10.100.1.0/24", "172.31.0.11").await;
    cluster.node("node-2", "10.100.2.0/24", "172.31.0.12").await;
    for (name, host_network) in [("p", false), ("h", true)] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = "node-1".into();
        pod["spec"]["hostNetwork"] = host_network.into();
        cluster.post(PODS, pod).await.expect(201);
    }
    let say = async |pod: &str, address: &str| {
        let status = json!({"podIP": address, "podIPs": [{"ip": address}]});
        let path = format!("{PODS}/{pod}/status");
        agent.merge(&path, json!({"status": status})).await
    };
    for (pod, address) in [
        ("p", "10.100.2.7"),
        ("p", "172.31.0.1"),
        ("p", "172.31.0.11"),
        ("h", "172.31.0.12"),
        ("h", "10.100.1.7"),
    ] {
        let why = cluster.why(say(pod, address), 403).await;
        assert!(
            why.contains("node \"node-1\" can only give an address of its"),
            "{why}"
        );
    }
    say("p", "10.100.1.7").await.expect(200);
    say("h", "172.31.0.11").await.expect(200);
}
